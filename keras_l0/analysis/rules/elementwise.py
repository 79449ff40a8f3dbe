"""Rules of layers that act on every element alone: activations, dropout, noise."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.analysis.activations import Activation, describe
from keras_l0.analysis.facts import Atoms, Channels, Site
from keras_l0.analysis.rules.base import Barrier, Rule, register_strip_rule


@register_strip_rule(
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
)
class ActivationRule(Rule):
    """An elementwise activation without weights."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        self.activation = _activation(self.layer)
        if not self.activation.elementwise:
            function = self.activation.function
            name = getattr(function, "__name__", type(function).__name__)
            raise Barrier(
                f"activation {name} is not known to act on each element alone"
            )
        (x,) = self.ins
        return [Channels(x.axis, x.atoms, self.activation(x.rest))]

    @property
    def passes_scale(self) -> bool:
        return self.activation.homogeneous

    def constants(self, site: Site) -> list[np.ndarray]:
        return [self.activation(site.ins[0].value)]


def _activation(layer: Any) -> Activation:
    if isinstance(layer, keras.layers.Activation):
        return describe(layer.activation)
    # The layer itself is the function. ReLU and LeakyReLU have kinks at 0 only, unless
    # ReLU is told otherwise.
    plain = getattr(layer, "max_value", None) is None and not getattr(
        layer, "threshold", 0
    )
    homogeneous = plain and not isinstance(layer, keras.layers.ELU)
    facts = Activation(True, homogeneous, 0.0, layer.call)
    return facts._replace(at_zero=float(facts(np.zeros(1))[0]))


@register_strip_rule(
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.AlphaDropout,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
)
class IdentityRule(Rule):
    """A layer that does nothing at test time."""

    passes_scale = True
