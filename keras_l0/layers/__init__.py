"""Gated layers: thin subclasses of the Keras layers they extend."""

from keras_l0.layers.conv import L0Conv2D
from keras_l0.layers.dense import L0Dense
from keras_l0.layers.gate import GateOptions, L0Gate, find_gates

__all__ = ["GateOptions", "L0Conv2D", "L0Dense", "L0Gate", "find_gates"]
