"""One model on its way to a gated copy."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Size
from keras_l0.analysis.graph import Node, copied, require_finite, trace
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.places import Group, find_groups, follows, settle
from keras_l0.analysis.rules.registry import held_weights
from keras_l0.convert.plan import GatedGroup, GatePlan, Ungated
from keras_l0.convert.selection import Selection, Strengths
from keras_l0.layers import (
    GateOptions,
    L0Gate,
    L0RecurrentSwitch,
    L0SharedGate,
    L0Switch,
    find_gates,
    gated_twin,
)
from keras_l0.layers.twins import gated_parts
from keras_l0.regularizers import L0


class Conversion:
    """One model on its way to a gated copy."""

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
        self.graph = trace(model)
        # Under the names of their first calls.
        self.layers: dict[str, Any] = {n.name: n.operation for n in self.graph.nodes}
        self.originals = {id(layer): layer for layer in self.layers.values()}
        self.strengths.check(self.layers, model)
        for selection in filter(None, (self.chosen, self.skipped)):
            selection.check(self.layers, model)
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
        return [group for group in self.groups if group.reason is None]

    def _gate_inside(self, refused: set[int]) -> None:
        """Puts layers that are gated inside in the place of those that can be."""
        made: dict[int, Any] = {}
        for node in self.graph.nodes:
            old = node.operation
            if id(old) in refused or held_weights(old):
                continue
            if id(old) not in made and isinstance(old, keras.Layer):
                l0 = self.strengths.of_layer(node.name, old)
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
        name = step.node.name
        return selection.fits(name, self.layers[name])

    def plan(self) -> GatePlan:
        ones = [np.ones(gate.count) for gate in self.analysis.gates]
        whole = self.analysis.evaluate(ones)
        groups = []
        gated: set[int] = set()
        for group in self.gated:
            gated.update(id(step.node.operation) for step in group.members)
            saves = Size(*np.mean(group.saves, axis=0).tolist())
            names = dict.fromkeys(step.node.name for step in group.steps)
            groups.append(GatedGroup(tuple(names), len(group.atoms), saves))
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
                ungated[key] = Ungated(
                    step.node.name,
                    getattr(
                        step.node.operation, "plain_class", type(step.node.operation)
                    ).__name__,
                    round(float(size.params)),
                    reason,
                )
        return GatePlan(
            model=self.graph.model.name,
            params=whole.total.whole().params,
            groups=groups,
            ungated=list(ungated.values()),
            reached=self.reached,
        )

    def build(self, seed: int | None) -> keras.Model:
        """The gated model."""
        graph = self.graph
        names = {node.name for node in graph.nodes}
        names.update(x._keras_history.operation.name for x in graph.model.inputs)

        def name(wanted: str) -> str:
            while wanted in names:
                wanted += "_"
            names.add(wanted)
            return wanted

        behind = {
            place.tensor.index: (group, place)
            for group in self.gated
            for place in group.places
            if place.tensor is not None
        }
        inputs = [graph.input_layer(i).output for i in range(len(graph.inputs))]
        made = {t.index: x for t, x in zip(graph.inputs, inputs, strict=True)}
        # Only its batch size counts; those that are optional may be None.
        present = [x for x in inputs if not x._keras_history.operation.optional]
        batch = (present or inputs)[0]
        masks: dict[int, Any] = {}

        def mask(group: Group, dtype: str) -> Any:
            """The gates that all places of a group multiply by."""
            if id(group) not in masks:
                source = L0SharedGate(
                    len(group.atoms),
                    self._strength(group),
                    _costs(group),
                    self._options(group),
                    dtype="float64" if dtype == "float64" else "float32",
                    name=name(f"{group.steps[0].node.name}_gates"),
                )
                masks[id(group)] = source(batch)
            return masks[id(group)]

        def gate(x: Any, group: Group, place: Any) -> Any:
            """The tensor behind its gates."""
            axis = self.analysis.channels[place.slot].axis
            axis = -1 if axis == x.ndim - 1 else axis
            dtype = keras.backend.standardize_dtype(x.dtype)
            order = np.searchsorted(group.atoms, place.atoms)
            label = name(f"{place.step.node.name}_gate")
            if len(group.places) == 1 and len(set(order)) == len(order):
                cost = _one_if_equal([group.saves[i].params for i in order])
                l0 = self._strength(group)
                return L0Gate(axis, l0, cost, self.options, dtype=dtype, name=label)(x)
            indices = _indices(group, place.atoms)
            switch = L0Switch(axis, indices, dtype=dtype, name=label)
            return switch(x, mask(group, dtype))

        switched = {
            id(place.step.node.operation): group
            for group in self.gated
            for place in group.places
            if place.tensor is None and _shares_mask(group)
        }
        copies: dict[int, Any] = {}
        for node in graph.nodes:
            operation = self._copied(node, copies)
            if (group := switched.get(id(node.operation))) is not None:
                gates = mask(group, operation.variable_dtype)
                operation = functools.partial(operation, gates=gates)
            results = node.call(operation, [made[t.index] for t in node.inputs])
            for tensor, x in zip(
                node.outputs, keras.tree.flatten(results), strict=True
            ):
                found = behind.get(tensor.index)
                made[tensor.index] = gate(x, *found) if found else x
        result = graph.rebuild(inputs, [made[t.index] for t in graph.outputs])
        for node in graph.nodes:
            if isinstance(node.operation, keras.Layer):
                self._carry(node, copies[id(node.operation)])
        if seed is not None:
            for number, one in enumerate(find_gates(result)):
                one.reseed(seed + number)
        return result

    def _strength(self, group: Group) -> L0:
        names = (step.node.name for step in group.members)
        each = [self.strengths.of_layer(name, self.layers[name]) for name in names]
        return max(each, key=lambda strength: strength.final)

    def _options(self, group: Group) -> GateOptions:
        """Of a group's gates; recurrences can only take one draw for all examples."""
        if any(place.tensor is None for place in group.places):
            return dataclasses.replace(self.options, noise="batch")
        return self.options

    def _copied(self, node: Node, copies: dict[int, Any]) -> Any:
        """The operation of a node, anew."""
        old = node.operation
        if id(old) not in copies:
            if id(old) in self.twins:
                copies[id(old)] = self._gated_inside(old, node.name)
            elif isinstance(old, keras.Layer):
                copies[id(old)] = _made_anew(old, node.name)
            else:
                return copied(old, node.name)
        return copies[id(old)]

    def _gated_inside(self, twin: Any, name: str) -> Any:
        """A layer whose units are gated inside: by its own gates, or by a mask."""
        group, place = next(
            (group, place)
            for group in self.gated
            for place in group.places
            if place.tensor is None and place.step.node.operation is twin
        )
        if not _shares_mask(group):
            (layer,) = gated_parts(twin)
            layer.price = layer.gate.cost = _costs(group)
            return twin
        plain = _made_anew(self.originals[self.twins[id(twin)]], name)
        # The second half, if there is one, is the other direction.
        indices = _indices(group, place.atoms[: gated_parts(twin)[0].gate.count])
        return L0RecurrentSwitch(plain, indices, dtype=plain.dtype_policy, name=name)

    def _carry(self, node: Node, new: Any) -> None:
        """Gives a layer of the new model the weights that it has in the old one."""
        old: Any = node.operation
        if isinstance(new, L0RecurrentSwitch):
            old, new = self.originals[self.twins[id(old)]], new.layer
        if old is not new and old.weights:
            new.set_weights(old.get_weights())
            # Layers that adapt to data compute with what they derived from weights.
            getattr(new, "finalize_state", lambda: None)()


def _shares_mask(group: Group) -> bool:
    """Whether the gates of a group act in several places, one of them inside a layer.

    The directions of a Bidirectional, which lose their units in pairs, are two places.
    """
    inside = {id(p.step.node.operation): p for p in group.places if p.tensor is None}
    behind = any(place.tensor is not None for place in group.places)
    parts = [gated_parts(place.step.node.operation) for place in inside.values()]
    return bool(inside) and behind + sum(map(len, parts)) > 1


def _indices(group: Group, atoms: np.ndarray) -> list[int] | None:
    """For each of some channels the number of its gate; None if in their order."""
    if np.array_equal(atoms, group.atoms):
        return None
    return np.searchsorted(group.atoms, atoms).tolist()


def _made_anew(layer: keras.Layer, name: str) -> keras.Layer:
    try:
        return copied(layer, name)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "`model` must have layers that can be made anew from their `get_config()`. "
            f"Received: {name!r} ({type(layer).__name__}), which cannot: {error}"
        ) from error


def _costs(group: Group) -> Any:
    """What each gate of a group is charged for."""
    return _one_if_equal([size.params for size in group.saves])


def _one_if_equal(costs: list[float]) -> Any:
    return costs[0] if len(set(costs)) == 1 else costs
