"""Numbers that were measured at some channel counts, and lines between them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_l0.analysis.logic import array_like, namespace
from keras_l0.analysis.symbolic import symbolic


@dataclasses.dataclass(frozen=True)
class Grid:
    """A function of two counts: bilinear between known values, constant outside.

    Attributes:
        inputs: Numbers of input channels, ascending.
        outputs: Numbers of output channels, ascending.
        values: A row per number of input channels, a column per number of outputs.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]

    @classmethod
    def rising(cls, inputs: Sequence[int], outputs: Sequence[int], values: Any) -> Grid:
        """The largest grid that rises with the counts and is nowhere above the values.

        Values that rise already stay as they are. Disturbances only ever slow a
        measurement, and of two layers the larger one can do for the smaller.
        """
        lower = np.asarray(values, "float64")
        for axis in (0, 1):
            lower = np.flip(np.minimum.accumulate(np.flip(lower, axis), axis), axis)
        rows = tuple(tuple(map(float, row)) for row in lower)
        return cls(tuple(inputs), tuple(outputs), rows)

    @functools.cached_property
    def steps(self) -> np.ndarray:
        """What is added from each value to the next, in both directions."""
        values = np.array(self.values)
        values = np.concatenate([values[:1], np.diff(values, axis=0)])
        return np.concatenate([values[:, :1], np.diff(values, axis=1)], axis=1)

    def value(self, x: Any, y: Any) -> Any:
        """The function.

        Args:
            x: Number of input channels, an array or tensor of shape (1,).
            y: Number of output channels, of the same kind.
        """
        along = _ramp(x, self.inputs), _ramp(y, self.outputs)
        return self._total(along, x)

    def slopes(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Its derivatives; at a kink those towards fewer channels."""
        u, v = _ramp(x, self.inputs), _ramp(y, self.outputs)
        du, dv = _slope(x, self.inputs), _slope(y, self.outputs)
        return self._total((du, v), x), self._total((u, dv), x)

    def _total(self, along: tuple[Any, Any], reference: Any) -> Any:
        xp = namespace(reference)
        rows = xp.sum(array_like(reference, self.steps) * along[1], axis=1)
        return xp.sum(rows * along[0], keepdims=True)


def interpolate(grid: Grid, x: Any, y: Any) -> Any:
    """A grid's value at counts: numbers, tensors or symbols; the same kind of scalar.

    Args:
        grid: What is known.
        x: Number of input channels.
        y: Number of output channels; None where the grid has but one.
    """
    y = np.float64(grid.outputs[0]) if y is None else y
    xp = namespace(x) if isinstance(y, np.floating) else namespace(x, y)
    if xp is symbolic:
        return symbolic.interpolate(grid, x, y)
    x = xp.reshape(x, (1,))
    y = array_like(x, np.array([y])) if isinstance(y, np.floating) else y
    return grid.value(x, xp.reshape(y, (1,)))[0]


def _ramp(x: Any, counts: Sequence[int]) -> Any:
    """1, and then how far x has come on each way from one count to the next."""
    xp, lows, widths = _ways(x, counts)
    one = array_like(x, np.ones(1))
    return xp.concatenate([one, xp.clip((x - lows) / widths, 0.0, 1.0)])


def _slope(x: Any, counts: Sequence[int]) -> Any:
    """The derivative of `_ramp`."""
    xp, lows, widths = _ways(x, counts)
    on = xp.logical_and(x > lows, x <= lows + widths)
    zeros = array_like(x, np.zeros(len(counts) - 1))
    nothing = array_like(x, np.zeros(1))
    return xp.concatenate([nothing, xp.where(on, 1.0 / widths, zeros)])


def _ways(x: Any, counts: Sequence[int]) -> tuple[Any, Any, Any]:
    lows = array_like(x, np.array(counts[:-1], "float64"))
    return namespace(x), lows, array_like(x, np.diff(np.array(counts, "float64")))
