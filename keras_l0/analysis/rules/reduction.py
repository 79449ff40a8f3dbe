"""Rules of raw operations that reduce positions to a number each channel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Flow, Site
from keras_l0.analysis.logic import or_
from keras_l0.analysis.rules.base import Barrier
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
        gone = 0 if self.layer.keepdims else sum(a < axis for a in axes)
        return axis - gone, channels

    @property
    def reduced(self) -> list[int | None]:
        """The sizes of the axes that are reduced."""
        shape = self.node.inputs[0].shape
        return [shape[a] for a in axes_of(self.layer.axis, len(shape))]


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
        value = self._of(site.ins[0].value)
        return [np.where(site.flows[0].alive > 0, np.nan, value)]


class SpreadRule(ReductionRule):
    """Deviation or variance over positions: that of a constant is 0."""

    passes_scale = False

    def connect(self, atoms: Atoms) -> list[Channels]:
        (x,) = super().connect(atoms)
        return [Channels.rest_at_zero(x.axis, x.atoms)]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return [Flow(ins[0].alive, 0.0 * ins[0].const)]

    def constants(self, site: Site) -> list[np.ndarray]:
        return [np.where(site.flows[0].alive > 0, np.nan, 0.0)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x = site.rescale(0)
        return [(self.moved(site, x.tensor), x.scale)]
