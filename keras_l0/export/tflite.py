"""`to_tflite`: a Keras model, gated or plain, as a .tflite file that was compared."""

from __future__ import annotations

import gzip
import importlib
import os
import re
import textwrap
from typing import Any

import keras

from keras_l0.analysis.batches import arrays, random_arrays
from keras_l0.analysis.graph import require_finite, require_graph
from keras_l0.analysis.passes import INPUT_MODES
from keras_l0.analysis.precision import in_float32
from keras_l0.export.files import check_destination, write_atomically
from keras_l0.export.flatbuffer import count_ops
from keras_l0.export.report import ExportError, ExportReport
from keras_l0.export.signature import Signature
from keras_l0.export.silence import silence
from keras_l0.export.verify import verify as verify_file
from keras_l0.layers import find_gates
from keras_l0.report import profile
from keras_l0.rewrite import strip

# A model without data of its own is compared with its file on this many examples.
_EXAMPLES = 16


def to_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    data: Any = None,
    verify: bool = True,
    inputs: str = "keep",
) -> ExportReport:
    """Writes a model as a float32 .tflite file of builtin operations only.

    A gated model is stripped first. The file computes one example per inference, and
    its signature has the names that Keras gives the inputs and outputs. Before it is
    written, its outputs are compared with Keras': what differs by more than 10 times
    the model's own rounding floor is an error. The file appears whole or not at all,
    and an earlier one stays where the export fails. Nothing is printed; the process's
    stdout and stderr are redirected while it converts and runs the file.

    Args:
        model: A built Sequential or functional model, with or without gates. It is
            left as it is. A model of another precision is exported under float32.
        path: The file to write.
        data: Examples to compare on, in any form that ``model.predict`` takes: an
            array, or a list or dict of them. After ``inputs="narrow"`` they are those
            of the narrow model. Default: 16 random examples.
        verify: Whether to compare at all.
        inputs: What `strip` does with input features that no open gate reads:
            ``"keep"``, ``"gather"`` or ``"narrow"``.

    Returns:
        An `ExportReport`; ``print`` shows it.

    Raises:
        ImportError: If TensorFlow or LiteRT is not installed.
        RuntimeError: If Keras runs on another backend than TensorFlow.
        TypeError: If ``path`` is not a path, or ``model`` not a Keras model.
        ValueError: If the model is subclassed, not built, holds NaN or infinite
            weights, has inputs of unknown sizes, or ``data`` does not fit it.
        OSError: If ``path`` cannot be written to.
        ExportError: If the model has no form in builtin operations, or the file does
            not agree with it.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> report = keras_l0.to_tflite(model, "dense.tflite")  # doctest: +SKIP
        >>> report.ops  # doctest: +SKIP
        {'FULLY_CONNECTED': 1}
    """
    destination = check_destination(path)
    if inputs not in INPUT_MODES:
        raise ValueError(
            f"`inputs` must be one of {', '.join(map(repr, INPUT_MODES))}. "
            f"Received: inputs={inputs!r}"
        )
    require_graph(model)
    _check_backend()
    require_finite(model)
    plain = _plain(model, inputs)
    try:
        # TFLite runs float32; the converter fails on half precision.
        plain = in_float32(plain)
    except ValueError as error:
        raise ExportError(f"{error}; nothing was written.") from error
    signature = Signature.of(plain)
    if data is None:
        batch = random_arrays(plain, _EXAMPLES)
    else:
        batch = arrays(plain, data, signature.inputs)

    content = _convert(plain, signature)
    agreement = verify_file(content, plain, signature, batch) if verify else None
    report = ExportReport(
        path=destination,
        bytes=len(content),
        gzip_bytes=len(gzip.compress(content, mtime=0)),
        max_difference=agreement.difference if agreement else None,
        tolerance=agreement.tolerance if agreement else None,
        ops=count_ops(content),
        params=plain.count_params(),
        macs=profile(plain).deployed.macs,
        inputs=signature.inputs,
        outputs=signature.outputs,
    )
    write_atomically(destination, content)
    return report


def _check_backend() -> None:
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            'Export needs the TensorFlow backend (`pip install "keras-l0[tensorflow]"`'
            f" brings it), and Keras runs on {backend!r}: save the model "
            '(`model.save("model.keras")`), load it in a process with '
            "KERAS_BACKEND=tensorflow, and export it there."
        )
    for module in ("tensorflow", "ai_edge_litert"):
        try:
            with silence():
                importlib.import_module(module)
        except ImportError as error:
            raise ImportError(
                f"Export needs {module}, which cannot be imported ({error}): "
                'pip install "keras-l0[tensorflow]"'
            ) from error


def _plain(model: keras.Model, inputs: str) -> keras.Model:
    """The model without gates, as a functional one."""
    if find_gates(model):
        model = strip(model, inputs=inputs)
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs, model.outputs, name=model.name)
    return model


def _convert(model: keras.Model, signature: Signature) -> bytes:
    """The .tflite file's bytes; the same bytes for the same model."""
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    specs = [
        tf.TensorSpec((1, *shape), dtype, name=name)
        for name, shape, dtype in zip(
            signature.inputs, signature.shapes, signature.dtypes, strict=True
        )
    ]

    def infer(*flat: Any) -> list[Any]:
        structured = keras.tree.pack_sequence_as(model.input, list(flat))
        outputs = keras.tree.flatten(model(structured, training=False))
        return [tf.identity(output) for output in outputs]

    def named(*flat: Any) -> dict[str, Any]:
        outputs = tf.graph_util.import_graph_def(
            graph,
            input_map={to.name: x for to, x in zip(frozen.inputs, flat, strict=True)},
            return_elements=[output.name for output in frozen.outputs],
            name="",
        )
        return dict(zip(signature.outputs, outputs, strict=True))

    with silence():
        try:
            traced = tf.function(infer, autograph=False).get_concrete_function(*specs)
            # Given variables, the converter leaves the weights out of the file.
            freeze = convert_to_constants.convert_variables_to_constants_v2_as_graph
            frozen, graph = freeze(traced, lower_control_flow=False)
            _drop_gradients(graph)
            # Freezing drops the outputs' names, and without a trackable object (any)
            # the converter writes no signature: hence this wrapper and the tf.Module.
            signed = tf.function(named, autograph=False).get_concrete_function(*specs)
            converter = tf.lite.TFLiteConverter.from_concrete_functions(
                [signed], tf.Module()
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            return converter.convert()
        except Exception as error:
            raise ExportError(
                f"Model {model.name!r} could not be converted to builtin TFLite "
                f"operations ({_reason(error)}); nothing was written."
            ) from error


def _drop_gradients(graph: Any) -> None:
    """Forgets custom gradients: an inference has no use for them.

    With one of them in the graph (swish has one) the converter writes no signature.
    """
    functions = (function.node_def for function in graph.library.function)
    for nodes in (graph.node, *functions):
        for node in nodes:
            node.attr.pop("_gradient_op_type", None)


def _reason(error: Exception) -> str:
    """What in the converter's pages of text names the trouble."""
    unknown = sorted(set(re.findall(r"'tf\.(\w+)' op is neither", str(error))))
    if unknown:
        return f"none exists for {', '.join(unknown)}"
    return textwrap.shorten(f"{type(error).__name__}: {error}", 400)
