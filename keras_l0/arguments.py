"""Arguments that are checked: each error names what came and what was expected."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import keras
import numpy as np

# Seeds of Keras are integers below this.
SEEDS = 2**32


def is_integer(value: Any) -> bool:
    """Whether a value is an integer, of Python or NumPy, and no boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def require_integer(name: str, value: Any, least: int, what: str = "an integer") -> int:
    """``value`` as an `int`, if it is an integer that is large enough.

    Args:
        name: The argument's name, for the message.
        value: What came.
        least: The smallest that is allowed.
        what: What it should be, in words: "<what> >= <least>".

    Raises:
        TypeError: If it is something else; a bool is not one.
        ValueError: If it is smaller.
    """
    expected = f"`{name}` must be {what} >= {least}. Received: {name}={value!r}"
    if not is_integer(value):
        raise TypeError(f"{expected} of type {type(value).__name__}")
    if value < least:
        raise ValueError(expected)
    return int(value)


def require_model(name: str, value: Any) -> None:
    """Raises unless a value is a Keras model.

    Raises:
        TypeError: If it is something else.
    """
    if not isinstance(value, keras.Model):
        raise TypeError(
            f"`{name}` must be a Keras model. "
            f"Received: {value!r} of type {type(value).__name__}"
        )


def require_seed(seed: Any) -> int | None:
    """A seed as an `int` that Keras takes, or None.

    Raises:
        TypeError: If it is something else.
        ValueError: If it does not fit 32 bits.
    """
    if seed is None:
        return None
    if not is_integer(seed):
        raise TypeError(f"`seed` must be an integer or None. Received: seed={seed!r}")
    if not 0 <= seed < SEEDS:
        raise ValueError(f"`seed` must be in [0, 2**32). Received: seed={seed!r}")
    return int(seed)


def require_one_of(name: str, value: Any, known: Iterable[Any]) -> None:
    """Raises unless a value is one of those that an argument takes.

    Args:
        name: The argument's name, for the message.
        value: What came.
        known: What the argument takes.

    Raises:
        ValueError: If it is another one.
    """
    if not isinstance(value, Hashable) or value not in known:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, known))}. "
            f"Received: {name}={value!r}"
        )


def require_real(
    name: str, value: Any, expected: str, holds: Callable[[float], bool]
) -> float:
    """``value`` as a float, if it is a finite real number in a range.

    Args:
        name: The argument's name, for the message.
        value: What came.
        expected: The range in words: "a finite number <expected>".
        holds: Whether a number lies in the range.

    Raises:
        TypeError: If ``value`` is not a real number; a bool is not one.
        ValueError: If it is NaN, infinite, or outside the range.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"`{name}` must be a real number {expected}. "
            f"Received: {name}={value!r} of type {type(value).__name__}"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and holds(number)):
        raise ValueError(
            f"`{name}` must be a finite number {expected}. Received: {name}={number!r}"
        )
    return number


def require_probability(name: str, value: Any) -> float:
    """`require_real` for a probability that is neither 0 nor 1."""
    return require_real(
        name, value, "strictly between 0 and 1", lambda number: 0 < number < 1
    )


def check_field(owner: Any, name: str, check: Callable[..., Any], *rest: Any) -> None:
    """Replaces a field of a frozen dataclass by what a check makes of it.

    Args:
        owner: The dataclass.
        name: The field's name.
        check: One of the functions above: from a name and a value to the value, as a
            number of Python's that any file can hold.
        rest: What else ``check`` takes.
    """
    object.__setattr__(owner, name, check(name, getattr(owner, name), *rest))
