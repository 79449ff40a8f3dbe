"""Gated layers: thin subclasses of the Keras layers they extend."""

import keras

from keras_l0.layers.attention import L0GroupQueryAttention, L0MultiHeadAttention
from keras_l0.layers.conv import (
    L0Conv1D,
    L0Conv1DTranspose,
    L0Conv2D,
    L0Conv2DTranspose,
    L0Conv3D,
    L0Conv3DTranspose,
    L0DepthwiseConv1D,
    L0DepthwiseConv2D,
    L0SeparableConv1D,
    L0SeparableConv2D,
)
from keras_l0.layers.dense import L0Dense
from keras_l0.layers.einsum import L0EinsumDense
from keras_l0.layers.embedding import L0Embedding
from keras_l0.layers.finding import find_gates
from keras_l0.layers.gate import L0Gate
from keras_l0.layers.options import GateOptions
from keras_l0.layers.recurrent import L0GRU, L0LSTM, L0SimpleRNN
from keras_l0.layers.recurrent_switch import L0RecurrentSwitch
from keras_l0.layers.shared import L0SharedGate, L0Switch
from keras_l0.layers.twins import gated_twin

__all__ = [
    "GateOptions", "L0Conv1D", "L0Conv1DTranspose", "L0Conv2D", "L0Conv2DTranspose",
    "L0Conv3D", "L0Conv3DTranspose", "L0Dense", "L0DepthwiseConv1D",
    "L0DepthwiseConv2D", "L0EinsumDense", "L0Embedding", "L0GRU", "L0Gate",
    "L0GroupQueryAttention", "L0LSTM", "L0MultiHeadAttention", "L0RecurrentSwitch",
    "L0SeparableConv1D", "L0SeparableConv2D", "L0SharedGate", "L0SimpleRNN", "L0Switch",
    "find_gates", "gated_twin",
]  # fmt: skip

# Keras 3.10 has no such layer to extend.
if hasattr(keras.layers, "ReversibleEmbedding"):
    from keras_l0.layers.embedding import L0ReversibleEmbedding  # noqa: F401

    __all__ += ["L0ReversibleEmbedding"]
