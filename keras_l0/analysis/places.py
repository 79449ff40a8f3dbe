"""Where gates can go in a plain model.

A gate switches a decision: channels that are tied to each other go together. Which of
the decisions can be taken at all, through which places, and what that saves, `trial`
finds out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from keras_l0.analysis.facts import Demand, Flow, Size
from keras_l0.analysis.graph import Tensor
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.reading_places import read_at, wakes


@dataclasses.dataclass(eq=False)
class Place:
    """Where channels meet gates: behind a tensor, or inside of a layer that has some.

    Attributes:
        step: The call that makes the channels.
        tensor: The tensor to multiply; None inside of a layer.
        slot: The channels, by their number in the analysis.
        atoms: For each of them the decision that it follows.
    """

    step: Step
    tensor: Tensor | None
    slot: int
    atoms: np.ndarray


@dataclasses.dataclass(eq=False)
class Group:
    """Units of one or several layers that go together.

    Attributes:
        places: Where their gates go.
        atoms: The decisions, in the order of the gates.
        steps: The calls that make the units.
        reason: Why they cannot be gated; None if they can.
        saves: For each decision what its removal saves, the rest being there.
        followers: The calls with kernels whose units go with these, such as those of
            depthwise convolutions.
    """

    places: list[Place]
    atoms: np.ndarray
    steps: list[Step]
    reason: str | None = None
    saves: list[Size] = dataclasses.field(default_factory=list)
    followers: list[Step] = dataclasses.field(default_factory=list)

    @property
    def members(self) -> list[Step]:
        """The calls whose units are closed by the gates."""
        return [*self.steps, *self.followers]


def find_groups(analysis: Analysis) -> list[Group]:
    """The units of a model as groups that share decisions, in graph order."""
    sized = list(zip(analysis.steps, analysis.all_open().sizes, strict=True))
    places = list(_candidates(analysis, [s for s, size in sized if size.params]))
    groups = [_group(analysis, found) for found in _joined(places)]
    owner = {atom: group for group in groups for atom in group.atoms.tolist()}
    for step, size in sized:
        if size.params and size.macs and follows(analysis, step):
            read = analysis.atoms(step.outs[0]).tolist()
            for group in dict.fromkeys(g for a in read if (g := owner.get(a))):
                group.followers.append(step)
    groups.sort(key=lambda g: places.index(g.places[0]))
    for group in groups:
        if group.reason is None:
            group.places = _in_front_of_readers(analysis, group) or group.places
    return groups


def _joined(places: Iterable[Place]) -> list[list[Place]]:
    """Places as lists of those that share decisions, directly or not."""
    members: dict[int, list[Place]] = {}
    owner: dict[int, int] = {}
    for number, place in enumerate(places):
        known = owner.keys() & set(place.atoms.tolist())
        met = sorted({owner[atom] for atom in known})
        members[number] = [p for n in met for p in members.pop(n)] + [place]
        moved = {a for p in members[number] for a in p.atoms.tolist()}
        owner.update(dict.fromkeys(moved, number))
    return list(members.values())


def _group(analysis: Analysis, places: list[Place]) -> Group:
    """The units at some places; with the reason if they make the model's outputs."""
    atoms = np.unique(np.concatenate([place.atoms for place in places]))
    group = Group(places, atoms, [place.step for place in places])
    outputs = analysis.output_slots
    if np.isin(atoms, np.concatenate([analysis.atoms(slot) for slot in outputs])).any():
        last = len(group.steps) == 1 and set(group.steps[0].outs) & set(outputs)
        group.reason = (
            "its units are outputs of the model"
            if last
            else "its units are tied to outputs of the model"
        )
    return group


def follows(analysis: Analysis, step: Step) -> bool:
    """Whether a call's units are the channels that it reads, and none of its own."""
    return not (step.rule.whole or analysis.own_units(step))


def _candidates(analysis: Analysis, steps: Iterable[Step]) -> Iterable[Place]:
    """Every place that a gate could take, if nothing spoke against it.

    Args:
        analysis: The model.
        steps: The calls with weights.
    """
    readers: dict[int, list[Step]] = {}
    for step in analysis.steps:
        for tensor in step.node.inputs:
            readers.setdefault(tensor.index, []).append(step)
    for step in steps:
        for slot in analysis.own_units(step):
            atoms = analysis.atoms(slot)
            if step.rule.gates and slot == step.gated:
                yield Place(step, None, slot, atoms)
            elif slot not in step.hidden and analysis.channels[slot].axis is not None:
                tensor, end = _behind(analysis, readers, step, slot)
                yield Place(step, tensor, end, atoms)


def _behind(
    analysis: Analysis, readers: Mapping[int, list[Step]], step: Step, slot: int
) -> tuple[Tensor, int]:
    """The last tensor that holds a layer's channels, and nothing else, in their order.

    That is behind the normalization, the activation, a pooling or a depthwise
    convolution that follow: what a closed gate leaves of the channels is then 0, and
    fewer numbers have to be multiplied.
    """
    tensor, atoms = step.node.outputs[step.outs.index(slot)], analysis.atoms(slot)
    while tensor.consumers == 1 and tensor.index in readers:
        (reader,) = readers[tensor.index]
        (after, *others), (end, *more) = reader.node.outputs, reader.outs
        if (
            others
            or more
            or len(reader.ins) != 1
            or reader.rule.whole
            or after.positions(None) > tensor.positions(None)
            or analysis.channels[end].axis is None
            or not np.array_equal(analysis.atoms(end), atoms)
            or not _frees(reader, atoms)
        ):
            break
        tensor, slot = after, end
    return tensor, slot


def _in_front_of_readers(analysis: Analysis, group: Group) -> list[Place] | None:
    """Places behind which closed units stay closed, if at the group's they do not.

    None if all is well, or if there are no such places either.
    """
    if any(place.tensor is None for place in group.places):
        return None
    units = _one_of_each(analysis, group.atoms)

    def asleep(places: list[Place]) -> bool:
        slots = {place.slot for place in places}
        return not any(wakes(analysis, unit, slots) for unit in units)

    if asleep(group.places):
        return None
    makers = {slot: step for step in analysis.steps for slot in step.visible[:1]}
    found: dict[int, Place] = {}
    for step, slot in (read for unit in units for read in read_at(analysis, unit)):
        maker, atoms = makers.get(slot), analysis.atoms(slot)
        one_group = np.isin(atoms, group.atoms).all()
        if maker is None or maker.rule.whole or step.rule.whole or not one_group:
            return None
        if analysis.channels[slot].axis is None:
            return None
        tensor = step.node.inputs[step.ins.index(slot)]
        found[slot] = Place(maker, tensor, slot, atoms)
    places = [found[slot] for slot in sorted(found)]
    reached = np.isin(group.atoms, [a for p in places for a in p.atoms.tolist()])
    return places if reached.all() and asleep(places) else None


def _one_of_each(analysis: Analysis, atoms: np.ndarray) -> list[int]:
    """Of decisions that are met in the same tensors, one."""
    slots = range(len(analysis.channels))
    met = np.stack([np.isin(atoms, analysis.atoms(slot)) for slot in slots])
    _, first = np.unique(met, axis=1, return_index=True)
    return atoms[np.sort(first)].tolist()


def _frees(reader: Step, atoms: np.ndarray) -> bool:
    """Whether a call reads nothing of a channel that nobody reads of its output.

    A length over all channels, for one, is read from all of them.
    """
    ones, first = np.ones(len(atoms)), 1.0 * (atoms == atoms[0])
    flow, nothing = Flow(ones, 0.0 * ones), 0.0 * ones
    asked = reader.rule.backward([flow], [flow], [Demand(first, nothing)])[0]
    return not (asked.need > first).any()
