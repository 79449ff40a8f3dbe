"""Rules of raw operations that only move elements, or repeat or drop some."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Site
from keras_l0.analysis.graph import Tensor
from keras_l0.analysis.logic import and_, array_like, not_, or_
from keras_l0.analysis.rules.base import Barrier
from keras_l0.analysis.rules.shape import MovingRule


def axes_of(axis: Any, rank: int) -> tuple[int, ...]:
    """An ``axis`` argument as positive numbers; None stands for all."""
    if axis is None:
        return tuple(range(rank))
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return tuple(a % rank for a in axes)


# The operations that say by their names along which axis.
_FIXED = {
    "Flipud": 0, "Vsplit": 0, "Vstack": 0, "Fliplr": 1, "Hsplit": 1, "Hstack": 1,
    "Dsplit": 2, "Dstack": 2,
}  # fmt: skip


def axis_of(operation: Any) -> Any:
    """The axis or axes along which an operation works."""
    fixed = _FIXED.get(type(operation).__name__)
    return operation.axis if fixed is None else fixed


class OrderRule(MovingRule):
    """Transpose, moveaxis, swapaxes: another order of axes."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        rank = len(self.node.inputs[0].shape)
        config = self.layer.get_config()
        probe = np.empty(range(rank + 1)[1:])
        if "axes" in config:
            probe = np.transpose(probe, config["axes"])
        elif "axis1" in config:
            probe = np.swapaxes(probe, config["axis1"], config["axis2"])
        else:
            probe = np.moveaxis(probe, config["source"], config["destination"])
        order = [n - 1 for n in probe.shape]
        if order[0] != 0:
            raise Barrier("it moves the batch axis")
        return order.index(axis), channels


class ExpandDimsRule(MovingRule):
    """New axes of one place each."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        rank = len(self.node.outputs[0].shape)
        new = axes_of(self.layer.axis, rank)
        old = [a for a in range(rank) if a not in new]
        if old[0] != 0:
            raise Barrier("it moves the batch axis")
        return old[axis], channels


class SqueezeRule(MovingRule):
    """Axes of one place go; which ones is said, as channels may come down to one."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        shape = self.node.inputs[0].shape
        axes = axes_of(self.layer.axis, len(shape))
        self.axes = tuple(a for a in axes if shape[a] == 1)
        if axis in self.axes or 0 in self.axes:
            raise Barrier("it takes away the axis of the batch or of the channels")
        return axis - sum(a < axis for a in self.axes), channels

    def moved(self, site: Site, tensor: Any) -> Any:
        config = {**self.layer.get_config(), "axis": self.axes}
        return site.build(type(self.layer), config, [])(tensor)


class GetItemRule(MovingRule):
    """``x[:, -1, :]``: positions are picked, or a range of channels."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        tensor, key = self.node.filled()[0]
        rank = len(tensor.shape)
        self.key = _spelled(key, rank)
        if self.key[0] != slice(None):
            raise Barrier("it picks examples out of the batch")
        read = [i for i, part in enumerate(self.key) if part is not None]
        self.spot = read[axis]
        self.part = self.key[self.spot]
        if not isinstance(self.part, slice):
            raise Barrier("it picks one channel")
        gone = sum(isinstance(part, int) for part in self.key[: self.spot])
        return self.spot - gone, channels[self.part]

    def moved(self, site: Site, tensor: Any) -> Any:
        key = list(self.key)
        new = site.build(type(self.layer), self.layer.get_config(), [])
        if not self.moves:
            return new(tensor, tuple(key))
        kept = site.ins[0].keep
        start, stop, step = self.part.indices(len(kept))
        if step == 1:
            key[self.spot] = slice(int(kept[:start].sum()), int(kept[:stop].sum()))
            return new(tensor, tuple(key))
        key[self.spot] = slice(None)
        return self.selected(site, new(tensor, tuple(key)))


def _spelled(key: Any, rank: int) -> list[Any]:
    """An index with one entry per axis, and None for each new one."""
    parts = list(key) if isinstance(key, (tuple, list)) else [key]
    if any(isinstance(p, Tensor) for p in keras.tree.flatten(parts)):
        raise Barrier("it is indexed by a tensor")
    if not all(p is None or p is ... or isinstance(p, (int, slice)) for p in parts):
        raise Barrier("it is indexed by an array")
    if ... not in parts:
        parts.append(...)
    spot = parts.index(...)
    missing = rank - sum(p is not None and p is not ... for p in parts)
    return parts[:spot] + [slice(None)] * missing + parts[spot + 1 :]


class TakeRule(MovingRule):
    """Places along an axis by their indices."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        args, kwargs = self.node.filled()
        tensor, indices = (*args, *kwargs.values())[:2]
        if not isinstance(tensor, Tensor) or isinstance(indices, Tensor):
            raise Barrier("it takes elements that a tensor decides on")
        if self.layer.axis is None:
            raise Barrier("it takes elements of all axes as one")
        spot = self.layer.axis % len(tensor.shape)
        self.indices = np.asarray(keras.ops.convert_to_numpy(indices))
        if spot == 0:
            raise Barrier("it picks examples out of the batch")
        if spot != axis:
            return axis + (spot < axis) * (self.indices.ndim - 1), channels
        if self.indices.ndim != 1:
            raise Barrier("it spreads channels over several axes")
        return axis, channels[self.indices]

    def moved(self, site: Site, tensor: Any) -> Any:
        if self.moves:
            return self.selected(site, tensor)
        return super().moved(site, tensor)


class FlipRule(MovingRule):
    """The opposite order along some axes."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        axes = axes_of(axis_of(self.layer), len(self.node.inputs[0].shape))
        if 0 in axes:
            raise Barrier("it reorders the batch")
        return axis, channels[::-1] if axis in axes else channels


class RollRule(MovingRule):
    """A cyclic shift along some axes."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        axes = axes_of(self.layer.axis, len(self.node.inputs[0].shape))
        if 0 in axes or axis in axes:
            raise Barrier("it shifts channels or examples")
        return axis, channels


class RepeatRule(MovingRule):
    """Each place along an axis several times in a row."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        layer = self.layer
        if layer.axis is None or not isinstance(layer.repeats, int):
            raise Barrier("it repeats elements of all axes, or some more than others")
        spot = layer.axis % len(self.node.inputs[0].shape)
        if spot == 0:
            raise Barrier("it repeats examples")
        return axis, np.repeat(channels, layer.repeats) if spot == axis else channels


class TileRule(MovingRule):
    """Everything along some axes several times over."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        rank = len(self.node.inputs[0].shape)
        repeats = self.layer.repeats
        repeats = [repeats] if isinstance(repeats, int) else list(repeats)
        repeats = [1] * (rank - len(repeats)) + repeats
        if len(repeats) > rank or repeats[0] != 1:
            raise Barrier("it repeats examples, or makes a new batch axis")
        return axis, np.tile(channels, repeats[axis])


class BroadcastRule(MovingRule):
    """Places of an axis of one place, over and over."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        old, new = self.node.inputs[0].shape, self.node.outputs[0].shape
        if len(new) > len(old) or new[0] != old[0]:
            raise Barrier("it repeats examples, or makes a new batch axis")
        size = new[axis]
        assert size is not None
        return axis, np.repeat(channels, size // len(channels))

    def moved(self, site: Site, tensor: Any) -> Any:
        shape = list(self.layer.shape)
        axis = self.outs[0].axis
        assert axis is not None
        shape[axis] = int(site.keep[0].sum())
        new = site.build(type(self.layer), {"shape": tuple(shape)}, [])
        return self.node.call(new, [tensor])


class PadRule(MovingRule):
    """A border around positions: of a number, or of what lies near."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        (x,) = super().connect(atoms)
        number = self.node.option("constant_values") or 0
        constant = self.layer.mode == "constant"
        if constant and not isinstance(number, (int, float)):
            raise Barrier("its border is a tensor")
        self.bordered = constant
        self.passes_scale = not constant or number == 0
        # At rest at another value than the border's, a channel is no constant.
        self.odd = constant & (x.rest != number)
        return [Channels(x.axis, x.atoms, np.where(self.odd, 0.0, x.rest))]

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        width = np.broadcast_to(
            np.asarray(self.layer.pad_width), (len(self.node.inputs[0].shape), 2)
        )
        if width[0].any() or width[axis].any():
            raise Barrier("it pads the axis of the batch or of the channels")
        return axis, channels

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        return [ins[0].disturbed(self.odd, consts=self.bordered)]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        (d, *rest) = super().backward(ins, outs, demands)
        if not self.bordered:
            return [d, *rest]
        # What the border differs from has to be there, be it closed.
        alive, const = ins[0]
        odd = array_like(alive, self.odd)
        held = or_(const, and_(odd, not_(alive)))
        return [Demand(d.need, or_(d.pin, and_(held, d.need))), *rest]

    def constants(self, site: Site) -> list[np.ndarray]:
        return [site.constant(site.ins[0].value)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x = site.ins[0] if self.passes_scale else site.rescale(0)
        return [(self.moved(site, x.tensor), x.scale)]
