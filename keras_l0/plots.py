"""Pictures of gates and of training; they take matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.arguments import is_integer
from keras_l0.layers import L0Gate
from keras_l0.layers.finding import require_finite_gates, require_gates
from keras_l0.packages import required


def plot_gates(
    model: keras.Model, shapes: Mapping[str, Sequence[int]] | None = None
) -> Any:
    """A figure of all gates of a model: how likely each is to be open.

    Vectors of gates are drawn in falling order, with those that are closed at test
    time shaded; gates on several axes as an image.

    Args:
        model: A gated model.
        shapes: By the name of a gate, or a part of its path, the shape to draw it in,
            such as ``{"pixels": (28, 28)}`` for gates on 784 pixels.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If ``model`` is not a Keras model, or ``shapes`` no mapping from
            names to shapes.
        ValueError: If the model has no gates, one of them is NaN or infinite, or a name
            or shape fits none.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([keras.Input((4,)), keras_l0.layers.L0Dense(3)])
        >>> figure = keras_l0.plot_gates(model)  # doctest: +SKIP
        >>> figure.savefig("gates.png")  # doctest: +SKIP
    """
    gates = require_gates(model)
    require_finite_gates(model)
    drawn = gate_shapes(gates, shapes)
    columns = min(3, len(gates))
    rows = math.ceil(len(gates) / columns)
    figure = _figure(4 * columns, 3 * rows)
    for number, gate in enumerate(gates):
        axes = figure.add_subplot(rows, columns, number + 1)
        probable = keras.ops.convert_to_numpy(gate.prob_open)
        is_open = keras.ops.convert_to_numpy(gate.test_gates) > 0
        if (shape := drawn.get(id(gate))) is not None:
            probable, is_open = probable.reshape(shape), is_open.reshape(shape)
        if probable.ndim > 1:
            image = probable.reshape(len(probable), -1)
            axes.imshow(image, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        else:
            values = np.sort(probable)[::-1]
            kept = int(is_open.sum())
            axes.plot(np.arange(1, len(values) + 1), values)
            axes.axvspan(kept + 0.5, len(values) + 0.5, color="0.9")
            axes.set_ylim(0, 1.05)
            axes.set_ylabel("P(open)")
        axes.set_title(f"{gate.path}: {int(is_open.sum())} of {gate.count}", size=9)
    figure.tight_layout()
    return figure


def gate_shapes(
    gates: Sequence[L0Gate], shapes: Mapping[str, Sequence[int]] | None
) -> dict[int, tuple[int, ...]]:
    """By the id of a gate the shape in which a user wants to see it.

    Args:
        gates: All gates of a model.
        shapes: As in `plot_gates`.

    Raises:
        TypeError: If ``shapes`` is no mapping from names to shapes.
        ValueError: If a name or a shape fits no gate.
    """
    if shapes is None:
        return {}
    if not isinstance(shapes, Mapping):
        raise TypeError(
            "`shapes` must be a mapping from names of gates to shapes. "
            f"Received: {shapes!r} of type {type(shapes).__name__}"
        )
    found = {}
    for name, shape in shapes.items():
        named = [gate for gate in gates if f"/{name}/" in f"/{gate.path}/"]
        if not named:
            raise ValueError(
                "`shapes` must go by names of gates or of their layers, of "
                f"{', '.join(repr(gate.path) for gate in gates)}. Received: {name!r}"
            )
        sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
        if isinstance(shape, str) or not all(map(is_integer, sizes)):
            raise TypeError(
                f"`shapes` must hold shapes, sequences of integers. Received: {name!r}:"
                f" {shape!r}"
            )
        for gate in named:
            if min(sizes, default=1) < 1 or math.prod(sizes) != gate.count:
                raise ValueError(
                    f"`shapes` must give {gate.path!r} a shape of {gate.count} "
                    f"gates. Received: {name!r}: {sizes}"
                )
            found[id(gate)] = sizes
    return found


def plot_history(history: Any, size: str = "density", metric: str | None = None) -> Any:
    """A figure of what `fit` recorded: a metric, and the size, over the epochs.

    Args:
        history: What `fit` returned, with `callbacks.Density` among its callbacks, or
            the dict in it.
        size: Which size: ``"density"`` (default), ``"params"`` or ``"macs"``.
        metric: Which metric. Default: the accuracy, else the loss; of validation, if
            there was any.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If ``history`` is neither what `fit` returns nor a dict.
        ValueError: If the history lacks what is to be drawn, or its values are not one
            per epoch.

    Example:
        >>> import keras_l0
        >>> logs = {"loss": [0.9, 0.4], "density": [1.0, 0.3]}
        >>> figure = keras_l0.plot_history(logs)  # doctest: +SKIP
    """
    logs = getattr(history, "history", history)
    if not isinstance(logs, Mapping):
        raise TypeError(
            "`history` must be what `fit` returned, or the dict in it. "
            f"Received: {history!r} of type {type(history).__name__}"
        )
    if metric is None:
        known = ("val_accuracy", "val_acc", "accuracy", "acc", "val_loss", "loss")
        metric = next((name for name in known if name in logs), "loss")
    for argument, name in (("size", size), ("metric", metric)):
        if name not in logs:
            raise ValueError(
                f"`{argument}` must be in the history, which has {sorted(logs)}. "
                f"Received: {argument}={name!r}. `keras_l0.callbacks.Density` among "
                "the callbacks of `fit` records sizes"
            )
    if len(logs[metric]) != len(logs[size]):
        raise ValueError(
            "`history` must hold one value per epoch. Received: "
            f"{len(logs[metric])} of {metric!r} and {len(logs[size])} of {size!r}"
        )
    figure = _figure(6, 4)
    axes = figure.add_subplot()
    epochs = np.arange(1, len(logs[metric]) + 1)
    (first,) = axes.plot(epochs, logs[metric], color="C0", label=metric)
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric)
    other = axes.twinx()
    (second,) = other.plot(epochs, logs[size], color="C1", label=f"{size} (deployed)")
    other.set_ylabel(size)
    other.set_ylim(bottom=0)
    axes.legend(handles=[first, second])
    figure.tight_layout()
    return figure


def _figure(width: float, height: float) -> Any:
    return required("matplotlib.figure", "A picture", "demo").Figure(
        figsize=(width, height)
    )
