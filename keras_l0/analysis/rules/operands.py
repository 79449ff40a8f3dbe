"""Elementwise calls of several operands: tensors, and constants in raw operations.

Operands are broadcast. One that is as wide as the result on its channel axis gives each
channel of the result one of its own; one of a single channel is read by all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Signal, Site
from keras_l0.analysis.graph import Tensor
from keras_l0.analysis.logic import and_, any_, count, like, not_, or_
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.shapes import LayerShape, Work

# Layers that compute one operation on each pair of operands.
_LAYERS = {"Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"}


@dataclasses.dataclass(frozen=True)
class Operand:
    """One operand.

    Attributes:
        index: Which input it is; None for a constant.
        wide: Whether it has one channel for each of the result's.
        value: For each channel of the result its value at rest, or the constant's; NaN
            where a constant differs by position.
        dtype: Its dtype.
        scalar: The constant itself if it is one number (or an option, as in `isclose`).
    """

    index: int | None
    wide: bool
    value: np.ndarray
    dtype: str
    scalar: Any = None


class ArithmeticRule(Rule):
    """Any elementwise function of several operands: a channel is tied across them.

    Attributes:
        total: The function is finite wherever its operands are.
        operands_of: What the function is called on, constants included.
    """

    total = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        shape = self.node.outputs[0].shape
        self.axis = self._axis(len(shape))
        width = 1 if self.axis is None else shape[self.axis]
        if width is None:
            raise Barrier("it broadcasts channels to an open size")
        self.width = width
        inputs = iter(range(len(self.ins)))
        self.operands_of = [
            self._tensor(next(inputs)) if isinstance(x, Tensor) else self._constant(x)
            for x in values_of(self.node.filled())
        ]
        self.tensors = [o for o in self.operands_of if o.index is not None]
        wide = [
            self.ins[o.index].atoms
            for o in self.operands_of
            if o.index is not None and o.wide
        ]
        own = wide[0] if wide else atoms.new(self.width)
        rest = self.combine([o.value for o in self.operands_of])
        # Where a constant differs by position, or the function has no value at rest.
        varied = [np.isnan(o.value) for o in self.operands_of if o.index is None]
        self.odd = reduce(np.logical_or, varied, ~np.isfinite(rest))
        for other in wide[1:]:
            atoms.tie(own, other)
        return [Channels(self.axis, own, np.where(self.odd, 0.0, rest))]

    def _axis(self, rank: int) -> int | None:
        pairs = list(zip(self.ins, self.node.inputs, strict=True))
        if all(c.axis is None for c, _ in pairs) and rank == 1:
            return None
        if any(c.axis is None for c, _ in pairs):
            raise Barrier("the channels of an input are unknown")
        spots = [
            (c.axis + rank - len(t.shape), c.size)
            for c, t in pairs
            if c.axis is not None
        ]
        axes = {axis for axis, size in spots if size > 1} or {spots[0][0]}
        if len(axes) > 1:
            raise Barrier("its inputs hold their channels on different axes")
        if len({len(t.shape) for _, t in pairs}) > 1 and not isinstance(
            self.layer, keras.Layer
        ):
            raise Barrier("it broadcasts one input's batch along another's positions")
        return axes.pop()

    def _tensor(self, index: int) -> Operand:
        channels, tensor = self.ins[index], self.node.inputs[index]
        if channels.size == self.width:
            return Operand(index, True, channels.rest, tensor.dtype)
        rank = len(self.node.outputs[0].shape)
        assert self.axis is not None
        spot = self.axis - (rank - len(tensor.shape))
        if spot > 0 and tensor.shape[spot] != 1:
            raise Barrier("its inputs hold their channels on different axes")
        rest = np.broadcast_to(channels.rest, self.width)
        return Operand(index, False, rest, tensor.dtype)

    def _constant(self, value: Any) -> Operand:
        array = numbers_of(value)
        spot = self._spot(array)
        if spot is None:
            rows = array.reshape(1, -1)
        else:
            rows = np.moveaxis(array, spot, 0).reshape(array.shape[spot], -1)
        first = np.where((rows == rows[:, :1]).all(axis=1), rows[:, 0], np.nan)
        held = keras.ops.convert_to_tensor(value).dtype
        dtype = keras.backend.standardize_dtype(held)
        whole = np.broadcast_to(first, self.width)
        scalar = None if array.ndim else value
        return Operand(None, len(first) > 1, whole, dtype, scalar)

    def _spot(self, array: np.ndarray) -> int | None:
        """The axis of a constant that lies along the channels, if it has one."""
        if self.axis is None:
            return None
        spot = self.axis - (len(self.node.outputs[0].shape) - array.ndim)
        return spot if spot >= 0 else None

    def combine(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """The function of one number per channel for each operand."""
        numbers = map(_number, self.operands_of, values)
        return float64(self.replaced(self.layer, numbers))

    def replaced(self, operation: Callable[..., Any], values: Iterator[Any]) -> Any:
        """``operation`` called as the model calls it, on other operands."""
        args, kwargs = self.node.filled()

        def new(value: Any) -> Any:
            return [next(values) for _ in value] if _holds(value) else next(values)

        return operation(*map(new, args), **{k: new(v) for k, v in kwargs.items()})

    def lift(self, operand: Operand, fact: Any) -> Any:
        """A fact of an operand's channels as one of the result's."""
        return fact if operand.wide else fact * like(fact, 1.0, self.width)

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        flows = [(o, ins[o.index]) for o in self.operands_of if o.index is not None]
        alive = reduce(or_, [self.lift(o, flow.alive) for o, flow in flows])
        const = reduce(or_, [self.lift(o, flow.const) for o, flow in flows])
        flow = Flow(alive, and_(not_(alive), const))
        return [flow.disturbed(self.odd, consts=not self.total)]

    @property
    def shape(self) -> LayerShape | None:
        # Operations have the names of the layers that do the same.
        name = type(self.layer).__name__
        if len(self.ins) < 2 or name not in _LAYERS:
            return None
        # Two at a time, of which a smaller one is repeated over positions.
        smallest_first = sorted(self.sizes, key=lambda p: math.prod(n or 1 for n in p))
        return LayerShape.of(name, {}, smallest_first[:-3:-1])

    def work(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Work:
        times = (len(self.ins) - 1) * any_(keep[0])[0]
        return Work(times, count(keep[0]))

    def matters(self, operand: Operand, ins: list[Flow]) -> Any:
        """Which channels of the result can feel this operand vary."""
        return 1.0

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        (d,) = demands
        asked = []
        for operand in self.tensors:
            need = and_(d.need, self.matters(operand, ins))
            alone = Demand(any_(need), any_(0.0 * d.pin))
            asked.append(Demand(need, d.pin) if operand.wide else alone)
        return asked

    def constants(self, site: Site) -> list[np.ndarray]:
        with np.errstate(all="ignore"):
            value = self.combine(
                [
                    np.broadcast_to(site.ins[o.index].value, self.width)
                    if o.index is not None
                    else o.value
                    for o in self.operands_of
                ]
            )
        return [site.constant(value)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        signals = [site.rescale(i) for i in range(len(site.ins))]
        return [(self.called(site, signals), np.ones(self.width))]

    def called(self, site: Site, signals: Sequence[Signal]) -> Any:
        """The call on what is left of its operands."""
        tensors = iter(signals)
        values = [
            next(tensors).tensor if isinstance(x, Tensor) else self._cut(x, site)
            for x in values_of(self.node.filled())
        ]
        new = site.build(type(self.layer), self.layer.get_config(), [])
        return self.replaced(new, iter(values))

    def _cut(self, constant: Any, site: Site) -> Any:
        array = numbers_of(constant)
        spot = self._spot(array)
        keep = site.keep[0]
        if spot is None or array.shape[spot] == 1 or keep.all():
            return constant
        return np.compress(keep, array, axis=spot)


class PartialRule(ArithmeticRule):
    """A function that is not finite everywhere: constants may come out as anything."""

    total = False


def values_of(arguments: tuple[tuple, dict]) -> Iterator[Any]:
    """The operands of a call one by one, those in a list of tensors as well."""
    args, kwargs = arguments
    for value in (*args, *kwargs.values()):
        if _holds(value):
            yield from value
        else:
            yield value


def _holds(value: Any) -> bool:
    """Whether an argument is a list of tensors (and not a constant array)."""
    listed = isinstance(value, (list, tuple))
    return listed and any(isinstance(x, Tensor) for x in value)


def numbers_of(value: Any) -> np.ndarray:
    """A constant operand as numbers."""
    if isinstance(value, keras.Variable):
        raise Barrier("one of its operands is a variable")
    try:
        return float64(value)
    except Exception:
        raise Barrier(f"one of its operands is {type(value).__name__}") from None


def _number(operand: Operand, value: np.ndarray) -> Any:
    """What the function is called on for an operand, to try out one number each."""
    if operand.scalar is not None:
        return operand.scalar
    if _is_float(operand.dtype):
        return value
    return np.nan_to_num(value).astype(operand.dtype)


def _is_float(dtype: str) -> bool:
    return keras.backend.is_float_dtype(dtype)
