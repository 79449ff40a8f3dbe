"""Gated dense layers."""

import keras

from keras_l0.layers.granular import Granular


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Dense(Granular, keras.layers.Dense):
    """`keras.layers.Dense` with one gate per unit, behind its activation.

    A unit switches its column of the kernel and its bias. Inputs are of shape
    ``(batch, ..., features)``, outputs ``(batch, ..., units)``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0Dense(4, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 3))).shape)
        (2, 4)
        >>> layer.gate.cost  # three weights and a bias
        4.0
        >>> layer = keras_l0.layers.L0Dense(4, granularity="inputs", l0=1e-5)
        >>> layer.build((None, 3))
        >>> layer.gate.count, layer.gate.cost
        (3, 4.0)
    """
