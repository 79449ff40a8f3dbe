"""Data to calibrate a quantized file on, in any form that it comes in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.batches import arrays

# Ranges of activations settle within a few hundred examples.
_EXAMPLES = 512


def read_representative(
    model: keras.Model, data: Any, names: tuple[str, ...]
) -> list[np.ndarray]:
    """At most 512 examples, as one array per input.

    Args:
        model: The functional model that they are for.
        data: Arrays as ``model.predict`` takes them (512 of them, evenly spread, are
            used), or a `tf.data.Dataset`, a generator, a function that returns one, or
            another iterable of examples or batches (its first 512 examples are used).
            Of tuples ``(x, y)`` the first part counts.
        names: Other names of the inputs that a dict may go by.

    Returns:
        NumPy arrays in the order and dtypes of ``model.inputs``.

    Raises:
        ValueError: If there is no example, or one does not fit or holds NaN.
    """
    try:
        if _is_arrays(data):
            found = arrays(model, data, names)
            count = len(found[0])
            chosen = np.arange(count)
            if count > _EXAMPLES:
                chosen = np.linspace(0, count - 1, _EXAMPLES).round().astype(int)
            found = [array[chosen] for array in found]
        else:
            found = _collect(model, data, names)
    except ValueError as error:
        raise ValueError(
            str(error).replace("`data`", "`representative_data`")
        ) from None
    require_finite_data("representative_data", model, found)
    return found


def require_finite_data(
    argument: str, model: keras.Model, batch: list[np.ndarray]
) -> None:
    """Refuses NaN and infinity: they have no range, and nothing differs from them.

    Args:
        argument: Its name.
        model: The functional model that the data are for.
        batch: One array per input.

    Raises:
        ValueError: If an array holds one.
    """
    for array, tensor in zip(batch, model.inputs, strict=True):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(
                f"`{argument}` must hold finite numbers only. "
                f"Received: NaN or infinity in {tensor.name!r}"
            )


def _is_arrays(data: Any) -> bool:
    """Whether data is a structure of arrays, and no stream of examples."""
    if isinstance(data, dict):
        return True
    if isinstance(data, (list, tuple)):
        return all(map(_is_array, data))
    return _is_array(data)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _collect(model: keras.Model, data: Any, names: tuple[str, ...]) -> list[np.ndarray]:
    if callable(data) and not isinstance(data, Iterable):
        data = data()
    if isinstance(data, keras.utils.PyDataset):
        source = data
        data = (source[index] for index in range(source.num_batches or _EXAMPLES))
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise ValueError(
            "`data` must hold arrays, or be a tf.data.Dataset or a generator of them. "
            f"Received: {data!r}"
        )
    batches: list[list[np.ndarray]] = []
    count = 0
    for element in data:
        batches.append(_batch(model, element, names))
        count += len(batches[-1][0])
        if count >= _EXAMPLES:
            break
    if not batches:
        raise ValueError("`data` must hold at least one example. Received: none")
    return [np.concatenate(parts)[:_EXAMPLES] for parts in zip(*batches, strict=True)]


def _batch(
    model: keras.Model, element: Any, names: tuple[str, ...]
) -> list[np.ndarray]:
    """One element of a stream: an example, or a batch of them, maybe with targets."""
    if isinstance(element, tuple) and element:
        first = keras.tree.flatten(element[0])
        if isinstance(element[0], dict) or len(first) == len(model.inputs):
            element = element[0]
    leaves = keras.tree.flatten(element)
    if not all(map(_is_array, leaves)):
        raise ValueError(
            "`data` must yield arrays, one per input. Received: "
            + ", ".join(type(leaf).__name__ for leaf in leaves)
        )
    try:
        return arrays(model, element, names)
    except ValueError as error:
        single = keras.tree.map_structure(lambda leaf: np.asarray(leaf)[None], element)
        try:
            return arrays(model, single, names)
        except ValueError:
            raise error from None
