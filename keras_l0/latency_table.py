"""`LatencyTable`: how long layers take by their shapes, measured on some machine."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.graph import require_graph
from keras_l0.analysis.grids import Grid
from keras_l0.analysis.passes import Analysis
from keras_l0.analysis.shapes import LayerShape
from keras_l0.analysis.timing import Span, Timing, spans
from keras_l0.arguments import check_field, require_real
from keras_l0.files import check_destination, write_atomically

# At which shares of its channels a layer is measured, besides fewest and most.
SHARES = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
# So many units are computed at once on most processors: beyond, time makes a step.
_TILE = 16
_FORMAT = "keras_l0.LatencyTable 1"


@dataclasses.dataclass(frozen=True)
class LatencyEntry:
    """What is known of one layer shape.

    Attributes:
        shape: The layer, but for its channel counts.
        inputs: Numbers of input channels, ascending.
        outputs: Numbers of output channels, ascending; (1,) where ``shape.units`` is
            None, as in pooling: they follow from the inputs.
        microseconds: For each of ``inputs`` a row, with a number for each of
            ``outputs``: one inference of a file that holds this layer alone.
    """

    shape: LayerShape
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    microseconds: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            counts = getattr(self, name)
            if not counts or counts[0] < 1 or any(np.diff(counts) <= 0):
                raise ValueError(
                    f"`{name}` must be numbers of channels >= 1, ascending. "
                    f"Received: {name}={counts!r} of {self.shape}"
                )
        times = np.array([*self.microseconds], "float64")
        wanted = (len(self.inputs), len(self.outputs))
        if times.shape != wanted or not (np.isfinite(times) & (times >= 0)).all():
            raise ValueError(
                f"`microseconds` must be {wanted[0]} rows of {wanted[1]} numbers >= 0, "
                "one row per number of input channels. "
                f"Received: {self.microseconds!r} of {self.shape}"
            )

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> LatencyEntry:
        """An entry of a file."""
        shape = {f.name: entry[f.name] for f in dataclasses.fields(LayerShape)}
        rows = (tuple(map(float, row)) for row in entry["microseconds"])
        return cls(
            LayerShape.of(**shape),
            tuple(map(int, entry["inputs"])),
            tuple(map(int, entry["outputs"])),
            tuple(rows),
        )

    def to_json(self) -> dict[str, Any]:
        """The entry as a file has it."""
        return {
            **self.shape.to_json(),
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "microseconds": [list(row) for row in self.microseconds],
        }

    def covers(self, call: Span) -> bool:
        """Whether all channel counts of a call lie between those known."""
        return all(
            counts[-1] >= most and (counts[0] <= fewest or len(counts) > 1)
            for counts, (fewest, most) in (
                (self.inputs, call.inputs), (self.outputs, call.outputs)
            )
        )  # fmt: skip


@keras.saving.register_keras_serializable(package="keras_l0")
@dataclasses.dataclass(frozen=True, repr=False)
class LatencyTable:
    """How long layers take on some machine, for `Budget(latency=..., table=...)`.

    `keras_l0.measure_latency` makes one; `save` and `load` carry it from the machine
    where it was measured to the one that trains. The latency of a network is estimated
    as the overhead of a call and, for each layer, what a file with this layer alone
    takes beyond the overhead. Between the channel counts that were measured it is
    interpolated in both directions; more channels never count as faster.

    Attributes:
        entries: What is known, by layer shape.
        overhead: Microseconds that a file takes whose layer does next to nothing.
        quantization: Of the files that were measured, as in `keras_l0.to_tflite`.
        threads: Threads of the interpreter.
        device: What it was measured on.
        versions: Of the packages that it was measured with.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> table = keras_l0.LatencyTable.of(
        ...     model, lambda shape, n_in, n_out: 0.5 * n_in * n_out, overhead=1.0)
        >>> table.estimate(model)  # 1 + (0.5 * 4 * 2 - 1)
        4.0
    """

    entries: tuple[LatencyEntry, ...]
    overhead: float = 0.0
    quantization: str | None = None
    threads: int = 1
    device: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_field(self, "overhead", require_real, ">= 0", lambda value: value >= 0)

    @classmethod
    def of(
        cls,
        model: keras.Model,
        microseconds: Callable[[LayerShape, int, int], float],
        *,
        inputs: str = "keep",
        shares: Sequence[float] = SHARES,
        **details: Any,
    ) -> LatencyTable:
        """A table that holds what a function says, such as a formula.

        Args:
            model: The model whose layers it is to hold, with or without gates.
            microseconds: ``microseconds(shape, n_in, n_out)`` is how long a file takes
                with a layer of this `LayerShape`, so many input channels and so many
                outputs, in microseconds, overhead included.
            inputs: As in `keras_l0.strip`.
            shares: As in `keras_l0.measure_latency`.
            details: The other attributes.
        """
        if not callable(microseconds):
            raise TypeError(
                "`microseconds` must be a function of a shape and two numbers of "
                f"channels. Received: {microseconds!r}"
            )
        entries = (
            dataclasses.replace(
                blank,
                microseconds=tuple(
                    tuple(float(microseconds(blank.shape, i, o)) for o in blank.outputs)
                    for i in blank.inputs
                ),
            )
            for blank in blank_entries(model, inputs, shares)
        )
        return cls(tuple(entries), **details)

    def estimate(self, model: keras.Model, inputs: str = "keep") -> float:
        """The latency of a model in microseconds; of a gated one, as stripped.

        Args:
            model: A built Sequential or functional model.
            inputs: As in `keras_l0.strip`.

        Raises:
            ValueError: If the table lacks a shape of the model.
        """
        require_graph(model)
        analysis = Analysis(model, inputs)
        timing = self.timing(analysis)
        return self.overhead + float(timing(analysis.deployed()))

    def timing(self, analysis: Analysis, names: Iterable[str] = ()) -> Timing:
        """What the table says of a model's layers, of all or of those named.

        Raises:
            ValueError: If it lacks a shape.
        """
        calls = spans(analysis, names)
        lacking = [
            call
            for call in calls
            if call.shape not in self._by_shape
            or not self._by_shape[call.shape].covers(call)
        ]
        if lacking:
            others = f" (and {len(lacking) - 1} more)" if lacking[1:] else ""
            raise ValueError(
                "`table` must hold the shape of each layer of "
                f"{analysis.graph.model.name!r}, with as few and as many channels as "
                f"it may have. Received: {self!r}, which lacks {lacking[0]}{others}. "
                "Measure the model, `table = keras_l0.measure_latency(model, "
                f"inputs={analysis.inputs_mode!r})`, on the device that counts"
            )
        return Timing(analysis, calls, self.grid)

    def grid(self, shape: LayerShape) -> Grid:
        """The microseconds of a shape beyond the overhead, rising with the counts."""
        entry = self._by_shape[shape]
        net = np.maximum(np.array(entry.microseconds) - self.overhead, 0.0)
        return Grid.rising(entry.inputs, entry.outputs, net)

    @functools.cached_property
    def _by_shape(self) -> dict[LayerShape, LatencyEntry]:
        return {entry.shape: entry for entry in self.entries}

    def get_config(self) -> dict[str, Any]:
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**own, "entries": [entry.to_json() for entry in self.entries]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LatencyTable:
        entries = tuple(map(LatencyEntry.from_json, config["entries"]))
        return cls(**{**config, "entries": entries})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as JSON, whole or not at all.

        Raises:
            OSError: If the file cannot be written.
        """
        config = {"format": _FORMAT, **self.get_config()}
        entries = ",\n".join(f"  {json.dumps(e)}" for e in config.pop("entries"))
        head = json.dumps(config, indent=1).removesuffix("\n}")
        text = f'{head},\n "entries": [\n{entries}\n ]\n}}\n'
        write_atomically(check_destination(path), text.encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """The table that a file holds.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it holds something else.
        """
        try:
            config = json.loads(Path(path).read_text())
            if config.pop("format") != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT!r}")
            return cls.from_config(config)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(
                "`path` must be a file that `LatencyTable.save` wrote, or one like it. "
                f"Received: path={os.fspath(path)!r} ({error})"
            ) from error

    def __repr__(self) -> str:
        kind = self.quantization or "float32"
        where = f" on {self.device}" if self.device else ""
        return f"LatencyTable({len(self.entries)} shapes, {kind}{where})"


def blank_entries(
    model: keras.Model, inputs: str = "keep", shares: Sequence[float] = SHARES
) -> list[LatencyEntry]:
    """The layer shapes of a model and the counts to measure, all times 0.

    Args:
        model: A built Sequential or functional model.
        inputs: As in `keras_l0.strip`.
        shares: As in `keras_l0.measure_latency`.

    Raises:
        ValueError: If a layer has no shape by which it could be measured, or a share is
            not in (0, 1].
    """
    if isinstance(shares, str) or np.ndim(shares) != 1:
        raise TypeError(
            "`shares` must be a sequence of shares of a layer's channels. "
            f"Received: shares={shares!r} of type {type(shares).__name__}"
        )
    if not len(shares) or not all(0 < share <= 1 for share in shares):
        raise ValueError(
            "`shares` must be shares of a layer's channels, each in (0, 1]. "
            f"Received: shares={shares!r}"
        )
    require_graph(model)
    counts: dict[LayerShape, tuple[set[int], set[int]]] = {}
    for call in spans(Analysis(model, inputs)):
        known = counts.setdefault(call.shape, (set(), set()))
        each = call.shape.group[0] if call.shape.group else 1
        # A kernel's time is as good as linear in its inputs: every second will do.
        some = shares if call.shape.units is None else shares[1::2]
        known[0].update(_counts(call.inputs, some, each))
        outputs = _counts(call.outputs, shares, 1)
        known[1].update(n for c in outputs for n in _sides(c, call.outputs))
    entries = []
    for shape, (ins, outs) in counts.items():
        zeros = ((0.0,) * len(outs),) * len(ins)
        entries.append(
            LatencyEntry(shape, tuple(sorted(ins)), tuple(sorted(outs)), zeros)
        )
    return entries


def _sides(count: int, span: tuple[int, int]) -> set[int]:
    """A number of units, of many the two beside the nearest step of the time."""
    tile = round(count / _TILE) * _TILE
    if count in span or not tile or tile >= span[1]:
        return {count}
    return {tile, tile + 1} if 4 * count >= 3 * _TILE else {count}


def _counts(span: tuple[int, int], shares: Sequence[float], each: int) -> set[int]:
    """From the fewest to the most channels, multiples of ``each``."""
    low, high = span
    some = {max(each, round(high * share / each) * each) for share in shares}
    return {low, high, *(count for count in some if low < count < high)}
