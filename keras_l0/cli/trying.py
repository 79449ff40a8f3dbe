"""``keras-l0 demo``."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from keras_l0.cli.arguments import json_option
from keras_l0.cli.saying import say_json, stderr, stdout

_FILES = (
    "dense.keras", "gated.keras", "stripped.keras", "dense.tflite", "stripped.tflite",
    "kept.png", "results.json",
)  # fmt: skip


def _finite(
    context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.")
    return value


@click.command(no_args_is_help=False)
@click.option(
    "--network",
    type=click.Choice(["conv", "mlp"]),
    default="conv",
    show_default=True,
    help="conv: LeNet-5, whose filters and units are gated. mlp: LeNet-300-100, which "
    "also chooses the pixels that it looks at.",
)
@click.option(
    "--dataset",
    type=click.Choice(["digits", "mnist"]),
    help="digits: 1,797 images of 8 x 8 pixels that come with scikit-learn; about a "
    "minute. mnist: 70,000 images of 28 x 28, a download of 11 MB; about a quarter of "
    "an hour.  [default: digits]",
)
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.npz",
    help="A copy of mnist.npz, or images of your own: a .npz file with x_train and "
    "x_test of shape (n, height, width) or (n, height, width, channels), and classes "
    "y_train and y_test from 0.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("keras-l0-demo"),
    show_default=True,
    help="Folder for the files; those of an earlier demo are replaced.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Epochs of each of the two trainings. Few epochs leave most gates open.  "
    "[default: 80; 10 from 10,000 images on]",
)
@click.option(
    "--l0",
    type=click.FloatRange(min=0),
    callback=_finite,
    metavar="PRICE",
    help="Price of one parameter, in units of the loss; in convolutions, of one "
    "multiplication. Higher prices close more gates; the title of "
    "the table says what was paid by default.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    metavar="N",
    default=0,
    show_default=True,
    help="Seed of weights, gates and batches.",
)
@click.option(
    "--force", is_flag=True, help="Replace files in DIR that are not a demo's."
)
@json_option
def demo(
    network: str,
    dataset: str | None,
    data: Path | None,
    output: Path,
    epochs: int | None,
    l0: float | None,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Trains, prunes, exports and compares a small network.

    One network is trained twice, without gates and with gates. The gated one is
    stripped, and both are exported to TFLite. The table at the end shows what pruning
    gained and what it cost: accuracies are those on the test images after the last
    epoch, and the TFLite files have really been run on them.

    \b
    DIR then holds
      dense.keras, gated.keras, stripped.keras   the models
      dense.tflite, stripped.tflite              the same, for a device
      kept.png                                   which filters or pixels survived
      results.json                               the numbers of the table

    stripped.keras loads without keras-l0. The exit status is not 0 if any two things
    disagree that should not: the stripped model with the gated one, a TFLite file with
    Keras, or the accuracies by more than 10 points.
    """  # noqa: D301
    if dataset == "digits" and data:
        raise click.UsageError(
            "The digits come with scikit-learn: give --dataset digits or --data."
        )
    from keras_l0.demo import DemoError, Settings, run, show

    settings = Settings(output, network, dataset or "digits", data, epochs, l0, seed)
    if not force:
        _refuse_files_of_others(output)
    try:
        results = run(settings, stderr())
    except DemoError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        say_json(results)
        return
    show(results, stdout())
    click.echo(f"Files are in {output}: kept.png shows what survived.")


def _refuse_files_of_others(folder: Path) -> None:
    """Refuses a folder whose files a demo would replace, and did not write."""
    found = [name for name in _FILES if (folder / name).exists()]
    try:
        written = json.loads((folder / "results.json").read_text())
        ours = {"network", "stripped"} <= set(written)
    except (OSError, ValueError, TypeError):
        ours = False
    if found and not ours:
        raise click.ClickException(
            f"{folder} holds {found[0]}, and no results of an earlier demo: choose "
            "another --output, or --force replaces it."
        )
