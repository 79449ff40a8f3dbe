"""`L0Gate`, the only stochastic state in the package."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l0.arguments import require_seed
from keras_l0.layers.arguments import real_numbers, validated_axis, validated_cost
from keras_l0.layers.options import GateOptions
from keras_l0.regularizers import L0, Strength

# The name of the variable that `log_alpha` is made of.
VARIABLE = "raw_log_alpha"


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Gate(keras.layers.Layer):
    """Multiplies its input by learned hard-concrete gates.

    In training each gate is a random draw from its distribution; at test time it is a
    function of its location (by default Eq. 13 of the paper), which is exactly 0 for a
    closed and exactly 1 for a fully open unit. The penalty, ``l0`` times the expected
    number of parameters that the gates switch, is part of `losses` and thereby of what
    `fit` minimizes. It hangs on the gate's variable, as Keras' own weight penalties do,
    so it is charged once however often the layer is called.

    A frozen gate (``trainable=False``) is a constant: it uses its test-time value in
    training too, and, like every frozen weight in Keras, is not charged.

    Args:
        axis: The axis or axes along which gates differ; along all others they are
            shared. ``-1``: one gate per channel. ``(1, 2)``: one per position of a
            ``(batch, height, width, channels)`` map. The batch axis cannot be gated.
        l0: Strength of the penalty per parameter: a float >= 0, a schedule of
            `keras_l0.schedules`, or a `regularizers.L0`.
        cost: Parameters that one gate switches; a number, or one number per gate.
        options: `GateOptions`.
        seed: Seed of the noise, an integer; None takes one from Keras' global seed.
        **kwargs: `name`, `dtype`, `trainable` as for every Keras layer.

    Call arguments:
        inputs: A tensor of rank >= 2.
        training: Whether to draw the gates (True) or to use their test-time values.

    Input shape:
        Any, with the sizes of the gated axes known.

    Output shape:
        The input's.

    Raises:
        TypeError: If ``axis``, ``l0`` or ``cost`` is of the wrong type.
        ValueError: If a value is out of range, if ``axis`` names the batch axis, an
            axis that the input does not have, or one whose size is unknown.

    Example:
        >>> import keras, keras_l0
        >>> gate = keras_l0.layers.L0Gate(axis=-1, l0=1e-4)
        >>> tuple(gate(keras.ops.ones((1, 3))).shape)
        (1, 3)
        >>> gate.assign_log_alpha([-9.0, 0.0, 9.0])
        >>> [round(float(y), 2) for y in gate(keras.ops.ones((1, 3)))[0]]
        [0.0, 0.5, 1.0]
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        l0: Strength = 0.0,
        cost: float | Sequence[float] = 1.0,
        options: GateOptions | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = validated_axis(axis)
        self.regularizer = L0.get(l0)
        self.cost = validated_cost(cost)
        # For each gate the sum of the squared weights that it switches.
        self.squares: Callable[[], Any] | None = None
        # For each gate, in the shape of `raw`: 0, it is drawn in training; else it has
        # its test-time value there too, and stays open (1) or closed (-1).
        self.settled: Callable[[], Any] | None = None
        # What is to happen when gates are drawn.
        self.on_draw: Callable[[], None] | None = None
        self.options = GateOptions.get(options, "options")
        seed = require_seed(seed)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, input_shape: Sequence[Any]) -> None:
        axes = self._validated_axes(input_shape)
        sizes = [input_shape[a] for a in axes]
        if np.ndim(self.cost) and np.size(self.cost) != math.prod(sizes):
            raise ValueError(
                f"`cost` of {self.name!r} must be one number, or one per gate "
                f"({math.prod(sizes)}). Received: {np.size(self.cost)} numbers"
            )
        charged = self.regularizer.l0 or self.regularizer.l2
        if self.regularizer.l2 and self.squares is None:
            raise ValueError(
                f"`l0` of gate {self.name!r} must have l2=0: only a gated layer knows "
                "which weights its gate switches. "
                f"Received: l2={self.regularizer.l2}"
            )
        # log_alpha = multiplier * raw: the optimizer moves raw, and log_alpha
        # multiplier times as far.
        multiplier = self.options.learning_rate_multiplier
        start = self.options.distribution.log_alpha(self.options.open_probability)
        dtype = "float64" if self.variable_dtype == "float64" else "float32"
        self.raw = self.add_weight(
            name=VARIABLE,
            shape=sizes,
            dtype=dtype,
            initializer=keras.initializers.Constant(start / multiplier),
            regularizer=_Penalty(self) if charged else None,
            constraint=_Bounds(self),
            autocast=False,
        )
        if self.regularizer.scheduled:
            # Training steps that were charged; 1 if gates were drawn for another one.
            self._steps = self.add_weight(
                name="steps", shape=(2,), dtype="float32", initializer="zeros",
                trainable=False, autocast=False, aggregation="mean",
            )  # fmt: skip
        self.built = True

    def reseed(self, seed: int) -> None:
        """Makes the noise start anew, from this seed."""
        self.seed = int(seed)
        self.seed_generator.state.assign(keras.random.SeedGenerator(self.seed).state)

    @property
    def log_alpha(self) -> Any:
        """Current locations of the gates, a tensor of the gated axes' sizes."""
        self._require_built()
        raw = ops.convert_to_tensor(self.raw)
        return raw * self.options.learning_rate_multiplier

    def assign_log_alpha(self, values: Any) -> None:
        """Sets the locations.

        Args:
            values: A number for all gates, or an array of the gates' shape.

        Raises:
            TypeError: If the values are not numbers.
            ValueError: If the gate is not built, the shapes differ, or one is NaN or
                infinite.
        """
        self._require_built()
        array = real_numbers(values)
        if array is None:
            raise TypeError(
                f"`values` for gate {self.name!r} must be numbers. Received: {values!r}"
            )
        values = array
        if values.ndim and values.shape != tuple(self.raw.shape):
            raise ValueError(
                f"`values` for gate {self.name!r} must be one number or have shape "
                f"{tuple(self.raw.shape)}. Received: shape {values.shape}"
            )
        if not np.isfinite(values).all():
            raise ValueError(
                f"`values` for gate {self.name!r} must be finite numbers. "
                "Received: NaN or infinite ones"
            )
        values = np.broadcast_to(values, self.raw.shape)
        self.raw.assign(values / self.options.learning_rate_multiplier)

    @property
    def prob_open(self) -> Any:
        """P(z != 0) of every gate."""
        return self.options.distribution.prob_open(self.log_alpha)

    @property
    def test_gates(self) -> Any:
        """The gates that are used at test time; see `GateOptions.estimator`."""
        return self.options.test_gates(self.log_alpha)

    @property
    def strength(self) -> float:
        """``l0`` as it is now, wherever its schedule has come to."""
        self._require_built()
        return float(self.regularizer.strength(self._step()))

    @property
    def count(self) -> int:
        """Number of gates."""
        self._require_built()
        return math.prod(self.raw.shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        # Integers are not autocast by Keras, and gates between 0 and 1 would vanish.
        inputs = ops.cast(inputs, self.compute_dtype)
        return inputs * self.values(ops.shape(inputs), training)

    def values(
        self, shape: Sequence[Any], training: bool | None = None, again: bool = False
    ) -> Any:
        """The gates to multiply a batch by, in a shape that broadcasts over it.

        Args:
            shape: Shape of the batch.
            training: Whether to draw the gates (True) or to use their test-time values.
            again: Whether to give those that were drawn last.
        """
        broadcast = self.broadcast_shape(len(shape))
        if training and self.trainable:
            drawn = broadcast
            if self.options.noise == "example":
                drawn = (shape[0], *broadcast)
            seed = _Again(self.seed_generator) if again else self.seed_generator
            noise = keras.random.uniform(drawn, dtype=self.raw.dtype, seed=seed)
            log_alpha = ops.reshape(self.log_alpha, broadcast)
            z = self.options.distribution.sample(log_alpha, noise)
            if self.on_draw is not None:
                self.on_draw()
            if self.settled is not None:
                sides = self.settled()
                held = self.options.settled(self.log_alpha, sides)
                still = ops.reshape(self.options.test_gates(held), broadcast)
                z = ops.where(ops.reshape(sides, broadcast) != 0, still, z)
            if self.regularizer.scheduled:
                self._steps.assign(ops.maximum(self._steps, [0.0, 1.0]))
        else:
            z = ops.reshape(self.test_gates, broadcast)
        return ops.cast(z, self.compute_dtype)

    def broadcast_shape(self, rank: int) -> tuple[int, ...]:
        """The gates' shape for inputs of this rank, of which the batch axis is one."""
        sizes = dict(zip(self.gated_axes(rank), self.raw.shape, strict=True))
        return tuple(sizes.get(axis, 1) for axis in range(1, rank))

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        # Computed once more for the gradient, the gates would be drawn once more too.
        return layer_call

    def penalty(self, raw: Any) -> Any:
        """What the gates are charged when their variable has the value ``raw``."""
        log_alpha = raw * self.options.learning_rate_multiplier
        cost: Any = self.cost
        if np.ndim(cost):
            cost = np.reshape(cost, tuple(raw.shape))
        squares: Any = 0.0
        if self.regularizer.l2 and self.squares is not None:
            squares = ops.reshape(self.squares(), raw.shape)
        charge = self.regularizer(
            log_alpha, self.options.distribution, cost, squares, self._step()
        )
        if self.regularizer.scheduled:
            # Here and not where gates are drawn, which several calls do in one step.
            step, drawn = ops.unstack(ops.convert_to_tensor(self._steps), 2)
            self._steps.assign(ops.stack([step + drawn, 0.0 * drawn]))
        return charge

    def _step(self) -> Any:
        """The number of training steps that its schedule has come to."""
        # The sum is a tensor of its own, which the weight's next value leaves alone.
        return self._steps[0] + 0.0 if self.regularizer.scheduled else 0

    def gated_axes(self, rank: int) -> tuple[int, ...]:
        """`axis` as sorted non-negative numbers, for an input of this rank."""
        axes = (self.axis,) if isinstance(self.axis, int) else self.axis
        return tuple(sorted(axis + rank if axis < 0 else axis for axis in axes))

    def _validated_axes(self, input_shape: Sequence[int | None]) -> tuple[int, ...]:
        shape = tuple(input_shape)
        axes = self.gated_axes(len(shape))
        problem = None
        if len(shape) < 2:
            problem = "an axis besides the batch axis"
        elif not all(0 < axis < len(shape) for axis in axes):
            last = len(shape) - 1
            known = "axis 1" if last == 1 else f"axes between 1 and {last}"
            problem = f"{known} (axis 0 is the batch)"
        elif len(set(axes)) != len(axes):
            problem = "each axis once"
        elif None in (shape[axis] for axis in axes):
            problem = "axes of known size"
        if problem:
            raise ValueError(
                f"`axis` of gate {self.name!r} must name {problem}. "
                f"Received: axis={self.axis} for an input of shape {shape}"
            )
        return axes

    def _require_built(self) -> None:
        if not self.built:
            raise ValueError(
                f"Gate {self.name!r} has no log_alpha yet: build the layer (or call "
                "the model once) first."
            )

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        # Keras leaves it out; without it a restored run would draw other gates.
        store["seed"] = self.seed_generator.state

    def load_own_variables(self, store: Any) -> None:
        arrays = {key: store[key] for key in store.keys()}
        seed = arrays.pop("seed", None)
        super().load_own_variables(arrays)
        if seed is not None:
            self.seed_generator.state.assign(seed)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self.axis,
            "l0": keras.saving.serialize_keras_object(self.regularizer),
            "cost": self.cost,
            "options": keras.saving.serialize_keras_object(self.options),
            "seed": self.seed,
        }


class _Again(keras.random.SeedGenerator):
    """Gives the seed that a generator gave last."""

    def __init__(self, generator: keras.random.SeedGenerator) -> None:
        self.generator = generator

    def next(self, ordered: bool = True) -> Any:
        state = ops.convert_to_tensor(self.generator.state)
        step = ops.convert_to_tensor(np.array([0, 1]), dtype=state.dtype)
        return ops.subtract(state, step)


class _Penalty(keras.regularizers.Regularizer):
    """Hangs a gate's penalty on its variable, as Keras does for weight penalties."""

    def __init__(self, gate: L0Gate) -> None:
        self.gate = gate

    def __call__(self, raw: Any) -> Any:
        return self.gate.penalty(raw)


class _Bounds(keras.constraints.Constraint):
    """Keeps a gate's variable where its options want it, after each training step."""

    def __init__(self, gate: L0Gate) -> None:
        self.gate = gate

    def __call__(self, raw: Any) -> Any:
        options = self.gate.options
        unit = options.learning_rate_multiplier
        return options.bounded(ops.convert_to_tensor(raw), unit)
