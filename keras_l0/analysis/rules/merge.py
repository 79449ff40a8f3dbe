"""Rules of layers that merge branches."""

from __future__ import annotations

from functools import reduce
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Signal, Site
from keras_l0.analysis.logic import and_, any_, concatenate, not_, or_
from keras_l0.analysis.rules.base import Barrier, Rule, register_strip_rule


class MergeRule(Rule):
    """A merge of several inputs whose channels lie on the same axis."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        if len({(c.axis, len(t.shape)) for c, t in self._inputs()}) > 1:
            raise Barrier("its inputs hold their channels on different axes")
        return [self.merge(atoms)]

    def merge(self, atoms: Atoms) -> Channels:
        raise NotImplementedError

    def operand_exists(self, i: int, flow: Flow, kept: Any) -> Any:
        """Whether the merge needs input ``i`` (shape (1,)), while others are there."""
        raise NotImplementedError

    def operands(self, exists: Any, ins: list[Flow], kept: list[Any]) -> list[Any]:
        wanted = [
            self.operand_exists(i, flow, k)
            for i, (flow, k) in enumerate(zip(ins, kept, strict=True))
        ]
        # Something has to stand for a merge of nothing: the first input.
        nothing = not_(reduce(or_, wanted))
        wanted[0] = or_(wanted[0], nothing)
        return [and_(exists, w) for w in wanted]

    def present(self, site: Site) -> list[int]:
        return [i for i, x in enumerate(site.ins) if x.tensor is not None]

    def merged(self, site: Site, signals: list[Signal]) -> Any:
        """The new tensor: a merge of what is left, or the only one that is."""
        if len(signals) == 1:
            return signals[0].tensor
        new = site.build(type(self.layer), self.layer.get_config(), [])
        return new([x.tensor for x in signals])

    def _inputs(self) -> Any:
        return zip(self.ins, self.node.inputs, strict=True)


@register_strip_rule(keras.layers.Add)
class AddRule(MergeRule):
    """A sum: a channel goes only when it goes in all branches.

    A branch that is 0 for every input leaves the sum.
    """

    def merge(self, atoms: Atoms) -> Channels:
        sizes = {c.size for c in self.ins}
        if len(sizes) > 1 or self.ins[0].axis is None:
            raise Barrier(f"it broadcasts channels ({sorted(sizes)})")
        for channels in self.ins[1:]:
            atoms.tie(self.ins[0].atoms, channels.atoms)
        rest = np.sum([channels.rest for channels in self.ins], axis=0)
        return Channels(self.ins[0].axis, self.ins[0].atoms, rest)

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        alive = reduce(or_, [f.alive for f in ins])
        const = reduce(or_, [f.const for f in ins])
        return [Flow(alive, and_(not_(alive), const))]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        return demands * len(ins)

    def operand_exists(self, i: int, flow: Flow, kept: Any) -> Any:
        return any_(or_(flow.alive, self.nonzero(i, flow)))

    def constants(self, site: Site) -> list[np.ndarray]:
        return [np.sum([x.value for x in site.ins], axis=0)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        signals = [site.rescale(i) for i in self.present(site)]
        return [(self.merged(site, signals), np.ones(self.outs[0].size))]


@register_strip_rule(keras.layers.Concatenate)
class ConcatenateRule(MergeRule):
    """Channels side by side; each branch keeps what it likes."""

    def merge(self, atoms: Atoms) -> Channels:
        axis = self.layer.axis % len(self.node.outputs[0].shape)
        if self.ins[0].axis != axis:
            raise Barrier(f"it concatenates along axis {axis}, not along channels")
        return Channels(
            axis,
            np.concatenate([c.atoms for c in self.ins]),
            np.concatenate([c.rest for c in self.ins]),
        )

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return [Flow(*(concatenate(list(fact)) for fact in zip(*ins, strict=True)))]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        ends = np.cumsum([c.size for c in self.ins])
        return [
            Demand(*(fact[end - c.size : end] for fact in demands[0]))
            for c, end in zip(self.ins, ends, strict=True)
        ]

    def operand_exists(self, i: int, flow: Flow, kept: Any) -> Any:
        return any_(kept)

    def constants(self, site: Site) -> list[np.ndarray]:
        return [np.concatenate([x.value for x in site.ins])]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        scale = np.concatenate([x.scale for x in site.ins])
        return [(self.merged(site, [site.ins[i] for i in self.present(site)]), scale)]
