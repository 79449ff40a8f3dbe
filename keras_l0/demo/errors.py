"""What goes wrong in a demo that its user should read in one sentence."""

from __future__ import annotations

from typing import Any

from keras_l0.packages import required


class DemoError(Exception):
    """The demo cannot go on, or something that it checks does not hold."""


def require(module: str, why: str, extra: str = "demo") -> Any:
    """Imports a module that an extra of the package brings.

    Args:
        module: Its dotted name.
        why: What it is needed for, to go after "The demo, to".
        extra: The extra that brings it.

    Raises:
        DemoError: If it is not installed.
    """
    try:
        return required(module, f"The demo, to {why},", extra)
    except ImportError as error:
        raise DemoError(f"{error}.") from error
