"""A Keras 3 model rebuilt in tf_keras, layer by layer, and its weights' way back."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.graph import Node
from keras_l0.analysis.tracing import trace

# What a tf_keras layer takes besides the arguments of its own constructor.
_COMMON = ("name", "trainable")
_DROPPED = ("initializer", "regularizer", "constraint")


@dataclasses.dataclass(frozen=True)
class Twin:
    """A tf_keras model that computes what a Keras 3 model does.

    Attributes:
        model: The tf_keras model.
        parts: Name of a Keras 3 layer with weights -> for each of them the name that
            the variable has in tf_keras.
    """

    model: Any
    parts: dict[str, list[str]]

    def return_weights(
        self, model: keras.Model, values: Mapping[str, np.ndarray]
    ) -> None:
        """Sets a Keras 3 model's weights to those of tf_keras variables, by name."""
        for layer in model._flatten_layers(include_self=False):
            if layer.name in self.parts and not isinstance(layer, keras.Model):
                layer.set_weights([values[name] for name in self.parts[layer.name]])


def build_twin(model: keras.Model) -> Twin:
    """Rebuilds a model in tf_keras with the same weights.

    Args:
        model: A functional float32 model of built-in layers.

    Raises:
        ValueError: If a layer of it is not built in, has no form in tf_keras, or is
            called more than once; all of them are named.
    """
    import tf_keras

    graph = trace(model)
    _require_known(graph.nodes)
    inputs = []
    for kt, tensor in zip(model.inputs, graph.inputs, strict=True):
        name = kt._keras_history.operation.name
        inputs.append(
            tf_keras.Input(batch_shape=tuple(tensor.shape), dtype=kt.dtype, name=name)
        )
    values = {t.index: x for t, x in zip(graph.inputs, inputs, strict=True)}
    parts: dict[str, list[str]] = {}
    for node in graph.nodes:
        layers = _layers_of(node)
        results = node.call(
            _chain([layer for layer, _ in layers]),
            [values[t.index] for t in node.inputs],
        )
        for layer, weights in layers:
            layer.set_weights(weights)
        if node.operation.weights:
            parts[node.operation.name] = [
                variable.name for layer, _ in layers for variable in layer.weights
            ]
        for tensor, value in zip(
            node.outputs, keras.tree.flatten(results), strict=True
        ):
            values[tensor.index] = value
    return Twin(
        tf_keras.Model(
            keras.tree.pack_sequence_as(model.input, inputs),
            keras.tree.pack_sequence_as(
                model.output, [values[t.index] for t in graph.outputs]
            ),
        ),
        parts,
    )


def _require_known(nodes: list[Node]) -> None:
    import tf_keras

    bad = []
    for node in nodes:
        operation = node.operation
        kind = type(operation).__name__
        if not isinstance(operation, keras.Layer):
            bad.append(f"{node.name!r} (an operation: {kind})")
        elif not type(operation).__module__.startswith("keras.") or not hasattr(
            tf_keras.layers, kind
        ):
            bad.append(f"{node.name!r} ({kind}, which tf_keras does not have)")
        elif node.shared:
            bad.append(f"{node.name!r} ({kind}, which is called more than once)")
    if bad:
        raise ValueError(
            "Quantization-aware training rebuilds the model in tf_keras, which cannot "
            f"be done with {', '.join(dict.fromkeys(bad))}. Replace them, or quantize "
            "after training: to_tflite(model, path, 'int8', representative_data)."
        )


def _chain(layers: list[Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        first, *others = layers
        # Keras notes down the default, False, of Dropout and others, and goes by how
        # the model is called; tf_keras would go by the note.
        kwargs.pop("training", None)
        result = first(*args, **kwargs)
        for layer in others:
            result = layer(result)
        return result

    return call


def _layers_of(node: Node) -> list[tuple[Any, list[np.ndarray]]]:
    """The tf_keras layers that do what a call does, each with its weights."""
    import tf_keras

    layer = node.operation
    config = {
        key: value
        for key, value in layer.get_config().items()
        if not key.endswith(_DROPPED) and key != "dtype"
    }
    weights = layer.get_weights()
    if type(layer) is not keras.layers.SeparableConv2D:
        kind = getattr(tf_keras.layers, type(layer).__name__)
        return [(_made(node, kind, config), weights)]
    # TFMOT would split it itself, under names that lead back nowhere.
    depthwise = _made(
        node,
        tf_keras.layers.DepthwiseConv2D,
        {
            **{k: v for k, v in config.items() if k != "activation"},
            "use_bias": False,
            "name": f"{layer.name}_depthwise",
        },
    )
    pointwise = _made(
        node,
        tf_keras.layers.Conv2D,
        {
            "filters": layer.filters,
            "kernel_size": 1,
            "use_bias": layer.use_bias,
            "activation": config["activation"],
            "data_format": layer.data_format,
            "name": f"{layer.name}_pointwise",
        },
    )
    return [(depthwise, weights[:1]), (pointwise, weights[1:])]


def _made(node: Node, kind: Any, config: dict[str, Any]) -> Any:
    if "negative_slope" in config and kind.__name__ == "LeakyReLU":
        config = {**config, "alpha": config["negative_slope"]}
    known = inspect.signature(kind.__init__).parameters
    taken = {k: v for k, v in config.items() if k in known or k in _COMMON}
    try:
        return kind.from_config(taken)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Layer {node.name!r} ({kind.__name__}) could not be made in tf_keras: "
            f"{error}"
        ) from error
