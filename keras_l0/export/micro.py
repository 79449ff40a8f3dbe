"""Runs a file in the interpreter of TFLite Micro."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from pathlib import Path

import numpy as np

from keras_l0.export import micro_run
from keras_l0.export.child import how_it_ended, run_python
from keras_l0.export.report import ExportError
from keras_l0.export.signature import Signature
from keras_l0.export.silence import silence
from keras_l0.export.verify import dequantized, quantized
from keras_l0.packages import missing, required

# Its kernels are for reading, not for speed.
_EXAMPLES = 32


def rows(examples: int, batch_size: int | None) -> np.ndarray:
    """Which of the examples to run: few, and whole batches of them."""
    size = batch_size or 1
    count = min(examples, _EXAMPLES) // size * size or size
    return np.arange(count) % examples


def run(
    content: bytes, signature: Signature, batch: list[np.ndarray]
) -> tuple[list[np.ndarray], int]:
    """Runs a file, in a process of its own: the interpreter aborts on errors.

    Args:
        content: The bytes of the .tflite file.
        signature: The names of its inputs and outputs.
        batch: One array per input; a multiple of the file's batch.

    Returns:
        One array per output in the order of the signature, and the bytes of the arena
        that the file takes on this machine (a 32-bit one takes less).

    Raises:
        ImportError: If TFLite Micro is not installed.
        ExportError: If it does not run the file.
    """
    if importlib.util.find_spec("tflite_micro") is None:
        raise missing("tflite_micro", "target='micro'", "micro")
    litert = required("ai_edge_litert.interpreter", "Running a TFLite file", "litert")

    with silence():
        interpreter = litert.Interpreter(model_content=content)
        runner = interpreter.get_signature_runner()
    ins, outs = runner.get_input_details(), runner.get_output_details()
    # TFLite Micro knows positions, not names.
    order_in = [tensor["index"] for tensor in interpreter.get_input_details()]
    order_out = [tensor["index"] for tensor in interpreter.get_output_details()]
    arrays = {
        f"array{order_in.index(ins[name]['index'])}": quantized(array, ins[name])
        for name, array in zip(signature.inputs, batch, strict=True)
    }
    with tempfile.TemporaryDirectory(prefix="keras-l0-") as name:
        folder = Path(name)
        (folder / micro_run.MODEL).write_bytes(content)
        np.savez(folder / micro_run.INPUTS, allow_pickle=False, **arrays)
        # The script itself: as a module it would bring Keras along.
        done = run_python(micro_run.__file__, name)
        arena = re.search(r"Arena allocation total (\d+) bytes", done.stderr)
        if done.returncode or arena is None:
            said = [line for line in done.stderr.splitlines() if "opcode" in line]
            raise ExportError(
                f"TFLite Micro does not run the file: the process {how_it_ended(done)}"
                f"{''.join(f'. {line}' for line in said[:1])}. Nothing was written."
            )
        with np.load(folder / micro_run.OUTPUTS) as file:
            results = {
                name: file[f"array{order_out.index(details['index'])}"]
                for name, details in outs.items()
            }
    received = [dequantized(results[name], outs[name]) for name in signature.outputs]
    return received, int(arena.group(1))
