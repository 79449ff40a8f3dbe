"""`to_tflite`: a Keras model, gated or plain, as a .tflite file that was compared."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import importlib.util
import os
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.batches import arrays, random_arrays
from keras_l0.analysis.graph import require_finite, require_graph
from keras_l0.analysis.passes import INPUT_MODES
from keras_l0.analysis.precision import in_float32
from keras_l0.analysis.rounding import outputs
from keras_l0.export.child import convert_in_child
from keras_l0.export.convert import convert, freeze
from keras_l0.export.files import check_destination, write_atomically
from keras_l0.export.flatbuffer import Op, count, float_ops, rangeless, read_ops
from keras_l0.export.options import Options
from keras_l0.export.report import ExportError, ExportReport, accuracy
from keras_l0.export.representative import read_representative
from keras_l0.export.signature import Signature
from keras_l0.export.silence import silence
from keras_l0.export.unroll import unrolled
from keras_l0.export.verify import run, verify_quantized
from keras_l0.export.verify import verify as verify_float
from keras_l0.layers import find_gates
from keras_l0.report import profile
from keras_l0.rewrite import strip

# A model without data of its own is compared with its file on this many examples.
_EXAMPLES = 16


def to_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    quantization: str | None = None,
    representative_data: Any = None,
    *,
    data: Any = None,
    labels: Any = None,
    verify: bool = True,
    max_error: float = 0.5,
    min_top1: float = 0.0,
    inputs: str = "keep",
    batch_size: int | None = 1,
    io_dtype: str = "float32",
    allow: tuple[str, ...] = (),
) -> ExportReport:
    """Writes a model as a .tflite file of builtin operations only.

    A gated model is stripped first. The file's signature has the names that Keras gives
    the inputs and outputs. Before it is written, its outputs are compared with Keras':
    in float32, what differs by more than 10 times the model's own rounding floor is an
    error. The file appears whole or not at all, and an earlier one stays where the
    export fails. Nothing is printed; the process's stdout and stderr are redirected
    while it converts and runs the file.

    On the JAX and Torch backends a TensorFlow child process converts. One does, too,
    where calibration could end the process (loops in the graph).

    Args:
        model: A built Sequential or functional model, with or without gates. It is
            left as it is. A model of another precision is exported under float32.
        path: The file to write.
        quantization: ``None`` for float32; ``"float16"`` halves the weights,
            ``"dynamic"`` stores them in 8 bits, ``"int8"`` computes in 8 bits
            throughout: a file that does not is refused. Recurrent layers are unrolled
            for ``"int8"``.
        representative_data: What ``"int8"`` takes the ranges of activations from:
            arrays as ``model.predict`` takes them, a `tf.data.Dataset`, a generator, a
            function that returns one, or another iterable of examples or batches; of
            tuples ``(x, y)`` the first part counts. Up to 512 examples are used, of
            arrays evenly spread ones. After ``inputs="narrow"`` they are those of the
            narrow model, as is ``data``.
        data: Examples to compare on, in any form that ``model.predict`` takes: an
            array, or a list or dict of them. Default: those of
            ``representative_data``, or else 16 random ones.
        labels: Classes of ``data``, integers or one-hot, for a model of one output; the
            report then says how many the file and Keras get right.
        verify: Whether to compare at all.
        max_error: How far a quantized file's output may be off: the root mean square of
            the difference, as a share of how far the output itself varies.
        min_top1: The share of examples in which the largest output of a quantized file
            must be the one that it is in Keras.
        inputs: What `strip` does with input features that no open gate reads:
            ``"keep"``, ``"gather"`` or ``"narrow"``.
        batch_size: Examples per inference; None leaves it open, and recurrent layers
            are unrolled then. Models with a fixed batch keep it.
        io_dtype: Of an ``"int8"`` file, the dtype of inputs and outputs that are float
            in Keras: ``"float32"``, ``"int8"`` or ``"uint8"``.
        allow: ``("float",)`` lets an ``"int8"`` file compute in float where there is no
            8-bit form; ``("flex",)`` allows TensorFlow operations, which take an
            interpreter with the Flex delegate (so the file cannot be compared here).

    Returns:
        An `ExportReport`; ``print`` shows it.

    Raises:
        ImportError: If TensorFlow or LiteRT is not installed.
        TypeError: If ``path`` is not a path, or ``model`` not a Keras model.
        ValueError: If the model is subclassed, not built, holds NaN or infinite
            weights, has inputs of unknown sizes, an option is unknown, or
            ``representative_data`` (which ``"int8"`` takes), ``data`` or ``labels`` do
            not fit.
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
    options = Options(quantization, io_dtype, batch_size, tuple(allow))
    if options.int8 and representative_data is None:
        raise ValueError(
            "quantization='int8' takes `representative_data`, a few hundred examples "
            "to measure the ranges of activations on. Received: None"
        )
    require_graph(model)
    _check_packages()
    require_finite(model)
    plain, options = _plain(model, inputs, options)
    signature = Signature.of(plain)
    representative = None
    if representative_data is not None:
        representative = read_representative(
            plain, representative_data, signature.inputs
        )
    if data is not None:
        batch = arrays(plain, data, signature.inputs)
    else:
        batch = representative or random_arrays(plain, _EXAMPLES)
    classes = _classes(plain, data, labels, len(batch[0]))

    content = _content(plain, signature, options, representative)
    ops = read_ops(
        content,
        [layer.name for layer in plain._flatten_layers(include_self=False)],
        dict(zip(signature.outputs, plain.output_names, strict=True)),
    )
    _check_ops(ops, options, runs=verify or classes is not None)
    found: dict[str, Any] = {"max_difference": None, "tolerance": None}
    if verify or classes is not None:
        try:
            received = run(content, signature, batch, options.batch_size)
        except ExportError as error:
            raise _explained(error, ops) from error
        if verify and quantization:
            found = verify_quantized(
                received, plain, signature, batch, max_error, min_top1
            )
        elif verify:
            found = verify_float(received, plain, signature, batch)
        if classes is not None:
            found["accuracy"] = accuracy(received[0], classes)
            found["keras_accuracy"] = accuracy(outputs(plain, batch)[0], classes)
    if find_gates(model):
        dense = profile(model, inputs).dense
        found.update(dense_params=dense.params, dense_macs=dense.macs)
    report = ExportReport(
        path=destination,
        bytes=len(content),
        gzip_bytes=len(gzip.compress(content, mtime=0)),
        ops=count(ops),
        params=plain.count_params(),
        macs=profile(plain).deployed.macs,
        inputs=signature.inputs,
        outputs=signature.outputs,
        quantization=quantization,
        **found,
    )
    write_atomically(destination, content)
    return report


def _check_packages() -> None:
    """Finds out now what is missing; TensorFlow itself may be a child's affair."""
    needed = ["ai_edge_litert"]
    if keras.backend.backend() == "tensorflow":
        needed.append("tensorflow")
    elif importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            "Export takes TensorFlow, on other backends in a process of its own, and "
            'it is not installed: pip install "keras-l0[tensorflow]"'
        )
    for module in needed:
        try:
            with silence():
                importlib.import_module(module)
        except ImportError as error:
            raise ImportError(
                f"Export needs {module}, which cannot be imported ({error}): "
                'pip install "keras-l0[tensorflow]"'
            ) from error


def _plain(
    model: keras.Model, inputs: str, options: Options
) -> tuple[keras.Model, Options]:
    """The model without gates, functional, in a form that the converter takes."""
    if find_gates(model):
        model = strip(model, inputs=inputs)
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    fixed = {tensor.shape[0] for tensor in model.inputs} - {None}
    if fixed:
        options = dataclasses.replace(options, batch_size=max(fixed))
    try:
        # TFLite runs float32; the converter fails on half precision.
        model = in_float32(model)
        if options.int8 or options.batch_size is None:
            model = unrolled(model)
    except ValueError as error:
        raise ExportError(f"{error}; nothing was written.") from error
    return model, options


def _classes(
    model: keras.Model, data: Any, labels: Any, examples: int
) -> np.ndarray | None:
    """Labels as one integer per example."""
    if labels is None:
        return None
    classes = np.asarray(labels)
    if classes.ndim == 2:
        classes = classes.argmax(-1) if classes.shape[-1] > 1 else classes[:, 0]
    one = len(model.outputs) == 1 and len(model.outputs[0].shape) == 2
    if data is None or not one or classes.shape != (examples,):
        raise ValueError(
            "`labels` must hold the class of each example in `data`, for a model with "
            f"one output of shape (n, classes). Received: labels of shape "
            f"{np.shape(labels)}, {'no' if data is None else examples} examples, "
            f"outputs of shape {[tuple(t.shape) for t in model.outputs]}"
        )
    return classes


def _content(
    model: keras.Model,
    signature: Signature,
    options: Options,
    representative: list[np.ndarray] | None,
) -> bytes:
    """The file's bytes, made here or in a process of their own."""
    if keras.backend.backend() != "tensorflow":
        return convert_in_child(model, signature, options, representative)
    frozen = freeze(model, signature, options.batch_size)
    if options.int8 and frozen.loops:
        return convert_in_child(frozen, signature, options, representative)
    return convert(frozen, signature, options, representative)


def _explained(error: ExportError, ops: list[Op]) -> ExportError:
    dead = dict.fromkeys(map(str, rangeless(ops)))
    if not dead:
        return error
    return ExportError(
        f"{error} What these make is 0 on all of `representative_data`, which leaves "
        f"it no range: {', '.join(dead)}. Calibrate on data that is like the model's "
        "own, or remove what never acts."
    )


def _check_ops(ops: list[Op], options: Options, runs: bool) -> None:
    flex = sorted({op.name for op in ops if op.name.startswith("Flex")})
    if flex and runs:
        raise ExportError(
            f"The file has TensorFlow operations ({', '.join(flex)}), which LiteRT "
            "cannot run here to compare it: pass verify=False. Nothing was written."
        )
    if options.int8 and "float" not in options.allow:
        left = dict.fromkeys(map(str, float_ops(ops)))
        if left:
            raise ExportError(
                "quantization='int8' leaves operations that compute in float, because "
                f"TFLite has no 8-bit form of them: {', '.join(left)}. Replace them in "
                "the model, or let them pass with allow=('float',). Nothing was "
                "written."
            )
