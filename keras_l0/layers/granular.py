"""Gates on inputs, on single weights or on blocks of them, in place of units."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l0.arguments import is_integer
from keras_l0.layers.gate import L0Gate
from keras_l0.layers.gated import Gated, replaced

_GRANULARITY = """\
What one gate switches. ``"units"``: a unit, behind the activation.
        ``"inputs"``: an input channel, in front of this layer alone, as in the paper;
        `keras_l0.strip` removes the channel where nobody else reads it.
        ``"weights"``: a single weight of the kernel. ``(units, inputs)``: a block of
        so many units by inputs of the kernel, such as ``(1, 4)``; blocks at its end may
        be smaller. Closed weights become zeros in a kernel of the same shape, and
        count as parameters; what `strip` takes out are units and inputs none of whose
        weights is open."""

# f(z * x) = z * f(x) for every z >= 0.
_HOMOGENEOUS = (
    keras.activations.linear,
    keras.activations.relu,
    keras.activations.leaky_relu,
)
_MANY = 16


class Granular(Gated):
    """Mixin: a gated layer with one kernel, whose parts gates can switch instead.

    Gates on weights multiply the kernel, once per batch. So do those on units, where
    that is less to multiply than the outputs, and comes to the same.
    """

    gate_arguments = {
        "granularity": ("units", str | tuple[int, int], _GRANULARITY),
    }

    def __init__(
        self,
        *args: Any,
        granularity: str | tuple[int, int] = "units",
        **kwargs: Any,
    ) -> None:
        # The gate that is made asks for it.
        self.granularity = _validated(granularity)
        super().__init__(*args, **kwargs)
        if self.block:
            self.require_one_draw("kernel")
        if self.granularity != "units" and getattr(self, "groups", 1) != 1:
            raise ValueError(
                f"`granularity` of {self.name!r} must be 'units' where there are "
                f"groups. Received: granularity={self.granularity!r}, "
                f"groups={self.groups}"
            )

    @property
    def block(self) -> tuple[int, int] | None:
        """Units and inputs of one block of weights; None if gates switch no weights."""
        if isinstance(self.granularity, tuple):
            return self.granularity
        return (1, 1) if self.granularity == "weights" else None

    @property
    def unit_axis(self) -> int:
        """The axis of the kernel that holds the units."""
        return self.kernel_rank - 1

    @property
    def kernel_axes(self) -> tuple[int, int]:
        """The axes of the kernel that hold the units and the inputs."""
        return self.unit_axis, self.kernel_rank - 2

    @property
    def kernel_rank(self) -> int:
        """The kernel's number of axes."""
        return getattr(self, "rank", 0) + 2

    @property
    def input_axis(self) -> int:
        """The axis of the inputs that holds their channels."""
        return self.channel_axis

    @property
    def input_gate(self) -> L0Gate | None:
        """The gate, if it is in front of the layer."""
        return self.gate if self.granularity == "inputs" else None

    @property
    def gates_outputs(self) -> bool:
        return self.granularity == "units"

    @property
    def gated_axis(self) -> int | tuple[int, ...]:
        if self.block:
            return tuple(range(1, self.kernel_rank + 1))
        return self.input_axis if self.granularity == "inputs" else super().gated_axis

    def gated_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        if self.block:
            shape = list(self.kernel.shape)
            for axis, size in self._blocked():
                shape[axis] = -(-shape[axis] // size)
            return (None, *shape)
        if self.granularity == "inputs":
            return input_shape
        return super().gated_shape(input_shape)

    def build(self, input_shape: Any) -> None:
        fresh = not self.gate.built
        super().build(input_shape)
        shape = tuple(self.kernel.shape)
        if fresh and any(shape[axis] % size for axis, size in self._blocked()):
            cost = np.ones(self.gate.raw.shape)
            for axis, size in self._blocked():
                sizes = np.full(cost.shape[axis], size)
                sizes[-1] -= len(sizes) * size - shape[axis]
                cost *= sizes.reshape(
                    [-1 if a == axis else 1 for a in range(cost.ndim)]
                )
            self.charge(cost.ravel().tolist())

    def switched_weights(self) -> list[Any]:
        weights = super().switched_weights()
        if self.granularity == "units":
            return weights
        return [w for w in weights if w is not self.bias]

    def unit_axis_of(self, weight: Any) -> int:
        """The axis of one of `switched_weights` that holds the units."""
        return -1 if weight is self.bias else self.unit_axis

    def by_unit(self, weight: Any) -> Any:
        if self.granularity == "inputs":
            weight = ops.moveaxis(weight, self.kernel_axes[1], -1)
        if self.granularity == "units":
            weight = ops.moveaxis(weight, self.unit_axis_of(weight), -1)
        # What is in one block comes first, axis by axis.
        for done, (axis, size) in enumerate(self._blocked()):
            axis += done
            pads = [(0, 0)] * len(weight.shape)
            pads[axis] = (0, -weight.shape[axis] % size)
            weight = ops.pad(weight, pads)
            shape = tuple(weight.shape)
            shape = (*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :])
            weight = ops.moveaxis(ops.reshape(weight, shape), axis + 1, 0)
        return super().by_unit(weight)

    def _blocked(self) -> list[tuple[int, int]]:
        """The axes of the kernel on which blocks hold several, and how many."""
        block = self.block
        if block is None or block == (1, 1):
            return []
        pairs = zip(self.kernel_axes, block, strict=True)
        return [(axis, size) for axis, size in pairs if size > 1]

    def spread(self, gates: Any) -> Any:
        """One number per gate as one for each weight of the kernel."""
        shape = self.kernel.shape
        for axis, size in self._blocked():
            gates = ops.repeat(gates, size, axis=axis)
            if gates.shape[axis] != shape[axis]:
                gates = ops.take(gates, np.arange(shape[axis]), axis=axis)
        return gates

    def gate_numbers(self) -> np.ndarray:
        """For each weight of the kernel the number of the gate that switches it."""
        numbers = np.arange(self.gate.count, dtype="int32")
        return ops.convert_to_numpy(self.spread(numbers.reshape(self.gate.raw.shape)))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        plain = super(Gated, self).call
        if self.granularity == "inputs":
            return self.rematerialized(plain, self.gate.call(inputs, training))
        if not self.block and not self._folds(inputs):
            return super().call(inputs, training=training)
        given = [self.kernel] if self.bias is None else [self.kernel, self.bias]
        # Tensors, as what is computed once more for the gradient takes no variables.
        weights = [ops.cast(weight, self.compute_dtype) for weight in given]
        if self.block:
            drawn = self.gate.values((None, *self.gate.raw.shape), training)
            weights[0] = weights[0] * self.spread(drawn)
        else:
            outputs = self.compute_output_shape(inputs.shape)
            drawn = ops.reshape(self.gate.values(outputs, training), (-1,))
            shape = [1] * self.kernel_rank
            shape[self.unit_axis] = -1
            weights[0] = weights[0] * ops.reshape(drawn, shape)
            weights[1:] = [bias * drawn for bias in weights[1:]]
        return self.rematerialized(self._with_weights, inputs, *weights)

    def _with_weights(self, inputs: Any, kernel: Any, bias: Any = None) -> Any:
        """What the plain layer computes with other weights."""
        name = "_kernel" if "_kernel" in self.__dict__ else "kernel"
        with replaced(self, name, kernel), replaced(self, "bias", bias):
            return super(Gated, self).call(inputs)

    def _folds(self, inputs: Any) -> bool:
        """Whether gates on units multiply the weights: the same, and less to multiply.

        The activation has to let a factor >= 0 through, each unit to have a bias of its
        own, and one draw to serve the whole batch.
        """
        if (
            self.gate.options.noise != "batch"
            or self.activation not in _HOMOGENEOUS
            or getattr(self, "lora_enabled", False)
            or (self.bias is not None and self.bias.shape != (self.gate.count,))
        ):
            return False
        # Of unknown sizes, as of batches, at least so many are taken for granted.
        sizes = self.compute_output_shape(inputs.shape)[1:]
        outputs = math.prod([_MANY, *(size or _MANY for size in sizes)])
        return math.prod(self.kernel.shape) < outputs

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        if self.block:
            raise ValueError(
                f"`granularity` of {self.name!r} must be 'units' or 'inputs' for LoRA, "
                "which would add to closed weights. "
                f"Received: granularity={self.granularity!r}"
            )
        super().enable_lora(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "granularity": self.granularity}


def _validated(granularity: Any) -> str | tuple[int, int]:
    if isinstance(granularity, str) and granularity in ("units", "inputs", "weights"):
        return granularity
    if isinstance(granularity, (list, tuple)) and len(granularity) == 2:
        units, inputs = granularity
        if is_integer(units) and is_integer(inputs) and min(granularity) > 0:
            return int(units), int(inputs)
    raise ValueError(
        "`granularity` must be 'units', 'inputs', 'weights', or a pair of positive "
        "integers, (units, inputs) of a block of weights. "
        f"Received: granularity={granularity!r}"
    )
