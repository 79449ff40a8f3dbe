"""The rules of EinsumDense: its equation says which axes are channels and units."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.activations import describe
from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import (
    Atoms,
    Channels,
    Demand,
    Flow,
    Site,
    Size,
    multiplied,
    opaque,
)
from keras_l0.analysis.graph import Node
from keras_l0.analysis.logic import any_, count
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.elementwise import ElementwiseRule
from keras_l0.analysis.rules.links import kernel_of, weight_gates
from keras_l0.analysis.rules.reading import ReadingRule
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.layers import L0EinsumDense
from keras_l0.layers.einsum import unit_label


@register_strip_rule(keras.layers.EinsumDense, L0EinsumDense)
class EinsumDenseRule(ReadingRule):
    """``activation(einsum(equation, x, kernel) + bias)``.

    Input channels are the one axis that is contracted. Units are the one output axis
    that the kernel alone makes, or, of several (heads, dim), the last output axis.
    """

    @classmethod
    def of(cls, node: Node, ins: list[Channels], atoms: Atoms) -> Rule:
        per_channel = _keeps_channels(node, ins[0].axis)
        return (PerChannelRule if per_channel else cls)(node, ins, atoms)

    def connect(self, atoms: Atoms) -> list[Channels]:
        layer = self.layer
        self.activation = describe(layer.activation)
        x, y = self.node.inputs[0], self.node.outputs[0]
        source, kernel, target = labels(layer.equation, len(x.shape))
        contracted = [c for c in kernel if c in source and c not in target]
        channel = contracted[0] if len(contracted) == 1 else None
        unit = unit_label(layer.equation)
        self.labels, self.channel = (source, kernel, target), channel

        reasons = []
        reads = channel is not None and self.ins[0].axis == source.index(channel)
        self.reads_all = not reads
        if not reads:
            what = ("no axis", "an axis without channels", "several axes")
            which = what[min(len(contracted), 2)]
            reasons.append(f"it sums over {which} of its input")
        # One axis makes the units; none of the others may mix them.
        self.unit = unit if self.activation.elementwise else None
        if unit is None:
            reasons.append("no single axis of its output holds units of its kernel")
        elif self.unit is None:
            reasons.append(f"its activation {self.activation.name} mixes the units")
        self.reason = "; ".join(reasons) or None
        self.roles, self.read = (0,), frozenset([0] if reads else [])
        self.bias_has_units = unit is not None and unit in (layer.bias_axes or "")
        # A bias takes up constants if it has all axes of what the kernel makes of one.
        axes = set(layer.bias_axes or "")
        self.folds = {c for c in kernel if c != channel} <= axes
        weights = weight_gates(layer, atoms)
        self.gates_weights = bool(weights)
        if unit is None:
            return [opaque(y.shape, atoms), *weights]
        axis = target.index(unit)
        units = y.shape[axis]
        assert units is not None
        return [Channels.rest_at_zero(axis, atoms.new(units)), *weights]

    @property
    def absorbs_factor(self) -> bool:
        reaches = self.layer.bias is None or self.bias_has_units
        homogeneous = self.activation.homogeneous and self.unit is not None
        return homogeneous and reaches and not self.shares_weights

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        (y, *weights) = super().forward(ins, None if self.outs[1:] else gate)
        return [y, *(Flow(gate, 0.0 * gate) for _ in weights)]

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        y, *weights = outs
        return [*super().claims(flows, [y]), *weights] if self.unit is None else outs

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        return super().backward(ins, outs[:1], demands[:1])

    def scale(self, site: Site) -> np.ndarray:
        """What the units are multiplied by, if not their weights."""
        return site.factor if self.outs[1:] else site.scale

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        layer = self.layer
        rows: Any = 1.0
        if self.read:
            rows = count(keep_in[0]) / self.ins[0].size
        # Of a layer whose units all stay, each is there if the layer is.
        share = keep[0][0]
        exists = share
        if self.unit is not None:
            share, exists = count(keep[0]) / self.outs[0].size, any_(keep[0])[0]
        weights = math.prod(layer.kernel.shape) * rows * share
        bias: Any = 0.0
        if layer.bias is not None:
            cut = share if self.bias_has_units else exists
            bias = math.prod(layer.bias.shape) * cut
        return Size(weights + bias, weights * _applications(self.node))

    def constants(self, site: Site) -> list[np.ndarray]:
        return [np.where(self.scale(site) == 0, 0.0, np.nan)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        layer, keep = self.layer, site.keep[0]
        _, axes, target = self.labels
        kernel = kernel_of(layer).astype("float64")
        bias, bias_axes = None, ""
        if layer.bias is not None:
            bias = float64(layer.bias)
            bias_axes = target[-bias.ndim :]
        if self.read:
            assert self.channel is not None
            row = axes.index(self.channel)
            kernel, offset = self.rows(site, 0, np.moveaxis(kernel, row, 0))
            kernel = np.moveaxis(kernel, 0, row)
            if bias is not None and self.folds:
                bias = bias + _aligned(
                    offset, axes.replace(self.channel, ""), bias_axes
                )
        scale = self.scale(site)
        kind, config = self.plain()
        if self.unit is not None:
            column = axes.index(self.unit)
            cuts = [(kernel, column)]
            if bias is not None and self.bias_has_units:
                cuts.append((bias, bias_axes.index(self.unit)))
            if self.absorbs_factor:
                cuts = [(w * _along(scale, a, w.ndim), a) for w, a in cuts]
                scale = np.ones(len(scale))
            kernel, *others = [np.compress(keep, w, axis=a) for w, a in cuts]
            bias = others[0] if others else bias
            config["output_shape"] = _partial_shape(layer, target, self.unit, keep)
        weights = [kernel] if bias is None else [kernel, bias]
        new = site.build(kind, config, weights)
        ((y, _),) = self.called(new, site)
        return [(y, scale)]


class PerChannelRule(ElementwiseRule):
    """An equation that keeps the channels: each has weights of its own, as in c,c->c.

    Over positions it may sum, which makes of a constant another one.
    """

    def connect(self, atoms: Atoms) -> list[Channels]:
        self.activation = describe(self.layer.activation)
        if not self.activation.elementwise:
            raise Barrier(f"its activation {self.activation.name} mixes the channels")
        source, kernel, target = labels(
            self.layer.equation, len(self.node.inputs[0].shape)
        )
        (x,) = self.ins
        assert x.axis is not None
        self.channel, self.target = source[x.axis], target
        self.row = kernel.index(self.channel)
        (y,) = super().connect(atoms)
        return [dataclasses.replace(y, axis=target.index(self.channel))]

    @property
    def absorbs_factor(self) -> bool:
        return self.activation.homogeneous and not self.shares_weights

    def _arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The kernel with channels first, and the bias per channel if there is one."""
        bias = self.layer.bias
        kernel = np.moveaxis(float64(self.layer.kernel), self.row, 0)
        return kernel, None if bias is None else float64(bias).ravel()

    def function(self, values: np.ndarray) -> np.ndarray:
        kernel, bias = self._arrays()
        slopes = kernel.reshape(len(kernel), -1).sum(axis=1)
        return self.activation(values * slopes + (0.0 if bias is None else bias))

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        kernel, bias = self.layer.kernel.shape, self.layer.bias
        weights = math.prod(kernel) * count(keep[0]) / self.outs[0].size
        biases = 0.0 if bias is None else count(keep[0])
        return Size(weights + biases, weights * _applications(self.node))

    def constants(self, site: Site) -> list[np.ndarray]:
        (value,) = super().constants(site)
        return [multiplied(value, site.factor)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x = site.rescale(0) if self.shares_weights else site.ins[0]
        keep, factor = site.keep[0], site.factor
        kernel, bias = self._arrays()
        kernel = kernel * _along(x.scale * factor, 0, kernel.ndim)
        weights = [np.moveaxis(kernel[keep], 0, self.row)]
        if bias is not None:
            shape = [-1 if n > 1 else 1 for n in self.layer.bias.shape]
            weights.append((bias * factor)[keep].reshape(shape))
        kind, config = self.plain()
        config["output_shape"] = _partial_shape(
            self.layer, self.target, self.channel, keep
        )
        new = site.build(kind, config, weights)
        return [(self.node.call(new, [x.tensor]), np.ones(len(keep)))]


def _keeps_channels(node: Node, axis: int | None) -> bool:
    """Whether an equation gives each channel of its input weights of its own."""
    layer = node.operation
    if getattr(layer, "block", None):  # which gates close, one by one
        return False
    source, kernel, target = labels(layer.equation, len(node.inputs[0].shape))
    if axis is None or source[axis] not in kernel or source[axis] not in target:
        return False
    others = set(kernel) - {source[axis]}
    summed = others <= set(source) - set(target)
    return summed and set(layer.bias_axes or "") <= {source[axis]}


def _applications(node: Node) -> int:
    """How often the kernel is applied to one example."""
    shape = node.inputs[0].shape
    source, kernel, _ = labels(node.operation.equation, len(shape))
    sizes = dict(zip(source, shape, strict=True))
    return math.prod(sizes[c] or 1 for c in source[1:] if c not in kernel)


def _partial_shape(
    layer: Any, target: str, label: str, keep: np.ndarray
) -> list[int | None]:
    """The layer's argument `output_shape` if one axis has only what is kept."""
    shape = list(layer.partial_output_shape)
    # The argument skips the batch axis and what an ellipsis stands for.
    right = layer.equation.endswith("...")
    start = 1 if right else len(target) - len(shape)
    shape[target.index(label) - start] = int(keep.sum())
    return shape


def labels(equation: str, rank: int) -> tuple[str, str, str]:
    """The labels of input, kernel and output; digits where there is an ellipsis."""
    source, kernel, target = re.split(",|->", equation)
    elided = "".join(map(str, range(rank - len(source.replace("...", "")))))
    return source.replace("...", elided), kernel, target.replace("...", elided)


def _aligned(values: np.ndarray, axes: str, target: str) -> np.ndarray:
    """Values on the axes ``axes``, shaped to be added to those on ``target``."""
    order = sorted(range(len(axes)), key=lambda i: target.index(axes[i]))
    sizes = dict(zip(axes, values.shape, strict=True))
    return values.transpose(order).reshape([sizes.get(c, 1) for c in target])


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A vector shaped to be multiplied along one axis."""
    return values.reshape([-1 if a == axis else 1 for a in range(rank)])
