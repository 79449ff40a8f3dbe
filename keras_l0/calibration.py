"""`calibrate`: statistics of normalizations as they are under test-time gates."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l0.arguments import require_integer, require_model


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
            input, or an iterable of batches, or a function that returns one (of tuples,
            the first part counts).
        batch_size: Examples per batch, of arrays.

    Returns:
        The model.

    Raises:
        TypeError: If ``model`` is not a Keras model, or ``batch_size`` not an integer.
        ValueError: If there is no data, arrays differ in length, or ``batch_size`` is
            below 1. Statistics are then what they were.

    Example:
        >>> import numpy as np, keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras_l0.layers.L0Dense(3),
        ...     keras.layers.BatchNormalization(), keras.layers.Dense(2)])
        >>> model = keras_l0.calibrate(model, np.ones((64, 4), "float32"))
    """
    require_model("model", model)
    require_integer("batch_size", batch_size, 1)
    kind = keras.layers.BatchNormalization
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, kind)]
    norms = [_Recounted(layer) for layer in layers]
    number = 0
    try:
        for batch in _batches(data, batch_size):
            # The norms alone train; `training=True` would draw gates and dropout.
            model(batch, training=False)
            number += 1
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

    def reset(self) -> None:
        """Gives it back the statistics that it had."""
        for weight, value in self.before:
            weight.assign(value)

    def leave(self) -> None:
        """Makes it the layer that it was."""
        self.layer.momentum = self.momentum
        del self.layer.call


def _batches(data: Any, batch_size: int) -> Iterator[Any]:
    arrays = keras.tree.flatten(data)
    if all(hasattr(array, "shape") for array in arrays):
        lengths = [len(array) for array in arrays]
        if len(set(lengths)) > 1:
            raise ValueError(
                "`data` must hold as many examples for each input. "
                f"Received: arrays of {', '.join(map(str, lengths))} examples"
            )
        for start in range(0, max(lengths, default=0), batch_size):
            yield keras.tree.map_structure(
                lambda array, at=start: ops.convert_to_tensor(
                    array[at : at + batch_size]
                ),
                data,
            )
        return
    batches: Iterable[Any] = data() if callable(data) else data
    for batch in batches:
        yield batch[0] if isinstance(batch, tuple) else batch
