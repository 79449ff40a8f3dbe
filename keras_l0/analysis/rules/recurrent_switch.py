"""Rules of recurrences under a mask that is drawn elsewhere."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Signal, Site
from keras_l0.analysis.graph import Node
from keras_l0.analysis.rules.base import Rule
from keras_l0.analysis.rules.cutting import cut_indices, held_together
from keras_l0.analysis.rules.gate import shared_gate, switched
from keras_l0.analysis.rules.recurrent import (
    BidirectionalRule,
    RecurrentLayerRule,
    RecurrentRule,
)
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.layers import L0RecurrentSwitch


@register_strip_rule(L0RecurrentSwitch)
class SwitchedRule(RecurrentRule):
    """A recurrence whose mask is drawn elsewhere, one for all of its directions."""

    @classmethod
    def of(cls, node: Node, ins: list[Channels], atoms: Atoms) -> Rule:
        two = isinstance(node.operation.layer, keras.layers.Bidirectional)
        kind = SwitchedBidirectionalRule if two else SwitchedLayerRule
        return kind(node, ins, atoms)

    @property
    def layer(self) -> Any:
        return self.node.operation.layer

    @property
    def mask_input(self) -> int:
        """Which input holds the gates."""
        return self.node.arguments()["gates"][0]

    @property
    def gates(self) -> list[Any]:
        return [shared_gate(self.node, self.mask_input)]

    def per_unit(self, values: Any) -> Any:
        return switched(self.node.operation, values)

    def opened(self, gate: Any) -> list[Any]:
        return [gate] * len(self.cells)

    def ask(self, i: int, x: Flow, reads: Any) -> Demand:
        if i == self.mask_input:
            return Demand(0.0 * x.alive, 0.0 * x.alive)
        return super().ask(i, x, reads)

    def operands(self, exists: Any, ins: list[Flow], kept: list[Any]) -> list[Any]:
        mask = self.mask_input
        return [0.0 * exists if i == mask else exists for i in range(len(ins))]

    def source(self, site: Site, i: int) -> Signal:
        # The mask is not there any more.
        return site.ins[i] if i == self.mask_input else super().source(site, i)

    def whole_with_gates(self) -> str | None:
        return held_together(self.gates[0])

    def narrowed(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        assert site.gates_kept is not None
        switch, (gate,) = self.node.operation, self.gates
        numbers = self.per_unit(np.arange(gate.count))[self.split(site.keep)[0][0]]
        indices = cut_indices(numbers, site.gates_kept(gate))

        def build(kind: Any, config: dict[str, Any], weights: list[Any]) -> Any:
            plain = kind.from_config({**config, "name": self.layer.name})
            inner = keras.saving.serialize_keras_object(plain)
            config = {**switch.get_config(), "layer": inner, "indices": indices}
            return site.build(type(switch), config, weights)

        return self.rewrite(dataclasses.replace(site, build=build))

    def called(self, layer: Any, site: Site) -> list[tuple[Any, np.ndarray]]:
        if isinstance(layer, L0RecurrentSwitch):  # its mask stays
            return super().called(layer, site)

        def plainly(
            sequences: Any,
            gates: Any,
            initial_state: Any = None,
            mask: Any = None,
            sequences_mask: Any = None,
            **options: Any,
        ) -> Any:
            if initial_state is not None:
                options["initial_state"] = initial_state
            elif mask is None:
                mask = sequences_mask
            return layer(sequences, mask=mask, **options)

        return super().called(plainly, site)


class SwitchedLayerRule(SwitchedRule, RecurrentLayerRule):
    """SimpleRNN, LSTM and GRU under a mask that is drawn elsewhere."""


class SwitchedBidirectionalRule(SwitchedRule, BidirectionalRule):
    """Bidirectional under a mask that is drawn elsewhere."""
