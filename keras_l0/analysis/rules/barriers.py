"""The rules of what strip must not look through, and who is to blame for an error."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.copying import copied
from keras_l0.analysis.facts import Atoms, Channels, Flow, Site, Size, opaque, varying
from keras_l0.analysis.graph import Node
from keras_l0.analysis.logic import and_, any_
from keras_l0.analysis.rules.base import Barrier, Rule, is_channels_first


class BarrierRule(Rule):
    """The rule of what strip must not look through: everything stays."""

    whole = True

    def __init__(
        self, node: Node, ins: list[Channels], atoms: Atoms, reason: str
    ) -> None:
        self.reason = reason
        super().__init__(node, ins, atoms)

    @property
    def gates(self) -> list[Any]:
        return []

    def connect(self, atoms: Atoms) -> list[Channels]:
        return [opaque(t.shape, atoms) for t in self.node.outputs]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return [varying(ins[0].alive, c.size) for c in self.outs]

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        exists = any_(keep[0])[0]
        return Size(self.params * exists, self.macs * exists)

    @property
    def params(self) -> int:
        """The layer's parameters."""
        return getattr(self.layer, "count_params", lambda: 0)()

    @property
    def macs(self) -> int:
        """Those of a layer that applies its kernels position by position, if any."""
        # Of an operation, `weights` may be anything: an argument, in `Bincount`.
        weights = self.layer.weights if isinstance(self.layer, keras.Layer) else ()
        kernels = [
            w for w in weights if "kernel" in w.name and not w.name.startswith("lora_")
        ]
        if not kernels:
            return 0
        each = sum(math.prod(kernel.shape) for kernel in kernels)
        axis = 1 if is_channels_first(self.layer) else -1
        x, y = self.node.inputs[0], self.node.outputs[0]
        if isinstance(self.layer, (keras.layers.RNN, keras.layers.Bidirectional)):
            # At each step, and at each position of what a step makes.
            steps = x.shape[1] or 1
            sequence = getattr(self.layer, "return_sequences", False)
            return each * steps * (y.positions(axis) // (steps if sequence else 1))
        # A convolution has no more outputs than inputs, a transposed one no fewer.
        return each * min(tensor.positions(axis) for tensor in (x, y))

    def constants(self, site: Site) -> list[np.ndarray]:
        return [np.full(c.size, np.nan) for c in self.outs]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        is_layer = isinstance(self.layer, keras.Layer)
        weights = self.layer.get_weights() if is_layer else []
        new = site.build(copied(self.layer, self.node.name), {}, weights)
        inputs = [site.rescale(i).tensor for i in range(len(site.ins))]
        outputs = keras.tree.flatten(self.node.call(new, inputs))
        return [(y, np.ones(c.size)) for y, c in zip(outputs, self.outs, strict=True)]


class GatedBarrierRule(BarrierRule):
    """The same for a layer whose outputs are gated: all stays but the gate."""

    @property
    def gates(self) -> list[Any]:
        return list(self.layer.gates)

    def connect(self, atoms: Atoms) -> list[Channels]:
        (gate,) = self.gates
        (axis,) = gate.gated_axes(len(self.node.outputs[0].shape))
        return [Channels.rest_at_zero(axis, atoms.new(gate.count))]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        (y,) = super().forward(ins, gate)
        return [y if gate is None else Flow(and_(y.alive, gate), y.const)]

    @property
    def params(self) -> int:
        return super().params - sum(gate.count for gate in self.gates)

    def constants(self, site: Site) -> list[np.ndarray]:
        return [np.where(site.scale == 0, 0.0, np.nan)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        own = {id(w) for gate in self.gates for w in gate.weights}
        weights = [w for w in self.layer.weights if id(w) not in own]
        arrays = [np.asarray(keras.ops.convert_to_numpy(w)) for w in weights]
        new = site.build(*self.plain(), arrays)
        return [(self.node.call(new, [site.rescale(0).tensor]), site.scale)]


@contextlib.contextmanager
def blaming(
    node: Node, rule: Rule | type[Rule], doing: str = "stripping"
) -> Iterator[None]:
    """Errors inside say which layer they are about, and whose rule failed.

    Args:
        node: The layer's call.
        rule: Its rule, or the class of it.
        doing: What is done to the layer.
    """
    try:
        yield
    except Barrier:
        raise
    except Exception as error:
        kind = type(node.operation).__name__
        where = f"While {doing} {node.name!r} ({kind})"
        if isinstance(rule, BarrierRule) and doing == "stripping":
            raise ValueError(
                f"{where}: it is a barrier ({rule.reason}), and cannot be made anew as "
                f"it is: {error}"
            ) from error
        name = (rule if isinstance(rule, type) else type(rule)).__name__
        raise RuntimeError(f"{where}: its rule {name} failed: {error}") from error
