"""The rule of EinsumDense: its equation says which axes are channels and units."""

from __future__ import annotations

import math
import re
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
    opaque,
)
from keras_l0.analysis.logic import any_, count
from keras_l0.analysis.rules.reading import ReadingRule, float64
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.layers import L0EinsumDense
from keras_l0.layers.einsum import unit_label


@register_strip_rule(keras.layers.EinsumDense, L0EinsumDense)
class EinsumDenseRule(ReadingRule):
    """``activation(einsum(equation, x, kernel) + bias)``.

    Input channels are the one axis that is contracted. Units are the one output axis
    that the kernel alone makes, or, of several (heads, dim), the last output axis.
    """

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
            name = getattr(layer.activation, "__name__", layer.activation)
            reasons.append(f"its activation {name} mixes the units")
        self.reason = "; ".join(reasons) or None
        self.roles, self.read = (0,), frozenset([0] if reads else [])
        self.bias_has_units = unit is not None and unit in (layer.bias_axes or "")
        # A bias takes up constants if it has all axes of what the kernel makes of one.
        axes = set(layer.bias_axes or "")
        self.folds = {c for c in kernel if c != channel} <= axes
        if unit is None:
            return [opaque(y.shape, atoms)]
        axis = target.index(unit)
        units = y.shape[axis]
        assert units is not None
        return [Channels.rest_at_zero(axis, atoms.new(units))]

    @property
    def absorbs_factor(self) -> bool:
        reaches = self.layer.bias is None or self.bias_has_units
        homogeneous = self.activation.homogeneous and self.unit is not None
        return homogeneous and reaches and not self.shares_weights

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        return super().claims(flows, outs) if self.unit is None else outs

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        source, kernel, _ = self.labels
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
        shape = dict(zip(source, self.node.inputs[0].shape, strict=True))
        repeats = math.prod(shape[c] or 1 for c in source[1:] if c not in kernel)
        return Size(weights + bias, weights * repeats)

    def constants(self, site: Site) -> list[np.ndarray]:
        return [np.where(site.scale == 0, 0.0, np.nan)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        layer, keep = self.layer, site.keep[0]
        _, axes, target = self.labels
        kernel = float64(layer.kernel)
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
        scale = site.scale
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
            config["output_shape"] = self._partial_shape(int(keep.sum()))
        weights = [kernel] if bias is None else [kernel, bias]
        new = site.build(kind, config, weights)
        ((y, _),) = self.called(new, site)
        return [(y, scale)]

    def _partial_shape(self, units: int) -> list[int | None]:
        """The layer's argument `output_shape` for another number of units."""
        shape = list(self.layer.partial_output_shape)
        target = self.labels[2]
        # The argument skips the batch axis and what an ellipsis stands for.
        right = self.layer.equation.endswith("...")
        start = 1 if right else len(target) - len(shape)
        assert self.unit is not None
        shape[target.index(self.unit) - start] = units
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
