"""Is a stripped model what was promised: plain, of the planned size, and equal?"""

from __future__ import annotations

import warnings
from typing import Any

import keras

from keras_l0.analysis.batches import arrays, random_arrays
from keras_l0.analysis.evaluation import Evaluation
from keras_l0.analysis.passes import Analysis
from keras_l0.analysis.precision import computes_in_half, in_float32
from keras_l0.analysis.rounding import Disagreement, agree, outputs, storage_epsilon
from keras_l0.layers import find_gates

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
            stacklevel=4,
        )


def require_plain(analysis: Analysis, stripped: keras.Model) -> None:
    """Raises if a gate is left, inside a layer that could not be looked through."""
    reasons = {step.node.name: step.rule.reason for step in analysis.steps}
    for layer in stripped.layers:
        if find_gates(layer):
            raise ValueError(
                f"While stripping {layer.name!r} ({type(layer).__name__}): there are "
                f"gates inside, and it is a barrier: {reasons.get(layer.name)}. "
                "Gate it from outside with an `L0Gate`, or, if it is a layer of your "
                "own, register a rule with `keras_l0.register_strip_rule`."
            )


def require_promised(
    analysis: Analysis, evaluation: Evaluation, stripped: keras.Model
) -> None:
    """Raises unless the model is of the planned size; rules that miscount are named."""
    promised = round(float(evaluation.total.params))
    if stripped.count_params() == promised:
        return
    built = {layer.name: layer.count_params() for layer in stripped.layers}
    miscounted = [
        f"{name!r} ({type(step.node.operation).__name__}) has {built[name]}, not the "
        f"{size} of its rule {type(step.rule).__name__}"
        for step, sizes in zip(analysis.steps, evaluation.sizes, strict=True)
        if not step.node.shared
        and (name := step.node.name) in built
        and (size := sizes.whole().params) != built[name]
    ]
    raise RuntimeError(
        f"strip built a model of {stripped.count_params()} parameters where its plan "
        f"promised {promised}: {'; '.join(miscounted) or 'no layer differs'}. If such "
        "a rule is yours, mend its `size` or its `rewrite`; otherwise please report "
        "this with the model."
    )
