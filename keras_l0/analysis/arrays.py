"""Tensors and weights of any backend as NumPy arrays."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def float64(values: Any) -> np.ndarray:
    """Numbers in float64, to compute with; a copy."""
    return np.array(keras.ops.convert_to_numpy(values), dtype="float64")


def native(values: Any) -> np.ndarray:
    """Values in their own dtype; bfloat16, which NumPy lacks, becomes float32."""
    if keras.backend.standardize_dtype(values.dtype) == "bfloat16":
        values = keras.ops.cast(values, "float32")
    return keras.ops.convert_to_numpy(values)
