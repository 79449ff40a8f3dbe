"""What goes wrong in a demo that its user should read in one sentence."""

from __future__ import annotations

import importlib
from typing import Any


class DemoError(Exception):
    """The demo cannot go on, or something that it checks does not hold."""


def require(module: str, why: str, extra: str = "demo") -> Any:
    """Imports a module that an extra of the package brings.

    Args:
        module: Its dotted name.
        why: What it is needed for, to go after "The demo needs it to".
        extra: The extra that brings it.

    Raises:
        DemoError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DemoError(
            f"The demo needs {module.partition('.')[0]} to {why}: "
            f'pip install "keras-l0[{extra}]".'
        ) from error
