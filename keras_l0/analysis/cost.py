"""The size of a stripped model as one differentiable function of its gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_l0.analysis.facts import Size
from keras_l0.analysis.passes import Analysis
from keras_l0.analysis.program import Program
from keras_l0.analysis.symbols import Tape


class Cost:
    """Parameters and MACs as a function of which units are open.

    On zeros and ones it is exactly the size of what `strip` returns for such gates:
    unread units, tied channels and layers that close as a whole included. On
    probabilities it is the multilinear relaxation of that, with useful gradients. All
    of that is worked out once, so that a call is cheap in a compiled train step too.

    Args:
        model: A built Sequential or functional model.
        inputs: As in `keras_l0.strip`.

    Call arguments:
        open_: Openness in [0, 1] of all gates: one array per gate in the order of
            `keras_l0.gates`, or all of them end to end in one vector. NumPy arrays
            give NumPy numbers, backend tensors give tensors.

    Returns:
        A `Size` with ``.params`` and ``.macs``.

    Example:
        >>> import numpy as np, keras, keras_l0
        >>> from keras_l0.analysis.cost import Cost
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras_l0.layers.L0Dense(3), keras.layers.Dense(2)])
        >>> cost = Cost(model)
        >>> float(cost(np.array([1.0, 0.0, 1.0])).params)  # 4 * 2 + 2 + 2 * 2 + 2
        16.0
    """

    def __init__(self, model: Any, inputs: str = "keep") -> None:
        self.analysis = Analysis(model, inputs)
        self.counts = [gate.count for gate in self.analysis.gates]
        tape = Tape(self.counts)
        total = self.analysis.evaluate(tape.inputs).total
        self.program = Program(tape, total)

    def __call__(self, open_: Any) -> Size:
        return Size(*self.program(self._per_gate(open_)))

    def _per_gate(self, open_: Any) -> Sequence[Any]:
        if isinstance(open_, (list, tuple)):
            sizes = [part.shape[0] for part in open_]
            if sizes != self.counts:
                raise ValueError(
                    f"`open_` must hold arrays of {self.counts} numbers, one array per "
                    f"gate. Received: {sizes}"
                )
            return open_
        if tuple(open_.shape) != (sum(self.counts),):
            raise ValueError(
                f"`open_` must hold one number for each of {sum(self.counts)} gates. "
                f"Received: shape {tuple(open_.shape)}"
            )
        ends = np.cumsum(self.counts)
        return [open_[e - n : e] for n, e in zip(self.counts, ends, strict=True)]
