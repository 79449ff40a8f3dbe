"""How long one inference of a .tflite file takes on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_l0.export.silence import silence

_WARM_UP_RUNS = 10


class Latency(NamedTuple):
    """Seconds per inference: the median, and what 95 % of the runs stay below."""

    median: float
    p95: float


def latency(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    runs: int = 200,
    threads: int = 1,
) -> list[Latency]:
    """Times .tflite files on random inputs.

    The files take turns, run by run, so that what else the machine does meanwhile
    slows all of them alike: compare files of one call, not of two.

    Args:
        paths: A file, or a list of files.
        runs: Timed inferences of each file; 10 more come first.
        threads: Threads of the interpreter.

    Returns:
        One `Latency` per file, in their order.

    Raises:
        ValueError: If ``runs`` is not positive, or a file is not a .tflite file.

    Example:
        >>> from keras_l0.export.latency import latency
        >>> full, pruned = latency(["full.tflite", "pruned.tflite"])  # doctest: +SKIP
        >>> pruned.median / full.median  # doctest: +SKIP
        0.31
    """
    if runs < 1:
        raise ValueError(f"`runs` must be at least 1. Received: runs={runs}")
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    with silence():
        interpreters = [_ready(path, threads) for path in paths]
    seconds = np.zeros((len(interpreters), runs))
    for run in range(-_WARM_UP_RUNS, runs):
        for index, interpreter in enumerate(interpreters):
            start = time.perf_counter()
            interpreter.invoke()
            if run >= 0:
                seconds[index, run] = time.perf_counter() - start
    return [
        Latency(float(np.median(row)), float(np.percentile(row, 95))) for row in seconds
    ]


def _ready(path: str | os.PathLike[str], threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=os.fspath(path), num_threads=threads)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for tensor in interpreter.get_input_details():
        # Zeros are valid whatever an integer input looks up.
        values = np.zeros(tensor["shape"], tensor["dtype"])
        if values.dtype.kind == "f":
            values = np.asarray(rng.normal(size=values.shape), values.dtype)
        interpreter.set_tensor(tensor["index"], values)
    return interpreter
