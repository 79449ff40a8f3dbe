"""What `strip` does under a budget: gates close until the result, or its file, fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.budget.closing import CLOSED, close, to_close
from keras_l0.budget.constraints import Constraints
from keras_l0.budget.definition import Budget, as_budgets
from keras_l0.budget.making import copy_of
from keras_l0.layers import find_gates
from keras_l0.layers.finding import require_gates

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
                limit = int(limit * _full_bytes(model, one, make))
                budgets[number] = dataclasses.replace(one, bytes=limit)
            if size > limit:
                over = True
                # What is not weights, as measured; at least one weight less each time.
                beside = size - each * stripped.count_params()
                rest[number] = max(beside, (rest[number] or 0) + each)
        if not over:
            return stripped


def _full_bytes(
    model: keras.Model, budget: Budget, make: Callable[[keras.Model], keras.Model]
) -> float:
    """The bytes of the file with all gates open."""
    (constraint,) = (
        one for one in Constraints(model, [budget]).each if one.measure == "bytes"
    )
    if constraint.was_wider:  # Only an estimate is left of what it was.
        return constraint.amount(1.0)
    return _file_bytes(make(_opened(model)), budget.quantization)


def inputs_of(budgets: Sequence[Budget]) -> str:
    """What budgets say of the inputs of the stripped model that they limit.

    Raises:
        ValueError: If they do not agree.
    """
    modes = {budget.inputs for budget in budgets}
    if len(modes) > 1:
        raise ValueError(
            "`inputs` must be given where budgets differ in theirs. "
            f"Received: inputs=None with budgets for {', '.join(sorted(modes))}"
        )
    return modes.pop()


def closed(
    model: keras.Model,
    budgets: Sequence[Budget],
    rest: Sequence[int | None] = (),
    **options: Any,
) -> keras.Model:
    """A copy of a gated model with so many gates closed that it fits, by `to_close`."""
    shut = to_close(model, budgets, rest, **options)
    copy = copy_of(model)
    for gate in find_gates(copy):
        _judge_alone(gate)
    close(copy, shut)
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
    open_at = np.where(z < 1, gate.options.location(z), -CLOSED)
    gate.assign_log_alpha(np.where(z > 0, open_at, CLOSED))


def _opened(model: keras.Model) -> keras.Model:
    copy = copy_of(model)
    for gate in find_gates(copy):
        gate.assign_log_alpha(-CLOSED)
    return copy
