"""Rules of normalization layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Flow, Site, Size
from keras_l0.analysis.logic import count
from keras_l0.analysis.rules.base import Barrier, Rule, register_strip_rule


@register_strip_rule(keras.layers.BatchNormalization)
class BatchNormalizationRule(Rule):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, channel by channel."""

    absorbs_factor = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        layer = self.layer
        axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
        rank = len(self.node.inputs[0].shape)
        if self.ins[0].axis != axis % rank:
            raise Barrier(f"it normalizes axis {axis}, which holds no channels")
        # Without both, there is nowhere to put a factor; and each call has its own.
        both = layer.scale and layer.center
        self.absorbs_factor = both and not self.shares_weights
        (x,) = self.ins
        return [Channels(x.axis, x.atoms, self._of(x.rest))]

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        return Size(len(self.layer.weights) * count(keep[0]), 0.0)

    def constants(self, site: Site) -> list[np.ndarray]:
        value = self._of(site.ins[0].value)
        return [np.where(site.factor == 0, 0.0, value * site.factor)]

    def _of(self, value: np.ndarray) -> np.ndarray:
        mean, slope, beta = self._affine()
        return (value - mean) * slope + beta

    def _affine(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, slope and offset of ``(x - mean) * slope + offset``."""
        arrays = self._arrays()
        mean, variance = arrays["moving_mean"], arrays["moving_variance"]
        gamma = arrays.get("gamma", np.ones_like(mean))
        slope = gamma / np.sqrt(variance + self.layer.epsilon)
        return mean, slope, arrays.get("beta", np.zeros_like(mean))

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            w.name: np.asarray(keras.ops.convert_to_numpy(w), "float64")
            for w in self.layer.weights
        }

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        layer, x, keep = self.layer, site.ins[0], site.keep[0]
        arrays = self._arrays()
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
        weights = [arrays[w.name][keep] for w in layer.weights]
        new = site.build(type(layer), layer.get_config(), weights)
        return [(self.node.call(new, [x.tensor]), np.ones(len(keep)))]
