"""Packages that extras bring, asked for where they are needed."""

from __future__ import annotations

import importlib
from typing import Any


def required(module: str, what: str, extra: str) -> Any:
    """Imports a module that an extra of keras-l0 brings.

    Args:
        module: Its dotted name.
        what: What it is needed for: "<what> takes <package>".
        extra: The extra that brings it.

    Raises:
        ImportError: If it cannot be imported, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing(module, what, extra, error) from error


def missing(
    module: str, what: str, extra: str, why: object = "it is not installed"
) -> ImportError:
    """The error for a module that is missing, as in `required`."""
    package = module.partition(".")[0]
    return ImportError(
        f"{what} takes {package}, which cannot be imported ({why}): "
        f'pip install "keras-l0[{extra}]"'
    )
