"""The rule of Dense."""

from __future__ import annotations

import keras

from keras_l0.analysis.rules.producers import Producer
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.layers import L0Dense


@register_strip_rule(keras.layers.Dense, L0Dense)
class DenseRule(Producer):
    """``activation(x @ kernel + bias)`` on the last axis."""
