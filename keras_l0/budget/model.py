"""`BudgetedModel`: a model that trains to a wanted size."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.models.functional import Functional

from keras_l0.budget.closing import put
from keras_l0.budget.constraints import Constraints
from keras_l0.budget.course import RAMP_STEPS, Course
from keras_l0.budget.definition import SetByBudget
from keras_l0.budget.pace import Pace, slow_down
from keras_l0.budget.prices import Share, moved, spared
from keras_l0.devices import placed
from keras_l0.layers import find_gates
from keras_l0.optimizers import exclude_from_weight_decay, innermost


@keras.saving.register_keras_serializable(package="keras_l0")
class BudgetedModel(Functional):
    """A functional model whose gates close until it fits its budgets.

    Made by `with_budget` or `keras_l0.add_gates`. It trains by `compile` and `fit` like
    any other: in each training step it compares the *deployed* size with a limit that
    comes down from the full size, and moves one Lagrange multiplier per limit: up while
    the model is too large, down, to below 0, while more than about one unit too much is
    closed. Each gate is pushed by its multipliers times what it adds to the *expected*
    size. In few steps, or at a small learning rate, `fit` lets gates learn faster than
    their options say, under optimizers like Adam, so that they can follow the limit.

    After three quarters of the epochs of `fit` the gates are settled: the rest trains
    the network that will be deployed. Gates that are over the limit are closed, those
    that there is room for are opened; what is closed at test time is closed for good,
    and the others have their test-time values in training as well.

    Multipliers, prices, the place on the ramp and whether gates are settled are weights
    that training assigns, as the statistics of a BatchNormalization are: they are
    saved, loaded and restored with the model. A clone has a budget of its own, for its
    own gates.

    Args:
        inputs: As in `keras.Model`.
        outputs: As in `keras.Model`, of layers with gates under a budget.
        name: As in `keras.Model`.
        **kwargs: What `keras.Model` takes.

    Attributes:
        budgets: What the model has to fit; empty if no gate in it is under a budget.
        multipliers: The Lagrange multiplier of each limit, in units of the loss per
            full size.
        ramp: The training step on the ramp, and its steps (0: not known yet). A `fit`
            that starts above the budget starts it anew, from the size at that time.
        settled: Whether gates have their test-time values in training as well.
        latency: Microseconds that the stripped model takes, by a budget's table.

    Raises:
        ValueError: If what limits it does not fit the layers.

    Example:
        >>> import numpy as np, keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras_l0.layers.L0Dense(8), keras.layers.Dense(2)])
        >>> model = keras_l0.with_budget(model, keras_l0.Budget(params=0.5))
        >>> model.compile(keras.optimizers.Adam(1e-2), "mse")
        >>> data = np.ones((64, 4)), np.ones((64, 2))
        >>> history = model.fit(*data, batch_size=8, epochs=4, verbose=0)
        >>> model.ramp, keras_l0.profile(model).deployed_density.params <= 0.5
        ((32, 16), True)
    """

    # Its `call` does more than run the graph, but to the same result.
    runs_its_graph = True

    def __init__(
        self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        gates = find_gates(self)
        marks = [g.regularizer for g in gates if isinstance(g.regularizer, SetByBudget)]
        self.budgets = marks[0].budgets if marks else ()
        # Whether another model, made of this one, goes on with its training.
        self.left = False
        # Calls of this model that are under way; whether gates ran outside of one.
        self._running, self._warned = 0, False
        # Of gates that learn faster in what has been traced, by variable.
        self._paces: dict[int, Pace] = {}
        # Whether that training has ended, as far as this object knows.
        self._ended = False
        if not marks:
            return
        self._constraints = Constraints(self, self.budgets)

        def state(weight: str, size: int) -> Any:
            return self.add_weight(
                name=weight, shape=(size,), dtype="float32", initializer="zeros",
                trainable=False, autocast=False, aggregation="mean",
            )  # fmt: skip

        self._multipliers = state("multipliers", len(self._constraints.each))
        # Steps taken, and steps of the ramp.
        self._progress = state("progress", 2)
        count = sum(gate.count for gate in gates)
        # Of settled gates whether they are open, 1, or closed, -1; else 0.
        self._settled = state("settled", count)
        self._prices = state("prices", count)
        ends = np.cumsum([gate.count for gate in gates])
        for gate, end in zip(gates, ends, strict=True):
            part = slice(int(end) - gate.count, int(end))
            gate.raw.regularizer = Share(self._prices, part, gate)
            gate.settled = functools.partial(self._settled_of, part, gate.raw.shape)
            gate.on_draw = self._on_draw

    @property
    def state(self) -> list[Any]:
        """The weights that training assigns."""
        return [self._multipliers, self._progress, self._settled, self._prices]

    @property
    def wide(self) -> list[list[float]] | None:
        """What the limits' shares are shares of (`Constraints.wide`)."""
        return self._constraints.wide if self.budgets else None

    @property
    def multipliers(self) -> list[float]:
        """The Lagrange multiplier of each limit; 0 where the size is as wanted."""
        if not self.budgets:
            return []
        return ops.convert_to_numpy(self._multipliers).tolist()

    @property
    def settled(self) -> bool:
        """Whether gates have their test-time values in training, too."""
        return bool(self.budgets) and ops.convert_to_numpy(self._settled).any()

    @property
    def latency(self) -> float | None:
        """Microseconds that the stripped model takes by the table of a budget, if any.

        If several budgets have tables, by that of the first for the whole model.
        """
        if not self.budgets:
            return None
        for one in self._constraints.each:
            if one.timing is not None and not one.names:
                return float(one.amount(one.share(one.analysis.test_open())))
        return None

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if (
            training
            and self.budgets
            and any(gate.trainable for gate in self._constraints.gates)
        ):
            self._update()
        # A number: replicas take turns in here.
        self._running += 1
        try:
            return super().call(inputs, training=training, mask=mask)
        finally:
            self._running -= 1

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.compile`; weight decay, if there is any, spares the gates.

        An optimizer that has been told already what not to decay keeps to that.
        """
        super().compile(*args, **kwargs)
        self._paces = {}
        optimizer = getattr(self, "optimizer", None)
        if not self.budgets or optimizer is None:
            return
        inner = innermost(optimizer)
        told = hasattr(inner, "_exclude_from_weight_decay")
        if getattr(inner, "weight_decay", None) and not inner.built and not told:
            exclude_from_weight_decay(optimizer)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model as it was when it was saved.

        Keras does not, where a class has a `compile` of its own.
        """
        if type(self).compile is not BudgetedModel.compile:
            super().compile_from_config(config)
            return
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def _update(self) -> None:
        """Moves multipliers and prices by one training step."""
        probable, deployed = [], []
        for gate in self._constraints.gates:
            raw = ops.stop_gradient(ops.convert_to_tensor(gate.raw))
            log_alpha = raw * gate.options.learning_rate_multiplier
            is_open = _vector(gate.options.test_gates(log_alpha) > 0)
            deployed.append(is_open)
            # A frozen gate is what it is at test time.
            drawn = gate.options.distribution.prob_open(log_alpha)
            probable.append(_vector(drawn) if gate.trainable else is_open)
        progress = ops.convert_to_tensor(self._progress)
        step, ramp = progress[0], progress[1]
        ramp = ops.where(ramp > 0, ramp, float(self._chosen_ramp or RAMP_STEPS))
        limits = self._constraints.limits_at(ops.minimum(1.0, step / ramp))
        program = self._constraints.program
        found = ops.stack(program(_at_hand(deployed)))
        multipliers = moved(
            ops.convert_to_tensor(self._multipliers),
            found,
            limits,
            ops.convert_to_tensor(self._constraints.slack, "float32"),
            ramp,
        )
        # Settled gates are not pushed any more.
        settled = ops.any(ops.convert_to_tensor(self._settled) != 0)
        multipliers = ops.where(settled, 0.0, multipliers)
        weights = ops.unstack(multipliers, len(self._constraints.each))
        slopes = program.gradient(_at_hand(probable), _at_hand(weights))
        free = self._constraints.min_units
        slopes = [
            spared(slope, p, free) for slope, p in zip(slopes, probable, strict=True)
        ]
        self._multipliers.assign(multipliers)
        self._prices.assign(ops.concatenate(slopes))
        self._progress.assign(ops.stack([step + 1.0, progress[1]]))

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.fit`; the limit reaches the budget after half of its steps."""
        if not self.budgets:
            return super().fit(*args, **kwargs)
        fit = super().fit
        bound = inspect.signature(fit).bind(*args, **kwargs)
        if getattr(self, "train_function", None) is None:
            # What a closed channel is at rest is what the weights make of it now.
            self._constraints = Constraints(self, self.budgets)
        callbacks = bound.arguments.get("callbacks")
        # First: what others save or measure at the end of an epoch is what goes on.
        epochs, first = (bound.arguments.get(n) for n in ("epochs", "initial_epoch"))
        course = Course(1 if epochs is None else epochs, first or 0)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            # A list that is made already, `fit` takes as it is.
            course.set_model(self)
            course.set_params(callbacks.params)
            all_of_them = callbacks.callbacks
        else:
            all_of_them = keras.tree.flatten(callbacks) if callbacks else []
            bound.arguments["callbacks"] = all_of_them
        all_of_them.insert(0, course)
        self.left = False
        try:
            history = fit(*bound.args, **bound.kwargs)
        finally:
            all_of_them.remove(course)
            slow_down(innermost(getattr(self, "optimizer", None)))
        # Not before: the end of a training is when callbacks put weights back.
        course.warn_above()
        return history

    def _retrace(self) -> None:
        """Has the training step traced anew, from the next step on."""
        step, instance = self.train_step, self.__dict__
        own = instance.get("train_step")
        # A function of its own: of an equal method JAX takes what it has traced before.
        instance["train_step"] = lambda *args: step(*args)
        self.make_train_function(force=True)
        if own is None:
            del instance["train_step"]
        else:
            instance["train_step"] = own

    def _settled_of(self, part: slice, shape: Any) -> Any:
        """What `L0Gate.settled` says of the gates of one variable."""
        return ops.reshape(ops.convert_to_tensor(self._settled)[part], shape)

    def _settle(self) -> None:
        """From now on gates have their test-time values in training, too."""
        sides = [
            np.where(z > 0, 1.0, -1.0)
            for z in self._constraints.each[0].analysis.test_gates()
        ]
        self._settled.assign(placed(self._settled, np.concatenate(sides)))

    def _hold(self) -> None:
        """Puts settled gates where they count as being; the optimizer moves them."""
        for gate in find_gates(self):
            if gate.trainable and gate.settled is not None:
                held = gate.options.settled(gate.log_alpha, gate.settled())
                put(gate, ops.convert_to_numpy(held))

    def _on_draw(self) -> None:
        """Says so, once, if it is not this model that gates are drawn in."""
        if not self._running and not self._warned:
            self._warned = True
            warnings.warn(
                f"Gates under the budget of {self.name!r} are trained in another model "
                "of the same layers, where no budget acts on them. Train the "
                "`BudgetedModel`, put it as a whole into the other one, or derive a "
                "class from `keras_l0.BudgetedModel`.",
                stacklevel=2,
            )

    @property
    def _chosen_ramp(self) -> int | None:
        """The `Budget.ramp_steps`, the longest of several."""
        chosen = [b.ramp_steps for b in self.budgets if b.ramp_steps is not None]
        return max(1, *chosen) if chosen else None

    @property
    def above(self) -> str:
        """What strip would leave now that is above the budget, in words, if it is."""
        each = self._constraints.each if self.budgets else []
        shares = [one.share(one.analysis.test_open()) for one in each]
        return ", ".join(
            f"{share:.1%} of its {one.measure} where the limit is {one.limit:.1%}"
            for one, share in zip(each, shares, strict=True)
            if share > one.limit
        )

    def _start_ramp(self, steps: int) -> None:
        """Lets the limit come down to the budget, from where the size is now.

        From the full size it takes so many steps, from that of the budget none.
        """
        limits = np.array([one.limit for one in self._constraints.each])
        sizes = [one.share(one.analysis.test_open()) for one in self._constraints.each]
        above = (sizes - limits) / np.maximum(1 - limits, 1e-9)
        above[sizes <= limits + self._constraints.slack] = 0.0
        start = 1 - above.clip(0, 1).max() ** (1 / 3)
        self._set_ramp(start, steps)
        self._multipliers.assign(np.zeros(len(limits)))

    def _set_ramp(self, done: float, steps: int, beside: int = 0) -> None:
        """Sets the place on the ramp.

        Args:
            done: The share of the ramp that is done.
            steps: Steps of the whole.
            beside: Steps that were taken besides.
        """
        steps = max(1, steps)
        self._progress.assign([int(done * steps) + beside, steps])
        self._ended = False

    @property
    def ramp(self) -> tuple[int, int]:
        """The training step on the ramp, and its steps (0: not known yet)."""
        step, ramp = ops.convert_to_numpy(self._progress)
        return int(step), int(ramp)

    @property
    def _under_way(self) -> bool:
        """Whether a training has been left before its end."""
        return bool(self.ramp[1] and not self._ended)

    def _unsettle(self) -> None:
        none = np.zeros(self._settled.shape)
        self._settled.assign(placed(self._settled, none))


def _vector(x: Any) -> Any:
    return ops.ravel(ops.cast(x, "float32"))


def _at_hand(tensors: list[Any]) -> list[Any]:
    """On Torch, which runs each operation by itself, arrays: NumPy takes less for one.

    A program is hundreds of operations on a few numbers each.
    """
    if keras.backend.backend() != "torch":
        return tensors
    return [ops.convert_to_numpy(x) for x in tensors]
