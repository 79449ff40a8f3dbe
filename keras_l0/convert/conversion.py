"""Which units of a model get gates: one model on its way to a gated copy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Size
from keras_l0.analysis.graph import require_finite
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.places import Group, find_groups, follows
from keras_l0.analysis.rules.registry import held_weights
from keras_l0.analysis.tracing import trace
from keras_l0.analysis.trial import settle
from keras_l0.arguments import SEEDS
from keras_l0.convert.building import Building
from keras_l0.convert.plan import GatedGroup, GatePlan, Ungated
from keras_l0.convert.selection import Selection, Strengths
from keras_l0.layers import GateOptions, find_gates, gated_twin
from keras_l0.regularizers import L0


class Conversion:
    """One model on its way to a gated copy.

    Args:
        model: As in `keras_l0.add_gates`.
        layers: As in `keras_l0.add_gates`.
        skip: As in `keras_l0.add_gates`.
        options: Of the gates.
        l0: As in `keras_l0.add_gates`.

    Raises:
        TypeError: As `keras_l0.add_gates` does.
        ValueError: As `keras_l0.add_gates` does.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Any,
        skip: Any,
        options: GateOptions | None = None,
        l0: Any = 0.0,
    ) -> None:
        require_finite(model)
        if gates := find_gates(model):
            raise ValueError(
                f"`model` must have no gates yet. Received: {model.name!r} with "
                f"{len(gates)} of them. Strip it first, or add gates to the model that "
                "it was made from."
            )
        self.options = options or GateOptions()
        self.strengths = Strengths(l0)
        self.chosen = None if layers is None else Selection("layers", layers)
        self.skipped = Selection("skip", skip)
        # The calls of the layers that a user knows, by name.
        self.calls = {node.name: node for node in trace(model).nodes}
        calls = self.calls.values()
        self.originals = {id(node.operation): node.operation for node in calls}
        self.strengths.check(calls, model)
        for selection in filter(None, (self.chosen, self.skipped)):
            selection.check(calls, model)
        # A layer that turns out not to be able to lose units stays as it is.
        refused: set[int] = set()
        while True:
            self.twins: dict[int, Any] = {}
            self.graph = trace(model)
            self._gate_inside(refused)
            self.analysis = Analysis(self.graph)
            self.groups = find_groups(self.analysis)
            for group in self.groups:
                group.reason = group.reason or self._unwanted(group)
            self.reached = settle(self.analysis, self.groups)
            again = {
                self.twins[id(place.step.node.operation)]
                for group in self.groups
                for place in group.places
                if group.reason and place.tensor is None
            }
            if not again:
                break
            refused |= again

    @property
    def gated(self) -> list[Group]:
        """The groups of units that get gates."""
        return [group for group in self.groups if group.reason is None]

    def idle(self) -> list[str]:
        """What a user has chosen, none of which gets gates: in words."""
        gated = {s.node.name for group in self.gated for s in group.members}
        nodes = [node for name, node in self.calls.items() if name not in gated]
        others = [node for name, node in self.calls.items() if name in gated]
        choices = [self.chosen] if self.chosen else []
        return [
            f"{choice.argument}={one!r}"
            for choice in (*choices, *self.strengths.selections)
            for one in choice.named
            if choice.hits(one, nodes) and not choice.hits(one, others)
        ]

    def _gate_inside(self, refused: set[int]) -> None:
        """Puts layers that are gated inside in the place of those that can be."""
        made: dict[int, Any] = {}
        for node in self.graph.nodes:
            old = node.operation
            if id(old) in refused or held_weights(old):
                continue
            if id(old) not in made and isinstance(old, keras.Layer):
                l0 = self.strengths.of_layer(node)
                made[id(old)] = gated_twin(old, node.name, self.options, l0)
            if (twin := made.get(id(old))) is not None:
                node.operation = twin
                self.twins[id(twin)] = id(old)

    def _unwanted(self, group: Group) -> str | None:
        """Why a user's choice leaves a group out."""
        names = {s.node.name: self._fits(self.skipped, s) for s in group.members}
        if all(names[step.node.name] for step in group.steps):
            return "it is skipped"
        if any(names.values()):
            skips = ", ".join(repr(name) for name, fits in names.items() if fits)
            return f"its units are tied to those of {skips}, skipped"
        chosen = self.chosen
        if chosen and not any(self._fits(chosen, step) for step in group.members):
            return "it was not selected"
        return None

    def _fits(self, selection: Selection, step: Step) -> bool:
        return selection.fits(self.calls[step.node.name])

    def plan(self) -> GatePlan:
        """What `build` will do, and why."""
        whole = self.analysis.all_open()
        groups = []
        gated: set[int] = set()
        for group in self.gated:
            gated.update(id(step.node.operation) for step in group.members)
            saves = Size(*np.mean(group.saves, axis=0).tolist())
            names = dict.fromkeys(step.node.name for step in group.steps)
            hidden = all(place.slot in place.step.hidden for place in group.places)
            what = "heads" if hidden else "units"
            groups.append(GatedGroup(tuple(names), len(group.atoms), saves, what))
        reasons = {
            id(step): group.reason
            for group in self.groups
            for step in group.members
            if group.reason
        }
        ungated: dict[int, Ungated] = {}
        for step, size in zip(self.analysis.steps, whole.sizes, strict=True):
            key = id(step.node.operation)
            reason = reasons.get(id(step)) or (step.rule.whole and step.rule.reason)
            if not reason and follows(self.analysis, step):
                reason = "its units are the channels that it reads, which all stay"
            weighty = id(step) in reasons or size.macs
            if size.params and weighty and reason and key not in gated:
                kind = type(step.node.operation)
                kind = getattr(kind, "plain_class", kind)
                params = round(float(size.params))
                ungated[key] = Ungated(step.node.name, kind.__name__, params, reason)
        return GatePlan(
            model=self.graph.model.name,
            params=whole.total.whole().params,
            groups=groups,
            ungated=list(ungated.values()),
            reached=self.reached,
        )

    def build(self, seed: int | None) -> keras.Model:
        """The gated model."""
        model = Building(self).model()
        if seed is not None:
            for number, gate in enumerate(find_gates(model)):
                gate.reseed((seed + number) % SEEDS)
        return model

    def strength(self, group: Group) -> L0:
        """What a group's gates are charged per parameter: the most of its layers."""
        calls = (self.calls[step.node.name] for step in group.members)
        each = [self.strengths.of_layer(call) for call in calls]
        return max(each, key=lambda strength: strength.final)
