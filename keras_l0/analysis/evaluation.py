"""One evaluation of the analysis: what is kept, and its size, for given gates.

Three passes over the calls: facts forward, demands backward, existence backward; the
decisions on tied channels are taken in between. Everything here runs on NumPy zeros and
ones, and on symbols: what those record computes the same of probabilities.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_l0.analysis.facts import Demand, Flow, Size, pinned, varying
from keras_l0.analysis.logic import (
    and_,
    any_,
    array_like,
    concatenate,
    group_any,
    largest,
    like,
    not_,
    ones_like,
    or_,
    take,
)
from keras_l0.analysis.rules.barriers import blaming

if TYPE_CHECKING:
    from keras_l0.analysis.passes import Analysis, Step


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


class Evaluator:
    """Evaluates one `Analysis` for one openness of its gates.

    Args:
        analysis: The analysed model.
        open_: For each of its gates the openness of the units, shape (count,).
        lifted: Steps to treat as if they kept no channel for its own sake.
        cut: For tensors which of their channels to close: zeros and ones.
        training: Whether the model is going to be trained on. What is the same for
            every input then still changes from step to step, so it counts as varying:
            only channels that are 0 and stay it can go.
    """

    def __init__(
        self,
        analysis: Analysis,
        open_: Sequence[Any],
        lifted: Sequence[Step],
        cut: Mapping[int, np.ndarray],
        training: bool,
    ) -> None:
        self.analysis = analysis
        self.open_ = open_
        # In the namespace and dtype to compute in.
        self.reference = open_[0] if len(open_) else np.ones(1)
        self.lifted = lifted
        self.cut = cut
        self.training = training
        self.slots = range(len(analysis.channels))

    def run(self) -> Evaluation:
        """The three passes, and what follows from them."""
        flows = self._forward()
        decided = self._decide(flows, self._backward(flows))
        # Twice: a unit kept as a place-holder may call for a branch that carries it.
        for _ in range(2):
            exists = self._exists(flows, decided)
            decided = self._hold_places(decided, exists)
        decided = self.analysis.fill_up(decided, exists)
        keep = [and_(take(decided, self._atoms(i)), exists[i]) for i in self.slots]
        kept = dict(enumerate(keep))
        sizes = [self._size(step, flows, kept) for step in self.analysis.steps]
        total = total_size(list(zip(self.analysis.steps, sizes, strict=True)))
        return Evaluation(flows, keep, sizes, total)

    def _size(self, step: Step, flows: list[Flow], kept: dict[int, Any]) -> Size:
        with _reading(step):
            return step.size(flows, kept)

    def _atoms(self, slot: int) -> np.ndarray:
        return self.analysis.atoms(slot)

    def _forward(self) -> list[Flow]:
        flows: dict[int, Flow] = {}
        for slot in self.analysis.input_slots:
            flows[slot] = varying(self.reference, self.analysis.channels[slot].size)
        for step in self.analysis.steps:
            gate = self.analysis.of_units(step, self.open_)
            with _reading(step):
                outs = step.rule.forward([flows[i] for i in step.ins], gate)
            for slot, flow in zip(step.outs, outs, strict=True):
                if slot in self.cut:
                    left = array_like(flow.alive, self.cut[slot])
                    flow = Flow(and_(flow.alive, left), and_(flow.const, left))
                flows[slot] = self._trained(step, slot, flow)
        return [flows[slot] for slot in self.slots]

    def _trained(self, step: Step, slot: int, flow: Flow) -> Flow:
        """The facts of a tensor, where weights are going to change."""
        if not self.training:
            return flow
        # A layer such as a normalization learns what it makes of a channel at rest.
        weights = getattr(step.node.operation, "weights", ())
        learns = bool(weights) and not step.rule.gates
        passed = learns and slot not in self.analysis.own_units(step)
        odd = passed | (self.analysis.channels[slot].rest != 0)
        moving = or_(or_(flow.alive, flow.const), array_like(flow.alive, odd))
        return Flow(moving, 0.0 * flow.const)

    def _backward(self, flows: list[Flow]) -> list[Demand]:
        nothing = [0.0 * flow.alive for flow in flows]
        demands = [Demand(zeros, zeros) for zeros in nothing]
        untouched = list(demands)

        def ask(slot: int, demand: Demand) -> None:
            if demands[slot] is not untouched[slot]:
                demand = Demand(*map(or_, demands[slot], demand))
            demands[slot] = demand

        analysis = self.analysis
        for step in analysis.steps:
            for slot in step.hidden:
                ask(slot, Demand(ones_like(nothing[slot]), nothing[slot]))
        for slot in analysis.output_slots:
            ask(slot, pinned(flows[slot].alive))
        if analysis.inputs_mode != "narrow":
            for slot in analysis.input_slots:
                ask(slot, pinned(flows[slot].alive))
        for step in reversed(analysis.steps):
            facts_in = [flows[i] for i in step.ins]
            facts = [flows[i] for i in step.outs]
            claimed = [self._behind_cut(i, demands[i]) for i in step.outs]
            if step in self.lifted:
                asked = [Demand(ones_like(f.alive), 0.0 * f.alive) for f in facts_in]
            elif step.rule.whole:
                claimed = [pinned(flow.alive) for flow in facts]
                asked = [pinned(flow.alive) for flow in facts_in]
            else:
                with _reading(step):
                    claimed = step.rule.claims(facts, claimed)
                    asked = step.rule.backward(facts_in, facts, claimed)
            if step.node.name in analysis.kept_layers:
                claimed = [pinned(flow.alive) for flow in facts]
            for slot, demand in zip(step.outs, claimed, strict=True):
                demands[slot] = demand
            for slot, demand in zip(step.ins, asked, strict=True):
                ask(slot, demand)
        return demands

    def _behind_cut(self, slot: int, demand: Demand) -> Demand:
        """What is asked of a tensor through the gate that `cut` puts behind it."""
        if slot not in self.cut:
            return demand
        left = array_like(demand.need, self.cut[slot])
        return Demand(and_(demand.need, left), demand.pin)

    def _decide(self, flows: list[Flow], demands: list[Demand]) -> Any:
        """For each decision whether any channel under it is wanted."""
        wants = [
            or_(and_(flow.alive, demand.need), demand.pin)
            for flow, demand in zip(flows, demands, strict=True)
        ]
        return self._per_decision(wants, [self._atoms(slot) for slot in self.slots])

    def _exists(self, flows: list[Flow], decided: Any) -> list[Any]:
        """For each tensor whether the stripped model has it at all."""
        exists = [like(self.reference, 0.0, 1) for _ in self.slots]
        for slot in (*self.analysis.output_slots, *self.analysis.input_slots):
            exists[slot] = like(self.reference, 1.0, 1)
        for step in reversed(self.analysis.steps):
            here = reduce(or_, [exists[i] for i in step.outs])
            for slot in step.outs:
                exists[slot] = here
            facts_in = [flows[i] for i in step.ins]
            kept_in = [take(decided, self._atoms(i)) for i in step.ins]
            with _reading(step):
                asked = step.rule.operands(here, facts_in, kept_in)
            for slot, one in zip(step.ins, asked, strict=True):
                exists[slot] = or_(exists[slot], one)
        return exists

    def _hold_places(self, decided: Any, exists: list[Any]) -> Any:
        """Keeps one channel of every tensor that must exist but has none left."""
        atoms = [self._atoms(slot) for slot in self.slots]
        places = [
            and_(one, not_(any_(take(decided, own))))
            for one, own in zip(exists, atoms, strict=True)
        ]
        return or_(decided, self._per_decision(places, [own[:1] for own in atoms]))

    def _per_decision(self, values: list[Any], atoms: list[np.ndarray]) -> Any:
        """Per decision whether any of the values under it is true."""
        return group_any(
            concatenate(values), np.concatenate(atoms), self.analysis.atom_count
        )


def _reading(step: Step) -> AbstractContextManager[None]:
    """Errors inside are those of the step's rule."""
    return blaming(step.node, step.rule, "reading")


def total_size(steps: Sequence[tuple[Step, Size]]) -> Size:
    """The size of some steps together; shared weights are counted once."""
    params: dict[int, Any] = {}
    for step, size in steps:
        key = id(step.node.operation) if step.node.operation else id(step)
        if key in params:
            params[key] = largest(params[key], size.params)
        else:
            params[key] = size.params
    return Size(sum(params.values()), sum(size.macs for _, size in steps))
