"""The analysis: which channels can go, and what the model then costs.

Built once per model; `Analysis.evaluate` then answers for any openness of the gates:
zeros and ones (NumPy) give the exact stripped model, probabilities (backend tensors) a
differentiable expected size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from keras_l0.analysis import rules  # noqa: F401  (registers the built-in rules)
from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Size, opaque, pinned
from keras_l0.analysis.graph import Node, Tensor, trace
from keras_l0.analysis.logic import (
    and_,
    any_,
    concatenate,
    group_any,
    largest,
    like,
    not_,
    or_,
    take,
)
from keras_l0.analysis.rules.base import Rule, rule_for
from keras_l0.analysis.rules.shape import ReshapeRule, SelectRule
from keras_l0.layers import L0Gate, find_gates

INPUT_MODES = ("keep", "gather", "narrow")


@dataclasses.dataclass(eq=False)
class Step:
    """One call under its rule; ``ins`` and ``outs`` number the analysis' tensors."""

    rule: Rule
    ins: list[int]
    outs: list[int]

    @property
    def node(self) -> Node:
        return self.rule.node


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one openness of the gates leaves of a model.

    Attributes:
        flows: Forward facts of each tensor.
        keep: For each tensor which of its channels stay, in [0, 1].
        sizes: Size of each step.
        total: Size of the whole model; shared weights are counted once.
    """

    flows: list[Flow]
    keep: list[Any]
    sizes: list[Size]
    total: Size


class Analysis:
    """The channels of a model: constants, need and coupling.

    Args:
        model: A built Sequential or functional model, gated or plain.
        inputs: What becomes of input features (and flattened features inside) that
            nobody reads. ``"keep"``: they stay. ``"gather"``: the rest is selected
            out of them. ``"narrow"``: the model's input loses them.

    Raises:
        TypeError: If ``model`` is not a Keras model.
        ValueError: If ``model`` has no readable graph, or ``inputs`` is unknown.
    """

    def __init__(self, model: Any, inputs: str = "keep") -> None:
        if inputs not in INPUT_MODES:
            raise ValueError(
                f"`inputs` must be one of {', '.join(map(repr, INPUT_MODES))}. "
                f"Received: inputs={inputs!r}"
            )
        self.graph = trace(model)
        self.gates = find_gates(model)
        self.inputs_mode = inputs
        self.steps: list[Step] = []
        self.channels: list[Channels] = []
        atoms = Atoms()
        slot_of: dict[int, int] = {}
        for tensor in self.graph.inputs:
            slot_of[tensor.index] = self._slot(opaque(tensor.shape, atoms))
        self.input_slots = list(slot_of.values())
        for tensor in self.graph.inputs:
            self._selectable(tensor, slot_of, atoms)
        firsts: dict[int, Rule] = {}
        for node in self.graph.nodes:
            ins = [slot_of[t.index] for t in node.inputs]
            first = firsts.get(id(node.operation))
            rule = rule_for(node, [self.channels[i] for i in ins], atoms, first)
            firsts.setdefault(id(node.operation), rule)
            outs = [self._slot(c) for c in rule.outs]
            self.steps.append(Step(rule, ins, outs))
            for tensor, slot in zip(node.outputs, outs, strict=True):
                slot_of[tensor.index] = slot
                if isinstance(rule, ReshapeRule):
                    self._selectable(tensor, slot_of, atoms)
        self.output_slots = [slot_of[t.index] for t in self.graph.outputs]
        labels, self._atoms = np.unique(atoms.resolve(), return_inverse=True)
        self._atom_count = len(labels)
        self._gate_index = {id(gate): i for i, gate in enumerate(self.gates)}

    def _slot(self, channels: Channels) -> int:
        self.channels.append(channels)
        return len(self.channels) - 1

    def _selectable(
        self, tensor: Tensor, slot_of: dict[int, int], atoms: Atoms
    ) -> None:
        """Lets the consumers of a tensor read a selection of its channels."""
        source = slot_of[tensor.index]
        if self.inputs_mode != "gather" or self.channels[source].axis is None:
            return
        node = Node("select", None, [tensor], [tensor])
        rule = SelectRule(node, [self.channels[source]], atoms)
        slot_of[tensor.index] = self._slot(rule.outs[0])
        self.steps.append(Step(rule, [source], [slot_of[tensor.index]]))

    def atoms(self, slot: int) -> np.ndarray:
        """The decisions on a tensor's channels, tied ones alike."""
        return self._atoms[self.channels[slot].atoms]

    def gate_of(self, step: Step) -> L0Gate | None:
        """The gate of a step, if it has one."""
        gate = step.rule.gate
        return gate if id(gate) in self._gate_index else None

    def test_open(self) -> list[np.ndarray]:
        """Which gates are open at test time: zeros and ones, one array per gate."""
        return [(g > 0).astype("float64") for g in self.test_gates()]

    def test_gates(self) -> list[np.ndarray]:
        """The gates' test-time values, one flat float64 array per gate."""
        return [_flat(gate.test_gates) for gate in self.gates]

    def evaluate(self, open_: Sequence[Any]) -> Evaluation:
        """What is kept, and its size, for one openness of the gates.

        Args:
            open_: For each of `gates` the openness of its units, shape (count,): NumPy
                zeros and ones, or backend tensors of probabilities.
        """
        reference = open_[0] if len(open_) else np.ones(1)
        flows = self._forward(open_, reference)
        demands = self._backward(flows, reference)
        decided = self._decide(flows, demands)
        # Twice: a unit kept as a place-holder may call for a branch that carries it.
        for _ in range(2):
            exists = self._exists(flows, decided, reference)
            decided = self._hold_places(decided, exists)
        keep = [
            take(decided, self.atoms(slot)) * exists[slot]
            for slot in range(len(self.channels))
        ]
        sizes = [
            step.rule.size(
                [flows[i] for i in step.ins],
                [keep[i] for i in step.ins],
                [keep[i] for i in step.outs],
            )
            for step in self.steps
        ]
        return Evaluation(flows, keep, sizes, self._total(sizes))

    def _forward(self, open_: Sequence[Any], reference: Any) -> list[Flow]:
        flows: dict[int, Flow] = {}
        for slot in self.input_slots:
            n = self.channels[slot].size
            flows[slot] = Flow(like(reference, 1.0, n), like(reference, 0.0, n))
        for step in self.steps:
            gate = self.gate_of(step)
            openness = None if gate is None else open_[self._gate_index[id(gate)]]
            outs = step.rule.forward([flows[i] for i in step.ins], openness)
            flows.update(zip(step.outs, outs, strict=True))
        return [flows[slot] for slot in range(len(self.channels))]

    def _backward(self, flows: list[Flow], reference: Any) -> list[Demand]:
        demands: list[Demand | None] = [None] * len(flows)

        def ask(slot: int, demand: Demand) -> None:
            old = demands[slot]
            if old is not None:
                demand = Demand(*map(or_, old, demand))
            demands[slot] = demand

        for slot in self.output_slots:
            ask(slot, pinned(flows[slot].alive))
        if self.inputs_mode != "narrow":
            for slot in self.input_slots:
                ask(slot, pinned(flows[slot].alive))
        for step in reversed(self.steps):
            for slot in step.outs:
                if demands[slot] is None:
                    nothing = 0.0 * flows[slot].alive
                    demands[slot] = Demand(nothing, nothing)
            facts_in = [flows[i] for i in step.ins]
            facts = [flows[i] for i in step.outs]
            if step.rule.whole:
                claimed = [pinned(flow.alive) for flow in facts]
                asked = [pinned(flow.alive) for flow in facts_in]
            else:
                claimed = step.rule.claims([demands[i] for i in step.outs])
                asked = step.rule.backward(facts_in, facts, claimed)
            for slot, demand in zip(step.outs, claimed, strict=True):
                demands[slot] = demand
            for slot, demand in zip(step.ins, asked, strict=True):
                ask(slot, demand)
        for slot in self.input_slots:
            if demands[slot] is None:
                demands[slot] = pinned(flows[slot].alive)
        return demands

    def _decide(self, flows: list[Flow], demands: list[Demand]) -> Any:
        """For each decision whether any channel under it is wanted."""
        wants = [
            or_(and_(flow.alive, demand.need), demand.pin)
            for flow, demand in zip(flows, demands, strict=True)
        ]
        slots = range(len(wants))
        atoms = np.concatenate([self.atoms(slot) for slot in slots])
        return group_any(concatenate(wants), atoms, self._atom_count)

    def _exists(self, flows: list[Flow], decided: Any, reference: Any) -> list[Any]:
        exists = [like(reference, 0.0, 1)] * len(flows)
        for slot in (*self.output_slots, *self.input_slots):
            exists[slot] = like(reference, 1.0, 1)
        for step in reversed(self.steps):
            here = reduce(or_, [exists[i] for i in step.outs])
            for slot in step.outs:
                exists[slot] = here
            asked = step.rule.operands(
                here,
                [flows[i] for i in step.ins],
                [take(decided, self.atoms(i)) for i in step.ins],
            )
            for slot, one in zip(step.ins, asked, strict=True):
                exists[slot] = or_(exists[slot], one)
        return exists

    def _hold_places(self, decided: Any, exists: list[Any]) -> Any:
        """Keeps one channel of every tensor that must exist but has none left."""
        places = [
            and_(one, not_(any_(take(decided, self.atoms(slot)))))
            for slot, one in enumerate(exists)
        ]
        first = np.array([self.atoms(slot)[0] for slot in range(len(exists))])
        return or_(decided, group_any(concatenate(places), first, self._atom_count))

    def _total(self, sizes: list[Size]) -> Size:
        params: dict[int, Any] = {}
        for step, size in zip(self.steps, sizes, strict=True):
            key = id(step.node.operation) if step.node.operation else id(step)
            if key in params:
                params[key] = largest(params[key], size.params)
            else:
                params[key] = size.params
        return Size(sum(params.values()), sum(size.macs for size in sizes))


def _flat(tensor: Any) -> np.ndarray:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor), dtype="float64").ravel()
