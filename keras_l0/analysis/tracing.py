"""Reads the graph of a model from what Keras keeps of its calls."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras

from keras_l0.analysis.graph import Graph, Node, Tensor, has_graph, require_graph


def trace(model: keras.Model) -> Graph:
    """The graph of a built Sequential or functional model.

    Raises:
        TypeError: If ``model`` is not a Keras model.
        ValueError: If it is not built, or has no graph (a subclassed model).
    """
    require_graph(model)
    tracer = _Tracer(model)
    inputs = [tracer.new_tensor(kt) for kt in model.inputs]
    tensor_of = {id(kt): x for kt, x in zip(model.inputs, inputs, strict=True)}
    tracer.inline(model, tensor_of, "")
    calls = Counter(id(node.operation) for node in tracer.nodes)
    for node in tracer.nodes:
        node.shared = calls[id(node.operation)] > 1
    outputs = [tensor_of[id(kt)] for kt in model.outputs]
    for output in outputs:
        output.consumers += 1
    return Graph(model, tracer.nodes, tracer.tensors, inputs, outputs)


class _Tracer:
    """Collects the calls of a model and of those nested in it."""

    def __init__(self, model: keras.Model) -> None:
        self.tensors: list[Tensor] = []
        self.nodes: list[Node] = []
        self.outermost = {call.operation.name for call in _calls(model)}
        self.inside: tuple[keras.Model, ...] = ()
        self.names: set[str] = set()

    def new_tensor(
        self,
        kt: Any,
        passed_on: bool = False,
        shape: Sequence[int | None] | None = None,
    ) -> Tensor:
        """What stands for a symbolic tensor of Keras.

        Args:
            kt: The tensor.
            passed_on: Whether a mask comes with it that Keras does not know of here.
            shape: Its shape, if more is known of it than Keras knows here.
        """
        dtype = keras.backend.standardize_dtype(kt.dtype)
        masked = passed_on or getattr(kt, "_keras_mask", None) is not None
        shape = tuple(kt.shape if shape is None else shape)
        self.tensors.append(Tensor(len(self.tensors), shape, dtype, masked))
        return self.tensors[-1]

    def inline(
        self, model: keras.Model, tensor_of: dict[int, Tensor], prefix: str
    ) -> None:
        """Adds the calls of a model.

        Args:
            model: The model.
            tensor_of: By the id of Keras' tensor ours; of the inputs, and what is
                added of the calls' outputs.
            prefix: Of names that an outer layer goes by already.
        """
        for call in _calls(model):
            sources = [tensor_of[id(kt)] for kt in call.arguments.keras_tensors]
            if _can_be_inlined(call):
                inner = call.operation
                scope = {
                    id(kt): source
                    for kt, source in zip(inner.inputs, sources, strict=False)
                }
                outside, self.inside = self.inside, (*self.inside, inner)
                self.inline(inner, scope, f"{prefix}{inner.name}_")
                self.inside = outside
                results = [scope[id(kt)] for kt in inner.outputs]
            else:
                results = self._add(call, sources, prefix)
            for kt, result in zip(call.outputs, results, strict=True):
                tensor_of[id(kt)] = result

    def _add(self, call: Any, sources: list[Tensor], prefix: str) -> list[Tensor]:
        """Adds one call; the tensors that it makes."""
        operation = call.operation
        # Inside of a nested model Keras does not know of masks from outside.
        passed_on = getattr(operation, "supports_masking", False) and any(
            source.masked for source in sources
        )
        results = [
            self.new_tensor(kt, passed_on, shape)
            for kt, shape in zip(call.outputs, _shapes(call, sources), strict=True)
        ]
        for source in sources:
            source.consumers += 1
        name = self._unused(operation.name, prefix)
        if (gate := getattr(operation, "input_gate", None)) is not None:
            # In front of the layer: a call of its own, on the layer's input.
            (x,) = sources
            gated = dataclasses.replace(x, index=len(self.tensors), consumers=1)
            self.tensors.append(gated)
            front = self._unused(f"{operation.name}_gate", prefix)
            gated.producer = Node(front, gate, sources, [gated], _call=call)
            self.nodes.append(gated.producer)
            sources = [gated]
        node = Node(name, operation, sources, results, inside=self.inside, _call=call)
        self.nodes.append(node)
        for result in results:
            result.producer = node
        return results

    def _unused(self, name: str, prefix: str) -> str:
        """The name itself for the first who asks, if no outer layer goes by it."""
        choices = itertools.chain(
            [] if prefix and name in self.outermost else [name],
            (f"{prefix}{name}_{k}" for k in itertools.count(1)),
        )
        chosen = next(
            c
            for c in choices
            if c not in self.names and (c == name or c not in self.outermost)
        )
        self.names.add(chosen)
        return chosen


def _shapes(call: Any, sources: list[Tensor]) -> list[tuple[int | None, ...]]:
    """The shapes of what a call makes of its sources.

    Of the calls in a nested model Keras knows those for the sizes of its `Input`, which
    may be open where the model itself is called on known ones.
    """
    given = call.arguments.keras_tensors
    if not any(
        size is not None and open_size is None
        for source, kt in zip(sources, given, strict=True)
        for size, open_size in zip(source.shape, kt.shape, strict=True)
    ):
        return [tuple(kt.shape) for kt in call.outputs]
    left = iter(
        keras.KerasTensor(source.shape, kt.dtype)
        for source, kt in zip(sources, given, strict=True)
    )
    args, kwargs = call.arguments.convert(
        lambda x: next(left) if isinstance(x, keras.KerasTensor) else x
    )
    # As Keras has done itself, when the nested model was called.
    made = call.operation.compute_output_spec(*args, **kwargs)
    return [tuple(kt.shape) for kt in keras.tree.flatten(made)]


def _can_be_inlined(call: Any) -> bool:
    operation = call.operation
    return (
        isinstance(operation, keras.Model)
        and has_graph(operation)
        # Its layers' calls would no longer know.
        and not call.arguments.kwargs.get("training")
    )


def _calls(model: keras.Model) -> list[Any]:
    """Keras' own nodes of ``model``, in an order in which they can be run."""
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs)
    by_depth = model._nodes_by_depth
    return [
        node
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if node.operation is not None and not node.is_input
    ]
