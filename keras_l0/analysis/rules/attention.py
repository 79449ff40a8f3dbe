"""Rules of attention: query, key and value are projections that read channels.

Gated heads go, and what a head takes with it is written down in `slice_heads`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import (
    Atoms,
    Channels,
    Demand,
    Flow,
    Site,
    Size,
    opaque,
    pinned,
)
from keras_l0.analysis.logic import any_, count, not_
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.reading import (
    ReadingRule,
    float64,
    on_last_axis,
    positions,
)
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.layers import L0GroupQueryAttention, L0MultiHeadAttention

# The projections of Keras' attention layers, by the names that they give them.
_INPUTS = ("query", "key", "value", "gate")
_OUTPUT = "attention_output"


def projections(layer: Any) -> dict[str, Any]:
    """The EinsumDense layers in an attention layer, by name."""
    found = {
        inner.name: inner
        for inner in layer._flatten_layers(include_self=False)
        if isinstance(inner, keras.layers.EinsumDense)
    }
    return {n: found[n] for n in (*_INPUTS, _OUTPUT) if n in found}


class AttentionRule(ReadingRule):
    """Attention whose inputs are projected; the output's features go unless read.

    The last of `outs` are the heads, which are hidden: those of the keys and values,
    each with all heads of the query that look at it.
    """

    def connect(self, atoms: Atoms) -> list[Channels]:
        held = self.node.arguments()
        query, value = held["query"][0], held["value"][0]
        key = (held.get("key") or held["value"])[0]
        self.source_of = dict(zip(_INPUTS, (query, key, value, query), strict=True))
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
        return [*super().coupled, self.outs[-1]]

    @property
    def absorbs_factor(self) -> bool:
        return not self.shares_weights

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        features, *scores, heads = super().forward(ins, None)
        if gate is not None:
            heads = Flow(heads.alive * gate, heads.const)
            bias = self.projections[_OUTPUT].bias
            # A bias that differs by position is no constant.
            if bias is None or len(bias.shape) == 1:
                live = any_(heads.alive)
                still = 0.0 * live if bias is None else not_(live)
                features = Flow(features.alive * live, features.alive * still)
        return [features, *scores, heads]

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        features, *scores, heads = outs
        pin = pinned(heads.pin).pin if self.shows_heads else heads.pin
        return [
            features,
            *(Demand(d.need, pinned(d.need).pin) for d in scores),
            Demand(heads.need * any_(features.need), pin),
        ]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        return super().backward(ins, outs[:-1], demands[:-1])

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        heads = count(keep[-1]) / self.outs[-1].size
        params: Any = 0.0
        macs: Any = 0.0
        for name, inner in self.projections.items():
            bias_share = heads
            i = self.source_of.get(name)
            if i is None:
                bias_share = count(keep[0]) / self.outs[0].size
                share = heads * bias_share
                i = self.source_of["query"]
            elif i in self.read:
                share = heads * count(keep_in[i]) / self.ins[i].size
            else:
                share = heads
            weights = math.prod(inner.kernel.shape) * share
            bias = 0 if inner.bias is None else math.prod(inner.bias.shape)
            params += weights + bias * bias_share
            macs += weights * positions(self.node.inputs[i].shape)
        return Size(params, macs)

    def constants(self, site: Site) -> list[np.ndarray]:
        features, *scores, _ = super().constants(site)
        bias = self.projections[_OUTPUT].bias
        if not site.flows[0].alive.any():
            features = np.zeros(self.outs[0].size) if bias is None else float64(bias)
        return [np.where(site.factor == 0, 0.0, features * site.factor), *scores]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        weights = {}
        for name, inner in self.projections.items():
            kernel = float64(inner.kernel)
            bias = None if inner.bias is None else float64(inner.bias)
            if name == _OUTPUT:
                if site.gate is not None:
                    gate = np.repeat(site.gate, self.repeats)
                    kernel = kernel * gate.reshape(-1, *[1] * (kernel.ndim - 1))
                kernel = (kernel * site.factor)[..., site.keep[0]]
                if bias is not None:
                    bias = (bias * site.factor)[..., site.keep[0]]
            else:
                kernel, offset = self.rows(site, self.source_of[name], kernel)
                if bias is not None:
                    bias = bias + offset
            weights[name] = kernel, bias
        queries = np.repeat(site.keep[-1], self.repeats)
        left, weights = slice_heads(weights, queries, self.key_dims, self.value_dims)
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
            left: The numbers of heads, as `slice_heads` returns them.
        """
        raise NotImplementedError


@register_strip_rule(keras.layers.MultiHeadAttention, L0MultiHeadAttention)
class MultiHeadAttentionRule(AttentionRule):
    """Attention whose output has features of its own."""

    def changes(self, site: Site, left: dict[str, int]) -> dict[str, Any]:
        query = site.ins[self.source_of["query"]]
        kept = int(site.keep[0].sum())
        shape = self.layer.get_config()["output_shape"]
        if shape:
            shape = [*shape[:-1], kept]
        elif kept != query.keep.sum():
            shape = [kept]
        return {"num_heads": left["heads"], "output_shape": shape}


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
            features = Demand(features.need, pinned(features.need).pin)
        return [features, *others]

    def changes(self, site: Site, left: dict[str, int]) -> dict[str, Any]:
        return {
            "num_query_heads": left["heads"],
            "num_key_value_heads": left["key_heads"],
        }


@register_strip_rule(keras.layers.Attention, keras.layers.AdditiveAttention)
class UnprojectedAttentionRule(Rule):
    """Attention without projections of its own."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        raise Barrier(
            "it compares query and key channel by channel before it mixes positions: "
            "the channels of all its inputs stay"
        )


def slice_heads(
    weights: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    heads: np.ndarray,
    key_dims: np.ndarray,
    value_dims: np.ndarray,
) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, np.ndarray | None]]]:
    """The weights of an attention layer without some heads and dimensions.

    Exact where what goes is 0: a head or value dimension in the value or the output
    projection, a key dimension in the query or the key projection.

    Args:
        weights: For each projection (see `projections`) kernel and bias or None.
        heads: The query heads to keep, bool, shape (heads,).
        key_dims: The query/key dimensions to keep, bool, shape (key heads, key_dim).
            The key heads are all heads, or groups of them in grouped-query attention.
        value_dims: The value dimensions to keep, bool, shape (key heads, value_dim).
            Grouped-query attention has one number for both: keep equally many.

    Returns:
        The numbers (``heads``, ``key_heads``, ``key_dim``, ``value_dim``) that are
        left, and the sliced weights.

    Raises:
        ValueError: If key heads are not left with equally many dimensions and heads.
    """
    group = np.repeat(np.arange(len(key_dims)), len(heads) // len(key_dims))
    queries = np.flatnonzero(heads)
    keys, sizes = np.unique(group[queries], return_counts=True)
    for what, counts in (
        ("heads", sizes),
        ("key dimensions", key_dims[keys].sum(axis=1)),
        ("value dimensions", value_dims[keys].sum(axis=1)),
    ):
        if len(set(counts.tolist())) != 1 or counts[0] == 0:
            raise ValueError(
                f"Every key head must be left with equally many {what}. "
                f"Received: {counts.tolist()}"
            )
    plans = {
        "query": (queries, key_dims[group[queries]]),
        "key": (keys, key_dims[keys]),
        "value": (keys, value_dims[keys]),
        "gate": (queries, value_dims[group[queries]]),
        _OUTPUT: (queries, value_dims[group[queries]]),
    }
    key_dim, value_dim = int(key_dims[keys[0]].sum()), int(value_dims[keys[0]].sum())
    sliced = {}
    for name, (kernel, bias) in weights.items():
        chosen, dims = plans[name]
        at = (chosen[:, None], np.nonzero(dims)[1].reshape(len(chosen), -1))
        if name == _OUTPUT:
            sliced[name] = (kernel[at], bias)
            continue
        # Scores are divided by the root of the number of dimensions.
        root = math.sqrt(key_dim / key_dims.shape[1]) if name == "query" else 1.0
        new_bias = None if bias is None else bias[at] * root
        sliced[name] = (kernel[(slice(None), *at)] * root, new_bias)
    left = {
        "heads": len(queries),
        "key_heads": len(keys),
        "key_dim": key_dim,
        "value_dim": value_dim,
    }
    return left, sliced
