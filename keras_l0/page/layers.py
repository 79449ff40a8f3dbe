"""Units and parameters of each layer, before and after."""

from __future__ import annotations

import dataclasses

from keras_l0.report import LayerProfile, Profile


@dataclasses.dataclass(frozen=True)
class Bar:
    """One layer with weights or gates.

    Attributes:
        name: Its name.
        kind: Its class name.
        before: Units before.
        after: Units after; 0 of a layer that is gone.
        params: Parameters before.
        left: Parameters after.
    """

    name: str
    kind: str
    before: int
    after: int
    params: int
    left: int

    @property
    def share(self) -> float:
        """Of its units, those that are left, at most 1."""
        return min(1.0, self.after / self.before) if self.before else 1.0


def bars(now: Profile, before: Profile | None) -> list[Bar]:
    """Layer by layer; with a model from before, matched by name."""
    if before is None:
        return [_bar(row, row) for row in now.layers]
    left = {row.name: row for row in now.layers}
    found = [_bar(row, left.pop(row.name, None)) for row in before.layers]
    return found + [_bar(row, row) for row in left.values()]


def _bar(row: LayerProfile, left: LayerProfile | None) -> Bar:
    """A layer with all gates open, and what is left of it, if anything is."""
    kept, size = (left.kept, left.deployed.params) if left else (0, 0)
    return Bar(row.name, row.kind, row.units, kept, row.dense.params, size)
