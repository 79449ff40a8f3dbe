"""What gates take as arguments, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_l0.arguments import is_integer


def validated_axis(axis: Any) -> int | tuple[int, ...]:
    """An axis, or several, as integers."""
    if isinstance(axis, (list, tuple)) and axis:
        entries = tuple(axis)
    else:
        entries = (axis,)
    for entry in entries:
        if not is_integer(entry):
            raise TypeError(
                "`axis` must be an integer or a non-empty sequence of integers. "
                f"Received: axis={axis!r}"
            )
    entries = tuple(int(entry) for entry in entries)
    return entries if isinstance(axis, (list, tuple)) else entries[0]


def real_numbers(values: Any) -> np.ndarray | None:
    """``values`` (numbers, lists, any tensor) as float64; None if they are not real."""
    try:
        array = np.asarray(ops.convert_to_numpy(values))
    except (TypeError, ValueError):  # a ragged list, for instance
        return None
    if not np.can_cast(array.dtype, "float64", "same_kind") or array.dtype == bool:
        return None
    return array.astype("float64")


def validated_cost(cost: Any) -> float | list[float]:
    """Parameters per gate: one number for all, or one for each."""
    values = real_numbers(cost)
    if values is None:
        raise TypeError(
            "`cost` must be a number or an array of numbers, the parameters that a "
            f"gate switches. Received: cost={cost!r} of type {type(cost).__name__}"
        )
    if not (np.all(np.isfinite(values)) and np.all(values >= 0)):
        raise ValueError(
            "`cost` must be the number (>= 0) of parameters that a gate switches. "
            f"Received: cost={cost!r}"
        )
    return values.ravel().tolist() if values.ndim else float(values)
