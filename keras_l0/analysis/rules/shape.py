"""Rules of layers that only move elements: Flatten, Reshape, Permute; and selection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Site
from keras_l0.analysis.logic import group_any, take
from keras_l0.analysis.rules.base import Barrier, Rule, is_channels_first
from keras_l0.analysis.rules.registry import register_strip_rule


class MovingRule(Rule):
    """Each output channel is one of the input channels, whole.

    Attributes:
        source: For each output channel the input channel it is.
    """

    passes_scale = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        x = self.only_input()
        if x.axis is None:
            raise Barrier("the channels of its input are unknown")
        axis, source = self.place(x.axis, np.arange(x.size))
        self.source = source
        return [Channels(axis, x.atoms[source], x.rest[source])]

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        """The outputs' channel axis, and which channels lie there.

        Args:
            axis: The axis of the input that holds its channels.
            channels: Their numbers.
        """
        return axis, channels

    @property
    def moves(self) -> bool:
        """Whether other channels lie on the output than on the input."""
        return not np.array_equal(self.source, np.arange(self.ins[0].size))

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        if not self.moves:
            return [ins[0]]
        return [Flow(*(take(fact, self.source) for fact in ins[0]))]

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        if not self.moves:
            return [demands[0]]
        size = self.ins[0].size
        return [Demand(*(group_any(d, self.source, size) for d in demands[0]))]

    def constants(self, site: Site) -> list[np.ndarray]:
        return [site.ins[0].value[self.source]]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x = site.ins[0]
        return [(self.moved(site, x.tensor), x.scale[self.source])]

    def moved(self, site: Site, tensor: Any) -> Any:
        """The call on the kept channels."""
        new = site.build(type(self.layer), self.layer.get_config(), [])
        return self.node.call(new, [tensor])

    def selected(self, site: Site, tensor: Any) -> Any:
        """The kept channels by their places among the input's kept ones."""
        place = np.cumsum(site.ins[0].keep) - 1
        indices = place[self.source[site.keep[0]]].astype("int32")
        return keras.ops.take(tensor, indices, axis=self.outs[0].axis)


@register_strip_rule(keras.layers.Flatten, keras.layers.Reshape)
class ReshapeRule(MovingRule):
    """A new shape with an axis on which each place holds one input channel.

    Flatten's is position-major and channel-minor in both data formats.
    """

    selectable = True

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        old, new = self.node.inputs[0].shape, self.node.outputs[0].shape
        if is_channels_first(self.layer) and len(old) > 2:
            # Flatten moves axis 1 to the end beforehand.
            axis = len(old) - 1 if axis == 1 else axis - 1
            old = (old[0], *old[2:], old[1])
        self.axis, run, self.copies = _unfolded(old, axis, new)
        places = np.arange(len(channels) * run * self.copies)
        return self.axis, channels[places // run % len(channels)]

    def moved(self, site: Site, tensor: Any) -> Any:
        config = self.layer.get_config()
        shape = [-1 if n is None else n for n in self.node.outputs[0].shape]
        shape[self.axis] = int(site.keep[0].sum())
        if "target_shape" in config:
            config["target_shape"] = shape[1:]
        elif "newshape" in config:
            config["newshape"] = tuple(shape)
        new = site.build(type(self.layer), config, [])
        return self.node.call(new, [tensor])


def _unfolded(
    old: Sequence[int | None], axis: int, new: Sequence[int | None]
) -> tuple[int, int, int]:
    """Where a row-major reshape leaves the channels.

    Args:
        old: The old shape.
        axis: The axis of ``old`` that holds the channels.
        new: The new shape.

    Returns:
        The axis of ``new`` that holds them, how many of its places in a row belong to
        the same channel, and how often all channels come one after another.
    """
    behind = _size(old[axis + 1 :])
    for target in reversed(range(1, len(new))):
        n, after = new[target], _size(new[target + 1 :])
        if behind is None or n is None or after is None or behind % after:
            continue
        run, size = behind // after, old[axis]
        assert size is not None
        if n % (run * size) == 0:
            return target, run, n // (run * size)
    raise Barrier("no axis of the new shape holds one channel at each place")


def _size(shape: Sequence[int | None]) -> int | None:
    known = [n for n in shape if n is not None]
    return math.prod(known) if len(known) == len(shape) else None


@register_strip_rule(keras.layers.Permute)
class PermuteRule(MovingRule):
    """Another order of axes: the channels lie on another one."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        return 1 + list(self.layer.dims).index(axis), channels


@register_strip_rule(keras.layers.RepeatVector)
class RepeatVectorRule(MovingRule):
    """A vector at every position."""

    def place(self, axis: int, channels: np.ndarray) -> tuple[int, np.ndarray]:
        return 2, channels


class SelectRule(Rule):
    """Picks channels out of a tensor whose other channels cannot be removed.

    It stands for no call of the source model. The analysis puts one where channels may
    be gathered: behind each input, and behind each reshape.
    """

    passes_scale = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        (channels,) = self.ins
        return [Channels(channels.axis, atoms.new(channels.size), channels.rest)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x, keep = site.ins[0], site.keep[0]
        tensor = x.tensor
        if not keep[x.keep].all():
            indices = np.flatnonzero(keep[x.keep]).astype("int32")
            tensor = keras.ops.take(tensor, indices, axis=self.outs[0].axis)
        return [(tensor, x.scale)]
