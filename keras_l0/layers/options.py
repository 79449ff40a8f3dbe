"""How gates start, are drawn and are trained: one object for every gated layer."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l0.arguments import (
    check_field,
    require_integer,
    require_probability,
    require_real,
)
from keras_l0.hard_concrete import HardConcrete
from keras_l0.layers.arguments import real_numbers

# Where a gate is put to close it: P(z != 0) is 1e-8.
CLOSED = -20.0
# What gates that are to stay open are at test time, at least.
_LEAST_OPEN = 0.05


@keras.saving.register_keras_serializable(package="keras_l0")
@dataclasses.dataclass(frozen=True)
class GateOptions:
    """How gates start, are drawn and are trained: one object for every gated layer.

    Args:
        open_probability: P(z != 0) at the start, in (0, 1). From .983 on the test-time
            gate starts at exactly 1, so that adding gates changes nothing. The paper's
            initial drop rates .5, .3, .2, .05 are .832, .920, .952, .989.
        noise: ``"batch"`` draws each gate once per batch; ``"example"`` once per
            example, which has less variance and costs more time.
        learning_rate_multiplier: How much faster than the weights the gates learn
            under an optimizer of the Adam family (under plain SGD: its square). Adam
            moves every variable by about the learning rate per step, and at the rate
            of the weights ``log_alpha`` hardly gets anywhere. Under a `Budget`, `fit`
            makes them faster than that where they could not follow the limit. A power
            of two makes `L0Gate.assign_log_alpha` exact.
        distribution: The `HardConcrete` of the gates.
        estimator: What a gate is at test time, and thereby which units are closed.
            ``"deterministic"``: Eq. 13 of Louizos et al. (2017), without the
            temperature; 0 where P(z != 0) <= .31 for the paper's constants.
            ``"median"``: the median of the training gate, 0 where P(z != 0) <= .5.
            ``"size_matched"``: of the gates of a layer as many of the likeliest are
            open as are expected to be (the sum of P(z != 0), rounded), so that what is
            deployed is about what training has charged for; see
            `HardConcrete.size_matched`. Of a hundred gates that start at .99, one is
            closed at once.
        clamp: Bounds within which training keeps ``log_alpha``, such as ``(-5, 5)``.
            What goes far beyond where a gate closes hardly comes back, as its gradient
            is next to 0. The lower bound is also one for the expected density: P(z !=
            0) is .032 at -5. Default: none.
        min_units: As many of the likeliest gates training holds open, at a test-time
            gate of 1/2 at least, so that no layer dies as a whole. The gates of one
            `L0Gate` can never all be held: one that is alone may close. Under a
            `Budget` its own ``min_units`` counts.

    Raises:
        TypeError: If an option is of the wrong type.
        ValueError: If an option lies outside its range.

    Example:
        >>> import keras_l0
        >>> options = keras_l0.GateOptions(open_probability=0.832, noise="example")
        >>> layer = keras_l0.layers.L0Dense(8, l0=1e-5, gate_options=options)
    """

    open_probability: float = 0.99
    noise: str = "batch"
    learning_rate_multiplier: float = 16.0
    distribution: HardConcrete = HardConcrete()
    estimator: str = "deterministic"
    clamp: tuple[float, float] | None = None
    min_units: int = 1

    def __post_init__(self) -> None:
        check_field(self, "open_probability", require_probability)
        if self.noise not in ("batch", "example"):
            raise ValueError(
                "`noise` must be 'batch' (one draw per batch) or 'example' (one draw "
                f"per example). Received: noise={self.noise!r}"
            )
        check_field(
            self,
            "learning_rate_multiplier",
            require_real,
            "> 0",
            lambda value: value > 0,
        )
        if not isinstance(self.distribution, HardConcrete):
            raise TypeError(
                "`distribution` must be a `keras_l0.HardConcrete`. Received: "
                f"{self.distribution!r} of type {type(self.distribution).__name__}"
            )
        if self.estimator not in ("deterministic", "median", "size_matched"):
            raise ValueError(
                "`estimator` must be 'deterministic' (Eq. 13 of the paper), 'median' "
                "(of the training gate) or 'size_matched' (as many open as expected). "
                f"Received: estimator={self.estimator!r}"
            )
        if self.clamp is not None:
            object.__setattr__(self, "clamp", self._validated_clamp())
        check_field(self, "min_units", require_integer, 0)

    def _validated_clamp(self) -> tuple[float, float]:
        """Bounds between which gates start, can close, and can be held open."""
        received = f"Received: clamp={self.clamp!r}"
        values = real_numbers(self.clamp)
        if values is None or values.shape != (2,):
            raise TypeError(
                f"`clamp` must be a pair of numbers, bounds of log_alpha. {received}"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"`clamp` must be two finite numbers. {received}")
        low, high = values.tolist()
        start = self.distribution.log_alpha(self.open_probability)
        closed, half = self.location(0.0), self.location(0.5)
        if not (low <= closed and low <= start <= high and half <= high):
            raise ValueError(
                f"`clamp` must leave gates room to close, at log_alpha={closed:.3f}, "
                f"to be half open, at {half:.3f}, and to start, at {start:.3f}. "
                f"{received}"
            )
        return low, high

    def location(self, gate: Any) -> Any:
        """The log_alpha that makes a gate's value at test time, or by Eq. 13.

        Args:
            gate: The value, in [0, 1]; a number or an array. For 0 and 1 it is where
                they begin.
        """
        ends = self.distribution
        logit = np.log((gate - ends.gamma) / (ends.zeta - gate))
        return logit * (ends.beta if self.estimator == "median" else 1.0)

    def held(self, count: int) -> int:
        """How many of so many gates training holds open."""
        return min(self.min_units, count - 1)

    def bounded(self, log_alpha: Any, unit: float = 1.0) -> Any:
        """Where training leaves gates that it has moved to ``log_alpha``.

        Args:
            log_alpha: Locations, in the unit.
            unit: What they are counted in.
        """
        if self.clamp is not None:
            log_alpha = ops.clip(log_alpha, *(bound / unit for bound in self.clamp))
        held = self.held(math.prod(log_alpha.shape))
        if not held:
            return log_alpha
        each = ops.ravel(log_alpha)
        likeliest, numbers = ops.top_k(each, held)
        lifted = ops.maximum(likeliest, float(self.location(0.5)) / unit)
        each = ops.scatter_update(each, ops.expand_dims(numbers, -1), lifted)
        return ops.reshape(each, log_alpha.shape)

    def settled(self, log_alpha: Any, sides: Any) -> Any:
        """Where gates count as being that are to stay open (1) or closed (-1).

        Those of which it is the others that say how many are open go where they will.
        """
        if self.estimator == "size_matched":
            return log_alpha
        low = float(self.location(_LEAST_OPEN))
        log_alpha = ops.where(sides > 0, ops.maximum(log_alpha, low), log_alpha)
        return ops.where(sides < 0, ops.minimum(log_alpha, CLOSED), log_alpha)

    def test_gates(self, log_alpha: Any) -> Any:
        """The gates that are used at test time, by the `estimator`."""
        if self.estimator == "size_matched":
            least = self.held(math.prod(log_alpha.shape))
            return self.distribution.size_matched(log_alpha, least)
        return getattr(self.distribution, self.estimator)(log_alpha)

    @classmethod
    def get(cls, identifier: Any, argument: str = "gate_options") -> GateOptions:
        """`GateOptions` from what a layer takes: None, an object or its config."""
        if identifier is None:
            return cls()
        if isinstance(identifier, dict):
            identifier = keras.saving.deserialize_keras_object(identifier)
        if not isinstance(identifier, cls):
            raise TypeError(
                f"`{argument}` must be a `keras_l0.GateOptions` or None. "
                f"Received: {identifier!r} of type {type(identifier).__name__}"
            )
        return identifier

    def get_config(self) -> dict[str, Any]:
        config = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        config["distribution"] = keras.saving.serialize_keras_object(self.distribution)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GateOptions:
        config = dict(config)
        config["distribution"] = keras.saving.deserialize_keras_object(
            config["distribution"]
        )
        return cls(**config)
