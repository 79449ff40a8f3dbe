"""Gated recurrent layers: a closed unit leaves the recurrence, not only the output."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_l0.layers.gated import Gated, replaced


class GatedRecurrent(Gated):
    """Mixin: a recurrent layer with one gate per unit.

    The gate multiplies the unit's state wherever that is read: by the recurrent kernel
    and behind the layer. So it is enough to multiply the kernel's rows and the outputs,
    once per sequence and outside of the loop, and the loop remains Keras' own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.require_one_draw("recurrent kernel")
        # Bidirectional runs its own kernels on a GPU, past `call`.
        self._fused = getattr(self, "use_cudnn", None)
        self.use_cudnn = False

    @property
    def gates_outputs(self) -> bool:
        return False

    def switched_weights(self) -> list[Any]:
        return self.cell.weights

    def gated_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (None, self.cell.units)

    def call(  # type: ignore[override]
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool | None = False,
    ) -> Any:
        z = self.gate.values((None, self.cell.units), training)
        kernel = ops.cast(self.cell.recurrent_kernel, self.compute_dtype)
        with (
            replaced(self.cell, "recurrent_kernel", kernel * z[:, None]),
            replaced(self, "use_cudnn", self._fused),
        ):
            outputs = super(Gated, self).call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )
        return keras.tree.map_structure(lambda y: y * ops.cast(z, y.dtype), outputs)


@keras.saving.register_keras_serializable(package="keras_l0")
class L0SimpleRNN(GatedRecurrent, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN` with one gate per unit, inside the recurrence.

    A closed unit is read by nobody: neither by what follows nor by another unit. One
    unit switches its columns of the kernel and of the recurrent kernel, and its biases.
    The gates are drawn, and charged, once per sequence. They multiply the recurrent
    kernel, which all examples share, so noise per example is refused. States that the
    layer returns are gated as its output is; those that a stateful layer keeps are not.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0SimpleRNN(4, l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 5, 3))).shape)
        (2, 4)
        >>> layer.gate.cost  # 3 + 4 weights and a bias
        8.0
    """


@keras.saving.register_keras_serializable(package="keras_l0")
class L0LSTM(GatedRecurrent, keras.layers.LSTM):
    """`keras.layers.LSTM` with one gate per unit, inside the recurrence.

    A closed unit is read by nobody: neither by what follows nor by another unit. One
    unit switches its columns of the kernel and of the recurrent kernel, and its biases.
    The gates are drawn, and charged, once per sequence. They multiply the recurrent
    kernel, which all examples share, so noise per example is refused. States that the
    layer returns are gated as its output is; those that a stateful layer keeps are not.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0LSTM(4, l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 5, 3))).shape)
        (2, 4)
        >>> layer.gate.cost  # 4 times 3 + 4 weights and a bias
        32.0
    """


@keras.saving.register_keras_serializable(package="keras_l0")
class L0GRU(GatedRecurrent, keras.layers.GRU):
    """`keras.layers.GRU` with one gate per unit, inside the recurrence.

    A closed unit is read by nobody: neither by what follows nor by another unit. One
    unit switches its columns of the kernel and of the recurrent kernel, and its biases.
    The gates are drawn, and charged, once per sequence. They multiply the recurrent
    kernel, which all examples share, so noise per example is refused. States that the
    layer returns are gated as its output is; those that a stateful layer keeps are not.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0GRU(4, l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 5, 3))).shape)
        (2, 4)
        >>> layer.gate.cost  # 3 times 3 + 4 weights and two biases
        27.0
    """
