"""One rule per layer type; importing this package registers all of them."""

from keras_l0.analysis.rules import (
    arithmetic,
    attention,
    einsum,
    elementwise,
    embedding,
    gate,
    merge,
    moves,
    norm,
    ops,
    pooling,
    producers,
    reading,
    recurrent,
    reduction,
    shape,
    wrappers,
)
from keras_l0.analysis.rules.base import RULES, Barrier, Rule, register_strip_rule

__all__ = [
    "RULES", "Barrier", "Rule", "arithmetic", "attention", "einsum", "elementwise",
    "embedding", "gate", "merge", "moves", "norm", "ops", "pooling", "producers",
    "reading", "recurrent", "reduction", "register_strip_rule", "shape", "wrappers",
]  # fmt: skip
