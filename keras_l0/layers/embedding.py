"""Gated embeddings."""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

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


# Keras 3.10 has no such layer.
if hasattr(keras.layers, "ReversibleEmbedding"):

    @keras.saving.register_keras_serializable(package="keras_l0")
    class L0ReversibleEmbedding(Gated, keras.layers.ReversibleEmbedding):
        """`keras.layers.ReversibleEmbedding` with one gate per embedding dimension.

        A gate multiplies its dimension behind the table, and in front of it where the
        layer is called with ``reverse=True``. Such a call takes the gates that the last
        embedding has drawn. A dimension switches its column of the table; of both
        tables, if ``tie_weights`` is False.

        Example:
            >>> import keras, keras_l0
            >>> layer = keras_l0.layers.L0ReversibleEmbedding(100, 4, l0=1e-5)
            >>> h = layer(keras.ops.ones((2, 5), "int32"))
            >>> tuple(h.shape), tuple(layer(h, reverse=True).shape)
            ((2, 5, 4), (2, 5, 100))
            >>> layer.gate.cost  # one weight for each of the 100 indices
            100.0
        """

        @property
        def gates_outputs(self) -> bool:
            return False

        def gated_shape(self, input_shape: Any) -> tuple[int | None, ...]:
            return (None, self.output_dim)

        def by_unit(self, weight: Any) -> Any:
            if weight is not self.embeddings:  # the other way round
                weight = ops.transpose(weight)
            return super().by_unit(weight)

        def call(  # type: ignore[override]
            self, inputs: Any, reverse: bool = False, training: bool | None = None
        ) -> Any:
            plain = super(Gated, self).call
            if not reverse:
                # This Keras layer puts its mask on what it returns: only a layer that
                # is called, not `call` alone, hands it on.
                return self.gate(self.rematerialized(plain, inputs), training=training)
            inputs = ops.cast(inputs, self.compute_dtype)
            z = self.gate.values(ops.shape(inputs), training, again=True)
            return self.rematerialized(lambda x: plain(x, reverse=True), inputs * z)

        def compute_output_spec(
            self, inputs: Any, reverse: bool = False, training: bool | None = None
        ) -> Any:
            return super().compute_output_spec(inputs, reverse=reverse)
