"""Which gates to close so that a model fits its budgets, and closing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.budget.constraints import Constraints
from keras_l0.budget.definition import Budget
from keras_l0.layers import L0Gate, find_gates

# Where a gate is put to close it: P(z != 0) is 1e-8.
CLOSED = -20.0


def to_close(
    model: keras.Model,
    budgets: Sequence[Budget],
    rest: Sequence[int | None] = (),
    **options: Any,
) -> list[np.ndarray]:
    """For each `L0Gate` of a model which gates to close, flat, so that it fits.

    The gates that are least likely to be open go first, of equal ones those that cost
    less: training has weighed what a gate is worth against its price already, and
    where all are sure, what costs much is read by much. The likeliest of each group of
    gates, as many as `GateOptions.min_units` holds, stay until nothing else is left.
    Frozen gates stay.

    Args:
        model: A gated model.
        budgets: What it has to fit.
        rest: For each budget the bytes of its file that are no weights, if known.
        options: As in `keras_l0.analysis.passes.Analysis`.

    Raises:
        ValueError: If no gates are left to close.
    """
    exact = Constraints(model, budgets, rest, **options)
    openness = exact.each[0].analysis.test_open()
    ends = np.cumsum([len(z) for z in openness])[:-1]

    def fits(order: np.ndarray, count: int) -> bool:
        left = np.concatenate(openness)
        left[order[:count]] = 0.0
        parts = np.split(left, ends)
        return all(one.share(parts) <= one.limit * (1 + 1e-9) for one in exact.each)

    if fits(np.zeros(0, int), 0):
        return [np.zeros(len(z), bool) for z in openness]
    order = _cheapest_first(model, budgets, rest, openness)
    low, high = 0, len(order)
    if not fits(order, high):
        exact.require_reachable()
        raise ValueError(
            f"`budget` must be within reach of the gates of {model.name!r}. "
            f"Received: {list(budgets)}, which it exceeds with every gate closed"
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(order, middle) else (middle + 1, high)
    shut = np.zeros(sum(len(z) for z in openness), bool)
    shut[order[:low]] = True
    return np.split(shut, ends)


def close_to_fit(model: keras.Model, budgets: Sequence[Budget]) -> None:
    """Closes gates of a model, in place, until it fits.

    Raises:
        ValueError: If no gates are left to close.
    """
    # Of gates that are open as many as are expected to be, another may open instead.
    while any(map(np.any, shut := to_close(model, budgets))):
        close(model, shut)


def close_for_good(model: keras.Model) -> None:
    """Closes gates, in place, that are closed at test time: in training they may open.

    Frozen gates stay, and those of which it is the others that say how many are open.
    """
    close(model, [_closed(gate) for gate in find_gates(model)])


def _closed(gate: L0Gate) -> np.ndarray:
    """Which gates are closed at test time, whatever becomes of the others."""
    if not gate.trainable or gate.options.estimator == "size_matched":
        return np.zeros(gate.count, bool)
    return keras.ops.convert_to_numpy(gate.test_gates).ravel() <= 0


def close(model: keras.Model, shut: Sequence[np.ndarray]) -> None:
    """Closes gates, in place.

    Args:
        model: A gated model.
        shut: What `to_close` returns.
    """
    for gate, which in zip(find_gates(model), shut, strict=True):
        if which.any():
            values = keras.ops.convert_to_numpy(gate.log_alpha)
            gate.assign_log_alpha(np.where(which.reshape(values.shape), CLOSED, values))


def _cheapest_first(
    model: keras.Model,
    budgets: Sequence[Budget],
    rest: Sequence[int | None],
    openness: Sequence[np.ndarray],
) -> np.ndarray:
    """Numbers of the open gates that are not frozen, those to close first in front."""
    # Without options: what they round up by is not differentiable.
    constraints = Constraints(model, budgets, rest)
    excess = [max(0.0, one.share(openness) - one.limit) for one in constraints.each]
    prices = constraints.program.gradient(openness, list(map(np.float64, excess)))
    gates = constraints.gates
    starts = np.cumsum([0, *(gate.count for gate in gates[:-1])])
    probable = constraints.each[0].analysis.prob_open()
    price, likely = np.concatenate(prices), np.concatenate(probable).round(6)
    # What saves nothing by itself comes later, last what is held open in training.
    rank = 1 * (price <= 1e-4 * price.max())
    for gate, p, start in zip(gates, probable, starts, strict=True):
        held = max(1, gate.options.held(gate.count))
        rank[start + np.argsort(-p, kind="stable")[:held]] = 2
    order = np.lexsort([price, likely, rank])
    free = [z * gate.trainable for z, gate in zip(openness, gates, strict=True)]
    return order[np.concatenate(free)[order] > 0]
