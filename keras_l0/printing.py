"""Text as a terminal would show it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any


def printed(parts: Iterable[Any], width: int = 100) -> str:
    """Tables and sentences as plain text, in a notebook as well.

    Args:
        parts: What a `rich.console.Console` prints; strings are taken as they are.
        width: Characters in a line.
    """
    from rich.console import Console

    text = io.StringIO()
    # In a notebook rich would show it there, and leave the text empty.
    console = Console(
        file=text, width=width, no_color=True, highlight=False, force_jupyter=False
    )
    for part in parts:
        console.print(part, markup=False)
    return text.getvalue()
