"""One mask for several places: what draws the gates, and what multiplies by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l0.arguments import is_integer, require_integer
from keras_l0.layers.gate import L0Gate
from keras_l0.layers.options import GateOptions
from keras_l0.regularizers import Strength


@keras.saving.register_keras_serializable(package="keras_l0")
class L0SharedGate(keras.layers.Layer):
    """Draws gates once a step, for every `L0Switch` that its output is handed to.

    Channels that must go together, such as those of all layers which are added up in a
    residual stream, need one mask: the same draw in training, and one penalty. In a
    functional model this layer makes the mask, and each place multiplies by it.

    Args:
        units: Number of gates.
        l0: As in `L0Gate`.
        cost: As in `L0Gate`.
        options: `GateOptions`.
        seed: As in `L0Gate`.
        **kwargs: `name`, `dtype`, `trainable` as for every Keras layer.

    Call arguments:
        inputs: Any tensor of the model, such as its input. Only its batch size counts.
        training: Whether to draw the gates (True) or to use their test-time values.

    Output shape:
        ``(1, units)``; ``(batch, units)`` with noise per example.

    Raises:
        TypeError: If ``units`` is not an integer, or as `L0Gate` says.
        ValueError: If ``units`` is below 1, or as `L0Gate` says.

    Example:
        >>> import keras, keras_l0
        >>> from keras_l0.layers import L0SharedGate, L0Switch
        >>> x = keras.Input((4,))
        >>> z = L0SharedGate(3, l0=1e-4)(x)
        >>> a = L0Switch()(keras.layers.Dense(3, activation="relu")(x), z)
        >>> b = L0Switch()(keras.layers.Dense(3, activation="tanh")(x), z)
        >>> y = keras.layers.Dense(2)(keras.layers.Add()([a, b]))
        >>> model = keras.Model(x, y)
        >>> keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, 9.0])
        >>> keras_l0.strip(model).count_params()  # 2 of 3 units: 10 + 10 + 6
        26
    """

    def __init__(
        self,
        units: int,
        l0: Strength = 0.0,
        cost: float | Sequence[float] = 1.0,
        options: GateOptions | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = require_integer("units", units, 1)
        self.gate = L0Gate(
            -1, l0, cost, options, seed,
            dtype=self.dtype_policy, trainable=self.trainable, name="gate",
        )  # fmt: skip
        self.supports_masking = True

    @property
    def gates(self) -> list[L0Gate]:
        """The layer's gates."""
        return [self.gate]

    def build(self, input_shape: Any) -> None:
        if not self.gate.built:
            self.gate.build((None, self.units))
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        # An optional input may be None.
        each = self.gate.options.noise == "example"
        count = ops.shape(inputs)[0] if each else 1
        z = self.gate.values((count, self.units), training)
        return ops.reshape(z, (-1, self.units))

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        each = self.gate.options.noise == "example"
        shape = (inputs.shape[0] if each else 1, self.units)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        # Time steps of the input are none of the gates'.
        return None

    def get_config(self) -> dict[str, Any]:
        gate = self.gate.get_config()
        shared = ("l0", "cost", "options", "seed")
        return {
            **super().get_config(),
            "units": self.units,
            **{name: gate[name] for name in shared},
            "gates_trainable": [self.gate.trainable],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> L0SharedGate:
        config = dict(config)
        trainable = config.pop("gates_trainable", [True])
        layer = cls(**config)
        layer.gate.trainable = layer.trainable and trainable[0]
        return layer


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Switch(keras.layers.Layer):
    """Multiplies the channels of a tensor by gates that an `L0SharedGate` has drawn.

    Args:
        axis: The axis of the channels, other than 0.
        indices: For each channel the number of its gate; None if gates and channels
            are in the same order.
        **kwargs: `name`, `dtype`, `trainable` as for every Keras layer.

    Call arguments:
        inputs: A tensor of rank >= 2.
        gates: The output of an `L0SharedGate`.

    Output shape:
        That of ``inputs``.

    Raises:
        TypeError: If ``axis`` or ``indices`` is of the wrong type.
        ValueError: If there is not one gate for each channel.

    Example:
        >>> import keras, keras_l0
        >>> switch = keras_l0.layers.L0Switch(indices=[0, 0, 1])
        >>> gates = keras.ops.convert_to_tensor([[0.0, 1.0]])
        >>> y = switch(keras.ops.ones((1, 3)), gates)
        >>> [float(v) for v in y[0]]
        [0.0, 0.0, 1.0]
    """

    def __init__(
        self, axis: int = -1, indices: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not is_integer(axis):
            raise TypeError(f"`axis` must be an integer. Received: axis={axis!r}")
        self.axis = int(axis)
        self.indices = validated_indices(indices)
        self.supports_masking = True

    def build(self, inputs_shape: Any, gates_shape: Any) -> None:
        rank = len(inputs_shape)
        if not (1 <= self.axis < rank or -rank < self.axis <= -1):
            raise ValueError(
                f"`axis` of {self.name!r} must be an axis of its input other than 0. "
                f"Received: axis={self.axis} for an input of shape {inputs_shape}"
            )
        require_gate_each(self, inputs_shape[self.axis], gates_shape[-1])
        self.built = True

    def call(self, inputs: Any, gates: Any) -> Any:
        gates = chosen_gates(gates, self.indices)
        rank = len(inputs.shape)
        axis = self.axis % rank
        shape = [gates.shape[-1] if a == axis else 1 for a in range(1, rank)]
        if gates.shape[0] != 1:
            # One row for each example, which positions folded into the batch share.
            each = ops.shape(inputs)[0] // ops.shape(gates)[0]
            gates = ops.repeat(gates, each, axis=0)
        gates = ops.reshape(gates, (-1, *shape))
        inputs = ops.cast(inputs, self.compute_dtype)
        return inputs * ops.cast(gates, inputs.dtype)

    def compute_output_spec(self, inputs: Any, gates: Any) -> Any:
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis, "indices": self.indices}


def validated_indices(indices: Any) -> list[int] | None:
    """The numbers of gates, one per channel; raises unless they are integers."""
    if indices is None:
        return None
    known = isinstance(indices, (Sequence, np.ndarray)) and len(indices) > 0
    if not known or not all(map(is_integer, indices)):
        raise TypeError(
            "`indices` must be a non-empty sequence of integers, or None. "
            f"Received: indices={indices!r}"
        )
    return [int(i) for i in indices]


def require_gate_each(layer: Any, channels: int, count: int) -> None:
    """Raises unless a layer's ``indices`` name one of the gates for each channel."""
    chosen = range(count) if layer.indices is None else layer.indices
    if len(chosen) != channels or not all(0 <= i < count for i in chosen):
        raise ValueError(
            f"`indices` of {layer.name!r} must name one of {count} gates for each "
            f"of {channels} channels. Received: {len(chosen)} numbers between "
            f"{min(chosen)} and {max(chosen)}"
        )


def chosen_gates(gates: Any, indices: Sequence[int] | None) -> Any:
    """The gates of the channels, shape (1 or batch, channels)."""
    if indices is None:
        return gates
    return ops.take(gates, np.array(indices, "int32"), axis=-1)
