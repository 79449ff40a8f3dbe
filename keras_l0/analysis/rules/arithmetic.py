"""Sums, products, quotients and extremes of branches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Flow, Signal, Site
from keras_l0.analysis.graph import Node, Tensor
from keras_l0.analysis.logic import and_, any_, array_like, count, like, not_, or_
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.operands import (
    ArithmeticRule,
    Operand,
    PartialRule,
    numbers_of,
    values_of,
)
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.analysis.shapes import Work


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

    def work(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Work:
        # Of more operands than one, each is added to the sum of those before.
        times, some, *others = [any_(one) for one in (keep[0], *keep_in)]
        added = 0.0 * times
        for other in others:
            added = added + and_(some, other)
            some = or_(some, other)
        return Work((times * added)[0], count(keep[0]))

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
            some = array_like(ins[0].alive, operand.value != 0)
            one = array_like(ins[0].alive, fixed)
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
        divisor = list(values_of(node.filled()))[1]
        if isinstance(divisor, Tensor) or not numbers_of(divisor).all():
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
