"""Rules of layers in which each group of input channels makes its own outputs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.activations import describe
from keras_l0.analysis.facts import (
    Atoms,
    Channels,
    Demand,
    Flow,
    Site,
    Size,
    multiplied,
)
from keras_l0.analysis.logic import (
    and_,
    any_,
    array_like,
    count,
    group_any,
    not_,
    or_,
    take,
)
from keras_l0.analysis.rules.base import Barrier
from keras_l0.analysis.rules.convolution import Convolution
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.analysis.shapes import LayerShape, Work
from keras_l0.layers import L0DepthwiseConv1D, L0DepthwiseConv2D


class GroupedRule(Convolution):
    """A convolution in groups: one goes with all its inputs and all its outputs.

    As groups must stay equally large, no channel goes without its group.
    """

    reads_all = False
    makes_all = False
    # Of a convolution, how many channels a group reads and makes.
    group: tuple[int, int] | None = None

    def connect(self, atoms: Atoms) -> list[Channels]:
        (x,) = self.ins
        self.activation = describe(self.layer.activation)
        if x.axis != self.axis(self.node.inputs[0]):
            raise Barrier("its input's channels lie on another axis")
        if not self.activation.elementwise:
            raise Barrier(f"its activation {self.activation.name} mixes the units")
        axis = self.axis(self.node.outputs[0])
        self.units = self.node.outputs[0].shape[axis]
        self.groups, wide, made = self.blocks().shape[-3:]
        self.of_input = np.repeat(np.arange(self.groups), wide)
        self.of_output = np.repeat(np.arange(self.groups), made)
        leaders = x.atoms[::wide]
        if wide > 1:
            atoms.tie(x.atoms, leaders[self.of_input])
        self.shifts = self.layer.use_bias
        self.at_rest = self._of(x.rest)
        rest = self.at_rest if not self.gates else np.zeros(self.units)
        return [Channels(axis, leaders[self.of_output], rest)]

    def blocks(self) -> np.ndarray:
        """The kernel in float64, ``(..., group, in, out)``."""
        raise NotImplementedError

    def config(self, groups: int) -> dict[str, Any]:
        """What changes in the config when so many groups are left."""
        return {}

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        (x,) = ins
        live, still = x.alive, x.const
        if not self.uniform:
            live, still = or_(live, self.nonzero(0, x)), 0.0 * still
        live = take(group_any(live, self.of_input, self.groups), self.of_output)
        still = take(group_any(still, self.of_input, self.groups), self.of_output)
        if gate is not None:
            still = or_(still, array_like(live, self.at_rest != 0))
            live, still = and_(live, gate), and_(still, gate)
        return [Flow(live, and_(not_(live), still))]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        (d,) = demands
        read = group_any(and_(outs[0].alive, d.need), self.of_output, self.groups)
        pin = or_(read, group_any(d.pin, self.of_output, self.groups))
        return [Demand(take(read, self.of_input), take(pin, self.of_input))]

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        wide = len(self.of_input) // self.groups
        n_out = count(keep[0])
        weights = math.prod(self.layer.kernel_size) * wide * n_out
        bias = n_out if self.layer.use_bias else 0.0
        return Size(weights + bias, weights * self.positions)

    @property
    def shape(self) -> LayerShape | None:
        shape = super().shape
        if shape is None:
            return None
        return dataclasses.replace(shape, units=None, group=self.group)

    def work(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Work:
        return Work(any_(keep[0])[0], count(keep_in[0]))

    def constants(self, site: Site) -> list[np.ndarray]:
        value = self._of(
            np.where(site.flows_in[0].alive > 0, np.nan, site.ins[0].value)
        )
        return [multiplied(site.constant(value), site.scale)]

    def _of(self, value: np.ndarray) -> np.ndarray:
        """The outputs of channels that are the same at all positions."""
        blocks = self.blocks()
        blocks = blocks.sum(axis=tuple(range(blocks.ndim - 3)))
        value = value.reshape(self.groups, -1)
        sums = np.einsum("gi,gio->go", value, blocks).ravel()
        return self.activation(self.bias() + sums)

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x = site.rescale(0) if self.shares_weights else site.ins[0]
        kept = site.keep[0].reshape(self.groups, -1).any(axis=1)
        factor, waiting = self.outgoing(site)
        blocks = self.blocks() * x.scale.reshape(self.groups, -1, 1)
        blocks = blocks * factor.reshape(self.groups, 1, -1)
        kernels = [self.pack(blocks[..., kept, :, :])]
        bias = self.layer.use_bias and self.bias() * factor
        config = self.config(int(kept.sum()))
        return self.rebuilt(site, x, kernels, bias, waiting, **config)


@register_strip_rule(
    keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D,
    L0DepthwiseConv1D, L0DepthwiseConv2D,
)  # fmt: skip
class DepthwiseConvRule(GroupedRule):
    """Each input channel makes ``depth_multiplier`` outputs of its own."""

    units_name = ""
    timing = (*Convolution.timing, "depth_multiplier")

    def blocks(self) -> np.ndarray:
        return self.kernel().astype("float64")[..., np.newaxis, :]

    def pack(self, kernel: np.ndarray) -> np.ndarray:
        return kernel[..., 0, :]
