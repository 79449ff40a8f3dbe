"""Rules of normalization layers."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import (
    Atoms,
    Channels,
    Demand,
    Flow,
    Site,
    Size,
    multiplied,
)
from keras_l0.analysis.graph import Node
from keras_l0.analysis.logic import (
    and_,
    any_,
    count,
    group_any,
    not_,
    ones_like,
    or_,
    take,
)
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.registry import (
    present,
    register_barrier,
    register_strip_rule,
    rule_for,
)


class NormalizationRule(Rule):
    """A layer that normalizes along some axes, with one weight each per channel."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        rank = len(self.node.inputs[0].shape)
        axis = self.layer.axis
        axes = axis if isinstance(axis, (list, tuple)) else [axis]
        if [a % rank for a in axes] != [self.ins[0].axis]:
            spelled = ", ".join(str(a % rank) for a in axes)
            raise Barrier(f"it normalizes axis {spelled}, which holds no channels")
        return [self.only_input()]

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        return Size(len(self.layer.weights) * count(keep[0]), 0.0)

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights by name, in their order; the caller may change them."""
        return {name: array.copy() for name, array in self._read.items()}

    @functools.cached_property
    def _read(self) -> dict[str, np.ndarray]:
        return {w.name: float64(w) for w in self.layer.weights}

    def remade(self, site: Site, x: Any, arrays: dict[str, Any], **config: Any) -> Any:
        """The call of a layer with the kept part of these weights."""
        weights = [a[site.keep[0]] for a in arrays.values()]
        config = {**self.layer.get_config(), **config}
        new = site.build(type(self.layer), config, weights)
        return self.node.call(new, [x, *self.masks(site)])


@register_strip_rule(keras.layers.BatchNormalization)
class BatchNormalizationRule(NormalizationRule):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, channel by channel."""

    absorbs_factor = True
    shifts = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        layer = self.layer
        (x,) = super().connect(atoms)
        # Without both, there is nowhere to put a factor; and each call has its own.
        both = layer.scale and layer.center
        self.absorbs_factor = both and not self.shares_weights
        return [Channels(x.axis, x.atoms, self._of(x.rest))]

    def constants(self, site: Site) -> list[np.ndarray]:
        value = self._of(site.ins[0].value)
        return [multiplied(value, site.factor)]

    def _of(self, value: np.ndarray) -> np.ndarray:
        mean, slope, beta = self._affine()
        return (value - mean) * slope + beta

    def _affine(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, slope and offset of ``(x - mean) * slope + offset``."""
        arrays = self.arrays()
        mean, variance = arrays["moving_mean"], arrays["moving_variance"]
        gamma = arrays.get("gamma", np.ones_like(mean))
        slope = gamma / np.sqrt(variance + self.layer.epsilon)
        return mean, slope, arrays.get("beta", np.zeros_like(mean))

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x, arrays = site.ins[0], self.arrays()
        mean, slope, beta = self._affine()
        if self.absorbs_factor:
            # The input still lacks the factor x.scale: it goes into gamma and mean, but
            # for a scale of 0, which leaves the constant.
            zero = x.scale == 0
            arrays["moving_mean"] = np.where(zero, 0, mean / np.where(zero, 1, x.scale))
            arrays["gamma"] *= x.scale * site.factor
            arrays["beta"] = np.where(zero, beta - slope * mean, beta) * site.factor
        else:
            x = site.rescale(0)
        return [(self.remade(site, x.tensor, arrays), np.ones(len(mean)))]


class LengthRule(NormalizationRule):
    """``x`` divided by a length over all channels: those that are 0 may leave it.

    Other constants stay, since they are part of the length.
    """

    def connect(self, atoms: Atoms) -> list[Channels]:
        (x,) = super().connect(atoms)
        return [Channels.rest_at_zero(x.axis, x.atoms)]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        (x,) = ins
        still, varies = self.nonzero(0, x), any_(x.alive)
        return [Flow(or_(x.alive, and_(still, varies)), and_(still, not_(varies)))]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        (d,) = demands
        reads = any_(and_(outs[0].alive, d.need))
        need = reads * ones_like(d.need)
        return [Demand(need, or_(d.pin, self.nonzero(0, ins[0])))]

    def length(self, values: np.ndarray) -> float:
        """The length of one vector of channels."""
        raise NotImplementedError

    def constants(self, site: Site) -> list[np.ndarray]:
        value = np.nan_to_num(site.ins[0].value)
        value = value / self.length(value) * self.arrays().get("scale", 1.0)
        return [site.constant(multiplied(value, site.factor))]


@register_strip_rule(*present("RMSNormalization"))
class RMSNormalizationRule(LengthRule):
    """``scale * x / sqrt(mean(x ** 2) + epsilon)``.

    The mean over the ``k`` of ``n`` channels that are kept is n/k times as large if the
    others are 0, so epsilon grows by n/k and scale by its square root.
    """

    @property
    def absorbs_factor(self) -> bool:
        return not self.shares_weights

    def length(self, values: np.ndarray) -> float:
        return np.sqrt(np.mean(values**2) + self.layer.epsilon)

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        arrays, n = self.arrays(), len(site.keep[0])
        more = n / site.keep[0].sum()
        arrays["scale"] = arrays["scale"] * np.sqrt(more) * site.factor
        epsilon = float(self.layer.epsilon * more)
        y = self.remade(site, site.rescale(0).tensor, arrays, epsilon=epsilon)
        return [(y, np.ones(n))]


@register_strip_rule(keras.layers.UnitNormalization)
class UnitNormalizationRule(LengthRule):
    """``x / sqrt(max(sum(x ** 2), 1e-12))``: zeros may leave it as they are."""

    def length(self, values: np.ndarray) -> float:
        return np.sqrt(max(np.sum(values**2), 1e-12))

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        y = self.remade(site, site.rescale(0).tensor, {})
        return [(y, np.ones(len(site.keep[0])))]


@register_strip_rule(keras.layers.GroupNormalization)
class GroupNormalizationRule(NormalizationRule):
    """Each group by its own mean and variance: groups go as a whole or stay."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        (x,) = super().connect(atoms)
        self.groups = self.layer.groups
        self.group = np.repeat(np.arange(self.groups), x.size // self.groups)
        first = np.searchsorted(self.group, self.group)
        atoms.tie(x.atoms, x.atoms[first])
        self.shifts = self.layer.center
        return [Channels(x.axis, x.atoms, self._of(x.rest))]

    @property
    def absorbs_factor(self) -> bool:
        return self.layer.scale and self.layer.center and not self.shares_weights

    def _spread(self, fact: Any) -> Any:
        """For each channel whether the fact holds of any in its group."""
        return take(group_any(fact, self.group, self.groups), self.group)

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        alive, const = map(self._spread, ins[0])
        return [Flow(alive, and_(const, not_(alive)))]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        return [Demand(*map(self._spread, demands[0]))]

    def _of(self, value: np.ndarray) -> np.ndarray:
        arrays = self.arrays()
        rows = value.reshape(self.groups, -1)
        rows = rows - rows.mean(axis=1, keepdims=True)
        deviation = np.sqrt((rows**2).mean(axis=1, keepdims=True) + self.layer.epsilon)
        value = (rows / deviation).ravel() * arrays.get("gamma", 1.0)
        return value + arrays.get("beta", 0.0)

    def constants(self, site: Site) -> list[np.ndarray]:
        value = self._of(site.ins[0].value)
        return [multiplied(value, site.factor)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        n = len(self.group)
        arrays = {k: a * site.factor for k, a in self.arrays().items()}
        groups = int(site.keep[0].sum()) * self.groups // n
        y = self.remade(site, site.rescale(0).tensor, arrays, groups=groups)
        return [(y, np.ones(n))]


register_barrier(
    "its mean and variance are over all channels, closed ones as well",
    keras.layers.LayerNormalization,
)


@register_strip_rule(keras.layers.Normalization)
class FeatureNormalizationRule(Rule):
    """``(x - mean) / deviation`` or its inverse, by numbers known beforehand."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        x = self.only_input()
        rank = len(self.node.inputs[0].shape)
        axes = [a % rank for a in self.layer.axis]
        if x.axis is None or axes not in ([], [x.axis]):
            raise Barrier("it normalizes along another axis than the channels'")
        mean, variance = (
            float64(a).ravel() for a in (self.layer.mean, self.layer.variance)
        )
        deviation = np.maximum(np.sqrt(variance), keras.backend.epsilon())
        self.mean, self.deviation = (
            np.broadcast_to(a, x.size) for a in (mean, deviation)
        )
        self.per_channel = bool(axes)
        return [Channels(x.axis, x.atoms, self._of(x.rest))]

    def _of(self, value: np.ndarray) -> np.ndarray:
        if self.layer.invert:
            return self.mean + value * self.deviation
        return (value - self.mean) / self.deviation

    def constants(self, site: Site) -> list[np.ndarray]:
        return [self._of(site.ins[0].value)]

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        if not self.layer.weights:
            return Size(0.0, 0.0)
        # A mean and a variance each, and a count of what they were taken over.
        kept = count(keep[0])
        numbers = 2 * kept + any_(keep[0])[0] if self.per_channel else 3.0
        return Size(numbers, 0.0)

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        config, keep = self.layer.get_config(), site.keep[0]
        shape = (-1,) if self.per_channel else ()
        kept = keep if self.per_channel else slice(None)
        # What the layer computes with, which `set_weights` does not reach.
        weights: list[Any] = [
            keras.ops.convert_to_numpy(a).ravel()[kept].reshape(shape)
            for a in (self.layer.mean, self.layer.variance)
        ]
        weights += [keras.ops.convert_to_numpy(w) for w in self.layer.weights[2:]]
        if not self.layer.weights:
            weights = []
            for name in ("mean", "variance"):
                if np.size(config[name]) > 1:
                    config[name] = np.asarray(config[name]).ravel()[keep].tolist()
        new = site.build(type(self.layer), config, weights)
        return [(self.node.call(new, [site.rescale(0).tensor]), np.ones(len(keep)))]


@register_strip_rule(keras.layers.SpectralNormalization)
class SpectralNormalizationRule(Rule):
    """Only training divides the kernel: at test time the inner layer is called."""

    @classmethod
    def of(cls, node: Node, ins: list[Channels], atoms: Atoms) -> Rule:
        inner = dataclasses.replace(node, operation=node.operation.layer)
        return rule_for(inner, ins, atoms)
