"""What a .tflite file holds, read from its flatbuffer, without TensorFlow."""

from __future__ import annotations

import collections


def count_ops(content: bytes) -> dict[str, int]:
    """Counts the operations of a .tflite file, over all its subgraphs.

    Args:
        content: The file's bytes.

    Returns:
        Name (as in the schema: ``"CONV_2D"``; a custom operation under its own
        name) -> count, in the order of first occurrence.

    Example:
        >>> from pathlib import Path
        >>> from keras_l0.export.flatbuffer import count_ops
        >>> count_ops(Path("lenet.tflite").read_bytes())  # doctest: +SKIP
        {'CONV_2D': 2, 'MAX_POOL_2D': 2, 'RESHAPE': 1, 'FULLY_CONNECTED': 2}
    """
    from ai_edge_litert import schema_py_generated as schema

    builtin_names = {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if isinstance(code, int)
    }
    model = schema.Model.GetRootAs(content, 0)
    names = []
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        # Codes below 127 used to live in a byte of their own.
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        custom = builtin == schema.BuiltinOperator.CUSTOM
        names.append(code.CustomCode().decode() if custom else builtin_names[builtin])
    counts: collections.Counter[str] = collections.Counter()
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for position in range(graph.OperatorsLength()):
            counts[names[graph.Operators(position).OpcodeIndex()]] += 1
    return dict(counts)
