"""Pruning without training for it: units are ranked, and the lowest ones closed."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

import keras_l0
from keras_l0.analysis.cost import Cost
from keras_l0.analysis.places import Place
from keras_l0.convert.conversion import Conversion
from keras_l0.layers.twins import gated_parts

CLOSED, OPEN = -20.0, 20.0

# What the units of a group are worth at one of its places.
Scores = Callable[[Place], np.ndarray]


def norms(place: Place) -> np.ndarray:
    """The L1 norm of the weights that make each unit, over that of the layer's mean."""
    layer = place.step.node.operation
    if place.tensor is None:
        found = np.zeros(len(place.atoms))
        for one in gated_parts(layer):
            each = [np.abs(one.by_unit(w)).sum(0) for w in one.switched_weights()]
            found += np.resize(np.sum(each, axis=0), len(found))
    else:
        kernel = np.abs(keras.ops.convert_to_numpy(_kernel(layer)))
        found = kernel.reshape(-1, len(place.atoms)).sum(0)
    return found / found.mean()


def random_scores(rng: np.random.Generator) -> Scores:
    """Units are worth what chance says."""
    return lambda place: rng.uniform(size=len(place.atoms))


def close_lowest(model: keras.Model, scores: Scores, share: float) -> keras.Model:
    """A gated copy with so many units closed that a share of the MACs is left.

    Each layer loses the same share of its units, but never the last one; where there is
    room for one unit more, it stays.
    """
    conversion = Conversion(model, None, ())
    ranks = {}
    for group in conversion.gated:
        worth = np.zeros(len(group.atoms))
        for place in group.places:
            np.add.at(worth, np.searchsorted(group.atoms, place.atoms), scores(place))
        # 0 for the best unit, and more than 0 for each that is worth less.
        rank = np.argsort(np.argsort(-worth)) / len(worth)
        first = group.steps[0].node.name
        names = [f"{first}_gates", *(p.step.node.name for p in group.places)]
        names += [f"{p.step.node.name}_gate" for p in group.places]
        ranks.update(dict.fromkeys(names, rank))
    gated = conversion.build(None)
    gates = keras_l0.gates(gated)
    order = [_rank(gated, gate, ranks) for gate in gates]
    cost, low, high = Cost(gated), 0.0, 1.0
    full = cost([np.ones(len(rank)) for rank in order]).macs
    for _ in range(30):
        middle = (low + high) / 2
        fits = cost([1.0 * (rank <= middle) for rank in order]).macs <= share * full
        low, high = (middle, high) if fits else (low, middle)
    limits = {id(rank): low for rank in order}

    def masks() -> list[np.ndarray]:
        return [1.0 * (rank <= limits[id(rank)]) for rank in order]

    growing = {id(rank): rank for rank in order}
    while growing:
        for key, rank in list(growing.items()):
            before, above = limits[key], rank[rank > limits[key]]
            limits[key] = above.min(initial=np.inf)
            if not len(above) or cost(masks()).macs > share * full:
                limits[key] = before
                del growing[key]
    for gate, mask in zip(gates, masks(), strict=True):
        values = np.where(mask, OPEN, CLOSED)
        gate.assign_log_alpha(values.reshape(gate.raw.shape))
    return gated


def _kernel(layer: keras.Layer) -> keras.Variable:
    """The weights of which each unit has its column."""
    for name in ("pointwise_kernel", "kernel", "_kernel", "embeddings"):
        if hasattr(layer, name):
            return getattr(layer, name)
    # A layer of one's own.
    return max(layer.weights, key=lambda w: w.shape[-1])


def _rank(model: keras.Model, gate: keras.Layer, ranks: dict) -> np.ndarray:
    """The rank of a gate's units, by the layer that holds it."""
    for layer in model.layers:
        if layer is gate or gate in getattr(layer, "gates", ()):
            return ranks[layer.name]
    raise ValueError(f"No layer of {model.name!r} holds gate {gate.path!r}")
