"""Gated dense layers by an equation."""

from __future__ import annotations

import re
from typing import Any

import keras

from keras_l0.layers.granular import Granular


@keras.saving.register_keras_serializable(package="keras_l0")
class L0EinsumDense(Granular, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` with one gate per unit, behind its activation.

    Units are the one axis of the output that the kernel alone makes; if it makes
    several, such as heads and the dimensions of each, they are the last axis of the
    output. A unit switches its part of the kernel, and of the bias if that has an
    entry per unit. An equation without such an axis is refused.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0EinsumDense(
        ...     "abc,cd->abd", output_shape=(None, 4), bias_axes="d", l0=1e-5)
        >>> tuple(layer(keras.ops.ones((2, 5, 3))).shape)
        (2, 5, 4)
        >>> layer.gate.cost  # three weights and a bias
        4.0
    """

    @property
    def channel_axis(self) -> int:
        unit = unit_label(self.equation)
        if unit is None:
            raise ValueError(
                f"`equation` of {self.name!r} must have units: one axis of the output "
                "that the kernel alone makes, or several of which one is the last. "
                f"Received: equation={self.equation!r}"
            )
        return _axis(_sides(self.equation)[2], unit)

    @property
    def input_axis(self) -> int:
        return _axis(_sides(self.equation)[0], self._input_label)

    @property
    def kernel_rank(self) -> int:
        return len(_sides(self.equation)[1])

    @property
    def unit_axis(self) -> int:
        unit = unit_label(self.equation)
        if unit is None:
            raise ValueError(
                f"`equation` of {self.name!r} must have units for blocks of weights. "
                f"Received: equation={self.equation!r}"
            )
        return _sides(self.equation)[1].index(unit)

    @property
    def kernel_axes(self) -> tuple[int, int]:
        kernel = _sides(self.equation)[1]
        return self.unit_axis, kernel.index(self._input_label)

    @property
    def _input_label(self) -> str:
        source, kernel, target = _sides(self.equation)
        summed = [c for c in kernel if c in source and c not in target]
        if len(summed) != 1:
            raise ValueError(
                f"`equation` of {self.name!r} must sum over one axis of the input, "
                "which then holds the channels that gates switch. "
                f"Received: equation={self.equation!r}"
            )
        return summed[0]

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self._rank = len(self.compute_output_shape(input_shape))

    def switched_weights(self) -> list[Any]:
        unit = unit_label(self.equation)
        per_unit = unit is not None and unit in (self.bias_axes or "")
        weights = super().switched_weights()
        return weights if per_unit else [w for w in weights if w is not self.bias]

    def unit_axis_of(self, weight: Any) -> int:
        if weight is self.bias:
            # It lies on the last axes of the output.
            return self.gate.gated_axes(self._rank)[0] - self._rank
        return super().unit_axis_of(weight)


def unit_label(equation: str) -> str | None:
    """The label of the axis that holds the units of ``source,kernel->target``."""
    source, kernel, target = _sides(equation)
    made = [label for label in kernel if label in target and label not in source]
    if len(made) > 1 and target[-1] in made:
        return target[-1]
    return made[0] if len(made) == 1 else None


def _axis(labels: str, label: str) -> int:
    """Where a label is: what an ellipsis stands for is known on its other side only."""
    places = labels.replace("...", ".")
    axis = places.index(label)
    return axis - len(places) if places[0] == "." else axis


def _sides(equation: str) -> list[str]:
    """The labels of input, kernel and output."""
    return re.split(",|->", equation)
