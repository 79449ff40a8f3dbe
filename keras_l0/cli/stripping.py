"""``keras-l0 plan`` and ``keras-l0 strip``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

import keras_l0
from keras_l0.cli.arguments import (
    array_option,
    json_option,
    model_argument,
    quantization,
    quantization_options,
    strip_options,
)
from keras_l0.cli.reading import loading_options, read_arrays, read_model
from keras_l0.cli.saying import say_json, stdout, step, table
from keras_l0.cli.writing import output_option, require_destination, save


@click.command()
@model_argument
@strip_options
@json_option
@loading_options
def plan(
    model: Path,
    as_json: bool,
    unsafe: bool,
    imports: tuple[str, ...],
    **options: Any,
) -> None:
    """Tells what strip will remove from a model, what it keeps, and why.

    Nothing is written. The table has the units of each layer before and after;
    barriers, below it, are what strip must not look through, and what they hold back.
    The model may be gated or plain: of a plain one, the last lines tell what gates
    could reach.

    \b
    Examples
      keras-l0 plan gated.keras
      keras-l0 plan gated.keras --round-to 8 --json
    """  # noqa: D301
    network = read_model(model, unsafe, imports)
    with step("planning"):
        found = keras_l0.plan(network, **options)
    if as_json:
        say_json(found)
    else:
        stdout().print(found)


@click.command()
@model_argument
@output_option(".keras", help="The file to write.")
@strip_options
@click.option(
    "--budget",
    "limits",
    multiple=True,
    metavar="WHAT=LIMIT",
    help="Close the cheapest gates until the result fits: params, macs or bytes (of "
    "the .tflite file), as a share (params=25%) or a number (bytes=64000). May be "
    "given several times.",
)
@quantization_options
@array_option("--data", "Examples to compare the two models on. Default: random ones.")
@json_option
@loading_options
def strip(
    model: Path,
    output: Path,
    force: bool,
    limits: tuple[str, ...],
    float16: bool,
    dynamic: bool,
    int8: bool,
    data: Path | None,
    as_json: bool,
    unsafe: bool,
    imports: tuple[str, ...],
    **options: Any,
) -> None:
    """Writes a gated model without its gates and closed units.

    OUT.keras is an ordinary Keras model, which loads without keras-l0 and computes what
    MODEL.keras does. The two are run and compared before it is written. Under a
    budget the outputs change: gates are closed that training had left open.

    --int8, --dynamic or --float16 say what kind of .tflite file a budget of bytes
    limits.

    \b
    Examples
      keras-l0 strip gated.keras -o small.keras
      keras-l0 strip gated.keras -o small.keras --inputs narrow --round-to 8
      keras-l0 strip gated.keras -o small.keras --budget macs=25%
      keras-l0 strip gated.keras -o small.keras --budget bytes=64000 --int8
    """  # noqa: D301
    kind = quantization(float16=float16, dynamic=dynamic, int8=int8)
    budgets = [_budget(text, kind) for text in limits]
    if kind and not any(budget.bytes for budget in budgets):
        raise click.UsageError(f"--{kind} is about a --budget of bytes, and none is.")
    require_destination(output, force, ".keras")
    if output.exists() and output.samefile(model):
        raise click.UsageError(
            f"-o must name another file than MODEL.keras, whose gates strip takes out. "
            f"Received: {output} for both"
        )
    examples = read_arrays(data, "--data")
    network = read_model(model, unsafe, imports)
    with step("stripping and comparing"):
        before = keras_l0.profile(network, options["inputs"]).dense
        small = keras_l0.strip(
            network, **options, budget=budgets or None, data=examples
        )
        after = keras_l0.profile(small).deployed
        size = save(small, output)
    sizes = {
        "params": (before.params, after.params),
        "macs": (before.macs, after.macs),
        "bytes": (model.stat().st_size, size),
    }
    if as_json:
        told = {name: {"before": a, "after": b} for name, (a, b) in sizes.items()}
        say_json({"model": model, "output": output, **told})
        return
    names = {"params": "parameters", "macs": "MACs", "bytes": "bytes (.keras)"}
    rows = [
        (names[name], f"{a:,}", f"{b:,}", f"{b / a:.1%}" if a else "")
        for name, (a, b) in sizes.items()
    ]
    console = stdout()
    console.print(table(("", "before", "after", "left"), rows))
    console.print(str(output), "is the stripped model.", markup=False, soft_wrap=True)


def _budget(text: str, kind: str | None) -> keras_l0.Budget:
    """A budget as in ``macs=25%`` or ``bytes=64000``."""
    parts = re.fullmatch(r"(params|macs|bytes)=([\d_,]*\.?\d+)(%?)", text.strip())
    try:
        if not parts:
            raise ValueError("it is not understood")
        name, number, percent = parts.groups()
        whole = number.replace(",", "").replace("_", "")
        limit = float(whole) / 100 if percent else _number(whole)
        limited: dict[str, Any] = {name: limit}
        return keras_l0.Budget(**limited, quantization=kind)
    except (ValueError, TypeError) as error:
        raise click.UsageError(
            "--budget takes params, macs or bytes, and a share above 0 of at most 100% "
            "or a whole number: --budget macs=25%, macs=0.25 or macs=1000000. "
            f"Received: {text}"
        ) from error


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)
