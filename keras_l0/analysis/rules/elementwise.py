"""Rules of layers that act on every element alone: activations, dropout, noise."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.analysis.activations import Activation, describe
from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import Atoms, Channels, Flow, Site, Size
from keras_l0.analysis.logic import count
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.registry import register_barrier, register_strip_rule
from keras_l0.analysis.shapes import LayerShape


class ElementwiseRule(Rule):
    """A function of every element alone, the same one at every position.

    Attributes:
        total: The function is finite wherever its argument is.
    """

    total = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        x = self.only_input()
        with np.errstate(all="ignore"):
            rest = self.function(x.rest)
        # Channels that have no value at rest cannot be removed then.
        self.odd = ~np.isfinite(rest)
        return [Channels(x.axis, x.atoms, np.where(self.odd, 0.0, rest))]

    def function(self, values: np.ndarray) -> np.ndarray:
        """The function of one number per channel."""
        raise NotImplementedError

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return [ins[0].disturbed(self.odd, consts=not self.total)]

    def constants(self, site: Site) -> list[np.ndarray]:
        with np.errstate(all="ignore"):
            value = self.function(site.ins[0].value)
        return [site.constant(value)]


@register_strip_rule(
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
)
class ActivationRule(ElementwiseRule):
    """An elementwise activation without weights."""

    timing = ("negative_slope", "alpha")

    def connect(self, atoms: Atoms) -> list[Channels]:
        self.activation = _activation(self.layer)
        if not self.activation.elementwise:
            name = self.activation.name
            raise Barrier(
                f"activation {name} is not known to act on each element alone"
            )
        return super().connect(atoms)

    def function(self, values: np.ndarray) -> np.ndarray:
        return self.activation(values)

    @property
    def shape(self) -> LayerShape | None:
        if isinstance(self.layer, keras.layers.ReLU):
            return None
        if not isinstance(self.layer, keras.layers.Activation):
            return self.shape_of({})
        name = self.activation.separate
        return None if name is None else self.shape_of({"activation": name})

    @property
    def passes_scale(self) -> bool:
        return self.activation.homogeneous


def _activation(layer: Any) -> Activation:
    if isinstance(layer, keras.layers.Activation):
        return describe(layer.activation)
    # The layer itself is the function. ReLU and LeakyReLU have kinks at 0 only, unless
    # ReLU is told otherwise.
    bounded = getattr(layer, "max_value", None) is not None
    shifted = bool(getattr(layer, "threshold", 0))
    homogeneous = not (bounded or shifted or isinstance(layer, keras.layers.ELU))
    facts = Activation(True, homogeneous, 0.0, layer.call)
    return facts._replace(at_zero=float(facts(np.zeros(1))[0]))


@register_strip_rule(keras.layers.PReLU)
class PReLURule(ElementwiseRule):
    """``max(x, 0) + alpha * min(x, 0)`` with slopes of its own at every position."""

    passes_scale = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        x = self.only_input()
        alpha = float64(self.layer.alpha)
        if x.axis is None:
            raise Barrier("the channels of its input are unknown")
        self.axis = x.axis - 1
        rows = np.moveaxis(alpha, self.axis, 0).reshape(alpha.shape[self.axis], -1)
        # NaN where the slope, and so a negative constant, differs by position.
        slopes = np.where((rows == rows[:, :1]).all(axis=1), rows[:, 0], np.nan)
        self.slopes = np.broadcast_to(slopes, x.size)
        self.total = not np.isnan(slopes).any()
        return super().connect(atoms)

    def function(self, values: np.ndarray) -> np.ndarray:
        return np.where(values >= 0, values, self.slopes * values)

    @property
    def own(self) -> bool:
        """Whether every channel has slopes of its own."""
        return self.layer.alpha.shape[self.axis] == self.ins[0].size

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        slopes = int(np.prod(self.layer.alpha.shape))
        if not self.own:
            return Size(slopes * 1.0, 0.0)
        return Size(slopes / self.ins[0].size * count(keep[0]), 0.0)

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x = site.ins[0]
        alpha = keras.ops.convert_to_numpy(self.layer.alpha)
        if self.own:
            alpha = np.compress(site.keep[0], alpha, axis=self.axis)
        new = site.build(type(self.layer), self.layer.get_config(), [alpha])
        return [(self.node.call(new, [x.tensor]), x.scale)]


@register_strip_rule(keras.layers.Rescaling)
class RescalingRule(ElementwiseRule):
    """``x * scale + offset``, numbers or one number per channel."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        self.scale, self.offset = map(
            self._per_channel, (self.layer.scale, self.layer.offset)
        )
        return super().connect(atoms)

    def _per_channel(self, value: Any) -> np.ndarray:
        (x,), rank = self.ins, len(self.node.inputs[0].shape)
        array = np.asarray(value, "float64")
        if 0 < array.ndim < 3 and keras.config.image_data_format() == "channels_first":
            raise Barrier("it takes the first axis of its numbers for the channels'")
        spots = [a + rank - array.ndim for a, n in enumerate(array.shape) if n > 1]
        if spots not in ([], [x.axis]):
            raise Barrier("it scales along another axis than the channels'")
        return np.broadcast_to(array.ravel(), x.size)

    @property
    def passes_scale(self) -> bool:
        return not self.offset.any()

    def function(self, values: np.ndarray) -> np.ndarray:
        return values * self.scale + self.offset

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x = site.ins[0] if self.passes_scale else site.rescale(0)
        config = self.layer.get_config()
        for name in ("scale", "offset"):
            value = getattr(self.layer, name)
            if np.size(value) > 1:
                spot = int(np.argmax(np.shape(value)))
                cut = np.compress(site.keep[0], value, axis=spot)
                # Of a list, TensorFlow makes float32; of an array, it does not.
                cut = cut if isinstance(value, np.ndarray) else cut.tolist()
                config[name] = keras.saving.serialize_keras_object(cut)
        new = site.build(type(self.layer), config, [])
        return [(self.node.call(new, [x.tensor]), x.scale)]


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


register_barrier("it normalizes over all channels", keras.layers.Softmax)
register_barrier(
    "which positions it masks depends on all channels at once", keras.layers.Masking
)
