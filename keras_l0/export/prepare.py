"""What happens to a model, to data and to labels before the conversion."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.batches import arrays, random_arrays
from keras_l0.analysis.precision import in_float32
from keras_l0.export.options import Options
from keras_l0.export.report import ExportError
from keras_l0.export.representative import require_finite_data
from keras_l0.export.silence import silence
from keras_l0.export.sparse import BLOCK, block_gated, has_zeros
from keras_l0.export.unroll import unrolled
from keras_l0.layers import find_gates
from keras_l0.packages import missing, required
from keras_l0.stripping import strip

# Random ones, where a model comes without data of its own.
_EXAMPLES = 16


def check_packages() -> None:
    """Finds out now what is missing; TensorFlow itself may be a child's affair."""
    needed = ["ai_edge_litert"]
    if keras.backend.backend() == "tensorflow":
        needed.append("tensorflow")
    elif importlib.util.find_spec("tensorflow") is None:
        raise missing("tensorflow", "Export, on every backend,", "tensorflow")
    for module in needed:
        with silence():
            required(module, "Export", "tensorflow")


def plain_form(
    model: keras.Model, inputs: str, options: Options
) -> tuple[keras.Model, Options]:
    """The model without gates, functional, in a form that the converter takes."""
    gated = model
    if find_gates(gated):
        model = strip(gated, inputs)
        if options.sparse and has_zeros(model):
            # Blocks of inputs have to stay side by side, and to fill the width.
            model = strip(gated, inputs, keep=block_gated(gated), round_to=BLOCK)
    if options.sparse and not has_zeros(model):
        warnings.warn(
            "sparse=True stores no kernel without its zeros here: none is mostly "
            "zeros, as those of gates on weights or blocks become.",
            stacklevel=3,
        )
        options = dataclasses.replace(options, sparse=False)
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    stateful = [
        layer.name
        for layer in model._flatten_layers(include_self=False)
        if getattr(layer, "stateful", False)
    ]
    if stateful:
        raise ExportError(
            "A .tflite file keeps no state between inferences, as stateful layers do: "
            f"{', '.join(map(repr, stateful))}. Build them with stateful=False. "
            "Nothing was written."
        )
    fixed = {tensor.shape[0] for tensor in model.inputs} - {None}
    if fixed:
        options = dataclasses.replace(options, batch_size=max(fixed))
    try:
        # TFLite runs float32; the converter fails on half precision.
        model = in_float32(model)
        if options.int8 or options.batch_size is None:
            model = unrolled(model)
    except ValueError as error:
        raise ExportError(f"{error}. Nothing was written.") from error
    return model, options


def comparison_batch(
    model: keras.Model, data: Any = None, names: Sequence[str] = ()
) -> list[np.ndarray]:
    """Examples to compare a model and its file on: those given, or random ones.

    Args:
        model: A functional model.
        data: Examples in any form that ``model.predict`` takes, or None.
        names: Other names of the inputs that a dict may go by.

    Raises:
        ValueError: If they do not fit the model, or hold NaN.
    """
    if data is None:
        return random_arrays(model, _EXAMPLES)
    batch = arrays(model, data, names)
    require_finite_data("data", model, batch)
    return batch


def one_per_example(labels: Any) -> np.ndarray:
    """Labels, one-hot ones included, as one class per example."""
    classes = np.asarray(labels)
    if classes.ndim == 2:
        return classes.argmax(-1) if classes.shape[-1] > 1 else classes[:, 0]
    return classes


def class_indices(
    model: keras.Model, data: Any, labels: Any, examples: int
) -> np.ndarray | None:
    """Labels as one integer per example."""
    if labels is None:
        return None
    classes = one_per_example(labels)
    one = len(model.outputs) == 1 and len(model.outputs[0].shape) == 2
    fits = data is not None and one and classes.shape == (examples,)
    if not fits or not _indices(classes, model.outputs[0].shape[-1]):
        raise ValueError(
            "`labels` must hold the class of each example in `data`, a number from 0 "
            "or one-hot, for a model with one output of shape (n, classes). Received: "
            f"labels of shape {np.shape(labels)} and dtype {np.asarray(labels).dtype}, "
            f"{'no' if data is None else examples} examples, "
            f"outputs of shape {[tuple(t.shape) for t in model.outputs]}"
        )
    return classes


def _indices(classes: np.ndarray, count: int) -> bool:
    """Whether all are whole numbers below a count."""
    if classes.dtype.kind not in "biuf":
        return False
    return bool(np.isin(classes, np.arange(count)).all())
