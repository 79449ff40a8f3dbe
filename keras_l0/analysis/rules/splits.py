"""Rules of raw operations that take a tensor apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras.src.ops.numpy import Split

from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Site
from keras_l0.analysis.logic import concatenate, group_any, take
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.moves import axis_of


class SplitRule(Rule):
    """Parts of a tensor along an axis."""

    passes_scale = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        x = self.only_input()
        (tensor,) = self.node.inputs
        self.axis = axis_of(self.layer) % len(tensor.shape)
        if x.axis is None or self.axis == 0:
            raise Barrier("it splits the batch, or a tensor of unknown channels")
        everything = np.arange(x.size)
        self.parts = [everything] * len(self.node.outputs)
        if self.axis == x.axis and len(self.node.outputs[0].shape) == len(tensor.shape):
            ends = np.cumsum([t.shape[self.axis] for t in self.node.outputs])
            self.parts = np.split(everything, ends[:-1])
        return [Channels(x.axis, x.atoms[p], x.rest[p]) for p in self.parts]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return [Flow(*(take(fact, p) for fact in ins[0])) for p in self.parts]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        where, size = np.concatenate(self.parts), self.ins[0].size
        facts = (concatenate(list(parts)) for parts in zip(*demands, strict=True))
        return [Demand(*(group_any(fact, where, size) for fact in facts))]

    def constants(self, site: Site) -> list[np.ndarray]:
        return [site.ins[0].value[p] for p in self.parts]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        config, x = self.layer.get_config(), site.ins[0]
        if self.axis == self.ins[0].axis:
            ends = np.cumsum([int(keep.sum()) for keep in site.keep])
            config["indices_or_sections"] = tuple(ends[:-1].tolist())
        # `array_split` takes no ends where it is symbolic, but `split` does.
        named = type(self.layer).__name__
        kind = Split if named == "ArraySplit" else type(self.layer)
        tensors = site.build(kind, config, [])(x.tensor)
        return [(y, x.scale[p]) for y, p in zip(tensors, self.parts, strict=True)]


class UnstackRule(SplitRule):
    """The places along an axis of positions, each as a tensor."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        outs = super().connect(atoms)
        (x,) = self.ins
        assert x.axis is not None
        if self.axis == x.axis:
            raise Barrier("it takes the channels apart")
        axis = x.axis - (self.axis < x.axis)
        return [Channels(axis, c.atoms, c.rest) for c in outs]
