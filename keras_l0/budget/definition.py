"""`Budget`: how large a model may be, instead of how strongly it is penalized."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_l0.analysis.passes import INPUT_MODES
from keras_l0.arguments import (
    check_field,
    is_integer,
    require_integer,
    require_one_of,
    require_real,
)
from keras_l0.latency_table import LatencyTable
from keras_l0.regularizers import L0

MEASURES = ("params", "macs", "bytes", "latency")
# What a weight takes in a TFLite file.
WEIGHT_BYTES = {None: 4, "float16": 2, "dynamic": 1, "int8": 1}


@keras.saving.register_keras_serializable(package="keras_l0")
@dataclasses.dataclass(frozen=True)
class Budget:
    """How large a model may be once it is stripped.

    A float in (0, 1] is a share of the size with all gates open, an integer an
    absolute number. Of several limits, all hold.

    Args:
        params: Parameters, as Keras counts them.
        macs: Multiply-accumulates per example.
        bytes: Size of the TFLite file, in bytes. Training aims at an estimate of it,
            by the bytes of a weight and what each call takes beside; `strip` with a
            budget then measures the file.
        latency: Time of one inference, estimated by ``table``; an integer is in
            microseconds.
        table: The `LatencyTable` that ``latency`` goes by, of the device that counts.
        quantization: As in `keras_l0.to_tflite`: of the file that ``bytes`` limits; if
            ``latency`` is limited as well, that of its table.
        layers: Names of the layers whose size counts. Default: the whole model.
        inputs: As in `keras_l0.strip`: of the stripped model that is measured.
        ramp_steps: Training steps over which the limit comes down from the full size.
            Default: the first half of `fit`.
        min_units: Of each layer's gates as many of the likeliest are held open (see
            `GateOptions`) and free of any price, so that no layer dies as a whole.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If there is no limit, or an argument is out of range.

    Example:
        >>> import keras_l0
        >>> keras_l0.Budget(params=0.1).limits
        {'params': 0.1}
        >>> keras_l0.Budget(macs=0.25, bytes=64_000).limits
        {'macs': 0.25, 'bytes': 64000}
    """

    params: float | int | None = None
    macs: float | int | None = None
    bytes: float | int | None = None
    latency: float | int | None = None
    table: LatencyTable | None = None
    quantization: str | None = None
    layers: tuple[str, ...] = ()
    inputs: str = "keep"
    ramp_steps: int | None = None
    min_units: int = 1

    def __post_init__(self) -> None:
        for name in MEASURES:
            check_field(self, name, _amount)
        if not self.limits:
            raise ValueError(
                "A `Budget` must limit `params`, `macs`, `bytes` or `latency`. "
                "Received: none of them"
            )
        require_one_of("quantization", self.quantization, WEIGHT_BYTES)
        self._check_table()
        self._check_layers()
        if self.layers and self.bytes is not None:
            raise ValueError(
                "`bytes` must be None where `layers` are chosen: it limits a whole "
                "file. "
                f"Received: bytes={self.bytes!r} with layers={self.layers!r}"
            )
        require_one_of("inputs", self.inputs, INPUT_MODES)
        if self.ramp_steps is not None:
            steps = "None, or a number of training steps, an integer"
            check_field(self, "ramp_steps", require_integer, 0, steps)
        check_field(self, "min_units", require_integer, 0)

    def _check_layers(self) -> None:
        names: Any = self.layers
        if isinstance(names, str):
            names = (names,)
        elif isinstance(names, Iterable):
            names = tuple(names)
        if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names):
            raise TypeError(
                "`layers` must be names of layers, strings. "
                f"Received: layers={self.layers!r}"
            )
        if not names and self.layers != ():
            raise ValueError(
                "`layers` must name at least one layer; without it, a budget is for "
                f"the whole model. Received: layers={self.layers!r}, which names none"
            )
        object.__setattr__(self, "layers", names)

    def _check_table(self) -> None:
        if self.table is not None and not isinstance(self.table, LatencyTable):
            raise TypeError(
                "`table` must be a `keras_l0.LatencyTable`; `LatencyTable.load(path)` "
                "reads one. "
                f"Received: table={self.table!r} of type {type(self.table).__name__}"
            )
        if (self.latency is None) != (self.table is None):
            raise ValueError(
                "`latency` and `table` must be given together; "
                "`keras_l0.measure_latency(model)` makes a table. "
                f"Received: latency={self.latency!r}, table={self.table!r}"
            )
        if self.table is None or self.bytes is None:
            return
        if self.table.quantization != self.quantization:
            raise ValueError(
                "`quantization` must be that of `table` if both `bytes` and `latency` "
                f"are limited, of one file. Received: quantization="
                f"{self.quantization!r}, table={self.table!r}"
            )

    @property
    def limits(self) -> dict[str, float | int]:
        """What is limited, and to how much."""
        found = {name: getattr(self, name) for name in MEASURES}
        return {name: limit for name, limit in found.items() if limit is not None}

    @property
    def weight_bytes(self) -> int:
        """What one weight takes in the file."""
        return WEIGHT_BYTES[self.quantization]

    @classmethod
    def get(cls, identifier: Any) -> Budget:
        """A `Budget` from an object or its config."""
        if isinstance(identifier, dict):
            identifier = keras.saving.deserialize_keras_object(identifier)
        if not isinstance(identifier, cls):
            raise TypeError(
                "`budget` must be a `keras_l0.Budget`, or a list of them. "
                f"Received: {identifier!r} of type {type(identifier).__name__}"
            )
        return identifier

    def get_config(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Budget:
        table = config.get("table")
        if isinstance(table, dict):
            table = keras.saving.deserialize_keras_object(table)
        return cls(**{**config, "layers": tuple(config["layers"]), "table": table})


@keras.saving.register_keras_serializable(package="keras_l0")
class SetByBudget(L0):
    """The penalty of a gate whose price a budget sets, in the model that holds both.

    It goes where the gate goes: into its config, and so into files and clones.

    Args:
        budgets: What the model has to fit.
        l2: As in `regularizers.L0`; it is charged as ever.
        wide: Of a model that has lost units in training what it was before
            (`Constraints.wide`): limits that are shares are shares of that.
    """

    def __init__(
        self,
        budgets: Sequence[Any],
        l2: float = 0.0,
        wide: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__(0.0, l2)
        self.budgets = tuple(map(Budget.get, budgets))
        self.wide = wide

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        config = {"budgets": [serialize(b) for b in self.budgets], "l2": self.l2}
        return config if self.wide is None else {**config, "wide": self.wide}


def as_budgets(budget: Any) -> tuple[Budget, ...]:
    """One budget or several, checked."""
    if isinstance(budget, (list, tuple)) and budget:
        return tuple(map(Budget.get, budget))
    return (Budget.get(budget),)


def _amount(name: str, value: Any) -> float | int | None:
    """A limit as a number of Python's, whose type says what it means."""
    if value is None:
        return None
    if is_integer(value):
        what = "a share in (0, 1], a float, or an absolute number, an integer"
        return require_integer(name, value, 1, what)
    return require_real(
        name,
        value,
        "in (0, 1], a share (an absolute number is an integer)",
        lambda number: 0 < number <= 1,
    )
