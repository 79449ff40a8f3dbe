"""The process that `micro.run` starts: it needs NumPy and tflite-micro, no Keras."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

MODEL, INPUTS, OUTPUTS = "model.tflite", "inputs.npz", "outputs.npz"
# Only what the file takes of it is ever touched.
_ARENA = 256 * 2**20


def main(folder: Path) -> None:
    """Runs the file in a folder on the inputs beside it; the arena goes to stderr."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(
        (folder / MODEL).read_bytes(), arena_size=_ARENA
    )
    with np.load(folder / INPUTS) as file:
        inputs = [file[f"array{number}"] for number in range(len(file.files))]
    size = interpreter.get_input_details(0)["shape"][0]
    rows = [
        _outputs(interpreter, [array[start : start + size] for array in inputs])
        for start in range(0, len(inputs[0]), size)
    ]
    outputs = {
        f"array{number}": np.concatenate(parts)
        for number, parts in enumerate(zip(*rows, strict=True))
    }
    np.savez(folder / OUTPUTS, allow_pickle=False, **outputs)
    interpreter.print_allocations()


def _outputs(interpreter: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    for number, values in enumerate(inputs):
        interpreter.set_input(values, number)
    interpreter.invoke()
    result: list[np.ndarray] = []
    while True:
        try:
            result.append(np.array(interpreter.get_output(len(result))))
        except IndexError:
            return result


if __name__ == "__main__":
    main(Path(sys.argv[1]))
