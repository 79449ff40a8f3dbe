"""Gated convolutions."""

import keras

from keras_l0.layers.gated import Gated


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Conv2D(Gated, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with one gate per filter, behind its activation.

    Takes every argument of `keras.layers.Conv2D`, and:

    Args:
        l0: Strength of the penalty per parameter, a float >= 0 or a
            `regularizers.L0`. One filter switches its part of the kernel and its bias.
        gate_options: `GateOptions`.

    Call arguments:
        inputs: A tensor of shape ``(batch, height, width, channels)``, or
            ``(batch, channels, height, width)`` under ``channels_first``.
        training: Whether to draw the gates (True) or to use their test-time values.

    Output shape:
        That of `keras.layers.Conv2D`.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0Conv2D(4, 3, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 8, 8, 3))).shape)
        (2, 6, 6, 4)
        >>> layer.gate.cost  # 3 * 3 * 3 weights and a bias
        28.0
    """
