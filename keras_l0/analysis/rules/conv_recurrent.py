"""The rule of convolutional recurrences: their input channels are cut.

Every unit feeds the recurrence through a convolution, and there is no layer with gates
inside of it, so all units stay.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import Atoms, Channels, Site, Size, opaque
from keras_l0.analysis.logic import count
from keras_l0.analysis.rules.reading import ReadingRule, replaced
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.analysis.rules.spatial import channel_axis, spatial_layers


@register_strip_rule(*spatial_layers("ConvLSTM"))
class ConvLSTMRule(ReadingRule):
    """ConvLSTM1D to 3D: the input is read by a convolution at each step."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        (x,) = self.roles = (self.node.arguments()["sequences"][0],)
        self.cell = self.layer.cell
        last = channel_axis(self.layer, self.node.inputs[x])
        readable = last == len(self.node.inputs[x].shape) - 1
        self.read = self.readable(self.roles) if readable else frozenset()
        # Constants that meet a border are not the same everywhere behind it.
        self.folds = self.cell.use_bias and self.cell.padding == "valid"
        self.reason = "its units feed its own recurrence, through a convolution"
        if not self.read:
            self.reason += "; its input's channels lie on another axis"
        return [opaque(tensor.shape, atoms) for tensor in self.node.outputs]

    def size(self, ins: list[Any], keep_in: list[Any], keep: list[Any]) -> Size:
        (x,) = self.roles
        exists = keep[0][0]
        share = count(keep_in[x]) / self.ins[x].size if self.read else 1.0
        weights = exists * (
            math.prod(self.cell.kernel.shape) * share
            + math.prod(self.cell.recurrent_kernel.shape)
        )
        bias = exists * (4 * self.cell.filters if self.cell.use_bias else 0)
        steps = self.node.inputs[x].shape[1] or 1
        shape = self.node.outputs[0].shape[-1 - self.cell.rank :]
        one_step = math.prod(size or 1 for size in shape) // self.cell.filters
        return Size(weights + bias, weights * steps * one_step)

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        (x,) = self.roles
        kernel = np.moveaxis(float64(self.cell.kernel), -2, 0)
        kernel, offset = self.rows(site, x, kernel)
        new = {id(self.cell.kernel): np.moveaxis(kernel, 0, -2)}
        if self.cell.use_bias:
            added = offset.sum(axis=tuple(range(self.cell.rank)))
            new[id(self.cell.bias)] = float64(self.cell.bias) + added
        config = self.layer.get_config()
        layer = site.build(type(self.layer), config, replaced(self.layer, new))
        return self.called(layer, site)
