"""The analysis written out once, as a short program on the openness of the gates.

A compiled train step then holds a few hundred operations, where running all passes of
the analysis in it would take tens of thousands.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_l0.analysis.grids import Grid
from keras_l0.analysis.symbols import Tape, as_symbol


@dataclasses.dataclass
class Program:
    """Numbers as functions of vectors, ready to be computed and differentiated.

    Args:
        tape: What was recorded.
        results: Symbols or numbers: what to compute.
    """

    tape: Tape
    results: Sequence[Any]

    def __post_init__(self) -> None:
        symbols = [as_symbol(self.tape, x).spread(1) for x in self.results]
        self.outputs = [self.tape.node(x.places, x.known) for x in symbols]
        needed: set[int] = set()
        todo = list(self.outputs)
        while todo:
            number = todo.pop()
            if number not in needed:
                needed.add(number)
                todo += self.tape.instructions[number].args
        self.steps = [(n, self.tape.instructions[n]) for n in sorted(needed)]

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        """The results for these inputs, numbers of the same kind."""
        values = self._forward(_machine(inputs), inputs)
        return [values[n][0] for n in self.outputs]

    def _forward(self, machine: _Machine, inputs: Sequence[Any]) -> dict[int, Any]:
        values: dict[int, Any] = {}
        for number, (name, args, data) in self.steps:
            if name == "input":
                values[number] = inputs[data]
            else:
                found = [values[i] for i in args]
                values[number] = getattr(machine, name)(found, data)
        return values

    def gradient(self, inputs: Sequence[Any], weights: Sequence[Any]) -> list[Any]:
        """The derivative, by each input, of a weighted sum of the results.

        It is worked out here: backends need not differentiate through the program, so
        that it can be used in a layer's call, and under a condition.

        Args:
            inputs: As for a call.
            weights: One number of the same kind for each of the results.
        """
        machine = _machine(inputs)
        values = self._forward(machine, inputs)
        slopes: dict[int, list[Any]] = defaultdict(list)
        for number, weight in zip(self.outputs, weights, strict=True):
            slopes[number].append(machine.xp.reshape(weight, (1,)))
        # What is taken from one vector, at many places, is added up at once.
        taken: dict[int, list[tuple[Any, Any]]] = defaultdict(list)
        found: dict[int, Any] = {}
        for number, (name, args, data) in reversed(self.steps):
            y = values[number]
            if taken[number]:
                slopes[number].append(machine.scattered(taken[number], y))
            if name == "constant" or not slopes[number]:
                continue
            slope = functools.reduce(operator.add, slopes[number])
            if name == "input":
                found[data] = slope
            elif name == "take":
                taken[args[0]].append((data, slope))
            else:
                asked = getattr(machine, f"{name}_slopes")(
                    [values[i] for i in args], data, y, slope
                )
                for i, one in zip(args, asked, strict=True):
                    if self.tape.instructions[i].name != "constant":
                        slopes[i].append(machine.summed(one, values[i]))
        return [found.get(i, 0.0 * x) for i, x in enumerate(inputs)]


def _machine(inputs: Sequence[Any]) -> _Machine:
    if all(isinstance(x, np.ndarray) for x in inputs):
        # A model without gates has a size as well.
        return _Machine(np, inputs[0].dtype if inputs else np.dtype("float64"))
    return _Machine(ops, inputs[0].dtype)


class _Machine:
    """The instructions and their derivatives, in one namespace."""

    def __init__(self, xp: Any, dtype: Any) -> None:
        self.xp, self.dtype = xp, dtype
        # Once: each number in a formula is a constant of its own in a graph.
        self.one, self.tiny = (
            self.constant([], np.array(number)) for number in (1.0, 1e-6)
        )

    def constant(self, args: list[Any], data: np.ndarray) -> Any:
        if self.xp is np:
            return data.astype(self.dtype)
        return ops.convert_to_tensor(data, dtype=self.dtype)

    def concatenate(self, args: list[Any], data: Any) -> Any:
        return self.xp.concatenate(args)

    def concatenate_slopes(self, args: list[Any], data: Any, y: Any, slope: Any) -> Any:
        sizes = [x.shape[0] for x in args]
        ends = np.cumsum(sizes)
        return [slope[e - n : e] for n, e in zip(sizes, ends, strict=True)]

    def take(self, args: list[Any], data: np.ndarray) -> Any:
        start, size = int(data[0]), len(data)
        if np.array_equal(data, start + np.arange(size)):
            return args[0][start : start + size]
        return self.xp.take(args[0], data, axis=0)

    def scattered(self, taken: list[tuple[np.ndarray, Any]], source: Any) -> Any:
        """The slopes of what has been taken, each where it came from."""
        places, slopes = zip(*taken, strict=True)
        slope = slopes[0] if len(slopes) == 1 else self.xp.concatenate(slopes)
        return self._segment_sum(slope, np.concatenate(places), source.shape[0])

    def add(self, args: list[Any], data: Any) -> Any:
        return args[0] + args[1]

    def add_slopes(self, args: list[Any], data: Any, y: Any, slope: Any) -> Any:
        return slope, slope

    def subtract(self, args: list[Any], data: Any) -> Any:
        return args[0] - args[1]

    def subtract_slopes(self, args: list[Any], data: Any, y: Any, slope: Any) -> Any:
        return slope, -slope

    def multiply(self, args: list[Any], data: Any) -> Any:
        return args[0] * args[1]

    def multiply_slopes(self, args: list[Any], data: Any, y: Any, slope: Any) -> Any:
        return slope * args[1], slope * args[0]

    def divide(self, args: list[Any], data: Any) -> Any:
        return args[0] / args[1]

    def divide_slopes(self, args: list[Any], data: Any, y: Any, slope: Any) -> Any:
        return slope / args[1], -slope * y / args[1]

    def union(self, args: list[Any], data: Any) -> Any:
        return args[0] + args[1] - args[0] * args[1]

    def union_slopes(self, args: list[Any], data: Any, y: Any, slope: Any) -> Any:
        return slope * (self.one - args[1]), slope * (self.one - args[0])

    def maximum(self, args: list[Any], data: Any) -> Any:
        return self.xp.maximum(*args)

    def maximum_slopes(self, args: list[Any], data: Any, y: Any, slope: Any) -> Any:
        wins = self._cast(args[0] >= args[1])
        return slope * wins, slope * (self.one - wins)

    def any(self, args: list[Any], data: Any) -> Any:
        return self.one - self.xp.prod(self.one - args[0], axis=0, keepdims=True)

    def any_slopes(self, args: list[Any], data: Any, y: Any, slope: Any) -> Any:
        # The product of all others; 1e-6 where one of them is 0.
        closed = self.xp.maximum(self.one - args[0], self.tiny)
        return [slope * self.xp.prod(closed, axis=0, keepdims=True) / closed]

    def rows_any(self, args: list[Any], data: int) -> Any:
        return self.one - self.xp.prod(
            self.one - self.xp.reshape(args[0], (data, -1)), axis=1
        )

    def rows_any_slopes(self, args: list[Any], data: int, y: Any, slope: Any) -> Any:
        closed = self.xp.maximum(
            self.one - self.xp.reshape(args[0], (data, -1)), self.tiny
        )
        others = self.xp.prod(closed, axis=1, keepdims=True) / closed
        slopes = self.xp.reshape(slope, (-1, 1)) * others
        return [self.xp.reshape(slopes, (-1,))]

    def sum(self, args: list[Any], data: Any) -> Any:
        return self.xp.sum(args[0], axis=0, keepdims=True)

    def sum_slopes(self, args: list[Any], data: Any, y: Any, slope: Any) -> Any:
        return [slope]

    def first(self, args: list[Any], data: Any) -> Any:
        (a,) = args
        before = self.xp.cumsum(a) - a
        return a * self.xp.clip(self.one - before, 0.0, 1.0)

    def first_slopes(self, args: list[Any], data: Any, y: Any, slope: Any) -> Any:
        (a,) = args
        before = self.xp.cumsum(a) - a
        held = slope * a * self._cast(before < 1.0)
        after = self.xp.sum(held) - self.xp.cumsum(held)
        return [slope * self.xp.clip(self.one - before, 0.0, 1.0) - after]

    def group(self, args: list[Any], data: np.ndarray) -> Any:
        count = int(data.max()) + 1
        if self.xp is np:
            result = np.zeros(count, self.dtype)
            np.maximum.at(result, data, args[0])
            return result
        return ops.segment_max(args[0], data, num_segments=count)

    def group_slopes(self, args: list[Any], data: Any, y: Any, slope: Any) -> Any:
        wins = self._cast(args[0] >= self.xp.take(y, data, axis=0))
        ties = self._segment_sum(wins, data, y.shape[0])
        return [wins * self.xp.take(slope / ties, data, axis=0)]

    def interpolate(self, args: list[Any], data: Grid) -> Any:
        return data.value(*args)

    def interpolate_slopes(
        self, args: list[Any], data: Grid, y: Any, slope: Any
    ) -> list[Any]:
        return [slope * one for one in data.slopes(*args)]

    def summed(self, slope: Any, value: Any) -> Any:
        """Of one element that was spread over many, the derivatives add up."""
        if value.shape[0] == 1 and slope.shape[0] > 1:
            return self.xp.sum(slope, axis=0, keepdims=True)
        if slope.shape[0] == 1 and value.shape[0] > 1:
            return self.xp.broadcast_to(slope, value.shape)
        return slope

    def _segment_sum(self, values: Any, groups: np.ndarray, count: int) -> Any:
        if self.xp is np:
            return np.bincount(groups, values, count).astype(self.dtype)
        return ops.segment_sum(values, groups, num_segments=count)

    def _cast(self, condition: Any) -> Any:
        if self.xp is np:
            return condition.astype(self.dtype)
        return ops.cast(condition, self.dtype)
