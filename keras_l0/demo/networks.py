"""The two networks of the demo, each with gates and without."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from keras_l0.layers import GateOptions, L0Conv2D, L0Dense, L0Gate

# Images narrower than this keep their size in the convolutions of LeNet-5.
_LARGE = 16
# One draw per image: less noise than one per batch, and cheap in networks this small.
_GATES = GateOptions(noise="example")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of the demo.

    Attributes:
        title: Its name in the literature.
        build: (shape of an image, classes, price) -> model; with the price None it is
            the dense network, and else the gated one.
        gated: Names of what is gated, in graph order.
        inputs: The `keras_l0.strip` mode that suits it.
        price: Price for a small data set, and for a large one.
    """

    title: str
    build: Callable[[tuple[int, int, int], int, float | None], keras.Model]
    gated: tuple[str, ...]
    inputs: str
    price: tuple[float, float]


def lenet5(shape: tuple[int, int, int], classes: int, l0: float | None) -> keras.Model:
    """LeNet-5 with 20 and 50 filters and 500 units.

    Args:
        shape: Height, width and channels of an image.
        classes: Number of classes.
        l0: Price of one multiply-accumulate, in units of the loss: a filter's
            parameters are charged once for each position that it is applied at. None
            builds the network without gates.
    """
    height, width, _ = shape
    large = min(height, width) >= _LARGE
    size, padding = (5, "valid") if large else (3, "same")

    def conv(filters: int, name: str, positions: int) -> keras.layers.Layer:
        options: dict[str, Any] = {
            "padding": padding,
            "activation": "relu",
            "name": name,
        }
        if l0 is None:
            return keras.layers.Conv2D(filters, size, **options)
        return L0Conv2D(
            filters, size, l0=l0 * positions, gate_options=_GATES, **options
        )

    lost = size - 1 if large else 0
    first = height - lost, width - lost
    second = first[0] // 2 - lost, first[1] // 2 - lost
    return keras.Sequential(
        [
            keras.Input(shape, name="image"),
            conv(20, "conv1", first[0] * first[1]),
            keras.layers.MaxPooling2D(name="pool1"),
            conv(50, "conv2", second[0] * second[1]),
            keras.layers.MaxPooling2D(name="pool2"),
            keras.layers.Flatten(name="flatten"),
            _dense(500, "dense", l0),
            keras.layers.Dense(classes, activation="softmax", name="class"),
        ],
        name="lenet5",
    )


def lenet_300_100(
    shape: tuple[int, int, int], classes: int, l0: float | None
) -> keras.Model:
    """LeNet-300-100, whose gated form chooses the pixels that it looks at, too.

    Args:
        shape: Height, width and channels of an image.
        classes: Number of classes.
        l0: Price of one parameter, in units of the loss. None builds the network
            without gates.
    """
    # A closed pixel frees its weights to all units of the first layer.
    pixels = (
        [] if l0 is None else [L0Gate(l0=l0, cost=300, options=_GATES, name="pixels")]
    )
    return keras.Sequential(
        [
            keras.Input(shape, name="image"),
            keras.layers.Flatten(name="flatten"),
            *pixels,
            _dense(300, "dense1", l0),
            _dense(100, "dense2", l0),
            keras.layers.Dense(classes, activation="softmax", name="class"),
        ],
        name="lenet_300_100",
    )


def _dense(units: int, name: str, l0: float | None) -> keras.layers.Layer:
    if l0 is None:
        return keras.layers.Dense(units, activation="relu", name=name)
    return L0Dense(units, activation="relu", l0=l0, gate_options=_GATES, name=name)


NETWORKS = {
    "conv": Network(
        title="LeNet-5",
        build=lenet5,
        gated=("conv1", "conv2", "dense"),
        inputs="keep",
        price=(3e-5, 1e-6),
    ),
    "mlp": Network(
        title="LeNet-300-100",
        build=lenet_300_100,
        gated=("pixels", "dense1", "dense2"),
        inputs="gather",
        price=(1e-4, 3e-6),
    ),
}
