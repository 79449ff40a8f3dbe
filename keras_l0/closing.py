"""Closing the cheapest gates of a trained model until it fits a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.budget import Budget, as_budgets
from keras_l0.budgeted import copy_of, require_gates
from keras_l0.constraints import Constraints
from keras_l0.layers import find_gates

# Where a gate is put to close it: P(z != 0) is 1e-8.
_CLOSED = -20.0

_file_bytes: Callable[[keras.Model, str | None], int]


def measure_files_by(function: Callable[[keras.Model, str | None], int]) -> None:
    """Sets what tells how large the file of a plain model is under a quantization."""
    global _file_bytes
    _file_bytes = function


def fitting(
    model: keras.Model,
    budget: Budget | Sequence[Budget],
    inputs: str,
    make: Callable[[keras.Model], keras.Model],
    **options: Any,
) -> keras.Model:
    """The stripped model that fits a budget, files measured if they are limited.

    Args:
        model: A gated model. It is left untouched.
        budget: What it has to fit.
        inputs: As in `keras_l0.strip`.
        make: Strips a gated model.
        options: As in `keras_l0.analysis.passes.Analysis`.
    """
    require_gates(model)
    budgets = [dataclasses.replace(b, inputs=inputs) for b in as_budgets(budget)]
    rest: list[int | None] = [None] * len(budgets)
    while True:
        stripped = make(closed(model, budgets, rest, **options))
        over = False
        for number, one in enumerate(budgets):
            if one.bytes is None:
                continue
            size, each = _file_bytes(stripped, one.quantization), one.weight_bytes
            limit = one.bytes
            if isinstance(limit, float):
                full = make(_opened(model))
                limit = int(limit * _file_bytes(full, one.quantization))
                budgets[number] = dataclasses.replace(one, bytes=limit)
            if size > limit:
                over = True
                # What is not weights, as measured; at least one weight less each time.
                beside = size - each * stripped.count_params()
                rest[number] = max(beside, (rest[number] or 0) + each)
        if not over:
            return stripped


def closed(
    model: keras.Model,
    budgets: Sequence[Budget],
    rest: Sequence[int | None] = (),
    **options: Any,
) -> keras.Model:
    """A copy of a gated model with so many gates closed that it fits.

    The gates that are least likely to be open go first, of equal ones those that cost
    less: training has weighed what a gate is worth against its price already, and
    where all are sure, what costs much is read by much. The likeliest of each group of
    gates stays until nothing else is left.

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

    def fits(order: np.ndarray, count: int) -> bool:
        left = np.concatenate(openness)
        left[order[:count]] = 0.0
        parts = np.split(left, np.cumsum([len(z) for z in openness])[:-1])
        return all(one.share(parts) <= one.limit * (1 + 1e-9) for one in exact.each)

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
    copy, start = copy_of(model), 0
    for gate in find_gates(copy):
        _judge_alone(gate)
        shut = np.isin(np.arange(start, start + gate.count), order[:low])
        values = keras.ops.convert_to_numpy(gate.log_alpha)
        gate.assign_log_alpha(np.where(shut.reshape(values.shape), _CLOSED, values))
        start += gate.count
    return copy


def _judge_alone(gate: Any) -> None:
    """Makes test-time gates what they are now, whatever becomes of those beside them.

    Args:
        gate: The `L0Gate`.
    """
    if gate.options.estimator != "size_matched":
        return
    z = keras.ops.convert_to_numpy(gate.test_gates).astype("float64")
    gate.options = dataclasses.replace(gate.options, estimator="deterministic")
    open_at = np.where(z < 1, gate.options.location(z), -_CLOSED)
    gate.assign_log_alpha(np.where(z > 0, open_at, _CLOSED))


def _cheapest_first(
    model: keras.Model,
    budgets: Sequence[Budget],
    rest: Sequence[int | None],
    openness: Sequence[np.ndarray],
) -> np.ndarray:
    """Numbers of the open gates, those to close first in front."""
    # Without options: what they round up by is not differentiable.
    constraints = Constraints(model, budgets, rest)
    excess = [max(0.0, one.share(openness) - one.limit) for one in constraints.each]
    prices = constraints.program.gradient(openness, list(map(np.float64, excess)))
    starts = np.cumsum([0, *(gate.count for gate in constraints.gates[:-1])])
    probable = constraints.each[0].analysis.prob_open()
    price, likely = np.concatenate(prices), np.concatenate(probable).round(6)
    # What saves nothing by itself comes later, the likeliest of each group last.
    rank = 1 * (price <= 1e-4 * price.max())
    rank[[int(p.argmax()) + s for p, s in zip(probable, starts, strict=True)]] = 2
    order = np.lexsort([price, likely, rank])
    return order[np.concatenate(openness)[order] > 0]


def _opened(model: keras.Model) -> keras.Model:
    copy = copy_of(model)
    for gate in find_gates(copy):
        gate.assign_log_alpha(-_CLOSED)
    return copy
