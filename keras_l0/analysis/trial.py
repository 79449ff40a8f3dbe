"""What goes if gates close at some places, and what that saves, tried out.

The analysis that strip acts on is asked, with gates put in its way that are not there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from keras_l0.analysis.evaluation import Evaluation, total_size
from keras_l0.analysis.facts import Size
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.places import Group, Place


def settle(analysis: Analysis, groups: Iterable[Group]) -> float:
    """Says of each group whether it can go, through which places, and what that saves.

    Args:
        analysis: The model, in which layers that are gated inside have their gates.
        groups: Those to gate. What they lack is filled in.

    Returns:
        The share of the kernels outside output layers that the gates reach: what goes
        when every group is cut to one unit.
    """
    trial = _Trial(analysis)
    groups = [group for group in groups if group.reason is None]
    cut = trial.cut_to_one(groups)
    for group in groups:
        if len(group.atoms) == 1:
            group.reason = "it has one unit only"
        elif len(trial.kept(cut, group.places)) == len(group.atoms):
            group.reason = _held_by(analysis, group)
    groups = [group for group in groups if group.reason is None]
    _drop_needless(trial, groups)
    cut, whole = trial.cut_to_one(groups), trial.cut_to_one([])
    for group in groups:
        kept = trial.kept(cut, group.places) - {int(group.atoms[0])}
        group.saves = trial.savings(whole, group, kept)
    before = analysis.kernel_params(whole)
    return 1.0 - analysis.kernel_params(cut) / before if before else 0.0


def _held_by(analysis: Analysis, group: Group) -> str:
    """Why none of a group's units can go."""
    for step in (*group.steps, *analysis.steps):
        touched = (analysis.atoms(slot) for slot in (*step.ins, *step.outs))
        if step.rule.reason and any(np.isin(a, group.atoms).any() for a in touched):
            if step in group.steps:
                return step.rule.reason
            return f"{step.node.name!r} needs all of its units: {step.rule.reason}"
    return "all of its units are needed further on"


def _drop_needless(trial: _Trial, groups: list[Group]) -> None:
    """Leaves out places whose units go anyway when those of the others do.

    The channel weights of squeeze-and-excitation, for instance, have nothing to scale
    when the channels that they scale are closed. A gate on them as well would multiply
    by its value twice.
    """
    for back in range(1, max((len(g.places) for g in groups), default=0) + 1):
        tried = [(g, g.places[-back]) for g in groups if 1 < len(g.places) >= back]
        cut = trial.cut_to_one(groups, off=[place for _, place in tried])
        for group, place in tried:
            # A gate inside of a layer is what frees its units.
            if place.tensor is None or len(trial.kept(cut, [place])) > 1:
                continue
            # Not only because what feeds them has been cut to one as well.
            alone = trial.cut_to_one([group], off=[place])
            if len(trial.kept(alone, [place])) <= 1:
                group.places.remove(place)


class _Trial:
    """An analysis in which channels can be closed at places that have no gates yet."""

    def __init__(self, analysis: Analysis) -> None:
        # Behind a gate all that is at rest is 0.
        self.analysis = analysis.ruled(lambda rule: rule.at_zero())

    def cut_to_one(
        self, groups: Iterable[Group], off: Collection[Place] = ()
    ) -> Evaluation:
        """What is left when all units of each group but one are closed.

        Args:
            groups: The groups.
            off: Places without gates.
        """
        cut = {
            slot: (self.analysis.atoms(slot) == group.atoms[0]).astype("float64")
            for group in groups
            for place in group.places
            if place not in off
            for slot in self._made(place)
        }
        return self.analysis.evaluate(self.analysis.ones(), cut=cut)

    def kept(self, evaluation: Evaluation, places: Iterable[Place]) -> set[int]:
        """The decisions of which the layers at some places keep a channel."""
        return {
            atom
            for place in places
            for slot in self._made(place)
            for atom in self.analysis.atoms(slot)[evaluation.keep[slot] > 0].tolist()
        }

    def _made(self, place: Place) -> list[int]:
        """The channels that a place's layer makes and its gates close."""
        slots = place.step.outs if place.tensor is None else place.step.visible[:1]
        atoms = self.analysis.atoms
        return [s for s in slots if np.isin(atoms(s), place.atoms).any()]

    def savings(self, whole: Evaluation, group: Group, kept: set[int]) -> list[Size]:
        """For each decision of a group how much smaller the model is without it.

        Args:
            whole: The model as it is.
            group: The group.
            kept: Decisions that nothing goes with.
        """
        steps = [
            (step, size)
            for step, size in zip(self.analysis.steps, whole.sizes, strict=True)
            if size.params or size.macs
        ]
        slots = sorted({slot for step, _ in steps for slot in (*step.ins, *step.outs)})
        held = {slot: self.analysis.atoms(slot) for slot in slots}
        touched = [s for s in slots if np.isin(held[s], group.atoms).any()]
        counts = np.stack(
            [(held[s][:, None] == group.atoms).sum(axis=0) for s in touched], axis=-1
        )
        # Decisions that take equally many channels of each tensor save the same.
        kinds, kind_of = np.unique(counts, axis=0, return_inverse=True)
        near = [
            (step, size)
            for step, size in steps
            if not set(touched).isdisjoint((*step.ins, *step.outs))
        ]
        saved = []
        for kind in range(len(kinds)):
            atom = group.atoms[int(np.argmax(kind_of.ravel() == kind))]
            saved.append(self._saving(whole, near, int(atom)))
        return [
            Size(0.0, 0.0) if int(atom) in kept else saved[kind]
            for atom, kind in zip(group.atoms, kind_of.ravel(), strict=True)
        ]

    def _saving(
        self, whole: Evaluation, near: list[tuple[Step, Size]], atom: int
    ) -> Size:
        """How much smaller the calls that a decision touches are without it.

        Args:
            whole: The model as it is.
            near: The calls and their sizes.
            atom: The decision.
        """
        smaller = []
        for step, _ in near:
            left = {
                slot: whole.keep[slot] * (self.analysis.atoms(slot) != atom)
                for slot in (*step.ins, *step.outs)
            }
            smaller.append((step, step.size(whole.flows, left)))
        before, after = total_size(near), total_size(smaller)
        return Size(*(float(a - b) for a, b in zip(before, after, strict=True)))
