"""Rules of embeddings: the columns of the table are channels."""

from __future__ import annotations

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
    opaque,
)
from keras_l0.analysis.logic import and_, count
from keras_l0.analysis.rules.base import Barrier
from keras_l0.analysis.rules.reading import ReadingRule, on_last_axis
from keras_l0.analysis.rules.registry import present, register_strip_rule
from keras_l0.layers import L0Embedding, embedding


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


@register_strip_rule(
    *present("ReversibleEmbedding"), *present("L0ReversibleEmbedding", embedding)
)
class ReversibleEmbeddingRule(EmbeddingRule):
    """An embedding whose table also turns dimensions into one logit per index.

    Both kinds of calls keep the same embedding dimensions. In reverse, gated dimensions
    are hidden channels.
    """

    def connect(self, atoms: Atoms) -> list[Channels]:
        self.reverse = bool(self.node.option("reverse", False))
        if not self.reverse:
            return super().connect(atoms)
        (x,) = self.ins
        if x.size != self.layer.output_dim or not self.readable([0]):
            raise Barrier("its input's channels lie on another axis")
        self.roles, self.read = (0,), self.readable([0])
        logits = opaque(self.node.outputs[0].shape, atoms)
        hidden = [Channels.rest_at_zero(None, x.atoms)] if self.gates else []
        return [logits, *hidden]

    @property
    def coupled(self) -> list[Channels]:
        # Calls of either kind hold the embedding dimensions on axes of their own.
        dimensions = (self.ins if self.reverse else self.outs)[0]
        return [Channels(None, dimensions.atoms, dimensions.rest)]

    @property
    def absorbs_factor(self) -> bool:
        return not self.reverse and not self.shares_weights

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        if not self.reverse or gate is None:
            return super().forward(ins, gate)
        logits, _ = super().forward(ins, None)
        return [logits, Flow(gate, 0.0 * gate)]

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        if not self.reverse:
            return outs
        # There are as many logits as indices: all stay.
        logits, *hidden = outs
        nothing = [Demand(0.0 * d.need, 0.0 * d.pin) for d in hidden]
        return [*ReadingRule.claims(self, flows, [logits]), *nothing]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        asked = super().backward(ins, outs[:1], demands[:1])
        # What is behind a closed gate is not read.
        for hidden in outs[1:]:
            asked = [
                Demand(and_(d.need, hidden.alive), and_(d.pin, hidden.alive))
                for d in asked
            ]
        return asked

    def size(self, ins: list[Any], keep_in: list[Any], keep: list[Any]) -> Size:
        table = self.layer.input_dim * count((keep_in if self.reverse else keep)[0])
        reads = self.node.inputs[0].positions() if self.reverse else 0
        return Size(table * (1 if self.layer.tie_weights else 2), table * reads)

    def constants(self, site: Site) -> list[np.ndarray]:
        if self.reverse:
            return [np.full(self.outs[0].size, np.nan)]
        return super().constants(site)

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        gate = 1.0 if site.gate is None else site.gate
        keep = site.ins[0].keep if self.reverse else site.keep[0]
        table = self._table(gate if self.reverse else site.scale)
        if self.layer.tie_weights:
            kernel = table.T
        else:
            kernel = (float64(self.layer.reverse_embeddings).T * gate).T
        kernel = self.rows(site, 0, kernel)[0] if self.reverse else kernel[keep]
        if self.layer.tie_weights:
            return self._rebuilt(site, keep, kernel.T)
        return self._rebuilt(site, keep, table[:, keep], kernel)
