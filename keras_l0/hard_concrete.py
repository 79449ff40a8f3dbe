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

# Keeps log(u) and log(1 - u) finite in float32 without moving any quantile visibly.
_NOISE_EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="keras_l0")
@dataclasses.dataclass(frozen=True)
class HardConcrete:
    """The hard-concrete distribution with temperature ``beta`` on ``(gamma, zeta)``.

    The object holds the three constants; the location ``log_alpha`` (any shape) is the
    argument of every method, and every method works elementwise.

    Args:
        beta: Temperature, > 0. Smaller is closer to a Bernoulli variable.
        gamma: Lower end of the stretched interval, < 0.
        zeta: Upper end of the stretched interval, > 1.

    Raises:
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
        for name, holds, expected in (
            ("beta", self.beta > 0, "> 0"),
            ("gamma", self.gamma < 0, "< 0"),
            ("zeta", self.zeta > 1, "> 1"),
        ):
            value = getattr(self, name)
            if not (holds and math.isfinite(value)):
                raise ValueError(
                    f"`{name}` of HardConcrete must be a finite number {expected}. "
                    f"Received: {name}={value!r}"
                )

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
        u = ops.clip(noise, _NOISE_EPSILON, 1 - _NOISE_EPSILON)
        logits = (ops.log(u) - ops.log(1 - u) + log_alpha) / self.beta
        return self._stretch(ops.sigmoid(logits))

    def deterministic(self, log_alpha: Any) -> Any:
        """Test-time gates (Eq. 13). ``beta`` plays no part in them."""
        return self._stretch(ops.sigmoid(ops.convert_to_tensor(log_alpha)))

    def prob_open(self, log_alpha: Any) -> Any:
        """P(z != 0), the probability that the penalty charges for (Eq. 12)."""
        return ops.sigmoid(ops.convert_to_tensor(log_alpha) + self.log_odds_shift)

    def log_alpha(self, prob_open: float) -> float:
        """The location with a wanted probability of being open; inverts `prob_open`.

        Args:
            prob_open: P(z != 0), in (0, 1).

        Raises:
            ValueError: If ``prob_open`` is not in (0, 1).
        """
        if not 0 < prob_open < 1:
            raise ValueError(
                "`prob_open` must lie strictly between 0 and 1. "
                f"Received: prob_open={prob_open!r}"
            )
        return math.log(prob_open) - math.log1p(-prob_open) - self.log_odds_shift

    def _stretch(self, s: Any) -> Any:
        return ops.clip(s * (self.zeta - self.gamma) + self.gamma, 0.0, 1.0)

    def get_config(self) -> dict[str, float]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, float]) -> HardConcrete:
        return cls(**config)
