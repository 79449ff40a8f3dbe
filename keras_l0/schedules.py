"""Strengths of the L0 penalty over time, to pass wherever a layer takes ``l0``.

They are schedules as Keras has them for learning rates: objects that are called with a
number of training steps, and serialize. So Keras' own work as well.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_l0.arguments import check_field, require_integer, require_real


@keras.saving.register_keras_serializable(package="keras_l0")
@dataclasses.dataclass(frozen=True)
class Constant(keras.optimizers.schedules.LearningRateSchedule):
    """No penalty for some training steps, and a constant strength from then on.

    Without a delay it is what a number is.

    Args:
        l0: Strength per parameter, a finite float >= 0.
        delay: Training steps (batches) without any penalty.

    Call arguments:
        step: Training steps taken, a number.

    Raises:
        TypeError: If an argument is not a number of its kind.
        ValueError: If an argument is out of range.

    Example:
        >>> import keras_l0
        >>> schedule = keras_l0.schedules.Constant(0.5, delay=100)
        >>> [float(schedule(step)) for step in (0, 99, 100, 1000)]
        [0.0, 0.0, 0.5, 0.5]
    """

    l0: float
    delay: int = 0

    def __post_init__(self) -> None:
        check_field(self, "l0", require_real, ">= 0", lambda value: value >= 0)
        check_field(self, "delay", _steps, 0)

    def __call__(self, step: Any) -> Any:
        return self.l0 * ops.cast(_float(step) >= self.delay, "float32")

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@keras.saving.register_keras_serializable(package="keras_l0")
@dataclasses.dataclass(frozen=True)
class Linear(keras.optimizers.schedules.LearningRateSchedule):
    """A strength that rises from 0 in a straight line, and then stays.

    Args:
        l0: Strength per parameter at the end, a finite float >= 0.
        steps: Training steps (batches) over which it rises.
        delay: Training steps before it starts to rise.

    Call arguments:
        step: Training steps taken, a number.

    Raises:
        TypeError: If an argument is not a number of its kind.
        ValueError: If an argument is out of range.

    Example:
        >>> import keras_l0
        >>> schedule = keras_l0.schedules.Linear(0.5, steps=100, delay=10)
        >>> [float(schedule(step)) for step in (0, 10, 60, 110, 1000)]
        [0.0, 0.0, 0.25, 0.5, 0.5]
    """

    l0: float
    steps: int
    delay: int = 0

    def __post_init__(self) -> None:
        check_field(self, "l0", require_real, ">= 0", lambda value: value >= 0)
        check_field(self, "steps", _steps, 1)
        check_field(self, "delay", _steps, 0)

    def progress(self, step: Any) -> Any:
        """How far along the rise is: 0 before it, 1 after it."""
        return ops.clip((_float(step) - self.delay) / self.steps, 0.0, 1.0)

    def __call__(self, step: Any) -> Any:
        return self.l0 * self.progress(step)

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@keras.saving.register_keras_serializable(package="keras_l0")
class Cubic(Linear):
    """A strength that rises fast at first and ever slower, and then stays.

    With t from 0 to 1 over the rise it is ``l0 * (1 - (1 - t) ** 3)``, the form in
    which Zhu & Gupta (2017) raise sparsity and a `Budget` lowers its limit: most gates
    close early, while the network can still recover, and few at the end.

    Args:
        l0: As in `Linear`.
        steps: As in `Linear`.
        delay: As in `Linear`.

    Example:
        >>> import keras_l0
        >>> schedule = keras_l0.schedules.Cubic(0.5, steps=100)
        >>> [float(schedule(step)) for step in (0, 50, 100, 1000)]
        [0.0, 0.4375, 0.5, 0.5]
    """

    def __call__(self, step: Any) -> Any:
        return self.l0 * (1.0 - (1.0 - self.progress(step)) ** 3)


def _float(step: Any) -> Any:
    return ops.cast(step, "float32")


def _steps(name: str, value: Any, least: int) -> int:
    return require_integer(name, value, least, "a number of training steps, an integer")
