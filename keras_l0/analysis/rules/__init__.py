"""One rule per layer type; importing this package registers all of them."""

from keras_l0.analysis.rules import (
    applications,
    arithmetic,
    attention,
    conv,
    conv_recurrent,
    dense,
    einsum,
    elementwise,
    embedding,
    gate,
    grouped,
    merge,
    moves,
    norm,
    ops,
    pooling,
    preprocessing,
    producers,
    reading,
    recurrent,
    recurrent_switch,
    reduction,
    shape,
    spatial,
    splits,
    wrappers,
)
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.registry import RULES, register_strip_rule

__all__ = [
    "RULES", "Barrier", "Rule", "applications", "arithmetic", "attention", "conv",
    "conv_recurrent", "dense", "einsum", "elementwise", "embedding", "gate", "grouped",
    "merge", "moves", "norm", "ops", "pooling", "preprocessing", "producers", "reading",
    "recurrent", "recurrent_switch", "reduction", "register_strip_rule", "shape",
    "spatial", "splits", "wrappers",
]  # fmt: skip
