"""`fit_compacting`: one training, in which the model becomes smaller."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.graph import require_graph
from keras_l0.arguments import (
    check_field,
    require_integer,
    require_probability,
    require_real,
)
from keras_l0.budget.model import BudgetedModel
from keras_l0.compaction.model import closed_for_good, compacted, require_inputs
from keras_l0.compaction.narrowing import Narrowing
from keras_l0.layers import find_gates
from keras_l0.layers.finding import require_gates
from keras_l0.optimizers import innermost


@dataclasses.dataclass(frozen=True)
class Compaction:
    """When `fit_compacting` takes closed units out of a model.

    Each time, the train step is traced anew, which takes seconds. So it is done at the
    end of an epoch, if enough has closed, and if what is left of the run gains by it.

    Args:
        max_open: Closed for good is a gate that is 0 at test time and whose P(z != 0)
            is at most this, in (0, 1) ...
        patience: ... at the end of so many epochs in a row.
        min_saving: The share of the multiply-accumulates of a step that has to go, in
            (0, 1). Times the epochs that are left, it must come to one epoch at least.
        times: How often at most.
        inputs: ``"keep"`` or ``"gather"``, as in `compact`.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> import keras_l0
        >>> keras_l0.Compaction(times=1).min_saving
        0.4
    """

    max_open: float = 0.01
    patience: int = 2
    min_saving: float = 0.4
    times: int = 2
    inputs: str = "keep"

    def __post_init__(self) -> None:
        check_field(self, "max_open", require_probability)
        check_field(self, "min_saving", require_real, "in (0, 1)", lambda x: 0 < x < 1)
        check_field(self, "patience", require_integer, 1)
        check_field(self, "times", require_integer, 0)
        require_inputs(self.inputs)


def fit_compacting(
    model: keras.Model, *args: Any, compaction: Compaction | None = None, **kwargs: Any
) -> keras.callbacks.History:
    """`model.fit`, in which units that are closed for good leave the model.

    A built Keras model cannot lose units, so training goes on with another one: `fit`
    is left at the end of an epoch, `compact` makes the smaller model, and `fit` is
    entered again. To callbacks and to the history it is one training: they are told
    when it begins and ends, once, and which model it is now. What it ends with strips
    to what it would have without (but for the draws of gates, dropout and shuffling:
    which numbers are drawn depends on how many units there are).

    Args:
        model: A compiled gated model. It is left as it was trained until its first
            units went: from then on it is `model.history.model` that is trained, also
            where the run is interrupted.
        *args: What `model.fit` takes.
        compaction: When to do it; a `Compaction`.
        **kwargs: What `model.fit` takes. Iterables are iterated anew after each
            compaction; of a generator, what `fit` had fetched ahead is lost.
            `EarlyStopping(restore_best_weights=True)` keeps a unit as long as the best
            weights have it open. `ModelCheckpoint` should save whole models: weights
            alone fit the model of their time only. A callback finds the model in
            `self.model`; a function that holds the model passed goes on with that one.

    Returns:
        The history of the whole run. Its ``model`` is the model that is trained now.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the model has no gates, if a callback is `BackupAndRestore`,
            which could not put the weights of a smaller model back into this one; or as
            `model.fit` does. Where `compact` would raise, there is a warning, and
            training goes on as it is.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)),
        ...     keras_l0.layers.L0Dense(8, activation="relu"),
        ...     keras.layers.Dense(2),
        ... ])
        >>> model.compile("adam", "mse")
        >>> keras_l0.gates(model)[0].assign_log_alpha(4 * [9.0] + 4 * [-9.0])
        >>> x, y = keras.ops.ones((8, 4)), keras.ops.ones((8, 2))
        >>> history = keras_l0.fit_compacting(model, x, y, epochs=6, verbose=0)
        >>> history.epoch, history.model.layers[1].units
        ([0, 1, 2, 3, 4, 5], 4)
    """
    require_graph(model)
    require_gates(model)
    compaction = Compaction() if compaction is None else compaction
    if not isinstance(compaction, Compaction):
        raise TypeError(
            "`compaction` must be a `keras_l0.Compaction` or None. "
            f"Received: {compaction!r} of type {type(compaction).__name__}"
        )
    try:
        bound = inspect.signature(keras.Model.fit).bind(model, *args, **kwargs)
    except TypeError as error:
        raise TypeError(
            f"`fit_compacting` takes what `model.fit` takes, and `compaction`: {error}"
        ) from None
    given = bound.arguments
    callbacks = given.pop("callbacks", None)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    callbacks = keras.tree.flatten(callbacks) if callbacks else []
    if any(isinstance(one, keras.callbacks.BackupAndRestore) for one in callbacks):
        raise ValueError(
            "`callbacks` must do without `BackupAndRestore`: it could not put the "
            "weights of a smaller model back into this one. Received: "
            f"{[type(one).__name__ for one in callbacks]}"
        )
    del given["self"]
    run = _Run(callbacks, given.pop("verbose", "auto"), compaction)
    source = model
    try:
        while True:
            model.fit(**given, callbacks=[run], verbose=0)
            if run.next is None:
                model.history = source.history = run.history
                return run.history
            # What has been trained is there, whatever happens in the rest of the run.
            source.history = run.history
            model.stop_training = False
            model, given["initial_epoch"] = run.next
    except BaseException as error:
        if model is not source:
            error.add_note(
                "`fit_compacting` had gone on with a smaller model. It is "
                "`model.history.model`, of the model that was passed."
            )
        raise


class _Run(keras.callbacks.Callback):
    """Makes one training of several for the callbacks of a user, and parts them."""

    def __init__(self, callbacks: list[Any], verbose: Any, chosen: Compaction) -> None:
        super().__init__()
        self.callbacks, self.verbose, self.chosen = callbacks, verbose, chosen
        self.all: Any = None
        self.done = 0
        # The model to go on with, and from which epoch on.
        self.next: tuple[keras.Model, int] | None = None
        # For each gate at the end of how many epochs in a row it was closed for good.
        self.closed: list[np.ndarray] = []

    @property
    def history(self) -> keras.callbacks.History:
        """The history of the whole run."""
        kind = keras.callbacks.History
        return next(one for one in self.all.callbacks if isinstance(one, kind))

    def on_train_begin(self, logs: Any = None) -> None:
        if self.all is not None:
            self.next = None
            self.all.set_model(self.model)
            return
        self.all = keras.callbacks.CallbackList(
            self.callbacks,
            add_history=True,
            add_progbar=self.verbose != 0,
            model=self.model,
            **{**self.params, "verbose": self.verbose},
        )
        self.all.on_train_begin(logs)

    def on_train_end(self, logs: Any = None) -> None:
        if self.next is None:
            self.all.on_train_end(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.all.on_epoch_end(epoch, logs)
        left = self.params["epochs"] - epoch - 1
        if self.model.stop_training or self.done == self.chosen.times or not left:
            return
        # What callbacks keep, to put it back at the end.
        best = [w for c in self.callbacks if (w := getattr(c, "best_weights", None))]
        gone = self._gone(best)
        if not self._pays(gone, left):
            return
        # Now, since `fit` may do something to the weights when it is left.
        try:
            model = compacted(self.model, gone, self.chosen.inputs, also=best)
        except Exception as error:  # also those of optimizers of a user's own
            # What is trained so far is worth more than the time to be saved.
            warnings.warn(
                f"Model {self.model.name!r} trains on with all its units: {error}",
                stacklevel=2,
            )
            self.done = self.chosen.times
            return
        if isinstance(self.model, BudgetedModel):
            self.model.left = True
        self.next, self.closed = (model, epoch + 1), []
        self.done += 1
        self.model.stop_training = True

    def _gone(self, best: list[list[Any]]) -> list[np.ndarray]:
        """For each gate which units may go: closed for long, and in the best weights.

        Args:
            best: Weights that callbacks keep.
        """
        found = closed_for_good(self.model, self.chosen.max_open)
        before = self.closed or [np.zeros(z.size, int) for z in found]
        self.closed = [z * (n + 1) for z, n in zip(found, before, strict=True)]
        held = _open_in(self.model, [*best, *_averages(self.model)])
        return [
            (n >= self.chosen.patience) & ~z
            for n, z in zip(self.closed, held, strict=True)
        ]

    def _pays(self, gone: list[np.ndarray], epochs: int) -> bool:
        """Whether so many epochs without these units save more than they cost."""
        if not any(z.any() for z in gone):
            return False
        saving = 1.0 - Narrowing(self.model, gone, self.chosen.inputs).share
        return saving >= self.chosen.min_saving and saving * epochs >= 1


def _forward(name: str) -> Any:
    def method(self: _Run, *args: Any, **kwargs: Any) -> None:
        getattr(self.all, name)(*args, **kwargs)

    method.__name__ = name
    return method


for _name in (
    "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_test_begin",
    "on_test_end", "on_test_batch_begin", "on_test_batch_end",
):  # fmt: skip
    setattr(_Run, _name, _forward(_name))


def _averages(model: keras.Model) -> list[list[Any]]:
    """The averages of an optimizer, which it puts into the model at the end."""
    inner = innermost(getattr(model, "optimizer", None))
    if not getattr(inner, "use_ema", False):
        return []
    averages = inner._model_variables_moving_average
    pairs = zip(model.trainable_variables, averages, strict=True)
    by_weight = {id(v): average for v, average in pairs}
    return [[by_weight.get(id(w), w) for w in model.weights]]


def _open_in(model: keras.Model, kept: list[list[Any]]) -> list[np.ndarray]:
    """For each gate which of its units are open under weights that were kept."""
    number = {id(w): k for k, w in enumerate(model.weights)}
    found = []
    for gate in find_gates(model):
        held = np.zeros(gate.count, bool)
        for weights in kept:
            raw = keras.ops.convert_to_numpy(weights[number[id(gate.raw)]])
            log_alpha = keras.ops.convert_to_tensor(
                raw * gate.options.learning_rate_multiplier
            )
            z = keras.ops.convert_to_numpy(gate.options.test_gates(log_alpha))
            held |= z.ravel() > 0
        found.append(held)
    return found
