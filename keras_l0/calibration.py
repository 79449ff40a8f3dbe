"""`calibrate`: statistics of normalizations as they are under test-time gates."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l0.arguments import require_integer, require_model
from keras_l0.layers.finding import require_finite_gates


def calibrate(model: keras.Model, data: Any, batch_size: int = 128) -> keras.Model:
    """Estimates the statistics of BatchNormalization anew, under test-time gates.

    In training the statistics follow activations under random gates; at test time
    gates are what they are. So everything but the normalizations runs as at test time:
    nothing is drawn, no weights change, and a budget does not notice. All batches count
    alike.

    Args:
        model: A model with gates, or a stripped one. Its moving means and variances are
            set in place; those of frozen layers stay.
        data: Training inputs: an array, a list or a dict of arrays, one for each
            input, or an iterable of batches other than a list, such as a
            `tf.data.Dataset` or a generator, or a function that returns one (of tuples,
            the first part counts).
        batch_size: Examples per batch, of arrays.

    Returns:
        The model.

    Raises:
        TypeError: If ``model`` is not a Keras model, ``batch_size`` not an integer, or
            ``data`` is neither arrays nor batches.
        ValueError: If there is no data, arrays differ in length or are not one for each
            input, gates or statistics are NaN or infinite, or ``batch_size`` is below
            1. Statistics are then what they were.

    Example:
        >>> import numpy as np, keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras_l0.layers.L0Dense(3),
        ...     keras.layers.BatchNormalization(), keras.layers.Dense(2)])
        >>> model = keras_l0.calibrate(model, np.ones((64, 4), "float32"))
    """
    require_model("model", model)
    require_integer("batch_size", batch_size, 1)
    require_finite_gates(model)
    batches = _batches(model, data, batch_size)
    kind = keras.layers.BatchNormalization
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, kind)]
    norms = [_Recounted(layer) for layer in layers]
    number = 0
    try:
        for batch in batches:
            # The norms alone train; `training=True` would draw gates and dropout.
            model(batch, training=False)
            number += 1
        for norm in norms:
            norm.require_finite()
    except BaseException:
        for norm in norms:
            norm.reset()
        raise
    finally:
        for norm in norms:
            norm.leave()
    if not number:
        raise ValueError("`data` must hold at least one batch. Received: none")
    return model


class _Recounted:
    """A normalization that trains in every call, each of which counts alike.

    Args:
        layer: The normalization.
    """

    def __init__(self, layer: keras.layers.BatchNormalization) -> None:
        self.layer, self.momentum, self.calls = layer, layer.momentum, 0
        self.before = [
            (weight, np.array(ops.convert_to_numpy(weight)))
            for weight in layer.non_trainable_variables
        ]
        self.call = layer.call
        layer.call = self._train

    def _train(self, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(self.call).bind(*args, **kwargs)
        given.arguments["training"] = True
        self.layer.momentum = self.calls / (self.calls + 1)
        self.calls += 1
        return self.call(*given.args, **given.kwargs)

    def require_finite(self) -> None:
        """Raises unless the statistics are numbers."""
        for weight, _ in self.before:
            if not np.isfinite(ops.convert_to_numpy(weight)).all():
                raise ValueError(
                    "`data` must lead to statistics that are finite numbers. Those of "
                    f"{self.layer.name!r} are not. Received: NaN or infinite values, "
                    "in the data or in the weights"
                )

    def reset(self) -> None:
        """Gives it back the statistics that it had."""
        for weight, value in self.before:
            weight.assign(value)

    def leave(self) -> None:
        """Makes it the layer that it was."""
        self.layer.momentum = self.momentum
        del self.layer.call


def _batches(model: keras.Model, data: Any, batch_size: int) -> Iterator[Any]:
    """Batches of inputs, as the model takes them."""
    arrays = keras.tree.flatten(data)
    if arrays and all(hasattr(array, "shape") for array in arrays):
        inputs = getattr(model, "inputs", None) or arrays
        if len(arrays) != len(inputs):
            raise ValueError(
                f"`data` must hold one array for each input of {model.name!r}, which "
                f"has {len(inputs)}. Received: {len(arrays)} arrays. Batches come one "
                "by one out of a generator, a dataset, or a function that returns one"
            )
        lengths = [len(array) for array in arrays]
        if len(set(lengths)) > 1:
            raise ValueError(
                "`data` must hold as many examples for each input. "
                f"Received: arrays of {', '.join(map(str, lengths))} examples"
            )
        return _parts(data, lengths[0], batch_size)
    batches = data() if callable(data) else data
    if isinstance(batches, keras.utils.PyDataset):
        batches = (batches[number] for number in range(len(batches)))
    if isinstance(batches, (str, list)) or not isinstance(batches, Iterable):
        raise TypeError(
            "`data` must be arrays, or batches: a dataset, a generator, or a function "
            f"that returns one. Received: {data!r} of type {type(data).__name__}"
        )
    return (batch[0] if isinstance(batch, tuple) else batch for batch in batches)


def _parts(data: Any, length: int, batch_size: int) -> Iterator[Any]:
    """Arrays in batches of nearly one size, since they count alike."""
    count = max(1, -(-length // batch_size))
    ends = [length * number // count for number in range(count + 1)]
    for start, end in itertools.pairwise(ends if length else []):
        yield keras.tree.map_structure(
            lambda array, start=start, end=end: ops.convert_to_tensor(array[start:end]),
            data,
        )
