"""The table of sizes, latencies and accuracies."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.batches import arrays
from keras_l0.analysis.facts import Size
from keras_l0.analysis.rounding import outputs
from keras_l0.export.answers import answers
from keras_l0.export.flatbuffer import is_tflite
from keras_l0.export.latency import latency
from keras_l0.export.prepare import class_indices, one_per_example
from keras_l0.export.report import accuracy
from keras_l0.layers import find_gates
from keras_l0.report import Profile


@dataclasses.dataclass(frozen=True)
class SizeRow:
    """One model or file of the table; None for what it does not have.

    Attributes:
        name: What it is.
        params: Parameters, as Keras counts them, gates not counted.
        macs: Multiply-accumulates per example.
        bytes: Of a file, its size.
        seconds: Of a file, the median time of an inference on this machine, one
            thread.
        accuracy: Share of the labels that it gets right.
    """

    name: str
    params: int | None = None
    macs: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    accuracy: float | None = None


def keras_rows(
    model: keras.Model,
    now: Profile,
    before: keras.Model | None,
    then: Profile | None,
    data: Any,
    labels: Any,
) -> Iterator[SizeRow]:
    """The models: as they were, and as they are."""
    if before is not None and then is not None:
        yield _row(f"before: {before.name}", then.dense, _right(before, data, labels))
    elif find_gates(model):
        yield _row("all gates open", now.dense, None)
    name = "stripped" if find_gates(model) else f"now: {model.name}"
    # Strip changes no output: the gated model answers for the stripped one.
    yield _row(name, now.deployed, _right(model, data, labels))


def file_rows(
    files: Sequence[str | os.PathLike[str]], data: Any, labels: Any, runs: int
) -> Iterator[SizeRow]:
    """The .tflite files, in the order given."""
    listed = [files] if isinstance(files, (str, os.PathLike)) else files
    paths = list(map(Path, listed))
    for path in paths:
        if not is_tflite(path):
            raise ValueError(f"`files` must be .tflite files. Received: {str(path)!r}")
    times = latency(paths, runs) if paths else []
    for path, time in zip(paths, times, strict=True):
        right = None
        if labels is not None:
            right = _share(answers(path, data), labels)
        size = path.stat().st_size
        yield SizeRow(path.name, bytes=size, seconds=time.median, accuracy=right)


def _row(name: str, size: Size, right: float | None) -> SizeRow:
    return SizeRow(name, params=size.params, macs=size.macs, accuracy=right)


def _right(model: keras.Model, data: Any, labels: Any) -> float | None:
    """How often a Keras model is right."""
    if labels is None:
        return None
    batch = arrays(model, data)
    class_indices(model, data, labels, len(batch[0]))
    return _share(outputs(model, batch)[0], labels)


def _share(answered: np.ndarray, labels: Any) -> float:
    if answered.shape[-1] < 2:
        raise ValueError(
            "`labels` must be for a model with an output per class. Received: outputs "
            f"of shape {answered.shape}"
        )
    return accuracy(answered, one_per_example(labels))
