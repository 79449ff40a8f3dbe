"""Inputs and outputs of a model as a file names them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import keras

from keras_l0.analysis.batches import structure_keys


@dataclasses.dataclass(frozen=True)
class Signature:
    """How a functional model is called, flat and in Keras' order.

    Attributes:
        inputs: Names of the inputs in the file.
        outputs: Names of the outputs in the file.
        shapes: Shapes of the inputs without the batch dimension.
        dtypes: Their dtypes.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    @classmethod
    def of(cls, model: keras.Model) -> Signature:
        """The signature of a functional model.

        Raises:
            ValueError: If a size other than the batch's is unknown, an input is
                neither numeric nor boolean, or an output has no batch.
        """
        for tensor, name in zip(model.outputs, model.output_names, strict=True):
            if not tensor.shape:
                raise ValueError(
                    "`model` must have outputs with one row per example. Received: "
                    f"output {name!r}, one number for the whole batch"
                )
        for tensor in model.inputs:
            if None in tensor.shape[1:]:
                raise ValueError(
                    "`model` must have inputs of known sizes, because a .tflite file "
                    "has; only the batch may be None. Received: input "
                    f"{tensor.name!r} of shape {tuple(tensor.shape)}. Give it sizes: "
                    "x = keras.Input(shape); keras.Model(x, model(x))"
                )
            if tensor.dtype == "string":
                raise ValueError(
                    "`model` must have numeric inputs. "
                    f"Received: input {tensor.name!r} of dtype 'string'"
                )
        layers = [tensor._keras_history.operation.name for tensor in model.inputs]
        return cls(
            inputs=_file_names(structure_keys(model.input, layers)),
            outputs=_file_names(structure_keys(model.output, model.output_names)),
            shapes=tuple(tuple(tensor.shape[1:]) for tensor in model.inputs),
            dtypes=tuple(tensor.dtype for tensor in model.inputs),
        )


def _file_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names that TensorFlow accepts and keeps: letters, digits, ``_``; no two alike."""
    result: list[str] = []
    for name in names:
        name = re.sub(r"[^A-Za-z0-9_]", "_", str(name))
        if not name[:1].isalpha():
            name = f"tensor_{name}"
        unique, count = name, 0
        while unique in result:
            count += 1
            unique = f"{name}_{count}"
        result.append(unique)
    return tuple(result)
