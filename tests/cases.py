"""One case per gated layer."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_l0
from keras_l0.layers.gated import Gated


@dataclasses.dataclass(frozen=True)
class Case:
    """A gated layer with arguments to test it with.

    ``cost`` is counted by hand: the weights that make one unit, and its bias.
    ``without_bias`` are the arguments that leave the bias out. ``weight`` names the
    kernel, ``regularizer`` the argument for its penalty, and ``by_unit`` turns it so
    that units lie on the last axis. ``vocabulary``: inputs are indices below a third.
    ``behind``: the gate multiplies the plain layer's output, and does not act inside.
    ``shape``: that of the gates, if they are not one per unit; ``units`` counts them.
    """

    cls: type
    arguments: dict[str, Any]
    input_shape: tuple[int, ...]
    units: int
    cost: int
    cost_without_bias: int
    without_bias: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {"use_bias": False}
    )
    weight: str = "kernel"
    regularizer: str = "kernel_regularizer"
    by_unit: Callable[[np.ndarray], np.ndarray] = np.asarray
    vocabulary: int | None = None
    behind: bool = True
    noise: str = "example"
    shape: tuple[int, ...] | None = None

    @property
    def name(self):
        grain = self.arguments.get("granularity")
        return f"{self.cls.__name__}-{grain}" if grain else self.cls.__name__

    def gated(self, **kwargs):
        return self.cls(**{**self.arguments, **kwargs})

    def plain_class(self):
        return next(c for c in self.cls.__mro__ if c.__module__.startswith("keras."))

    def plain(self, **kwargs):
        arguments = {**self.arguments, **kwargs}
        arguments.pop("granularity", None)
        return self.plain_class()(**arguments)

    def bias(self, use_bias):
        """Arguments for a layer with or without a bias."""
        return {} if use_bias else self.without_bias

    def kernel(self, layer):
        return getattr(getattr(layer, "cell", layer), self.weight)

    def input(self):
        return keras.Input(self.input_shape, dtype=self.vocabulary and "int32")

    def batch(self, size=4, seed=0, dtype="float32"):
        shape, rng = (size, *self.input_shape), np.random.default_rng(seed)
        if self.vocabulary:
            return rng.integers(0, self.vocabulary // 3, shape).astype("int32")
        return rng.normal(size=shape).astype(dtype)

    def log_alphas(self):
        """Closed, half open and open units, none at 0."""
        values = np.linspace(-4, 4.5, self.units).astype("float32")
        return values.reshape(self.shape or (self.units,))

    def model(self, *layers):
        """The layers in a row, between an input and a Dense(2)."""
        return keras.Sequential(
            [self.input(), *layers, keras.layers.Flatten(), keras.layers.Dense(2)]
        )


def _convolution(kind, rank, cost, **facts):
    """The case of a layer whose kernels span 3, or 3 by 2, or 3 by 2 by 1 positions."""
    facts = {"units": 4, **facts}
    arguments = {
        "kernel_size": (3, 2, 1)[:rank],
        "padding": "same",
        "activation": "tanh",
        "bias_initializer": "normal",
        **facts.pop("arguments", {"filters": 4}),
    }
    return Case(
        getattr(keras_l0.layers, f"L0{kind.format(rank)}"),
        arguments,
        input_shape=(4, 3, 2)[:rank] + (2,),
        cost=cost + 1,
        cost_without_bias=cost,
        **facts,
    )


def _recurrent(cls, cost, cost_without_bias, **arguments):
    return Case(
        cls,
        {"units": 5, "bias_initializer": "normal", **arguments},
        input_shape=(4, 3),
        units=5,
        cost=cost,
        cost_without_bias=cost_without_bias,
        behind=False,
        noise="batch",
    )


_TURNED = {"by_unit": lambda kernel: np.swapaxes(kernel, -1, -2)}
_DEPTHWISE = {
    "arguments": {"depth_multiplier": 2},
    "regularizer": "depthwise_regularizer",
    "by_unit": lambda kernel: kernel.reshape(*kernel.shape[:-2], -1),
}
_SEPARABLE = {"weight": "pointwise_kernel", "regularizer": "pointwise_regularizer"}

CASES = {
    case.cls: case
    for case in (
        Case(
            keras_l0.layers.L0Dense,
            {"units": 5, "activation": "tanh", "bias_initializer": "normal"},
            input_shape=(3,),
            units=5,
            cost=3 + 1,
            cost_without_bias=3,
        ),
        Case(
            keras_l0.layers.L0EinsumDense,
            {
                "equation": "abc,cde->abde",
                "output_shape": (4, 2, 5),
                "bias_axes": "de",
                "activation": "tanh",
                "bias_initializer": "normal",
            },
            input_shape=(4, 3),
            units=5,
            cost=3 * 2 + 2,
            cost_without_bias=3 * 2,
            without_bias={"bias_axes": None},
        ),
        Case(
            keras_l0.layers.L0Embedding,
            {"input_dim": 13, "output_dim": 5, "embeddings_initializer": "normal"},
            input_shape=(3,),
            units=5,
            cost=13,
            cost_without_bias=13,
            without_bias={},
            weight="embeddings",
            regularizer="embeddings_regularizer",
            vocabulary=13,
        ),
        Case(
            keras_l0.layers.L0Conv2D,
            {
                "filters": 4,
                "kernel_size": (2, 3),
                "padding": "same",
                "activation": "relu",
                "bias_initializer": "normal",
            },
            input_shape=(5, 4, 2),
            units=4,
            cost=2 * 3 * 2 + 1,
            cost_without_bias=2 * 3 * 2,
        ),
        _recurrent(keras_l0.layers.L0SimpleRNN, 3 + 5 + 1, 3 + 5),
        _recurrent(
            keras_l0.layers.L0LSTM, 4 * (3 + 5 + 1), 4 * (3 + 5), return_sequences=True
        ),
        _recurrent(keras_l0.layers.L0GRU, 3 * (3 + 5 + 2), 3 * (3 + 5)),
        _convolution("Conv{}D", 1, 3 * 2),
        _convolution("Conv{}D", 3, 3 * 2 * 2),
        _convolution("Conv{}DTranspose", 1, 3 * 2, **_TURNED),
        _convolution("Conv{}DTranspose", 2, 3 * 2 * 2, **_TURNED),
        _convolution("Conv{}DTranspose", 3, 3 * 2 * 2, **_TURNED),
        _convolution("DepthwiseConv{}D", 1, 3, **_DEPTHWISE),
        _convolution("DepthwiseConv{}D", 2, 3 * 2, **_DEPTHWISE),
        _convolution("SeparableConv{}D", 1, 2, **_SEPARABLE),
        _convolution("SeparableConv{}D", 2, 2, **_SEPARABLE),
    )
}


if hasattr(keras.layers, "ReversibleEmbedding"):
    _embedding = CASES[keras_l0.layers.L0Embedding]
    _reversible = keras_l0.layers.L0ReversibleEmbedding
    CASES[_reversible] = dataclasses.replace(_embedding, cls=_reversible)


def _granular(cls, granularity, shape, cost):
    """The case of a layer whose gates switch something other than units."""
    case = CASES[cls]
    inputs = granularity == "inputs"
    return dataclasses.replace(
        case,
        arguments={**case.arguments, "granularity": granularity},
        shape=shape,
        units=math.prod(shape),
        cost=cost,
        cost_without_bias=cost,
        behind=False,
        noise="example" if inputs else "batch",
    )


# Of each granularity some; tests/test_granularity.py has more.
GRANULAR = (
    _granular(keras_l0.layers.L0Dense, "inputs", (3,), 5),
    _granular(keras_l0.layers.L0Dense, "weights", (3, 5), 1),
    _granular(keras_l0.layers.L0EinsumDense, "weights", (3, 2, 5), 1),
    _granular(keras_l0.layers.L0Conv2D, (2, 1), (2, 3, 2, 2), 2),
    _granular(keras_l0.layers.L0Conv1DTranspose, (1, 2), (3, 4, 1), 2),
    _granular(keras_l0.layers.L0Conv3D, "inputs", (2,), 3 * 2 * 4),
)


# Their gates are inside: tests/test_gated_attention.py.
ATTENTION = (
    keras_l0.layers.L0MultiHeadAttention,
    keras_l0.layers.L0GroupQueryAttention,
)


def gated_layers():
    return [
        value
        for value in vars(keras_l0.layers).values()
        if isinstance(value, type) and issubclass(value, Gated)
        if value not in ATTENTION
    ]
