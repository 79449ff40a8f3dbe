"""Conversion in a process of its own.

For what may end the process that does it, and for models of another backend than
TensorFlow. ``python -m keras_l0.export.child FOLDER`` is the other side.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_l0.export.convert import Frozen, convert, freeze
from keras_l0.export.options import Options
from keras_l0.export.report import ExportError
from keras_l0.export.signature import Signature
from keras_l0.export.silence import silence

_JOB, _MODEL, _GRAPH = "job.json", "model.keras", "graph.pb"
_DATA, _RESULT, _ERROR = "representative.npz", "model.tflite", "error.txt"


def convert_in_child(
    source: keras.Model | Frozen,
    signature: Signature,
    options: Options,
    representative: list[np.ndarray] | None,
) -> bytes:
    """As `convert`, by another Python process, on TensorFlow.

    Args:
        source: A graph, or a functional model of any backend.
        signature: Names, shapes and dtypes of its inputs and outputs.
        options: What to convert to.
        representative: For ``"int8"``, one array per input to calibrate on.

    Raises:
        ExportError: If the converter fails, or the process ends otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="keras-l0-") as name:
        folder = Path(name)
        job: dict[str, Any] = {
            "signature": dataclasses.asdict(signature),
            "options": dataclasses.asdict(options),
        }
        if isinstance(source, Frozen):
            job["tensors"] = [source.inputs, source.outputs]
            graph = source.graph.SerializeToString(deterministic=True)
            (folder / _GRAPH).write_bytes(graph)
        else:
            with silence():  # Keras imports TensorFlow to save.
                source.save(folder / _MODEL)
        (folder / _JOB).write_text(json.dumps(job))
        if representative is not None:
            named = {f"input{n}": array for n, array in enumerate(representative)}
            np.savez(folder / _DATA, allow_pickle=False, **named)
        done = run_python("-m", "keras_l0.export.child", name)
        if (folder / _ERROR).exists():
            raise ExportError((folder / _ERROR).read_text())
        if not (folder / _RESULT).exists():
            raise ExportError(
                "The model could not be converted: the process that ran the converter "
                f"{how_it_ended(done)}. Nothing was written."
            )
        return (folder / _RESULT).read_bytes()


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python, with this process's modules, on TensorFlow, without a GPU."""
    return subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        },
    )


def how_it_ended(done: subprocess.CompletedProcess[str]) -> str:
    """What became of a process, and the last thing that it said."""
    if done.returncode < 0:
        return f"was ended by {signal.Signals(-done.returncode).name}"
    *_, last = ("no message", *done.stderr.strip().splitlines())
    return f"ended with status {done.returncode} ({last})"


def main(folder: Path) -> None:
    """Does the job that lies in a folder, and leaves the result, or else the error."""
    try:
        job = json.loads((folder / _JOB).read_text())
        options = Options(**job["options"])
        signature = Signature(**job["signature"])
        representative = None
        if (folder / _DATA).exists():
            with np.load(folder / _DATA) as file:
                representative = [file[f"input{n}"] for n in range(len(file.files))]
        if (folder / _MODEL).exists():
            model = keras.models.load_model(folder / _MODEL, compile=False)
            frozen = freeze(model, signature, options.batch_size)
        else:
            import tensorflow as tf

            graph = tf.compat.v1.GraphDef.FromString((folder / _GRAPH).read_bytes())
            frozen = Frozen(graph, *map(tuple, job["tensors"]))
        (folder / _RESULT).write_bytes(
            convert(frozen, signature, options, representative)
        )
    except ExportError as error:
        (folder / _ERROR).write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
