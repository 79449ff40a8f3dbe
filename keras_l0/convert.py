"""`add_gates`: a gated copy of a model that a user already has."""

from __future__ import annotations

import dataclasses
import fnmatch
import io
import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_l0.analysis.facts import Size
from keras_l0.analysis.graph import Node, copied, require_finite, trace
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.places import Group, find_groups, settle
from keras_l0.analysis.rules.registry import held_weights
from keras_l0.layers import (
    GateOptions,
    L0Gate,
    L0SharedGate,
    L0Switch,
    find_gates,
    gated_twin,
)
from keras_l0.regularizers import L0

Selector: TypeAlias = (
    str | type | keras.layers.Layer | Callable[[keras.layers.Layer], bool]
)
Strength: TypeAlias = float | L0 | Mapping[Selector, float | L0]


@dataclasses.dataclass(frozen=True)
class GatedGroup:
    """Units that share gates.

    Attributes:
        layers: The names of the layers that make them.
        units: How many gates there are.
        saves: What the removal of one unit saves in the whole model, the others being
            there; where units differ, the mean.
    """

    layers: tuple[str, ...]
    units: int
    saves: Size


@dataclasses.dataclass(frozen=True)
class Ungated:
    """A layer with units of its own that gets no gates, and why."""

    name: str
    kind: str
    params: int
    reason: str


@dataclasses.dataclass(frozen=True)
class GatePlan:
    """What `keras_l0.add_gates` will do to a model. ``print`` it for the whole story.

    Attributes:
        model: The model's name.
        params: The model's parameters.
        groups: The units that get gates.
        ungated: The layers that get none, and why.
        reached: The share of the kernels outside output layers that the gates reach:
            what goes when every group is cut to one unit.
    """

    model: str
    params: int
    groups: list[GatedGroup]
    ungated: list[Ungated]
    reached: float

    def __repr__(self) -> str:
        gates = sum(group.units for group in self.groups)
        return (
            f"<GatePlan of {self.model!r}: {gates:,} gates in {len(self.groups)} "
            f"groups reach {self.reached:.1%} of the kernels>"
        )

    def __str__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        text = io.StringIO()
        console = Console(
            file=text, width=100, no_color=True, highlight=False, force_jupyter=False
        )
        table = Table(box=box.SIMPLE, title=f"Gates for {self.model!r}")
        table.add_column("units of", overflow="fold")
        for title in ("gates", "parameters per unit", "MACs per unit"):
            table.add_column(title, justify="right")
        for group in self.groups:
            each = (f"{number:,.0f}" for number in group.saves)
            table.add_row(" + ".join(group.layers), f"{group.units:,}", *each)
        console.print(table)
        for layer in self.ungated:
            console.print(
                f"no gates: {layer.name!r} ({layer.kind}, {layer.params:,} "
                f"parameters): {layer.reason}",
                markup=False,
            )
        console.print(
            f"The gates reach {self.reached:.1%} of the kernel parameters outside the "
            "output layers."
        )
        return text.getvalue()


def plan_gates(
    model: keras.Model,
    *,
    layers: Selector | Iterable[Selector] | None = None,
    skip: Selector | Iterable[Selector] = (),
) -> GatePlan:
    """Where `keras_l0.add_gates` puts gates, what they can save, and what gets none.

    Args:
        model: As in `add_gates`.
        layers: As in `add_gates`.
        skip: As in `add_gates`.

    Raises:
        TypeError: As `add_gates` does.
        ValueError: As `add_gates` does.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)),
        ...     keras.layers.Dense(3, activation="relu"),
        ...     keras.layers.Dense(2),
        ... ], name="toy")
        >>> keras_l0.plan_gates(model)
        <GatePlan of 'toy': 3 gates in 1 groups reach 66.7% of the kernels>
    """
    return _Conversion(model, layers, skip).plan()


def add_gates(
    model: keras.Model,
    l0: Strength = 0.0,
    *,
    layers: Selector | Iterable[Selector] | None = None,
    skip: Selector | Iterable[Selector] = (),
    gate_options: GateOptions | None = None,
    seed: int | None = None,
) -> keras.Model:
    """A gated copy of a model: train it, and `keras_l0.strip` what it does not need.

    Gates go wherever strip can remove units exactly: behind the normalization and the
    activation of a layer, on its heads (attention) or inside of its recurrence. Layers
    whose units can only go together, as those of a residual stream, share one mask,
    which is drawn once a step and charged once. Each gate is charged for what its
    removal saves in the whole model: its own weights and those that read it. Output
    layers get none. `keras_l0.plan_gates` tells all this beforehand.

    Args:
        model: A built Sequential or functional model without gates. It is left
            untouched.
        l0: Strength of the penalty per parameter: a float or a `regularizers.L0`, or a
            mapping from what ``layers`` takes to strengths, of which the first that
            fits a layer counts (0 if none does; of layers that share a mask the
            largest).
        layers: Which layers to gate: the name of a layer or a pattern such as
            ``"block3_*"``, a layer class, a layer, a function that takes a layer and
            returns whether to gate it, or several of these. None gates all. Units that
            are tied are gated together.
        skip: Which layers keep all of their units, in the same form.
        gate_options: `GateOptions`. Recurrent layers draw once per batch in any case.
        seed: Seed of the gates' noise.

    Returns:
        A functional model with the same inputs, outputs and layer names, and a copy of
        the weights. With all gates open, as they are at the start, it computes the
        same. Nested models are inlined. It is not compiled.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the model has no readable graph, holds gates already or weights
            that are not finite, or if a selection fits no layer.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)),
        ...     keras.layers.Dense(3, activation="relu"),
        ...     keras.layers.Dense(2),
        ... ])
        >>> gated = keras_l0.add_gates(model, l0=1e-4)
        >>> gate, = keras_l0.gates(gated)
        >>> gate.count, gate.cost  # 4 weights and a bias into a unit, 2 out of it
        (3, 7.0)
        >>> gate.assign_log_alpha([9.0, -9.0, 9.0])
        >>> keras_l0.strip(gated).count_params()
        18
    """
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise TypeError(f"`seed` must be an integer or None. Received: seed={seed!r}")
    options = GateOptions.get(gate_options)
    conversion = _Conversion(model, layers, skip, options, l0)
    if not conversion.gated:
        left = "; ".join(f"{u.name}: {u.reason}" for u in conversion.plan().ungated)
        warnings.warn(
            f"No layer of model {model.name!r} can be gated: add_gates returns a copy "
            f"of it ({left or 'it has no layers with weights'}).",
            stacklevel=2,
        )
    return conversion.build(seed)


class _Conversion:
    """One model on its way to a gated copy."""

    def __init__(
        self,
        model: keras.Model,
        layers: Any,
        skip: Any,
        options: GateOptions | None = None,
        l0: Any = 0.0,
    ) -> None:
        require_finite(model)
        if gates := find_gates(model):
            raise ValueError(
                f"`model` must have no gates yet. Received: {model.name!r} with "
                f"{len(gates)} of them. Strip it first, or add gates to the model that "
                "it was made from."
            )
        self.options = options or GateOptions()
        self.strengths = _Strengths(l0)
        self.chosen = None if layers is None else _Selection("layers", layers)
        self.skipped = _Selection("skip", skip)
        self.graph = trace(model)
        # Under the names of their first calls.
        self.layers: dict[str, Any] = {n.name: n.operation for n in self.graph.nodes}
        self.strengths.check(self.layers, model)
        for selection in filter(None, (self.chosen, self.skipped)):
            selection.check(self.layers, model)
        # A layer that turns out not to be able to lose units stays as it is.
        refused: set[int] = set()
        while True:
            self.twins: dict[int, Any] = {}
            self.graph = trace(model)
            self._gate_inside(refused)
            self.analysis = Analysis(self.graph)
            self.groups = find_groups(self.analysis)
            for group in self.groups:
                group.reason = group.reason or self._unwanted(group)
            self.reached = settle(self.analysis, self.groups)
            again = {
                self.twins[id(place.step.node.operation)]
                for group in self.groups
                for place in group.places
                if group.reason and place.tensor is None
            }
            if not again:
                break
            refused |= again

    @property
    def gated(self) -> list[Group]:
        return [group for group in self.groups if group.reason is None]

    def _gate_inside(self, refused: set[int]) -> None:
        """Puts layers that are gated inside in the place of those that can be."""
        made: dict[int, Any] = {}
        for node in self.graph.nodes:
            old = node.operation
            if id(old) in refused or held_weights(old):
                continue
            if id(old) not in made and isinstance(old, keras.Layer):
                l0 = self.strengths.of_layer(node.name, old)
                made[id(old)] = gated_twin(old, node.name, self.options, l0)
            if (twin := made.get(id(old))) is not None:
                node.operation = twin
                self.twins[id(twin)] = id(old)

    def _unwanted(self, group: Group) -> str | None:
        """Why a user's choice leaves a group out."""
        names = {step.node.name: self._fits(self.skipped, step) for step in group.steps}
        if all(names.values()):
            return "it is skipped"
        if any(names.values()):
            skips = ", ".join(repr(name) for name, fits in names.items() if fits)
            return f"its units are tied to those of {skips}, skipped"
        chosen = self.chosen
        if chosen and not any(self._fits(chosen, step) for step in group.steps):
            return "it was not selected"
        return None

    def _fits(self, selection: _Selection, step: Step) -> bool:
        name = step.node.name
        return selection.fits(name, self.layers[name])

    def plan(self) -> GatePlan:
        ones = [np.ones(gate.count) for gate in self.analysis.gates]
        whole = self.analysis.evaluate(ones)
        groups = []
        gated: set[int] = set()
        for group in self.gated:
            gated.update(id(step.node.operation) for step in group.steps)
            saves = Size(*np.mean(group.saves, axis=0).tolist())
            names = dict.fromkeys(step.node.name for step in group.steps)
            groups.append(GatedGroup(tuple(names), len(group.atoms), saves))
        reasons = {
            id(step): group.reason
            for group in self.groups
            for step in group.steps
            if group.reason
        }
        ungated: dict[int, Ungated] = {}
        for step, size in zip(self.analysis.steps, whole.sizes, strict=True):
            key = id(step.node.operation)
            reason = reasons.get(id(step)) or (step.rule.whole and step.rule.reason)
            if size.params and reason and key not in gated:
                ungated[key] = Ungated(
                    step.node.name,
                    getattr(
                        step.node.operation, "plain_class", type(step.node.operation)
                    ).__name__,
                    round(float(size.params)),
                    reason,
                )
        return GatePlan(
            model=self.graph.model.name,
            params=whole.total.whole().params,
            groups=groups,
            ungated=list(ungated.values()),
            reached=self.reached,
        )

    def build(self, seed: int | None) -> keras.Model:
        """The gated model."""
        graph = self.graph
        names = {node.name for node in graph.nodes}
        names.update(x._keras_history.operation.name for x in graph.model.inputs)
        seeds = itertools.count(0 if seed is None else seed)

        def name(wanted: str) -> str:
            while wanted in names:
                wanted += "_"
            names.add(wanted)
            return wanted

        behind = {
            place.tensor.index: (group, place)
            for group in self.gated
            for place in group.places
            if place.tensor is not None
        }
        inputs = [graph.input_layer(i).output for i in range(len(graph.inputs))]
        made = {t.index: x for t, x in zip(graph.inputs, inputs, strict=True)}
        shared: dict[int, Any] = {}

        def gate(x: Any, group: Group, place: Any) -> Any:
            """The tensor behind its gates."""
            axis = self.analysis.channels[place.slot].axis
            axis = -1 if axis == x.ndim - 1 else axis
            dtype = keras.backend.standardize_dtype(x.dtype)
            number = next(seeds) if id(group) not in shared else 0
            settings: dict[str, Any] = {
                "l0": self._strength(group),
                "options": self.options,
                "seed": None if seed is None else number,
            }
            order = np.searchsorted(group.atoms, place.atoms)
            costs = [size.params for size in group.saves]
            one = sum(p.tensor is not None for p in group.places) == 1
            label = name(f"{place.step.node.name}_gate")
            if one and len(set(order)) == len(order):
                cost = _one_if_equal([costs[i] for i in order])
                return L0Gate(axis, cost=cost, dtype=dtype, name=label, **settings)(x)
            if id(group) not in shared:
                first = group.steps[0].node.name
                source = L0SharedGate(
                    len(group.atoms),
                    cost=_one_if_equal(costs),
                    dtype="float64" if dtype == "float64" else "float32",
                    name=name(f"{first}_gates"),
                    **settings,
                )
                shared[id(group)] = source(inputs[0])
            straight = np.array_equal(order, np.arange(len(group.atoms)))
            indices = None if straight else order.tolist()
            switch = L0Switch(axis, indices, dtype=dtype, name=label)
            return switch(x, shared[id(group)])

        copies: dict[int, Any] = {}
        for node in graph.nodes:
            operation = self._copied(node, copies)
            results = node.call(operation, [made[t.index] for t in node.inputs])
            for tensor, x in zip(
                node.outputs, keras.tree.flatten(results), strict=True
            ):
                found = behind.get(tensor.index)
                made[tensor.index] = gate(x, *found) if found else x
        result = graph.rebuild(inputs, [made[t.index] for t in graph.outputs])
        for node in graph.nodes:
            if isinstance(node.operation, keras.Layer):
                _carry(node.operation, copies[id(node.operation)])
        return result

    def _strength(self, group: Group) -> L0:
        names = (step.node.name for step in group.steps)
        each = [self.strengths.of_layer(name, self.layers[name]) for name in names]
        return max(each, key=lambda strength: strength.l0)

    def _copied(self, node: Node, copies: dict[int, Any]) -> Any:
        """The operation of a node, anew."""
        old = node.operation
        if id(old) not in copies:
            if id(old) in self.twins:
                copies[id(old)] = old
            elif isinstance(old, keras.Layer):
                copies[id(old)] = copied(old, node.name)
            else:
                return copied(old, node.name)
        return copies[id(old)]


def _carry(old: Any, new: Any) -> None:
    """Gives a layer the weights of the one that it is a copy of."""
    if old is not new and old.weights:
        new.set_weights(old.get_weights())
        # Layers that adapt to data compute with what they derived from weights.
        getattr(new, "finalize_state", lambda: None)()


def _one_if_equal(costs: list[float]) -> Any:
    return costs[0] if len(set(costs)) == 1 else costs


class _Selection:
    """A user's choice of layers."""

    def __init__(self, argument: str, selectors: Any) -> None:
        self.argument = argument
        single = isinstance(selectors, (str, type, keras.layers.Layer))
        if single or (callable(selectors) and not isinstance(selectors, Iterable)):
            selectors = [selectors]
        if not isinstance(selectors, Iterable):
            raise TypeError(
                f"`{argument}` must be a name, a pattern, a layer class, a layer, a "
                f"function of a layer, or several of these. Received: {selectors!r}"
            )
        self.selectors = list(selectors)
        for one in self.selectors:
            if not (isinstance(one, str) or callable(one)):
                raise TypeError(
                    f"`{argument}` must hold names, patterns, layer classes, layers or "
                    f"functions of a layer. Received: {one!r} of type "
                    f"{type(one).__name__}"
                )

    def fits(self, name: str, layer: Any) -> bool:
        """Whether a layer is chosen."""
        return any(_fits(one, name, layer) for one in self.selectors)

    def check(self, layers: Mapping[str, Any], model: keras.Model) -> None:
        """Raises if a selector fits no layer: a misspelling."""
        for one in self.selectors:
            named = isinstance(one, (str, type, keras.layers.Layer))
            if named and not any(_fits(one, *item) for item in layers.items()):
                names = ", ".join(map(repr, layers))
                raise ValueError(
                    f"`{self.argument}` must fit layers of {model.name!r}: {names}. "
                    f"Received: {one!r}, which fits none"
                )


def _fits(selector: Any, name: str, layer: Any) -> bool:
    if isinstance(selector, str):
        return fnmatch.fnmatchcase(name, selector)
    if isinstance(selector, type):
        return isinstance(layer, selector)
    if isinstance(selector, keras.layers.Layer):
        return layer is selector
    return isinstance(layer, keras.layers.Layer) and bool(selector(layer))


class _Strengths:
    """What a gate is charged per parameter, layer by layer."""

    def __init__(self, l0: Any) -> None:
        if isinstance(l0, Mapping):
            self.choices = [
                (_Selection("l0", [selector]), L0.get(strength))
                for selector, strength in l0.items()
            ]
            self.default = L0()
        else:
            self.choices, self.default = [], L0.get(l0)

    def check(self, layers: Mapping[str, Any], model: keras.Model) -> None:
        for selection, _ in self.choices:
            selection.check(layers, model)

    def of_layer(self, name: str, layer: Any) -> L0:
        for selection, strength in self.choices:
            if selection.fits(name, layer):
                return strength
        return self.default
