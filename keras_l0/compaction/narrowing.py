"""A gated model without the channels that some closed gates leave at 0.

It is the analysis and the rewrite of `strip` once more, in another mode: gates stay in
the model, and nothing is folded, so that every weight of the result is one of the
source. Which one, the rewrite says itself: it runs once more, on weights that are
numbered.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.arrays import native
from keras_l0.analysis.copying import copied
from keras_l0.analysis.evaluation import Evaluation
from keras_l0.analysis.facts import Site
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.rounding import EPSILON
from keras_l0.analysis.rules.base import Rule
from keras_l0.layers import find_gates
from keras_l0.rewrite import Rewriter


@dataclasses.dataclass(frozen=True)
class Narrowed:
    """A narrower model, and where each of its parts comes from.

    Attributes:
        model: A functional model, not compiled.
        analysis: The analysis of the source.
        evaluation: What was kept.
        layers: Pairs of a source's layer and the new one.
        origins: By the id of each new weight the source's weight, and for each number
            in it the place of that number in the (flat) source's.
        kept: By the id of each `L0Gate` of the source the numbers of the gates kept.
        whole: By the name of each layer that was not cut the reason.
    """

    model: keras.Model
    analysis: Analysis
    evaluation: Evaluation
    layers: list[tuple[Any, Any]]
    origins: dict[int, tuple[Any, np.ndarray]]
    kept: dict[int, np.ndarray]
    whole: dict[str, str]


class Narrowing:
    """What would be left of a gated model without some of its gates.

    Args:
        model: A built Sequential or functional model.
        gone: For each gate of `keras_l0.gates` which of its units never open again.
        inputs: As in `keras_l0.strip`; ``"keep"`` or ``"gather"``.
        whole: By the id of a layer why it is not to be cut.
    """

    def __init__(
        self,
        model: keras.Model,
        gone: Sequence[np.ndarray],
        inputs: str = "keep",
        whole: dict[int, str] | None = None,
    ) -> None:
        self.model, self.inputs = model, inputs
        # Of the gates of a layer, training never holds all.
        held = max((g.options.min_units for g in find_gates(model)), default=0)
        self.least = held + 1
        analysis = Analysis(model, inputs, min_units=self.least)
        self.whole = dict(whole or {})
        for step in analysis.steps:
            reason = None if step.rule.whole else step.rule.whole_with_gates()
            if step.node.operation and step.node not in analysis.graph.nodes:
                reason = "it is another layer in training"
            if reason:
                self.whole.setdefault(id(step.node.operation), reason)
        self.analysis = self._left(analysis)
        open_ = [1.0 - np.asarray(g, "float64") for g in gone]
        self.evaluation = self.analysis.evaluate(open_, training=True)

    @property
    def share(self) -> float:
        """The share of the model's multiply-accumulates that is left."""
        dense = self.analysis.evaluate(self.analysis.ones(), training=True)
        before = dense.total.macs
        return float(self.evaluation.total.macs / before) if before else 1.0

    def _left(self, analysis: Analysis) -> Analysis:
        """The analysis where channels are 0 or stay, and some layers are left whole."""

        def change(rule: Rule) -> Rule:
            rule = copy.copy(rule.at_zero())
            rule.whole |= id(rule.node.operation) in self.whole
            return rule

        return analysis.ruled(change)

    def run(self) -> Narrowed:
        """The narrower model."""
        rewriter = _Narrower(self.analysis, self.evaluation)
        model = rewriter.run()
        steps = {id(step.node.operation): step for step in self.analysis.steps}
        return Narrowed(
            model=model,
            analysis=self.analysis,
            evaluation=self.evaluation,
            layers=list(rewriter.pairs.values()),
            origins=self._origins(rewriter, steps),
            kept=rewriter.kept,
            whole={steps[key].node.name: why for key, why in self.whole.items()},
        )

    def _origins(
        self, rewriter: _Narrower, steps: dict[int, Step]
    ) -> dict[int, tuple[Any, np.ndarray]]:
        """`Narrowed.origins`; raises if a weight is not made of the source's alone."""
        weights = [w for old, _ in rewriter.pairs.values() for w in old.weights]
        places: dict[int, Any] = {}
        for digit in range(max(map(_digits, weights), default=0)):
            with _numbered(weights, digit):
                numbers = Analysis(self.model, self.inputs, min_units=self.least)
                again = _Narrower(self._left(numbers), self.evaluation)
                again.run()
            for key, (old, new) in rewriter.pairs.items():
                found = again.pairs[key][1].weights
                for w, target, value in zip(
                    old.weights, new.weights, found, strict=True
                ):
                    base = _base(w)
                    part = base and native(value).astype("float64") * base**digit
                    places[id(target)] = places.get(id(target), 0) + part
        origins = {}
        for key, (old, new) in rewriter.pairs.items():
            for w, target in zip(old.weights, new.weights, strict=True):
                place = _checked(w, target, places[id(target)])
                if place is None:
                    reason = "it would take other weights, and not only fewer"
                    raise _Uncut(steps[key], reason)
                origins[id(target)] = w, place
        return origins


def _checked(source: Any, target: Any, place: np.ndarray) -> np.ndarray | None:
    """Where each number of a weight is in its source; None if it is not there."""
    values, cut = native(source).ravel(), native(target)
    if not _base(source):  # whole numbers and words, which nothing cuts
        place = np.arange(values.size).reshape(source.shape)
    whole = place.astype("int64")
    fits = (
        whole.shape == cut.shape
        and (whole == place).all()
        and np.isin(whole, np.arange(values.size)).all()
    )
    return whole if fits and np.array_equal(values[whole], cut) else None


def narrow(
    model: keras.Model, gone: Sequence[np.ndarray], inputs: str = "keep"
) -> Narrowed:
    """A gated model without some of its gates, and without what they switch.

    Args:
        model: A built Sequential or functional model.
        gone: For each gate of `keras_l0.gates` which of its units never open again.
        inputs: As in `keras_l0.strip`; ``"keep"`` or ``"gather"``.
    """
    whole: dict[int, str] = {}
    while True:
        try:
            return Narrowing(model, gone, inputs, whole).run()
        except _Uncut as error:
            key = id(error.step.node.operation)
            if key in whole:
                raise RuntimeError(
                    f"While compacting {error.step.node.name!r}, whole as it is: "
                    f"{error.reason}. Please report this with the model."
                ) from error
            whole[key] = error.reason


class _Uncut(Exception):
    """A layer cannot be cut with its gates left in."""

    def __init__(self, step: Step, reason: str) -> None:
        super().__init__(reason)
        self.step, self.reason = step, reason


class _Narrower(Rewriter):
    """Runs the graph once on what is kept, gates included."""

    def __init__(self, analysis: Analysis, evaluation: Evaluation) -> None:
        super().__init__(analysis, evaluation)
        self.pairs: dict[int, tuple[Any, Any]] = {}
        # Gates in front of a layer: it calls them itself.
        fronts = (getattr(s.node.operation, "input_gate", None) for s in analysis.steps)
        self.fronts = {id(gate) for gate in fronts if gate is not None}
        self.sources = {node.name: node.operation for node in analysis.graph.nodes}
        self.kept = {
            id(gate): self._kept(number) for number, gate in enumerate(analysis.gates)
        }

    def _kept(self, number: int) -> np.ndarray:
        """The numbers of the gates in one `L0Gate` that anything kept is gated by."""
        analysis, gate = self.analysis, self.analysis.gates[number]
        found, known = np.zeros(gate.count, bool), False
        for step in analysis.steps:
            rule, keep = step.rule, self.evaluation.keep[step.gated] > 0
            if number in analysis.gates_of(step) and not rule.whole:
                numbers = rule.per_unit(np.arange(gate.count))
                if len(numbers) == len(keep):
                    found[numbers[keep]] = known = True
                    continue
            elif number in analysis.gates_of(step):
                known = True
            elif not (rule.draws and step.node.operation.gate is gate):
                continue
            # Gates that lie on no channels, or are read by something but a switch.
            found |= keep.any()
        return np.flatnonzero(found | (not known))

    def _absorb_gates(self) -> None:
        """Gates stay: nothing takes up their factors."""

    def _gates_of(self, step: Step) -> None:
        return None

    def _rewrite(self, step: Step) -> None:
        try:
            super()._rewrite(step)
        except (RuntimeError, ValueError) as error:
            if step.rule.whole or step.node.operation is None:
                raise
            raise _Uncut(step, f"it cannot be cut: {error}") from error

    def _called(self, step: Step, site: Site) -> tuple[list, list]:
        rule, operation = step.rule, step.node.operation
        outs = rule.outs[: len(step.visible)]
        values = [np.zeros(c.size) for c in outs]
        exists = any(keep.any() for keep in site.keep)
        if rule.draws:
            exists = len(self.kept[id(operation.gate)]) > 0
        if not exists:
            return values, [(None, np.ones(c.size)) for c in outs]
        site = dataclasses.replace(site, gates_kept=lambda gate: self.kept[id(gate)])
        if id(operation) in self.fronts:
            return values, [(site.ins[0].tensor, site.ins[0].scale)]
        if not rule.whole:
            return values, rule.narrowed(site)
        source = self.sources[step.node.name]
        weights = source.get_weights() if isinstance(source, keras.Layer) else []
        new = site.build(copied(source, step.node.name), {}, weights)
        tensors = keras.tree.flatten(step.node.call(new, [x.tensor for x in site.ins]))
        return values, [
            (y, np.ones(c.size)) for y, c in zip(tensors, outs, strict=True)
        ]

    def _check(self, tensor: Any, slot: int, keep: np.ndarray) -> None:
        if not self.makers[slot].rule.draws:
            super()._check(tensor, slot, keep)

    def _build(self, step: Step, kind: Any, config: dict, weights: list) -> Any:
        regated = step.rule.regated(
            kind, config, weights, lambda gate: self.kept[id(gate)]
        )
        new = super()._build(step, *regated)
        if isinstance(new, keras.Layer):
            source = self.sources[step.node.name]
            self.pairs[id(step.node.operation)] = (source, new)
        return new


@contextlib.contextmanager
def _numbered(weights: list[Any], digit: int) -> Iterator[None]:
    """Weights whose values say where they are, for as long as one asks them."""
    values = [np.array(native(w)) for w in weights]
    try:
        for weight in weights:
            if base := _base(weight):
                numbers = np.arange(math.prod(weight.shape)) // base**digit % base
                weight.assign(numbers.reshape(weight.shape))
        yield
    finally:
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)


def _base(weight: Any) -> int:
    """Below which whole numbers a weight can hold all; 0 if it holds no numbers."""
    epsilon = EPSILON.get(keras.backend.standardize_dtype(weight.dtype))
    return 0 if epsilon is None else int(2 / epsilon)


def _digits(weight: Any) -> int:
    """How many numbers below its base tell all places in a weight apart."""
    base, size, digits = _base(weight), math.prod(weight.shape), 1
    while base and base**digits < size:
        digits += 1
    return digits
