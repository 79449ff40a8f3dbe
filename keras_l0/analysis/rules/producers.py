"""Rules of the layers that make channels out of channels: Dense and Conv2D."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.analysis.activations import describe
from keras_l0.analysis.facts import Atoms, Channels, Demand, Flow, Site, Size, pinned
from keras_l0.analysis.logic import and_, any_, count, first, like, not_, or_
from keras_l0.analysis.rules.base import Rule, register_strip_rule
from keras_l0.layers import L0Conv2D, L0Dense


class Producer(Rule):
    """A layer with a kernel ``(..., in, out)``, a bias, an activation and maybe a gate.

    A producer is never a barrier as a whole, since its gate has to go: where the
    channels of one side cannot be told apart, all channels of that side stay.
    """

    kernel_name = "kernel"
    units_name = "units"

    def connect(self, atoms: Atoms) -> list[Channels]:
        layer = self.layer
        self.activation = describe(layer.activation)
        self.units = getattr(layer, self.units_name)
        reason = self.whole_reason()
        if self.ins[0].axis != self.axis(self.node.inputs[0]):
            self.reads_all = True
            reason = reason or "its input's channels lie on another axis"
        else:
            self.reads_all = reason is not None
        if not self.activation.elementwise:
            name = getattr(layer.activation, "__name__", layer.activation)
            reason = reason or f"its activation {name} mixes the units"
        self.makes_all = self.whole_reason() or not self.activation.elementwise
        self.reason = reason
        axis = self.axis(self.node.outputs[0])
        return [Channels.rest_at_zero(axis, atoms.new(self.units))]

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

    def forward(self, ins: list[Flow], gate: Any) -> list[Flow]:
        x = ins[0]
        if self.reads_all:
            live = like(x.alive, 1.0, 1)
        elif self.uniform:
            live = any_(x.alive)
        else:
            live = any_(or_(x.alive, self.nonzero(0, x)))
        still = not_(live)
        if not self.layer.use_bias and self.activation.at_zero == 0:
            still = and_(still, any_(self.nonzero(0, x)))
        ones = like(x.alive, 1.0, self.units)
        if gate is not None:
            ones = ones * gate
        return [Flow(ones * live, ones * still)]

    def claims(self, outs: list[Demand]) -> list[Demand]:
        return [pinned(outs[0].need)] if self.makes_all else outs

    def backward(
        self, ins: list[Flow], outs: list[Flow], demands: list[Demand]
    ) -> list[Demand]:
        x = ins[0]
        if self.reads_all:
            return [pinned(x.alive)]
        reads = any_(and_(outs[0].alive, demands[0].need))
        need = reads * like(x.alive, 1.0, x.alive.shape[0])
        if not self.alike:
            # One bias serves all calls: nothing can be folded into it for one of them.
            pin = self.nonzero(0, x)
        elif self.shares_weights and self.uniform:
            pin = x.const
        elif self.uniform:
            pin = like(x.alive, 0.0, x.alive.shape[0])
        else:
            # Constants that meet a border cannot go into the bias, but all those at
            # rest can be read from one of them, the carrier.
            pin = or_(x.const, first(self.rests(0, x)))
        return [Demand(need, pin * reads)]

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

    def size(self, ins: list[Flow], keep_in: list[Any], keep: list[Any]) -> Size:
        kernel = getattr(self.layer, self.kernel_name)
        n_in, n_out = count(keep_in[0]), count(keep[0])
        if self.reads_all:
            n_in = like(keep[0], float(kernel.shape[-2]), 1)[0]
        taps = int(np.prod(kernel.shape[:-2]))
        has_bias = 1.0 if self.layer.use_bias else self.adds_bias(ins[0], keep_in[0])[0]
        weights = taps * n_in * n_out
        return Size(weights + n_out * has_bias, weights * self.positions)

    def constants(self, site: Site) -> list[np.ndarray]:
        scale = self._scale(site)
        if self.reads_all or site.flows_in[0].alive.any():
            value = np.full(self.units, np.nan)
        else:
            kernel, bias = self._weights()
            value = self.activation(bias + site.ins[0].value @ _taps(kernel))
        return [np.where(scale == 0, 0.0, value * scale)]

    def rewrite(self, site: Site) -> list[tuple[Any, np.ndarray]]:
        layer, keep = self.layer, site.keep[0]
        kernel, bias = self._weights()
        add_bias = layer.use_bias
        if self.reads_all:
            x = site.rescale(0)
        else:
            x = site.rescale(0) if self.shares_weights else site.ins[0]
            flow = site.flows_in[0]
            add_bias |= bool(self.adds_bias(flow, x.keep.astype("float64"))[0])
            folded = ~x.keep & (self.nonzero(0, flow) > 0)
            if self.uniform:
                bias = bias + x.value[folded] @ _taps(kernel)[folded]
            elif folded.any():
                carriers = x.keep & (self.rests(0, flow) > 0) & (x.scale != 0)
                carrier = np.flatnonzero(carriers)[0]
                shares = x.value[folded] / x.value[carrier]
                kernel[..., carrier, :] += shares @ kernel[..., folded, :]
            kernel = (kernel * x.scale[:, None])[..., x.keep, :]

        scale = self._scale(site)
        if self.activation.homogeneous:
            kernel, bias, scale = kernel * scale, bias * scale, np.ones(self.units)
        elif self.activation.at_zero == 0:
            kernel, bias = kernel * (scale != 0), bias * (scale != 0)
            scale = np.where(scale == 0, 1.0, scale)

        gated = hasattr(layer, "plain_config")
        config = layer.plain_config() if gated else layer.get_config()
        config |= {self.units_name: int(keep.sum()), "use_bias": add_bias}
        weights = [kernel[..., keep]] + ([bias[keep]] if add_bias else [])
        new = site.build(layer.plain_class if gated else type(layer), config, weights)
        return [(self.node.call(new, [x.tensor]), scale)]

    def _weights(self) -> tuple[np.ndarray, np.ndarray]:
        kernel = _float64(getattr(self.layer, self.kernel_name))
        use_bias = self.layer.use_bias
        return kernel, _float64(self.layer.bias) if use_bias else np.zeros(self.units)

    @staticmethod
    def _scale(site: Site) -> np.ndarray:
        """The unit's own gate, times what gates further on ask for."""
        return site.factor * (1.0 if site.gate is None else site.gate)


@register_strip_rule(keras.layers.Dense, L0Dense)
class DenseRule(Producer):
    """``activation(x @ kernel + bias)`` on the last axis."""


@register_strip_rule(keras.layers.Conv2D, L0Conv2D)
class ConvRule(Producer):
    """A convolution; constants reach its borders unless no padding is read."""

    units_name = "filters"

    def axis(self, tensor: Any) -> int:
        first = self.layer.data_format == "channels_first"
        return 1 if first else len(tensor.shape) - 1

    def whole_reason(self) -> str | None:
        if self.layer.groups > 1:
            return "it is a grouped convolution"
        return None

    @property
    def uniform(self) -> bool:
        return self.layer.padding == "valid" or set(self.layer.kernel_size) == {1}


def _taps(kernel: np.ndarray) -> np.ndarray:
    """The kernel summed over its positions: what a constant input channel meets."""
    return kernel.sum(axis=tuple(range(kernel.ndim - 2)))


def _float64(weight: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(weight), dtype="float64")
