"""What the time of a call depends on: its layer's shape, and its channel counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_l0.arguments import is_integer


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """All that the time of a layer depends on but the number of its channels.

    Attributes:
        layer: Name of its class in `keras.layers`.
        options: Names and values of its arguments, sorted by name.
        positions: For each of its inputs the sizes but for batch and channels.
        units: The argument that takes the number of output channels; None where it
            follows from that of the input channels.
        group: Of a convolution in groups, how many input channels one has and how many
            output channels it makes; else None.
    """

    layer: str
    options: tuple[tuple[str, Any], ...]
    positions: tuple[tuple[int | None, ...], ...]
    units: str | None = None
    group: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        layer: str,
        options: Mapping[str, Any],
        positions: Any,
        units: str | None = None,
        group: Any = None,
    ) -> LayerShape:
        """A shape of values as layers or files have them: lists, NumPy integers."""
        return cls(
            layer,
            tuple((name, _plain(options[name])) for name in sorted(options)),
            _plain(positions),
            units or None,
            _plain(group),
        )

    def config(self, n_in: int, n_out: int) -> dict[str, Any]:
        """The arguments of the layer for so many channels in and out."""
        config = dict(self.options)
        if self.group is not None:
            groups = n_in // self.group[0]
            config |= {"groups": groups, "filters": groups * self.group[1]}
        elif self.units is not None:
            config[self.units] = n_out
        return config

    def input_shapes(self, n_in: int) -> list[tuple[int | None, ...]]:
        """The shapes of the inputs with so many channels, without the batch."""
        if dict(self.options).get("data_format") == "channels_first":
            return [(n_in, *sizes) for sizes in self.positions]
        return [(*sizes, n_in) for sizes in self.positions]

    def to_json(self) -> dict[str, Any]:
        """The shape as a file has it; ``LayerShape.of(**shape)`` reads it."""
        return {**dataclasses.asdict(self), "options": dict(self.options)}

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options)
        sizes = " and ".join(
            " x ".join(map(str, one)) for one in dict.fromkeys(self.positions) if one
        )
        return f"{self.layer}({options})" + (f" on {sizes}" if sizes else "")


class Work(NamedTuple):
    """What one call has to do.

    Attributes:
        times: How often its operation runs: 0 where it is gone.
        n_in: Channels that it reads, of one input.
        n_out: Channels that it makes; None where `LayerShape.units` is.
    """

    times: Any
    n_in: Any
    n_out: Any = None


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return int(value) if is_integer(value) else value
