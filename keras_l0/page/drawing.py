"""The network as boxes and lines: each box with its units before and after."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np

from keras_l0.analysis.graph import Node
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.page.lanes import Lanes

WIDTH, HEIGHT = 236, 70
_GAP = 64
_ACROSS, _DOWN = WIDTH + _GAP, HEIGHT + 30
_MARGIN = 44
# Lines around what lies between two boxes of a lane go so far beside it.
_AROUND = 26


@dataclasses.dataclass
class Box:
    """A layer, or a layer and what follows it one by one.

    Attributes:
        name: The layer's name, or that of an input.
        kind: Its class name.
        before: Units before; None where they are not told apart.
        after: Units after; 0 of a layer that is gone.
        folded: Class names of what follows it.
        sources: Numbers of the boxes that it reads.
        barrier: Whether it is one, or one of those that follow.
        x: Where its left end is.
        y: Where its upper end is.
        track: Width of the bar of its units before.
    """

    name: str
    kind: str
    before: int | None
    after: int | None
    folded: list[str] = dataclasses.field(default_factory=list)
    sources: list[int] = dataclasses.field(default_factory=list)
    barrier: bool = False
    x: int = 0
    y: int = 0
    track: float = 0.0

    @property
    def fill(self) -> float:
        """Width of the bar of its units after."""
        if not self.before or self.after is None:
            return self.track
        return self.track * min(1.0, self.after / self.before)

    @property
    def units(self) -> str:
        """Units in words."""
        whole = self.before is None or self.before == self.after
        if self.before is None or (whole and self.kind.startswith("Input")):
            return ""
        if self.after == 0:
            return f"{self.before:,} → gone"
        if whole:
            return f"{self.before:,}"
        return f"{self.before:,} → {self.after:,}"


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Boxes and lines, with the size of the sheet."""

    boxes: list[Box]
    lines: list[str]
    width: int
    height: int


def drawing(
    analysis: Analysis, earlier: Analysis | None, barriers: Iterable[str]
) -> Drawing:
    """The graph of a model; of the earlier one, if there is one, with what is left.

    Args:
        analysis: The model as it is.
        earlier: The model that it was made from.
        barriers: Names of layers that strip does not look through.
    """
    boxes = _boxes(earlier or analysis, set(barriers))
    if earlier is not None:
        left = {box.name: box.after for box in _boxes(analysis, set())}
        for box in boxes:
            if box.before is not None:
                box.after = left.get(box.name, 0)
    widest = max((box.before or 0 for box in boxes), default=0) or 1
    lanes = Lanes([box.sources for box in boxes])
    for number, box in enumerate(boxes):
        box.x = _MARGIN // 2 + lanes.lane[number] * _ACROSS
        box.y = 10 + lanes.depth[number] * _DOWN
        share = math.sqrt((box.before or 0) / widest)
        box.track = max(6.0, (WIDTH - 24) * share) if box.before else 0.0
    return Drawing(
        boxes,
        list(_lines(boxes, lanes)),
        _MARGIN + (1 + max(lanes.lane, default=0)) * _ACROSS - _GAP + 20,
        (1 + max(lanes.depth, default=0)) * _DOWN,
    )


def _boxes(analysis: Analysis, barriers: set[str]) -> list[Box]:
    """Layers as boxes; what has no kernel joins the only layer that it reads."""
    graph = analysis.graph
    after = analysis.deployed()
    # A rule may see the call of a wrapper as that of the layer inside: match by order.
    steps = [
        (step, size)
        for step, size in zip(analysis.steps, after.sizes, strict=True)
        if step.node.operation is not None
    ]
    boxes: list[Box] = []
    box_of: dict[int, int] = {}

    def counted(step: Step) -> tuple[int | None, int | None]:
        keep = np.asarray(after.keep[step.units])
        if analysis.channels[step.units].axis is None and not step.rule.gates:
            return None, None
        return keep.size, int((keep > 0).sum())

    for tensor, kt in zip(graph.inputs, graph.model.inputs, strict=True):
        size = tensor.shape[-1] if len(tensor.shape) > 1 else None
        shape = " × ".join("?" if n is None else str(n) for n in tensor.shape[1:])
        box_of[tensor.index] = len(boxes)
        keep = np.asarray(after.keep[analysis.input_slots[len(boxes)]])
        count = int((keep > 0).sum()) if keep.size == size else size
        boxes.append(Box(kt.name, f"Input {shape}", size, count))
    for node, (step, work) in zip(graph.nodes, steps, strict=True):
        sources = list(dict.fromkeys(box_of[t.index] for t in node.inputs))
        kind = type(node.operation).__name__
        if _joins(node, sources, float(work.macs)):
            (number,) = sources
            box = boxes[number]
            if not is_gate(step):
                box.folded.append(kind)
            elif box.kind.startswith("Input"):
                box.before, box.after = counted(step)
            box.barrier |= node.name in barriers
        else:
            number = len(boxes)
            before, kept = counted(step)
            barrier = node.name in barriers
            boxes.append(Box(node.name, kind, before, kept, [], sources, barrier))
        box_of |= {tensor.index: number for tensor in node.outputs}
    return boxes


def _joins(node: Node, sources: list[int], macs: float) -> bool:
    return (
        len(sources) == 1
        and len(node.inputs) == 1
        and node.inputs[0].consumers == 1
        and macs == 0
    )


def is_gate(step: Step) -> bool:
    """Whether a call does nothing but gate what it reads."""
    return bool(step.rule.gates) and not step.rule.makes_units


def _lines(boxes: list[Box], lanes: Lanes) -> Iterator[str]:
    """Paths from box to box, past those that lie between."""
    for number, box in enumerate(boxes):
        for source in box.sources:
            start = boxes[source]
            x, y = start.x + WIDTH / 2, start.y + HEIGHT
            u, v = box.x + WIDTH / 2, box.y
            near = lanes.depth[number] - lanes.depth[source] == 1
            if near or (start.x == box.x and lanes.heir.get(source) == number):
                yield f"M{x:g} {y}C{x:g} {y + 20} {u:g} {v - 20} {u:g} {v}"
            elif start.x == box.x:
                # Around what lies between, on the right.
                out = start.x + WIDTH + _AROUND
                yield (
                    f"M{start.x + WIDTH} {start.y + HEIGHT / 2:g}"
                    f"C{out} {start.y + HEIGHT / 2:g} {out} {start.y + HEIGHT / 2:g} "
                    f"{out} {y + 15}L{out} {v - 15}"
                    f"C{out} {v + HEIGHT / 2:g} {out} {v + HEIGHT / 2:g} "
                    f"{box.x + WIDTH} {v + HEIGHT / 2:g}"
                )
            elif source in lanes.heir and lanes.heir[source] != number:
                yield (
                    f"M{x:g} {y}C{x:g} {y + 20} {u:g} {y + 10} {u:g} {y + 30}L{u:g} {v}"
                )
            else:
                yield (
                    f"M{x:g} {y}L{x:g} {v - 30}C{x:g} {v - 10} {u:g} {v - 20} {u:g} {v}"
                )
