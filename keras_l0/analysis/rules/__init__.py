"""One rule per layer type; importing this package registers all of them."""

from keras_l0.analysis.rules import (
    attention,
    einsum,
    elementwise,
    embedding,
    gate,
    merge,
    norm,
    pooling,
    producers,
    reading,
    recurrent,
    shape,
    wrappers,
)
from keras_l0.analysis.rules.base import RULES, Barrier, Rule, register_strip_rule

__all__ = [
    "RULES", "Barrier", "Rule", "attention", "einsum", "elementwise", "embedding",
    "gate", "merge", "norm", "pooling", "producers", "reading", "recurrent",
    "register_strip_rule", "shape", "wrappers",
]  # fmt: skip
