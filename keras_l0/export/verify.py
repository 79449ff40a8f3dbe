"""Runs a .tflite file and compares it with the Keras model that it was made from."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.analysis.rounding import Agreement, Disagreement, agree
from keras_l0.export.report import ExportError
from keras_l0.export.signature import Signature
from keras_l0.export.silence import silence


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
        ExportError: If an output differs by more than rounding explains, if the
            comparison could not have failed, or if the file does not run.
    """
    received = run(content, signature, batch)
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
    return found


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
