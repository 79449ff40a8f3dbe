"""A Keras model as a list of calls, and which models have one.

Nested models are inlined, so that a plan sees through them; a layer that is called
several times appears as several nodes. `tracing` makes it of Keras' own records.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional

from keras_l0.arguments import require_model


@dataclasses.dataclass(eq=False)
class Tensor:
    """A value that flows between two calls; ``shape`` includes the batch axis.

    ``producer`` is the node that makes it, None for a model input.
    """

    index: int
    shape: tuple[int | None, ...]
    dtype: str
    masked: bool = False
    consumers: int = 0
    producer: Node | None = dataclasses.field(default=None, repr=False)

    def positions(self, axis: int | None = -1) -> int:
        """How many positions it has; an open size counts as 1.

        Args:
            axis: The axis of the channels. None if there is none: each element but the
                batch's is then a position.
        """
        channels = None if axis is None else axis % len(self.shape)
        sizes = enumerate(self.shape)
        return math.prod(size or 1 for a, size in sizes if a and a != channels)


class _Place(int):
    """Stands for an input of a node in the arguments of its call."""


@dataclasses.dataclass(eq=False)
class Node:
    """One call of an operation (a layer, or a raw ``keras.ops`` operation).

    ``inside`` are the nested models that it is a part of, the outer ones first.
    """

    name: str
    operation: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    shared: bool = False
    inside: tuple[keras.Model, ...] = ()
    _call: Any = None

    def arguments(self) -> dict[str, list[int]]:
        """For each argument of the call which of the node's inputs it holds."""
        bound = self._bound(*self._filled_in(map(_Place, range(len(self.inputs)))))
        return {
            name: [int(x) for x in keras.tree.flatten(value) if isinstance(x, _Place)]
            for name, value in bound.items()
        }

    def filled(self) -> tuple[tuple, dict]:
        """What the operation is called on: `inputs` for tensors, constants as is."""
        return self._filled_in(self.inputs)

    def _filled_in(self, values: Iterable[Any]) -> tuple[tuple, dict]:
        """The call's arguments with a value for each of the node's inputs.

        By their order, since one tensor may be several inputs, as in self-attention.
        """
        left = iter(values)
        return self._call.arguments.convert(
            lambda x: next(left) if isinstance(x, keras.KerasTensor) else x
        )

    @property
    def masked(self) -> bool:
        """Whether a mask may come with one of the inputs."""
        return any(tensor.masked for tensor in self.inputs)

    def option(self, name: str, default: Any = None) -> Any:
        """What the call passes as argument ``name``."""
        arguments = self._call.arguments
        return self._bound(arguments.args, arguments.kwargs).get(name, default)

    def _bound(self, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a call by name."""
        signature = inspect.signature(self.operation.call)
        known = signature.parameters
        # A wrapper's call may say more than that of the layer inside it takes.
        loose = any(p.kind is p.VAR_KEYWORD for p in known.values())
        kwargs = {k: v for k, v in kwargs.items() if loose or k in known}
        return signature.bind(*args, **kwargs).arguments

    def call(self, operation: Any, tensors: Sequence[Any]) -> Any:
        """Calls ``operation`` on ``tensors`` as the model calls this node's own.

        Args:
            operation: What to call.
            tensors: One tensor for each of the node's inputs, in their order. Lists,
                keywords and constants stay as they were.
        """
        args, kwargs = self._filled_in(tensors)
        return operation(*args, **kwargs)


@dataclasses.dataclass(eq=False)
class Graph:
    """The calls of a model in an order in which they can be run."""

    model: keras.Model
    nodes: list[Node]
    tensors: list[Tensor]
    inputs: list[Tensor]
    outputs: list[Tensor]

    def input_layer(self, position: int) -> keras.layers.InputLayer:
        """A fresh copy of the model's input layer number ``position``."""
        layer = self.model.inputs[position]._keras_history.operation
        return keras.layers.InputLayer.from_config(layer.get_config())

    def rebuild(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> keras.Model:
        """A functional model with the source's structure of inputs and outputs."""
        model = self.model
        if isinstance(model, keras.Sequential):
            ends = inputs[0], outputs[0]
        else:
            ends = (
                keras.tree.pack_sequence_as(model.input, list(inputs)),
                keras.tree.pack_sequence_as(model.output, list(outputs)),
            )
        with deep_recursion(len(self.nodes)):
            return keras.Model(*ends, name=model.name)


@contextlib.contextmanager
def deep_recursion(calls: int) -> Iterator[None]:
    """Room for Keras to build a model of many calls: it descends call by call.

    With gates, a model that Keras could build may exceed Python's limit, as
    EfficientNetV2L does.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 1000 + 4 * calls))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def open_inputs(model: keras.Model) -> list[str]:
    """Names of inputs with axes of unknown size, which count as one position."""
    return [x.name for x in model.inputs if None in x.shape[1:]]


def require_graph(model: Any) -> None:
    """Raises unless ``model`` is a built Sequential or functional model."""
    require_model("model", model)
    if type(model).call is keras.Sequential.call:
        if not model.built or not model.layers:
            raise ValueError(
                f"`model` must be built: give {model.name!r} a `keras.Input` as its "
                "first layer, or call it on data once. Received: a Sequential model "
                "that does not know its input shape"
            )
    elif not has_graph(model):
        raise ValueError(
            "`model` must be a Sequential or functional model, whose graph can be "
            f"read. Received: {model.name!r}, a subclassed model "
            f"({type(model).__name__} defines its own `call`). Rebuild it as "
            "`keras.Model(inputs, outputs)`, or handle its parts one by one"
        )


def require_finite(model: Any) -> None:
    """Raises if a weight of a model is NaN or infinite: training diverged."""
    require_graph(model)
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            # NumPy: one operation of a backend per weight would take longer.
            if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
                raise ValueError(
                    "`model` must have finite weights. Received: NaN or infinity in "
                    f"{weight.path!r} of {model.name!r}: training diverged. Restore an "
                    "earlier checkpoint, or train with a lower learning rate."
                )


def has_graph(model: keras.Model) -> bool:
    """Whether a model's graph says what its `call` does."""
    kind = type(model)
    if isinstance(model, keras.Sequential):
        return model.built and kind.call is keras.Sequential.call
    runs_its_graph = kind.call is Functional.call or getattr(
        kind, "runs_its_graph", False
    )
    return isinstance(model, Functional) and runs_its_graph
