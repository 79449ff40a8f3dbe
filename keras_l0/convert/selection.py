"""Which layers a user means, and how strongly each is charged."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import keras

from keras_l0.analysis.graph import Node
from keras_l0.regularizers import L0
from keras_l0.regularizers import Strength as OneStrength

Selector: TypeAlias = (
    str | type | keras.layers.Layer | Callable[[keras.layers.Layer], bool]
)
Strength: TypeAlias = OneStrength | Mapping[Selector, OneStrength]


class Selection:
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

    @property
    def named(self) -> list[Any]:
        """The selectors that say which layers they mean: all but functions."""
        kinds = (str, type, keras.layers.Layer)
        return [one for one in self.selectors if isinstance(one, kinds)]

    @staticmethod
    def hits(selector: Any, nodes: Iterable[Node]) -> bool:
        """Whether a selector fits the layer of any of these calls."""
        return any(_fits(selector, node) for node in nodes)

    def fits(self, node: Node) -> bool:
        """Whether the layer of a call is chosen, or a nested model that has it."""
        return any(_fits(one, node) for one in self.selectors)

    def check(self, nodes: Iterable[Node], model: keras.Model) -> None:
        """Raises if a selector fits no layer: a misspelling."""
        nodes = list(nodes)
        for one in self.named:
            if not self.hits(one, nodes):
                names = ", ".join(repr(node.name) for node in nodes)
                raise ValueError(
                    f"`{self.argument}` must fit layers of {model.name!r}: {names}. "
                    f"Received: {one!r}, which fits none"
                )


def _fits(selector: Any, node: Node) -> bool:
    layer = node.operation
    if isinstance(selector, str):
        # In a nested model, the layer's own name may not be the call's.
        names = [node.name, layer.name, *(model.name for model in node.inside)]
        return any(fnmatch.fnmatchcase(name, selector) for name in names)
    if isinstance(selector, type):
        return isinstance(layer, selector)
    if isinstance(selector, keras.layers.Layer):
        return any(one is selector for one in (layer, *node.inside))
    return isinstance(layer, keras.layers.Layer) and bool(selector(layer))


class Strengths:
    """What a gate is charged per parameter, layer by layer."""

    def __init__(self, l0: Any) -> None:
        if isinstance(l0, Mapping):
            self.choices = [
                (Selection("l0", [selector]), L0.get(strength))
                for selector, strength in l0.items()
            ]
            self.default = L0()
        else:
            self.choices, self.default = [], L0.get(l0)
        for strength in (self.default, *(strength for _, strength in self.choices)):
            if strength.l2:
                raise ValueError(
                    "`l0` must have l2=0: gates behind a layer do not know its "
                    f"weights. Received: l0={l0!r} with l2={strength.l2}. Build the "
                    "network from the layers of `keras_l0.layers`, or let the "
                    "optimizer decay weights (`keras_l0.exclude_from_weight_decay`)"
                )

    @property
    def selections(self) -> list[Selection]:
        """The choices of layers."""
        return [selection for selection, _ in self.choices]

    def check(self, nodes: Iterable[Node], model: keras.Model) -> None:
        for selection in self.selections:
            selection.check(nodes, model)

    def of_layer(self, node: Node) -> L0:
        for selection, strength in self.choices:
            if selection.fits(node):
                return strength
        return self.default
