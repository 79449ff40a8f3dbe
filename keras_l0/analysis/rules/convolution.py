"""What convolutions of all kinds have in common."""

from __future__ import annotations

from typing import Any

from keras_l0.analysis.rules.producers import Producer
from keras_l0.analysis.rules.spatial import channel_axis


class Convolution(Producer):
    """A layer that applies kernels at every position of a map."""

    units_name = "filters"
    timing: tuple[str, ...] = ("kernel_size", "strides", "padding", "dilation_rate")

    def axis(self, tensor: Any) -> int:
        return channel_axis(self.layer, tensor)

    @property
    def uniform(self) -> bool:
        return not meets_border(self.layer, self.node.inputs[0])


def meets_border(layer: Any, tensor: Any) -> bool:
    """Whether a convolution of ``tensor`` reads padding anywhere."""
    if layer.padding == "valid":
        return False
    axis = channel_axis(layer, tensor)
    sizes = [size for a, size in enumerate(tensor.shape) if a and a != axis]
    for size, taps, stride, dilation in zip(
        sizes, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
    ):
        if taps == 1:
            continue
        if layer.padding == "causal" or size is None:
            return True
        if (-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 > size:
            return True
    return False
