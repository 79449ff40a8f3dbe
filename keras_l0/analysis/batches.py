"""Batches to compare two models on: a user's data, or random examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

# What stands for a size that the model leaves open, such as a sequence's length.
_OPEN_SIZE = 8
# Of many arrays so many are named in an error.
_NAMED = 4


def arrays(model: keras.Model, data: Any, names: Sequence[str] = ()) -> list[Any]:
    """Data in any form that ``model.predict`` takes, as one array per input.

    Args:
        model: A Sequential or functional model.
        data: An array, or a list or a dict of them.
        names: Other names of the inputs that a dict may go by.

    Returns:
        NumPy arrays in the order and dtypes of ``model.inputs``.

    Raises:
        ValueError: If the arrays do not fit the inputs.
    """
    keys = input_keys(model)
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    result = [np.asarray(leaf) for leaf in _leaves(data, keys, names)]
    if not (
        len(result) == len(shapes)
        and all(
            array.dtype.kind in ("USO" if _numpy_dtype(tensor) == "str" else "biuf")
            for array, tensor in zip(result, model.inputs, strict=True)
        )
        and all(map(_fits, result, shapes))
        and len({len(array) for array in result}) == 1
        and len(result[0]) > 0
        and len(result[0]) % (model.inputs[0].shape[0] or 1) == 0
    ):
        expected = ", ".join(
            f"{key}: (n, {', '.join(map(str, shape))})"
            for key, shape in zip(keys, shapes, strict=True)
        )
        fixed = model.inputs[0].shape[0]
        batches = f", in batches of {fixed}" if fixed else ""
        received = ", ".join(f"{a.dtype}{a.shape}" for a in result[:_NAMED])
        if len(result) > _NAMED:
            received += f" ..., {len(result):,} arrays in all"
        raise ValueError(
            "`data` must hold one array per input, with one and the same number of "
            f"examples n > 0{batches}: {expected}. Received: {received}"
        )
    return [
        _cast(array, tensor) for array, tensor in zip(result, model.inputs, strict=True)
    ]


def _cast(array: np.ndarray, tensor: Any) -> np.ndarray:
    dtype = np.dtype(_numpy_dtype(tensor))
    if array.dtype.kind == "f" and dtype.kind in "iu" and (array % 1 != 0).any():
        raise ValueError(
            f"`data` must hold integers for the input {tensor.name!r} of dtype "
            f"{tensor.dtype}. Received: {array.dtype} with fractions"
        )
    return array.astype(dtype)


def random_arrays(model: keras.Model, examples: int) -> list[np.ndarray]:
    """A random batch, one array per input, the same at every call.

    Floats are normal. Integers stay below the smallest vocabulary of the model's
    embeddings; without one uint8 covers its range, as images do.
    """
    generator = np.random.default_rng(0)
    vocabulary = _vocabulary(model)
    result = []
    for tensor in model.inputs:
        size = (
            tensor.shape[0] or examples,
            *(n or _OPEN_SIZE for n in tensor.shape[1:]),
        )
        dtype = _numpy_dtype(tensor)
        if dtype == "str":
            result.append(generator.choice(list("abcdefgh"), size=size))
        elif dtype.startswith("float"):
            result.append(generator.normal(size=size).astype(dtype))
        else:
            high = 256 if dtype == "uint8" else 2
            integers = generator.integers(vocabulary or high, size=size)
            result.append(integers.astype(dtype))
    return result


def input_keys(model: keras.Model) -> list[str]:
    """What Keras calls a model's inputs: keys of a dict, or names of tensors."""
    names = [tensor.name for tensor in model.inputs]
    if isinstance(model, keras.Sequential):
        return names
    return structure_keys(model.input, names)


def structure_keys(structure: Any, names: Sequence[str]) -> list[str]:
    """Names for the tensors of a structure: a dict's keys, or else ``names``."""
    if not _is_flat_dict(structure):
        return list(names)
    position = keras.tree.pack_sequence_as(structure, list(range(len(names))))
    return sorted(structure, key=position.__getitem__)


def _numpy_dtype(tensor: Any) -> str:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return {"bfloat16": "float32", "string": "str"}.get(dtype, dtype)


def _fits(array: np.ndarray, shape: tuple[int | None, ...]) -> bool:
    return array.ndim == len(shape) + 1 and all(
        expected in (None, received)
        for expected, received in zip(shape, array.shape[1:], strict=True)
    )


def _leaves(data: Any, keys: Sequence[str], names: Sequence[str]) -> list[Any]:
    if not _is_flat_dict(data):
        return keras.tree.flatten(data)
    for known in (keys, names):
        if known and all(key in data for key in known):
            return [data[key] for key in known]
    raise ValueError(
        f"`data` must hold the inputs {', '.join(map(repr, keys))}. "
        f"Received: a dict with the keys {', '.join(map(repr, data))}"
    )


def _is_flat_dict(value: Any) -> bool:
    return isinstance(value, dict) and not any(
        isinstance(item, (dict, list, tuple)) for item in value.values()
    )


def _vocabulary(model: keras.Model) -> int | None:
    sizes = [
        layer.input_dim
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Embedding)
    ]
    return min(sizes, default=None)
