"""Rules of pooling: every channel for itself, over positions."""

from __future__ import annotations

from keras_l0.analysis.facts import Atoms, Channels
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.analysis.rules.spatial import SpatialRule, spatial_layers


@register_strip_rule(
    *spatial_layers("MaxPooling"),
    *spatial_layers("AveragePooling"),
    *spatial_layers("AdaptiveMaxPooling"),
    *spatial_layers("AdaptiveAveragePooling"),
)
class PoolingRule(SpatialRule):
    """A window's maximum or mean. Padding takes no part in either."""

    timing = ("pool_size", "strides", "padding", "output_size")


@register_strip_rule(
    *spatial_layers("GlobalMaxPooling"), *spatial_layers("GlobalAveragePooling")
)
class GlobalPoolingRule(SpatialRule):
    """The maximum or mean over all positions; the position axes may go.

    A mask leaves positions out of the mean, for all channels the same ones.
    """

    timing = ("keepdims",)

    def only_input(self) -> Channels:
        masked = "mask" in self.node.arguments()
        return self.ins[0] if masked else super().only_input()

    def connect(self, atoms: Atoms) -> list[Channels]:
        (channels,) = super().connect(atoms)
        axis = channels.axis if self.layer.keepdims else 1
        return [Channels(axis, channels.atoms, channels.rest)]
