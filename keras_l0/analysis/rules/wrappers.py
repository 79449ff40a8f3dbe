"""Rules of TimeDistributed, which is ruled as the layer inside, and of Lambda."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import (
    Atoms,
    Channels,
    Demand,
    Flow,
    Site,
    Size,
    pinned,
)
from keras_l0.analysis.graph import Node, Tensor
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.registry import (
    RULES,
    register_barrier,
    register_strip_rule,
)


@register_strip_rule(keras.layers.TimeDistributed)
class TimeDistributedRule(Rule):
    """A layer at each time step: the rule of the layer, one axis further on."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        layer = self.layer.layer
        kind = type(layer).__name__
        if type(layer) not in RULES:
            raise Barrier(f"no rule for the layer that it wraps ({kind})")
        if getattr(layer, "input_gate", None) is not None:
            raise Barrier(f"it wraps {kind}, whose gates are in front of it")
        x = self.ins[0]
        if len(self.ins) > 1 and "mask" in inspect.signature(layer.call).parameters:
            raise Barrier("it passes a mask on to the layer that it wraps")
        if x.axis is None or x.axis < 2:
            raise Barrier("its input's channels lie on the time axis")
        inner = _Inner(
            self.node.name,
            layer,
            [_step(tensor) for tensor in self.node.inputs[:1]],
            [_step(tensor) for tensor in self.node.outputs],
            self.node.shared,
            outer=self.node,
        )
        try:
            channels = dataclasses.replace(x, axis=x.axis - 1)
            self.inner = RULES[type(layer)].of(inner, [channels], atoms)
        except Barrier as barrier:
            raise Barrier(f"it wraps {kind}: {barrier}") from None
        if self.inner.whole or layer in self.inner.gates:
            raise Barrier(f"it wraps {kind}, which it cannot be ruled as")
        self.inner.calls = self.calls
        self.reason = self.inner.reason
        self.reads_all = self.inner.reads_all
        visible = len(self.node.outputs)
        outs = []
        for c in self.inner.outs[:visible]:
            if c.axis is None:
                raise Barrier("the layer inside makes no channels")
            outs.append(dataclasses.replace(c, axis=c.axis + 1))
        return outs + self.inner.outs[visible:]

    @property
    def gates(self) -> list[Any]:
        return self.inner.gates

    @property
    def passes_scale(self) -> bool:
        return self.inner.passes_scale

    @property
    def absorbs_factor(self) -> bool:
        return self.inner.absorbs_factor

    @property
    def roles(self) -> Any:
        """Those of the layer inside, if it is one that has them."""
        return getattr(self.inner, "roles", None)

    @property
    def calls(self) -> list[Rule]:
        return self._calls

    @calls.setter
    def calls(self, calls: list[Rule]) -> None:
        self._calls = calls
        if hasattr(self, "inner"):
            self.inner.calls = calls

    def at_zero(self) -> Rule:
        rule = super().at_zero()
        assert isinstance(rule, TimeDistributedRule)
        rule.inner = self.inner.at_zero()
        return rule

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return self.inner.forward(ins[:1], gate)

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        return self.inner.claims(flows, outs)

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        asked = self.inner.backward(ins[:1], outs, demands)
        # Of a mask nothing is read, but the call takes it as it is.
        return [*asked, *(pinned(mask.alive) for mask in ins[1:])]

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        size = self.inner.size(ins[:1], keep_in[:1], keep)
        return Size(size.params, size.macs * (self.node.inputs[0].shape[1] or 1))

    def constants(self, site: Site) -> list[np.ndarray]:
        return self.inner.constants(site)

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        def build(kind: Any, config: dict[str, Any], weights: list[Any]) -> Any:
            inner = kind.from_config({**config, "name": self.layer.layer.name})
            outer = self.layer.get_config()
            outer["layer"] = keras.saving.serialize_keras_object(inner)
            return site.build(type(self.layer), outer, weights)

        node = self.inner.node
        assert isinstance(node, _Inner)
        node.masks = [site.rescale(i).tensor for i in range(1, len(site.ins))]
        results = self.inner.rewrite(dataclasses.replace(site, build=build))
        if not all(any(y is x for x in node.made) for y, _ in results):
            raise RuntimeError(
                f"While stripping {self.node.name!r} (TimeDistributed): the rule "
                f"{type(self.inner).__name__} of what it wraps does more than to call "
                "the layer."
            )
        return results


@dataclasses.dataclass(eq=False)
class _Inner(Node):
    """A call as the layer inside sees it; really the wrapper is called."""

    outer: Node = dataclasses.field(kw_only=True)
    masks: list[Any] = dataclasses.field(default_factory=list)
    made: list[Any] = dataclasses.field(default_factory=list)

    def arguments(self) -> dict[str, list[int]]:
        return {next(iter(inspect.signature(self.operation.call).parameters)): [0]}

    def option(self, name: str, default: Any = None) -> Any:
        return default

    def call(self, operation: Any, tensors: Any) -> Any:
        result = self.outer.call(operation, [*tensors, *self.masks])
        self.made += keras.tree.flatten(result)
        return result


def _step(tensor: Tensor) -> Tensor:
    """One time step of a tensor."""
    shape = (tensor.shape[0], *tensor.shape[2:])
    return dataclasses.replace(tensor, shape=shape)


register_barrier("it computes an arbitrary function", keras.layers.Lambda)
