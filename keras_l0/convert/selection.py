"""Which layers a user means, and how strongly each is charged."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import keras

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

    def check(self, layers: Mapping[str, Any], model: keras.Model) -> None:
        for selection, _ in self.choices:
            selection.check(layers, model)

    def of_layer(self, name: str, layer: Any) -> L0:
        for selection, strength in self.choices:
            if selection.fits(name, layer):
                return strength
        return self.default
