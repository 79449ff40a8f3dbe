"""Files of one layer each, to be timed: as many as a latency table has entries.

``python -m keras_l0.export.probes FOLDER`` is the other side, on TensorFlow.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_l0.analysis.batches import random_arrays
from keras_l0.analysis.shapes import LayerShape
from keras_l0.export.child import how_it_ended, run_python
from keras_l0.export.convert import convert, freeze
from keras_l0.export.options import Options
from keras_l0.export.report import ExportError
from keras_l0.export.signature import Signature

_JOBS, _ERROR = "jobs.json", "error.txt"
# An int8 file is calibrated on so few: its speed does not depend on the ranges.
_EXAMPLES = 2

# A shape, input channels, output channels.
Probe = tuple[LayerShape, int, int]
# What is timed for the overhead of a call: a layer that does next to nothing.
LEAST: Probe = (LayerShape.of("Dense", {}, [[]], "units"), 1, 1)


def write_probes(
    probes: Sequence[Probe], folder: Path, quantization: str | None = None
) -> list[Path]:
    """Writes one .tflite file per probe, in this process or one on TensorFlow.

    Args:
        probes: What layers, and on how many channels.
        folder: An empty folder.
        quantization: As in `keras_l0.to_tflite`.

    Returns:
        The files, in order.

    Raises:
        ExportError: If a layer has no form in builtin operations.
    """
    paths = [folder / f"{number:04}.tflite" for number in range(len(probes))]
    if keras.backend.backend() == "tensorflow":
        for probe, path in zip(probes, paths, strict=True):
            path.write_bytes(_content(*probe, quantization))
        return paths
    jobs = [(shape.to_json(), n_in, n_out) for shape, n_in, n_out in probes]
    (folder / _JOBS).write_text(json.dumps({"probes": jobs, "kind": quantization}))
    done = run_python("-m", "keras_l0.export.probes", str(folder))
    if (folder / _ERROR).exists():
        raise ExportError((folder / _ERROR).read_text())
    if done.returncode:
        raise ExportError(
            f"The process that wrote the files to be timed {how_it_ended(done)}."
        )
    return paths


def _content(shape: LayerShape, n_in: int, n_out: int, kind: str | None) -> bytes:
    model = _network(shape, n_in, n_out)
    options = Options(kind, "int8" if kind == "int8" else "float32")
    signature = Signature.of(model)
    examples = random_arrays(model, _EXAMPLES) if options.int8 else None
    frozen = freeze(model, signature, options.batch_size)
    return convert(frozen, signature, options, examples)


def _network(shape: LayerShape, n_in: int, n_out: int) -> keras.Model:
    sizes = shape.input_shapes(n_in)
    inputs = [keras.Input(size, dtype="float32") for size in sizes]
    kind: Any = getattr(keras.layers, shape.layer)
    layer = kind(**shape.config(n_in, n_out), dtype="float32")
    x: Any = inputs if len(inputs) > 1 else inputs[0]
    return keras.Model(x, layer(x))


def main(folder: Path) -> None:
    """Writes the files that a folder asks for, or else the error."""
    jobs = json.loads((folder / _JOBS).read_text())
    probes = [(LayerShape.of(**shape), n, m) for shape, n, m in jobs["probes"]]
    try:
        write_probes(probes, folder, jobs["kind"])
    except ExportError as error:
        (folder / _ERROR).write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
