"""Runs a .tflite file and compares it with the Keras model that it was made from."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.rounding import Disagreement, agree
from keras_l0.export.report import ExportError
from keras_l0.export.signature import Signature
from keras_l0.export.silence import silence
from keras_l0.packages import required


@dataclasses.dataclass(frozen=True)
class Limits:
    """How far a quantized file may be off.

    Attributes:
        max_error: The largest ``error`` that is allowed.
        min_top1: The smallest ``top1`` that is allowed.
    """

    max_error: float
    min_top1: float

    def __post_init__(self) -> None:
        for name, value, most in (
            ("max_error", self.max_error, np.inf), ("min_top1", self.min_top1, 1),
        ):  # fmt: skip
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not number or not 0 <= value <= most:
                range_ = "of at least 0" if most > 1 else "from 0 to 1"
                raise ValueError(
                    f"`{name}` must be a number {range_}. Received: {name}={value!r}"
                )


def compare(
    received: list[np.ndarray],
    model: keras.Model,
    signature: Signature,
    batch: list[np.ndarray],
    limits: Limits | None,
    expected: Callable[[list[np.ndarray]], list[np.ndarray]],
) -> dict[str, Any]:
    """Compares a file's outputs with Keras'.

    Args:
        received: What the file answered, in float.
        model: The float32 model it was made from.
        signature: The signature of ``model``.
        batch: One array per input.
        limits: Of a quantized file. A float file has to agree up to rounding.
        expected: What a quantized file should answer on a batch.

    Returns:
        ``max_difference``, ``tolerance``, ``error`` and ``top1``, as in
        `ExportReport`.

    Raises:
        ExportError: If an output is further from Keras' than allowed, or if the
            comparison could not have failed.
    """
    if limits is None:
        return _compare_float(received, model, signature, batch)
    return _compare_quantized(received, expected(batch), model, signature, limits)


def _compare_float(
    received: list[np.ndarray],
    model: keras.Model,
    signature: Signature,
    batch: list[np.ndarray],
) -> dict[str, Any]:
    try:
        found = agree(model, batch, received, signature.outputs, "the converted model")
    except Disagreement as error:
        raise ExportError(f"{error} Nothing was written.") from error
    if found.blind:
        raise ExportError(
            f"The outputs of model {model.name!r} move by more than "
            f"{found.tolerance / 10:.1e} of their scale when its weights are rounded "
            "differently, which leaves nothing to compare: pass `data` that is like "
            "the model's own, or verify=False. Nothing was written."
        )
    return {"max_difference": found.difference, "tolerance": found.tolerance}


def _compare_quantized(
    received: list[np.ndarray],
    expected: list[np.ndarray],
    model: keras.Model,
    signature: Signature,
    limits: Limits,
) -> dict[str, Any]:
    difference = error = 0.0
    top1s: list[float] = []
    for name, want, got in zip(signature.outputs, expected, received, strict=True):
        if want.shape != got.shape or not np.isfinite(got).all():
            raise ExportError(
                f"Output {name!r} of the quantized model is not finite, or has the "
                f"shape {got.shape[1:]} per example instead of {want.shape[1:]}. "
                "Nothing was written."
            )
        want, got = want.astype("float64"), got.astype("float64")
        apart = np.abs(want - got)
        scale = np.abs(want).max(initial=0) or 1.0
        difference = max(difference, float(apart.max(initial=0) / scale))
        spread = _rms(want - want.mean(axis=0)) or scale
        share = float(_rms(apart) / spread)
        error = max(error, share)
        top1 = None
        if want.ndim > 1 and want.shape[-1] > 1:
            top1 = float(np.mean(want.argmax(-1) == got.argmax(-1)))
            top1s.append(top1)
        if share > limits.max_error or (top1 is not None and top1 < limits.min_top1):
            agreement = "" if top1 is None else f" and agrees in {top1:.1%} of top-1"
            raise ExportError(
                f"Output {name!r} of the quantized model differs from that of model "
                f"{model.name!r} by {share:.1%} of how far it varies{agreement} "
                f"(allowed: max_error={limits.max_error:g}, "
                f"min_top1={limits.min_top1:g}). Calibrate on `representative_data` "
                "like what the model was trained on, and scaled in the same way, "
                "quantize less, or raise the limits. Nothing was written."
            )
    return {
        "max_difference": difference,
        "tolerance": None,
        "error": error,
        "top1": min(top1s, default=None),
    }


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def run(
    content: bytes,
    signature: Signature,
    batch: list[np.ndarray],
    batch_size: int | None = 1,
) -> list[np.ndarray]:
    """Runs a .tflite file through its signature.

    Args:
        content: The bytes of the .tflite file.
        signature: The names of its inputs and outputs.
        batch: One array per input, in float where Keras' input is.
        batch_size: Examples per inference; None if the file leaves it open.

    Returns:
        One array per output, in the order of ``signature.outputs``; 8-bit outputs are
        back in float.

    Raises:
        ExportError: If the file lacks the signature, or fails to run.
    """
    litert = required("ai_edge_litert.interpreter", "Running a TFLite file", "litert")

    count = len(batch[0])
    # Of an open size two are tried: that of a few examples, and what is left of them.
    size = batch_size or min(64, max(1, (2 * count) // 3))
    results: list[dict[str, Any]] = []
    with silence():
        try:
            runner = litert.Interpreter(model_content=content).get_signature_runner()
            ins, outs = runner.get_input_details(), runner.get_output_details()
            for start in range(0, count, size):
                stop = min(start + size, count)
                rows = np.arange(start, stop if batch_size is None else start + size)
                # The last batch is filled up with examples that were seen before.
                result = runner(
                    **{
                        name: quantized(array[rows % count], ins[name])
                        for name, array in zip(signature.inputs, batch, strict=True)
                    }
                )
                results.append(
                    {
                        name: dequantized(array[: stop - start], outs[name])
                        for name, array in result.items()
                    }
                )
        except (ValueError, RuntimeError, KeyError) as error:
            raise ExportError(
                f"The converted model does not run: {error}. Nothing was written."
            ) from error
    if set(results[0]) != set(signature.outputs):
        raise ExportError(
            f"The converted model has the outputs {sorted(results[0])}, not "
            f"{sorted(signature.outputs)}. Nothing was written."
        )
    return [
        np.concatenate([result[name] for result in results])
        for name in signature.outputs
    ]


def quantized(array: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """A float array as a tensor of a file takes it, by the interpreter's details."""
    scale, zero = tensor["quantization"]
    if not scale or array.dtype.kind != "f":
        return array.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    levels = np.round(array / scale) + zero
    return np.clip(levels, limits.min, limits.max).astype(tensor["dtype"])


def dequantized(array: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """What an array that a file made stands for."""
    scale, zero = tensor["quantization"]
    if not scale:
        return array
    return ((array.astype("float32") - zero) * scale).astype("float32")
