"""The rules of gates: they close channels, and then they are gone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Site
from keras_l0.analysis.graph import Node
from keras_l0.analysis.logic import and_, not_, ones_like, or_, take
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.cutting import (
    cut_cost,
    cut_gate,
    cut_indices,
    held_together,
)
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.layers import L0Gate, L0SharedGate, L0Switch


@register_strip_rule(L0Gate)
class GateRule(Rule):
    """Gates on the channels are folded away; gates on positions become a constant."""

    passes_scale = True

    @property
    def gates(self) -> list[Any]:
        return [self.layer]

    def gated_axes(self, rank: int) -> tuple[int, ...]:
        """The axes that hold gates."""
        return self.layer.gated_axes(rank)

    def connect(self, atoms: Atoms) -> list[Channels]:
        rank = len(self.node.inputs[0].shape)
        axes = self.gated_axes(rank)
        self.on_channels: bool = axes == (self.ins[0].axis,)
        if not self.on_channels:
            self.reason = f"its gates lie on axes {axes}, which hold no channels"
        return [Channels.rest_at_zero(self.ins[0].axis, self.ins[0].atoms)]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        (x,) = ins
        if self.on_channels:
            return [Flow(and_(x.alive, gate), and_(self.nonzero(0, x), gate))]
        # A constant times gates that differ by position is not a constant.
        return [Flow(or_(x.alive, self.nonzero(0, x)), 0.0 * x.const)]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        (d,) = demands
        if self.on_channels:
            return [Demand(and_(d.need, outs[0].alive), d.pin)]
        return [Demand(ones_like(d.need), or_(d.pin, self.nonzero(0, ins[0])))]

    def constants(self, site: Site) -> list[np.ndarray]:
        value, flow = site.ins[0].value, site.flows[0]
        if self.on_channels:
            # A gate that another layer absorbed is 1 here, also where it is closed.
            rests = not_(or_(flow.alive, flow.const)) > 0
            return [np.where(rests, 0.0, value * site.gate)]
        return [site.constant(value)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x, z = site.ins[0], site.gate
        if self.on_channels:
            return [(x.tensor, x.scale * z)]
        sizes, axis = self.node.inputs[0].shape, self.ins[0].axis
        axes = self.gated_axes(len(sizes))
        shape = [(n or 1) if a in axes else 1 for a, n in enumerate(sizes) if a]
        assert z is not None
        z = np.reshape(z, shape)
        if axis is not None:
            if shape[axis - 1] != 1:
                z = np.compress(x.keep, z, axis=axis - 1)
            # The scale that waits goes along: one multiplication, under this name.
            scale = x.scale[x.keep]
            if (scale != 1).any():
                along = [len(scale) if a == axis - 1 else 1 for a in range(len(shape))]
                z = z * scale.reshape(along)
        return [(scaled(x.tensor, z, self.node.name), np.ones(len(x.scale)))]

    def whole_with_gates(self) -> str | None:
        if self.on_channels:
            return held_together(self.gates[0])
        if self.ins[0].axis in self.gated_axes(len(self.node.inputs[0].shape)):
            return "its gates lie on several axes"
        return None

    def narrowed(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        gate, config = self.layer, self.layer.get_config()
        kept: Any = slice(None)
        if self.on_channels:
            assert site.gates_kept is not None
            kept = site.gates_kept(gate)
        config["cost"] = cut_cost(gate, kept)
        new = site.build(type(gate), config, list(cut_gate(gate, kept).values()))
        return [(self.node.call(new, [site.ins[0].tensor]), site.ins[0].scale)]


@register_strip_rule(L0SharedGate)
class SharedGateRule(Rule):
    """Gates that others multiply by: gone, unless something else reads them."""

    draws = True

    @property
    def gates(self) -> list[Any]:
        return []  # they belong to the places that multiply by them

    def connect(self, atoms: Atoms) -> list[Channels]:
        return [self.ins[0]]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        raise ValueError("its gates may be read by `L0Switch` layers only")

    def whole_with_gates(self) -> str | None:
        return None  # the places that multiply by them say it

    def narrowed(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        assert site.gates_kept is not None
        gate = self.layer.gate
        kept = site.gates_kept(gate)
        config = self.layer.get_config()
        config |= {"units": len(kept), "cost": cut_cost(gate, kept)}
        weights = list(cut_gate(gate, kept).values())
        new = site.build(type(self.layer), config, weights)
        x = site.ins[0]
        return [(self.node.call(new, [x.tensor]), x.scale)]


@register_strip_rule(L0Switch)
class SwitchRule(GateRule):
    """A gate on channels whose values are drawn elsewhere."""

    @property
    def gates(self) -> list[Any]:
        return [shared_gate(self.node, 1)]

    def per_unit(self, values: Any) -> Any:
        return switched(self.layer, values)

    def gated_axes(self, rank: int) -> tuple[int, ...]:
        return (self.layer.axis % rank,)

    def connect(self, atoms: Atoms) -> list[Channels]:
        shared_gate(self.node, 1)
        return super().connect(atoms)

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return super().forward(ins[:1], gate)

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        nothing = 0.0 * ins[1].alive
        return [
            *super().backward(ins[:1], outs, demands),
            Demand(nothing, nothing),
        ]

    def operands(self, exists: Any, ins: list[Flow], kept: list[Any]) -> list[Any]:
        return [exists, 0.0 * exists]

    def narrowed(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        assert site.gates_kept is not None
        (gate,) = self.gates
        numbers = self.per_unit(np.arange(gate.count))[site.keep[0]]
        indices = cut_indices(numbers, site.gates_kept(gate))
        config = {**self.layer.get_config(), "indices": indices}
        x, z = site.ins
        new = site.build(type(self.layer), config, [])
        return [(self.node.call(new, [x.tensor, z.tensor]), x.scale)]


def shared_gate(node: Node, i: int) -> Any:
    """The `L0Gate` that draws input ``i`` of a call."""
    source = node.inputs[i].producer
    if source is None or not isinstance(source.operation, L0SharedGate):
        raise Barrier("its gates do not come from an `L0SharedGate`")
    return source.operation.gate


def switched(switch: Any, values: Any) -> Any:
    """Of values of a mask's gates those that a switch multiplies by."""
    indices = switch.indices
    return values if indices is None else take(values, np.array(indices))


def scaled(x: Any, factor: np.ndarray, name: str) -> Any:
    """``x`` times an array of all its axes but the batch's, by a layer of this name.

    Keras' raw product with a constant loses masks, says that it is sparse, which not
    every layer behind it can be, and has a name that the model may hold already.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    if factor.ndim < 3 and keras.config.image_data_format() == "channels_first":
        # Rescaling would take the first axis for that of the channels.
        exact = keras.backend.result_type(dtype, "float32")
        factor = keras.ops.convert_to_tensor(factor[np.newaxis], dtype=exact)
        return keras.ops.cast(keras.ops.multiply(x, factor), dtype)
    # Of a list, TensorFlow makes float32.
    scale = factor if dtype == "float64" else factor.tolist()
    return keras.layers.Rescaling(scale, dtype=dtype, name=name)(x)
