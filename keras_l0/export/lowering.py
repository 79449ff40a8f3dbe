"""Layers written in operations that TFLite has, while a model is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras import layers, ops
from keras.src.ops.numpy import Argmax

_UPSAMPLING = layers.UpSampling2D.call
_NORMALIZATION = layers.LayerNormalization.call
_ARGMAX = Argmax.call


@contextlib.contextmanager
def lowered() -> Iterator[None]:
    """Has some layers compute the same by other operations, until the way out.

    Keras repeats rows and columns by reshapes and tiles, five operations of five
    dimensions where TFLite has one. Its normalizations negate means, which TFLite does
    in float only, and subtract squares, which 8 bits are too few for. Its argmax tells
    zeros from negative ones, bit by bit, which TFLite cannot.

    Yields:
        None.
    """
    before = {layer: layer.call for layer in _CALLS}
    try:
        for layer, call in _CALLS.items():
            layer.call = call
        yield
    finally:
        for layer, call in before.items():
            layer.call = call


def _upsample(self: Any, inputs: Any) -> Any:
    import tensorflow as tf

    if self.interpolation != "nearest" or None in inputs.shape[1:]:
        return _UPSAMPLING(self, inputs)
    if self.data_format == "channels_first":
        inputs = ops.transpose(inputs, (0, 2, 3, 1))
    height, width = inputs.shape[1:3]
    size = (height * self.size[0], width * self.size[1])
    outputs = tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=size)
    if self.data_format == "channels_first":
        outputs = ops.transpose(outputs, (0, 3, 1, 2))
    return outputs


def _normalize(self: Any, inputs: Any) -> Any:
    if getattr(self, "rms_scaling", False):
        return _NORMALIZATION(self, inputs)
    axes = [self.axis] if isinstance(self.axis, int) else self.axis
    shape = _only(inputs.shape, axes)
    return _standardized(self, inputs, axes, shape)


def _normalize_groups(self: Any, inputs: Any) -> Any:
    axis = self.axis % len(inputs.shape)
    sizes = list(inputs.shape)
    sizes[axis : axis + 1] = self.groups, sizes[axis] // self.groups
    grouped = ops.reshape(inputs, (-1, *sizes[1:]))
    axes = [i for i in range(1, len(sizes)) if i != axis]
    shape = _only(sizes, (axis, axis + 1))
    outputs = _standardized(self, grouped, axes, shape)
    return ops.reshape(outputs, (-1, *inputs.shape[1:]))


def _only(sizes: Sequence[int], axes: Sequence[int]) -> list[int]:
    """The sizes along some axes, 1 along the others."""
    kept = {axis % len(sizes) for axis in axes}
    return [size if i in kept else 1 for i, size in enumerate(sizes)]


def _standardized(
    layer: Any, inputs: Any, axes: Sequence[int], shape: Sequence[int]
) -> Any:
    """Mean 0 and variance 1 along axes, then the layer's scale and center."""
    apart = inputs - ops.mean(inputs, axes, keepdims=True)
    variance = ops.mean(ops.square(apart), axes, keepdims=True)
    outputs = apart * ops.rsqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        outputs = outputs * ops.reshape(layer.gamma, shape)
    if layer.beta is not None:
        outputs = outputs + ops.reshape(layer.beta, shape)
    return outputs


def _argmax(self: Any, x: Any) -> Any:
    import tensorflow as tf

    if self.axis is None:
        return _ARGMAX(self, x)
    indices = tf.argmax(x, self.axis, output_type="int32")
    return ops.expand_dims(indices, self.axis) if self.keepdims else indices


_CALLS: dict[Any, Callable[..., Any]] = {
    layers.UpSampling2D: _upsample,
    layers.LayerNormalization: _normalize,
    layers.GroupNormalization: _normalize_groups,
    Argmax: _argmax,
}
