"""The float32 twin of a model of another precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

_HALVES = ("float16", "bfloat16")
_OTHER_FLOATS = (*_HALVES, "mixed_float16", "mixed_bfloat16", "float64")


def computes_in_half(model: keras.Model) -> bool:
    """Whether a layer of the model computes in 16 bits."""
    return any(layer.compute_dtype in _HALVES for layer in model._flatten_layers())


def in_float32(model: keras.Model) -> keras.Model:
    """Rebuilds a model of another precision under float32, with the same weights.

    Args:
        model: A Sequential or functional model. It is left as it is.

    Returns:
        ``model`` itself where all its layers are float32, or else its float32 twin.

    Raises:
        ValueError: If the model cannot be rebuilt from its config, for instance
            because a custom layer of it is not registered with Keras.
    """
    if not set(_dtypes(model)) & set(_OTHER_FLOATS):
        return model
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        twin = type(model).from_config(_single(model.get_config()))
        twin.set_weights([weight.astype("float32") for weight in model.get_weights()])
    except Exception as error:
        raise ValueError(
            f"Model {model.name!r} is not float32, and Keras could not rebuild it "
            f"under float32 from its config: {error}"
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    return twin


def _dtypes(model: keras.Model) -> Iterator[str]:
    """What a model's layers compute in, and what its operations make.

    A NumPy array of float64 that is added makes what comes after it float64.
    """
    for layer in model._flatten_layers():
        yield layer.compute_dtype
        yield layer.variable_dtype
        for operation in getattr(layer, "operations", ()):
            for node in operation._inbound_nodes:
                for tensor in node.output_tensors:
                    yield keras.backend.standardize_dtype(tensor.dtype)


def _single(value: Any) -> Any:
    """A config with every dtype and dtype policy of another float made float32."""
    if isinstance(value, (list, tuple)):
        return type(value)(_single(item) for item in value)
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "DTypePolicy":
        return "float32" if value["config"]["name"] in _OTHER_FLOATS else value
    return {
        key: "float32" if key == "dtype" and item in _OTHER_FLOATS else _single(item)
        for key, item in value.items()
    }
