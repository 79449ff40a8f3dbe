"""What is known of activation functions: which act on each channel alone, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_l0.analysis.arrays import float64

_ELEMENTWISE = (
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu "
    "linear log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink softplus "
    "softsign sparse_plus sparse_sigmoid squareplus tanh tanh_shrink threshold"
).split()
_HOMOGENEOUS = ("leaky_relu", "linear", "relu")
# What TFLite computes as part of the operation before.
_FUSED = ("linear", "relu", "relu6")


class Activation(NamedTuple):
    """Facts about an activation function.

    Attributes:
        elementwise: It acts on every element alone, and in the same way.
        homogeneous: f(s * x) == s * f(x) for every s > 0.
        at_zero: f(0); NaN if not elementwise.
        function: The function itself.
    """

    elementwise: bool
    homogeneous: bool
    at_zero: float
    function: Callable[[Any], Any]

    @property
    def name(self) -> str:
        """What to call the function in a sentence."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def separate(self) -> str | None:
        """The function's name in Keras if it is an operation of its own in a file."""
        own = self.function is getattr(keras.activations, self.name, None)
        return self.name if own and self.name not in _FUSED else None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The function of NumPy values, by the backend, in the values' own dtype."""
        return float64(self.function(ops.convert_to_tensor(values)))


def describe(function: Callable[[Any], Any]) -> Activation:
    """The facts about ``function``; an unknown one is taken to mix channels."""
    if function not in _known():
        return Activation(False, False, float("nan"), function)
    facts = Activation(True, function in _known(_HOMOGENEOUS), 0.0, function)
    return facts._replace(at_zero=float(facts(np.zeros(1))[0]))


def _known(names: Any = _ELEMENTWISE) -> list[Callable[[Any], Any]]:
    """Those of the names that the installed Keras has."""
    available = keras.activations
    return [getattr(available, name) for name in names if hasattr(available, name)]
