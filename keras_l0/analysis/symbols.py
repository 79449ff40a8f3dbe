"""Vectors whose elements are known, or recorded as what is to be computed.

An evaluation of the analysis on `Symbol`s writes down what it computes
(`keras_l0.analysis.program`). What does not depend on the gates is worked out at once,
equal numbers are computed once, and of a vector only the elements that differ.
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
        # Of `keras_l0.analysis.events`, by the number of the instruction.
        self.events: dict[int, np.ndarray] = {}
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
            return self.number(self.emit("constant", (), known, size=len(known)))
        sources = self.sources(places)
        parts = [int(s) for s in np.unique(sources) if s >= 0]
        sizes = [self.size(s) for s in parts]
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
                self.number(self.emit("constant", (), values, size=len(values)))
            )
            indices[constant] = where + offset
            offset += len(values)
        # By themselves, since they are the same for many.
        joined = parts[0]
        if len(parts) > 1:
            joined = self.number(self.emit("concatenate", tuple(parts), size=offset))
        if np.array_equal(indices, np.arange(offset)):
            return joined
        return self.number(self.emit("take", (joined,), indices, size=len(places)))

    def compute(self, name: str, *operands: Symbol, data: Any = None, size: int) -> Any:
        """The results of one instruction on some symbols."""
        args = tuple(self.node(x.places, x.known) for x in operands)
        return self._symbol(self.emit(name, args, data, size=size))

    def number(self, places: np.ndarray) -> int:
        """Of the instruction whose results stand at these places."""
        return bisect.bisect_right(self.starts, int(places[0])) - 1

    def sources(self, places: np.ndarray) -> np.ndarray:
        """For each place the number of the instruction; -1 for a place of -1."""
        starts = np.frombuffer(self.starts, "int64")
        return np.searchsorted(starts, places, side="right") - 1

    def size(self, number: int) -> int:
        """How many results an instruction has."""
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
        return self.combined(other, "add", np.add, unit=0.0)

    def __mul__(self, other: Any) -> Any:
        return self.combined(other, "multiply", np.multiply, unit=1.0, absorbing=0.0)

    def maximum(self, other: Any) -> Any:
        return self.combined(other, "maximum", np.maximum)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Any) -> Any:
        return self.combined(other, "subtract", np.subtract)

    def __rsub__(self, other: Any) -> Any:
        return as_symbol(self.tape, other) - self

    def __truediv__(self, other: Any) -> Any:
        return self.combined(other, "divide", np.divide)

    def combined(
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
