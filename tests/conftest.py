"""What the tests share: seeds, a gradient on any backend, one case per gated layer."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import keras_l0
from keras_l0.layers.gated import Gated

# pytest --hypothesis-profile=nightly
for _name, _examples in (("ci", 120), ("nightly", 4000)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        derandomize=_name == "ci",
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def reproducible():
    keras.utils.set_random_seed(20)
    yield
    keras.config.set_dtype_policy("float32")


def _gradient(function, variable):
    """d function() / d variable on the running backend, as a NumPy array."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            result = function()
        gradient = tape.gradient(result, variable.value)
    elif backend == "jax":
        import jax

        def of_value(value):
            with keras.StatelessScope(state_mapping=[(variable, value)]):
                return function()

        gradient = jax.grad(of_value)(variable.value)
    else:
        variable.value.grad = None
        function().backward()
        gradient = variable.value.grad
    return keras.ops.convert_to_numpy(gradient)


@pytest.fixture
def gradient():
    return _gradient


@dataclasses.dataclass(frozen=True)
class Case:
    """A gated layer with arguments to test it with.

    ``cost`` is counted by hand: the weights that make one unit, and its bias.
    """

    cls: type
    arguments: dict[str, Any]
    input_shape: tuple[int, ...]
    units: int
    cost: int
    cost_without_bias: int

    def gated(self, **kwargs):
        return self.cls(**{**self.arguments, **kwargs})

    def plain_class(self):
        return next(c for c in self.cls.__mro__ if c.__module__.startswith("keras."))

    def plain(self, **kwargs):
        return self.plain_class()(**{**self.arguments, **kwargs})

    def batch(self, size=4, seed=0):
        shape = (size, *self.input_shape)
        return np.random.default_rng(seed).normal(size=shape).astype("float32")

    def log_alphas(self):
        """Closed, half open and open units, none at 0."""
        return np.linspace(-4, 4.5, self.units).astype("float32")

    def model(self, *layers):
        """The layers in a row, between an input and a Dense(2)."""
        return keras.Sequential(
            [
                keras.Input(self.input_shape),
                *layers,
                keras.layers.Flatten(),
                keras.layers.Dense(2),
            ]
        )


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
    )
}


def _gated_layers():
    return [
        value
        for value in vars(keras_l0.layers).values()
        if isinstance(value, type) and issubclass(value, Gated)
    ]


@pytest.fixture(params=_gated_layers(), ids=lambda cls: cls.__name__)
def case(request):
    """Every gated layer of the package, those added later included."""
    assert request.param in CASES, f"tests/conftest.py has no case of {request.param}"
    return CASES[request.param]
