"""Gates on single weights, or blocks of them: which units they link to which inputs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels
from keras_l0.analysis.logic import and_, rows_any, take


def kernel_of(layer: Any, name: str = "kernel") -> np.ndarray:
    """A layer's kernel at test time, in its precision; gates may switch its weights."""
    kernel = np.asarray(keras.ops.convert_to_numpy(getattr(layer, name)))
    if getattr(layer, "block", None):
        gates = layer.spread(layer.gate.test_gates)
        kernel = kernel * np.asarray(keras.ops.convert_to_numpy(gates), kernel.dtype)
    return kernel


def weight_gates(layer: Any, atoms: Atoms) -> list[Channels]:
    """The hidden channels of a layer whose gates switch weights; else none."""
    if not getattr(layer, "block", None):
        return []
    count = layer.gate.count
    return [Channels(None, atoms.new(count), np.zeros(count), width=0)]


def linked(numbers: np.ndarray, channels: Any, openness: Any, to: int) -> Any:
    """Whether an open weight links a unit, or an input, to one of ``channels``.

    Args:
        numbers: For each weight, ``(..., in, out)``, the number of its gate.
        channels: Facts of the inputs, or of the units.
        openness: Of the gates.
        to: 2 to ask for each unit, 1 for each input.
    """
    numbers = numbers.reshape(-1, *numbers.shape[-2:])
    places = np.arange(numbers.shape[3 - to], dtype="int32")
    ends = np.broadcast_to(places[:, None] if to == 2 else places, numbers.shape)
    pairs = [np.moveaxis(x, to, 0).reshape(-1) for x in (ends, numbers)]
    links = and_(take(channels, pairs[0]), take(openness, pairs[1]))
    return rows_any(links, numbers.shape[to])
