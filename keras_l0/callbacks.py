"""What `fit` shows of the gates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_l0.analysis.passes import INPUT_MODES, Analysis
from keras_l0.arguments import require_one_of
from keras_l0.budget.model import BudgetedModel
from keras_l0.layers import L0Gate
from keras_l0.layers.finding import find_gates, require_finite_gates
from keras_l0.plots import gate_shapes


class Density(keras.callbacks.Callback):
    """Puts the deployed size into `fit`'s progress bar and history.

    Three values are added to the logs: ``params`` and ``macs``, the parameters and
    multiply-accumulates that `keras_l0.strip` would leave right now, and ``density``,
    the share of the parameters with all gates open when training began. Of a model
    under a budget ``multiplier`` joins them, the largest price of its limits, and under
    one of latency ``latency``, the microseconds that its table says of the stripped
    model. They are read once per epoch, so the cost is next to nothing; `evaluate` is
    left alone. Callbacks that monitor one of the values come after this one in the
    list.

    Args:
        inputs: As in `keras_l0.strip`.

    Raises:
        ValueError: If ``inputs`` is unknown; in `fit`, if the model has no readable
            graph, or a gate is not a finite number any more, which is named.

    Example:
        >>> import numpy as np, keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras_l0.layers.L0Dense(3), keras.layers.Dense(2)])
        >>> model.compile("adam", "mse")
        >>> history = model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0,
        ...                     callbacks=[keras_l0.callbacks.Density()])
        >>> history.history["params"], history.history["density"]
        ([23], [1.0])
    """

    def __init__(self, inputs: str = "keep") -> None:
        super().__init__()
        require_one_of("inputs", inputs, INPUT_MODES)
        self.inputs = inputs
        self._values: dict[str, float] = {}
        # The parameters with all gates open, when training began.
        self._dense = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._values, self._dense = {}, 0.0
        if self.model.built:
            self._measure()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        if not self._values:  # The first batch has built the model.
            self._measure()
        if logs is not None:
            logs.update(self._values)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._measure()
        if logs is not None:
            logs.update(self._values)

    def _measure(self) -> None:
        require_finite_gates(self.model)
        # Anew each time: what a closed channel is at rest moves with the statistics.
        analysis = Analysis(self.model, self.inputs)
        if not self._dense:  # Once: units may leave the model while it trains.
            self._dense = float(analysis.all_open().total.params)
        total = analysis.deployed().total
        self._values = {
            # Of no parameters, all are there.
            "density": float(total.params) / self._dense if self._dense else 1.0,
            "params": round(float(total.params)),
            "macs": round(float(total.macs)),
        }
        if isinstance(self.model, BudgetedModel) and self.model.budgets:
            self._values["multiplier"] = max(self.model.multipliers)
            if (latency := self.model.latency) is not None:
                self._values["latency"] = latency


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras' TensorBoard with gates: how many are open, and where they are.

    After each epoch every gated layer gets the share of its gates that is open
    (``gates/<layer>/open``) and a histogram of ``log_alpha``; the model gets its
    deployed parameters and MACs (``gates/params``, ``gates/macs``). Gates on several
    axes, and those on each feature of an input, get an image too, of how likely each is
    to be open (``gates/<layer>/image``): in the shape of the input, or, if that is
    flat, in a square. TensorFlow has to be installed, whatever the backend.

    Args:
        *args: What `keras.callbacks.TensorBoard` takes.
        inputs: As in `keras_l0.strip`.
        shapes: As in `keras_l0.plot_gates`: shapes of images, height and width.
        **kwargs: What `keras.callbacks.TensorBoard` takes.

    Raises:
        ValueError: If ``inputs`` is unknown; in `fit`, if ``shapes`` fit no gate.

    Example:
        >>> import keras_l0
        >>> board = keras_l0.callbacks.TensorBoard("logs")  # doctest: +SKIP
        >>> model.fit(x, y, callbacks=[board])  # doctest: +SKIP
    """

    def __init__(
        self,
        *args: Any,
        inputs: str = "keep",
        shapes: Mapping[str, Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        require_one_of("inputs", inputs, INPUT_MODES)
        self.inputs, self.shapes = inputs, shapes

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        gate_shapes(find_gates(self.model), self.shapes)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        analysis = Analysis(self.model, self.inputs)
        total = analysis.deployed().total.whole()
        chosen = gate_shapes(analysis.gates, self.shapes)
        with self._train_writer.as_default():
            for name, value in zip(("params", "macs"), total, strict=True):
                self.summary.scalar(f"gates/{name}", value, step=epoch)
            for gate in analysis.gates:
                name = gate.path
                is_open = keras.ops.convert_to_numpy(gate.test_gates) > 0
                self.summary.scalar(f"gates/{name}/open", is_open.mean(), step=epoch)
                log_alpha = keras.ops.convert_to_numpy(gate.log_alpha)
                self.summary.histogram(f"gates/{name}/log_alpha", log_alpha, step=epoch)
                shape = chosen.get(id(gate)) or _image_shape(self.model, gate)
                if shape:
                    image = keras.ops.convert_to_numpy(gate.prob_open)
                    colors = shape[-1] if len(shape) == 3 else 0
                    last = colors if colors in (1, 3) else 1
                    image = image.reshape(1, shape[0], -1, last)
                    self.summary.image(f"gates/{name}/image", image, step=epoch)


def _image_shape(model: keras.Model, gate: L0Gate) -> tuple[int, ...] | None:
    """The shape of the features that a gate is on, if they make a picture."""
    if len(gate.raw.shape) > 1:
        return tuple(gate.raw.shape)
    on_inputs = (
        isinstance(_layer_of(model, gate), L0Gate)
        or getattr(_layer_of(model, gate), "granularity", "units") == "inputs"
    )
    for tensor in model.inputs if on_inputs else ():
        shape = tensor.shape[1:]
        if None in shape or math.prod(shape) != gate.count:
            continue
        side = math.isqrt(gate.count)
        if len(shape) > 1:
            return tuple(shape)
        if side * side == gate.count > 1:
            return side, side
    return None


def _layer_of(model: keras.Model, gate: L0Gate) -> Any:
    """The layer that holds a gate, or the gate if it is one by itself."""
    return next((x for x in model.layers if gate in find_gates(x)), None)
