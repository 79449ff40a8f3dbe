"""Inputs and outputs of a model: their names in a file, and data in their order."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

# A model without data of its own is compared with its file on this many examples.
_EXAMPLES = 16


@dataclasses.dataclass(frozen=True)
class Signature:
    """How a functional model is called, flat and in Keras' order.

    Attributes:
        inputs: Names of the inputs in the file.
        outputs: Names of the outputs in the file.
        keys: What Keras calls the inputs: keys of a dict, or names of tensors.
        shapes: Shapes of the inputs without the batch dimension.
        dtypes: Their dtypes.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    keys: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    @classmethod
    def of(cls, model: keras.Model) -> Signature:
        """The signature of a functional model.

        Raises:
            ValueError: If a size other than the batch's is unknown, or an input is
                neither numeric nor boolean.
        """
        for tensor in model.inputs:
            if None in tensor.shape[1:]:
                raise ValueError(
                    "`model` must have inputs of known sizes, because a .tflite file "
                    "has; only the batch may be None. Received: input "
                    f"{tensor.name!r} of shape {tuple(tensor.shape)}"
                )
            if tensor.dtype == "string":
                raise ValueError(
                    "`model` must have numeric inputs. "
                    f"Received: input {tensor.name!r} of dtype 'string'"
                )
        layers = [tensor._keras_history.operation.name for tensor in model.inputs]
        tensors = [tensor.name for tensor in model.inputs]
        return cls(
            inputs=_file_names(_keys(model.input, layers)),
            outputs=_file_names(_keys(model.output, model.output_names)),
            keys=tuple(_keys(model.input, tensors)),
            shapes=tuple(tuple(tensor.shape[1:]) for tensor in model.inputs),
            dtypes=tuple(tensor.dtype for tensor in model.inputs),
        )

    def arrays(self, data: Any) -> list[np.ndarray]:
        """Data in any form that ``model.predict`` takes as one array per input.

        Args:
            data: An array, or a list or a dict of them.

        Raises:
            ValueError: If the arrays do not fit the inputs.
        """
        leaves = self._leaves(data)
        expected = ", ".join(
            f"{key}: (n, {', '.join(map(str, shape))})"
            for key, shape in zip(self.keys, self.shapes, strict=True)
        )
        arrays = [np.asarray(leaf) for leaf in leaves]
        if not (
            len(arrays) == len(self.shapes)
            and all(array.dtype.kind in "biuf" for array in arrays)
            and all(
                array.shape[1:] == shape and array.ndim == len(shape) + 1
                for array, shape in zip(arrays, self.shapes, strict=True)
            )
            and len({len(array) for array in arrays}) == 1
            and len(arrays[0]) > 0
        ):
            received = ", ".join(f"{array.dtype}{array.shape}" for array in arrays)
            raise ValueError(
                "`data` must hold one array per input, with one and the same number "
                f"of examples n > 0: {expected}. Received: {received}"
            )
        return [
            array.astype(dtype)
            for array, dtype in zip(arrays, self.dtypes, strict=True)
        ]

    def random_arrays(self, vocabulary: int | None) -> list[np.ndarray]:
        """A random batch of the inputs' shapes and dtypes, the same at every call.

        Args:
            vocabulary: What integer inputs must stay below. None where nothing is
                looked up: uint8 then covers its range, as images do.
        """
        rng = np.random.default_rng(0)
        arrays = []
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            size = (_EXAMPLES, *shape)
            if keras.backend.is_float_dtype(dtype):
                arrays.append(rng.normal(size=size).astype(dtype))
            else:
                high = 2 if dtype == "bool" else 256 if dtype == "uint8" else 2
                arrays.append(rng.integers(vocabulary or high, size=size).astype(dtype))
        return arrays

    def _leaves(self, data: Any) -> list[Any]:
        if _is_flat_dict(data):
            for keys in (self.keys, self.inputs):
                if all(key in data for key in keys):
                    return [data[key] for key in keys]
            raise ValueError(
                f"`data` must hold the inputs {', '.join(map(repr, self.keys))}. "
                f"Received: a dict with the keys {', '.join(map(repr, data))}"
            )
        return keras.tree.flatten(data)


def _keys(structure: Any, names: Sequence[str]) -> list[str]:
    """What Keras calls the tensors of a structure: a dict's keys, or else ``names``."""
    if not _is_flat_dict(structure):
        return list(names)
    position = keras.tree.pack_sequence_as(structure, list(range(len(names))))
    return sorted(structure, key=position.__getitem__)


def _is_flat_dict(value: Any) -> bool:
    return isinstance(value, dict) and not any(
        isinstance(item, (dict, list, tuple)) for item in value.values()
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
