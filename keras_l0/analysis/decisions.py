"""What `strip` does about every layer type and operation, as plain data."""

from __future__ import annotations

from typing import NamedTuple

import keras

from keras_l0.analysis.rules import RULES


class Decision(NamedTuple):
    """One layer type or operation.

    Attributes:
        name: Its class name.
        layer: Whether it is a layer, and not a raw operation of ``keras.ops``.
        barrier: Why it is a barrier; None if it has a rule.
        summary: The first line of its rule's documentation; "" for a barrier.
    """

    name: str
    layer: bool
    barrier: str | None
    summary: str


def decisions() -> list[Decision]:
    """All types that have a rule or are barriers, by name."""
    return sorted(
        Decision(
            kind.__name__,
            issubclass(kind, keras.Layer),
            rule.reason,
            "" if rule.reason else (rule.__doc__ or "").partition("\n")[0],
        )
        for kind, rule in RULES.items()
    )
