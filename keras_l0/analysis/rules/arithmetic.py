"""Elementwise calls of several operands: tensors, and constants in raw operations.

Operands are broadcast. One that is as wide as the result on its channel axis gives each
channel of the result one of its own; one of a single channel is read by all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Signal, Site
from keras_l0.analysis.graph import Node, Tensor
from keras_l0.analysis.logic import and_, any_, array_like, like, not_, or_
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.registry import register_strip_rule


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
            for x in _values(self.node.filled())
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
        array = _array(value)
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
        result = self.replaced(self.layer, numbers)
        return np.asarray(keras.ops.convert_to_numpy(result), dtype="float64")

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
        const = and_(not_(alive), const)
        if not self.total:
            alive, const = or_(alive, const), 0.0 * const
        if self.odd.any():
            odd = array_like(alive, self.odd.astype("float64"))
            alive, const = or_(alive, odd), and_(const, not_(odd))
        return [Flow(alive, const)]

    def matters(self, operand: Operand, ins: list[Flow]) -> Any:
        """Which channels of the result can feel this operand vary."""
        return 1.0

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        (d,) = demands
        asked = []
        for operand in self.tensors:
            need = d.need * self.matters(operand, ins)
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
        return [np.where(site.flows[0].alive > 0, np.nan, value)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        signals = [site.rescale(i) for i in range(len(site.ins))]
        return [(self.called(site, signals), np.ones(self.width))]

    def called(self, site: Site, signals: Sequence[Signal]) -> Any:
        """The call on what is left of its operands."""
        tensors = iter(signals)
        values = [
            next(tensors).tensor if isinstance(x, Tensor) else self._cut(x, site)
            for x in _values(self.node.filled())
        ]
        new = site.build(type(self.layer), self.layer.get_config(), [])
        return self.replaced(new, iter(values))

    def _cut(self, constant: Any, site: Site) -> Any:
        array = _array(constant)
        spot = self._spot(array)
        keep = site.keep[0]
        if spot is None or array.shape[spot] == 1 or keep.all():
            return constant
        return np.compress(keep, array, axis=spot)


class PartialRule(ArithmeticRule):
    """A function that is not finite everywhere: constants may come out as anything."""

    total = False


class SumRule(ArithmeticRule):
    """A weighted sum: an operand that is 0 for every input leaves it."""

    def combine(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.sum(values, axis=0)

    def stays(self, index: int) -> bool:
        """Whether the call needs an input though it is 0."""
        node = self.node
        constants = len(self.tensors) < len(self.operands_of)
        if constants or node.masked or len({t.dtype for t in node.inputs}) > 1:
            return True
        # Without the others, one that is as large as the result must be left.
        full = [
            i for i, t in enumerate(node.inputs) if t.shape == node.outputs[0].shape
        ]
        return len(full) < len(node.inputs) and index in full[:1] or not full

    def operands(self, exists: Any, ins: list[Flow], kept: list[Any]) -> list[Any]:
        wanted = [
            like(flow.alive, 1.0, 1)
            if self.stays(i)
            else any_(or_(flow.alive, self.nonzero(i, flow)))
            for i, flow in enumerate(ins)
        ]
        # Something has to stand for a sum of nothing: the first input.
        wanted[0] = or_(wanted[0], not_(reduce(or_, wanted)))
        return [and_(exists, w) for w in wanted]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        indices = [i for i, x in enumerate(site.ins) if x.tensor is not None]
        scale, *others = (site.ins[i].scale for i in indices)
        keep = site.keep[0]
        # All terms alike may wait for one and the same scale.
        alike = all(o.wide and o.index is not None for o in self.operands_of) and all(
            np.array_equal(other[keep], scale[keep]) for other in others
        )
        signals = [site.ins[i] if alike else site.rescale(i) for i in indices]
        if not alike:
            scale = np.ones(self.width)
        return [(self.summed(site, signals), scale * self.share(len(signals)))]

    def share(self, count: int) -> float:
        """What the call on ``count`` operands must be multiplied by."""
        return 1.0

    def summed(self, site: Site, signals: list[Signal]) -> Any:
        if len(signals) == len(self.ins):
            return self.called(site, signals)
        if len(signals) == 1:
            return signals[0].tensor
        new = site.build(type(self.layer), self.layer.get_config(), [])
        return new([x.tensor for x in signals])


@register_strip_rule(keras.layers.Add)
class AddRule(SumRule):
    """A sum of any number of branches."""


@register_strip_rule(keras.layers.Average)
class AverageRule(SumRule):
    """A mean of branches; over fewer of them it is larger."""

    def combine(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.mean(values, axis=0)

    def share(self, count: int) -> float:
        return count / len(self.ins)


@register_strip_rule(keras.layers.Subtract)
class SubtractRule(SumRule):
    """A difference; only the second operand may leave it."""

    def combine(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.subtract(*values)

    def stays(self, index: int) -> bool:
        return index == 0 or super().stays(index)


@register_strip_rule(keras.layers.Multiply)
class ProductRule(ArithmeticRule):
    """A product: where one factor is 0, nobody reads the others."""

    def combine(self, values: Sequence[np.ndarray]) -> np.ndarray:
        zero = reduce(np.logical_or, [np.equal(v, 0) for v in values])
        return np.where(zero, 0.0, np.prod(values, axis=0))

    @property
    def passes_scale(self) -> bool:
        return len(self.tensors) == 1

    def _facts(self, operand: Operand, ins: list[Flow]) -> tuple[Any, Any, Any]:
        """Which channels of an operand may be other than 0: all, static, at rest."""
        if operand.index is None:
            fixed = ~np.isnan(operand.value) & (operand.value != 0)
            some = array_like(ins[0].alive, (operand.value != 0).astype("float64"))
            one = array_like(ins[0].alive, fixed.astype("float64"))
            return some, one, one
        flow = ins[operand.index]
        still = self.nonzero(operand.index, flow)
        rests = self.rests(operand.index, flow)
        facts = (flow.alive + still, still, rests)
        return tuple(self.lift(operand, fact) for fact in facts)

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        facts = [self._facts(operand, ins) for operand in self.operands_of]
        some, still, rests = (reduce(and_, parts) for parts in zip(*facts, strict=True))
        return [Flow(some - still, still - rests)]

    def matters(self, operand: Operand, ins: list[Flow]) -> Any:
        others = [self._facts(o, ins)[0] for o in self.operands_of if o is not operand]
        return reduce(and_, others, 1.0)

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        scales = [np.broadcast_to(x.scale, self.width) for x in site.ins]
        return [(self.called(site, site.ins), np.prod(scales, axis=0))]


class QuotientRule(ProductRule):
    """A quotient; one by a constant other than 0 is a product."""

    @classmethod
    def of(cls, node: Node, ins: list[Channels], atoms: Atoms) -> Rule:
        divisor = list(_values(node.filled()))[1]
        if isinstance(divisor, Tensor) or not _array(divisor).all():
            return PartialRule(node, ins, atoms)
        return cls(node, ins, atoms)

    def combine(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.where(np.equal(values[0], 0), 0.0, values[0] / values[1])


@register_strip_rule(keras.layers.Maximum, keras.layers.Minimum)
class ExtremeRule(ArithmeticRule):
    """The larger or smaller of its operands, channel by channel."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        if self.node.masked:
            raise Barrier("a mask decides between its inputs")
        return super().connect(atoms)

    def combine(self, values: Sequence[np.ndarray]) -> np.ndarray:
        smaller = "Min" in type(self.layer).__name__
        return reduce(np.minimum if smaller else np.maximum, values)

    @property
    def passes_scale(self) -> bool:
        constants = [o.value for o in self.operands_of if o.index is None]
        return len(self.tensors) == 1 and not np.any(constants)


def _values(arguments: tuple[tuple, dict]) -> Iterator[Any]:
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


def _array(value: Any) -> np.ndarray:
    """A constant operand as numbers."""
    if isinstance(value, keras.Variable):
        raise Barrier("one of its operands is a variable")
    try:
        return np.asarray(keras.ops.convert_to_numpy(value), dtype="float64")
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
