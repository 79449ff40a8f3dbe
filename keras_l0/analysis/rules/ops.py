"""Rules of raw operations (``keras.ops`` in a functional graph), and barriers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l0.analysis.rules.arithmetic import (
    ArithmeticRule,
    ExtremeRule,
    PartialRule,
    ProductRule,
    QuotientRule,
    SubtractRule,
    SumRule,
)
from keras_l0.analysis.rules.base import (
    Rule,
    register_barrier,
    register_strip_rule,
)
from keras_l0.analysis.rules.elementwise import ElementwiseRule
from keras_l0.analysis.rules.merge import ConcatenateRule, StackRule
from keras_l0.analysis.rules.moves import (
    ExpandDimsRule,
    FlipRule,
    GetItemRule,
    OrderRule,
    PadRule,
    RepeatRule,
    RollRule,
    SplitRule,
    SqueezeRule,
    TakeRule,
    TileRule,
)
from keras_l0.analysis.rules.reduction import ReductionRule, SpreadRule, SumOverRule
from keras_l0.analysis.rules.shape import ReshapeRule


class UnaryRule(ElementwiseRule):
    """A function of one tensor, element by element."""

    def function(self, values: np.ndarray) -> np.ndarray:
        dtype = self.node.inputs[0].dtype
        if not keras.backend.is_float_dtype(dtype):
            values = np.nan_to_num(values).astype(dtype)
        result = self.node.call(self.layer, [ops.convert_to_tensor(values)])
        return np.asarray(ops.convert_to_numpy(result), dtype="float64")


class HomogeneousRule(UnaryRule):
    """``f(s * x) == s * f(x)`` for every s > 0."""

    @property
    def passes_scale(self) -> bool:
        config = self.layer.get_config()
        return config.get("max_value") is None and not config.get("threshold")


class PartialUnaryRule(UnaryRule):
    """A function that is not finite everywhere."""

    total = False


class CastRule(UnaryRule):
    """Another dtype; a scale may wait behind it if floats stay floats."""

    @property
    def passes_scale(self) -> bool:
        tensors = (*self.node.inputs, *self.node.outputs)
        return all(keras.backend.is_float_dtype(t.dtype) for t in tensors)


_UNARY: dict[type[Rule], str] = {
    HomogeneousRule: "absolute copy leaky_relu negative relu stop_gradient",
    PartialUnaryRule: (
        "arccos arccosh arcsin arctanh cbrt erfinv log log10 log1p log2 reciprocal "
        "rsqrt sqrt tan"
    ),
    UnaryRule: (
        "arcsinh arctan ceil celu cos cosh deg2rad elu erf exp exp2 expm1 floor gelu "
        "hard_shrink hard_sigmoid hard_silu hard_tanh isfinite isinf isnan log_sigmoid "
        "nan_to_num relu6 round selu sigmoid sign silu sin sinc sinh soft_shrink "
        "softplus softsign sparse_plus sparse_sigmoid square squareplus tanh "
        "tanh_shrink trunc"
    ),
}
# Not arctan2: it tells -0.0, which a closed gate may make, from 0.0.
_BINARY: dict[type[Rule], str] = {
    SumRule: "add",
    SubtractRule: "subtract",
    ProductRule: "multiply",
    QuotientRule: "divide true_divide",
    ExtremeRule: "maximum minimum",
    PartialRule: "power mod floor_divide divide_no_nan",
    ArithmeticRule: (
        "equal greater greater_equal hypot less less_equal logaddexp "
        "logical_and logical_or logical_xor not_equal"
    ),
}
_CALLS: dict[type[Rule], Callable[[Any, Any], Any]] = {
    # The function that layers call their activation by, with parameters.
    HomogeneousRule: lambda x, y: keras.activations.relu(x, negative_slope=0.1),
    CastRule: lambda x, y: ops.cast(x, "float16"),
    UnaryRule: lambda x, y: [ops.clip(x, 0, 1), ops.logical_not(x)],
    ArithmeticRule: lambda x, y: ops.where(x > y, x, y),
    ReductionRule: lambda x, y: [
        f(x, axis=1) for f in (ops.amax, ops.amin, ops.max, ops.mean, ops.min)
    ],
    SumOverRule: lambda x, y: ops.sum(x, axis=1),
    SpreadRule: lambda x, y: [ops.std(x, axis=1), ops.var(x, axis=1)],
    ConcatenateRule: lambda x, y: ops.concatenate([x, y], axis=-1),
    StackRule: lambda x, y: ops.stack([x, y], axis=1),
    ReshapeRule: lambda x, y: ops.reshape(x, (-1, 4)),
    OrderRule: lambda x, y: [
        ops.transpose(x, (0, 2, 1)), ops.moveaxis(x, 1, 2), ops.swapaxes(x, 1, 2),
    ],
    ExpandDimsRule: lambda x, y: ops.expand_dims(x, 1),
    SqueezeRule: lambda x, y: ops.squeeze(ops.expand_dims(x, 1), 1),
    GetItemRule: lambda x, y: x[:, 0],
    TakeRule: lambda x, y: ops.take(x, [0], axis=1),
    FlipRule: lambda x, y: ops.flip(x, axis=1),
    RollRule: lambda x, y: ops.roll(x, 1, axis=1),
    RepeatRule: lambda x, y: ops.repeat(x, 2, axis=1),
    TileRule: lambda x, y: ops.tile(x, (1, 2, 1)),
    SplitRule: lambda x, y: ops.split(x, 2, axis=-1),
    PadRule: lambda x, y: ops.pad(x, ((0, 0), (1, 1), (0, 0))),
}  # fmt: skip
_BARRIERS: dict[str, str] = {
    "it normalizes over all channels": (
        "softmax log_softmax sparsemax normalize layer_normalization rms_normalization"
    ),
    "it gates one half of the channels by the other": "glu",
    "it orders or accumulates": "sort argsort cumsum cumprod",
    "it counts or compares": (
        "all any argmax argmin average count_nonzero logsumexp median norm prod"
    ),
}


def operation_types(call: Callable[..., Any]) -> list[type]:
    """The types of the operations that ``call`` puts on two symbolic tensors.

    In a thread of its own, since Keras counts the names it gives by thread: importing
    this package must not rename anybody's layers.
    """

    def types() -> list[type]:
        tensors = [keras.KerasTensor((None, 4, 4)) for _ in range(2)]
        results = keras.tree.flatten(call(*tensors))
        histories = [y._keras_history for y in results if hasattr(y, "_keras_history")]
        return [type(history.operation) for history in histories]

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(types).result()


def _all_named(names: str, arity: int) -> list[type]:
    """The operations of all functions of these names that this Keras has."""
    functions = [getattr(ops, n) for n in names.split() if hasattr(ops, n)]
    return operation_types(lambda *xs: [f(*xs[:arity]) for f in functions])


def _register_all() -> None:
    for rule, names in _UNARY.items():
        register_strip_rule(*_all_named(names, 1))(rule)
    for rule, names in _BINARY.items():
        register_strip_rule(*_all_named(names, 2))(rule)
    for rule, call in _CALLS.items():
        register_strip_rule(*operation_types(call))(rule)
    for reason, names in _BARRIERS.items():
        register_barrier(reason, *_all_named(names, 1))
    register_barrier("it sums products over an axis", *operation_types(_contractions))


def _contractions(x: Any, y: Any) -> list[Any]:
    product = ops.einsum("btc,bsc->bts", x, y)
    return [ops.matmul(x, y), ops.tensordot(x, y, axes=2), product]


_register_all()
