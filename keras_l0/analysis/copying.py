"""Layers and operations anew, with all that neither configs nor weights hold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras

# What a user's class of models may do in its own way.
_STEPS = ("train_step", "test_step", "compute_loss", "compute_loss_and_updates")


def copied(operation: Any, name: str) -> Any:
    """The same operation anew, under this name and in no graph yet.

    Args:
        operation: A layer, of which the copy has no weights yet, or a raw operation.
        name: The name of the copy.
    """
    if not isinstance(operation, keras.Layer):
        # It may hold a function, which no config can.
        new = object.__new__(type(operation))
        vars(new).update(vars(operation), _inbound_nodes=[], _outbound_nodes=[])
        new.name = name
        return new
    config = {**operation.get_config(), "name": name}
    if type(operation) is keras.layers.Lambda:
        # The config holds the function's bytecode, which Keras refuses to read.
        return keras.layers.Lambda(
            operation.function,
            output_shape=operation._output_shape,
            mask=operation.mask,
            arguments=operation.arguments,
            **{key: config[key] for key in ("name", "trainable", "dtype")},
        )
    new = type(operation).from_config(config)
    carry_vocabularies(operation, new)
    return new


def carry_vocabularies(old: keras.Layer, new: keras.Layer) -> None:
    """Gives a copy the words that lookups in a layer have adapted to.

    Neither its config nor its weights hold them.
    """
    for source, target in zip(
        old._flatten_layers(), new._flatten_layers(), strict=False
    ):
        source, target = (getattr(x, "_lookup_layer", x) for x in (source, target))
        if getattr(source, "input_vocabulary", 0) is not None:
            continue  # no lookup, or one whose config holds the words
        if len(source.get_vocabulary(include_special_tokens=False)):
            idf = getattr(source, "idf_weights_const", None)
            target.set_vocabulary(
                source.get_vocabulary(),
                *([] if idf is None else [keras.ops.convert_to_numpy(idf)]),
            )


def weights_of(layer: keras.Layer) -> list[Any]:
    """The values of a layer's or model's weights, as its layers compute with them.

    `set_weights` does not reach what a Normalization has derived from its weights.
    """
    values = {id(weight): weight for weight in layer.weights}
    for one in layer._flatten_layers():
        if isinstance(one, keras.layers.Normalization) and one.weights:
            for weight, used in (
                (one.adapt_mean, one.mean), (one.adapt_variance, one.variance),
            ):  # fmt: skip
                if used is not None:
                    values[id(weight)] = keras.ops.reshape(used, weight.shape)
    return [keras.ops.convert_to_numpy(values[id(weight)]) for weight in layer.weights]


def assign_weights(layer: keras.Layer, weights: Sequence[Any]) -> None:
    """Sets the weights of a layer or model, and what its layers derive from them."""
    layer.set_weights(weights)
    for one in layer._flatten_layers():
        # Layers that adapt to data compute with what they derived from weights.
        getattr(one, "finalize_state", lambda: None)()


def warn_of_lost_steps(model: keras.Model, under_budget: bool) -> None:
    """Says so if a model trains in its own way, which a functional copy does not.

    Args:
        model: The source of the copy.
        under_budget: Whether the copy is a `BudgetedModel`.
    """
    kind = type(model)
    lost = [name for name in _STEPS if _own(getattr(kind, name, None))]
    if not lost:
        return
    advice = f"`{kind.__name__}(gated.inputs, gated.outputs)`"
    if under_budget:
        advice = (
            "a class that derives from `keras_l0.BudgetedModel`, made of "
            "`gated.inputs` and `gated.outputs`"
        )
    warnings.warn(
        f"Model {model.name!r} ({kind.__name__}) trains by {lost[0]!r} of its own, and "
        f"the gated model does not: it is a functional one. Make it yours again with "
        f"{advice}, or train it in a loop of your own.",
        stacklevel=3,
    )


def _own(method: Any) -> bool:
    """Whether a method is neither Keras' nor ours."""
    if method is None:
        return False
    return method.__module__.partition(".")[0] not in ("keras", "keras_l0")
