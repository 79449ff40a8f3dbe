"""`calibrate`: statistics of normalizations as they are under test-time gates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import ops

from keras_l0.arguments import require_integer
from keras_l0.budgeted import BudgetedModel
from keras_l0.layers import find_gates

# What makes the layers that draw in training draw nothing.
_QUIET = {
    keras.layers.Dropout: "rate",
    keras.layers.GaussianDropout: "rate",
    keras.layers.AlphaDropout: "rate",
    keras.layers.GaussianNoise: "stddev",
}


def calibrate(model: keras.Model, data: Any, batch_size: int = 128) -> keras.Model:
    """Estimates the statistics of BatchNormalization anew, under test-time gates.

    In training the statistics follow activations under random gates; at test time
    gates are what they are. All batches count alike. Gates, weights and the state of a
    budget stay as they are, and nothing is drawn: no gates, no dropout.

    Args:
        model: A model with gates, or a stripped one. Its moving means and variances are
            set in place; those of frozen layers stay.
        data: Training inputs as `model.predict` takes them: an array, a list or a dict
            of arrays, or an iterable of batches (of tuples, the first part counts).
        batch_size: Examples per batch, of arrays.

    Returns:
        The model.

    Raises:
        TypeError: If ``model`` is not a Keras model.
        ValueError: If there is no data, or ``batch_size`` is no integer >= 1.

    Example:
        >>> import numpy as np, keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras_l0.layers.L0Dense(3),
        ...     keras.layers.BatchNormalization(), keras.layers.Dense(2)])
        >>> model = keras_l0.calibrate(model, np.ones((64, 4), "float32"))
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a Keras model. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    require_integer("batch_size", batch_size, 1)
    layers = list(model._flatten_layers())
    norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
    gates = find_gates(model)
    # (object, attribute, value for the time being)
    changes: list[tuple[Any, str, Any]] = [(g, "trainable", False) for g in gates]
    changes += [
        (layer, name, 0.0)
        for layer in layers
        for kind, name in _QUIET.items()
        if isinstance(layer, kind)
    ]
    changes += [(norm, "momentum", 0.0) for norm in norms]
    before = [(thing, name, getattr(thing, name)) for thing, name, _ in changes]
    states = [
        (weight, ops.convert_to_numpy(weight))
        for layer in layers
        if isinstance(layer, BudgetedModel) and layer.budgets
        for weight in layer.state
    ]
    try:
        for thing, name, value in changes:
            setattr(thing, name, value)
        number = -1
        for number, batch in enumerate(_batches(data, batch_size)):
            for norm in norms:
                norm.momentum = number / (number + 1)
            model(batch, training=True)
    finally:
        for thing, name, value in before:
            setattr(thing, name, value)
        for weight, value in states:
            weight.assign(value)
    if number < 0:
        raise ValueError("`data` must hold at least one batch. Received: none")
    return model


def _batches(data: Any, batch_size: int) -> Iterator[Any]:
    arrays = keras.tree.flatten(data)
    if all(hasattr(array, "shape") for array in arrays):
        for start in range(0, len(arrays[0]) if arrays else 0, batch_size):
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
