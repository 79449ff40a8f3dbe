"""Rules of layers that only move elements: Flatten, Reshape; and selection."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Site
from keras_l0.analysis.logic import group_any, take
from keras_l0.analysis.rules.base import Barrier, Rule, register_strip_rule


@register_strip_rule(keras.layers.Flatten, keras.layers.Reshape)
class ReshapeRule(Rule):
    """A new shape, in which each last-axis position holds one input channel.

    Flatten's is position-major and channel-minor in both data formats.
    """

    passes_scale = True
    selectable = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        old, new = self.node.inputs[0].shape[1:], self.node.outputs[0].shape[1:]
        if None in old or None in new or self.ins[0].axis is None:
            raise Barrier("it reshapes a tensor of unknown size")
        axis = self.ins[0].axis - 1
        # Which input channel each element of the output comes from.
        shape = [1] * len(old)
        shape[axis] = old[axis]
        source = np.broadcast_to(np.arange(old[axis]).reshape(shape), old)
        if (
            getattr(self.layer, "data_format", None) == "channels_first"
            and len(old) > 1
        ):
            source = np.moveaxis(source, 0, -1)
        if not new:
            raise Barrier("its output has no axis to hold channels")
        source = source.reshape(math.prod(new[:-1]), new[-1])
        if (source != source[0]).any():
            raise Barrier("one position of its last axis holds several channels")
        self.source = source[0]
        x = self.ins[0]
        return [Channels(len(new), x.atoms[self.source], x.rest[self.source])]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return [Flow(*(take(fact, self.source) for fact in ins[0]))]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        size = self.ins[0].size
        return [Demand(*(group_any(d, self.source, size) for d in demands[0]))]

    def constants(self, site: Site) -> list[np.ndarray]:
        return [site.ins[0].value[self.source]]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x, keep = site.ins[0], site.keep[0]
        config = self.layer.get_config()
        if "target_shape" in config:
            shape = self.node.outputs[0].shape[1:-1]
            config["target_shape"] = [*shape, int(keep.sum())]
        y = self.node.call(site.build(type(self.layer), config, []), [x.tensor])
        return [(y, x.scale[self.source])]


class SelectRule(Rule):
    """Picks channels out of a tensor whose other channels cannot be removed.

    It stands for no call of the source model. The analysis puts one where channels may
    be gathered: behind each input, and behind each reshape.
    """

    passes_scale = True
    layer = None
    gate = None

    def connect(self, atoms: Atoms) -> list[Channels]:
        (channels,) = self.ins
        return [Channels(channels.axis, atoms.new(channels.size), channels.rest)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x, keep = site.ins[0], site.keep[0]
        tensor = x.tensor
        if not keep[x.keep].all():
            indices = np.flatnonzero(keep[x.keep]).astype("int32")
            tensor = keras.ops.take(tensor, indices, axis=self.outs[0].axis)
        return [(tensor, x.scale)]
