"""What a command says: results on stdout, progress and notes and errors on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

# Set, it makes a command show the traceback of what it would say in a sentence.
DEBUG = "KERAS_L0_DEBUG"
_PACKAGE = __name__.split(".")[0]
# The width of tables in a file or a pipe, as of ``print(keras_l0.plan(model))``.
_FILE_WIDTH = 100
# How commands spell the arguments of functions: as the first of these that they have.
_SPELLED = {
    "representative_data": ["--data"], "data": ["--test-data", "--data"],
    "labels": ["--labels"], "quantization": ["--int8"], "io_dtype": ["--io-dtype"],
    "target": ["--target"], "inputs": ["--inputs"], "round_to": ["--round-to"],
    "min_units": ["--min-units"], "keep": ["--keep"], "budget": ["--budget"],
    "path": ["-o", "--html"], "max_error": ["--max-error"], "files": ["--tflite"],
    "min_top1": ["--min-top1"], "c_array": ["--c-array"], "sparse": ["--sparse"],
}  # fmt: skip


def stdout() -> Console:
    """Where results go: as wide as the terminal."""
    wide = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if wide else _FILE_WIDTH)


def stderr() -> Console:
    """Where progress goes, also while a converter's chatter is silenced."""
    file: TextIO
    try:
        file = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")
    except (OSError, ValueError, AttributeError, io.UnsupportedOperation):
        file = sys.stderr
    return Console(file=file, highlight=False)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """A part of the work: shown while it lasts; what it refuses becomes a sentence.

    Args:
        text: What is being done, for the terminal.

    Yields:
        None.

    Raises:
        ClickException: For what the package raises on purpose.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        with _shown(text):
            try:
                yield
            except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
                if os.environ.get(DEBUG):
                    raise
                raise click.ClickException(sentence(error)) from error
    for message in dict.fromkeys(str(one.message) for one in caught):
        click.echo(f"Note: {sentence(message)}", err=True)


@contextlib.contextmanager
def _shown(text: str) -> Iterator[None]:
    console = stderr()
    if not console.is_terminal:
        yield
        return
    spinner = Spinner("dots", Text(f"{text} ..."))
    with Live(
        spinner,
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield


def sentence(error: object) -> str:
    """An error as the command line says it: one line, options for arguments."""
    line = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, BaseException) and not _is_own(error):
        return line
    line = re.sub(r"`(\w+)`", lambda m: _option(m[1]) or m[0], line)
    line = re.sub(r"quantization='(\w+)'", r"--\1", line)
    line = line.replace("allow=('float',)", "--allow-float")
    # Commands always compare.
    line = re.sub(r",? or `?verify=False`?[^.:]*", "", line)
    # Of a flag that is set, its name says all.
    pattern = rf"(?<![\w`])({'|'.join(_SPELLED)})(=True\b|=None\b|=(?=\S))"
    return re.sub(pattern, _given, line)


def _given(match: re.Match[str]) -> str:
    """How a command is given what a function is given as ``name=value``."""
    option = _option(match[1])
    if option is None:
        return match[0]
    forms = {"=True": option, "=None": f"no {option}", "=": f"{option} "}
    return forms[match[2]]


def _is_own(error: BaseException) -> bool:
    """Whether an error was raised by this package, not by one that it uses."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return not frames or _PACKAGE == frames[-1][0].f_globals["__name__"].split(".")[0]


def _option(argument: str) -> str | None:
    """The option of the running command that sets an argument of a function."""
    context = click.get_current_context(silent=True)
    has = {o for p in context.command.params for o in p.opts} if context else set()
    return next((name for name in _SPELLED.get(argument, []) if name in has), None)


def say_json(value: Any) -> None:
    """Prints a result for machines."""
    click.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """A result as JSON has it: dicts, lists, strings, numbers, None for NaN."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field.name for field in dataclasses.fields(value) if field.repr)
        return {name: plain(getattr(value, name)) for name in fields}
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """A table whose first column gives way where the terminal is narrow."""
    made = Table(box=box.SIMPLE_HEAD)
    made.add_column(titles[0], overflow="fold")
    for name in titles[1:]:
        made.add_column(name, justify="right", no_wrap=True)
    for first, *rest in rows:
        made.add_row(Text(first), *rest)
    return made
