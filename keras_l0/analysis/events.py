"""Which events a probability asks for, so that those of dependent ones come out right.

Of two events that depend on each other, such as two branches behind one gate, the
probability is not what it would be of independent ones. So it is known of each element
of a `Tape` which events it asks for at once: an event that is asked for twice is one
event, and what both of two alternatives ask for is asked for once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_l0.analysis.symbols import Symbol, Tape, as_symbol


def both(a: Symbol, b: Any) -> Any:
    """Where what two symbols ask for is asked for at once."""
    return a.combined(b, _both, np.multiply, unit=1.0, absorbing=0.0)


def either(a: Symbol, b: Any) -> Any:
    """Where what one or the other of two symbols asks for is asked for."""
    return a.combined(b, _either, _union, unit=0.0, absorbing=1.0)


def _both(a: Symbol, b: Symbol) -> np.ndarray:
    """Where what two symbols ask for is asked for at once."""
    tape, (x, y) = a.tape, _spread(a, b)
    events = _events(tape, x)
    _, of_x, of_y = _compared(events, _events(tape, y))
    # Who asks for no more than the other adds nothing.
    less = (of_x < 0).all(axis=1)
    of_y[less] = -1
    asked = np.concatenate([events, of_y], axis=1)
    return _product(tape, np.where(less, y, x), _all_of(tape, _packed(of_y)), asked)


def _either(a: Symbol, b: Symbol) -> np.ndarray:
    """Where what both of two symbols ask for is asked for, and the rest of one."""
    tape, (x, y) = a.tape, _spread(a, b)
    common, of_x, of_y = _compared(_events(tape, x), _events(tape, y))
    # Who asks for no more than the other asks for all that is asked for.
    found = np.where((of_x < 0).all(axis=1), x, y)
    differ = (of_x >= 0).any(axis=1) & (of_y >= 0).any(axis=1)
    if differ.any():
        common, of_x, of_y = (_packed(side[differ]) for side in (common, of_x, of_y))
        rests = (Symbol.of(tape, _all_of(tape, rest)) for rest in (of_x, of_y))
        rest = next(rests).combined(next(rests), "union", _union, 0.0, 1.0).places
        asked = np.concatenate([common, rest[:, None]], axis=1)
        found[differ] = _product(tape, _all_of(tape, common), rest, asked)
    return found


def _compared(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Row by row the events of both, of the first alone, and of the second alone.

    They stand where they stood; the places of all others hold -1.
    """
    same = (x[:, :, None] == y[:, None, :]) & (x >= 0)[:, :, None]
    of_both = same.any(axis=2)
    return [
        np.where(of_both, x, -1),
        np.where(of_both, -1, x),
        np.where(same.any(axis=1), -1, y),
    ]


def _packed(events: np.ndarray) -> np.ndarray:
    """Row by row the same events, the youngest first, in as few columns as can be."""
    width = max(1, int((events >= 0).sum(axis=1).max()))
    return -np.sort(-events, axis=1)[:, :width]


def _union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a + b - a * b


def _spread(a: Symbol, b: Symbol) -> list[np.ndarray]:
    """The places of two symbols, as vectors of one size."""
    size = max(len(a.places), len(b.places))
    return [x.spread(size).places for x in (a, b)]


def _events(tape: Tape, places: np.ndarray) -> np.ndarray:
    """For each place, in a row, the events all of which it asks for; then -1."""
    sources = tape.sources(places)
    parts = {n: tape.events[n] for n in set(sources.tolist()) & set(tape.events)}
    width = max((part.shape[1] for part in parts.values()), default=1)
    found = np.full((len(places), width), -1)
    found[:, 0] = places
    for number, part in parts.items():
        rows = sources == number
        offsets = places[rows] - tape.starts[number]
        found[rows, : part.shape[1]] = part[offsets]
    return found


def _all_of(tape: Tape, events: np.ndarray) -> np.ndarray:
    """For each row of events where all of them are asked for; -1 where none is."""
    if events.shape[1] == 1:
        return events[:, 0]
    half = events.shape[1] // 2
    parts = _all_of(tape, events[:, :half]), _all_of(tape, events[:, half:])
    return _product(tape, *parts, events)


def _product(
    tape: Tape, a: np.ndarray, b: np.ndarray, events: np.ndarray
) -> np.ndarray:
    """Where what two places ask for is asked for, which are these events."""
    product = Symbol.of(tape, a) * Symbol.of(tape, b)
    places = as_symbol(tape, product).places
    made = (a >= 0) & (b >= 0)
    if made.any():
        number = tape.number(places[made])
        if number not in tape.events:
            events = _packed(events[made])
            asked = np.empty((tape.size(number), events.shape[1]), events.dtype)
            asked[places[made] - tape.starts[number]] = events
            tape.events[number] = asked
    return places
