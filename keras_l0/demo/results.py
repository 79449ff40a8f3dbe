"""What the demo measured, and the table that shows it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

# The file that they are written to.
RESULTS = "results.json"


@dataclasses.dataclass(frozen=True)
class TFLiteFile:
    """A .tflite file: its size, its speed here, and what it answered.

    Attributes:
        bytes: Size of the file.
        seconds: Median time of one inference, on one thread.
        accuracy: Share of the test images that it gets right.
        difference: Largest difference from the Keras model in any probability.
    """

    bytes: int
    seconds: float
    accuracy: float
    difference: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """One model of the demo.

    Attributes:
        units: Units of each layer that is gated in the gated model.
        params: Parameters, as Keras counts them.
        macs: Multiply-accumulates per image.
        accuracy: Share of the test images that are right, after the last epoch.
        tflite: The file made of it, if there is one.
    """

    units: tuple[int, ...]
    params: int
    macs: int
    accuracy: float
    tflite: TFLiteFile | None = None


@dataclasses.dataclass(frozen=True)
class Results:
    """All that the demo measured.

    Attributes:
        network: What the network is called in the literature.
        dataset: Name of the data set.
        images: Numbers of training and test images.
        layers: Names of the layers that `Measured.units` counts.
        inputs: Input mode of `keras_l0.strip`.
        epochs: Epochs of each training.
        l0: Price of a parameter (of a multiply-accumulate in convolutions).
        seed: Seed of both trainings.
        dense: The network without gates.
        gated: The network with gates.
        stripped: The gated network without gates and closed units.
        difference: Largest difference of stripped and gated in any probability.
    """

    network: str
    dataset: str
    images: tuple[int, int]
    layers: tuple[str, ...]
    inputs: str
    epochs: int
    l0: float
    seed: int
    dense: Measured
    gated: Measured
    stripped: Measured
    difference: float

    def write(self, path: Path) -> None:
        """Writes everything as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def show(results: Results, console: Console) -> None:
    """Prints the results as a table and two sentences."""
    console.print()
    console.print(_table(results))
    tflite = results.stripped.tflite
    if tflite:
        console.print(
            f"On all {results.images[1]:,} test images, probabilities of the stripped "
            f"model (inputs={results.inputs!r}) differ from the gated model's by at "
            f"most {results.difference:.0e}, and the file's from Keras' by at most "
            f"{tflite.difference:.0e}. This was one run: another seed may "
            "well move an accuracy by half a point."
        )


def _table(results: Results) -> Table:
    models = (results.dense, results.gated, results.stripped)
    grid = Table(
        title=f"{results.network} on {results.dataset}, {results.epochs} epochs, "
        f"price {results.l0:g}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )
    grid.add_column("")
    for title in ("dense", "gated", "stripped", "vs dense"):
        grid.add_column(title, justify="right", no_wrap=True)

    def row(label: str, cells: list[str], change: str) -> None:
        grid.add_row(label, *cells, change)

    def share(small: float, large: float) -> str:
        return f"{100 * small / large:.1f} %"

    def points(small: float, large: float) -> str:
        return f"{100 * (small - large):+.1f} points"

    for layer, *units in zip(
        results.layers, *(model.units for model in models), strict=True
    ):
        row(f"units of {layer}", [f"{n:,}" for n in units], share(units[2], units[0]))
    row(
        "parameters",
        [f"{model.params:,}" for model in models],
        share(results.stripped.params, results.dense.params),
    )
    row(
        "MACs per image",
        [f"{model.macs:,}" for model in models],
        share(results.stripped.macs, results.dense.macs),
    )
    row(
        "accuracy",
        [f"{100 * model.accuracy:.1f} %" for model in models],
        points(results.stripped.accuracy, results.dense.accuracy),
    )
    grid.add_section()
    dense, stripped = results.dense.tflite, results.stripped.tflite
    if dense and stripped:
        row(
            "TFLite: bytes",
            [f"{dense.bytes:,}", "", f"{stripped.bytes:,}"],
            share(stripped.bytes, dense.bytes),
        )
        row(
            "TFLite: time per image",
            [f"{1e6 * dense.seconds:.1f} µs", "", f"{1e6 * stripped.seconds:.1f} µs"],
            share(stripped.seconds, dense.seconds),
        )
        row(
            "TFLite: accuracy",
            [f"{100 * dense.accuracy:.1f} %", "", f"{100 * stripped.accuracy:.1f} %"],
            points(stripped.accuracy, dense.accuracy),
        )
    return grid
