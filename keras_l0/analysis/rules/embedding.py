"""Rules of embeddings: the columns of the table are channels."""

from __future__ import annotations

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
)
from keras_l0.analysis.logic import count
from keras_l0.analysis.rules.base import Barrier
from keras_l0.analysis.rules.reading import (
    ReadingRule,
    float64,
    on_last_axis,
    positions,
)
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.layers import L0Embedding


@register_strip_rule(keras.layers.Embedding, L0Embedding)
class EmbeddingRule(ReadingRule):
    """A table with one row per index; the indices stay as they are."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        self.units = self.layer.output_dim
        return [on_last_axis(self.node.outputs[0].shape, atoms.new(self.units))]

    @property
    def absorbs_factor(self) -> bool:
        return not self.shares_weights

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        return outs

    def size(self, ins: list[Any], keep_in: list[Any], keep: list[Any]) -> Size:
        return Size(self.layer.input_dim * count(keep[0]), 0.0)

    def constants(self, site: Site) -> list[np.ndarray]:
        return [np.where(site.scale == 0, 0.0, np.nan)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        keep = site.keep[0]
        return self._rebuilt(site, keep, self._table(site.scale)[:, keep])

    def _table(self, factor: np.ndarray | float = 1.0) -> np.ndarray:
        return float64(self.layer.embeddings) * factor

    def _rebuilt(
        self, site: Site, keep: np.ndarray, *tables: np.ndarray
    ) -> list[tuple[Any, np.ndarray]]:
        """The call of a layer with these weights."""
        kind, config = self.plain()
        config["output_dim"] = int(keep.sum())
        return self.called(site.build(kind, config, list(tables)), site)


def _reversible() -> list[type]:
    """The layer, if this Keras has it."""
    found = getattr(keras.layers, "ReversibleEmbedding", None)
    return [] if found is None else [found]


@register_strip_rule(*_reversible())
class ReversibleEmbeddingRule(EmbeddingRule):
    """An embedding whose table also turns dimensions into one logit per index.

    Both kinds of calls keep the same embedding dimensions.
    """

    def connect(self, atoms: Atoms) -> list[Channels]:
        self.reverse = bool(self.node.option("reverse", False))
        if not self.reverse:
            return super().connect(atoms)
        if self.ins[0].size != self.layer.output_dim or not self.readable([0]):
            raise Barrier("its input's channels lie on another axis")
        self.roles, self.read = (0,), self.readable([0])
        return [opaque(self.node.outputs[0].shape, atoms)]

    @property
    def coupled(self) -> list[Channels]:
        # Calls of either kind hold the embedding dimensions on axes of their own.
        dimensions = (self.ins if self.reverse else self.outs)[0]
        return [Channels(None, dimensions.atoms, dimensions.rest)]

    @property
    def absorbs_factor(self) -> bool:
        return not self.reverse and not self.shares_weights

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        # There are as many logits as indices: all stay.
        return ReadingRule.claims(self, flows, outs) if self.reverse else outs

    def size(self, ins: list[Any], keep_in: list[Any], keep: list[Any]) -> Size:
        table = self.layer.input_dim * count((keep_in if self.reverse else keep)[0])
        reads = positions(self.node.inputs[0].shape) if self.reverse else 0
        return Size(table * (1 if self.layer.tie_weights else 2), table * reads)

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        keep = site.ins[0].keep if self.reverse else site.keep[0]
        table = self._table(1.0 if self.reverse else site.factor)
        kernel = table.T if self.layer.tie_weights else self.layer.reverse_embeddings
        kernel = float64(kernel)
        kernel = self.rows(site, 0, kernel)[0] if self.reverse else kernel[keep]
        if self.layer.tie_weights:
            return self._rebuilt(site, keep, kernel.T)
        return self._rebuilt(site, keep, table[:, keep], kernel)
