"""What gates pay under a budget: multipliers that move, and a price for each gate."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_l0.layers import L0Gate

# What a multiplier gains, at most, over as many steps as the ramp has.
_GAIN = 100.0


def moved(multipliers: Any, sizes: Any, limits: Any, slack: Any, ramp: Any) -> Any:
    """The multipliers after a training step.

    Args:
        multipliers: Those before it, one per limit.
        sizes: The deployed sizes, as shares of the full ones.
        limits: What they have to keep to in this step.
        slack: How far each may be below its limit without being pushed back up.
        ramp: Steps of the ramp.
    """
    below = limits - sizes
    excess = ops.clip(-below / limits, -1.0, 1.0)
    kept = ops.logical_and(below >= 0, below <= slack)
    excess = ops.where(kept, 0.0, excess)
    # A multiplier starts anew, at 0, whenever its sign has to change.
    same = multipliers * excess > 0
    return ops.where(same, multipliers, 0.0) + _GAIN / ramp * excess


def spared(prices: Any, prob_open: Any, count: int) -> Any:
    """Prices of one variable's gates without those of the likeliest of them.

    Args:
        prices: Of each gate.
        prob_open: How likely each is to be open.
        count: How many are not to be closed.
    """
    if not count:
        return prices
    likeliest, _ = ops.top_k(prob_open, min(count, prob_open.shape[0]))
    return ops.where(prob_open >= likeliest[-1], ops.minimum(prices, 0.0), prices)


class Share(keras.regularizers.Regularizer):
    """What pushes the gates of one variable: the price of each while it is open.

    Its value is 0, so that the loss that `fit` and `evaluate` show is that of the task;
    its gradient is that of the prices times the probabilities of being open.

    Args:
        prices: The variable with the prices of all gates.
        part: Which of them are of these gates.
        gate: The gates.
    """

    def __init__(self, prices: Any, part: slice, gate: L0Gate) -> None:
        self.prices, self.part, self.gate = prices, part, gate

    def __call__(self, raw: Any) -> Any:
        options = self.gate.options
        log_alpha = raw * options.learning_rate_multiplier
        prob_open = ops.ravel(options.distribution.prob_open(log_alpha))
        prices = ops.convert_to_tensor(self.prices)[self.part]
        change = prob_open - ops.stop_gradient(prob_open)
        paid = ops.sum(ops.cast(prices, prob_open.dtype) * change)
        if self.gate.regularizer.l2:
            paid += self.gate.penalty(raw)
        return ops.cast(paid, keras.backend.floatx())
