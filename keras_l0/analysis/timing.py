"""The time that a stripped model takes, as a sum over the shapes of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from keras_l0.analysis.evaluation import Evaluation
from keras_l0.analysis.grids import Grid, interpolate
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.shapes import LayerShape


class Span(NamedTuple):
    """A call whose time counts, and how few and how many channels it may have.

    Attributes:
        step: The call.
        shape: The shape of its layer.
        inputs: Fewest and most input channels.
        outputs: Fewest and most output channels; (1, 1) where they follow from these.
    """

    step: Step
    shape: LayerShape
    inputs: tuple[int, int]
    outputs: tuple[int, int]

    def __str__(self) -> str:
        counts = [f"{_counts(self.inputs)} input channels"]
        if self.shape.units is not None:
            counts.append(f"{_counts(self.outputs)} {self.shape.units}")
        return f"{self.step.node.name!r}: {self.shape}, {', '.join(counts)}"


def spans(analysis: Analysis, names: Iterable[str] = ()) -> list[Span]:
    """The calls whose time counts, of some layers or of all.

    Raises:
        ValueError: If a layer with MACs has no shape by which it could be measured, or
            a size of the model is open.
    """
    names = set(names)
    most, least = analysis.all_open(), analysis.cut_to_one()
    found = []
    for step, size in zip(analysis.steps, most.sizes, strict=True):
        if names and step.node.name not in names:
            continue
        shape = step.rule.shape
        if shape is None:
            if size.macs > 0:
                raise ValueError(_unmeasured(step))
            continue
        if any(None in sizes for sizes in shape.positions):
            raise ValueError(
                "`model` must have inputs of known sizes for its latency to be "
                f"estimated. Received: {step.node.name!r} works on {shape}"
            )
        high = step.work(most)
        if not high.times:
            continue
        low = step.work(least)
        # Features that nobody reads are not cut by gates alone.
        fewest = _whole(low.n_in) if analysis.inputs_mode == "keep" else 1
        inputs = max(1, fewest), _whole(high.n_in)
        outputs = max(1, _whole(low.n_out)), _whole(high.n_out)
        found.append(Span(step, shape, inputs, outputs))
    return found


class Timing:
    """The microseconds that the calls of a model take together, by grids.

    Args:
        analysis: The analysed model.
        calls: Its calls whose time counts.
        grid_of: What is known of a shape.
    """

    def __init__(
        self,
        analysis: Analysis,
        calls: Iterable[Span],
        grid_of: Callable[[LayerShape], Grid],
    ) -> None:
        self.analysis = analysis
        self.calls = [(call.step, grid_of(call.shape)) for call in calls]

    def __call__(self, evaluation: Evaluation) -> Any:
        total: Any = 0.0
        for step, grid in self.calls:
            work = step.work(evaluation)
            total = total + work.times * interpolate(grid, work.n_in, work.n_out)
        return total


def _unmeasured(step: Step) -> str:
    kind = type(step.node.operation).__name__
    return (
        "The latency of a model is estimated by the shapes of its layers: Dense, "
        "convolutions, pooling and sums or products of branches. Received: "
        f"{step.node.name!r} ({kind}), whose time has no such shape. Limit the "
        "`latency` of the other `layers`, or limit `macs`"
    )


def _whole(count: Any) -> int:
    return 1 if count is None else round(float(np.asarray(count)))


def _counts(span: tuple[int, int]) -> str:
    return " to ".join(map(str, dict.fromkeys(span)))
