"""How a budgeted model is trained: its ramp, and when its gates are settled."""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras

from keras_l0.budget.closing import close_for_good, close_to_fit, open_to_fill
from keras_l0.budget.pace import paces, quicken
from keras_l0.layers import find_gates
from keras_l0.layers.finding import require_finite_gates
from keras_l0.optimizers import innermost

# Steps of the ramp as long as neither the budgets nor `fit` say how many.
RAMP_STEPS = 2000
# After this share of the epochs, gates are settled.
_SETTLING = 0.75


class Course(keras.callbacks.Callback):
    """Tells a budgeted model how long it will be trained, and settles its gates.

    Multipliers come near the limit, but gates are not divisible, and as the learning
    rate falls the last ones hardly move: some are a little over it. Others stay where
    they are closed at test time, but open in every third step of training, say, and
    statistics of normalizations are those of networks that will not be deployed. So
    what is left of the epochs when most are over (a quarter of them, one at least)
    trains the network that will be.

    Args:
        epochs: Of this training, with those that it leaves out.
        first: Number of its first epoch; above 0 it goes on with another training.
    """

    def __init__(self, epochs: int, first: int) -> None:
        super().__init__()
        self.epochs, self.first = epochs, first
        self.last = _last_part(first, epochs)
        # Whether the ramp is a guess, and where it began.
        self.guessed, self.started = False, (0, 0)
        # Whether the limit has to come down, and whether gates keep pace with it.
        self.comes_down, self.paced = True, False
        # Whether what is over the limit can be closed at all, and has been at the end.
        self.closes, self.fitted = True, False

    def on_train_begin(self, logs: Any = None) -> None:
        goes_on = bool(self.first) and self.model._under_way
        if goes_on:
            self.last = _last_part(0, self.epochs)
        else:
            self._start()
        step, ramp = self.model.ramp
        self.comes_down = goes_on or step < ramp

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not self.paced:
            # Not before: other callbacks may have restored a training by now.
            self._keep_pace()

    def _start(self) -> None:
        step, ramp = self.model.ramp
        self.model._unsettle()
        chosen = self.model._chosen_ramp
        if chosen and step < ramp:
            self.model._set_ramp(0.0, ramp, step)
            return
        steps = self.params.get("steps")
        half = (steps or 0) * (self.epochs - self.first) // 2
        # If nobody knows how many steps there will be, the first epoch tells.
        self.guessed = not (chosen or steps)
        self.model._start_ramp(chosen or (RAMP_STEPS if self.guessed else half))
        self.started = self.model.ramp

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        require_finite_gates(self.model)
        step, ramp = self.model.ramp
        if self.guessed and ramp == RAMP_STEPS:
            start, taken = self.started[0], step - self.started[0]
            half = taken * (self.epochs - self.first) // 2
            self.model._set_ramp(start / ramp, half, taken)
            step, ramp = self.model.ramp
            self._keep_pace()
        self.guessed = False
        if self.model.settled or self.last <= epoch + 1 < self.epochs and step >= ramp:
            self._settle()

    def on_train_end(self, logs: Any = None) -> None:
        if self.model.settled:
            # An optimizer may have given back averages of weights over steps.
            self.model._hold()
            self._close()
            self.model._unsettle()
            self.fitted = True
        self.model._ended = True

    def warn_above(self) -> None:
        """Says so, and why, if the model is above its budget once `fit` is over."""
        model = self.model
        step, ramp = model.ramp
        chosen = model._chosen_ramp and step < ramp and not self.fitted
        moves = any(gate.trainable for gate in find_gates(model))
        if model.left or chosen or not moves or not self.closes or not model.above:
            return
        late = f"start_from_epoch={self.last}"
        if self.fitted:
            why = (
                "it had fitted, and then a callback put back weights of an earlier "
                "epoch. Let it choose among the last ones, by "
                f"EarlyStopping(..., {late}) for one"
            )
        elif self.epochs - self.first == 1:
            why = (
                "it has trained for one epoch, and gates are settled between epochs. "
                "Train for two at least"
            )
        else:
            why = (
                "it stopped before its gates were settled, which is after "
                f"{self.last} of {self.epochs} epochs. Let it go on until then, by "
                f"EarlyStopping(..., {late}) for one"
            )
        warnings.warn(
            f"Model {model.name!r} is above its budget, at {model.above}: {why}, or "
            "close what is over by keras_l0.strip(model, budget=...).",
            stacklevel=3,
        )

    def _keep_pace(self) -> None:
        """Lets gates learn as fast as the limit comes down, at least."""
        self.paced = True
        optimizer = innermost(self.model.optimizer)
        gates = find_gates(self.model) if self.comes_down else []
        multiplier = {
            id(gate.raw): gate.options.learning_rate_multiplier for gate in gates
        }
        found = paces(optimizer, set(multiplier.values()), *self.model.ramp)
        faster = {key: found[m] for key, m in multiplier.items() if m in found}
        quicken(optimizer, faster)
        # It is part of what has been traced, if anything has.
        if faster != self.model._paces:
            self.model._paces = faster
            self.model._retrace()

    def _settle(self) -> None:
        settled = self.model.settled
        self.model._hold()
        self._close()
        if not settled:
            open_to_fill(self.model, self.model.budgets)
            close_for_good(self.model)
            self.model._settle()
            self.model._hold()

    def _close(self) -> None:
        try:
            if self.closes:
                close_to_fit(self.model, self.model.budgets)
        except ValueError as error:
            # What is trained so far is worth more than the limit.
            warnings.warn(
                f"Model {self.model.name!r} trains on above its budget: {error}",
                stacklevel=2,
            )
            self.closes = False


def _last_part(first: int, epochs: int) -> int:
    """The first of the epochs in which gates are settled."""
    return min(first + math.ceil(_SETTLING * (epochs - first)), epochs - 1)
