"""Does a stripped model compute what its source does? A batch is put through both."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from keras_l0.analysis.batches import arrays, random_arrays
from keras_l0.analysis.passes import Analysis, Evaluation
from keras_l0.analysis.precision import computes_in_half, in_float32
from keras_l0.analysis.rounding import Disagreement, agree, outputs, storage_epsilon

# Examples to compare the old and the new model on, if the user gives none.
_EXAMPLES = 8


def verify_equal(
    analysis: Analysis,
    evaluation: Evaluation,
    stripped: keras.Model,
    data: Any,
    what: str = "the stripped model",
) -> None:
    """Raises unless the stripped model agrees with its source on a batch."""
    model = analysis.graph.model
    batch = random_arrays(model, _EXAMPLES) if data is None else arrays(model, data)
    stored = storage_epsilon(stripped)
    if computes_in_half(model):
        # In 16 bits rounding hides everything: compare the same graphs in 32.
        try:
            model, stripped = in_float32(model), in_float32(stripped)
        except ValueError:  # a layer that Keras cannot make anew
            pass
    narrow = [
        array[..., evaluation.keep[slot] > 0]
        if analysis.channels[slot].axis is not None
        else array
        for array, slot in zip(batch, analysis.input_slots, strict=True)
    ]
    names = [
        getattr(tensor.producer, "name", "input") for tensor in analysis.graph.outputs
    ]
    try:
        received = outputs(stripped, narrow)
        found = agree(model, batch, received, names, what, stored)
    except Disagreement:
        raise
    except Exception as error:
        raise RuntimeError(
            f"Model {model.name!r} could not be run to compare it with {what}: "
            f"{error}\nPass `data` that it takes, or `verify=False` if it "
            "cannot be run here at all."
        ) from error
    if found.blind:
        warnings.warn(
            f"Rounding alone moves the outputs of model {model.name!r} so far on these "
            f"inputs that comparing it with {what} shows nothing: pass `data` that "
            "is like the model's own.",
            stacklevel=3,
        )
