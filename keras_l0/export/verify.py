"""Runs a .tflite file and compares it with the Keras model that it was made from."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_l0.export.report import ExportError
from keras_l0.export.signature import Signature
from keras_l0.export.silence import silence

# How far apart two float32 evaluations may lie, in rounding floors of the model.
_FLOORS = 10
_EPSILON = float(np.finfo(np.float32).eps)
_CHUNK = 32
# A comparison that allows more than this share of the scale could hardly fail.
_BLIND = 0.1


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Of the output closest to its tolerance: both numbers as shares of its scale."""

    difference: float
    tolerance: float


def verify(
    content: bytes, model: keras.Model, signature: Signature, batch: list[np.ndarray]
) -> Agreement:
    """Compares a file's outputs with Keras', one example at a time.

    Args:
        content: The bytes of the .tflite file.
        model: The float32 model it was made from.
        signature: The signature of ``model``.
        batch: One array per input.

    Returns:
        How well they agree.

    Raises:
        ExportError: If an output differs by more than `_FLOORS` times the model's own
            rounding floor, or the file does not run.
    """
    expected = _outputs(model, batch)
    tolerances = _tolerance(model, batch, expected)
    received = run(content, signature, batch)
    worst = Agreement(0.0, 0.0)
    for name, want, got, tolerance in zip(
        signature.outputs, expected, received, tolerances, strict=True
    ):
        if want.shape != got.shape:
            raise ExportError(
                f"Output {name!r} of the converted model has the shape {got.shape[1:]} "
                f"per example, not {want.shape[1:]} as in Keras; nothing was written."
            )
        if want.size and not np.isfinite(want).any():
            raise ExportError(
                f"Output {name!r} of the Keras model is nowhere finite on the examples "
                "to compare on: pass `data` that is like the model's own."
            )
        difference = _largest_difference(want, got)
        scale = _scale(want) or 1.0
        found = Agreement(difference / scale, tolerance / scale)
        if difference > tolerance:
            raise ExportError(
                f"Output {name!r} of the converted model differs from Keras' by "
                f"{found.difference:.1e} of its scale, where rounding explains "
                f"{found.tolerance:.1e}; nothing was written."
            )
        if found.tolerance > _BLIND:
            raise ExportError(
                f"Output {name!r} of the Keras model moves by more than "
                f"{found.tolerance / _FLOORS:.1e} of its scale when its weights are "
                "rounded differently, which leaves nothing to compare: pass `data` "
                "that is like the model's own, or verify=False; nothing was written."
            )
        if found.difference * worst.tolerance >= worst.difference * found.tolerance:
            worst = found
    return worst


def run(
    content: bytes, signature: Signature, batch: list[np.ndarray]
) -> list[np.ndarray]:
    """Runs a .tflite file through its signature, one example at a time.

    Args:
        content: The bytes of the .tflite file.
        signature: The names of its inputs and outputs.
        batch: One array per input.

    Returns:
        One array per output, in the order of ``signature.outputs``.

    Raises:
        ExportError: If the file lacks the signature, or fails to run.
    """
    from ai_edge_litert.interpreter import Interpreter

    results: list[dict[str, Any]] = []
    with silence():
        try:
            interpreter = Interpreter(model_content=content)
            runner = interpreter.get_signature_runner()
            for index in range(len(batch[0])):
                example = (array[index : index + 1] for array in batch)
                results.append(
                    runner(**dict(zip(signature.inputs, example, strict=True)))
                )
        except (ValueError, RuntimeError) as error:
            raise ExportError(
                f"The converted model does not run: {error}; nothing was written."
            ) from error
    if set(results[0]) != set(signature.outputs):
        raise ExportError(
            f"The converted model has the outputs {sorted(results[0])}, not "
            f"{sorted(signature.outputs)}; nothing was written."
        )
    return [
        np.concatenate([result[name] for result in results])
        for name in signature.outputs
    ]


def _outputs(
    model: keras.Model, batch: list[np.ndarray], weights: Any = None
) -> list[np.ndarray]:
    """The outputs at inference, under other weights if given; changes no state."""
    trainable, non_trainable = weights or (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )
    chunks = []
    for start in range(0, len(batch[0]), _CHUNK):
        flat = [
            keras.ops.convert_to_tensor(array[start : start + _CHUNK])
            for array in batch
        ]
        inputs = keras.tree.pack_sequence_as(model.input, flat)
        outputs, _ = model.stateless_call(
            trainable, non_trainable, inputs, training=False
        )
        chunks.append(
            [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(outputs)]
        )
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def _tolerance(
    model: keras.Model, batch: list[np.ndarray], expected: list[np.ndarray]
) -> list[float]:
    """Per output: `_FLOORS` times what rounding alone does to this model.

    The floor is the largest change when every weight moves by one unit in its last
    place, up or down at random, and 8 epsilon of the output's scale on top.
    """
    rng = np.random.default_rng(0)

    def moved(variable: Any) -> Any:
        if not keras.backend.is_float_dtype(variable.dtype):
            return variable.value
        signs = rng.choice((-_EPSILON, _EPSILON), size=variable.shape)
        return variable.value * (1 + signs).astype("float32")

    floors = [8 * _EPSILON * _scale(want) for want in expected]
    for _ in range(2):
        weights = (
            [moved(variable) for variable in model.trainable_variables],
            [moved(variable) for variable in model.non_trainable_variables],
        )
        changed = _outputs(model, batch, weights)
        floors = [
            max(floor, 8 * _EPSILON * _scale(want) + _largest_difference(want, got))
            for floor, want, got in zip(floors, expected, changed, strict=True)
        ]
    return [_FLOORS * floor for floor in floors]


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
