"""Gated embeddings."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from keras_l0.layers.gated import Gated


@keras.saving.register_keras_serializable(package="keras_l0")
class L0Embedding(Gated, keras.layers.Embedding):
    """`keras.layers.Embedding` with one gate per embedding dimension.

    A dimension switches its column of the table, an entry for each index. Masks pass,
    as with ``mask_zero``. Initial ``weights`` are put in place when the layer is built.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0Embedding(100, 4, l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 5), "int32")).shape)
        (2, 5, 4)
        >>> layer.gate.cost  # one weight for each of the 100 indices
        100.0
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Keras would build the layer with them at once, before it has a gate.
        bound = inspect.signature(type(self)).bind(*args, **kwargs)
        initial = bound.arguments.pop("weights", None)
        super().__init__(*bound.args, **bound.kwargs)
        self._initial = initial

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if self._initial is not None:
            listed = isinstance(self._initial, list) and len(self._initial) == 1
            self.embeddings.assign(self._initial[0] if listed else self._initial)
            self._initial = None
