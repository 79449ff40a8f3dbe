"""Recurrent layers written out step by step."""

from __future__ import annotations

from typing import Any

import keras


def unrolled(model: keras.Model) -> keras.Model:
    """The same model with its recurrent layers unrolled.

    The converter can neither calibrate a loop nor leave its batch open.

    Args:
        model: A functional model. It is left as it is.

    Returns:
        ``model`` itself where nothing loops, or else its unrolled twin.

    Raises:
        ValueError: If the model cannot be rebuilt from its config.
    """
    if all(getattr(layer, "unroll", True) for layer in model._flatten_layers()):
        return model
    try:
        twin = type(model).from_config(_unrolled(model.get_config()))
        twin.set_weights(model.get_weights())
    except Exception as error:
        raise ValueError(
            f"Model {model.name!r} has recurrent layers that must be unrolled, and "
            f"Keras could not rebuild it from its config: {error}"
        ) from error
    return twin


def _unrolled(value: Any) -> Any:
    """A config with every ``unroll`` in it true."""
    if isinstance(value, (list, tuple)):
        return type(value)(_unrolled(item) for item in value)
    if not isinstance(value, dict):
        return value
    return {
        key: True if key == "unroll" else _unrolled(item) for key, item in value.items()
    }
