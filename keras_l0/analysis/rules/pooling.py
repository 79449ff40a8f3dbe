"""Rules of pooling: every channel for itself, over positions."""

from __future__ import annotations

import keras

from keras_l0.analysis.facts import Atoms, Channels
from keras_l0.analysis.rules.base import Barrier, Rule, register_strip_rule


def _spatial(kind: str) -> list[type]:
    return [getattr(keras.layers, f"{kind}{rank}D") for rank in (1, 2, 3)]


@register_strip_rule(*_spatial("MaxPooling"), *_spatial("AveragePooling"))
class PoolingRule(Rule):
    """A window's maximum or mean. Padding takes no part in either."""

    passes_scale = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        first = self.layer.data_format == "channels_first"
        rank = len(self.node.inputs[0].shape)
        if self.ins[0].axis != (1 if first else rank - 1):
            raise Barrier("it pools over the axis that holds the channels")
        return [self.ins[0]]


@register_strip_rule(*_spatial("GlobalMaxPooling"), *_spatial("GlobalAveragePooling"))
class GlobalPoolingRule(PoolingRule):
    """The maximum or mean over all positions; the position axes may go."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        (channels,) = super().connect(atoms)
        axis = channels.axis if self.layer.keepdims else 1
        return [Channels(axis, channels.atoms, channels.rest)]
