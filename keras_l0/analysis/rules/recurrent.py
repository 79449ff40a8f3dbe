"""Rules of recurrent layers: their input rows are cut, their units are not, as a rule.

A unit that a gate behind the layer closes still feeds the recurrence, so it stays. Only
where the recurrent kernel does not read a unit at all can it go when nobody else does.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Site, Size, opaque
from keras_l0.analysis.logic import array_like, count, or_
from keras_l0.analysis.rules.base import Barrier
from keras_l0.analysis.rules.reading import (
    ReadingRule,
    float64,
    on_last_axis,
    replaced,
)
from keras_l0.analysis.rules.registry import register_strip_rule

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
    """One or several cells that run over a sequence; ``cells`` names them.

    The units of all outputs and states are the same decisions. Rules of cells that
    close units inside, where that takes them out of the recurrence, override
    `removable`.
    """

    @property
    def cells(self) -> list[Any]:
        return [self.layer.cell]

    def connect(self, atoms: Atoms) -> list[Channels]:
        for cell in self.cells:
            if type(cell) not in _CELLS:
                raise Barrier(f"its cell {type(cell).__name__} is not a built-in one")
        held = self.node.arguments()
        self.roles = (held["sequences"][0],)
        self.read = self.readable(self.roles)
        self.folds = all(cell.use_bias for cell in self.cells)
        outs = self.units(atoms, held.get("initial_state", []))
        if not self.read:
            self.reason = "its input's channels lie on another axis"
        elif not self.free.any():
            self.reason = (
                "each of its units feeds its own recurrence: one that is closed or "
                "unread behind the layer cannot go"
            )
        return outs

    def units(self, atoms: Atoms, states: list[int]) -> list[Channels]:
        """The channels of the outputs; ``self.free`` are the units that may go.

        Args:
            atoms: Where to get decisions from.
            states: The inputs that hold initial states.
        """
        (cell,) = self.cells
        decisions = atoms.new(cell.units)
        self.states = states
        self.free = self.removable()
        if any(self.ins[i].axis != 1 for i in states):
            self.free = np.zeros(cell.units, bool)
        if self.free.any():
            for i in states:
                atoms.tie(self.ins[i].atoms, decisions)
        return [on_last_axis(t.shape, decisions) for t in self.node.outputs]

    def removable(self) -> np.ndarray:
        """The units that may go if nobody reads them outside of the recurrence."""
        (cell,) = self.cells
        return unread_units(float64(cell.recurrent_kernel))

    def claims(self, outs: list[Demand]) -> list[Demand]:
        if not self.free.any():
            return super().claims(outs)
        need = reduce(or_, [d.need for d in outs])
        pin = reduce(or_, [d.pin for d in outs])
        stay = array_like(pin, (~self.free).astype("float64"))
        return [Demand(need, or_(pin, stay))] * len(outs)

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        asked = super().backward(ins, outs, demands)
        if self.free.any():
            for i in self.states:
                asked[i] = demands[0]
        return asked

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        (x,) = self.roles
        steps = self.node.inputs[x].shape[1] or 1
        params: Any = 0.0
        macs: Any = 0.0
        for cell in self.cells:
            blocks = cell.kernel.shape[1] // cell.units
            # Where all units stay, each is there if the layer is.
            units, state = cell.units * keep[0][0], cell.units
            if self.free.any():
                units = state = count(keep[0])
            rows = count(keep_in[x]) if self.read else cell.kernel.shape[0]
            weights = (rows + state) * blocks * units
            biases = len(cell.bias.shape) if cell.use_bias else 0
            params += weights + biases * blocks * units
            macs += weights * steps
        return Size(params, macs)

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        (x,) = self.roles
        new: dict[int, np.ndarray] = {}
        for cell in self.cells:
            free = self.free.any()
            units = site.keep[0] if free else np.ones(cell.units, bool)
            rows, offset = self.rows(site, x, float64(cell.kernel))
            weights = {
                "kernel": rows,
                "recurrent_kernel": float64(cell.recurrent_kernel),
            }
            if cell.use_bias:
                bias = float64(cell.bias)
                # A GRU that resets after the product has two, the input's first.
                (bias if bias.ndim == 1 else bias[0])[...] += offset
                weights["bias"] = bias
            every_row = np.ones(len(rows), bool)
            for name, array in slice_cell(weights, every_row, units).items():
                new[id(getattr(cell, name))] = array
        config = self.config(site.keep)
        layer = site.build(type(self.layer), config, replaced(self.layer, new))
        return self.called(layer, site)

    def config(self, keep: list[np.ndarray]) -> dict[str, Any]:
        """The layer's config for what is kept of its units."""
        return self.layer.get_config() | {"units": int(keep[0].sum())}


@register_strip_rule(*_LAYERS)
class RecurrentLayerRule(RecurrentRule):
    """SimpleRNN, LSTM and GRU."""


@register_strip_rule(keras.layers.RNN)
class CellRule(RecurrentRule):
    """A built-in cell in an RNN."""

    def config(self, keep: list[np.ndarray]) -> dict[str, Any]:
        config = self.layer.get_config()
        cell = _unbuilt(config["cell"])
        cell["config"] = cell["config"] | {"units": int(keep[0].sum())}
        return config | {"cell": cell}


@register_strip_rule(keras.layers.Bidirectional)
class BidirectionalRule(RecurrentRule):
    """Two recurrent layers over the same sequence; both read the same input rows."""

    @property
    def cells(self) -> list[Any]:
        layers = [self.layer.forward_layer, self.layer.backward_layer]
        if any(type(layer) not in (*_LAYERS, keras.layers.RNN) for layer in layers):
            kinds = " and ".join(type(layer).__name__ for layer in layers)
            raise Barrier(f"it wraps {kinds}, not built-in recurrent layers")
        return [layer.cell for layer in layers]

    def units(self, atoms: Atoms, states: list[int]) -> list[Channels]:
        self.states = states
        self.free = np.zeros(0, bool)
        return [opaque(t.shape, atoms) for t in self.node.outputs]

    def config(self, keep: list[np.ndarray]) -> dict[str, Any]:
        config = self.layer.get_config()
        for direction in ("layer", "backward_layer"):
            inner = config[direction] = _unbuilt(config[direction])
            if "cell" in inner["config"]:
                cell = _unbuilt(inner["config"]["cell"])
                inner["config"] = inner["config"] | {"cell": cell}
        return config


def _unbuilt(config: dict[str, Any]) -> dict[str, Any]:
    """A serialized layer that forgets which input shape it was built for."""
    return {key: value for key, value in config.items() if key != "build_config"}
