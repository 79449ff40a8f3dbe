"""Which operations of a file the Edge TPU runs, without Google's compiler.

The rules are those of Coral's "TensorFlow models on the Edge TPU". What the compiler
decides by size alone ("certain reshapes might not be mapped") is not foreseen here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_l0.export.flatbuffer import Op, Tensor

_SOFTMAX_SIZE = 16_000
_INNERMOST = 3


def why_not(op: Op) -> str | None:
    """Why the Edge TPU would not run an operation, or None if it would."""
    if op.name not in _LIMITS:
        return "the Edge TPU has no such operation"
    for tensor in (*op.inputs, *op.outputs):
        if tensor is not None and (reason := _bad_tensor(tensor)):
            return reason
    return _LIMITS[op.name](op)


def _bad_tensor(tensor: Tensor) -> str | None:
    if tensor.constant:
        allowed: tuple[str, ...] = ("INT8", "UINT8", "INT32")
    else:
        allowed = ("INT8", "UINT8")
    if tensor.dtype not in allowed:
        return f"it takes 8-bit tensors, and one is {tensor.dtype}"
    if -1 in tensor.shape:
        return f"sizes must be constant, and one tensor has the shape {tensor.shape}"
    if not tensor.constant and any(n > 1 for n in tensor.shape[:-_INNERMOST]):
        return (
            "only the three innermost dimensions may be above 1, and one tensor has "
            f"the shape {tensor.shape}"
        )
    return None


def _fine(op: Op) -> str | None:
    return None


def _not_fused(op: Op) -> str | None:
    if op.options is not None and op.options.fusedActivationFunction:
        return "no activation may be fused into it"
    return None


def _concatenation(op: Op) -> str | None:
    constants = [
        tensor for tensor in op.inputs if tensor is not None and tensor.constant
    ]
    if constants and (len(op.inputs) != 2 or any(t.value.any() for t in constants)):
        return "of constants it takes one, all zeros, beside one other input"
    return _not_fused(op)


def _dilation(op: Op) -> str | None:
    if op.options.dilationWFactor != op.options.dilationHFactor:
        return "the dilation must be the same in both directions"
    return None


def _fully_connected(op: Op) -> str | None:
    if op.options.weightsFormat:
        return "its weights must be in the default format"
    if any(n > 1 for n in op.outputs[0].shape[:-1]):
        return f"its output must be one vector, not of shape {op.outputs[0].shape}"
    return None


def _integers(tensor: Tensor | None) -> np.ndarray | None:
    """The values of a constant of int32."""
    if tensor is None or not tensor.constant:
        return None
    return np.frombuffer(np.asarray(tensor.value, "uint8").tobytes(), "<i4")


def _reduction(op: Op) -> str | None:
    axes = _integers(op.inputs[1])
    rank = len(op.inputs[0].shape) if op.inputs[0] is not None else 0
    if axes is None or 0 in axes % rank:
        return "it must not reduce over the batch"
    return None


def _mean(op: Op) -> str | None:
    shape = op.inputs[0].shape if op.inputs[0] is not None else ()
    axes = _integers(op.inputs[1])
    if axes is not None and len(shape) == 4 and 3 in axes % 4 and shape[-1] % 4:
        return "over channels it takes a multiple of 4 of them"
    return _reduction(op)


def _pack(op: Op) -> str | None:
    rank = len(op.outputs[0].shape)
    return "it must not act on the batch" if op.options.axis % rank == 0 else None


def _pad(op: Op) -> str | None:
    amounts = _integers(op.inputs[1])
    return "it must not pad the batch" if amounts is None or any(amounts[:2]) else None


def _prelu(op: Op) -> str | None:
    alpha = op.inputs[1]
    if alpha is None or any(n > 1 for n in alpha.shape[:-1]):
        return "there must be one slope per channel: PReLU(shared_axes=[1, 2])"
    return None


def _softmax(op: Op) -> str | None:
    shape = op.outputs[0].shape
    if any(n > 1 for n in shape[:-1]) or shape[-1] > _SOFTMAX_SIZE:
        return f"it takes one vector of at most {_SOFTMAX_SIZE} entries, not {shape}"
    return None


def _split(op: Op) -> str | None:
    axis = _integers(op.inputs[0])
    rank = len(op.outputs[0].shape)
    if axis is None or axis[0] % rank == 0:
        return "it must not split the batch"
    return None


def _squeeze(op: Op) -> str | None:
    before = op.inputs[0].shape if op.inputs[0] is not None else ()
    kept = [n for n in before if n > 1]
    if list(op.outputs[0].shape)[-len(kept) :] != list(before)[-len(kept) :]:
        return "only leading dimensions may be removed"
    return None


def _strided_slice(op: Op) -> str | None:
    strides = _integers(op.inputs[3])
    if strides is None or any(strides != 1):
        return "all strides must be 1"
    if op.options.ellipsisMask or op.options.newAxisMask:
        return "it must add no dimension"
    return None


_LIMITS: dict[str, Callable[[Op], Any]] = {
    **dict.fromkeys(
        (
            "ADD", "EXPAND_DIMS", "L2_NORMALIZATION", "LOGISTIC", "MAXIMUM",
            "MINIMUM", "MUL", "QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE",
            "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE",
            "SPACE_TO_DEPTH", "SQUARED_DIFFERENCE", "SUB", "TANH", "TRANSPOSE",
            "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM",
        ),
        _fine,
    ),
    "AVERAGE_POOL_2D": _not_fused,
    "CONCATENATION": _concatenation,
    "CONV_2D": _dilation,
    "DEPTHWISE_CONV_2D": _dilation,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": _not_fused,
    "MEAN": _mean,
    "PACK": _pack,
    "PAD": _pad,
    "PRELU": _prelu,
    "REDUCE_MAX": _reduction,
    "REDUCE_MIN": _reduction,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "SUM": _reduction,
}  # fmt: skip
