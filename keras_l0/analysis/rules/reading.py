"""What layers have in common that read channels by kernels, position by position.

Recurrences, attention and projections read their inputs as Dense does, but make
something of it that is not looked through. So a rule of theirs can drop input rows and
fold constants, whatever it does with its outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import reduce
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import (
    Channels,
    Demand,
    Flow,
    Signal,
    Site,
    pinned,
    varying,
)
from keras_l0.analysis.logic import and_, any_, first, ones_like, or_
from keras_l0.analysis.rules.base import Rule
from keras_l0.layers import find_gates


class ReadingRule(Rule):
    """A call that reads some of its inputs by kernels, at every position alone.

    Attributes:
        read: The inputs that it so reads; of the others, such as masks, all stays.
        roles: The inputs that weights are for, in an order that is the same in all
            calls of the layer.
        folds: Constants can go into a bias. Otherwise those at rest are read from one
            of them, the carrier.
    """

    read: frozenset[int] = frozenset()
    roles: tuple[int, ...] = ()
    folds: bool = False

    @property
    def coupled(self) -> list[Channels]:
        """What the weights are for; calls may differ in positions and masks."""
        sides = [(self.ins[i], self.node.inputs[i]) for i in self.roles]
        sides.append((self.outs[0], self.node.outputs[0]))
        return [
            dataclasses.replace(c, axis=c.axis and c.axis - len(t.shape))
            for c, t in sides
        ]

    def readable(self, indices: Sequence[int]) -> frozenset[int]:
        """Those inputs that hold their channels on the last axis."""
        ranks = [len(tensor.shape) for tensor in self.node.inputs]
        return frozenset(i for i in indices if self.ins[i].axis == ranks[i] - 1)

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        flows = [varying(ins[0].alive, c.size) for c in self.outs]
        if gate is not None:
            flows[0] = Flow(and_(flows[0].alive, gate), flows[0].const)
        return flows

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        """All units stay; whether anything varying is read, consumers say."""
        return [Demand(d.need, ones_like(d.need)) for d in outs]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        wanted = [
            any_(and_(flow.alive, d.need))
            for flow, d in zip(outs, demands, strict=True)
        ]
        reads = reduce(or_, wanted)
        return [self.ask(i, x, reads) for i, x in enumerate(ins)]

    def ask(self, i: int, x: Flow, reads: Any) -> Demand:
        """What is asked of input ``i`` if the call is read at all."""
        if i not in self.read:
            return pinned(x.alive)
        # One kernel serves all calls that share it: it can take up a constant only if
        # that is the same in all of them, and a carrier only if there is one call.
        if self.folds and not self.shares_weights:
            pin = 0.0 * x.alive
        elif self.folds and self.rests_alike(i):
            pin = x.const
        elif not self.shares_weights:
            pin = or_(x.const, first(self.rests(i, x)))
        else:
            pin = self.nonzero(i, x)
        return Demand(and_(reads, ones_like(x.alive)), and_(pin, reads))

    def rests_alike(self, i: int) -> bool:
        """Whether input ``i`` of all calls of the layer rests at the same values."""
        places = [place for place, j in enumerate(self.roles) if j == i]
        for call in self.calls:
            roles = getattr(call, "roles", None)
            if roles is None:  # a barrier: it says nothing of its inputs
                return False
            rests = [call.ins[roles[place]].rest for place in places]
            if not all(np.array_equal(self.ins[i].rest, rest) for rest in rests):
                return False
        return True

    def source(self, site: Site, i: int) -> Signal:
        """The rewritten input ``i``, with a waiting scale only if it can be folded."""
        free = i in self.read and not self.shares_weights
        return site.ins[i] if free else site.rescale(i)

    def rows(
        self, site: Site, i: int, kernel: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The kernel on what is kept of input ``i``, and what goes into the bias.

        Args:
            site: The call.
            i: The input.
            kernel: Of shape (in, ...).
        """
        offset = np.zeros(kernel.shape[1:])
        if i not in self.read:
            return kernel, offset
        x, flow = self.source(site, i), site.flows_in[i]
        kernel = kernel.copy()
        folded = ~x.keep & (self.nonzero(i, flow) > 0)
        if self.folds:
            offset = np.tensordot(x.value[folded], kernel[folded], 1)
        else:
            # No carrier is left where nobody reads the outputs: they hold a place.
            carriers = x.keep & (self.rests(i, flow) > 0) & (x.scale != 0)
            for carrier in np.flatnonzero(carriers)[:1]:
                shares = x.value[folded] / x.value[carrier]
                kernel[carrier] += np.tensordot(shares, kernel[folded], 1)
        scale = x.scale.reshape(-1, *[1] * (kernel.ndim - 1))
        return (kernel * scale)[x.keep], offset

    def constants(self, site: Site) -> list[np.ndarray]:
        return [np.full(c.size, np.nan) for c in self.outs]

    def called(self, layer: Any, site: Site) -> list[tuple[Any, np.ndarray]]:
        """The new layer's outputs on the rewritten inputs."""
        tensors = [self.source(site, i).tensor for i in range(len(site.ins))]
        outputs = keras.tree.flatten(self.node.call(layer, tensors))
        visible = self.outs[: len(self.node.outputs)]
        return [(y, np.ones(c.size)) for y, c in zip(outputs, visible, strict=True)]


def on_last_axis(shape: Sequence[int | None], atoms: np.ndarray) -> Channels:
    """Channels that are 0 at rest on the last axis of a tensor of this shape."""
    return Channels.rest_at_zero(len(shape) - 1, atoms)


def replaced(layer: Any, new: dict[int, np.ndarray]) -> list[np.ndarray]:
    """All weights of a layer but its gates' in their order, some (by id) replaced."""
    gates = {id(w) for gate in find_gates(layer) for w in gate.weights}
    return [
        new[id(w)] if id(w) in new else float64(w)
        for w in layer.weights
        if id(w) not in gates
    ]
