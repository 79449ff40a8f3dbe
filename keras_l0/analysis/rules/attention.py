"""Rules of attention: query, key and value are projections that read channels.

Gated heads go, and what a head takes with it is written down in `slice_heads`.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import keras
import numpy as np

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
from keras_l0.analysis.logic import (
    and_,
    any_,
    array_like,
    count,
    not_,
    ones_like,
    or_,
    take,
)
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.heads import INPUTS, OUTPUT, slice_heads
from keras_l0.analysis.rules.reading import ReadingRule, on_last_axis
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.layers import L0GroupQueryAttention, L0MultiHeadAttention


def projections(layer: Any) -> dict[str, Any]:
    """The EinsumDense layers in an attention layer, by name."""
    found = {
        inner.name: inner
        for inner in layer._flatten_layers(include_self=False)
        if isinstance(inner, keras.layers.EinsumDense)
    }
    return {n: found[n] for n in (*INPUTS, OUTPUT) if n in found}


class AttentionRule(ReadingRule):
    """Attention whose inputs are projected; the output's features go unless read.

    Behind its outputs come the heads, which are hidden channels: those of the keys and
    values, each with all heads of the query that look at it. If dimensions of heads
    have gates, those of the values come next, and those of the keys.
    """

    def connect(self, atoms: Atoms) -> list[Channels]:
        held = self.node.arguments()
        query, value = held["query"][0], held["value"][0]
        key = (held.get("key") or held["value"])[0]
        self.source_of = dict(zip(INPUTS, (query, key, value, query), strict=True))
        self.roles = (query, key, value)
        self.read = self.readable(self.roles)
        self.projections = projections(self.layer)
        self.folds = self.layer.get_config()["use_bias"]
        features, *scores = self.node.outputs
        # They have an axis of heads, which whoever reads them may count on.
        self.shows_heads = any(tensor.consumers for tensor in scores)
        if len(self.read) < len({query, key, value}):
            self.reason = "its input's channels lie on another axis"
        elif self.shows_heads and self.gates:
            self.reason = "its attention scores are read, and those of all heads"
        return [
            self.features(features.shape, query, atoms),
            *(opaque(tensor.shape, atoms) for tensor in scores),
            self.heads(atoms),
            *(Channels.rest_at_zero(None, atoms.new(g.count)) for g in self.gates[1:]),
        ]

    def features(
        self, shape: tuple[int | None, ...], query: int, atoms: Atoms
    ) -> Channels:
        """The channels of the output."""
        size = shape[-1]
        assert size is not None
        return on_last_axis(shape, atoms.new(size))

    def heads(self, atoms: Atoms) -> Channels:
        """The heads of keys and values."""
        _, count, key_dim = self.projections["key"].kernel.shape
        value_dim = self.projections["value"].kernel.shape[-1]
        self.key_dims = np.ones((count, key_dim), bool)
        self.value_dims = np.ones((count, value_dim), bool)
        # How many heads of the query look at each.
        self.repeats = self.projections["query"].kernel.shape[1] // count
        width = math.gcd(key_dim, value_dim)
        return Channels(None, atoms.new(count), np.zeros(count), width)

    @property
    def coupled(self) -> list[Channels]:
        return [*super().coupled, *self.outs[len(self.node.outputs) :]]

    def split(self, values: list[Any]) -> tuple[list[Any], Any, list[Any]]:
        """What there is of the outputs, of the heads, and of their dimensions."""
        n = len(self.node.outputs)
        return values[:n], values[n], values[n + 1 :]

    def gates_apart(self, gate: Any) -> list[Any]:
        """What there is of the gates, one by one."""
        ends = np.cumsum([each.count for each in self.gates])
        counts = zip(ends, self.gates, strict=True)
        return [take(gate, np.arange(end - g.count, end)) for end, g in counts]

    @property
    def absorbs_factor(self) -> bool:
        return not self.shares_weights

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        (features, *scores), heads, dims = self.split(super().forward(ins, None))
        if gate is not None:
            found = self.gates_apart(gate)
            gated = [
                Flow(and_(flow.alive, z), flow.const)
                for flow, z in zip([heads, *dims], found, strict=True)
            ]
            heads, *dims = gated
            bias = self.projections[OUTPUT].bias
            # A bias that differs by position is no constant.
            if bias is None or len(bias.shape) == 1:
                # Without open dimensions of the values, as without heads.
                live = reduce(and_, [any_(flow.alive) for flow in gated[:2]])
                still = 0.0 * live if bias is None else not_(live)
                features = Flow(and_(features.alive, live), and_(features.alive, still))
        return [features, *scores, heads, *dims]

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        (features, *scores), heads, dims = self.split(outs)
        pin = ones_like(heads.pin) if self.shows_heads else heads.pin
        read = 1.0 if self.shows_heads else any_(features.need)
        return [
            features,
            *(Demand(d.need, ones_like(d.need)) for d in scores),
            Demand(and_(heads.need, any_(features.need)), pin),
            *(Demand(and_(d.need, read), self.pinned_dims(d.pin)) for d in dims),
        ]

    def pinned_dims(self, pin: Any) -> Any:
        """Which dimensions of heads must stay.

        On TensorFlow, Keras takes a bias of shape (heads, 1) for one of positions, if
        there are as many: two dimensions stay where that may come to pass.
        """
        heads = self.projections["query"].kernel.shape[1]
        lengths = [self.node.inputs[i].shape[1] for i in self.roles]
        mistaken = self.folds and any(n is None or n <= heads for n in lengths)
        if not mistaken or keras.backend.backend() != "tensorflow":
            return pin
        return or_(pin, array_like(pin, np.arange(pin.shape[0]) < 2))

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        return super().backward(ins, self.split(outs)[0], self.split(demands)[0])

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        _, heads, dims = self.split(
            [count(k) / c.size for k, c in zip(keep, self.outs, strict=True)]
        )
        # Of values, and of queries and keys.
        sizes = (dims[0], dims[-1]) if dims else (1.0, 1.0)
        params: Any = 0.0
        macs: Any = 0.0
        for name, inner in self.projections.items():
            bias_share = inside = heads * sizes[name in ("query", "key")]
            i = self.source_of.get(name)
            if i is None:
                bias_share = count(keep[0]) / self.outs[0].size
                share = inside * bias_share
                i = self.source_of["query"]
            elif i in self.read:
                share = inside * count(keep_in[i]) / self.ins[i].size
            else:
                share = inside
            weights = math.prod(inner.kernel.shape) * share
            bias = 0 if inner.bias is None else math.prod(inner.bias.shape)
            params += weights + bias * bias_share
            macs += weights * self.node.inputs[i].positions()
        return Size(params, macs)

    def constants(self, site: Site) -> list[np.ndarray]:
        (features, *scores), _, _ = self.split(super().constants(site))
        bias = self.projections[OUTPUT].bias
        if not site.flows[0].alive.any():
            features = np.zeros(self.outs[0].size) if bias is None else float64(bias)
        return [multiplied(features, site.factor), *scores]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        weights = {}
        by_head, *by_dim = [np.ones(len(self.key_dims))]
        if site.gate is not None:
            by_head, *by_dim = self.gates_apart(site.gate)
        of_values, of_keys = (by_dim[0], by_dim[-1]) if by_dim else (np.ones(1), 1.0)
        for name, inner in self.projections.items():
            kernel = float64(inner.kernel)
            bias = None if inner.bias is None else float64(inner.bias)
            if name == OUTPUT:
                gate = np.outer(np.repeat(by_head, self.repeats), of_values)
                kernel = kernel * np.expand_dims(gate, list(range(2, kernel.ndim)))
                kernel = (kernel * site.factor)[..., site.keep[0]]
                if bias is not None:
                    bias = (bias * site.factor)[..., site.keep[0]]
            else:
                kernel, offset = self.rows(site, self.source_of[name], kernel)
                if bias is not None:
                    bias = bias + offset
                if name == "query":
                    kernel = kernel * of_keys
                    bias = None if bias is None else bias * of_keys
            weights[name] = kernel, bias
        _, heads, dims = self.split(site.keep)
        queries = np.repeat(heads, self.repeats)
        value_dims, key_dims = (dims[0], dims[-1]) if dims else (True, True)
        left, weights = slice_heads(
            weights, queries, self.key_dims & key_dims, self.value_dims & value_dims
        )
        new: dict[int, Any] = {}
        for name, inner in self.projections.items():
            pairs = zip((inner.kernel, inner.bias), weights[name], strict=True)
            new.update((id(old), values) for old, values in pairs if old is not None)
        kind, config = self.plain()
        ordered = [new[id(w)] for w in self.layer.weights if id(w) in new]
        layer = site.build(kind, config | self.changes(site, left), ordered)
        return self.called(layer, site)

    def changes(self, site: Site, left: dict[str, int]) -> dict[str, Any]:
        """What of the layer's config changes with what is kept.

        Args:
            site: The call.
            left: The numbers of heads and dimensions, as `slice_heads` returns them.
        """
        raise NotImplementedError


@register_strip_rule(keras.layers.MultiHeadAttention, L0MultiHeadAttention)
class MultiHeadAttentionRule(AttentionRule):
    """Attention whose output has features of its own."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        outs = super().connect(atoms)
        # Their numbers differ when gates close.
        self.needs_equal = keras.backend.backend() == "jax"
        if self.needs_equal and self.gates[1:]:
            reason = "on JAX, Keras' attention wants as many value as key dimensions"
            self.reason = self.reason or reason
        return outs

    def pinned_dims(self, pin: Any) -> Any:
        return ones_like(pin) if self.needs_equal else pin

    def changes(self, site: Site, left: dict[str, int]) -> dict[str, Any]:
        query = site.ins[self.source_of["query"]]
        kept = int(site.keep[0].sum())
        shape = self.layer.get_config()["output_shape"]
        if shape:
            shape = [*shape[:-1], kept]
        elif kept != query.keep.sum():
            shape = [kept]
        sizes = {name: left[name] for name in ("key_dim", "value_dim")}
        return {"num_heads": left["heads"], "output_shape": shape, **sizes}


@register_strip_rule(keras.layers.GroupQueryAttention, L0GroupQueryAttention)
class GroupedQueryAttentionRule(AttentionRule):
    """Attention whose output and value have as many features as its query.

    Keras wants them so; hence they go alike.
    """

    def features(
        self, shape: tuple[int | None, ...], query: int, atoms: Atoms
    ) -> Channels:
        channels = super().features(shape, query, atoms)
        together = {query, self.source_of["value"]}
        self.sliced = together <= self.read
        if self.sliced:
            for i in together:
                atoms.tie(channels.atoms, self.ins[i].atoms)
        else:
            self.read -= together
        return channels

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        features, *others = super().claims(flows, outs)
        if not self.sliced:
            features = Demand(features.need, ones_like(features.need))
        return [features, *others]

    def changes(self, site: Site, left: dict[str, int]) -> dict[str, Any]:
        return {
            "num_query_heads": left["heads"],
            "num_key_value_heads": left["key_heads"],
            "head_dim": left["key_dim"],
        }


@register_strip_rule(keras.layers.Attention, keras.layers.AdditiveAttention)
class UnprojectedAttentionRule(Rule):
    """Attention without projections of its own."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        raise Barrier(
            "it compares query and key channel by channel before it mixes positions: "
            "the channels of all its inputs stay"
        )
