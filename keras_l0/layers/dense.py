"""Gated dense layers."""

import keras

from keras_l0.layers.gated import Gated


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Dense(Gated, keras.layers.Dense):
    """`keras.layers.Dense` with one gate per unit, behind its activation.

    Takes every argument of `keras.layers.Dense`, and:

    Args:
        l0: Strength of the penalty per parameter, a float >= 0 or a
            `regularizers.L0`. One unit switches its column of the kernel and its bias.
        gate_options: `GateOptions`.

    Call arguments:
        inputs: A tensor of shape ``(batch, ..., features)``.
        training: Whether to draw the gates (True) or to use their test-time values.

    Output shape:
        ``(batch, ..., units)``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0Dense(4, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 3))).shape)
        (2, 4)
        >>> layer.gate.cost  # three weights and a bias
        4.0
    """
