"""Rules of the layers that `keras.applications` brings along for its own models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import Atoms, Channels, Site, multiplied
from keras_l0.analysis.rules.arithmetic import SumRule
from keras_l0.analysis.rules.base import Barrier
from keras_l0.analysis.rules.elementwise import IdentityRule
from keras_l0.analysis.rules.norm import NormalizationRule
from keras_l0.analysis.rules.registry import register_strip_rule

register_strip_rule(StochasticDepth)(IdentityRule)


@register_strip_rule(CustomScaleLayer)
class ScaledSumRule(SumRule):
    """``x + scale * y``; only the second operand may leave it."""

    def combine(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return values[0] + values[1] * self.layer.scale

    def stays(self, index: int) -> bool:
        return index == 0 or super().stays(index)


@register_strip_rule(LayerScale)
class LayerScaleRule(NormalizationRule):
    """``x * gamma``, channel by channel."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        (x,) = self.ins
        if x.axis != len(self.node.inputs[0].shape) - 1:
            raise Barrier("it scales along another axis than the channels'")
        self.gamma = float64(self.layer.gamma)
        return [Channels(x.axis, x.atoms, x.rest * self.gamma)]

    @property
    def absorbs_factor(self) -> bool:
        return not self.shares_weights

    def constants(self, site: Site) -> list[np.ndarray]:
        value = site.ins[0].value * self.gamma
        return [multiplied(value, site.factor)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x, gamma = site.ins[0], self.gamma
        if self.absorbs_factor:
            gamma = gamma * x.scale * site.factor
        else:
            x = site.rescale(0)
        units = int(site.keep[0].sum())
        y = self.remade(site, x.tensor, {"gamma": gamma}, projection_dim=units)
        return [(y, np.ones(len(x.scale)))]
