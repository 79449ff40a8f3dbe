"""For a plain layer the one that is gated inside, with the same weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from keras_l0.layers.attention import L0GroupQueryAttention, L0MultiHeadAttention
from keras_l0.layers.finding import find_gates
from keras_l0.layers.gated import Gated
from keras_l0.layers.options import GateOptions
from keras_l0.layers.recurrent import (
    L0GRU,
    L0LSTM,
    GatedRecurrent,
    L0SimpleRNN,
)
from keras_l0.regularizers import L0

# A gate behind these layers would free nothing: heads are mixed, and units feed back.
_TWINS: dict[type, Any] = {
    twin.plain_class: twin
    for twin in (
        L0GRU,
        L0LSTM,
        L0SimpleRNN,
        L0GroupQueryAttention,
        L0MultiHeadAttention,
    )
}


def gated_twin(layer: Any, name: str, options: GateOptions, l0: L0) -> Any:
    """A copy of a layer with gates inside; None if its gates belong behind it.

    Args:
        layer: A built layer.
        name: The name of the copy.
        options: Of the gates. Recurrent layers draw them once per batch.
        l0: The strength of their penalty.

    Example:
        >>> import keras, keras_l0
        >>> gru = keras.layers.GRU(3)
        >>> gru.build((None, 5, 4))
        >>> l0 = keras_l0.regularizers.L0(1e-4)
        >>> twin = keras_l0.layers.gated_twin(gru, "gru", keras_l0.GateOptions(), l0)
        >>> type(twin).__name__, twin.gate.count
        ('L0GRU', 3)
    """
    if type(layer) is not keras.layers.Bidirectional and type(layer) not in _TWINS:
        return None
    config = {**layer.get_config(), "name": name}
    if type(layer) is keras.layers.Bidirectional:
        inner = [layer.forward_layer, layer.backward_layer]
        known = all(type(one) in _TWINS for one in inner)
        if not known or layer.merge_mode not in ("concat", None):
            return None
        for key, one in zip(("layer", "backward_layer"), inner, strict=True):
            twin = _unbuilt(one, one.get_config(), options, l0)
            config[key] = keras.saving.serialize_keras_object(twin)
        new = keras.layers.Bidirectional.from_config(config)
    else:
        new = _unbuilt(layer, config, options, l0)
    shapes = layer.get_build_config()
    shapes = list(shapes.get("shapes_dict", shapes).values())
    # The states that a recurrence may start from shape none of its weights.
    recurs = isinstance(new, (keras.layers.RNN, keras.layers.Bidirectional))
    new.build(*(shapes[:1] if recurs else shapes))
    own = {id(w) for gate in find_gates(new) for w in gate.weights}
    plain = [w for w in new.weights if id(w) not in own]
    for weight, values in zip(plain, layer.get_weights(), strict=True):
        weight.assign(values)
    return new


def gated_parts(twin: keras.layers.Layer) -> list[Gated]:
    """The layers in a layer that is gated inside, such as two directions."""
    return [layer for layer in twin._flatten_layers() if isinstance(layer, Gated)]


def _unbuilt(
    layer: Any, config: dict[str, Any], options: GateOptions, l0: L0
) -> keras.layers.Layer:
    kind = _TWINS[type(layer)]
    if issubclass(kind, GatedRecurrent):
        options = dataclasses.replace(options, noise="batch")
    return kind.from_config({**config, "l0": l0, "gate_options": options})
