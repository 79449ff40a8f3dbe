"""What the analysis knows of a tensor: its channels, facts about them, its fate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_l0.analysis.logic import and_, array_like, like, not_, ones_like, or_


@dataclasses.dataclass(frozen=True)
class Channels:
    """The channels of a tensor.

    Attributes:
        axis: The axis they lie on (positive), or None for a tensor without any: it is
            then kept or dropped as one.
        atoms: For each channel the decision that keeps it, as an integer. Channels with
            the same atom go together.
        rest: For each channel its value when it is at rest (see `Flow`).
        width: How many features one channel stands for, such as those of a head; 0 for
            a single weight, which is none.
    """

    axis: int | None
    atoms: np.ndarray
    rest: np.ndarray
    width: int = 1

    @classmethod
    def rest_at_zero(cls, axis: int | None, atoms: np.ndarray) -> Channels:
        """Channels that are 0 when at rest."""
        return cls(axis, atoms, np.zeros(len(atoms)))

    @property
    def size(self) -> int:
        return len(self.atoms)


class Atoms:
    """Issues decisions (integers) and ties them together."""

    def __init__(self) -> None:
        self.count = 0
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []

    def new(self, size: int) -> np.ndarray:
        self.count += size
        return np.arange(self.count - size, self.count)

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        self._ties.append((a, b))

    def resolve(self) -> np.ndarray:
        """For each atom the smallest atom it is tied to, directly or not."""
        labels = np.arange(self.count)
        if not self._ties:
            return labels
        a, b = (np.concatenate(side) for side in zip(*self._ties, strict=True))
        while True:
            low = np.minimum(labels[a], labels[b])
            before = labels.copy()
            np.minimum.at(labels, a, low)
            np.minimum.at(labels, b, low)
            labels = labels[labels]
            if np.array_equal(before, labels):
                return labels


class Flow(NamedTuple):
    """Forward facts, one number in [0, 1] per channel of a tensor.

    ``alive``: it varies with the input. ``const``: it is the same for every input and
    position, but which value it has depends on the gates. Neither: it is at rest, which
    is what a closed gate makes of it: 0 behind the gate, and further on the value
    (`Channels.rest`) that activations and normalizations turn that into.
    """

    alive: Any
    const: Any

    def disturbed(self, odd: np.ndarray, consts: bool = False) -> Flow:
        """The facts behind something that makes channels vary which did not.

        Args:
            odd: Which channels vary behind it even if they are at rest, bool.
            consts: Whether those that are constant do.
        """
        alive, const = self
        if consts:
            alive, const = or_(alive, const), 0.0 * const
        if odd.any():
            varies = array_like(alive, odd)
            alive, const = or_(alive, varies), and_(const, not_(varies))
        return Flow(alive, const)


class Demand(NamedTuple):
    """Backward facts, one number per channel.

    ``need``: somebody reads its variation. ``pin``: it must be there even if constant.
    """

    need: Any
    pin: Any


class Size(NamedTuple):
    """Parameters as Keras counts them, and multiply-accumulates per example."""

    params: Any
    macs: Any

    def whole(self) -> Size:
        """The size as whole numbers."""
        return Size(round(float(self.params)), round(float(self.macs)))


@dataclasses.dataclass
class Signal:
    """What has become of a tensor in the stripped model.

    Attributes:
        tensor: The new symbolic tensor with the kept channels only; None if the whole
            tensor is gone.
        keep: Which of the old channels it holds, bool, shape (n,).
        value: For each old channel that does not vary its value; NaN elsewhere.
        scale: What the kept channels must still be multiplied by to be the old ones,
            shape (n,): open gates waiting to be folded into the next weights.
    """

    tensor: Any
    keep: np.ndarray
    value: np.ndarray
    scale: np.ndarray


@dataclasses.dataclass
class Site:
    """One call to rewrite: what `Rule.rewrite` gets.

    Attributes:
        ins: The rewritten inputs.
        keep: For each output, and hidden channels, those to keep, bool.
        flows_in: Facts of the inputs, zeros and ones.
        flows: Facts of the outputs and hidden channels.
        gate: The values of the call's own gates at test time, or None.
        factor: What the outputs are to be multiplied by on behalf of a gate further
            on, shape (n,).
        build: ``build(type, config, weights)`` gives a new layer under the old one's
            name (a raw operation instead of a type is taken as it is); ``weights``
            (list of arrays, as in `get_weights`) are set once it is built.
        rescale: ``rescale(i)`` is input ``i`` with its waiting scale applied.
        gates_kept: Where gates stay in the model (`Rule.narrowed`):
            ``gates_kept(gate)`` are the numbers of those in an `L0Gate` that are kept.
    """

    ins: list[Signal]
    keep: list[np.ndarray]
    flows_in: list[Flow]
    flows: list[Flow]
    gate: np.ndarray | None
    factor: np.ndarray
    build: Callable[..., Any]
    rescale: Callable[[int], Signal]
    gates_kept: Callable[[Any], np.ndarray] | None = None

    @property
    def scale(self) -> np.ndarray:
        """The call's own gates, times what gates further on ask for."""
        return self.factor * (1.0 if self.gate is None else self.gate)

    def constant(self, values: Any) -> np.ndarray:
        """Values for the channels of the first output that do not vary; else NaN."""
        return np.where(self.flows[0].alive > 0, np.nan, values)


def multiplied(values: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Values times factors, where a factor of 0 makes 0 of an unknown value too."""
    return np.where(factor == 0, 0.0, values * factor)


def varying(reference: Any, size: int) -> Flow:
    """The facts of channels that all vary, in the reference's namespace."""
    return Flow(like(reference, 1.0, size), like(reference, 0.0, size))


def pinned(reference: Any) -> Demand:
    """The demand for every channel, in the reference's length and namespace."""
    ones = ones_like(reference)
    return Demand(ones, ones)


def opaque(shape: tuple[int | None, ...], atoms: Atoms) -> Channels:
    """Fresh channels on the last axis of a tensor of this shape."""
    if len(shape) > 1 and shape[-1]:
        return Channels.rest_at_zero(len(shape) - 1, atoms.new(shape[-1]))
    return Channels.rest_at_zero(None, atoms.new(1))
