"""Weights that are mostly 0, stored without the zeros."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.export.flatbuffer import Op
from keras_l0.export.report import ExportError

# Inputs of a block in TFLite's encoding.
BLOCK = 4
# The converter stores a tensor without its zeros if .6 of it are 0.
_WORTH = 0.5


def zero_share(model: keras.Model) -> float:
    """Share of a model's kernels and tables, all in all, that is 0."""
    kernels = _kernels(model)
    total = sum(kernel.size for kernel in kernels)
    return sum(int((kernel == 0).sum()) for kernel in kernels) / max(1, total)


def has_zeros(model: keras.Model) -> bool:
    """Whether the converter may store a kernel of a model without its zeros."""
    return any((kernel == 0).mean() > _WORTH for kernel in _kernels(model))


def _kernels(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(w) for w in model.get_weights() if w.ndim > 1]


def block_gated(model: keras.Model) -> list[str]:
    """Names of the layers in which a gate switches several weights, but no unit."""
    return [
        layer.name
        for layer in model._flatten_layers(include_self=False)
        if getattr(layer, "block", None) not in (None, (1, 1))
    ]


def check_sparse(ops: list[Op]) -> None:
    """Refuses what LiteRT computes wrongly, in silence.

    Raises:
        ExportError: If a fully connected operation skips blocks of zeros that do not
            fill its inputs.
    """
    for op in ops:
        for tensor in op.inputs[1:]:
            if _skips(op) and tensor and tensor.shape[-1] % tensor.block:
                raise ExportError(
                    f"sparse=True gives {op} weights in blocks of {tensor.block} "
                    f"inputs, of which it has {tensor.shape[-1]}: LiteRT computes that "
                    f"wrongly. Make the inputs a multiple of {tensor.block} (by "
                    f"keras_l0.strip(model, round_to={tensor.block}), for one), or "
                    "export with sparse=False. Nothing was written."
                )


def sparse_counts(ops: list[Op]) -> dict[str, Any]:
    """``sparse`` and ``skipping`` of an `ExportReport`."""
    tensors = [tensor for op in ops for tensor in op.inputs if tensor is not None]
    return {
        "sparse": len({id(tensor) for tensor in tensors if tensor.sparse}),
        "skipping": sum(_skips(op) for op in ops),
    }


def _skips(op: Op) -> bool:
    """Whether the operation itself reads sparse weights, and skips blocks of zeros.

    All others get them as a dense tensor from a DENSIFY operation.
    """
    return op.name == "FULLY_CONNECTED" and any(
        tensor is not None and tensor.sparse for tensor in op.inputs
    )
