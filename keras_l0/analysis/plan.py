"""`plan`: what strip will do and why, before anything is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.evaluation import Evaluation
from keras_l0.analysis.facts import Atoms, Size
from keras_l0.analysis.graph import open_inputs, require_finite
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.plan_text import story, text
from keras_l0.layers import find_gates


@dataclasses.dataclass(frozen=True)
class PlannedLayer:
    """One call with weights or gates.

    Attributes:
        name: The layer's name.
        kind: Its class name.
        units: Channels that it makes now; of attention, heads (or groups of them).
        kept: How many of them are left after strip.
        before: Its size now, gates not counted.
        after: Its size after strip.
        note: What is remarkable about it, or "".
    """

    name: str
    kind: str
    units: int
    kept: int
    before: Size
    after: Size
    note: str


@dataclasses.dataclass(frozen=True)
class PlannedBarrier:
    """A call that strip does not look through, or only in part.

    Attributes:
        name: The layer's name.
        kind: Its class name.
        reason: Why.
        held: Parameters that would go as well if it kept nothing for its own sake.
    """

    name: str
    kind: str
    reason: str
    held: int


@dataclasses.dataclass(frozen=True)
class PlannedGroup:
    """Layers whose units are tied: a unit goes when it goes in all of them."""

    layers: tuple[str, ...]
    units: int
    kept: int


@dataclasses.dataclass(frozen=True)
class StripPlan:
    """What `keras_l0.strip` will do to a model. ``print`` it for the whole story.

    Attributes:
        model: The model's name.
        inputs: The input mode, as in `keras_l0.strip`.
        before: Size now, gates not counted.
        after: Size after strip.
        layers: The calls with weights or gates, in graph order.
        groups: The layers that are tied to each other.
        barriers: What strip must not look through.
        kept_inputs: For each input the indices of the features that the stripped
            model reads (``"narrow"``: that it takes).
        reachable: Share of the parameters of kernels, and of tables of embeddings,
            outside the output layers that goes when every group of units is cut to
            one: what gates could reach at most.
        notes: What a user should know, in plain sentences.
    """

    model: str
    inputs: str
    before: Size
    after: Size
    layers: list[PlannedLayer]
    groups: list[PlannedGroup]
    barriers: list[PlannedBarrier]
    kept_inputs: dict[str, list[int]]
    reachable: float
    notes: list[str]

    def __repr__(self) -> str:
        return (
            f"<StripPlan of {self.model!r}: {self.before.params:,} -> "
            f"{self.after.params:,} parameters, {self.before.macs:,} -> "
            f"{self.after.macs:,} MACs, {len(self.barriers)} barriers>"
        )

    def __str__(self) -> str:
        return text(self)

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        """What a `rich.console.Console` prints: the same in the width that it has."""
        return story(self, options.max_width)


def plan(
    model: keras.Model,
    inputs: str = "keep",
    *,
    keep: Iterable[str] = (),
    round_to: int = 1,
    min_units: int = 1,
) -> StripPlan:
    """What `keras_l0.strip` will remove from a model, what it keeps, and why.

    Args:
        model: A built Sequential or functional model, gated or plain.
        inputs: As in `keras_l0.strip`.
        keep: As in `keras_l0.strip`.
        round_to: As in `keras_l0.strip`.
        min_units: As in `keras_l0.strip`.

    Raises:
        TypeError: If ``model`` is not a Keras model.
        ValueError: If ``model`` has no readable graph or holds a NaN or infinite
            weight, or an option is out of range.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras_l0.layers.L0Dense(3), keras.layers.Dense(2)],
        ...     name="toy")
        >>> keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, 9.0])
        >>> keras_l0.plan(model)
        <StripPlan of 'toy': 23 -> 16 parameters, 18 -> 12 MACs, 0 barriers>
    """
    require_finite(model)
    return plan_of(
        Analysis(model, inputs, keep=keep, round_to=round_to, min_units=min_units)
    )


def plan_of(analysis: Analysis) -> StripPlan:
    """`plan` of a model that has been analysed."""
    open_ = analysis.test_open()
    before = analysis.all_open()
    after = analysis.evaluate(open_)
    layers, barriers = [], []
    for number, step in enumerate(analysis.steps):
        rule, node = step.rule, step.node
        kind = type(node.operation).__name__
        if rule.reason and not _is_output_only(analysis, step):
            lifted = analysis.evaluate(open_, lifted=[step]).total.params
            held = round(float(after.total.params - lifted))
            barriers.append(PlannedBarrier(node.name, kind, rule.reason, held))
        if not rule.gates and not before.sizes[number].params:
            continue
        layers.append(
            PlannedLayer(
                name=node.name,
                kind=kind,
                units=analysis.channels[step.units].size,
                kept=step.kept(after),
                before=before.sizes[number].whole(),
                after=after.sizes[number].whole(),
                note=_note(analysis, open_, after, step),
            )
        )
    return StripPlan(
        model=analysis.graph.model.name,
        inputs=analysis.inputs_mode,
        before=before.total.whole(),
        after=after.total.whole(),
        layers=layers,
        groups=_groups(analysis, after),
        barriers=barriers,
        kept_inputs=_kept_inputs(analysis, after),
        reachable=analysis.reachable_share(),
        notes=_notes(analysis, open_, after),
    )


def _is_output_only(analysis: Analysis, step: Step) -> bool:
    """Whether a step only keeps what it has to keep anyway, as a model output."""
    return not step.rule.reads_all and set(step.outs) <= set(analysis.output_slots)


def _note(
    analysis: Analysis, open_: list[np.ndarray], after: Evaluation, step: Step
) -> str:
    if not step.kept(after):
        return "removed as a whole"
    if not after.flows[step.units].alive.any():
        return "constant: nothing that varies reaches it, or every gate is closed"
    left, gates = _open_gates(analysis, open_, step)
    if gates and (step.rule.gates_weights or left < step.kept(after)):
        return f"{left:,} of {gates:,} gates open"
    return ""


def _open_gates(
    analysis: Analysis, open_: list[np.ndarray], step: Step
) -> tuple[int, int]:
    """How many gates of a step are open, and how many there are."""
    own = analysis.gates_of(step)
    return (
        sum(round(float(open_[i].sum())) for i in own),
        sum(analysis.gates[i].count for i in own),
    )


def _closed_features(
    analysis: Analysis, open_: list[np.ndarray], after: Evaluation
) -> bool:
    """Whether features that could be gathered stay although their gate is closed."""
    features = [
        *analysis.input_slots,
        *(s for step in analysis.steps if step.rule.selectable for s in step.visible),
    ]
    # Which of all decisions are about features.
    about = np.zeros(analysis.atom_count, bool)
    for slot in features:
        if analysis.channels[slot].axis is not None:
            about[analysis.atoms(slot)] = True
    for step in analysis.steps:
        z, kept = analysis.of_units(step, open_), after.keep[step.gated]
        atoms = analysis.atoms(step.gated)
        if z is not None and len(z) == len(kept) == len(atoms):
            if (about[atoms] & (z == 0) & (kept > 0)).any():
                return True
    return False


def _gathered(
    analysis: Analysis, open_: list[np.ndarray], after: Evaluation
) -> str | None:
    """What there is to gain where gates of features are closed, and these stay."""
    if analysis.inputs_mode != "keep" or not _closed_features(analysis, open_, after):
        return None
    gathering = Analysis(
        analysis.graph.model,
        "gather",
        keep=analysis.kept_layers,
        round_to=analysis.round_to,
        min_units=analysis.min_units,
    )
    left = gathering.deployed().total.whole().params
    if left >= after.total.whole().params:
        return None
    return (
        "Gates of input features are closed that stay, under inputs='keep': "
        f"inputs='gather' would leave {left:,} parameters."
    )


def _notes(analysis: Analysis, open_: list[np.ndarray], after: Evaluation) -> list[str]:
    notes = []
    if not analysis.gates:
        notes.append("Nothing is gated: strip returns an equal model.")
    for step in analysis.steps:
        layer, rule = step.node.operation, step.rule
        inside = find_gates(layer) if isinstance(layer, keras.Layer) else []
        if rule.whole and inside and not rule.gates:
            notes.append(
                f"strip will refuse the model: there are gates inside of "
                f"{step.node.name!r}, and it is a barrier: {rule.reason}."
            )
    for tensor, slot in zip(analysis.graph.outputs, analysis.output_slots, strict=True):
        if not after.flows[slot].alive.any():
            node = tensor.producer
            name = node.name if node else f"input {slot}"
            notes.append(
                f"Output {name!r} no longer depends on any input, because every gate "
                "of some layer before it is closed. Train with a lower `l0`."
            )
    if gathered := _gathered(analysis, open_, after):
        notes.append(gathered)
    if unknown := open_inputs(analysis.graph.model):
        notes.append(
            "MACs count one position along axes of unknown size, those of "
            f"{', '.join(map(repr, unknown))}."
        )
    return notes


def _groups(analysis: Analysis, after: Evaluation) -> list[PlannedGroup]:
    """Layers that share decisions, and how many of these are kept."""
    makers = [(s, slot) for s in analysis.steps for slot in analysis.own_units(s)]
    ties = Atoms()
    ties.new(analysis.atom_count)
    for _, slot in makers:
        atoms = analysis.atoms(slot)
        ties.tie(atoms, np.full(len(atoms), atoms[0]))
    label = ties.resolve()
    members: dict[int, list[tuple[Step, int]]] = {}
    for step, slot in makers:
        members.setdefault(int(label[analysis.atoms(slot)[0]]), []).append((step, slot))
    groups = []
    for group in members.values():
        names = dict.fromkeys(step.node.name for step, _ in group)
        if len(names) > 1:
            atoms = np.concatenate([analysis.atoms(slot) for _, slot in group])
            kept = np.concatenate([after.keep[slot] for _, slot in group]) > 0
            units, left = len(np.unique(atoms)), len(np.unique(atoms[kept]))
            groups.append(PlannedGroup(tuple(names), units, left))
    return groups


def _kept_inputs(analysis: Analysis, after: Evaluation) -> dict[str, list[int]]:
    """The features that anybody reads, by input name, where they can be told apart."""
    slots = dict.fromkeys(analysis.input_slots)
    readers = {
        step.ins[0]: step.outs[0]
        for step in analysis.steps
        if step.node.operation is None and step.ins[0] in slots
    }
    return {
        kt.name: np.flatnonzero(after.keep[readers.get(slot, slot)]).tolist()
        for kt, slot in zip(
            analysis.graph.model.inputs, analysis.input_slots, strict=True
        )
        if analysis.channels[slot].axis is not None and analysis.channels[slot].size > 1
    }
