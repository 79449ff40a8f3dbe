"""Rules of convolutions, in which every filter reads every input channel."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.activations import describe
from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import Atoms, Channels, Flow, Signal, Size
from keras_l0.analysis.graph import Node
from keras_l0.analysis.logic import any_
from keras_l0.analysis.rules.base import Rule
from keras_l0.analysis.rules.convolution import Convolution
from keras_l0.analysis.rules.grouped import GroupedRule
from keras_l0.analysis.rules.producers import Moved
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.analysis.rules.spatial import channel_axis
from keras_l0.layers import (
    L0Conv1D,
    L0Conv1DTranspose,
    L0Conv2D,
    L0Conv2DTranspose,
    L0Conv3D,
    L0Conv3DTranspose,
    L0SeparableConv1D,
    L0SeparableConv2D,
)


@register_strip_rule(
    keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D,
    L0Conv1D, L0Conv2D, L0Conv3D,
)  # fmt: skip
class ConvRule(Convolution):
    """A convolution; constants reach its borders where padding is read."""

    @classmethod
    def of(cls, node: Node, ins: list[Channels], atoms: Atoms) -> Rule:
        layer = node.operation
        by_group = (
            layer.groups > 1
            and ins[0].axis == channel_axis(layer, node.inputs[0])
            and describe(layer.activation).elementwise
        )
        return (GroupedConvRule if by_group else cls)(node, ins, atoms)

    def whole_reason(self) -> str | None:
        if self.layer.groups > 1:
            return "it is a grouped convolution whose groups cannot be told apart"
        return None

    def weights(self, n_in: Any, n_out: Any) -> Any:
        taps = math.prod(self.layer.kernel_size)
        return taps / self.layer.groups * n_in * n_out


class GroupedConvRule(GroupedRule):
    """A grouped convolution: whole groups go."""

    def blocks(self) -> np.ndarray:
        kernel = self.kernel().astype("float64")
        shape = (*kernel.shape[:-1], self.layer.groups, -1)
        return np.moveaxis(kernel.reshape(shape), -2, -3)

    def pack(self, kernel: np.ndarray) -> np.ndarray:
        kernel = np.moveaxis(kernel, -3, -2)
        return kernel.reshape(*kernel.shape[:-2], -1)

    def config(self, groups: int) -> dict[str, Any]:
        return {"groups": groups}

    @property
    def group(self) -> tuple[int, int]:
        return len(self.of_input) // self.groups, self.units // self.groups


@register_strip_rule(
    keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    L0Conv1DTranspose, L0Conv2DTranspose, L0Conv3DTranspose,
)  # fmt: skip
class ConvTransposeRule(Convolution):
    """A transposed convolution, whose kernel is ``(..., out, in)``.

    Its output positions meet different parts of the kernel, so that even far from the
    borders a constant channel does not add the same everywhere.
    """

    timing = (*Convolution.timing, "output_padding")

    @property
    def uniform(self) -> bool:
        return set(self.layer.kernel_size) | set(self.layer.strides) == {1}

    @property
    def applications(self) -> int:
        return self.node.inputs[0].positions(self.axis(self.node.inputs[0]))

    def weights(self, n_in: Any, n_out: Any) -> Any:
        return math.prod(self.layer.kernel_size) * n_in * n_out

    def unpacked(self, kernel: np.ndarray) -> np.ndarray:
        return np.swapaxes(kernel, -1, -2)

    def pack(self, kernel: np.ndarray) -> np.ndarray:
        return np.swapaxes(kernel, -1, -2)

    def rebuilt(self, *args: Any, **config: Any) -> list[tuple[Any, np.ndarray]]:
        # Older Keras forgets this one in the layer's config.
        config["output_padding"] = self.layer.output_padding
        return super().rebuilt(*args, **config)


@register_strip_rule(
    keras.layers.SeparableConv1D, keras.layers.SeparableConv2D,
    L0SeparableConv1D, L0SeparableConv2D,
)  # fmt: skip
class SeparableConvRule(Convolution):
    """A depthwise convolution, and a pointwise one on what it makes.

    Each input channel has its own spatial kernel, so that none can carry another.
    """

    timing = (*Convolution.timing, "depth_multiplier")
    carries = False

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        # Part of the kernel does not depend on how many units there are, if any.
        exists = any_(keep[0])[0]
        params, macs = super().size(ins, keep_in, keep)
        return Size(params * exists, macs * exists)

    def weights(self, n_in: Any, n_out: Any) -> Any:
        taps = math.prod(self.layer.kernel_size)
        return n_in * self.layer.depth_multiplier * (taps + n_out)

    def taps(self) -> np.ndarray:
        depthwise, pointwise = self._kernels()
        sums = depthwise.sum(axis=tuple(range(depthwise.ndim - 2)))
        return np.einsum("im,imo->io", sums, pointwise)

    def cut(
        self, x: Signal | None, moved: Moved | None, factor: np.ndarray, keep: Any
    ) -> list[np.ndarray]:
        depthwise, pointwise = self._kernels()
        pointwise = pointwise[..., keep] * factor[keep]
        if x is not None:
            depthwise = depthwise[..., x.keep, :] * x.scale[x.keep, None]
            pointwise = pointwise[x.keep]
        shape = (1,) * self.layer.rank + (-1, pointwise.shape[-1])
        return [depthwise, pointwise.reshape(shape)]

    def _kernels(self) -> tuple[np.ndarray, np.ndarray]:
        """The depthwise kernel ``(..., in, m)``, the pointwise ``(in, m, out)``."""
        depthwise = float64(self.layer.depthwise_kernel)
        pointwise = float64(self.layer.pointwise_kernel)
        return depthwise, pointwise.reshape(*depthwise.shape[-2:], -1)
