"""Which gates to close, or to open, so that a model fits its budgets; and doing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.budget.constraints import Constraint, Constraints
from keras_l0.budget.definition import Budget
from keras_l0.devices import placed
from keras_l0.layers import L0Gate, find_gates
from keras_l0.layers.options import CLOSED

# How much of a size is too much by rounding.
_ROUNDING = 1e-9
# A gate that training has open no more often is closed for good (as `Compaction` has
# it).
_ALIVE = 0.01
# Less room than this share of the full size is none.
_ROOM = 0.002
# A gate that saves less than this share of what another one does saves nothing.
_NOTHING = 1e-4
# How often to go on behind a gate that there is no room for.
_ROUNDS = 8


def to_close(
    model: keras.Model,
    budgets: Sequence[Budget],
    rest: Sequence[int | None] = (),
    **options: Any,
) -> list[np.ndarray]:
    """For each `L0Gate` of a model which gates to close, flat, so that it fits.

    One limit after the other is met, by closing what is worth least for what it saves
    (see `_Worth`). As many of each group of gates as `min_units` holds stay, of the
    gates or of the budgets, and so do frozen gates.

    Args:
        model: A gated model.
        budgets: What it has to fit.
        rest: For each budget the bytes of its file that are no weights, if known.
        options: As in `keras_l0.analysis.passes.Analysis`.

    Raises:
        ValueError: If no gates are left to close.
    """
    exact = Constraints(model, budgets, rest, **options)
    openness = exact.each[0].analysis.test_open()
    ends = np.cumsum([len(z) for z in openness])[:-1]
    before = np.concatenate(openness)
    left, worth = before.copy(), None
    for number, one in enumerate(exact.each):

        def over(shut: np.ndarray, one: Any = one) -> bool:
            still = left.copy()
            still[shut] = 0.0
            return not _fits(one, np.split(still, ends))

        if not over(np.zeros(0, int)):
            continue
        if worth is None:
            # Without options: what they round up by is not differentiable.
            worth = _Worth(Constraints(model, budgets, rest), openness)
        order = worth.cheapest_first(number)
        order = order[left[order] > 0]
        if over(order):
            exact.require_reachable()
            raise ValueError(
                f"`budget` must be within reach of the gates of {model.name!r}. "
                f"Received: {list(budgets)}, which it exceeds with every gate closed "
                "that may be"
            )
        left[order[: _longest(order, over) + 1]] = 0.0
    return np.split(left < before, ends)


def to_open(model: keras.Model, budgets: Sequence[Budget]) -> list[np.ndarray]:
    """For each `L0Gate` of a model which gates to open, flat, as far as there is room.

    They are among those that are closed at test time and open in training, at times.

    Args:
        model: A gated model.
        budgets: What it has to fit.
    """
    constraints = Constraints(model, budgets)
    openness = constraints.each[0].analysis.test_open()
    ends = np.cumsum([len(z) for z in openness])[:-1]
    before = np.concatenate(openness)
    left = before.copy()

    def fit(added: np.ndarray) -> bool:
        more = left.copy()
        more[added] = 1.0
        return all(_fits(one, np.split(more, ends)) for one in constraints.each)

    room = [one.share(openness) < one.limit - _ROOM for one in constraints.each]
    if not any(room):
        return np.split(left > before, ends)
    worth = _Worth(constraints, openness)
    full = np.zeros(len(left), bool)
    for number, free in enumerate(room):
        full |= worth.saves(number) & (not free)
    for number, free in enumerate(room):
        order = worth.dearest_first(number) if free else np.zeros(0, int)
        order = order[(left[order] == 0) & ~full[order]]
        for _ in range(_ROUNDS):
            count = _longest(order, fit)
            left[order[:count]] = 1.0
            order = order[count + 1 :]
    return np.split(left > before, ends)


def _fits(one: Constraint, openness: Sequence[np.ndarray]) -> bool:
    return one.share(openness) <= one.limit * (1 + _ROUNDING)


def _longest(order: np.ndarray, holds: Callable[[np.ndarray], bool]) -> int:
    """How many of the first numbers there may be, such that something holds."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(order[:middle]) else (low, middle - 1)
    return low


class _Worth:
    """What gates are worth, for what they save of each limited size.

    Training tells by `log_alpha`: it has weighed what a gate does for the task against
    its price. To that comes what a unit saves, since one that saves nothing dies for
    nothing, and how many of its group would be left, since the last units of a layer
    are worth more than the first. Of what is saved half of the logarithm counts: what
    saves much is read by much.

    Args:
        constraints: The limits.
        openness: Of the gates at test time.
    """

    def __init__(
        self, constraints: Constraints, openness: Sequence[np.ndarray]
    ) -> None:
        self.constraints, self.openness = constraints, openness
        least = constraints.min_units
        worth, held, last, wavers = [], [], [], []
        for gate in constraints.gates:
            odds = keras.ops.convert_to_numpy(gate.log_alpha).ravel().astype("float64")
            odds += gate.options.distribution.log_odds_shift
            alive = odds > np.log(_ALIVE / (1 - _ALIVE))
            order = np.argsort(odds, kind="stable")
            # How many are left once it is closed, and those that are less likely.
            rest = np.empty(gate.count)
            rest[order] = np.arange(gate.count, 0, -1)
            share = np.minimum(1.0, rest / max(1, alive.sum()))
            worth.append(odds.round(4) - np.log(share))
            stay = max(gate.options.held(gate.count), min(least, gate.count - 1))
            held.append((rest <= stay) | (not gate.trainable))
            last.append((rest == 1) & (gate.count > 1))
            alone = gate.options.estimator != "size_matched" and gate.trainable
            wavers.append(alive & alone)
        self.worth, self.held, self.last, self.wavers = map(
            np.concatenate, (worth, held, last, wavers)
        )
        self._saved: dict[int, np.ndarray] = {}

    def saved(self, number: int) -> np.ndarray:
        """What each gate saves of a size, as a share of what the dearest does."""
        if number not in self._saved:
            weights = np.eye(len(self.constraints.each))[number]
            prices = self.constraints.program.gradient(self.openness, weights)
            found = np.concatenate([np.ravel(price) for price in prices])
            self._saved[number] = found / max(found.max(), 1e-30)
        return self._saved[number]

    def saves(self, number: int) -> np.ndarray:
        """Which gates save anything of a size by themselves."""
        return self.saved(number) > _NOTHING

    def of(self, number: int) -> np.ndarray:
        """What each gate is worth where a size is limited."""
        return self.worth - np.log(np.maximum(self.saved(number), _NOTHING)) / 2

    def cheapest_first(self, number: int) -> np.ndarray:
        """Numbers of the gates that may be closed to keep a limit, in order."""
        # What saves nothing by itself comes later, the last of a group at the end.
        order = np.lexsort([self.of(number), ~self.saves(number), self.last])
        return order[~self.held[order]]

    def dearest_first(self, number: int) -> np.ndarray:
        """Numbers of the gates to open where there is room under a limit, in order."""
        order = np.argsort(-self.of(number), kind="stable")
        return order[(self.saves(number) & self.wavers)[order]]


def close_to_fit(model: keras.Model, budgets: Sequence[Budget]) -> None:
    """Closes gates of a model, in place, until it fits.

    Raises:
        ValueError: If no gates are left to close.
    """
    # Of gates that are open as many as are expected to be, another may open instead.
    while any(map(np.any, shut := to_close(model, budgets))):
        close(model, shut)


def open_to_fill(model: keras.Model, budgets: Sequence[Budget]) -> None:
    """Opens gates of a model halfway, in place, as far as it has room for more."""
    for gate, which in zip(find_gates(model), to_open(model, budgets), strict=True):
        _move(gate, which, float(gate.options.location(0.5)))


def close_for_good(model: keras.Model) -> None:
    """Closes gates, in place, that are closed at test time: in training they may open.

    Frozen gates stay, and those of which it is the others that say how many are open.
    """
    close(model, [_closed(gate) for gate in find_gates(model)])


def _closed(gate: L0Gate) -> np.ndarray:
    """Which gates are closed at test time, whatever becomes of the others."""
    if not gate.trainable or gate.options.estimator == "size_matched":
        return np.zeros(gate.count, bool)
    return keras.ops.convert_to_numpy(gate.test_gates).ravel() <= 0


def close(model: keras.Model, shut: Sequence[np.ndarray]) -> None:
    """Closes gates, in place.

    Args:
        model: A gated model.
        shut: What `to_close` returns.
    """
    for gate, which in zip(find_gates(model), shut, strict=True):
        # Those that are farther away stay.
        log_alpha = keras.ops.convert_to_numpy(gate.log_alpha).ravel()
        _move(gate, which & (log_alpha > CLOSED), CLOSED)


def _move(gate: L0Gate, which: np.ndarray, log_alpha: float) -> None:
    if which.any():
        values = keras.ops.convert_to_numpy(gate.log_alpha)
        moved = np.where(which.reshape(values.shape), log_alpha, values)
        put(gate, moved)


def put(gate: L0Gate, log_alpha: Any) -> None:
    """`L0Gate.assign_log_alpha` in the middle of a training, over several processes."""
    raw = log_alpha / gate.options.learning_rate_multiplier
    gate.raw.assign(placed(gate.raw, raw))
