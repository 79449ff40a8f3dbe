"""Where the gates of a model are."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

from keras_l0.layers.gate import L0Gate


def find_gates(layer: keras.layers.Layer) -> list[L0Gate]:
    """Every gate in a model or layer, each once, in graph order.

    Args:
        layer: A model (nested models and wrappers are searched) or a layer.

    Returns:
        A list of `layers.L0Gate`.

    Raises:
        TypeError: If it is neither.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([keras.Input((4,)), keras_l0.layers.L0Dense(3)])
        >>> [gate.count for gate in keras_l0.gates(model)]
        [3]
    """
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            "`model` must be a Keras model or layer. "
            f"Received: {layer!r} of type {type(layer).__name__}"
        )
    return list(_walk(layer, set()))


def require_gates(model: keras.layers.Layer) -> list[L0Gate]:
    """`find_gates`, where there must be some.

    Raises:
        ValueError: If there are none.
    """
    if found := find_gates(model):
        return found
    raise ValueError(
        f"`model` must have gates. Received: {model.name!r}, which has none. Add them "
        "with `keras_l0.add_gates(model)`, or build it from the layers of "
        "`keras_l0.layers`"
    )


def _walk(layer: keras.layers.Layer, seen: set[int]) -> Iterator[L0Gate]:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    if isinstance(layer, L0Gate):
        yield layer
        return
    children = layer.layers if isinstance(layer, keras.Model) else layer._layers
    for child in children:
        yield from _walk(child, seen)


def require_finite_gates(model: keras.layers.Layer) -> None:
    """Raises if a gate of a model is NaN or infinite, with the name of its layer."""
    for gate in find_gates(model):
        if not np.isfinite(keras.ops.convert_to_numpy(gate.log_alpha)).all():
            raise ValueError(
                f"Training diverged: gate {gate.path!r} of {model.name!r} is NaN or "
                "infinite. Lower the learning rate, or clip the gradient "
                "(`global_clipnorm=1.0` of the optimizer)"
            )
