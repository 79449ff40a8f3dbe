"""`with_budget`: puts a gated model under budgets, once they have been checked."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import keras

from keras_l0.analysis.copying import (
    assign_weights,
    carry_vocabularies,
    warn_of_lost_steps,
    weights_of,
)
from keras_l0.analysis.graph import deep_recursion, open_inputs, require_graph
from keras_l0.budget.constraints import Constraints
from keras_l0.budget.definition import Budget, SetByBudget, as_budgets
from keras_l0.budget.model import BudgetedModel
from keras_l0.layers import find_gates
from keras_l0.layers.finding import require_finite_gates, require_gates


def with_budget(model: keras.Model, budget: Budget | Sequence[Budget]) -> keras.Model:
    """A copy of a gated model that trains to a budget, by plain `compile` and `fit`.

    Args:
        model: A built Sequential or functional model with gates whose ``l0`` is 0. It
            is left untouched; the copy starts with its weights.
        budget: A `Budget`, or several of them, for layers or groups of layers.

    Returns:
        A functional `BudgetedModel` with the same layers, names, inputs and outputs.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the model has no gates, a gate has an ``l0`` of its own, or the
            budget is below what can be reached.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras_l0.layers.L0Dense(8), keras.layers.Dense(2)])
        >>> model = keras_l0.with_budget(model, keras_l0.Budget(params=0.5))
        >>> model.compile("adam", "mse")
        >>> model.budgets[0].limits
        {'params': 0.5}
    """
    require_graph(model)
    budgets = as_budgets(budget)
    require_within_reach(model, budgets)
    warn_of_lost_steps(model, under_budget=True)
    return put_under(budgets, copy_of(model))


def copy_of(model: keras.Model) -> keras.Model:
    """A functional copy of a model with its weights, not compiled."""
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    with deep_recursion(len(model.operations)):
        copy = keras.models.clone_model(model)
    carry_vocabularies(model, copy)
    assign_weights(copy, weights_of(model))
    for old, new in zip(find_gates(model), find_gates(copy), strict=True):
        new.trainable = old.trainable
    return copy


def put_under(
    budgets: Sequence[Budget],
    model: keras.Model,
    wide: list[list[float]] | None = None,
) -> BudgetedModel:
    """The same layers as a model under budgets, which have been checked.

    Args:
        budgets: What the model has to fit.
        model: A gated model.
        wide: As in `Constraints`.
    """
    held = max(budget.min_units for budget in budgets)
    for gate in find_gates(model):
        gate.regularizer = SetByBudget(budgets, gate.regularizer.l2, wide)
        gate.options = dataclasses.replace(gate.options, min_units=held)
    with deep_recursion(len(model.operations)):
        return BudgetedModel(model.input, model.output, name=model.name)


def require_within_reach(model: keras.Model, budgets: Sequence[Budget]) -> None:
    """Raises unless a model has gates without strengths, and these reach the budgets.

    Args:
        model: A gated model.
        budgets: What it has to fit.
    """
    gates = require_gates(model)
    require_finite_gates(model)
    for gate in gates:
        if gate.regularizer.l0:
            raise ValueError(
                "`l0` must be 0 for gates whose price a budget sets: a gate has either "
                f"a strength or a budget. Received: l0={gate.regularizer.l0} of gate "
                f"{gate.path!r}"
            )
    if not any(gate.trainable for gate in gates):
        raise ValueError(
            "`model` must have trainable gates for a budget to close. Received: "
            f"{model.name!r}, all of whose gates are frozen"
        )
    Constraints(model, budgets).require_reachable()
    unknown = open_inputs(model)
    if unknown and any(budget.macs is not None for budget in budgets):
        warnings.warn(
            f"MACs of {model.name!r} count one position along axes of unknown size, so "
            "that a share of them may be another one where layers have different "
            f"numbers of positions. Give sizes to {', '.join(map(repr, unknown))}.",
            stacklevel=3,
        )
