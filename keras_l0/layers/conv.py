"""Gated convolutions."""

from __future__ import annotations

from typing import Any

import keras

from keras_l0.layers.gated import Gated
from keras_l0.layers.granular import Granular


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Conv1D(Granular, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with one gate per filter, behind its activation.

    A filter switches its part of the kernel and its bias. Inputs are of shape ``(batch,
    steps, channels)``, outputs ``(batch, steps, filters)``; channels come first under
    ``channels_first``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0Conv1D(4, 3, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 8, 3))).shape)
        (2, 6, 4)
        >>> layer.gate.cost  # 3 * 3 weights and a bias
        10.0
    """


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Conv2D(Granular, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with one gate per filter, behind its activation.

    A filter switches its part of the kernel and its bias. Inputs are of shape ``(batch,
    height, width, channels)``, outputs ``(batch, height, width, filters)``; channels
    come first under ``channels_first``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0Conv2D(4, 3, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 8, 8, 3))).shape)
        (2, 6, 6, 4)
        >>> layer.gate.cost  # 3 * 3 * 3 weights and a bias
        28.0
    """


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Conv3D(Granular, keras.layers.Conv3D):
    """`keras.layers.Conv3D` with one gate per filter, behind its activation.

    A filter switches its part of the kernel and its bias. Inputs are of shape ``(batch,
    depth, height, width, channels)``, outputs ``(batch, depth, height, width,
    filters)``; channels come first under ``channels_first``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0Conv3D(4, 3, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 8, 8, 8, 3))).shape)
        (2, 6, 6, 6, 4)
        >>> layer.gate.cost  # 3 * 3 * 3 * 3 weights and a bias
        82.0
    """


class GatedTranspose(Granular):
    """Mixin: a layer whose kernel is ``(..., units, in)``."""

    @property
    def unit_axis(self) -> int:
        return self.kernel_rank - 2

    @property
    def kernel_axes(self) -> tuple[int, int]:
        return self.unit_axis, self.kernel_rank - 1


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Conv1DTranspose(GatedTranspose, keras.layers.Conv1DTranspose):
    """`keras.layers.Conv1DTranspose` with one gate per filter, behind its activation.

    A filter switches its part of the kernel and its bias. Inputs are of shape ``(batch,
    steps, channels)``, outputs ``(batch, steps, filters)``; channels come first under
    ``channels_first``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0Conv1DTranspose(4, 3, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 8, 3))).shape)
        (2, 10, 4)
        >>> layer.gate.cost  # 3 * 3 weights and a bias
        10.0
    """


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Conv2DTranspose(GatedTranspose, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` with one gate per filter, behind its activation.

    A filter switches its part of the kernel and its bias. Inputs are of shape ``(batch,
    height, width, channels)``, outputs ``(batch, height, width, filters)``; channels
    come first under ``channels_first``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0Conv2DTranspose(4, 3, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 8, 8, 3))).shape)
        (2, 10, 10, 4)
        >>> layer.gate.cost  # 3 * 3 * 3 weights and a bias
        28.0
    """


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Conv3DTranspose(GatedTranspose, keras.layers.Conv3DTranspose):
    """`keras.layers.Conv3DTranspose` with one gate per filter, behind its activation.

    A filter switches its part of the kernel and its bias. Inputs are of shape ``(batch,
    depth, height, width, channels)``, outputs ``(batch, depth, height, width,
    filters)``; channels come first under ``channels_first``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0Conv3DTranspose(4, 3, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 8, 8, 8, 3))).shape)
        (2, 10, 10, 10, 4)
        >>> layer.gate.cost  # 3 * 3 * 3 * 3 weights and a bias
        82.0
    """


@keras.saving.register_keras_serializable(package="keras_l0")
class L0DepthwiseConv1D(Gated, keras.layers.DepthwiseConv1D):
    """`keras.layers.DepthwiseConv1D` with one gate per channel, behind its activation.

    An output channel switches its own spatial kernel and its bias. Each input channel
    makes ``depth_multiplier`` of them, and leaves the network when all of them are
    closed. Inputs are of shape ``(batch, steps, channels)``, outputs ``(batch, steps,
    channels * depth_multiplier)``; channels come first under ``channels_first``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0DepthwiseConv1D(3, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 8, 3))).shape)
        (2, 6, 3)
        >>> layer.gate.cost  # three weights and a bias
        4.0
    """


@keras.saving.register_keras_serializable(package="keras_l0")
class L0DepthwiseConv2D(Gated, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with one gate per channel, behind its activation.

    An output channel switches its own spatial kernel and its bias. Each input channel
    makes ``depth_multiplier`` of them, and leaves the network when all of them are
    closed. Inputs are of shape ``(batch, height, width, channels)``, outputs ``(batch,
    height, width, channels * depth_multiplier)``; channels come first under
    ``channels_first``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0DepthwiseConv2D(3, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 8, 8, 3))).shape)
        (2, 6, 6, 3)
        >>> layer.gate.cost  # 3 * 3 weights and a bias
        10.0
    """


class GatedSeparable(Gated):
    """Mixin: a layer with a depthwise kernel, which is the input channels'."""

    def switched_weights(self) -> list[Any]:
        return [w for w in super().switched_weights() if w is not self.depthwise_kernel]


@keras.saving.register_keras_serializable(package="keras_l0")
class L0SeparableConv1D(GatedSeparable, keras.layers.SeparableConv1D):
    """`keras.layers.SeparableConv1D` with one gate per filter, behind its activation.

    A filter switches its column of the pointwise kernel and its bias. The depthwise
    kernel belongs to the input channels, and is not charged. Inputs are of shape
    ``(batch, steps, channels)``, outputs ``(batch, steps, filters)``; channels come
    first under ``channels_first``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0SeparableConv1D(4, 3, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 8, 3))).shape)
        (2, 6, 4)
        >>> layer.gate.cost  # three pointwise weights and a bias
        4.0
    """


@keras.saving.register_keras_serializable(package="keras_l0")
class L0SeparableConv2D(GatedSeparable, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` with one gate per filter, behind its activation.

    A filter switches its column of the pointwise kernel and its bias. The depthwise
    kernel belongs to the input channels, and is not charged. Inputs are of shape
    ``(batch, height, width, channels)``, outputs ``(batch, height, width, filters)``;
    channels come first under ``channels_first``.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0SeparableConv2D(4, 3, activation="relu", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 8, 8, 3))).shape)
        (2, 6, 6, 4)
        >>> layer.gate.cost  # three pointwise weights and a bias
        4.0
    """
