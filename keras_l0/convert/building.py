"""A model with gates, made call by call from the one that they are for."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_l0.analysis.copying import assign_weights, copied, weights_of
from keras_l0.analysis.graph import Node
from keras_l0.analysis.places import Group
from keras_l0.layers import (
    GateOptions,
    L0Gate,
    L0RecurrentSwitch,
    L0SharedGate,
    L0Switch,
)
from keras_l0.layers.twins import gated_parts

if TYPE_CHECKING:
    from keras_l0.convert.conversion import Conversion


class Building:
    """A gated model in the making.

    Args:
        conversion: What was decided.
    """

    def __init__(self, conversion: Conversion) -> None:
        self.conversion = conversion
        self.graph = graph = conversion.graph
        self.names = {node.name for node in graph.nodes}
        self.names.update(x._keras_history.operation.name for x in graph.model.inputs)
        self.inputs = [graph.input_layer(i).output for i in range(len(graph.inputs))]
        # Only its batch size counts; inputs that are optional may be None.
        present = [x for x in self.inputs if not x._keras_history.operation.optional]
        self.batch = (present or self.inputs)[0]
        # By the id of an operation the one that is in its place.
        self.copies: dict[int, Any] = {}
        # By the id of a group the gates that all of its places multiply by.
        self.masks: dict[int, Any] = {}

    def model(self) -> keras.Model:
        """The model, with the weights of the source."""
        graph = self.graph
        places = [(g, p) for g in self.conversion.gated for p in g.places]
        behind = {p.tensor.index: (g, p) for g, p in places if p.tensor is not None}
        switched = {
            id(place.step.node.operation): group
            for group, place in places
            if place.tensor is None and _shares_mask(group)
        }
        made = {t.index: x for t, x in zip(graph.inputs, self.inputs, strict=True)}
        for node in graph.nodes:
            operation = self._copied(node)
            if (group := switched.get(id(node.operation))) is not None:
                gates = self._mask(group, operation.variable_dtype)
                operation = functools.partial(operation, gates=gates)
            results = node.call(operation, [made[t.index] for t in node.inputs])
            for tensor, x in zip(
                node.outputs, keras.tree.flatten(results), strict=True
            ):
                found = behind.get(tensor.index)
                made[tensor.index] = self._gate(x, *found) if found else x
        result = graph.rebuild(self.inputs, [made[t.index] for t in graph.outputs])
        for node in graph.nodes:
            if isinstance(node.operation, keras.Layer):
                self._carry(node)
        return result

    def _name(self, wanted: str) -> str:
        """A name that nothing in the model has."""
        while wanted in self.names:
            wanted += "_"
        self.names.add(wanted)
        return wanted

    def _mask(self, group: Group, dtype: str) -> Any:
        """The gates that all places of a group multiply by."""
        if id(group) not in self.masks:
            source = L0SharedGate(
                len(group.atoms),
                self.conversion.strength(group),
                _costs(group),
                self._options(group),
                dtype="float64" if dtype == "float64" else "float32",
                name=self._name(f"{group.steps[0].node.name}_gates"),
            )
            self.masks[id(group)] = source(self.batch)
        return self.masks[id(group)]

    def _gate(self, x: Any, group: Group, place: Any) -> Any:
        """A tensor behind its gates."""
        axis = self.conversion.analysis.channels[place.slot].axis
        axis = -1 if axis == x.ndim - 1 else axis
        dtype = keras.backend.standardize_dtype(x.dtype)
        order = np.searchsorted(group.atoms, place.atoms)
        name = self._name(f"{place.step.node.name}_gate")
        if len(group.places) == 1 and len(set(order)) == len(order):
            cost = _one_if_equal([group.saves[i].params for i in order])
            l0, options = self.conversion.strength(group), self.conversion.options
            return L0Gate(axis, l0, cost, options, dtype=dtype, name=name)(x)
        indices = _indices(group, place.atoms)
        switch = L0Switch(axis, indices, dtype=dtype, name=name)
        return switch(x, self._mask(group, dtype))

    def _options(self, group: Group) -> GateOptions:
        """Of a group's gates; recurrences can only take one draw for all examples."""
        if any(place.tensor is None for place in group.places):
            return dataclasses.replace(self.conversion.options, noise="batch")
        return self.conversion.options

    def _copied(self, node: Node) -> Any:
        """The operation of a node, anew."""
        old = node.operation
        if not isinstance(old, keras.Layer):
            return copied(old, node.name)
        if id(old) not in self.copies:
            inside = id(old) in self.conversion.twins
            make = self._gated_inside if inside else _made_anew
            self.copies[id(old)] = make(old, node.name)
        return self.copies[id(old)]

    def _original(self, twin: Any) -> Any:
        """The plain layer that a layer which is gated inside stands for."""
        return self.conversion.originals[self.conversion.twins[id(twin)]]

    def _gated_inside(self, twin: Any, name: str) -> Any:
        """A layer whose units are gated inside: by its own gates, or by a mask."""
        group, place = next(
            (group, place)
            for group in self.conversion.gated
            for place in group.places
            if place.tensor is None and place.step.node.operation is twin
        )
        if not _shares_mask(group):
            (layer,) = gated_parts(twin)
            layer.price = layer.gate.cost = _costs(group)
            return twin
        plain = _made_anew(self._original(twin), name)
        # The second half, if there is one, is the other direction.
        indices = _indices(group, place.atoms[: gated_parts(twin)[0].gate.count])
        return L0RecurrentSwitch(plain, indices, dtype=plain.dtype_policy, name=name)

    def _carry(self, node: Node) -> None:
        """Gives a layer of the new model the weights that it has in the old one."""
        old: Any = node.operation
        new = self.copies[id(old)]
        if isinstance(new, L0RecurrentSwitch):
            old, new = self._original(old), new.layer
        if old is not new and old.weights:
            assign_weights(new, weights_of(old))


def _shares_mask(group: Group) -> bool:
    """Whether the gates of a group act in several places, one of them inside a layer.

    The directions of a Bidirectional, which lose their units in pairs, are two places.
    """
    inside = {id(p.step.node.operation): p for p in group.places if p.tensor is None}
    behind = any(place.tensor is not None for place in group.places)
    parts = [gated_parts(place.step.node.operation) for place in inside.values()]
    return bool(inside) and behind + sum(map(len, parts)) > 1


def _indices(group: Group, atoms: np.ndarray) -> list[int] | None:
    """For each of some channels the number of its gate; None if in their order."""
    if np.array_equal(atoms, group.atoms):
        return None
    return np.searchsorted(group.atoms, atoms).tolist()


def _made_anew(layer: keras.Layer, name: str) -> keras.Layer:
    try:
        return copied(layer, name)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "`model` must have layers that can be made anew from their `get_config()`. "
            f"Received: {name!r} ({type(layer).__name__}), which cannot: {error}"
        ) from error


def _costs(group: Group) -> Any:
    """What each gate of a group is charged for."""
    return _one_if_equal([size.params for size in group.saves])


def _one_if_equal(costs: list[float]) -> Any:
    return costs[0] if len(set(costs)) == 1 else costs
