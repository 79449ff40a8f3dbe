"""Rules of raw operations that reduce positions to a number each channel."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import Atoms, Channels, Flow, Site
from keras_l0.analysis.logic import or_
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.moves import axes_of
from keras_l0.analysis.rules.shape import MovingRule


class ReductionRule(MovingRule):
    """The mean, maximum or minimum over positions: a constant stays what it is."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        axes = axes_of(self.layer.axis, len(self.node.inputs[0].shape))
        if axis in axes:
            raise Barrier("it reduces the axis that holds the channels")
        if 0 in axes:
            raise Barrier("it reduces the batch axis")
        if getattr(self.layer, "initial", None) is not None:
            raise Barrier("it starts from a number")
        reduces = len(self.node.outputs[0].shape) < len(self.node.inputs[0].shape)
        self.place_of = axis - reduces * sum(a < axis for a in axes)
        return self.place_of, channels

    @property
    def reduced(self) -> list[int | None]:
        """The sizes of the axes that are reduced."""
        shape = self.node.inputs[0].shape
        return [shape[a] for a in axes_of(self.layer.axis, len(shape))]


class AlongRule(ReductionRule):
    """Any function along positions, each channel alone: sums, order, powers.

    What it makes of a channel that is the same everywhere is tried out: that may differ
    by position, or depend on a length that is open.
    """

    passes_scale = False

    def connect(self, atoms: Atoms) -> list[Channels]:
        (x,) = super().connect(atoms)
        rest = self._of(x.rest)
        self.odd = ~np.isfinite(rest)
        return [Channels(x.axis, x.atoms, np.where(self.odd, 0.0, rest))]

    def _of(self, values: np.ndarray) -> np.ndarray:
        """Of one number per channel: what comes of it, NaN if that differs."""
        (tensor,), channels = self.node.inputs, self.ins[0].axis
        results = []
        for length in (3, 4):
            shape = [1, *(length if n is None else n for n in tensor.shape[1:])]
            spot = [len(values) if a == channels else 1 for a in range(len(shape))]
            probe = np.broadcast_to(np.nan_to_num(values).reshape(spot), shape)
            probe = keras.ops.convert_to_tensor(probe.astype(tensor.dtype))
            result = float64(self.node.call(self.layer, [probe]))
            rows = np.moveaxis(result, self.place_of, 0)
            results.append(rows.reshape(len(values), -1))
        rows = np.concatenate(results, axis=1)
        same = (rows == rows[:, :1]).all(axis=1) & ~np.isnan(values)
        return np.where(same, rows[:, 0], np.nan)

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return [ins[0].disturbed(self.odd, consts=True)]

    def constants(self, site: Site) -> list[np.ndarray]:
        return [site.constant(self.outs[0].rest)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x = site.rescale(0)
        return [(self.moved(site, x.tensor), x.scale)]


class SumOverRule(ReductionRule):
    """The sum over positions: a constant grows by their number."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        (x,) = super().connect(atoms)
        known = [n for n in self.reduced if n is not None]
        complete = len(known) == len(self.reduced)
        # Of how many positions is not known, zeros alone have a constant sum.
        self.times = math.prod(known) if complete else math.nan
        return [Channels(x.axis, x.atoms, self._of(x.rest, 0.0))]

    def _of(self, value: np.ndarray, unknown: float = math.nan) -> np.ndarray:
        total = np.where(value == 0, 0.0, value * self.times)
        return np.where(np.isnan(total), unknown, total)

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        (x,) = ins
        if not math.isnan(self.times):
            return [x]
        return [Flow(or_(x.alive, self.nonzero(0, x)), 0.0 * x.const)]

    def constants(self, site: Site) -> list[np.ndarray]:
        return [site.constant(self._of(site.ins[0].value))]


class SpreadRule(ReductionRule):
    """Deviation or variance over positions: that of a constant is 0."""

    passes_scale = False

    def connect(self, atoms: Atoms) -> list[Channels]:
        (x,) = super().connect(atoms)
        return [Channels.rest_at_zero(x.axis, x.atoms)]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return [Flow(ins[0].alive, 0.0 * ins[0].const)]

    def constants(self, site: Site) -> list[np.ndarray]:
        return [site.constant(0.0)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x = site.rescale(0)
        return [(self.moved(site, x.tensor), x.scale)]


class SegmentRule(Rule):
    """Each channel reduced over groups of examples; only sums leave 0 what it is."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        x = self.ins[0]
        if x.axis in (None, 0):
            raise Barrier("the channels of its input are unknown")
        sums = type(self.layer).__name__ == "SegmentSum"
        self.odd = (x.rest != 0) | (not sums)
        return [Channels.rest_at_zero(x.axis, x.atoms)]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return [ins[0].disturbed(self.odd, consts=True)]

    def constants(self, site: Site) -> list[np.ndarray]:
        return [site.constant(0.0)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        inputs = [site.rescale(i).tensor for i in range(len(site.ins))]
        new = site.build(type(self.layer), self.layer.get_config(), [])
        return [(self.node.call(new, inputs), np.ones(self.outs[0].size))]
