"""What `add_gates` will do to a model, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from keras_l0.analysis.facts import Size
from keras_l0.printing import printed


@dataclasses.dataclass(frozen=True)
class GatedGroup:
    """Units that share gates.

    Attributes:
        layers: The names of the layers that make them.
        units: How many gates there are.
        kind: What they switch, ``"units"`` or the ``"heads"`` of attention.
        saves: What the removal of one unit saves in the whole model, the others being
            there; where units differ, the mean.
    """

    layers: tuple[str, ...]
    units: int
    saves: Size
    kind: str = "units"


@dataclasses.dataclass(frozen=True)
class Ungated:
    """A layer with units of its own that gets no gates, and why."""

    name: str
    kind: str
    params: int
    reason: str


@dataclasses.dataclass(frozen=True)
class GatePlan:
    """What `keras_l0.add_gates` will do to a model. ``print`` it for the whole story.

    `keras_l0.plan_gates` makes it.

    Attributes:
        model: The model's name.
        params: The model's parameters.
        groups: The units that get gates.
        ungated: The layers that get none, and why.
        reached: The share of the kernels outside output layers that the gates reach:
            what goes when every group is cut to one unit.
    """

    model: str
    params: int
    groups: list[GatedGroup]
    ungated: list[Ungated]
    reached: float

    def __repr__(self) -> str:
        gates = sum(group.units for group in self.groups)
        return (
            f"<GatePlan of {self.model!r}: {gates:,} gates in {len(self.groups)} "
            f"groups reach {self.reached:.1%} of the kernels>"
        )

    def __str__(self) -> str:
        return printed(self._story())

    def _story(self) -> Iterator[Any]:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, title=f"Gates for {self.model!r}")
        table.add_column("units of", overflow="fold")
        for title in ("gates", "parameters per unit", "MACs per unit"):
            table.add_column(title, justify="right")
        for group in self.groups:
            each = (f"{number:,.0f}" for number in group.saves)
            heads = " (heads)" if group.kind == "heads" else ""
            name = " + ".join(group.layers) + heads
            table.add_row(name, f"{group.units:,}", *each)
        yield table if self.groups else f"No gates for {self.model!r}."
        for layer in self.ungated:
            yield (
                f"no gates: {layer.name!r} ({layer.kind}, {layer.params:,} "
                f"parameters): {layer.reason}"
            )
        yield (
            f"The gates reach {self.reached:.1%} of the kernel parameters outside the "
            "output layers."
        )
