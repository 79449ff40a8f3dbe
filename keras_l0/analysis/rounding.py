"""Are two models the same function, but for rounding?

The yardstick is the model's own rounding: how far its outputs move when every weight is
off by one unit in the last place of the precision that it computes in.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.arrays import native

# One unit in the last place of numbers near 1.
EPSILON = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}
# How far apart two evaluations may lie, in rounding floors of the model.
_FLOORS = 10
_CHUNK = 32
# A comparison that allows more than this share of the scale could hardly fail.
BLIND = 0.1


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Of the output closest to its tolerance: both numbers as shares of its scale."""

    difference: float
    tolerance: float

    @property
    def blind(self) -> bool:
        """Whether the tolerance is so wide that the comparison could hardly fail."""
        return self.tolerance > BLIND


class Disagreement(RuntimeError):
    """Two models that should be one function are not."""


def outputs(
    model: keras.Model, batch: list[np.ndarray], weights: Any = None
) -> list[np.ndarray]:
    """The flat outputs at test time, under other weights if given; no state changes.

    Args:
        model: A Sequential or functional model.
        batch: One array per input.
        weights: Values of the trainable and of the non-trainable variables.
    """
    trainable, non_trainable = weights or (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )
    chunks = []
    size = model.inputs[0].shape[0] or _CHUNK
    for start in range(0, len(batch[0]), size):
        inputs = [
            keras.ops.convert_to_tensor(array[start : start + size]) for array in batch
        ]
        if isinstance(model, keras.Sequential):
            (inputs,) = inputs
        else:
            inputs = keras.tree.pack_sequence_as(model.input, inputs)
        with _states_at_zero(model):
            result, _ = model.stateless_call(
                trainable, non_trainable, inputs, training=False
            )
        chunks.append([native(y) for y in keras.tree.flatten(result)])
    if len(chunks) == 1:
        return chunks[0]
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


@contextlib.contextmanager
def _states_at_zero(model: keras.Model) -> Iterator[None]:
    """Recurrent layers start from zeros inside, and go on as before afterwards.

    Their states are no weights, so that stateless calls change them, too.
    """
    states = [
        state
        for layer in model._flatten_layers()
        if getattr(layer, "stateful", False)
        for state in keras.tree.flatten(getattr(layer, "states", None) or [])
    ]
    before = [keras.ops.convert_to_numpy(state) for state in states]
    for state in states:
        state.assign(np.zeros(state.shape))
    try:
        yield
    finally:
        for state, value in zip(states, before, strict=True):
            state.assign(value)


def storage_epsilon(model: keras.Model) -> float:
    """What one unit in the last place is of the coarsest weights of a model."""
    return max((EPSILON.get(w.dtype, 0.0) for w in model.weights), default=0.0)


def tolerances(
    model: keras.Model,
    batch: list[np.ndarray],
    expected: list[np.ndarray],
    stored: float = 0.0,
) -> list[float]:
    """Per output: `_FLOORS` times what rounding alone does to this model.

    The floor is the largest change when every weight moves by one unit in its last
    place, up or down at random, and 8 epsilon of the output's scale on top, for what
    elementary functions are off by.

    Args:
        model: The reference.
        batch: One array per input.
        expected: The reference's outputs on the batch.
        stored: The `storage_epsilon` of weights that are compared in higher precision
            than they are stored in. Each was rounded once, by half of it at most; four
            times that is allowed.
    """
    generator = np.random.default_rng(0)
    epsilon = max(
        EPSILON.get(layer.compute_dtype, 0.0)
        for layer in model._flatten_layers(include_self=True)
    )

    step = max(epsilon, 2 * stored / _FLOORS)

    def moved(variable: Any) -> Any:
        if not keras.backend.is_float_dtype(variable.dtype):
            return variable.value
        signs = generator.choice((-step, step), size=variable.shape)
        return variable.value * keras.ops.convert_to_tensor(
            1 + signs, dtype=variable.dtype
        )

    slack = [8 * epsilon * _scale(want) for want in expected]
    floors = list(slack)
    for _ in range(2):
        weights = (
            [moved(variable) for variable in model.trainable_variables],
            [moved(variable) for variable in model.non_trainable_variables],
        )
        changed = outputs(model, batch, weights)
        floors = [
            max(floor, extra + _largest_difference(want, got))
            for floor, extra, want, got in zip(
                floors, slack, expected, changed, strict=True
            )
        ]
    return [_FLOORS * floor for floor in floors]


def agree(
    model: keras.Model,
    batch: list[np.ndarray],
    received: list[np.ndarray],
    names: list[str] | tuple[str, ...],
    what: str,
    stored: float = 0.0,
) -> Agreement:
    """How well other outputs agree with a model's own.

    Args:
        model: The reference.
        batch: One array per input.
        received: The outputs to compare, one array per output.
        names: What to call the outputs in an error.
        what: What to call the other model in an error.
        stored: As in `tolerances`.

    Raises:
        Disagreement: If an output has another shape, differs by more than rounding
            explains, or is nowhere finite.
    """
    expected = outputs(model, batch)
    allowed = tolerances(model, batch, expected, stored)
    worst = Agreement(0.0, 0.0)
    for name, want, got, tolerance in zip(
        names, expected, received, allowed, strict=True
    ):
        if want.shape != got.shape:
            raise Disagreement(
                f"Output {name!r} of {what} has the shape {got.shape[1:]} per example, "
                f"not {want.shape[1:]} as in Keras."
            )
        if want.size and not np.isfinite(want).any():
            raise Disagreement(
                f"Output {name!r} of model {model.name!r} is nowhere finite on the "
                "examples to compare on: pass `data` that is like the model's own."
            )
        difference = _largest_difference(want, got)
        scale = _scale(want) or 1.0
        found = Agreement(difference / scale, tolerance / scale)
        if difference > tolerance:
            raise Disagreement(
                f"Output {name!r} of {what} differs from that of model "
                f"{model.name!r} by {found.difference:.1e} of its scale, where "
                f"rounding explains {found.tolerance:.1e}."
            )
        if found.difference * worst.tolerance >= worst.difference * found.tolerance:
            worst = found
    return worst


def _largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Of two arrays of one shape; equal infinities and NaNs agree, others do not."""
    a, b = a.astype("float64"), b.astype("float64")
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b)
    apart[(a == b) | (np.isnan(a) & np.isnan(b))] = 0
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0))


def _scale(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)].astype("float64"))
    return float(finite.max(initial=0))
