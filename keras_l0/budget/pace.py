"""How fast gates learn under a budget: fast enough to keep pace with the limit."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np

# How far log_alpha can go while the limit comes down, at least. Between open and closed
# lie about 5: what can go there and back some times is chosen, not swept along.
_TRAVEL = 32.0
# It goes no farther than this in one step.
_STRIDE = 0.25
# Of a schedule.
_SAMPLES, _GOLDEN = 16, 0.618034
# Optimizers whose steps are about as large as the learning rate, and which change no
# more than the variables that they are given. Not Lion: all of its steps are equal, so
# that gates would move together.
_EVEN = (keras.optimizers.Adam, keras.optimizers.Adamax, keras.optimizers.RMSprop)
_UPDATE = "_backend_update_step"


class Pace(NamedTuple):
    """How much faster than they were told gates learn.

    Attributes:
        times: A power of two.
        most: The largest learning rate that comes of it, whatever callbacks make of
            the optimizer's.
    """

    times: float
    most: float


def paces(
    optimizer: Any, multipliers: Collection[float], taken: int, steps: int
) -> dict[float, Pace]:
    """For gates that have to learn faster how much, by their multipliers.

    In few steps, or at the small learning rate of a fine-tuning, gates would move so
    little while the limit comes down that multipliers grow until all of them move
    together, and which ones stay is left to chance.

    Args:
        optimizer: What trains them, without what scales its loss.
        multipliers: Each `GateOptions.learning_rate_multiplier`.
        taken: Steps of the ramp that have been taken.
        steps: Those of all of it.
    """
    # Momentum makes several steps of one.
    if not isinstance(optimizer, _EVEN) or getattr(optimizer, "momentum", None):
        return {}
    rate = _mean_rate(optimizer, taken, steps)
    if not 0 < rate < math.inf:
        return {}
    updates = max(1, steps // (optimizer.gradient_accumulation_steps or 1))
    stride = min(_TRAVEL / updates, _STRIDE)
    found = {m: 2.0 ** round(math.log2(stride / (m * rate))) for m in multipliers}
    return {m: Pace(times, _STRIDE / m) for m, times in found.items() if times > 1}


def _mean_rate(optimizer: Any, taken: int, steps: int) -> float:
    """The learning rate, as a mean over the ramp as far as a schedule tells."""
    schedule = optimizer._learning_rate
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return _number(optimizer.learning_rate)
    # As Keras counts for schedules, also where gradients are accumulated.
    done = optimizer._iterations
    first = max(0, int(_number(done)) - taken)
    # Spread without a period, which a schedule may have too.
    some = (first + steps * (np.arange(_SAMPLES) * _GOLDEN % 1)).astype("int64")
    dtype = keras.backend.standardize_dtype(done.dtype)
    rates = [schedule(keras.ops.convert_to_tensor(step, dtype)) for step in some]
    return float(np.mean([_number(rate) for rate in rates]))


def _number(value: Any) -> float:
    # Under a strategy of TensorFlow a variable is several, which are no number.
    return float(keras.ops.convert_to_numpy(value))


def quicken(optimizer: Any, faster: dict[int, Pace]) -> None:
    """Lets an optimizer change some variables faster than the others.

    Args:
        optimizer: The optimizer, without what scales its loss.
        faster: Their paces, by the ids of the variables.
    """
    slow_down(optimizer)
    if faster:
        update = getattr(optimizer, _UPDATE)
        # Past the optimizer's tracker.
        vars(optimizer)[_UPDATE] = functools.partial(_update, update, faster)


def slow_down(optimizer: Any) -> None:
    """Undoes `quicken`."""
    if optimizer is not None:
        vars(optimizer).pop(_UPDATE, None)


def _update(
    update: Any, faster: dict[int, Pace], grads: Iterable[Any],
    variables: Iterable[Any], rate: Any,
) -> None:  # fmt: skip
    """Updates variables in groups, each of which has its own learning rate."""
    groups: dict[Pace | None, list[tuple[Any, Any]]] = {}
    for grad, variable in zip(grads, variables, strict=True):
        groups.setdefault(faster.get(id(variable)), []).append((grad, variable))
    for pace, group in groups.items():
        own = rate
        if pace:
            now = keras.ops.convert_to_tensor(rate)
            own = keras.ops.minimum(now * pace.times, keras.ops.maximum(now, pace.most))
        update(*map(list, zip(*group, strict=True)), own)
