"""The analysis: which channels can go, and what the model then costs.

Built once per model; `Analysis.evaluate` then answers for any openness of the gates:
zeros and ones (NumPy) give the exact stripped model, the symbols of a tape a program
that computes the same of probabilities, on any backend, and its gradient.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.analysis import rules  # noqa: F401  (registers the built-in rules)
from keras_l0.analysis.arrays import float64
from keras_l0.analysis.evaluation import Evaluation, Evaluator
from keras_l0.analysis.facts import Atoms, Channels, Flow, Size, opaque
from keras_l0.analysis.graph import Graph, Node, Tensor
from keras_l0.analysis.logic import concatenate
from keras_l0.analysis.program import Program
from keras_l0.analysis.rules.base import Rule
from keras_l0.analysis.rules.registry import rule_for
from keras_l0.analysis.rules.shape import SelectRule
from keras_l0.analysis.shapes import Work
from keras_l0.analysis.symbols import Tape
from keras_l0.analysis.tracing import trace
from keras_l0.arguments import require_integer, require_one_of
from keras_l0.layers import find_gates

# What has weights by which it multiplies nothing.
_TABLE = keras.layers.Embedding
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

    @property
    def visible(self) -> list[int]:
        """The outputs that other calls can read."""
        return self.outs[: len(self.node.outputs)]

    @property
    def hidden(self) -> list[int]:
        """Channels inside of the call, which it alone reads."""
        return self.outs[len(self.node.outputs) :]

    @property
    def gated(self) -> int:
        """What the call's own gates switch: hidden channels, if there are any."""
        return (self.hidden or self.outs)[0]

    @property
    def units(self) -> int:
        """What is counted of the call: hidden channels such as heads, not weights."""
        return self.outs[0] if self.rule.gates_weights else self.gated

    def kept(self, evaluation: Evaluation) -> int:
        """How many of its units an evaluation keeps."""
        return round(float(np.sum(evaluation.keep[self.units])))

    def size(self, flows: Sequence[Flow], keep: Mapping[int, Any]) -> Size:
        """The call's size on what is kept.

        Args:
            flows: Forward facts of each tensor.
            keep: For its own tensors which of their channels stay.
        """
        return self.rule.size(*self._of_mine(flows, keep))

    def work(self, evaluation: Evaluation) -> Work:
        """What an evaluation leaves the call to do."""
        keep = dict(enumerate(evaluation.keep))
        return self.rule.work(*self._of_mine(evaluation.flows, keep))

    def _of_mine(
        self, flows: Sequence[Flow], keep: Mapping[int, Any]
    ) -> tuple[list[Flow], list[Any], list[Any]]:
        return (
            [flows[i] for i in self.ins],
            [keep[i] for i in self.ins],
            [keep[i] for i in self.outs],
        )


class Analysis:
    """The channels of a model: constants, need and coupling.

    Args:
        model: A built Sequential or functional model, gated or plain; or its `Graph`.
        inputs: What becomes of input features (and flattened features inside) that
            nobody reads. ``"keep"``: they stay. ``"gather"``: the rest is selected
            out of them. ``"narrow"``: the model's input loses them.
        keep: Names of layers all of whose units stay.
        round_to: Unit counts are rounded up to a multiple of this; a head counts as
            the features that it has.
        min_units: No layer that stays is left with fewer units.

    Raises:
        TypeError: If ``model`` is not a Keras model.
        ValueError: If ``model`` has no readable graph, or an option is out of range.
    """

    def __init__(
        self,
        model: Any,
        inputs: str = "keep",
        *,
        keep: Iterable[str] = (),
        round_to: int = 1,
        min_units: int = 1,
    ) -> None:
        require_one_of("inputs", inputs, INPUT_MODES)
        self.round_to = require_integer("round_to", round_to, 1)
        self.min_units = require_integer("min_units", min_units, 1)
        self.inputs_mode = inputs
        if isinstance(model, Graph):
            self.graph = model
            self.gates = _gates_in(node.operation for node in model.nodes)
        else:
            self.graph, self.gates = trace(model), find_gates(model)
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
            step = Step(rule, ins, [self._slot(c) for c in rule.outs])
            self.steps.append(step)
            for tensor, slot in zip(node.outputs, step.visible, strict=True):
                slot_of[tensor.index] = slot
                if rule.selectable:
                    self._selectable(tensor, slot_of, atoms)
        self.output_slots = [slot_of[t.index] for t in self.graph.outputs]
        labels, self._atoms = np.unique(atoms.resolve(), return_inverse=True)
        self.atom_count = len(labels)
        self.kept_layers = self.named("keep", keep)
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

    def gates_of(self, step: Step) -> list[int]:
        """The numbers of a step's gates among `gates`."""
        found = (self._gate_index.get(id(gate)) for gate in step.rule.gates)
        return [number for number in found if number is not None]

    def of_units(self, step: Step, per_gate: Sequence[Any]) -> Any:
        """What the units that a step switches have of something; None without gates.

        Args:
            step: The step.
            per_gate: For each of `gates` an array of shape (count,).
        """
        found = [per_gate[number] for number in self.gates_of(step)]
        if not found:
            return None
        return step.rule.per_unit(concatenate(found) if len(found) > 1 else found[0])

    def test_open(self) -> list[np.ndarray]:
        """Which gates are open at test time: zeros and ones, one array per gate."""
        return [(g > 0).astype("float64") for g in self.test_gates()]

    def ones(self) -> list[np.ndarray]:
        """All gates open, as `evaluate` takes them."""
        return [np.ones(gate.count) for gate in self.gates]

    def prob_open(self) -> list[np.ndarray]:
        """How likely each gate is to be open in training, as `evaluate` takes it."""
        return [float64(gate.prob_open).ravel() for gate in self.gates]

    def test_gates(self) -> list[np.ndarray]:
        """The gates' test-time values, one flat float64 array per gate."""
        return [float64(gate.test_gates).ravel() for gate in self.gates]

    def evaluate(
        self,
        open_: Sequence[Any],
        lifted: Sequence[Step] = (),
        cut: Mapping[int, np.ndarray] | None = None,
        training: bool = False,
    ) -> Evaluation:
        """What is kept, and its size, for one openness of the gates.

        Args:
            open_: For each of `gates` the openness of its units, shape (count,): NumPy
                zeros and ones, or the inputs of a `Tape`. What that records takes
                probabilities too.
            lifted: Steps to treat as if they kept no channel for its own sake.
            cut: For tensors which of their channels to close, as by a gate behind
                them: zeros and ones.
            training: Whether the model is going to be trained on: then only channels
                that are 0 and stay it can go.
        """
        return Evaluator(self, open_, lifted, cut or {}, training).run()

    def expected_sizes(self) -> list[Size]:
        """The size of each step in training, in expectation; the total comes last."""
        tape = Tape([gate.count for gate in self.gates])
        found = self.evaluate(tape.inputs)
        sizes = (*found.sizes, found.total)
        recorded = Program(tape, [number for size in sizes for number in size])
        numbers = map(float, recorded(self.prob_open()))
        return [Size(*pair) for pair in zip(numbers, numbers, strict=True)]

    def reachable_share(self) -> float:
        """The share of the kernels outside output layers that gates could remove.

        It is measured, not counted by name: every group of units is cut to one, as by a
        gate behind its activation, and what is left of the kernels is set against what
        there was. A model without such kernels has a share of 0.
        """
        before = self.kernel_params(self.all_open())
        after = self.kernel_params(self.cut_to_one())
        return 1.0 - after / before if before else 0.0

    def all_open(self) -> Evaluation:
        """What is kept with all gates open."""
        return self.evaluate(self.ones())

    def deployed(self) -> Evaluation:
        """What is kept with the gates as they are at test time."""
        return self.evaluate(self.test_open())

    def cut_to_one(self) -> Evaluation:
        """What is kept if every group of units is cut to one, gated or not."""
        gated = self.ruled(lambda rule: rule.as_gated())
        first = {
            other: (gated.atoms(other) == gated.atoms(slot)[0]).astype("float64")
            for step in gated.steps
            for slot in gated.own_units(step)
            for other in (slot, *step.outs)
            if np.isin(gated.atoms(other), gated.atoms(slot)).all()
        }
        return gated.evaluate(self.ones(), cut=first)

    def ruled(self, change: Callable[[Rule], Rule]) -> Analysis:
        """The same analysis under changed rules."""
        other = copy.copy(self)
        other.steps = [
            dataclasses.replace(step, rule=change(step.rule)) for step in self.steps
        ]
        return other

    def kernel_params(self, evaluation: Evaluation) -> float:
        """The parameters of layers with kernels, or tables, that make no output."""
        return float(
            sum(
                size.params
                for step, size in zip(self.steps, evaluation.sizes, strict=True)
                if (size.macs > 0 or isinstance(step.node.operation, _TABLE))
                and not set(step.outs) & set(self.output_slots)
            )
        )

    def own_units(self, step: Step) -> list[int]:
        """The channels of a step that are its own to keep or drop, as slots."""
        if step.rule.whole or step.node.operation is None:
            return []
        made = self.channels[step.outs[0]].atoms
        passed = not step.rule.makes_units and any(
            np.isin(made, self.channels[i].atoms).any() for i in step.ins
        )
        return [*([] if passed else step.outs[:1]), *step.hidden]

    def fill_up(self, decided: Any, exists: list[Any]) -> Any:
        """Keeps further units as `round_to` and `min_units` ask (NumPy only)."""
        if self.round_to == 1 and self.min_units == 1:
            return decided
        decided = decided.copy()
        for slot in itertools.chain(*map(self.own_units, self.steps)):
            atoms = self.atoms(slot)
            kept = int(decided[atoms].sum())
            width = self.channels[slot].width
            if not exists[slot][0] or not kept or not width:
                continue
            unit = self.round_to // math.gcd(self.round_to, width)
            wanted = -(-max(kept, self.min_units) // unit) * unit
            closed = atoms[decided[atoms] == 0]
            decided[closed[: max(0, wanted - kept)]] = 1.0
        return decided

    def named(self, argument: str, names: Iterable[str]) -> set[str]:
        """Names of layers, checked: an unknown one is a misspelling."""
        given = [names] if isinstance(names, str) else names
        given = list(given) if isinstance(given, Iterable) else given
        if not isinstance(given, list) or not all(isinstance(n, str) for n in given):
            raise TypeError(
                f"`{argument}` must be names of layers, strings. "
                f"Received: {argument}={given!r}"
            )
        names = set(given)
        unknown = names - {step.node.name for step in self.steps}
        if unknown:
            known = ", ".join(repr(s.node.name) for s in self.steps if s.node.operation)
            raise ValueError(
                f"`{argument}` must name layers of {self.graph.model.name!r}: {known}. "
                f"Received: {', '.join(map(repr, sorted(unknown)))}"
            )
        return names


def _gates_in(operations: Iterable[Any]) -> list[Any]:
    layers = [one for one in operations if isinstance(one, keras.Layer)]
    return list(dict.fromkeys(gate for one in layers for gate in find_gates(one)))
