"""`strip`: the plan carried out, a plain Keras model of what is kept."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

from keras_l0.analysis.graph import require_finite
from keras_l0.analysis.passes import Analysis
from keras_l0.budget import Budget, as_budgets
from keras_l0.budget.fitting import fitting, inputs_of
from keras_l0.budget.model import BudgetedModel
from keras_l0.devices import replicated, require_one_process
from keras_l0.rewrite import Rewriter
from keras_l0.verification import require_plain, require_promised, verify_equal


def strip(
    model: keras.Model,
    inputs: str | None = None,
    *,
    keep: Iterable[str] = (),
    round_to: int = 1,
    min_units: int = 1,
    budget: Budget | Sequence[Budget] | None = None,
    verify: bool = True,
    data: Any = None,
) -> keras.Model:
    """The same function as a smaller, plain Keras model: no gates, no closed units.

    The outputs stay what they are up to rounding and up to the sign of zeros: a closed
    gate may make -0.0 where strip makes 0.0, which `keras.ops.arctan2`, `signbit` and
    `argmax` tell apart.

    Args:
        model: A built Sequential or functional model. It is left untouched.
        inputs: What becomes of input features that no open unit reads.
            ``"keep"``: they stay, and are ignored. ``"gather"``: the model selects
            the features it reads from the full input. ``"narrow"``: the model takes
            fewer features; `keras_l0.plan` lists which. ``"gather"`` also selects
            among flattened features inside the network. Default: what the ``budget``
            says, else ``"keep"``.
        keep: Names of layers all of whose units stay.
        round_to: Unit counts are rounded up to a multiple of this; a head counts as
            the features that it has.
        min_units: No layer that stays is left with fewer units.
        budget: What the result has to fit, a `Budget` or several. If it would not, the
            gates that are worth least for what they save are closed: those that are
            least likely to be open, where savings are alike. The outputs are those of
            the model with these gates closed. Of ``bytes``, the TFLite file itself is
            measured.
        verify: Whether to run the old and the new model on a batch and compare.
        data: The batch to compare on, as `model.predict` takes it; random by default.

    Returns:
        A functional model of built-in layers and operations, with the source's names
        and structure of inputs and outputs. Compile it anew to train it.

    Raises:
        TypeError: If ``model`` is not a Keras model.
        ValueError: If ``model`` has no readable graph or holds a NaN or infinite
            weight, an option is out of range, a budget out of reach, or a barrier
            cannot be made anew.
        RuntimeError: If the new model disagrees with the old one by more than rounding,
            or the rule of a layer fails.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)),
        ...     keras_l0.layers.L0Dense(3, activation="relu"),
        ...     keras.layers.Dense(2),
        ... ])
        >>> keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, 9.0])
        >>> small = keras_l0.strip(model)
        >>> small.layers[1].units, model.count_params() - 3, small.count_params()
        (2, 23, 16)
    """
    require_finite(model)
    require_one_process(model)
    if isinstance(keep, Iterator):
        keep = list(keep)  # it is read several times
    options: dict[str, Any] = dict(keep=keep, round_to=round_to, min_units=min_units)
    if inputs is None:
        inputs = "keep" if budget is None else inputs_of(as_budgets(budget))
    make: Callable[[keras.Model], keras.Model] = functools.partial(
        _stripped, inputs=inputs, **options, verify=verify, data=data
    )
    if budget is not None:
        return fitting(model, budget, inputs, make, **options)
    if isinstance(model, BudgetedModel) and model.above:
        warnings.warn(
            f"Model {model.name!r} is above its budget, at {model.above}. Train it to "
            "the end, or pass `budget` to strip, which closes what is over.",
            stacklevel=2,
        )
    return make(model)


def _stripped(
    model: keras.Model, inputs: str, *, verify: bool, data: Any, **options: Any
) -> keras.Model:
    """`strip` without a budget."""
    analysis = Analysis(model, inputs, **options)
    if not analysis.gates:
        warnings.warn(
            f"Nothing was gated in model {model.name!r}: strip returns a copy of it.",
            stacklevel=3,
        )
    evaluation = analysis.deployed()
    with replicated():
        stripped = Rewriter(analysis, evaluation).run()
    require_plain(analysis, stripped)
    require_promised(analysis, evaluation, stripped)
    if verify:
        verify_equal(analysis, evaluation, stripped, data)
    return stripped
