"""What a .tflite file answers, whoever made it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_l0.export.latency import require_one_signature
from keras_l0.export.signature import Signature
from keras_l0.export.silence import silence
from keras_l0.export.verify import run
from keras_l0.packages import required


def answers(path: str | os.PathLike[str], data: Any) -> np.ndarray:
    """The outputs of a .tflite file of one output, in float.

    Args:
        path: The file.
        data: An array of examples, or a dict of one per input, by the names that the
            file gives them.

    Raises:
        ValueError: If it is no such file or has several signatures, or the examples
            do not fit.
        ExportError: If it fails to run.
    """
    litert = required("ai_edge_litert.interpreter", "Running a TFLite file", "litert")

    content = Path(path).read_bytes()
    with silence():
        interpreter = litert.Interpreter(model_content=content)
        require_one_signature(path, interpreter)
        runner = interpreter.get_signature_runner()
        details = runner.get_input_details()
        outputs = tuple(runner.get_output_details())
    arrays = data if isinstance(data, dict) else dict.fromkeys(details, data)
    sizes = {name: tuple(one["shape_signature"]) for name, one in details.items()}
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    fits = set(shapes) == set(sizes) and all(
        len(size) == len(shapes[name])
        and all(n in (-1, m) for n, m in zip(size[1:], shapes[name][1:], strict=True))
        for name, size in sizes.items()
    )
    if not fits or len(outputs) != 1:
        raise ValueError(
            f"`data` must be what {os.fspath(path)!r} takes, a file of one output: "
            f"{sizes}. Received: {shapes}, for outputs {outputs}"
        )
    names = tuple(sizes)
    signature = Signature(
        names,
        outputs,
        tuple(tuple(map(int, sizes[name][1:])) for name in names),
        tuple(np.dtype(details[name]["dtype"]).name for name in names),
    )
    batch = int(sizes[names[0]][0])
    examples = [np.asarray(arrays[name]) for name in names]
    return run(content, signature, examples, None if batch < 0 else batch)[0]
