"""Rules of layers that treat every channel alone, position by position."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Site
from keras_l0.analysis.graph import Node
from keras_l0.analysis.logic import and_, or_
from keras_l0.analysis.rules.base import Barrier, Rule, is_channels_first
from keras_l0.analysis.rules.registry import present, register_strip_rule


def channel_axis(layer: Any, tensor: Any) -> int:
    """The axis on which a layer with a ``data_format`` expects its channels."""
    return 1 if is_channels_first(layer) else len(tensor.shape) - 1


def spatial_layers(kind: str) -> list[type]:
    """The layers of a kind for 1 to 3 dimensions, as far as this Keras has them."""
    return present(f"{kind}1D {kind}2D {kind}3D")


class SpatialRule(Rule):
    """Every channel for itself; a constant stays what it is."""

    passes_scale = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        if self.ins[0].axis != channel_axis(self.layer, self.node.inputs[0]):
            raise Barrier("it works along the axis that holds the channels")
        return [self.only_input()]


@register_strip_rule(*spatial_layers("Cropping"), *spatial_layers("UpSampling"))
class CropOrUpsampleRule(SpatialRule):
    """Parts of a map, or values between those of a map."""

    timing = ("cropping", "size", "interpolation")


@register_strip_rule(*spatial_layers("ZeroPadding"))
class PaddingRule(SpatialRule):
    """Zeros around a map: a constant channel is then one no longer."""

    timing: tuple[str, ...] | None = ("padding",)

    def connect(self, atoms: Atoms) -> list[Channels]:
        (x,) = super().connect(atoms)
        return [Channels(x.axis, x.atoms, np.zeros(x.size))]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        (x,) = ins
        return [Flow(or_(x.alive, self.nonzero(0, x)), 0.0 * x.const)]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        (d,) = demands
        return [Demand(d.need, or_(d.pin, and_(self.nonzero(0, ins[0]), d.need)))]

    def constants(self, site: Site) -> list[np.ndarray]:
        return [site.constant(site.ins[0].value)]


class WarpingRule(PaddingRule):
    """Values between those of a map, and 0 around it."""

    passes_scale = False
    timing = None

    def connect(self, atoms: Atoms) -> list[Channels]:
        if getattr(self.layer, "fill_value", 0) != 0:
            raise Barrier("it pads with a value other than 0")
        return super().connect(atoms)


class LetterboxRule(PaddingRule):
    """Another resolution, with zeros around it."""

    timing = None


@register_strip_rule(keras.layers.Resizing)
class ResizingRule(SpatialRule):
    """Another resolution; what is padded on the way must be zeros."""

    ignores_training = True

    @classmethod
    def of(cls, node: Node, ins: list[Channels], atoms: Atoms) -> Rule:
        pads = getattr(node.operation, "pad_to_aspect_ratio", False)
        if pads and node.operation.fill_value == 0:
            return LetterboxRule(node, ins, atoms)
        return cls(node, ins, atoms)

    def connect(self, atoms: Atoms) -> list[Channels]:
        if getattr(self.layer, "pad_to_aspect_ratio", False):
            raise Barrier("it pads with a value other than 0")
        return super().connect(atoms)
