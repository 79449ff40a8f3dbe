"""What all layers that make channels out of channels have in common."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from keras_l0.analysis.activations import describe
from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import (
    Atoms,
    Channels,
    Demand,
    Flow,
    Signal,
    Site,
    Size,
    multiplied,
    pinned,
)
from keras_l0.analysis.logic import (
    and_,
    any_,
    count,
    first,
    like,
    not_,
    ones_like,
    or_,
    take,
)
from keras_l0.analysis.rules.base import Rule
from keras_l0.analysis.rules.links import kernel_of, linked, weight_gates
from keras_l0.analysis.shapes import LayerShape, Work


class Producer(Rule):
    """A layer with a kernel, a bias, an activation and maybe a gate.

    Each unit reads all input channels. The rule of a layer whose kernel is not
    ``(..., in, out)`` overrides `unpacked` and `pack`; of one with several kernels,
    `taps`, `cut` and `weights`. Gates on single weights are hidden channels.

    A producer is never a barrier as a whole, since its gate has to go: where the
    channels of one side cannot be told apart, all channels of that side stay.
    """

    kernel_name = "kernel"
    units_name = "units"
    timing: tuple[str, ...] = ()
    # Whether one input channel can take over the part of another that is constant.
    carries = True

    def connect(self, atoms: Atoms) -> list[Channels]:
        layer = self.layer
        self.activation = describe(layer.activation)
        self.units = getattr(layer, self.units_name)
        whole, of_input, of_units = self.whole_reason(), None, None
        if self.ins[0].axis != self.axis(self.node.inputs[0]):
            of_input = "its input's channels lie on another axis"
        if not self.activation.elementwise:
            of_units = f"its activation {self.activation.name} mixes the units"
        self.reads_all = bool(whole or of_input)
        self.makes_all = bool(whole or of_units)
        self.reason = whole or of_input or of_units
        axis = self.axis(self.node.outputs[0])
        units = Channels.rest_at_zero(axis, atoms.new(self.units))
        weights = weight_gates(layer, atoms)
        self.gates_weights = bool(weights)
        if weights:
            self.numbers = self.unpacked(layer.gate_numbers())
        if weights and self.linked:
            # Without an open weight a unit is what it makes of its bias.
            rest = self.activation(self.bias()) * np.ones(self.units)
            units = dataclasses.replace(units, rest=rest)
        return [units, *weights]

    @property
    def linked(self) -> bool:
        """Whether gates on weights tell which unit reads which input channel."""
        return not (self.makes_all or self.reads_all)

    def axis(self, tensor: Any) -> int:
        """The axis on which the layer expects and makes channels."""
        return len(tensor.shape) - 1

    def whole_reason(self) -> str | None:
        """Why neither side may be cut, if so."""
        return None

    @property
    def uniform(self) -> bool:
        """Whether a constant input channel is the same at every output position."""
        return True

    @property
    def absorbs_factor(self) -> bool:
        return self.activation.homogeneous and not self.shares_weights

    @property
    def applications(self) -> int:
        """How often the kernel is applied to one example."""
        return self.positions

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        x = ins[0]
        weights = self.outs[1:]

        def any_read(channels: Any) -> Any:
            """For each unit, or all of them, whether it reads any of the channels."""
            if weights and self.linked:
                return linked(self.numbers, channels, gate, to=2)
            return any_(channels)

        if self.reads_all:
            live = like(x.alive, 1.0, 1)
        elif self.uniform:
            live = any_read(x.alive)
        else:
            live = any_read(or_(x.alive, self.nonzero(0, x)))
        still = not_(live)
        bare = not self.layer.use_bias and self.activation.at_zero == 0
        if bare or (weights and self.linked):
            still = and_(still, any_read(self.nonzero(0, x)))
        ones = like(x.alive, 1.0, self.units)
        if weights:
            return [Flow(and_(ones, live), and_(ones, still)), Flow(gate, 0.0 * gate)]
        if gate is not None:
            ones = and_(ones, gate)
        return [Flow(and_(ones, live), and_(ones, still))]

    def claims(self, flows: list[Flow], outs: list[Demand]) -> list[Demand]:
        return [pinned(outs[0].need), *outs[1:]] if self.makes_all else outs

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        x = ins[0]
        if self.reads_all:
            return [pinned(x.alive)]
        reading = and_(outs[0].alive, demands[0].need)
        reads = any_(reading)
        need = reads * ones_like(x.alive)
        if outs[1:]:
            need = linked(self.numbers, reading, outs[1].alive, to=1)
        if self.uniform and self.alike:
            # What other calls use as well must suit all of them.
            pin = x.const if self.shares_weights else 0.0 * x.const
        elif self.carries and not self.shares_weights:
            pin = or_(x.const, self._carrier(x))
        else:
            pin = self.nonzero(0, x)
        return [Demand(need, and_(pin, reads))]

    def _carrier(self, x: Flow) -> Any:
        """The one channel that all channels at rest are read from.

        Constants that meet a border cannot go into the bias, but the kernel of one of
        them can take over those of the others. The largest is used, if it is at rest:
        where it is off by rounding, the others are then off by no more.
        """
        order = np.argsort(-np.abs(self.ins[0].rest), kind="stable")
        return take(first(take(self.rests(0, x), order)), np.argsort(order))

    @property
    def alike(self) -> bool:
        """Whether the inputs of all calls of the layer rest at the same values."""
        rest = self.ins[0].rest
        return all(np.array_equal(rest, call.ins[0].rest) for call in self.calls)

    def adds_bias(self, x: Flow, keep: Any) -> Any:
        """Whether constants that are dropped call for a bias (shape (1,))."""
        if self.layer.use_bias or self.reads_all or not self.uniform:
            return like(x.alive, 0.0, 1)
        return any_(and_(self.nonzero(0, x), not_(keep)))

    def widths(self, keep_in: list[Any], keep: list[Any]) -> tuple[Any, Any]:
        """How many channels it reads and makes."""
        n_in = count(keep_in[0])
        if self.reads_all:
            x = self.node.inputs[0]
            channels = x.shape[self.axis(x)]
            assert channels is not None
            n_in = like(keep[0], float(channels), 1)[0]
        return n_in, count(keep[0])

    @property
    def shape(self) -> LayerShape | None:
        name = self.activation.separate
        options = {} if name is None else {"activation": name}
        return self.shape_of(options, units=self.units_name)

    def work(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Work:
        return Work(any_(keep[0])[0], *self.widths(keep_in, keep))

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        n_in, n_out = self.widths(keep_in, keep)
        weights = self.weights(n_in, n_out)
        has_bias = 1.0 if self.layer.use_bias else self.adds_bias(ins[0], keep_in[0])[0]
        return Size(weights + n_out * has_bias, weights * self.applications)

    def weights(self, n_in: Any, n_out: Any) -> Any:
        """The size of the kernel for so many input channels and units."""
        return n_in * n_out

    def constants(self, site: Site) -> list[np.ndarray]:
        value = np.full(self.units, np.nan)
        still = site.flows[0].alive == 0
        if not self.reads_all and (self.outs[1:] or not site.flows_in[0].alive.any()):
            # What varies is behind closed weights only.
            x = np.where(site.flows_in[0].alive > 0, 0.0, site.ins[0].value)
            value = np.where(
                still, self.activation(self.bias() + x @ self.taps()), value
            )
        return [multiplied(value, self.scale(site))]

    def scale(self, site: Site) -> np.ndarray:
        """What the units are multiplied by, if not their weights."""
        return site.factor if self.outs[1:] else site.scale

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        x = site.ins[0]
        if self.reads_all or self.shares_weights:
            x = site.rescale(0)
        bias, add_bias, moved = self.bias(), self.layer.use_bias, None
        if not self.reads_all:
            flow = site.flows_in[0]
            add_bias |= bool(self.adds_bias(flow, x.keep.astype("float64"))[0])
            folded = ~x.keep & (self.nonzero(0, flow) > 0)
            if folded.any() and self.uniform:
                bias = bias + x.value[folded] @ self.taps()[folded]
            elif folded.any():
                moved = self._moved(x, folded, self.rests(0, flow) > 0)
        factor, waiting = self.outgoing(site)
        kernels = self.cut(None if self.reads_all else x, moved, factor, site.keep[0])
        return self.rebuilt(site, x, kernels, add_bias and bias * factor, waiting)

    @staticmethod
    def _moved(x: Signal, folded: np.ndarray, rests: np.ndarray) -> Moved | None:
        """Who takes the part of the folded channels; no one for a mere place-holder."""
        candidates = x.keep & rests & (x.scale != 0)
        if not candidates.any():
            return None
        carrier = int(np.argmax(np.where(candidates, np.abs(x.value), -1.0)))
        return Moved(carrier, folded, x.value[folded] / x.value[carrier])

    def kernel(self) -> np.ndarray:
        """The kernel, ``(..., in, out)``, in the layer's precision."""
        return self.unpacked(kernel_of(self.layer, self.kernel_name))

    def unpacked(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel as the layer holds it as ``(..., in, out)``."""
        return kernel

    def pack(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel ``(..., in, out)`` as the layer holds it."""
        return kernel

    def bias(self) -> np.ndarray:
        """The bias in float64; zeros if the layer has none."""
        return float64(self.layer.bias) if self.layer.use_bias else np.zeros(self.units)

    def taps(self) -> np.ndarray:
        """What one input channel of ones adds to each unit, shape (in, out)."""
        kernel = self.kernel()
        return kernel.sum(axis=tuple(range(kernel.ndim - 2)), dtype="float64")

    def cut(
        self, x: Signal | None, moved: Moved | None, factor: np.ndarray, keep: Any
    ) -> list[np.ndarray]:
        """The kernels of the stripped layer.

        Args:
            x: The input, whose channels to read and scales to absorb; None for all.
            moved: Constant channels whose part another one takes over.
            factor: What to multiply the units by.
            keep: Which units to keep.
        """
        kernel = self.kernel()
        if moved is not None:
            kernel = kernel.astype("float64")
            share = moved.shares @ kernel[..., moved.channels, :]
            kernel[..., moved.carrier, :] += share
        scale = factor[keep]
        if x is not None:
            kernel = kernel[..., x.keep, :]
            scale = scale * x.scale[x.keep, None]
        # Cut first: only what is left is worth more precision.
        kernel = kernel[..., keep]
        return [self.pack(kernel if (scale == 1).all() else kernel * scale)]

    def outgoing(self, site: Site) -> tuple[np.ndarray, np.ndarray]:
        """Factors of the units: what the weights take, and what has to wait."""
        scale, ones = self.scale(site), np.ones(self.units)
        if self.activation.homogeneous:
            return scale * ones, ones
        if self.activation.at_zero == 0:
            return (scale != 0) * ones, np.where(scale == 0, 1.0, scale)
        return ones, scale * ones

    def rebuilt(
        self,
        site: Site,
        x: Signal,
        kernels: list[np.ndarray],
        bias: Any,
        waiting: np.ndarray,
        **config: Any,
    ) -> list[tuple[Any, np.ndarray]]:
        """The call of the same layer, ungated, with these weights.

        Args:
            site: Where.
            x: The input to call it on.
            kernels: Its kernels.
            bias: The bias of all units, or False for none.
            waiting: The scales that wait behind it.
            config: What else of its config changes.
        """
        keep = site.keep[0]
        kind, settings = self.plain()
        settings |= {"use_bias": bias is not False, **config}
        if self.units_name:
            settings[self.units_name] = int(keep.sum())
        weights = kernels if bias is False else [*kernels, bias[keep]]
        new = site.build(kind, settings, weights)
        return [(self.node.call(new, [x.tensor]), waiting)]


class Moved(NamedTuple):
    """Constant input channels that are dropped, and the one that takes their part.

    Attributes:
        carrier: The channel that stays.
        channels: Those that go, bool, shape (in,).
        shares: Their values as shares of the carrier's.
    """

    carrier: int
    channels: np.ndarray
    shares: np.ndarray
