"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]

model_argument = click.argument(
    "model", type=click.Path(exists=True, path_type=Path), metavar="MODEL.keras"
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON, and only that."
)
inputs_option = click.option(
    "--inputs",
    type=click.Choice(["keep", "gather", "narrow"]),
    default="keep",
    show_default=True,
    help="What becomes of input features that no open gate reads: they stay and are "
    "ignored; the rest is selected inside of the model; the model takes fewer.",
)


def array_option(name: str, help: str) -> Callable[[Command], Command]:
    """An option that takes a file of arrays."""
    return click.option(
        name,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE.npy",
        help=help,
    )


def strip_options(command: Command) -> Command:
    """What `strip` leaves: `inputs`, `keep`, `round_to` and `min_units`."""
    for option in (
        click.option(
            "--min-units",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="No layer that stays is left with fewer units.",
        ),
        click.option(
            "--round-to",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Round counts of units up to a multiple of this, such as the 8 "
            "channels that many chips compute at once.",
        ),
        click.option(
            "--keep",
            multiple=True,
            metavar="LAYER",
            help="Keep all units of this layer. May be given several times.",
        ),
        inputs_option,
    ):
        command = option(command)
    return command


def quantization_options(command: Command) -> Command:
    """`int8`, `dynamic` and `float16`: see `quantization`."""
    for name, help in (
        ("--float16", "Weights in 16 bits."),
        ("--dynamic", "Weights in 8 bits, arithmetic in float."),
        ("--int8", "All in 8 bits."),
    ):
        command = click.option(name, is_flag=True, help=help)(command)
    return command


def quantization(**flags: bool) -> str | None:
    """The one that was asked for."""
    given = [name for name, flag in flags.items() if flag]
    if len(given) > 1:
        names = " and ".join(f"--{name}" for name in given)
        raise click.UsageError(f"{names} exclude each other.")
    return given[0] if given else None
