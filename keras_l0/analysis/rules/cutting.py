"""An `L0Gate` with some of its gates only: what is left of its weights and charges."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def held_together(gate: Any) -> str | None:
    """Why the gates of one `L0Gate` cannot be taken apart, if so."""
    if gate.options.estimator == "size_matched":
        return "which of its gates are open depends on how many there are"
    if len(gate.raw.shape) > 1:
        return "its gates lie on several axes"
    return None


def cut_indices(numbers: np.ndarray, kept: np.ndarray) -> list[int] | None:
    """The ``indices`` of a switch whose mask is drawn by some of its gates only.

    Args:
        numbers: Of the gates that the switch multiplies by.
        kept: Of those that the mask is left with.
    """
    if np.array_equal(numbers, kept):
        return None
    return np.searchsorted(kept, numbers).tolist()


def cut_gate(gate: Any, kept: Any) -> dict[int, np.ndarray]:
    """By the ids of a gate's weights what they are for some of its gates.

    Args:
        gate: The `L0Gate`.
        kept: Numbers of the gates that are kept, or a slice.
    """
    arrays = {id(w): keras.ops.convert_to_numpy(w) for w in gate.weights}
    # Beside, there is what counts the steps of a schedule.
    return {**arrays, id(gate.raw): arrays[id(gate.raw)][kept]}


def cut_cost(gate: Any, kept: Any) -> Any:
    """What some of an `L0Gate`'s gates are charged for: what they always were."""
    return np.asarray(gate.cost)[kept].tolist() if np.ndim(gate.cost) else gate.cost
