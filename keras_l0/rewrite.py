"""The same graph once more, on the channels that are kept."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.copying import assign_weights
from keras_l0.analysis.evaluation import Evaluation
from keras_l0.analysis.facts import Signal, Site
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.rules.barriers import blaming
from keras_l0.analysis.rules.gate import GateRule, scaled


class Rewriter:
    """Runs the graph once, on what is kept."""

    def __init__(self, analysis: Analysis, evaluation: Evaluation) -> None:
        self.analysis = analysis
        self.evaluation = evaluation
        self.signals: dict[int, Signal] = {}
        self.layers: dict[int, Any] = {}
        self.built: dict[str, Any] = {}
        self.weights: list[tuple[Any, list[np.ndarray]]] = []
        self.gates = analysis.test_gates()
        self.makers = {slot: step for step in analysis.steps for slot in step.outs}
        self.names = {step.node.name for step in analysis.steps}
        inputs = analysis.graph.model.inputs
        self.names.update(kt._keras_history.operation.name for kt in inputs)
        self.own = {id(step.node.operation) for step in analysis.steps}
        # By the ids of steps: what gates further on want their outputs multiplied by,
        # and the steps of these gates, which become 1.
        self.factors: dict[int, np.ndarray] = {}
        self.absorbed: set[int] = set()
        self._absorb_gates()

    def run(self) -> keras.Model:
        analysis = self.analysis
        inputs = [
            self._input(position, slot)
            for position, slot in enumerate(analysis.input_slots)
        ]
        for step in analysis.steps:
            self._rewrite(step)
        outputs = self._named(
            [self._rescaled(slot).tensor for slot in analysis.output_slots]
        )
        return analysis.graph.rebuild(inputs, outputs)

    def _absorb_gates(self) -> None:
        """Lets calls in front of gates take up their factors.

        An `L0Gate` behind, say, Conv2D, BatchNormalization, ReLU disappears without
        trace when the normalization takes its factor.
        """
        analysis = self.analysis
        inner = (slot for step in analysis.steps for slot in step.ins)
        readers = Counter((*analysis.output_slots, *inner))
        for step in analysis.steps:
            if not (isinstance(step.rule, GateRule) and step.rule.on_channels):
                continue
            taker = self._absorber(step.ins[0], readers)
            if taker is not None:
                gate = self._gates_of(step)
                assert gate is not None
                self.factors[id(taker)] = self.factors.get(id(taker), 1.0) * gate
                self.absorbed.add(id(step))

    def _absorber(self, slot: int, readers: Mapping[int, int]) -> Step | None:
        """The call that can multiply a tensor's channels, if nobody else reads them.

        Args:
            slot: The tensor.
            readers: How many calls and outputs read each tensor.
        """
        while readers[slot] == 1 and slot in self.makers:
            maker = self.makers[slot]
            # Behind attention it may be the scores that are gated.
            if maker.rule.absorbs_factor and slot == maker.outs[0]:
                return maker
            (slot, *others), made = maker.ins, maker.rule.outs[0]
            if (
                others
                or not maker.rule.passes_scale
                # The other parts of a split are not gated.
                or len(maker.visible) > 1
                or not np.array_equal(self.analysis.channels[slot].atoms, made.atoms)
            ):
                return None
        return None

    def _gates_of(self, step: Step) -> np.ndarray | None:
        return self.analysis.of_units(step, self.gates)

    def _input(self, position: int, slot: int) -> Any:
        layer = self.analysis.graph.input_layer(position)
        keep = self.evaluation.keep[slot] > 0
        if not keep.all():
            config = layer.get_config()
            config["batch_shape"] = (*config["batch_shape"][:-1], int(keep.sum()))
            layer = type(layer).from_config(config)
        n = len(keep)
        self.signals[slot] = Signal(layer.output, keep, np.full(n, np.nan), np.ones(n))
        return layer.output

    def _rewrite(self, step: Step) -> None:
        evaluation = self.evaluation
        size = step.rule.outs[0].size
        values = self._gates_of(step)
        if id(step) in self.absorbed:
            values = np.ones(size)
        site = Site(
            ins=[self.signals[i] for i in step.ins],
            keep=[evaluation.keep[i] > 0 for i in step.outs],
            flows_in=[evaluation.flows[i] for i in step.ins],
            flows=[evaluation.flows[i] for i in step.outs],
            gate=values,
            factor=self.factors.get(id(step), np.ones(size)),
            build=lambda *new: self._build(step, *new),
            rescale=lambda i: self._rescaled(step.ins[i]),
        )
        with blaming(step.node, step.rule):
            visible = len(step.visible)
            constants, results = self._called(step, site)
            for slot, keep, value, (tensor, scale) in zip(
                step.visible, site.keep[:visible], constants, results, strict=True
            ):
                if tensor is not None:
                    self._check(tensor, slot, keep)
                self.signals[slot] = Signal(tensor, keep, value, scale)
            # At once: no second copy of all weights is ever held.
            while self.weights:
                _set(*self.weights.pop())

    def _called(self, step: Step, site: Site) -> tuple[list, list]:
        """Values of constant channels, and tensors with the scales that wait."""
        constants = step.rule.constants(site)
        if any(keep.any() for keep in site.keep):
            return constants, step.rule.rewrite(site)
        outs = step.rule.outs[: len(step.visible)]
        return constants, [(None, np.ones(c.size)) for c in outs]

    def _check(self, tensor: Any, slot: int, keep: np.ndarray) -> None:
        axis = self.analysis.channels[slot].axis
        if axis is not None and tensor.shape[axis] != keep.sum():
            raise ValueError(
                f"it made {tensor.shape[axis]} channels where {keep.sum()} were to be "
                "kept"
            )
        if id(tensor._keras_history.operation) in self.own:
            raise ValueError(
                "it called the layer of the source model. Make a new one with "
                "`site.build`"
            )

    def _build(self, step: Step, kind: Any, config: dict, weights: list) -> Any:
        """A new operation under the old one's name; calls of one share one."""
        node = step.node
        shared = step.rule.shares_weights
        if shared and id(node.operation) in self.layers:
            return self.layers[id(node.operation)]
        if isinstance(kind, keras.Operation):
            new = kind
        elif issubclass(kind, keras.Layer):
            new = kind.from_config({**config, "name": node.name})
        else:
            # The operations of Keras 3.10 take no name.
            new = kind(**{k: v for k, v in config.items() if k != "name"})
        new.name = node.name
        self.built[node.name] = new
        if shared:
            self.layers[id(node.operation)] = new
        if isinstance(new, keras.Layer):
            self.weights.append((new, weights))
        return new

    def _rescaled(self, slot: int) -> Signal:
        """The signal with its waiting scale applied, by a multiplication if need be."""
        signal = self.signals[slot]
        scale = signal.scale[signal.keep]
        if signal.tensor is None or (scale == 1).all():
            return signal
        axis = self.analysis.channels[slot].axis
        rank = signal.tensor.ndim
        factor = scale.reshape([len(scale) if a == axis else 1 for a in range(1, rank)])
        maker = self.makers.get(slot)
        name = self._unused(f"{maker.node.name if maker else 'input'}_scale")
        tensor = scaled(signal.tensor, factor, name)
        self.signals[slot] = dataclasses.replace(
            signal, tensor=tensor, scale=np.ones(len(signal.scale))
        )
        return self.signals[slot]

    def _unused(self, name: str) -> str:
        """The name, lengthened until no operation goes by it."""
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name

    def _named(self, outputs: list[Any]) -> list[Any]:
        """Outputs under the names that they have in the source model.

        A gate that could not be folded away leaves a multiplication behind the layer
        that made the output. It is the output now, so it gets the name.
        """
        made = {tensor._keras_history.operation.name for tensor in outputs}
        named = []
        for tensor, source in zip(
            outputs, self.analysis.graph.model.outputs, strict=True
        ):
            # That of a nested model, or of a layer that was called before.
            name = source._keras_history.operation.name
            if name not in made:
                if name in self.built:
                    self.built[name].name = f"{name}_ungated"
                tensor = keras.layers.Identity(name=name)(tensor)
                made.add(name)
            named.append(tensor)
        return named


def _set(layer: Any, weights: list[np.ndarray]) -> None:
    """Sets the weights of a layer that is built."""
    expected = [tuple(w.shape) for w in layer.weights]
    received = [np.shape(w) for w in weights]
    if received != expected:
        raise ValueError(
            f"the new layer takes weights of the shapes {expected}, not {received}"
        )
    if not weights:
        return
    assign_weights(layer, weights)
