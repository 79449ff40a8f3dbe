"""The array namespace of symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_l0.analysis import events
from keras_l0.analysis.symbols import Symbol, as_symbol


class symbolic:
    """What `keras_l0.analysis.logic` needs of an array namespace, for symbols."""

    @staticmethod
    def both(a: Any, b: Any) -> Any:
        """`logic.and_`."""
        return events.both(a, b) if isinstance(a, Symbol) else events.both(b, a)

    @staticmethod
    def union(a: Any, b: Any) -> Any:
        """`logic.or_`."""
        return events.either(a, b) if isinstance(a, Symbol) else events.either(b, a)

    @staticmethod
    def any(a: Symbol) -> Any:
        """`logic.any_`."""
        if (a.known == 1).any():
            return np.ones(1)
        left = _once(a.at(a.known != 0), 1)
        left = left.at(left.known != 0)
        if len(left.known) == 1:
            return left
        return left.tape.compute("any", left, size=1)

    @staticmethod
    def rows_any(a: Symbol, rows: int) -> Any:
        """`logic.rows_any`."""
        return a.tape.compute("rows_any", _once(a, rows), data=rows, size=rows)

    @staticmethod
    def sum(a: Symbol) -> Any:
        left = a.unknown
        one = len(left.known) == 1
        varying = left if one else a.tape.compute("sum", left, size=1)
        return (varying + float(np.nansum(a.known)))[0]

    @staticmethod
    def take(a: Symbol, indices: np.ndarray, axis: int = 0) -> Any:
        return a[indices]

    @staticmethod
    def concatenate(parts: Sequence[Any]) -> Any:
        tape = next(p.tape for p in parts if isinstance(p, Symbol))
        found = [as_symbol(tape, p) for p in parts]
        return Symbol(
            tape,
            np.concatenate([p.places for p in found]),
            np.concatenate([p.known for p in found]),
        )

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        return a.maximum(b) if isinstance(a, Symbol) else b.maximum(a)

    @staticmethod
    def first(a: Symbol) -> Any:
        """`logic.first`."""
        return a.tape.compute("first", a, size=len(a.known))

    @staticmethod
    def interpolate(grid: Any, x: Any, y: Any) -> Any:
        """`grids.interpolate`."""
        tape = x.tape if isinstance(x, Symbol) else y.tape
        found = (as_symbol(tape, one) for one in (x, y))
        return tape.compute("interpolate", *found, data=grid, size=1)[0]

    @staticmethod
    def group_any(a: Symbol, groups: np.ndarray, count: int) -> Any:
        """`logic.group_any`."""
        known = np.zeros(count)
        np.maximum.at(known, groups, np.where(np.isnan(a.known), 0.0, a.known))
        left = np.isnan(a.known) & (known[groups] < 1)
        members = np.unique(np.stack([groups[left], a.places[left]]), axis=1)
        groups, places = members
        # A number that stands beside an unknown one is one more member.
        beside = np.unique(groups[known[groups] > 0])
        groups = np.concatenate([groups, beside])
        places = np.concatenate([places, np.full(len(beside), -1)])
        values = np.where(places < 0, known[groups], np.nan)
        alone = np.bincount(groups, minlength=count)[groups] == 1
        found = np.full(count, -1)
        found[groups[alone]] = places[alone]
        known[groups] = np.nan
        if not alone.all():
            targets, where = np.unique(groups[~alone], return_inverse=True)
            rest = Symbol(a.tape, places[~alone], values[~alone])
            data = where.astype("int32")
            result = a.tape.compute("group", rest, data=data, size=len(targets))
            found[targets] = result.places
        return Symbol(a.tape, found, known).folded()


def _once(a: Symbol, rows: int) -> Symbol:
    """The same with 0 for what stands twice in a row: one event, not two."""
    places = a.places.reshape(rows, -1)
    order = np.argsort(places, axis=1, kind="stable")
    ranked = np.take_along_axis(places, order, axis=1)
    again = np.zeros(ranked.shape, bool)
    again[:, 1:] = (ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] >= 0)
    twice = np.empty_like(again)
    np.put_along_axis(twice, order, again, axis=1)
    return Symbol(a.tape, a.places, np.where(twice.ravel(), 0.0, a.known))
