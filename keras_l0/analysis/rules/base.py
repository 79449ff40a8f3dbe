"""What a rule is: all that strip knows of one layer type, in one class.

For each call in the graph the analysis makes one rule and asks it, in this order:
`connect` (which channels are tied to which), `forward` (which channels vary, which are
constant), `claims` (which of its own channels it needs as they are), `backward` (which
channels it reads), `operands` (which inputs must exist), `size` (parameters and MACs of
what is kept), `shape` and `work` (what its time depends on) and, in `keras_l0.rewrite`,
`constants` (the values of constant channels) and `rewrite` (the same call on what is
kept). From `forward` to `work` they run on NumPy zeros and ones, and on symbols, which
record what they compute; so they compute with the functions of ``analysis/logic.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
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
from keras_l0.analysis.graph import Node
from keras_l0.analysis.logic import and_, any_, array_like, count, not_, or_
from keras_l0.analysis.rules.cutting import cut_cost, cut_gate, held_together
from keras_l0.analysis.shapes import LayerShape, Work
from keras_l0.layers import find_gates


def plain_type(layer: Any) -> Any:
    """The type of a layer, or of the plain one that it gates."""
    return getattr(layer, "plain_class", type(layer))


def plain_of(layer: Any) -> tuple[Any, dict[str, Any]]:
    """`plain_type` and the config to go with it."""
    return plain_type(layer), getattr(layer, "plain_config", layer.get_config)()


def is_channels_first(layer: Any) -> bool:
    """Whether a layer with a ``data_format`` has its channels on axis 1."""
    return getattr(layer, "data_format", None) == "channels_first"


class Barrier(Exception):
    """Raised in `Rule.connect`: this call cannot be looked through, and why."""


class Rule:
    """Base of all rules, and the rule of what leaves every channel where it is.

    Attributes:
        reason: Why the call is a barrier; None if it is not.
        passes_scale: ``f(s * x) == s * f(x)`` per channel for every s > 0.
        absorbs_factor: `rewrite` can multiply its outputs by ``site.factor``.
        whole: All channels of all inputs and outputs stay.
        reads_all: Of a barrier in part: all channels of an input stay for its sake.
        makes_units: It has units of its own, also where an input is tied to them.
        selectable: Consumers may be given a selection of the outputs' channels.
        timing: The layer's attributes that its time depends on beside its sizes; None
            if it takes none to speak of, as what the converter fuses into the call
            before it.
        ignores_training: The call does the same with ``training=True``.
        draws: What it makes are gates, for other calls to multiply by.
        gates_weights: Its gates, which are hidden channels then, switch single weights,
            or blocks of them.
        shifts: It can learn to make something else of a channel that is 0.
        calls: The rules of all calls that use the same weights.
        outs: The channels of the outputs, and then hidden ones: sets of channels inside
            of the call that its gates close, such as heads. No other call reads them.
    """

    reason: str | None = None
    passes_scale: bool = False
    absorbs_factor: bool = False
    makes_units: bool = False
    whole: bool = False
    reads_all: bool = True
    selectable: bool = False
    ignores_training: bool = False
    timing: tuple[str, ...] | None = None
    draws: bool = False
    gates_weights: bool = False
    shifts: bool = False

    def __init__(self, node: Node, ins: list[Channels], atoms: Atoms) -> None:
        self.node = node
        self.ins = ins
        self.calls = [self]
        self.outs = self.connect(atoms)

    @classmethod
    def of(cls, node: Node, ins: list[Channels], atoms: Atoms) -> Rule:
        """The rule of one call of a type that this class is registered for."""
        return cls(node, ins, atoms)

    @property
    def layer(self) -> Any:
        return self.node.operation

    @property
    def gates(self) -> list[Any]:
        """The `L0Gate`s of this call, in the order of the units that they switch.

        One in front of the layer is a call of its own: see `trace`.
        """
        front = getattr(self.layer, "input_gate", None)
        return [g for g in getattr(self.layer, "gates", ()) if g is not front]

    def per_unit(self, values: Any) -> Any:
        """What each unit that the call switches has of its gates' values.

        Args:
            values: One number for each gate of `gates`, end to end.
        """
        return values

    def plain(self) -> tuple[type, dict[str, Any]]:
        """The layer's type and config, of a gated layer those of the one it extends."""
        return plain_of(self.layer)

    @property
    def positions(self) -> int:
        """Number of positions of the first output: all but batch and channels."""
        return self.node.outputs[0].positions(self.outs[0].axis)

    @property
    def shares_weights(self) -> bool:
        """Whether other calls use the same weights, so that they go alike."""
        return self.node.shared and bool(getattr(self.layer, "weights", ()))

    @property
    def coupled(self) -> list[Channels]:
        """The channels that calls which share weights keep alike, side by side."""
        return self.ins + self.outs

    def as_gated(self) -> Rule:
        """The same rule with gates where they are of most use: closed units are 0."""
        return self.at_zero()

    def at_zero(self) -> Rule:
        """The same rule where what is at rest is 0, whatever it is in truth."""
        rule = copy.copy(self)
        rule.ins = [Channels.rest_at_zero(x.axis, x.atoms) for x in self.ins]
        return rule

    def nonzero(self, i: int, flow: Flow) -> Any:
        """Which channels of input ``i`` are constant and possibly not 0."""
        return or_(flow.const, self.rests(i, flow))

    def rests(self, i: int, flow: Flow) -> Any:
        """Which channels of input ``i`` are at rest, at a value other than 0."""
        odd = array_like(flow.alive, self.ins[i].rest != 0)
        return and_(and_(not_(flow.alive), not_(flow.const)), odd)

    def connect(self, atoms: Atoms) -> list[Channels]:
        """`outs`; raises `Barrier` if it cannot tell."""
        return [self.only_input()]

    def only_input(self) -> Channels:
        """The channels of the input; a call on several tensors is a barrier."""
        if len(self.ins) > 1:
            raise Barrier("a second tensor decides what it does")
        return self.ins[0]

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        """Facts of `outs` from those of the inputs.

        Args:
            ins: Facts of the inputs.
            gate: Openness of the call's own gates, or None.
        """
        return [ins[0]]

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        """What is asked of `outs`, the call itself included.

        Args:
            flows: Facts of the outputs.
            outs: What their consumers ask.
        """
        return outs

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        """What is asked of the inputs, given what is asked of the outputs."""
        return [demands[0], *(pinned(x.alive) for x in ins[1:])]

    def operands(self, exists: Any, ins: list[Flow], kept: list[Any]) -> list[Any]:
        """Whether each input must exist, given that the outputs do (shape (1,)).

        Args:
            exists: Whether any output exists.
            ins: Facts of the inputs.
            kept: For each input the decisions on its channels.
        """
        return [exists] * len(ins)

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        """Parameters and MACs of the call on the channels that are kept."""
        return Size(0.0, 0.0)

    @property
    def shape(self) -> LayerShape | None:
        """What its time depends on beside `work`; None if it takes none to speak of."""
        if self.timing is None:
            return None
        return self.shape_of({})

    def shape_of(self, options: dict[str, Any], **others: Any) -> LayerShape | None:
        """The shape of a layer of Keras with what of `timing` it has; None of others.

        Args:
            options: More arguments of the layer, by name.
            others: What else `LayerShape.of` takes.
        """
        kind: type = plain_type(self.layer)
        if getattr(keras.layers, kind.__name__, None) is not kind:
            return None
        names = (n for n in self.timing or () if hasattr(self.layer, n))
        held = {name: getattr(self.layer, name) for name in names} | options
        if is_channels_first(self.layer):
            held["data_format"] = "channels_first"
        return LayerShape.of(kind.__name__, held, self.sizes, **others)

    @property
    def sizes(self) -> list[list[int | None]]:
        """For each input its sizes but for batch and channels."""
        return [
            [size for a, size in enumerate(tensor.shape) if a not in (0, c.axis)]
            for tensor, c in zip(self.node.inputs, self.ins, strict=True)
        ]

    def work(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Work:
        """What the call has to do on the channels that are kept."""
        return Work(any_(keep[0])[0], count(keep_in[0]))

    def constants(self, site: Site) -> list[np.ndarray]:
        """For each output the values of the channels that do not vary (`Signal`).

        Also called where no output exists: then ``site.ins`` may hold no tensors.
        """
        return [site.ins[0].value]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        """The call on the kept channels: each output's tensor and waiting scale."""
        x = site.ins[0] if self.passes_scale else site.rescale(0)
        layer = site.build(type(self.layer), self.layer.get_config(), [])
        return [(self.node.call(layer, [x.tensor, *self.masks(site)]), x.scale)]

    def narrowed(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        """`rewrite` for a model that keeps its gates, and is trained on.

        Weights may be cut and nothing else: no gate is folded into them, and channels
        that are not kept are 0. A layer that `regated` makes gated again needs no
        `narrowed` of its own.
        """
        return self.rewrite(site)

    def whole_with_gates(self) -> str | None:
        """Why all channels of the call stay as long as its gates do, if so."""
        layer = self.node.operation
        inside = find_gates(layer) if isinstance(layer, keras.Layer) else []
        own = self.gates == inside and hasattr(layer, "plain_config")
        if (inside or self.gates) and not own:
            return "its gates are not, or not only, those of its units"
        return next(filter(None, map(held_together, inside)), None)

    def regated(
        self, kind: Any, config: dict, weights: list, gates_kept: Callable[[Any], Any]
    ) -> tuple[Any, dict, list]:
        """Type, config and weights of a plain layer, gated as the source's layer is.

        Args:
            kind: Type of the layer that `rewrite` asks for.
            config: Its config.
            weights: Its weights.
            gates_kept: As in `Site`.
        """
        layer = self.layer
        if kind is not getattr(layer, "plain_class", None):
            return kind, config, weights
        (gate,) = layer.gates
        kept = gates_kept(gate)
        config = {**layer.get_config(), **config, "gate_price": cut_cost(gate, kept)}
        own, others = cut_gate(gate, kept), iter(weights)
        weights = [own[id(w)] if id(w) in own else next(others) for w in layer.weights]
        return type(layer), config, weights

    def masks(self, site: Site) -> list[Any]:
        """What Keras passes besides the channels to a layer that minds a mask."""
        return [site.rescale(i).tensor for i in range(1, len(site.ins))]
