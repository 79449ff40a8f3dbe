"""Rules of recurrent layers: their input rows are cut, and units that left the loop.

A unit that an `L0Gate` behind the layer closes still feeds the recurrence, so it stays.
It can go when its gate is inside, as that of `L0LSTM` is, or when the recurrent kernel
does not read it and nobody else does.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Site, Size, opaque
from keras_l0.analysis.logic import (
    and_,
    any_,
    array_like,
    concatenate,
    count,
    like,
    or_,
    take,
)
from keras_l0.analysis.rules.base import Barrier, Rule, plain_of, plain_type
from keras_l0.analysis.rules.reading import ReadingRule, on_last_axis, replaced
from keras_l0.analysis.rules.registry import register_strip_rule
from keras_l0.layers import L0GRU, L0LSTM, L0SimpleRNN

_CELLS = (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell)
_LAYERS = (keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU)


def slice_cell(
    weights: dict[str, np.ndarray], rows: np.ndarray, units: np.ndarray
) -> dict[str, np.ndarray]:
    """A recurrent cell's weights without some of its units.

    Args:
        weights: ``kernel`` (in, g * u), ``recurrent_kernel`` (u, g * u) and maybe
            ``bias`` (g * u,), or (2, g * u) for a GRU that resets after the product.
            The g blocks of a unit, one per gate, lie u columns apart.
        rows: The input rows to keep, bool, shape (in,).
        units: The units to keep, bool, shape (u,).
    """
    blocks = weights["recurrent_kernel"].shape[1] // len(units)
    columns = np.tile(units, blocks)
    sliced = {name: array[..., columns] for name, array in weights.items()}
    sliced["kernel"] = sliced["kernel"][rows]
    sliced["recurrent_kernel"] = sliced["recurrent_kernel"][units]
    return sliced


def unread_units(recurrent_kernel: np.ndarray) -> np.ndarray:
    """Units whose state no other unit reads: their rows are 0, but for their own gates.

    Args:
        recurrent_kernel: Of shape (u, g * u).
    """
    units = len(recurrent_kernel)
    reads = (recurrent_kernel.reshape(units, -1, units) != 0).any(axis=1)
    np.fill_diagonal(reads, False)
    return ~reads.any(axis=1)


class RecurrentRule(ReadingRule):
    """One or several recurrent layers over one sequence, each with units of its own.

    The units of a layer's outputs and states are the same decisions. A unit that others
    of its layer read stays as long as any of them is read from outside, unless its gate
    is closed: that takes it out of the recurrence.
    """

    makes_units = True

    @property
    def layers(self) -> list[Any]:
        """The recurrent layers."""
        return [self.layer]

    @property
    def gates(self) -> list[Any]:
        return [gate for layer in self.layers for gate in getattr(layer, "gates", ())]

    def made(self) -> list[tuple[int, ...]] | None:
        """For each output the layers whose units it holds, one after the other.

        None if its channels are not those of single units.
        """
        return [(0,)] * len(self.node.outputs)

    def connect(self, atoms: Atoms) -> list[Channels]:
        self.cells = [layer.cell for layer in self.layers]
        for cell in self.cells:
            if type(cell) not in _CELLS:
                raise Barrier(f"its cell {type(cell).__name__} is not a built-in one")
        held = self.node.arguments()
        self.roles = (held["sequences"][0],)
        self.read = self.readable(self.roles)
        self.folds = all(cell.use_bias for cell in self.cells)
        self.states = held.get("initial_state", [])
        self.free = [unread_units(float64(c.recurrent_kernel)) for c in self.cells]
        made = self.made() if len({c.units for c in self.cells}) == 1 else None
        self.tied = made is not None and all(self.ins[i].axis == 1 for i in self.states)
        if self.gates and not self.tied:
            raise Barrier("its outputs or states do not hold units one by one")
        loose = self.gates or any(free.any() for free in self.free)
        self.cuts = bool(self.tied and loose)
        if not self.read:
            self.reason = "its input's channels lie on another axis"
        elif not self.cuts:
            self.reason = (
                "each of its units feeds its own recurrence: one that is closed or "
                "unread behind the layer cannot go"
            )
        self.holds = made or []
        if made is None:
            return [opaque(t.shape, atoms) for t in self.node.outputs]
        # Keras takes it that both directions have equally many units: they go in pairs.
        decisions = [atoms.new(self.cells[0].units)] * len(self.cells)
        if self.tied:
            # The initial states come in equal parts, layer by layer.
            each = len(self.states) // len(self.cells)
            for number, i in enumerate(self.states):
                atoms.tie(self.ins[i].atoms, decisions[number // each])
        return [
            on_last_axis(t.shape, np.concatenate([decisions[n] for n in held]))
            for t, held in zip(self.node.outputs, made, strict=True)
        ]

    def as_gated(self) -> Rule:
        rule = self.at_zero()
        assert isinstance(rule, RecurrentRule)
        rule.cuts = self.tied
        return rule

    def joined(self, values: list[Any]) -> list[Any]:
        """For each output what there is of its units, given that of each layer's."""
        return [concatenate([values[n] for n in held]) for held in self.holds]

    def split(self, outs: list[Any]) -> list[list[Any]]:
        """For each layer what the outputs say of its units."""
        found: list[list[Any]] = [[] for _ in self.cells]
        for held, out in zip(self.holds, outs, strict=True):
            start = 0
            for n in held:
                stop = start + self.cells[n].units
                found[n].append(take(out, np.arange(start, stop)))
                start = stop
        return found

    def opened(self, gate: Any) -> list[Any]:
        """Each layer's part of what there is of the gates; ones where it has none."""
        parts, start = [], 0
        for layer, cell in zip(self.layers, self.cells, strict=True):
            if getattr(layer, "gates", ()):
                parts.append(take(gate, np.arange(start, start + cell.units)))
                start += cell.units
            else:
                parts.append(like(gate, 1.0, cell.units))
        return parts

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        if not self.gates:
            return super().forward(ins, gate)
        return [Flow(z, 0.0 * z) for z in self.joined(self.opened(gate))]

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        if not self.cuts:
            return super().claims(flows, outs)
        alive = [parts[0] for parts in self.split([f.alive for f in flows])]
        need = [reduce(or_, parts) for parts in self.split([d.need for d in outs])]
        pin = [reduce(or_, parts) for parts in self.split([d.pin for d in outs])]
        reads = [any_(and_(a, n)) for a, n in zip(alive, need, strict=True)]
        for n, free in enumerate(self.free):
            alone = array_like(need[n], free)
            need[n] = or_(need[n] * alone, reads[n] * (1.0 - alone))
        return list(map(Demand, self.joined(need), self.joined(pin)))

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        asked = super().backward(ins, outs, demands)
        if self.cuts:
            needs, pins = (
                [reduce(or_, parts) for parts in self.split(list(side))]
                for side in zip(*demands, strict=True)
            )
            each = len(self.states) // len(self.cells)
            for number, i in enumerate(self.states):
                asked[i] = Demand(needs[number // each], pins[number // each])
        return asked

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        (x,) = self.roles
        steps = self.node.inputs[x].shape[1] or 1
        kept = self.split(keep) if self.cuts else None
        params: Any = 0.0
        macs: Any = 0.0
        for n, cell in enumerate(self.cells):
            blocks = cell.kernel.shape[1] // cell.units
            # Where all units stay, each is there if the layer is.
            units, state = cell.units * keep[0][0], cell.units
            if kept is not None:
                units = state = count(kept[n][0])
            rows = count(keep_in[x]) if self.read else cell.kernel.shape[0]
            weights = (rows + state) * blocks * units
            biases = len(cell.bias.shape) if cell.use_bias else 0
            params += weights + biases * blocks * units
            macs += weights * steps
        return Size(params, macs)

    def constants(self, site: Site) -> list[np.ndarray]:
        """A closed unit is 0, and whatever else is there varies."""
        return [np.where(f.alive > 0, np.nan, 0.0) for f in site.flows]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        (x,) = self.roles
        z = [np.ones(cell.units) for cell in self.cells]
        if site.gate is not None:
            z = self.opened(site.gate)
        kept = [np.ones(cell.units, bool) for cell in self.cells]
        if self.cuts:
            kept = [parts[0] for parts in self.split(site.keep)]
        new: dict[int, np.ndarray] = {}
        for n, cell in enumerate(self.cells):
            rows, offset = self.rows(site, x, float64(cell.kernel))
            weights = {
                "kernel": rows,
                "recurrent_kernel": float64(cell.recurrent_kernel) * z[n][:, None],
            }
            if cell.use_bias:
                bias = float64(cell.bias)
                # A GRU that resets after the product has two, the input's first.
                (bias if bias.ndim == 1 else bias[0])[...] += offset
                weights["bias"] = bias
            every_row = np.ones(len(rows), bool)
            for name, array in slice_cell(weights, every_row, kept[n]).items():
                new[id(getattr(cell, name))] = array
        config = self.config([int(units.sum()) for units in kept])
        layer = site.build(plain_type(self.layer), config, replaced(self.layer, new))
        scales = self.joined(z) if site.gate is not None else None
        called = self.called(layer, site)
        if scales is None:
            return called
        return [(y, scale) for (y, _), scale in zip(called, scales, strict=True)]

    def config(self, units: list[int]) -> dict[str, Any]:
        """The plain layer's config with so many units in each layer."""
        return _with_units(self.layer, *units)


@register_strip_rule(*_LAYERS, L0SimpleRNN, L0LSTM, L0GRU)
class RecurrentLayerRule(RecurrentRule):
    """SimpleRNN, LSTM and GRU."""


@register_strip_rule(keras.layers.RNN)
class CellRule(RecurrentRule):
    """A built-in cell in an RNN."""


@register_strip_rule(keras.layers.Bidirectional)
class BidirectionalRule(RecurrentRule):
    """Two recurrent layers over the same sequence; both read the same input rows."""

    @property
    def layers(self) -> list[Any]:
        layers = [self.layer.forward_layer, self.layer.backward_layer]
        known = {*_LAYERS, keras.layers.RNN}
        if not set(map(plain_type, layers)) <= known:
            names = " and ".join(type(layer).__name__ for layer in layers)
            raise Barrier(f"it wraps {names}, not built-in recurrent layers")
        return layers

    def made(self) -> list[tuple[int, ...]] | None:
        outputs: list[tuple[int, ...]]
        if self.layer.merge_mode == "concat":
            outputs = [(0, 1)]
        elif self.layer.merge_mode is None:
            outputs = [(0,), (1,)]
        else:
            return None
        states = (len(self.node.outputs) - len(outputs)) // 2
        return [*outputs, *[(0,)] * states, *[(1,)] * states]

    def config(self, units: list[int]) -> dict[str, Any]:
        config = self.layer.get_config()
        layers = zip(self.layers, ("layer", "backward_layer"), units, strict=True)
        for layer, name, number in layers:
            new = plain_type(layer).from_config(_with_units(layer, number))
            config[name] = keras.saving.serialize_keras_object(new)
        return config


def _with_units(layer: Any, units: int) -> dict[str, Any]:
    """A plain recurrent layer's config with so many units; an RNN's cell has them."""
    _, config = plain_of(layer)
    if "cell" not in config:
        return config | {"units": units}
    cell = config["cell"]
    cell = cell | {"config": cell["config"] | {"units": units}}
    # The input shape that it was built for is none any more.
    return config | {"cell": {k: v for k, v in cell.items() if k != "build_config"}}
