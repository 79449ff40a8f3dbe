"""Are two models the same function, but for rounding?

The yardstick is the model's own rounding: how far its outputs move when every weight is
off by one unit in the last place of the precision that it computes in.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

_EPSILON = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}
_MARGIN = 10.0


def example_batch(model: keras.Model, size: int = 8) -> Any:
    """A random batch of the model's input structure."""
    generator = np.random.default_rng(0)

    def example(tensor: Any) -> np.ndarray:
        shape = (size, *(d or 8 for d in tensor.shape[1:]))
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if "float" in dtype:
            return generator.normal(size=shape).astype(
                "float32" if dtype == "bfloat16" else dtype
            )
        return generator.integers(0, 2, size=shape).astype(dtype)

    if isinstance(model, keras.Sequential):
        return example(model.inputs[0])
    return keras.tree.map_structure(example, model.input)


def outputs(model: keras.Model, batch: Any) -> list[np.ndarray]:
    """The model's test-time outputs, flat, as float64."""
    return _flat(model(_tensors(batch), training=False))


def rounding_floor(model: keras.Model, batch: Any) -> list[float]:
    """For each output the largest change under a rounding error in every weight."""
    generator = np.random.default_rng(0)
    epsilon = max(
        _EPSILON.get(layer.compute_dtype, 0.0)
        for layer in model._flatten_layers(include_self=True)
    )

    def disturbed(variable: Any) -> Any:
        values = keras.ops.convert_to_numpy(variable)
        if not np.issubdtype(values.dtype, np.floating):
            return variable.value
        noise = generator.uniform(-epsilon, epsilon, values.shape)
        return keras.ops.convert_to_tensor(values * (1 + noise), dtype=variable.dtype)

    moved, _ = model.stateless_call(
        [disturbed(v) for v in model.trainable_variables],
        [disturbed(v) for v in model.non_trainable_variables],
        _tensors(batch),
        training=False,
    )
    pairs = zip(_flat(moved), outputs(model, batch), strict=True)
    return [max(_largest(new - old), epsilon * _largest(old)) for new, old in pairs]


def compare(
    model: keras.Model, other: keras.Model, batch: Any, other_batch: Any, what: str
) -> float:
    """Raises unless two models agree on a batch; the largest difference / tolerance.

    Args:
        model: The reference.
        other: The other model.
        batch: What the reference is run on.
        other_batch: What the other is run on.
        what: How to call the other model in an error.
    """
    worst = 0.0
    floors = rounding_floor(model, batch)
    pairs = zip(outputs(model, batch), outputs(other, other_batch), floors, strict=True)
    for number, (old, new, floor) in enumerate(pairs):
        difference = _largest(np.where(old == new, 0.0, new - old))
        tolerance = _MARGIN * floor
        if not difference <= tolerance:
            raise RuntimeError(
                f"{what} disagrees with the source model {model.name!r}: output "
                f"{number} differs by up to {difference:.3g}, where rounding explains "
                f"{tolerance:.3g}. Please report this with the model."
            )
        worst = max(worst, difference / tolerance if tolerance else 0.0)
    return worst


def _tensors(batch: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_tensor, batch)


def _flat(outputs: Any) -> list[np.ndarray]:
    return [
        np.asarray(
            keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))
            if keras.backend.standardize_dtype(y.dtype) == "bfloat16"
            else keras.ops.convert_to_numpy(y),
            dtype="float64",
        )
        for y in keras.tree.flatten(outputs)
    ]


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0.0))
