"""A Keras model as the bytes of a .tflite file: trace, freeze, convert."""

from __future__ import annotations

import dataclasses
import re
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_l0.export.flatbuffer import float_ops, read_ops
from keras_l0.export.lowering import lowered
from keras_l0.export.options import Options
from keras_l0.export.report import ExportError
from keras_l0.export.signature import Signature
from keras_l0.export.silence import silence

_CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf"}
_OF_SEVERAL_OUTPUTS = {"SPLIT", "SPLIT_V", "UNPACK"}
# How often to convert where chance decides: see `_left_by_chance`.
_TRIES = 6


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A TensorFlow graph whose weights are constants.

    Attributes:
        graph: Its `GraphDef`.
        inputs: Names of its input tensors, in the order of the signature.
        outputs: Names of its output tensors, in the same order.
    """

    graph: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def loops(self) -> bool:
        """Whether it has loops or branches: calibration may crash on them."""
        return any(node.op in _CONTROL_FLOW for node in _nodes(self.graph))


def freeze(model: keras.Model, signature: Signature, batch_size: int | None) -> Frozen:
    """Traces a model as it computes in inference.

    Args:
        model: A functional model on the TensorFlow backend.
        signature: Its signature.
        batch_size: Examples per inference; None leaves it open.

    Raises:
        ExportError: If TensorFlow cannot trace it.
    """
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    def infer(*flat: Any) -> list[Any]:
        structured = keras.tree.pack_sequence_as(model.input, list(flat))
        outputs = keras.tree.flatten(model(structured, training=False))
        return [tf.identity(output) for output in outputs]

    with silence(), lowered():
        try:
            traced = tf.function(infer, autograph=False).get_concrete_function(
                *_specs(signature, batch_size)
            )
            # Given variables, the converter leaves the weights out of the file.
            to_constants = (
                convert_to_constants.convert_variables_to_constants_v2_as_graph
            )
            frozen, graph = to_constants(traced, lower_control_flow=False)
        except Exception as error:
            raise ExportError(
                f"Model {model.name!r} could not be traced ({_reason(error)}). "
                "Nothing was written."
            ) from error
    _drop_gradients(graph)
    _square_by_product(graph)
    return Frozen(
        graph,
        tuple(tensor.name for tensor in frozen.inputs),
        tuple(tensor.name for tensor in frozen.outputs),
    )


def convert(
    frozen: Frozen,
    signature: Signature,
    options: Options,
    representative: list[np.ndarray] | None,
) -> bytes:
    """The .tflite file's bytes; the same bytes for the same graph.

    Args:
        frozen: The graph.
        signature: Names, shapes and dtypes of its inputs and outputs.
        options: What to convert to.
        representative: For ``"int8"``, one array per input to calibrate on; None if the
            graph itself says what the ranges are.

    Raises:
        ExportError: If the converter fails.
    """
    import tensorflow as tf

    specs = _specs(signature, options.batch_size)

    def named(*flat: Any) -> dict[str, Any]:
        outputs = tf.graph_util.import_graph_def(
            frozen.graph,
            input_map=dict(zip(frozen.inputs, flat, strict=True)),
            return_elements=list(frozen.outputs),
            name="",
        )
        return dict(zip(signature.outputs, outputs, strict=True))

    def examples() -> Iterator[dict[str, np.ndarray]]:
        assert representative is not None
        size = options.batch_size or 1
        for start in range(0, len(representative[0]) - size + 1, size):
            batch = (array[start : start + size] for array in representative)
            yield dict(zip(signature.inputs, batch, strict=True))

    with silence(), warnings.catch_warnings():
        # TensorFlow's own, where it calibrates: there is nothing to be done about it.
        warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprec")
        try:
            # Freezing drops the outputs' names, and without a trackable object (any)
            # the converter writes no signature: hence this wrapper and the tf.Module.
            signed = tf.function(named, autograph=False).get_concrete_function(*specs)
            converter = tf.lite.TFLiteConverter.from_concrete_functions(
                [signed], tf.Module()
            )
            sets = tf.lite.OpsSet
            calibrated = options.int8 and representative is not None
            builtins = sets.TFLITE_BUILTINS_INT8 if calibrated else sets.TFLITE_BUILTINS
            converter.target_spec.supported_ops = [builtins]
            if "float" in options.allow:
                converter.target_spec.supported_ops.append(sets.TFLITE_BUILTINS)
            if "flex" in options.allow:
                converter.target_spec.supported_ops.append(sets.SELECT_TF_OPS)
            if options.quantization:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if options.sparse:
                converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
            if options.quantization == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if calibrated:
                converter.representative_dataset = examples
            if options.int8:
                dtype = tf.as_dtype(options.io_dtype)
                converter.inference_input_type = dtype
                converter.inference_output_type = dtype
            for _ in range(_TRIES):
                content: bytes = converter.convert()
                if not (calibrated and _left_by_chance(content)):
                    break
            return content
        except Exception as error:
            raise ExportError(
                "The model could not be converted to "
                f"{'' if 'flex' in options.allow else 'builtin '}TFLite operations "
                f"({_reason(error)}). Nothing was written."
            ) from error


def _left_by_chance(content: bytes) -> bool:
    """Whether operations compute in float that might as well do it in 8 bits.

    The converter visits tensors in the order of their addresses in memory. Around
    operations of several outputs the result depends on it: of the same LSTM it leaves
    SPLIT in float about one time in six.
    """
    return any(op.name in _OF_SEVERAL_OUTPUTS for op in float_ops(read_ops(content)))


def _specs(signature: Signature, batch_size: int | None) -> list[Any]:
    import tensorflow as tf

    return [
        tf.TensorSpec((batch_size, *shape), dtype, name=name)
        for name, shape, dtype in zip(
            signature.inputs, signature.shapes, signature.dtypes, strict=True
        )
    ]


def _drop_gradients(graph: Any) -> None:
    """Forgets custom gradients: an inference has no use for them.

    With one of them in the graph (swish has one) the converter writes no signature.
    """
    for node in _nodes(graph):
        node.attr.pop("_gradient_op_type", None)


def _square_by_product(graph: Any) -> None:
    """Writes squares as products, which TFLite has in 8 bits."""
    for node in _nodes(graph):
        if node.op == "Square":
            node.op = "Mul"
            node.input.insert(1, node.input[0])


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of the functions in it."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _reason(error: Exception) -> str:
    """What in the converter's pages of text names the trouble."""
    unknown = sorted(set(re.findall(r"'tf\.(\w+)' op is neither", str(error))))
    if unknown:
        return f"none exists for {', '.join(unknown)}"
    return textwrap.shorten(f"{type(error).__name__}: {error}", 400)
