"""What budgets ask of one model: its limits, and what can be reached at all."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l0.analysis.evaluation import Evaluation, total_size
from keras_l0.analysis.logic import count
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.program import Program
from keras_l0.analysis.symbols import Tape
from keras_l0.analysis.timing import Timing
from keras_l0.budget.definition import Budget, SetByBudget
from keras_l0.layers.gate import VARIABLE

# Bytes of a TFLite file beside its weights, by quantization: the frame, each call with
# its tensors, and each unit of a layer of units and of one with positions: scales, and
# biases of 32 bits. They are fitted to files of small networks.
_BESIDE = {
    None: (850, 250, 0, 0),
    "float16": (1000, 340, 0, 0),
    "dynamic": (1300, 250, 16, 16),
    "int8": (1100, 350, 12, 24),
}
# What the call in front, or the one behind, takes in.
_FOLDED = (
    keras.layers.BatchNormalization, keras.layers.Activation, keras.layers.ReLU,
    keras.layers.Dropout, keras.layers.InputLayer,
)  # fmt: skip

# How many layers an error names.
_NAMED = 3
# What is limited, in an error.
_WORDS = {
    "params": "parameters",
    "macs": "MACs",
    "bytes": "bytes, by estimate,",
    "latency": "microseconds, by estimate,",
}


class Constraint:
    """One limit of a budget, for one model.

    Attributes:
        limit: The share of the full size that may be deployed.
        full: The size with all gates open.
    """

    def __init__(
        self,
        analysis: Analysis,
        budget: Budget,
        measure: str,
        rest: int | None,
        full: float | None = None,
    ) -> None:
        self.analysis, self.budget, self.measure = analysis, budget, measure
        self.names = analysis.named("layers", budget.layers)
        self.timing: Timing | None = None
        if measure == "latency":
            assert budget.table is not None
            self.timing = budget.table.timing(analysis, self.names)
        self.each = budget.weight_bytes if measure == "bytes" else 1
        # A measured file tells what there is beside weights; else units have a part.
        self.of_units = self._of_units() if measure == "bytes" and rest is None else []
        # Whether the model has lost units since: not all of the full size is there.
        self.was_wider = full is not None
        self.full = full or float(self.size(analysis.all_open()))
        if not self.full:
            raise ValueError(
                f"`budget` must limit something that there is. Received: a budget of "
                f"{measure} for layers={sorted(self.names)} of "
                f"{analysis.graph.model.name!r}, without any {measure}"
            )
        amount = budget.limits[measure]
        self.rest: float = self._rest(rest)
        if isinstance(amount, float):
            amount *= self.amount(1.0)
        self.limit = min(1.0, (amount - self.rest) / self.each / self.full)

    def _rest(self, of_file: int | None) -> float:
        """What does not shrink with the layers: of a file, and of a call."""
        if self.measure == "latency" and not self.names:
            assert self.budget.table is not None
            return self.budget.table.overhead
        if self.measure != "bytes":
            return 0
        if of_file is not None:
            return of_file
        operations = [step.node.operation for step in self.analysis.steps]
        calls = [x for x in operations if x is not None and not isinstance(x, _FOLDED)]
        frame, call, *_ = _BESIDE[self.budget.quantization]
        return frame + call * len(calls)

    def _of_units(self) -> list[tuple[Step, float]]:
        """The calls whose units take bytes of a file by themselves: weights' worth."""
        found: dict[int, tuple[Step, float]] = {}
        *_, alone, placed = _BESIDE[self.budget.quantization]
        for step in self.analysis.steps:
            weights = getattr(step.node.operation, "weights", ())
            kernels = [len(w.shape) for w in weights if w.name != VARIABLE]
            rank = max(kernels, default=0)
            if rank >= 2:
                each = (alone if rank == 2 else placed) / self.each
                found[id(step.node.operation)] = step, each
        return [pair for pair in found.values() if pair[1]]

    def amount(self, share: float) -> float:
        """What a share of the full size is in what the budget limits."""
        return share * self.each * self.full + self.rest

    def size(self, evaluation: Evaluation) -> Any:
        """What is measured of an evaluation: parameters or bytes, MACs, time."""
        if self.timing is not None:
            return self.timing(evaluation)
        pairs = [
            (step, size)
            for step, size in zip(self.analysis.steps, evaluation.sizes, strict=True)
            if not self.names or step.node.name in self.names
        ]
        total = total_size(pairs)
        if self.measure == "macs":
            return total.macs
        units = [each * count(evaluation.keep[s.units]) for s, each in self.of_units]
        return sum(units, total.params)

    def share(self, openness: Sequence[Any]) -> Any:
        """The share of the full size that this openness of the gates leaves."""
        return self.size(self.analysis.evaluate(openness)) / self.full


class Constraints:
    """All limits of some budgets, for one model.

    Args:
        model: A built Sequential or functional model.
        budgets: What it has to fit.
        rest: For each budget the bytes of its file that are no weights, if known.
        options: As in `Analysis`.

    Attributes:
        gates: The gates of the model, in the order of `keras_l0.gates`.
    """

    def __init__(
        self,
        model: Any,
        budgets: Sequence[Budget],
        rest: Sequence[int | None] = (),
        **options: Any,
    ) -> None:
        self.model = model
        analyses = {b.inputs: Analysis(model, b.inputs, **options) for b in budgets}
        rest = rest or [None] * len(budgets)
        wide = _before(next(iter(analyses.values())).gates, budgets)
        self._slacks = [slack for _, slack in wide]
        fulls = iter([full for full, _ in wide])
        self.each = [
            Constraint(
                analyses[budget.inputs], budget, measure, beside, next(fulls, None)
            )
            for budget, beside in zip(budgets, rest, strict=True)
            for measure in budget.limits
        ]
        self.gates = self.each[0].analysis.gates

    @functools.cached_property
    def program(self) -> Program:
        """The shares that are limited, as functions of the openness of the gates."""
        tape = Tape([gate.count for gate in self.gates])
        return Program(tape, [one.share(tape.inputs) for one in self.each])

    @functools.cached_property
    def slack(self) -> np.ndarray:
        """How far below each limit the size is near enough."""
        return np.array(self._slacks or [self._slack(k) for k in range(len(self.each))])

    @property
    def min_units(self) -> int:
        """How many units of each layer stay, by any of the budgets."""
        return max(one.budget.min_units for one in self.each)

    @property
    def wide(self) -> list[list[float]]:
        """For each limit the full size, and how near is near enough."""
        slack = self.slack.tolist()
        return [[one.full, s] for one, s in zip(self.each, slack, strict=True)]

    def _slack(self, number: int) -> float:
        """About one unit, at most one percent."""
        weights = np.eye(len(self.each))[number]
        prices = self.program.gradient(self.each[0].analysis.ones(), weights)
        unit = max(float(p.max()) for p in prices) * self.each[number].limit ** 0.5
        return min(max(unit, 0.002), 0.01)

    def limits_at(self, progress: Any) -> Any:
        """The limits at a point of the ramp (0: all open, 1: the budget)."""
        limits = ops.convert_to_tensor([one.limit for one in self.each], "float32")
        return limits + (1.0 - limits) * (1.0 - progress) ** 3

    def require_reachable(self) -> None:
        """Raises if a limit is below what `Budget.min_units` everywhere leaves."""
        units = max(1, self.min_units)
        # What `strip` holds besides, which the analysis knows.
        told = max(units, self.each[0].analysis.min_units)
        kept = sorted(self.each[0].analysis.kept_layers)
        for one in self.each:
            analysis = one.analysis
            least = [
                1.0 * (np.arange(gate.count) < units) if gate.trainable else test
                for gate, test in zip(analysis.gates, analysis.test_open(), strict=True)
            ]
            floor = one.share(least)
            if floor <= one.limit:
                continue
            barriers = ", ".join(_barriers(one, least))
            frozen = (
                ""
                if all(g.trainable for g in self.gates)
                else ", frozen ones as they are"
            )
            whole = f", all of {', '.join(map(repr, kept))}" if kept else ""
            least_amount = one.amount(floor)
            raise ValueError(
                f"`{one.measure}` of the budget must be within reach of the gates of "
                f"{self.model.name!r}. With {told} of its units left in each gated "
                f"layer{frozen}{whole}, {round(least_amount):,} {_WORDS[one.measure]} "
                f"({least_amount / one.amount(1.0):.1%}) stay{_most(one, least)}. "
                f"Barriers: {barriers or 'none: what has no gates stays'}. "
                f"Received: {one.measure}={one.budget.limits[one.measure]!r}"
            )


def _most(one: Constraint, least: list[np.ndarray]) -> str:
    """The layers that most of what stays is in, in words."""
    if one.timing is not None:
        return ""
    evaluation = one.analysis.evaluate(least)
    sizes = {
        step.node.name: float(size.macs if one.measure == "macs" else size.params)
        for step, size in zip(one.analysis.steps, evaluation.sizes, strict=True)
        if not one.names or step.node.name in one.names
    }
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_NAMED]
    named = [
        f"{name!r} {round(one.each * sizes[name]):,}" for name in largest if sizes[name]
    ]
    return f" (most in {', '.join(named)})" if named else ""


def _barriers(one: Constraint, least: list[np.ndarray]) -> Iterator[str]:
    """What holds back how much of what is limited, with only so much open."""
    size = float(one.size(one.analysis.evaluate(least)))
    for step in one.analysis.steps:
        if step.rule.reason:
            lifted = float(one.size(one.analysis.evaluate(least, lifted=[step])))
            freed = round(one.each * (size - lifted))
            if freed > 0:
                yield f"{step.node.name!r} ({step.rule.reason}; holds back {freed:,})"


def _before(gates: Sequence[Any], budgets: Sequence[Budget]) -> Any:
    """`Constraints.wide` of a model when it had all its units, if it has lost some."""
    marks = (g.regularizer for g in gates if isinstance(g.regularizer, SetByBudget))
    mark = next(marks, None)
    if mark is None or mark.wide is None:
        return ()
    then, now = (list(map(_measured, some)) for some in (mark.budgets, budgets))
    return mark.wide if then == now else ()


def _measured(budget: Budget) -> Budget:
    """What a budget measures, whatever it allows of it."""
    most: dict[str, Any] = dict.fromkeys(budget.limits, 1.0)
    return dataclasses.replace(budget, **most, ramp_steps=None, min_units=1)
