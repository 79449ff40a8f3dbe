"""What a head of an attention layer, or a dimension of it, takes with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

# The projections of Keras' attention layers, by the names that they give them.
INPUTS = ("query", "key", "value", "gate")
OUTPUT = "attention_output"


def slice_heads(
    weights: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    heads: np.ndarray,
    key_dims: np.ndarray,
    value_dims: np.ndarray,
) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, np.ndarray | None]]]:
    """The weights of an attention layer without some heads and dimensions.

    Exact where what goes is 0: a head or value dimension in the value or the output
    projection, a key dimension in the query or the key projection.

    Args:
        weights: For each projection (see `projections`) kernel and bias or None.
        heads: The query heads to keep, bool, shape (heads,).
        key_dims: The query/key dimensions to keep, bool, shape (key heads, key_dim).
            The key heads are all heads, or groups of them in grouped-query attention.
        value_dims: The value dimensions to keep, bool, shape (key heads, value_dim).
            Grouped-query attention has one number for both: keep equally many.

    Returns:
        The numbers (``heads``, ``key_heads``, ``key_dim``, ``value_dim``) that are
        left, and the sliced weights.

    Raises:
        ValueError: If key heads are not left with equally many dimensions and heads.
    """
    group = np.repeat(np.arange(len(key_dims)), len(heads) // len(key_dims))
    queries = np.flatnonzero(heads)
    keys, sizes = np.unique(group[queries], return_counts=True)
    for what, counts in (
        ("heads", sizes),
        ("key dimensions", key_dims[keys].sum(axis=1)),
        ("value dimensions", value_dims[keys].sum(axis=1)),
    ):
        if len(set(counts.tolist())) != 1 or counts[0] == 0:
            raise ValueError(
                f"Every key head must be left with equally many {what}. "
                f"Received: {counts.tolist()}"
            )
    plans = {
        "query": (queries, key_dims[group[queries]]),
        "key": (keys, key_dims[keys]),
        "value": (keys, value_dims[keys]),
        "gate": (queries, value_dims[group[queries]]),
        OUTPUT: (queries, value_dims[group[queries]]),
    }
    key_dim, value_dim = int(key_dims[keys[0]].sum()), int(value_dims[keys[0]].sum())
    sliced = {}
    for name, (kernel, bias) in weights.items():
        chosen, dims = plans[name]
        at = (chosen[:, None], np.nonzero(dims)[1].reshape(len(chosen), -1))
        if name == OUTPUT:
            sliced[name] = (kernel[at], bias)
            continue
        root = _scale(key_dims.shape[1]) / _scale(key_dim) if name == "query" else 1.0
        new_bias = None if bias is None else bias[at] * root
        sliced[name] = (kernel[(slice(None), *at)] * root, new_bias)
    left = {
        "heads": len(queries),
        "key_heads": len(keys),
        "key_dim": key_dim,
        "value_dim": value_dim,
    }
    return left, sliced


def _scale(key_dim: int) -> float:
    """What Keras multiplies scores by: it rounds that to float32."""
    return float(np.float32(1.0 / math.sqrt(key_dim)))
