"""`add_gates`: a gated copy of a model that a user already has."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import keras

from keras_l0.analysis.copying import warn_of_lost_steps
from keras_l0.arguments import require_seed
from keras_l0.budget import Budget, as_budgets
from keras_l0.budget.making import put_under, require_within_reach
from keras_l0.convert.conversion import Conversion
from keras_l0.convert.plan import GatePlan
from keras_l0.convert.selection import Selector, Strength
from keras_l0.layers import GateOptions

__all__ = ["GatePlan", "add_gates", "plan_gates"]


def plan_gates(
    model: keras.Model,
    *,
    layers: Selector | Iterable[Selector] | None = None,
    skip: Selector | Iterable[Selector] = (),
) -> GatePlan:
    """Where `keras_l0.add_gates` puts gates, what they can save, and what gets none.

    Args:
        model: As in `add_gates`.
        layers: As in `add_gates`.
        skip: As in `add_gates`.

    Returns:
        A `GatePlan`; ``print`` shows it.

    Raises:
        TypeError: As `add_gates` does.
        ValueError: As `add_gates` does.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)),
        ...     keras.layers.Dense(3, activation="relu"),
        ...     keras.layers.Dense(2),
        ... ], name="toy")
        >>> keras_l0.plan_gates(model)
        <GatePlan of 'toy': 3 gates in 1 groups reach 66.7% of the kernels>
    """
    return Conversion(model, layers, skip).plan()


def add_gates(
    model: keras.Model,
    l0: Strength = 0.0,
    *,
    budget: Budget | Sequence[Budget] | None = None,
    layers: Selector | Iterable[Selector] | None = None,
    skip: Selector | Iterable[Selector] = (),
    gate_options: GateOptions | None = None,
    seed: int | None = None,
) -> keras.Model:
    """A gated copy of a model: train it, and `keras_l0.strip` what it does not need.

    Gates go wherever strip can remove units exactly: behind the normalization and the
    activation of a layer, on its heads (attention) or inside of its recurrence. Layers
    whose units can only go together, as those of a residual stream, share one mask,
    which is drawn once a step and charged once; recurrences among them, and both
    directions of a Bidirectional, follow it inside. Each gate is charged for what its
    removal saves in the whole model: its own weights and those that read it. Output
    layers get none. `keras_l0.plan_gates` tells all this beforehand.

    Args:
        model: A built Sequential or functional model without gates. It is left
            untouched.
        l0: Strength of the penalty per parameter: a float, a schedule of
            `keras_l0.schedules` or a `regularizers.L0`, or a mapping from what
            ``layers`` takes to strengths, of which the first that fits a layer counts
            (0 if none does; of layers that share a mask the largest in the end).
        budget: How large the stripped model may be, instead of a strength: a `Budget`,
            or several of them.
        layers: Which layers to gate: the name of a layer or a pattern such as
            ``"block3_*"``, a layer class, a layer, a function that takes a layer and
            returns whether to gate it, or several of these; a nested model, or its
            name, stands for all of its layers. None gates all. Units that are tied are
            gated together.
        skip: Which layers keep all of their units, in the same form.
        gate_options: `GateOptions`. Recurrent layers draw once per batch in any case.
        seed: Seed of the gates' noise.

    Returns:
        A functional model (under a budget, a `BudgetedModel`) with the same inputs,
        outputs and layer names, and a copy of the weights. With all gates open, as they
        are at the start, it computes the same. Nested models are inlined; layers of
        theirs whose names are taken go by that of their model as well. It is not
        compiled.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the model has no readable graph, holds gates already or weights
            that are not finite, if a selection fits no layer, if both a strength and a
            budget are given, or if the gates cannot reach the budget.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)),
        ...     keras.layers.Dense(3, activation="relu"),
        ...     keras.layers.Dense(2),
        ... ])
        >>> gated = keras_l0.add_gates(model, l0=1e-4)
        >>> gate, = keras_l0.gates(gated)
        >>> gate.count, gate.cost  # 4 weights and a bias into a unit, 2 out of it
        (3, 7.0)
        >>> gate.assign_log_alpha([9.0, -9.0, 9.0])
        >>> keras_l0.strip(gated).count_params()
        16
    """
    seed = require_seed(seed)
    options = GateOptions.get(gate_options)
    conversion = Conversion(model, layers, skip, options, l0)
    if not conversion.gated:
        left = "; ".join(f"{u.name}: {u.reason}" for u in conversion.plan().ungated)
        warnings.warn(
            f"No layer of model {model.name!r} can be gated: add_gates returns a copy "
            f"of it ({left or 'it has no layers with weights'}).",
            stacklevel=2,
        )
    elif idle := conversion.idle():
        warnings.warn(
            f"{' and '.join(idle)} fits layers that get no gates. "
            f"`keras_l0.plan_gates` says why.",
            stacklevel=2,
        )
    warn_of_lost_steps(model, under_budget=budget is not None)
    gated = conversion.build(seed)
    if budget is None:
        return gated
    budgets = as_budgets(budget)
    require_within_reach(gated, budgets)
    return put_under(budgets, gated)
