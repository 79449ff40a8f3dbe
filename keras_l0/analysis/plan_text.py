"""A plan as people read it: a table that fits its width, and sentences below it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_l0.printing import printed

if TYPE_CHECKING:
    from rich.table import Table

    from keras_l0.analysis.plan import PlannedLayer, StripPlan

# Of a line where nobody says how wide it is.
_WIDTH = 100
# From these widths on there is room for MACs, and for all that is known.
_SOME, _ALL = 60, 90


def text(plan: StripPlan) -> str:
    """The whole story, without colors."""
    return printed(story(plan, _WIDTH), _WIDTH)


def story(plan: StripPlan, width: int) -> Iterator[Any]:
    """The table and the sentences, for a `rich.console.Console` to print.

    Args:
        plan: What to tell.
        width: Characters in a line. Where they are few, columns go that can be missed.
    """
    yield _wide(plan) if width >= _ALL else _narrow(plan, macs=width >= _SOME)
    yield from map(_plain, _sentences(plan))


def _sentences(plan: StripPlan) -> Iterator[str]:
    for name, kept in plan.kept_inputs.items():
        yield f"input {name!r} ({plan.inputs}): reads {ranges(kept)}"
    for group in plan.groups:
        names = " + ".join(group.layers)
        yield f"tied: {names}: {group.units} -> {group.kept}"
    yield from _barriers(plan)
    yield (
        f"Gates could reach {plan.reachable:.1%} of the kernel parameters outside "
        "the output layers."
    )
    yield from plan.notes


def _barriers(plan: StripPlan) -> Iterator[str]:
    """A sentence for each barrier that holds something back, and for each kind else."""
    alike: dict[Any, list[str]] = {}
    for barrier in plan.barriers:
        apart = barrier.name if barrier.held else None
        fact = (barrier.kind, barrier.reason, barrier.held, apart)
        alike.setdefault(fact, []).append(repr(barrier.name))
    for (kind, reason, parameters, _), names in alike.items():
        held = f" (holds back {parameters:,} parameters)" if parameters else ""
        several = "s" if len(names) > 1 else ""
        yield f"barrier{several} {', '.join(names)} ({kind}): {reason}{held}"


def _table(plan: StripPlan) -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE, title=_plain(f"Plan for {plan.model!r}"))


def _plain(text: str) -> Any:
    """Names are no markup: [x] is what it says."""
    from rich.text import Text

    return Text(text)


def _wide(plan: StripPlan) -> Table:
    table = _table(plan)
    for title, names, most in (
        ("layer", [row.name for row in plan.layers], 32),
        ("type", [row.kind for row in plan.layers], 18),
    ):
        width = min(most, max(map(len, names), default=0))
        table.add_column(title, overflow="fold", min_width=width)
    for title in ("units", "kept", "parameters", "after", "MACs", "after"):
        table.add_column(title, justify="right")
    table.add_column("note", overflow="fold")
    for row in plan.layers:
        numbers = (row.units, row.kept, *_sizes(row))
        cells = (f"{n:,}" for n in numbers)
        table.add_row(_plain(row.name), row.kind, *cells, row.note)
    table.add_section()
    table.add_row("total", "", "", "", *(f"{n:,}" for n in _sizes(plan)), "")
    return table


def _narrow(plan: StripPlan, macs: bool) -> Table:
    table = _table(plan)
    table.add_column("layer", overflow="fold")
    titles = ["kept", "parameters", *(["MACs"] if macs else [])]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)

    def row(name: str, kept: str, of: StripPlan | PlannedLayer) -> None:
        before, after, work, less = _sizes(of)
        numbers = [f"{before:,}\n-> {after:,}", f"{work:,}\n-> {less:,}"]
        table.add_row(_plain(name), kept, *numbers[: 1 + macs])

    for layer in plan.layers:
        name = f"{layer.name}\n{layer.note}".strip()
        row(name, f"{layer.kept:,} of {layer.units:,}", layer)
    table.add_section()
    row("total", "", plan)
    return table


def _sizes(row: StripPlan | PlannedLayer) -> tuple[int, int, int, int]:
    before, after = row.before, row.after
    return before.params, after.params, before.macs, after.macs


def ranges(indices: list[int]) -> str:
    """Indices as compact ranges: 0-2, 5."""
    runs: list[list[int]] = []
    for i in indices:
        if runs and runs[-1][1] == i - 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    spelled = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    return f"{len(indices)} features: {', '.join(spelled)}"
