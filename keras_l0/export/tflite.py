"""`to_tflite`: a Keras model, gated or plain, as a .tflite file that was compared."""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.graph import require_finite, require_graph
from keras_l0.analysis.passes import INPUT_MODES
from keras_l0.analysis.rounding import outputs
from keras_l0.arguments import require_model, require_one_of
from keras_l0.export.c_array import check_c_path
from keras_l0.export.child import convert_in_child
from keras_l0.export.convert import convert, freeze
from keras_l0.export.deliver import Delivery
from keras_l0.export.options import Options
from keras_l0.export.prepare import (
    check_packages,
    class_indices,
    comparison_batch,
    plain_form,
)
from keras_l0.export.report import ExportError, ExportReport
from keras_l0.export.representative import read_representative
from keras_l0.export.signature import Signature
from keras_l0.export.verify import Limits
from keras_l0.files import check_destination
from keras_l0.layers import find_gates
from keras_l0.report import profile


def file_bytes(model: keras.Model, quantization: str | None = None) -> int:
    """How large the TFLite file of a model is; random examples set its ranges."""
    examples = comparison_batch(model) if quantization == "int8" else None
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.tflite")
        return to_tflite(model, path, quantization, examples, verify=False).bytes


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
    io_dtype: str | None = None,
    allow: tuple[str, ...] = (),
    target: str | None = None,
    c_array: str | os.PathLike[str] | None = None,
    sparse: bool = False,
    before: keras.Model | None = None,
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
            in Keras: ``"float32"`` (default), ``"int8"`` (default for a target) or
            ``"uint8"``.
        allow: ``("float",)`` lets an ``"int8"`` file compute in float where there is no
            8-bit form; ``("flex",)`` allows TensorFlow operations, which take an
            interpreter with the Flex delegate (so the file cannot be compared here).
        target: What the file is to run on. ``"edgetpu"``: an operation that Google's
            Edge TPU would leave to the CPU is an error that names the layer, and
            ``inputs="gather"`` is refused; `edgetpu_compiler` is run if it is
            installed. ``"micro"``: the file is also run and compared in TFLite Micro,
            which says how large the arena is (extra ``micro``). ``"ethos-u"``, which is
            ``"ethos-u55-128"``, or another configuration of that NPU: Arm's Vela says
            what maps and how fast it should be (extra ``ethos-u``).
        c_array: A .cc file to write the bytes to as a C++ array, with a header beside.
        sparse: Whether a float32 file stores kernels that are mostly 0 without the
            zeros: for gates of ``granularity=(1, 4)`` or ``"weights"``. It saves bytes,
            and no time, but in fully connected operations with blocks of four inputs.
            Other files do not run with sparse weights, so it is refused for them.
            Layers whose blocks are gated then keep all units, so that blocks stay side
            by side, and others a multiple of 4.
        before: The network that this one was made from, or another of the same inputs:
            it is converted and run in the same way, and the report shows bytes, sizes,
            latency and accuracy before and after.

    Returns:
        An `ExportReport`; ``print`` shows it.

    Raises:
        ImportError: If TensorFlow, LiteRT or what the target takes is not installed.
        TypeError: If ``path`` is not a path, or ``model`` or ``before`` not a Keras
            model.
        ValueError: If the model is subclassed, not built, holds NaN or infinite
            weights, has inputs of unknown sizes, an option is unknown, or
            ``representative_data`` (which ``"int8"`` takes), ``data`` or ``labels`` do
            not fit or hold NaN.
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
    require_one_of("inputs", inputs, INPUT_MODES)
    limits = Limits(max_error, min_top1)
    options = Options(quantization, io_dtype, batch_size, allow, target, sparse)
    if target == "edgetpu" and inputs == "gather":
        raise ValueError(
            "`inputs` must be 'keep' or 'narrow' for target='edgetpu', which has no "
            "GATHER. Received: inputs='gather'"
        )
    c_path = None if c_array is None else check_c_path(c_array, destination)
    if options.int8 and representative_data is None:
        raise ValueError(
            "`representative_data` must be given for quantization='int8': a few "
            "hundred examples to measure the ranges of activations on. "
            "Received: representative_data=None"
        )
    require_graph(model)
    check_packages()
    require_finite(model)
    plain, options = plain_form(model, inputs, options)
    signature = Signature.of(plain)
    representative = None
    if representative_data is not None:
        representative = read_representative(
            plain, representative_data, signature.inputs
        )
    if data is None and representative is not None:
        batch = representative
    else:
        batch = comparison_batch(plain, data, signature.inputs)
    classes = class_indices(plain, data, labels, len(batch[0]))

    earlier = None
    if before is not None:
        options_before = dataclasses.replace(options, target=None, sparse=False)
        earlier = _before(before, options_before, representative, batch, labels, verify)
    dense = profile(model, inputs).dense if find_gates(model) else None
    return Delivery(
        path=destination,
        c_path=c_path,
        model=plain,
        signature=signature,
        options=options,
        batch=batch,
        classes=classes,
        expected=functools.partial(outputs, plain),
        verify=verify,
        limits=limits if quantization else None,
        dense=dense,
        before=earlier,
    ).deliver(_content(plain, signature, options, representative))


def _before(
    model: keras.Model,
    options: Options,
    representative: list[np.ndarray] | None,
    batch: list[np.ndarray],
    labels: Any,
    verify: bool,
) -> tuple[ExportReport, bytes]:
    """The report and the bytes of the network to compare with."""
    require_model("before", model)
    with tempfile.TemporaryDirectory(prefix="keras-l0-") as folder:
        path = os.path.join(folder, "before.tflite")
        try:
            report = to_tflite(
                model, path, options.quantization, representative,
                data=batch, labels=labels, verify=verify, max_error=np.inf,
                batch_size=options.batch_size, io_dtype=options.io_dtype,
                allow=options.allow,
            )  # fmt: skip
        except (ValueError, ExportError) as error:
            raise type(error)(f"`before` could not be exported: {error}") from error
        with open(path, "rb") as file:
            return report, file.read()


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
