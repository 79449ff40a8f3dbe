"""`measure_latency`: how long the layers of a model take, shape by shape."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

from keras_l0.arguments import require_integer
from keras_l0.export.latency import fastest
from keras_l0.export.options import Options
from keras_l0.export.prepare import check_packages
from keras_l0.export.probes import LEAST, write_probes
from keras_l0.latency_table import SHARES, LatencyTable, blank_entries

_PACKAGES = ("keras", "ai-edge-litert", "tensorflow", "tensorflow-cpu")

# Microseconds per inference of each of some files.
Timer = Callable[[list[Path]], Sequence[float]]


def measure_latency(
    model: keras.Model,
    quantization: str | None = None,
    *,
    inputs: str = "keep",
    shares: Sequence[float] = SHARES,
    threads: int = 1,
    timer: Timer | None = None,
    device: str | None = None,
) -> LatencyTable:
    """Measures how long layers of the shapes in a model take, for budgets of latency.

    For each layer shape (class, kernel, strides, sizes, ...) one-layer .tflite files
    are written for a grid of numbers of input and output channels, and timed with
    LiteRT and XNNPACK. The files of a shape take turns, so that what else the machine
    does meanwhile slows all of them alike; of each turn the fastest run counts, of the
    turns the median. Two or three minutes for a network of ten shapes, most of which
    is the conversion.

    What counts are Dense layers, convolutions, pooling, padding, upsampling, sums and
    products of branches, and activations other than ReLU. What the converter makes part
    of the call before (ReLU, BatchNormalization behind a convolution) or of nothing
    (Flatten) does not; nor do other calls without kernels. A model with other kernels,
    as of recurrences or attention, is refused.

    Args:
        model: A built Sequential or functional model, gated or not: the shapes are the
            same. It is left untouched, and its weights do not matter.
        quantization: Of the files, as in `keras_l0.to_tflite`; none takes data.
        inputs: As in `keras_l0.strip`, of the budget that is to go by the table.
        shares: The shares of a layer's channels that are measured, besides the fewest
            and the most that it may have. Of the inputs of a kernel, in which its time
            is as good as linear, every second one; of its units, where these are 16 or
            more, the two counts on both sides of the nearest multiple of 16, where time
            makes a step.
        threads: Threads of the interpreter.
        timer: What times files instead of this machine: it gets a list of paths and
            returns as many numbers, microseconds per inference. It is called once for
            the overhead, and then once per layer shape.
        device: What the table says it was measured on. Default: this processor; with a
            ``timer``, its name.

    Returns:
        A `LatencyTable`. ``save`` it: it holds for all models with these layer shapes.

    Raises:
        ImportError: If TensorFlow or LiteRT is not installed.
        TypeError: If ``model`` is not a Keras model.
        ValueError: If the model has no readable graph, a layer has no shape by which
            it could be measured, or an option is out of range.
        ExportError: If a layer has no form in builtin operations.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
        >>> table = keras_l0.measure_latency(model)  # doctest: +SKIP
        >>> table.save("laptop.json")  # doctest: +SKIP
        >>> budget = keras_l0.Budget(latency=0.5, table=table)  # doctest: +SKIP
    """
    Options(quantization)
    require_integer("threads", threads, 1)
    blank = blank_entries(model, inputs, shares)
    check_packages()
    if device is None:
        device = _processor() if timer is None else getattr(timer, "__name__", "")

    def timed(paths: list[Path]) -> list[float]:
        found = timer(paths) if timer else fastest(paths, threads)
        times = [float(one) for one in found]
        if len(times) != len(paths) or not np.isfinite(times).all() or min(times) < 0:
            raise ValueError(
                "`timer` must return the microseconds per inference of each file, "
                f"numbers >= 0. Received: {found!r} for {len(paths)} files"
            )
        return times

    probes = [LEAST]
    for entry in blank:
        probes += [(entry.shape, i, o) for i in entry.inputs for o in entry.outputs]
    entries = []
    with tempfile.TemporaryDirectory(prefix="keras-l0-") as folder:
        first, *paths = write_probes(probes, Path(folder), quantization)
        (overhead,) = timed([first])
        for entry in blank:
            rows, columns = len(entry.inputs), len(entry.outputs)
            times = np.reshape(timed(paths[: rows * columns]), (rows, columns))
            del paths[: rows * columns]
            rounded = tuple(tuple(float(f"{t:.4g}") for t in row) for row in times)
            entries.append(dataclasses.replace(entry, microseconds=rounded))
    return LatencyTable(
        tuple(entries),
        overhead=float(f"{overhead:.4g}"),
        quantization=quantization,
        threads=threads,
        device=device,
        versions=_versions(),
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    named = re.search(r"^(?:model name|Hardware)\s*: (.+)$", text, re.MULTILINE)
    name = named[1].strip() if named else platform.processor()
    return f"{name or platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
