"""Rules of what puts tensors side by side, or contracts them."""

from __future__ import annotations

from functools import reduce
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import (
    Atoms,
    Channels,
    Demand,
    Flow,
    Signal,
    Site,
    opaque,
    pinned,
    varying,
)
from keras_l0.analysis.graph import Node
from keras_l0.analysis.logic import (
    and_,
    any_,
    concatenate,
    not_,
    or_,
)
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.moves import axis_of
from keras_l0.analysis.rules.registry import register_strip_rule


def same_axis(ins: list[Channels], node: Node) -> int:
    """The axis that holds the channels of all inputs; a barrier if they differ."""
    axes = {(c.axis, len(t.shape)) for c, t in zip(ins, node.inputs, strict=True)}
    (axis, _), *others = axes
    if others or axis is None:
        raise Barrier("its inputs hold their channels on different axes")
    return axis


@register_strip_rule(keras.layers.Concatenate)
class ConcatenateRule(Rule):
    """Channels side by side; each branch keeps what it likes."""

    @classmethod
    def of(cls, node: Node, ins: list[Channels], atoms: Atoms) -> Rule:
        rank = len(node.outputs[0].shape)
        if rank > len(node.inputs[0].shape):
            raise Barrier("it makes a new axis")
        axis = axis_of(node.operation) % rank
        (listed,), _ = node.filled()
        if len(listed) > len(node.inputs):
            raise Barrier("a constant is among its inputs")
        if axis == same_axis(ins, node):
            return cls(node, ins, atoms)
        return StackedPositionsRule(node, ins, atoms)

    def connect(self, atoms: Atoms) -> list[Channels]:
        own = np.concatenate([c.atoms for c in self.ins])
        rest = np.concatenate([c.rest for c in self.ins])
        return [Channels(self.ins[0].axis, own, rest)]

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

    def operands(self, exists: Any, ins: list[Flow], kept: list[Any]) -> list[Any]:
        if self.node.masked or len({t.dtype for t in self.node.inputs}) > 1:
            return [exists] * len(ins)
        wanted = [any_(k) for k in kept]
        # Something has to stand for no channels at all: the first input.
        wanted[0] = or_(wanted[0], not_(reduce(or_, wanted)))
        return [and_(exists, w) for w in wanted]

    def constants(self, site: Site) -> list[np.ndarray]:
        return [np.concatenate([x.value for x in site.ins])]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        scale = np.concatenate([x.scale for x in site.ins])
        return [(self.joined(site, site.ins), scale)]

    def joined(self, site: Site, signals: list[Signal]) -> Any:
        """The call on what is left: the only input that is, if it is one."""
        tensors = [x.tensor for x in signals if x.tensor is not None]
        if len(tensors) == 1:
            return tensors[0]
        return site.build(type(self.layer), self.layer.get_config(), [])(tensors)


class StackedPositionsRule(ConcatenateRule):
    """Positions of several tensors: a channel is tied across all of them.

    It is a constant only where it rests at the same value in all of them.
    """

    def connect(self, atoms: Atoms) -> list[Channels]:
        first, *others = self.ins
        axis = same_axis(self.ins, self.node)
        rank = len(self.node.outputs[0].shape)
        if rank > len(self.node.inputs[0].shape):
            # There is a new axis, maybe before that of the channels.
            axis += self.layer.axis % rank <= axis
        for other in others:
            atoms.tie(first.atoms, other.atoms)
        self.differs = np.any([c.rest != first.rest for c in others], axis=0)
        self.differs = np.broadcast_to(self.differs, first.size)
        return [Channels(axis, first.atoms, np.where(self.differs, 0.0, first.rest))]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        some = Flow(*(reduce(or_, facts) for facts in zip(*ins, strict=True)))
        return [some.disturbed(self.differs, consts=True)]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        return demands * len(ins)

    def operands(self, exists: Any, ins: list[Flow], kept: list[Any]) -> list[Any]:
        return [exists] * len(ins)

    def constants(self, site: Site) -> list[np.ndarray]:
        return [site.constant(self.outs[0].rest)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        keep, scale = site.keep[0], site.ins[0].scale
        alike = all(np.array_equal(x.scale[keep], scale[keep]) for x in site.ins)
        signals = [x if alike else site.rescale(i) for i, x in enumerate(site.ins)]
        scale = scale if alike else np.ones(len(scale))
        return [(self.joined(site, signals), scale)]

    def joined(self, site: Site, signals: list[Signal]) -> Any:
        new = site.build(type(self.layer), self.layer.get_config(), [])
        return new([x.tensor for x in signals])


class StackRule(StackedPositionsRule):
    """Tensors along a new axis of positions."""

    @classmethod
    def of(cls, node: Node, ins: list[Channels], atoms: Atoms) -> Rule:
        if node.operation.axis % len(node.outputs[0].shape) == 0:
            raise Barrier("it makes a new batch axis")
        return cls(node, ins, atoms)


@register_strip_rule(keras.layers.Dot)
class DotRule(Rule):
    """Products summed over the channels of both inputs.

    A channel that is 0 on one side is read on neither. With ``normalize`` each side's
    length counts, so that only what is 0 on both sides may go.
    """

    def connect(self, atoms: Atoms) -> list[Channels]:
        axes = self.layer.axes
        axes = axes if isinstance(axes, (list, tuple)) else [axes, axes]
        for axis, x, tensor in zip(axes, self.ins, self.node.inputs, strict=True):
            if x.axis is None or axis % len(tensor.shape) != x.axis:
                raise Barrier("it contracts another axis than the channels'")
        atoms.tie(self.ins[0].atoms, self.ins[1].atoms)
        return [opaque(self.node.outputs[0].shape, atoms)]

    def _some(self, i: int, flow: Flow) -> Any:
        """Which channels of input ``i`` may be other than 0."""
        return or_(flow.alive, self.nonzero(i, flow))

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return [varying(ins[0].alive, self.outs[0].size)]

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        return [pinned(outs[0].need)]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        some = [self._some(i, flow) for i, flow in enumerate(ins)]
        reads = or_(*some) if self.layer.normalize else and_(*some)
        return [Demand(reads, reads)] * 2

    def constants(self, site: Site) -> list[np.ndarray]:
        return [np.full(self.outs[0].size, np.nan)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        new = site.build(type(self.layer), self.layer.get_config(), [])
        y = new([site.rescale(i).tensor for i in range(2)])
        return [(y, np.ones(self.outs[0].size))]
