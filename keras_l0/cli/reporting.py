"""``keras-l0 report``."""

from __future__ import annotations

from pathlib import Path

import click

import keras_l0
from keras_l0.cli.arguments import (
    array_option,
    inputs_option,
    json_option,
    model_argument,
)
from keras_l0.cli.reading import (
    loading_options,
    read_arrays,
    read_model,
    require_tflite,
)
from keras_l0.cli.saying import say_json, step
from keras_l0.cli.writing import output_option, require_destination


@click.command()
@model_argument
@output_option(".html", "--html", help="The page to write.")
@click.option(
    "--before",
    type=click.Path(exists=True, path_type=Path),
    metavar="DENSE.keras",
    help="The model that it was made from: layers are compared by name.",
)
@click.option(
    "--tflite",
    "files",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE.tflite",
    help="A file made of it, to be timed here. May be given several times.",
)
@array_option("--data", "Examples to measure accuracies on.")
@array_option("--labels", "The classes of --data, integers or one-hot.")
@inputs_option
@json_option
@loading_options
def report(
    model: Path,
    output: Path,
    force: bool,
    before: Path | None,
    files: tuple[Path, ...],
    data: Path | None,
    labels: Path | None,
    inputs: str,
    as_json: bool,
    unsafe: bool,
    imports: tuple[str, ...],
) -> None:
    """Writes a page about a model, to look at or to send.

    One HTML file, which loads nothing from elsewhere and tells what was removed, what
    that gained and what it cost: the network with the units of each layer before and
    after, the input features that are read, the filters of the first convolution,
    sizes and, where data and files are given, accuracies and latencies, and what strip
    must not look through, with the reasons. The model may be gated, stripped or plain.

    \b
    Examples
      keras-l0 report gated.keras --html report.html
      keras-l0 report small.keras --html report.html --before dense.keras \\
          --tflite dense.tflite --tflite small.tflite \\
          --data x_test.npy --labels y_test.npy
    """  # noqa: D301
    if (data is None) != (labels is None):
        raise click.UsageError("--data and --labels go together.")
    require_destination(output, force, ".html")
    for file in files:
        require_tflite(file)
    examples, classes = read_arrays(data, "--data"), read_arrays(labels, "--labels")
    network = read_model(model, unsafe, imports)
    earlier = None if before is None else read_model(before, unsafe, imports)
    with step("measuring and drawing"):
        page = keras_l0.html_report(
            network,
            output,
            before=earlier,
            files=files,
            data=examples,
            labels=classes,
            inputs=inputs,
        )
    if as_json:
        say_json(page)
    else:
        click.echo(f"{output}: {page.bytes:,} bytes. Open it in a browser.")
