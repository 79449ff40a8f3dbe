"""``keras-l0 report``."""

from __future__ import annotations

import click


@click.command()
def report() -> None:
    """Writes a page."""
