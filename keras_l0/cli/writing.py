"""Files that commands write: whole or not at all, and over another if asked to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import keras

from keras_l0.cli.saying import sentence
from keras_l0.export.silence import silence
from keras_l0.files import check_destination, write_atomically


def output_option(
    suffix: str, name: str = "-o", **more: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option that names the file to write, and `force`.

    Args:
        suffix: How the file's name ends.
        name: What the option is called.
        more: Of the option, as `click.option` takes it.
    """
    names = [name, "--output", "output"] if name == "-o" else [name, "output"]

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            "--force", is_flag=True, help="Replace a file that exists."
        )(command)
        return click.option(
            *names,
            required=True,
            type=click.Path(path_type=Path),
            metavar=f"OUT{suffix}",
            **more,
        )(command)

    return add


def require_destination(
    path: Path, force: bool, suffix: str = "", argument: str = "path"
) -> None:
    """Checks a place to write to, before any work is done.

    Args:
        path: The place.
        force: Whether a file that is there may go.
        suffix: How its name has to end.
        argument: The argument of the function that writes it, for errors.

    Raises:
        ClickException: If it may not be written to.
    """
    if suffix and path.suffix != suffix:
        said = sentence(f"`{argument}` must end with {suffix}. Received: {path}")
        raise click.UsageError(said)
    try:
        check_destination(path, argument)
    except (OSError, ValueError) as error:
        raise click.ClickException(sentence(error)) from error
    if path.exists() and not force:
        raise click.ClickException(f"{path} exists already: --force replaces it.")


def save(model: keras.Model, path: Path) -> int:
    """Saves a model as a .keras file, and returns its bytes."""
    with tempfile.TemporaryDirectory(prefix="keras-l0-") as folder:
        file = Path(folder) / "model.keras"
        with silence():  # Keras imports TensorFlow to save, on every backend.
            model.save(file)
        content = file.read_bytes()
    write_atomically(path, content)
    return len(content)
