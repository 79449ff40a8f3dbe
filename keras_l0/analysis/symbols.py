"""Vectors whose elements are known, or recorded as what is to be computed.

An evaluation of the analysis on `Symbol`s writes down what it computes
(`keras_l0.analysis.program`). What does not depend on the gates is worked out at once,
equal numbers are computed once, and of a vector only the elements that differ.

Of two events that depend on each other, such as two branches behind one gate, the
probability is not what it would be of independent ones. So it is known of each element
which events it asks for at once: an event that is asked for twice is one event, and
what both of two alternatives ask for is asked for once.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Instruction(NamedTuple):
    """``name`` of what is computed from the results of earlier instructions."""

    name: str
    args: tuple[int, ...]
    data: Any = None


class Tape:
    """Records instructions; each has its place in one space of numbered elements."""

    def __init__(self, inputs: Sequence[int]) -> None:
        self.instructions: list[Instruction] = []
        self.starts = array("q")
        self.end = 0
        self._known: dict[Any, int] = {}
        # Which events the results of instructions ask for, where they are several.
        self._events: dict[int, np.ndarray] = {}
        self.inputs = [
            self._symbol(self.emit("input", (), i, size=n))
            for i, n in enumerate(inputs)
        ]

    def emit(
        self, name: str, args: tuple[int, ...], data: Any = None, *, size: int
    ) -> np.ndarray:
        """Records one instruction, or finds it; the places of its results."""
        bare = data.tobytes() if isinstance(data, np.ndarray) else data
        number = self._known.setdefault(
            (name, args, bare, size), len(self.instructions)
        )
        if number == len(self.instructions):
            self.instructions.append(Instruction(name, args, data))
            self.starts.append(self.end)
            self.end += size
        return self.starts[number] + np.arange(size)

    def node(self, places: np.ndarray, known: np.ndarray) -> int:
        """The number of an instruction that has these elements as its results."""
        if not np.isnan(known).any():
            return self._number(self.emit("constant", (), known, size=len(known)))
        sources = self._sources(places)
        parts = [int(s) for s in np.unique(sources) if s >= 0]
        sizes = [self._size(s) for s in parts]
        if len(parts) == 1 and np.array_equal(
            places, self.starts[parts[0]] + np.arange(sizes[0])
        ):
            return parts[0]
        indices = np.zeros(len(places), "int32")
        offset = 0
        for part, size in zip(parts, sizes, strict=True):
            mine = sources == part
            indices[mine] = places[mine] - self.starts[part] + offset
            offset += size
        constant = places < 0
        if constant.any():
            values, where = np.unique(known[constant], return_inverse=True)
            parts.append(
                self._number(self.emit("constant", (), values, size=len(values)))
            )
            indices[constant] = where + offset
        return self._number(
            self.emit("gather", tuple(parts), indices, size=len(places))
        )

    def compute(self, name: str, *operands: Symbol, data: Any = None, size: int) -> Any:
        """The results of one instruction on some symbols."""
        args = tuple(self.node(x.places, x.known) for x in operands)
        return self._symbol(self.emit(name, args, data, size=size))

    def events(self, places: np.ndarray) -> np.ndarray:
        """For each place, in a row, the events all of which it asks for; then -1."""
        sources = self._sources(places)
        parts = {n: self._events[n] for n in set(sources.tolist()) & set(self._events)}
        width = max((part.shape[1] for part in parts.values()), default=1)
        found = np.full((len(places), width), -1)
        found[:, 0] = places
        for number, part in parts.items():
            rows = sources == number
            offsets = places[rows] - self.starts[number]
            found[rows, : part.shape[1]] = part[offsets]
        return found

    def all_of(self, events: np.ndarray) -> np.ndarray:
        """For each row of events where all of them are asked for; -1 where none is."""
        if events.shape[1] == 1:
            return events[:, 0]
        half = events.shape[1] // 2
        parts = self.all_of(events[:, :half]), self.all_of(events[:, half:])
        return self.product(*parts, events)

    def product(self, a: np.ndarray, b: np.ndarray, events: np.ndarray) -> np.ndarray:
        """Where what two places ask for is asked for, which are these events."""
        product = Symbol.of(self, a) * Symbol.of(self, b)
        places = as_symbol(self, product).places
        made = (a >= 0) & (b >= 0)
        if made.any():
            number = self._number(places[made])
            if number not in self._events:
                events = _packed(events[made])
                asked = np.empty((self._size(number), events.shape[1]), events.dtype)
                asked[places[made] - self.starts[number]] = events
                self._events[number] = asked
        return places

    def _number(self, places: np.ndarray) -> int:
        return bisect.bisect_right(self.starts, int(places[0])) - 1

    def _sources(self, places: np.ndarray) -> np.ndarray:
        """For each place the number of the instruction; -1 for a place of -1."""
        starts = np.frombuffer(self.starts, "int64")
        return np.searchsorted(starts, places, side="right") - 1

    def _size(self, number: int) -> int:
        ends = [*self.starts[number + 1 : number + 2], self.end]
        return ends[0] - self.starts[number]

    def _symbol(self, places: np.ndarray) -> Symbol:
        return Symbol(self, places, np.full(len(places), np.nan))


class Symbol:
    """A vector, or a number, of elements that are known or computed by a `Tape`.

    Args:
        tape: What computes it.
        places: For each element its place on the tape; -1 for a known one.
        known: For each element its value, NaN for an unknown one.
        scalar: Whether it is a number and not a vector of one.
    """

    # NumPy leaves the operators to this class.
    __array_ufunc__ = None

    def __init__(
        self, tape: Tape, places: np.ndarray, known: np.ndarray, scalar: bool = False
    ) -> None:
        self.tape, self.known = tape, known
        self.places = np.where(np.isnan(known), places, -1)
        self.shape: tuple[int, ...] = () if scalar else (len(known),)
        self.dtype = np.dtype("float64")

    @classmethod
    def of(cls, tape: Tape, places: np.ndarray) -> Symbol:
        """What is computed at some places; 1 for a place of -1."""
        return cls(tape, places, np.where(places < 0, 1.0, np.nan))

    def at(self, key: Any) -> Symbol:
        """Some of the elements, by any index of NumPy's, as a symbol."""
        places, known = self.places[key], self.known[key]
        scalar = np.ndim(places) == 0
        return Symbol(self.tape, np.ravel(places), np.ravel(known), scalar)

    def __getitem__(self, key: Any) -> Any:
        return self.at(key).folded()

    def folded(self) -> Any:
        """The array or number that this is, if every element is known."""
        if np.isnan(self.known).any():
            return self
        return self.known.copy() if self.shape else self.known[0]

    def __add__(self, other: Any) -> Any:
        return self._with(other, "add", np.add, unit=0.0)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, "multiply", np.multiply, unit=1.0, absorbing=0.0)

    def both(self, other: Any) -> Any:
        """`logic.and_`."""
        return self._with(other, _both, np.multiply, unit=1.0, absorbing=0.0)

    def union(self, other: Any) -> Any:
        """`logic.or_`."""
        return self._with(other, _either, _union, unit=0.0, absorbing=1.0)

    def maximum(self, other: Any) -> Any:
        return self._with(other, "maximum", np.maximum)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Any) -> Any:
        return self._with(other, "subtract", np.subtract)

    def __rsub__(self, other: Any) -> Any:
        return as_symbol(self.tape, other) - self

    def __truediv__(self, other: Any) -> Any:
        return self._with(other, "divide", np.divide)

    def _with(
        self,
        other: Any,
        name: str | Callable[[Symbol, Symbol], np.ndarray],
        function: Callable[[np.ndarray, np.ndarray], np.ndarray],
        unit: float = np.nan,
        absorbing: float = np.nan,
    ) -> Any:
        """Element by element ``function(self, other)``.

        Args:
            other: A symbol, array or number.
            name: The instruction, or what finds the places of the results.
            function: What it computes.
            unit: With this number, the other one comes out.
            absorbing: With this number, this number comes out.
        """
        a, b = self, as_symbol(self.tape, other)
        scalar = a.shape == b.shape == ()
        size = max(len(a.known), len(b.known))
        a, b = a.spread(size), b.spread(size)
        known = function(a.known, b.known)
        known[(a.known == absorbing) | (b.known == absorbing)] = absorbing
        places = np.where(a.known == unit, b.places, -1)
        places = np.where(b.known == unit, a.places, places)
        left = np.isnan(known) & (places < 0)
        if left.any():
            x, y = a.at(left), b.at(left)
            if x._uniform and y._uniform:
                x, y = x.at([0]), y.at([0])
            elif x._uniform != y._uniform:
                x, y = (s.at([0]) if s._uniform else s for s in (x, y))
            if callable(name):
                places[left] = name(x, y)
            else:
                size = max(x.shape[0], y.shape[0])
                places[left] = self.tape.compute(name, x, y, size=size).places
        return Symbol(self.tape, places, known, scalar).folded()

    @property
    def _uniform(self) -> bool:
        first = self.known[0]
        same = np.isnan(first) or (self.known == first).all()
        return bool(same and (self.places == self.places[0]).all())

    def spread(self, size: int) -> Symbol:
        """The same as a vector of this size."""
        return Symbol(
            self.tape,
            np.broadcast_to(self.places, size),
            np.broadcast_to(self.known, size),
        )

    @property
    def unknown(self) -> Symbol:
        """The elements that are not known."""
        return self.at(np.isnan(self.known))


def as_symbol(tape: Tape, value: Any) -> Symbol:
    """Numbers as a symbol all of whose elements are known."""
    if isinstance(value, Symbol):
        return value
    known = np.asarray(value, "float64")
    flat = known.reshape(-1)
    return Symbol(tape, np.full(len(flat), -1), flat, scalar=known.ndim == 0)


def _both(a: Symbol, b: Symbol) -> np.ndarray:
    """Where what two symbols ask for is asked for at once."""
    tape, (x, y) = a.tape, _spread(a, b)
    events = tape.events(x)
    _, of_x, of_y = _compared(events, tape.events(y))
    # Who asks for no more than the other adds nothing.
    less = (of_x < 0).all(axis=1)
    of_y[less] = -1
    asked = np.concatenate([events, of_y], axis=1)
    return tape.product(np.where(less, y, x), tape.all_of(_packed(of_y)), asked)


def _either(a: Symbol, b: Symbol) -> np.ndarray:
    """Where what both of two symbols ask for is asked for, and the rest of one."""
    tape, (x, y) = a.tape, _spread(a, b)
    common, of_x, of_y = _compared(tape.events(x), tape.events(y))
    # Who asks for no more than the other asks for all that is asked for.
    found = np.where((of_x < 0).all(axis=1), x, y)
    differ = (of_x >= 0).any(axis=1) & (of_y >= 0).any(axis=1)
    if differ.any():
        common, of_x, of_y = (_packed(side[differ]) for side in (common, of_x, of_y))
        rests = (Symbol.of(tape, tape.all_of(rest)) for rest in (of_x, of_y))
        either = next(rests)._with(next(rests), "union", _union, 0.0, 1.0).places
        asked = np.concatenate([common, either[:, None]], axis=1)
        found[differ] = tape.product(tape.all_of(common), either, asked)
    return found


def _compared(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Row by row the events of both, of the first alone, and of the second alone.

    They stand where they stood; the places of all others hold -1.
    """
    same = (x[:, :, None] == y[:, None, :]) & (x >= 0)[:, :, None]
    of_both = same.any(axis=2)
    return [
        np.where(of_both, x, -1),
        np.where(of_both, -1, x),
        np.where(same.any(axis=1), -1, y),
    ]


def _packed(events: np.ndarray) -> np.ndarray:
    """Row by row the same events, the youngest first, in as few columns as can be."""
    width = max(1, int((events >= 0).sum(axis=1).max()))
    return -np.sort(-events, axis=1)[:, :width]


def _union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a + b - a * b


def _spread(a: Symbol, b: Symbol) -> list[np.ndarray]:
    """The places of two symbols, as vectors of one size."""
    size = max(len(a.places), len(b.places))
    return [x.spread(size).places for x in (a, b)]


class symbolic:
    """What `keras_l0.analysis.logic` needs of an array namespace, for symbols."""

    @staticmethod
    def both(a: Any, b: Any) -> Any:
        """`logic.and_`."""
        return a.both(b) if isinstance(a, Symbol) else b.both(a)

    @staticmethod
    def union(a: Any, b: Any) -> Any:
        """`logic.or_`."""
        return a.union(b) if isinstance(a, Symbol) else b.union(a)

    @staticmethod
    def any(a: Symbol) -> Any:
        """`logic.any_`."""
        if (a.known == 1).any():
            return np.ones(1)
        left = a.at(a.known != 0)
        return left.tape.compute("any", left, size=1)

    @staticmethod
    def rows_any(a: Symbol, rows: int) -> Any:
        """`logic.rows_any`."""
        return a.tape.compute("rows_any", a, data=rows, size=rows)

    @staticmethod
    def sum(a: Symbol) -> Any:
        left = a.unknown
        varying = a.tape.compute("sum", left, size=1)
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
