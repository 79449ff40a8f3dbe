"""One rule per layer type; importing this package registers all of them."""

from keras_l0.analysis.rules import (
    elementwise,
    gate,
    merge,
    norm,
    pooling,
    producers,
    shape,
)
from keras_l0.analysis.rules.base import RULES, Barrier, Rule, register_strip_rule

__all__ = [
    "RULES", "Barrier", "Rule", "elementwise", "gate", "merge", "norm", "pooling",
    "producers", "register_strip_rule", "shape",
]  # fmt: skip
