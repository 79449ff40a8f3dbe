"""The hard-concrete distribution, as pure functions of ``log_alpha``.

A hard-concrete variable is a concrete (relaxed Bernoulli) variable stretched to
``(gamma, zeta)`` and clipped to ``[0, 1]``, so that it is exactly 0 or exactly 1 with
positive probability and differentiable in between (Louizos, Welling & Kingma 2017,
"Learning Sparse Neural Networks through L0 Regularization", arXiv 1712.01312).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from keras_l0.arguments import check_field, require_probability, require_real

# Keeps log(u) and log(1 - u) finite in float32 without moving any quantile visibly.
_NOISE_EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="keras_l0")
@dataclasses.dataclass(frozen=True)
class HardConcrete:
    """The hard-concrete distribution with temperature ``beta`` on ``(gamma, zeta)``.

    The object holds the three constants; the location ``log_alpha`` (any shape) is the
    argument of every method, and all of them but `size_matched` work elementwise.

    Args:
        beta: Temperature, > 0. Smaller is closer to a Bernoulli variable.
        gamma: Lower end of the stretched interval, < 0.
        zeta: Upper end of the stretched interval, > 1.

    Raises:
        TypeError: If a constant is not a real number.
        ValueError: If a constant lies outside its range.

    Example:
        >>> import keras_l0
        >>> hc = keras_l0.HardConcrete()
        >>> round(hc.log_alpha(0.5), 4)  # even odds of being non-zero
        -1.5986
        >>> float(hc.deterministic([-2.5])[0]), float(hc.deterministic([2.5])[0])
        (0.0, 1.0)
    """

    beta: float = 2 / 3
    gamma: float = -0.1
    zeta: float = 1.1

    def __post_init__(self) -> None:
        check_field(self, "beta", require_real, "> 0", lambda value: value > 0)
        check_field(self, "gamma", require_real, "< 0", lambda value: value < 0)
        check_field(self, "zeta", require_real, "> 1", lambda value: value > 1)

    @property
    def log_odds_shift(self) -> float:
        """``-beta * log(-gamma / zeta)``: P(z != 0) is sigmoid(log_alpha + this)."""
        return -self.beta * math.log(-self.gamma / self.zeta)

    def sample(self, log_alpha: Any, noise: Any) -> Any:
        """Training gates z (Eq. 10-11).

        Args:
            log_alpha: Locations, any shape.
            noise: Uniform draws from [0, 1), of a shape that broadcasts with
                ``log_alpha``.

        Returns:
            Gates in [0, 1], of the broadcast shape.
        """
        log_alpha = _float_tensor(log_alpha)
        u = ops.convert_to_tensor(noise, dtype=log_alpha.dtype)
        u = ops.clip(u, _NOISE_EPSILON, 1 - _NOISE_EPSILON)
        logits = (ops.log(u) - ops.log(1 - u) + log_alpha) / self.beta
        return self._stretch(ops.sigmoid(logits))

    def deterministic(self, log_alpha: Any) -> Any:
        """Test-time gates (Eq. 13). ``beta`` plays no part in them."""
        return self._stretch(ops.sigmoid(_float_tensor(log_alpha)))

    def median(self, log_alpha: Any) -> Any:
        """The medians of the training gates: draws for a noise of 1/2.

        Not from the paper. A median is 0 where P(z != 0) <= 1/2, for the paper's
        constants, and `deterministic` only where P(z != 0) <= .31: fewer gates are
        between closed and what they mostly are in training.
        """
        return self._stretch(ops.sigmoid(_float_tensor(log_alpha) / self.beta))

    def size_matched(self, log_alpha: Any, least: int = 0) -> Any:
        """Test-time gates of which as many are open as are expected to be.

        The sum of P(z != 0), rounded, says how many of the gates: the likeliest ones
        (as Wang, Wohlwend & Lei, 2020, do, arXiv 1910.04732). An open gate has the
        median of what it is in training while it is not 0, which is never 0 itself.
        This is the one method that looks at all gates together.

        Args:
            log_alpha: Locations, any shape.
            least: How many are open in any case.
        """
        log_alpha = _float_tensor(log_alpha)
        prob_open = ops.ravel(self.prob_open(log_alpha))
        count = ops.maximum(ops.round(ops.sum(prob_open)), least)
        # From the likeliest on; equal ones by their order.
        ranks = ops.argsort(ops.argsort(-prob_open))
        is_open = ops.cast(ranks, prob_open.dtype) < count
        gates = self.sample(ops.ravel(log_alpha), 1.0 - prob_open / 2)
        return ops.reshape(ops.where(is_open, gates, 0.0), log_alpha.shape)

    def prob_open(self, log_alpha: Any) -> Any:
        """P(z != 0), the probability that the penalty charges for (Eq. 12)."""
        return ops.sigmoid(_float_tensor(log_alpha) + self.log_odds_shift)

    def log_alpha(self, prob_open: float) -> float:
        """The location with a wanted probability of being open; inverts `prob_open`.

        Args:
            prob_open: P(z != 0), in (0, 1).

        Raises:
            TypeError: If ``prob_open`` is not a real number.
            ValueError: If ``prob_open`` is not in (0, 1).
        """
        require_probability("prob_open", prob_open)
        return math.log(prob_open) - math.log1p(-prob_open) - self.log_odds_shift

    def _stretch(self, s: Any) -> Any:
        return ops.clip(s * (self.zeta - self.gamma) + self.gamma, 0.0, 1.0)

    def get_config(self) -> dict[str, float]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, float]) -> HardConcrete:
        return cls(**config)


def _float_tensor(x: Any) -> Any:
    x = ops.convert_to_tensor(x)
    if keras.backend.is_float_dtype(x.dtype):
        return x
    return ops.cast(x, keras.backend.floatx())
