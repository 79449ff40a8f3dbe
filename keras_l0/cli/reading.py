"""Files that commands read: what they are is found out before anything is loaded."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np

from keras_l0.cli.saying import DEBUG, sentence, step
from keras_l0.export.flatbuffer import is_tflite

_HDF5 = b"\x89HDF\r\n\x1a\n"
# Keras descends through a graph call by call, and gates make it longer.
_RECURSION = 20_000


def loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what a file may bring along: `unsafe` and `imports`."""
    command = click.option(
        "--import",
        "imports",
        multiple=True,
        metavar="MODULE",
        help="Import this Python module first, the one with the layers of your own. "
        "The current folder is searched too.",
    )(command)
    return click.option(
        "--unsafe",
        is_flag=True,
        help="Run the code that the file holds, of Lambda layers for one. Only for "
        "files from somebody you trust.",
    )(command)


def read_model(path: Path, unsafe: bool, imports: Sequence[str]) -> keras.Model:
    """Loads a .keras file, in safe mode unless asked otherwise.

    Args:
        path: The file.
        unsafe: Whether code that it holds may run.
        imports: Names of modules to import first.

    Raises:
        ClickException: If it is no such file, or cannot be loaded.
    """
    wrong = what_else(path)
    if wrong:
        raise click.ClickException(wrong)
    known: dict[str, Any] = {}
    for name in imports:
        known |= _objects(name)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _RECURSION))
    with step(f"reading {path}"):
        try:
            model = keras.saving.load_model(
                path, known, compile=False, safe_mode=not unsafe
            )
        except Exception as error:  # A file can break Keras in any way.
            if os.environ.get(DEBUG):
                raise
            raise click.ClickException(_why(path, error)) from error
        if not isinstance(model, keras.Model):
            raise click.ClickException(f"{path} holds no model but a {type(model)}.")
    return model


def what_else(path: Path) -> str | None:
    """A sentence on what a file is, if it is no .keras file."""
    if path.is_dir():
        return (
            f"{path} is a folder, not a .keras file. Load the model in Python as it "
            'was saved, and write it with model.save("model.keras").'
        )
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}."
    if start == _HDF5:
        return (
            f"{path} is an HDF5 file, not a .keras file. If it holds a model, not "
            f"weights only: keras.saving.load_model({str(path)!r})"
            '.save("model.keras") converts it.'
        )
    if is_tflite(path):
        return (
            f"{path} is a .tflite file, in which layers and gates are no more. Give "
            "the .keras file that it was made from."
        )
    if start[:2] != b"PK":
        return f"{path} is not a .keras file{' but empty' if not start else ''}."
    try:
        with zipfile.ZipFile(path) as archive:
            missing = {"config.json", "metadata.json"} - set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return f"{path} is damaged or cut short: copy or save it again."
    if missing:
        return f"{path} is a zip file of something else than a Keras model."
    if path.suffix != ".keras":
        return f"{path} must end with .keras for Keras to load it: rename it."
    return None


def require_tflite(path: Path) -> None:
    """Refuses what is no .tflite file.

    Args:
        path: The file.

    Raises:
        ClickException: If it is another one.
    """
    if path.suffix == ".keras":
        raise click.ClickException(
            f"{path} is a .keras file where a .tflite file is wanted: keras-l0 export "
            f"{path} -o {path.with_suffix('.tflite')} makes one of it."
        )
    try:
        known = is_tflite(path)
    except OSError as error:
        raise click.ClickException(
            f"{path} cannot be read: {error.strerror}."
        ) from error
    if not known:
        raise click.ClickException(f"{path} is not a .tflite file.")


def _why(path: Path, error: Exception) -> str:
    """What Keras means, in a sentence."""
    text = str(error)
    lost = re.search(r"Could not locate (\w+) '([^']+)'", text)
    if lost:
        return (
            f"{path} needs the {lost[1]} {lost[2]!r}, which is not a part of Keras. "
            "Name the Python module that defines it: --import my_layers."
        )
    if "safe_mode" in text or "unsafe_deserialization" in text:
        return (
            f"{path} holds code that loading it would run, such as a Lambda layer. If "
            "you trust whoever made it, add --unsafe."
        )
    text = sentence(error)
    told = text if len(text) <= 300 else f"{text[:300]} ..."
    return f"{path} cannot be loaded ({type(error).__name__}): {told}"


def _objects(name: str) -> dict[str, Any]:
    """The classes and functions of a module, by name."""
    if not re.fullmatch(r"\w+(\.\w+)*", name) or name.endswith(".py"):
        raise click.UsageError(
            f"--import takes the name of a module, as Python's import does: my_layers, "
            f"not a path. Received: {name}"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(name)
    except Exception as error:  # Anything may go wrong in somebody's module.
        raise click.ClickException(
            f"--import {name}: {type(error).__name__}: {sentence(error)}"
        ) from error
    return {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) or inspect.isfunction(value)
    }


def read_arrays(path: Path | None, option: str) -> Any:
    """A .npy file as an array, a .npz file as one, or as a dict of several.

    Args:
        path: The file, or None.
        option: What named it, for errors.

    Raises:
        ClickException: If the file holds no arrays.
    """
    if path is None:
        return None
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            arrays = {name: found[name] for name in found.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise click.ClickException(
            f"{option} takes a .npy or .npz file of plain arrays, as numpy.save and "
            f"numpy.savez write them. Received: {path}"
        ) from error
    if not arrays:
        raise click.ClickException(f"{option} {path} holds no arrays.")
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays
