"""How fast gates learn under a budget: fast enough to keep pace with the limit."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

# How far log_alpha can go while the limit comes down, at least. Between open and closed
# lie about 5: what can go there and back some times is chosen, not swept along.
_TRAVEL = 32.0
# It goes no farther than this in one step.
_STRIDE = 0.25
# Optimizers whose steps are about as large as the learning rate.
_EVEN = tuple(
    getattr(keras.optimizers, name)
    for name in ("Adam", "Adamax", "Lion", "Nadam", "RMSprop")
)
_UPDATE = "_backend_update_step"


def pace(optimizer: Any, multiplier: float, taken: int, steps: int) -> float:
    """How many times faster gates have to learn, a power of two; 1 if not at all.

    In few steps, or at the small learning rate of a fine-tuning, gates would move so
    little while the limit comes down that multipliers grow until all of them move
    together, and which ones stay is left to chance.

    Args:
        optimizer: What trains them, without what scales its loss.
        multiplier: `GateOptions.learning_rate_multiplier`.
        taken: Steps of the ramp that have been taken.
        steps: Those of all of it.
    """
    if not isinstance(optimizer, _EVEN):
        return 1.0
    steps = max(1, steps // (optimizer.gradient_accumulation_steps or 1))
    stride = multiplier * _mean_rate(optimizer, taken, steps)
    if not stride > 0:
        return 1.0
    wanted = min(_TRAVEL / steps, _STRIDE)
    return 2.0 ** max(0, round(math.log2(wanted / stride)))


def _mean_rate(optimizer: Any, taken: int, steps: int) -> float:
    """The learning rate, as a mean over the ramp as far as a schedule tells."""
    rate = optimizer._learning_rate
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return _number(optimizer.learning_rate)
    first = max(0, int(_number(optimizer.iterations)) - taken)
    some = np.linspace(first, first + steps, 32)
    return float(np.mean([_number(rate(step)) for step in some]))


def _number(value: Any) -> float:
    # Under a strategy of TensorFlow a variable is several, which are no number.
    return float(keras.ops.convert_to_numpy(value))


def quicken(optimizer: Any, paces: dict[int, float]) -> None:
    """Lets an optimizer change some variables faster than the others.

    Args:
        optimizer: The optimizer, without what scales its loss.
        paces: How many times faster, by the id of the variable.
    """
    slow_down(optimizer)
    if any(pace != 1 for pace in paces.values()):
        update = getattr(optimizer, _UPDATE)
        # Past the optimizer's tracker.
        vars(optimizer)[_UPDATE] = functools.partial(_update, update, paces)


def slow_down(optimizer: Any) -> None:
    """Undoes `quicken`."""
    if optimizer is not None:
        vars(optimizer).pop(_UPDATE, None)


def _update(
    update: Any, paces: dict[int, float], grads: Iterable[Any],
    variables: Iterable[Any], rate: Any,
) -> None:  # fmt: skip
    """Updates variables in groups, each of which has its own learning rate."""
    groups: dict[float, list[tuple[Any, Any]]] = {}
    for grad, variable in zip(grads, variables, strict=True):
        pace = paces.get(id(variable), 1.0)
        groups.setdefault(pace, []).append((grad, variable))
    for pace, group in groups.items():
        update(*map(list, zip(*group, strict=True)), rate * pace)
