"""What a .tflite file holds, read from its flatbuffer, without TensorFlow."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from keras_l0.packages import required

# Between these a file may hold float: they are its borders.
_BORDERS = ("QUANTIZE", "DEQUANTIZE")
# The converter gives a range of 0 a scale of 7.8e-9.
_SMALLEST_SCALE = 1e-8
_FLOATS = ("FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        name: The names of the TensorFlow operations that it comes from.
        shape: Its shape, the batch included; -1 is a size that is open.
        dtype: As in the schema, ``"INT8"`` for instance.
        scale: Of a quantized tensor, what one step stands for; the smallest of several.
        value: Its bytes if it is a constant, or None.
        sparse: Whether it is a constant that is stored without its zeros.
        block: How many neighbours on the last axis are stored or left out together.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    value: Any = dataclasses.field(default=None, repr=False, compare=False)
    sparse: bool = False
    block: int = 1

    @property
    def constant(self) -> bool:
        """Whether its value lies in the file."""
        return self.value is not None


@dataclasses.dataclass(frozen=True)
class Op:
    """An operation of a file.

    Attributes:
        name: As in the schema, ``"CONV_2D"``; a custom one under its own name.
        inputs: What it reads; None stands for an optional input that is missing.
        outputs: What it makes.
        options: Its options as the schema has them, or None.
        layers: Names of the Keras layers that it comes from, as far as is known.
        subgraph: 0 for the main graph; others are bodies of loops and branches.
    """

    name: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Any = dataclasses.field(default=None, repr=False, compare=False)
    layers: tuple[str, ...] = ()
    subgraph: int = 0

    def __str__(self) -> str:
        if not self.layers:
            return self.name
        return f"{self.name} (layer {', '.join(map(repr, self.layers))})"


def is_tflite(path: str | os.PathLike[str]) -> bool:
    """Whether a file bears the mark of .tflite files.

    Raises:
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
        return file.read(8)[4:] == b"TFL3"


def read_ops(
    content: bytes,
    layers: Iterable[str] = (),
    outputs: Mapping[str, str] | None = None,
) -> list[Op]:
    """The operations of a .tflite file, over all its subgraphs, in their order.

    Args:
        content: The file's bytes.
        layers: Names of the layers of the model that it was made from.
        outputs: Name of an output in the file -> name of the layer that makes it.
    """
    schema = required(
        "ai_edge_litert.schema_py_generated", "Reading a TFLite file", "litert"
    )

    builtin_names = _names(schema.BuiltinOperator)
    dtypes = _names(schema.TensorType)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    codes = []
    for code in model.operatorCodes:
        # Codes below 127 used to live in a byte of their own.
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = builtin == schema.BuiltinOperator.CUSTOM
        codes.append(code.customCode.decode() if custom else builtin_names[builtin])
    known = set(layers)
    ops = []
    for number, graph in enumerate(model.subgraphs):
        tensors = []
        for tensor in graph.tensors:
            open_shape = tensor.shapeSignature
            shape = tensor.shape if open_shape is None else open_shape
            tensors.append(
                Tensor(
                    (tensor.name or b"").decode(),
                    () if shape is None else tuple(int(size) for size in shape),
                    dtypes[tensor.type],
                    _scale(tensor.quantization),
                    model.buffers[tensor.buffer].data,
                    tensor.sparsity is not None,
                    _block(tensor.sparsity),
                )
            )
        made_by = {} if number else _output_layers(model, outputs or {})
        for op in graph.operators or ():
            ins = tuple(tensors[i] if i >= 0 else None for i in op.inputs)
            outs = tuple(tensors[i] for i in op.outputs)
            found = _layers((tensor.name for tensor in outs), known)
            if not found:
                constants = (t.name for t in ins if t is not None and t.constant)
                found = _layers(constants, known)
            if not found:
                found = tuple(made_by[i] for i in op.outputs if i in made_by)
            ops.append(
                Op(codes[op.opcodeIndex], ins, outs, op.builtinOptions, found, number)
            )
    return ops


def count(ops: Iterable[Op]) -> dict[str, int]:
    """Name -> how often it occurs, in the order of first occurrence."""
    return dict(collections.Counter(op.name for op in ops))


def float_ops(ops: Iterable[Op]) -> list[Op]:
    """Operations that compute in float: in a fully quantized file there is none.

    Where its inputs and outputs are float, the operations that convert them are all
    that touches float, and they are not counted.
    """
    ops = list(ops)
    inside = {
        id(tensor)
        for op in ops
        if op.name not in _BORDERS
        for tensor in (*op.inputs, *op.outputs)
        if tensor is not None and tensor.dtype in _FLOATS
    }
    return [
        op
        for op in ops
        if any(id(tensor) in inside for tensor in (*op.inputs, *op.outputs))
    ]


def rangeless(ops: Iterable[Op]) -> list[Op]:
    """Operations whose quantized output was 0 on all data: it has no range."""
    return [
        op
        for op in ops
        if any(
            tensor.scale is not None and 0 < tensor.scale < _SMALLEST_SCALE
            for tensor in op.outputs
        )
    ]


def _scale(quantization: Any) -> float | None:
    scales = None if quantization is None else quantization.scale
    return None if scales is None or not len(scales) else float(min(scales))


def _block(sparsity: Any) -> int:
    if sparsity is None or sparsity.blockMap is None or not len(sparsity.blockMap):
        return 1
    return int(sparsity.dimMetadata[-1].denseSize)


def _names(enumeration: Any) -> dict[int, str]:
    return {
        code: name for name, code in vars(enumeration).items() if isinstance(code, int)
    }


def _output_layers(model: Any, outputs: Mapping[str, str]) -> dict[int, str]:
    """Index of an output's tensor -> name of the layer that makes it."""
    return {
        entry.tensorIndex: outputs[entry.name.decode()]
        for signature in model.signatureDefs or ()
        for entry in signature.outputs
        if entry.name.decode() in outputs
    }


def _layers(names: Iterable[str], known: set[str]) -> tuple[str, ...]:
    """Layers that names such as ``"net_1/relu_1/Relu;net_1/conv_1/MatMul"`` speak of.

    Keras scopes what a layer does by its name, and TensorFlow appends a number.
    """
    found: dict[str, None] = {}
    for name in names:
        for part in name.split(";"):
            for scope in reversed(part.split("/")):
                plain = re.sub(r"_\d+$", "", scope)
                layer = plain if plain in known else scope
                if layer in known:
                    found[layer] = None
                    break
    return tuple(found)
