"""The L0 penalty: strength times the expected number of non-zero parameters.

With it goes, if one wants, the expected L2 norm under the gates.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_l0.arguments import require_integer, require_real
from keras_l0.hard_concrete import HardConcrete

# No training takes as many steps; float32 still counts them.
_LATE = 2**24


@keras.saving.register_keras_serializable(package="keras_l0")
class L0(keras.regularizers.Regularizer):
    """Expected L0 norm of what a vector of gates switches (Eq. 12), times ``l0``.

    Keras' losses are means over samples; so is the strength: the paper's ``lambda / N``
    (for instance ``0.1 / 60_000`` on MNIST) is what to pass here.

    ``l2`` adds the expected L2 norm under the gates, ``l2 * sum(P(z != 0) * w ** 2)``
    over all weights that they switch (how Louizos et al., 2017, combine the two norms):
    a weight decays as far as its gate is open, and a gate of large weights costs more.
    It is Keras' `L2` where gates are open; the paper's factor of 1/2 is not in it.
    Weights that no gate switches are not part of it.

    Args:
        l0: Strength per parameter, a finite float >= 0; or a schedule of strengths
            over training steps, of `keras_l0.schedules` or of Keras
            (`keras.optimizers.schedules`).
        l2: Strength of the expected L2 norm, a finite float >= 0.

    Call arguments:
        log_alpha: The gates' locations, any shape.
        distribution: The `HardConcrete` of the gates. Default: the paper's constants.
        cost: Parameters that one gate switches; a number, or an array of
            ``log_alpha``'s shape.
        squares: The sum of the squared weights that one gate switches; a number, or a
            tensor of ``log_alpha``'s shape.
        step: Training steps taken, for a schedule.

    Raises:
        TypeError: If ``l0`` or ``l2`` is not a real number (a bool is not one)
            and ``l0`` no schedule either.
        ValueError: If ``l0`` or ``l2`` is negative, NaN or infinite.

    Example:
        >>> import keras_l0
        >>> penalty = keras_l0.regularizers.L0(0.5)
        >>> round(float(penalty([0.0, 0.0])), 4)  # 0.5 * 2 * .8318
        0.8318
        >>> both = keras_l0.regularizers.L0(0.5, l2=0.1)
        >>> round(float(both([0.0, 0.0], squares=[3.0, 1.0])), 4)  # + 0.1 * 4 * .8318
        1.1646
        >>> keras_l0.regularizers.L0.aic(1000).l0
        0.001
    """

    def __init__(self, l0: float | LearningRateSchedule = 0.0, l2: float = 0.0) -> None:
        if not isinstance(l0, LearningRateSchedule):
            l0 = require_real("l0", l0, ">= 0, or a schedule", lambda value: value >= 0)
        self.l0 = l0
        self.l2 = require_real("l2", l2, ">= 0", lambda value: value >= 0)

    @classmethod
    def aic(cls, n_samples: int) -> L0:
        """The strength of Akaike's criterion, ``1 / N``, for a mean loss."""
        return cls(1 / _sample_count(n_samples))

    @classmethod
    def bic(cls, n_samples: int) -> L0:
        """The strength of the Bayesian criterion, ``log(N) / 2N``, for a mean loss."""
        n = _sample_count(n_samples)
        return cls(math.log(n) / (2 * n))

    @classmethod
    def get(cls, identifier: Any) -> L0:
        """An `L0` from what a layer's ``l0`` argument takes.

        Args:
            identifier: A float, a schedule, an `L0`, the config of one of these, or
                None (strength 0).
        """
        if isinstance(identifier, dict):
            identifier = keras.saving.deserialize_keras_object(identifier)
        if identifier is None:
            return cls()
        return identifier if isinstance(identifier, cls) else cls(identifier)

    @property
    def scheduled(self) -> bool:
        """Whether the strength changes over training steps."""
        return callable(self.l0)

    def strength(self, step: Any) -> Any:
        """``l0`` after so many training steps."""
        return self.l0(step) if callable(self.l0) else self.l0

    @property
    def final(self) -> float:
        """``l0`` at the end of whatever schedule."""
        return float(self.strength(_LATE))

    def __call__(
        self,
        log_alpha: Any,
        distribution: HardConcrete | None = None,
        cost: Any = 1.0,
        squares: Any = 0.0,
        step: Any = 0,
    ) -> Any:
        prob_open = (distribution or HardConcrete()).prob_open(log_alpha)
        price = self.strength(step)
        if self.scheduled:
            price = ops.cast(price, prob_open.dtype)
        if not isinstance(cost, (int, float)):
            cost = ops.convert_to_tensor(cost, dtype=prob_open.dtype)
        price = price * cost
        if self.l2:
            # Not in place: Torch would keep the shape.
            norm = ops.convert_to_tensor(squares, dtype=prob_open.dtype)
            price = price + self.l2 * norm
        return ops.sum(price * prob_open)

    def get_config(self) -> dict[str, Any]:
        return {
            "l0": keras.saving.serialize_keras_object(self.l0),
            "l2": self.l2,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> L0:
        deserialize = keras.saving.deserialize_keras_object
        return cls(**{name: deserialize(value) for name, value in config.items()})


# What a layer's ``l0`` argument takes.
Strength: TypeAlias = float | LearningRateSchedule | L0


def _sample_count(n_samples: int) -> int:
    what = "the size of the training set, an integer"
    return require_integer("n_samples", n_samples, 1, what)
