"""Which gates to close, or to open, so that a model fits its budgets; and doing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.budget.constraints import Constraints
from keras_l0.budget.definition import Budget
from keras_l0.layers import L0Gate, find_gates

# Where a gate is put to close it: P(z != 0) is 1e-8.
CLOSED = -20.0
# How much of a size is too much by rounding.
_ROUNDING = 1e-9
# A gate that training has open less often is closed for good.
_ALIVE = 0.05
# A gate that saves less than this share of what another one does saves nothing.
_NOTHING = 1e-4


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

        def fits(shut: np.ndarray, one: Any = one) -> bool:
            still = left.copy()
            still[shut] = 0.0
            return one.share(np.split(still, ends)) <= one.limit * (1 + _ROUNDING)

        if fits(np.zeros(0, int)):
            continue
        if worth is None:
            # Without options: what they round up by is not differentiable.
            worth = _Worth(Constraints(model, budgets, rest), budgets, openness)
        order = worth.cheapest_first(number)
        order = order[left[order] > 0]
        if not fits(order):
            exact.require_reachable()
            raise ValueError(
                f"`budget` must be within reach of the gates of {model.name!r}. "
                f"Received: {list(budgets)}, which it exceeds with every gate closed "
                "that may be"
            )
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(order[:middle]) else (middle + 1, high)
        left[order[:low]] = 0.0
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

    def fits(added: np.ndarray) -> bool:
        more = left.copy()
        more[added] = 1.0
        parts = np.split(more, ends)
        return all(
            one.share(parts) <= one.limit * (1 + _ROUNDING) for one in constraints.each
        )

    worth = None
    for number, one in enumerate(constraints.each):
        if one.share(np.split(left, ends)) >= one.limit - constraints.slack[number]:
            continue
        worth = worth or _Worth(constraints, budgets, openness)
        order = worth.dearest_first(number)
        order = order[left[order] == 0]
        low, high = 0, len(order)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(order[:middle]) else (low, middle - 1)
        left[order[:low]] = 1.0
    return np.split(left > before, ends)


class _Worth:
    """What gates are worth, for what they save of each limited size.

    Training tells by `log_alpha`: it has weighed what a gate does for the task against
    its price. To that comes what a unit saves, since one that saves nothing dies for
    nothing, and how many of its group would be left, since the last units of a layer
    are worth more than the first. Of what is saved half of the logarithm counts: what
    saves much is read by much.

    Args:
        constraints: The limits.
        budgets: What they are of.
        openness: Of the gates at test time.
    """

    def __init__(
        self,
        constraints: Constraints,
        budgets: Sequence[Budget],
        openness: Sequence[np.ndarray],
    ) -> None:
        self.constraints, self.openness = constraints, openness
        least = max(budget.min_units for budget in budgets)
        worth, held, last, wavers = [], [], [], []
        for gate in constraints.gates:
            log_alpha = keras.ops.convert_to_numpy(gate.log_alpha).ravel()
            order = np.argsort(log_alpha, kind="stable")
            left = np.zeros(gate.count)
            left[order] = np.arange(gate.count, 0, -1) / gate.count
            odds = (
                log_alpha.astype("float64") + gate.options.distribution.log_odds_shift
            )
            worth.append(odds.round(4) - np.log(left))
            stay = max(gate.options.held(gate.count), min(least, gate.count - 1))
            fixed = left <= (stay + 0.5) / gate.count
            held.append(fixed if gate.trainable else np.ones(gate.count, bool))
            last.append(left <= 1.5 / gate.count)
            alive = odds > np.log(_ALIVE / (1 - _ALIVE))
            alone = gate.options.estimator != "size_matched" and gate.trainable
            wavers.append(alive & alone)
        self.worth, self.held, self.last, self.wavers = map(
            np.concatenate, (worth, held, last, wavers)
        )

    def _of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """What each gate is worth for one limit, and whether it saves anything."""
        weights = np.eye(len(self.constraints.each))[number]
        prices = self.constraints.program.gradient(self.openness, weights)
        saved = np.concatenate([np.ravel(price) for price in prices])
        saved = saved / max(saved.max(), 1e-30)
        return (
            self.worth - np.log(np.maximum(saved, _NOTHING)) / 2,
            saved > _NOTHING,
        )

    def cheapest_first(self, number: int) -> np.ndarray:
        """Numbers of the gates that may be closed to keep a limit, in order."""
        worth, saves = self._of(number)
        # What saves nothing by itself comes later, the last of a group at the end.
        order = np.lexsort([worth, ~saves, self.last])
        return order[~self.held[order]]

    def dearest_first(self, number: int) -> np.ndarray:
        """Numbers of the gates to open where there is room under a limit, in order."""
        worth, saves = self._of(number)
        order = np.argsort(-worth, kind="stable")
        return order[(saves & self.wavers)[order]]


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
        gate.assign_log_alpha(moved)
