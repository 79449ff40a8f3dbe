"""`profile`: how large a model is, in expectation and as it would be shipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_l0.analysis.facts import Size
from keras_l0.analysis.graph import require_finite
from keras_l0.analysis.passes import Analysis
from keras_l0.arguments import require_integer
from keras_l0.printing import printed


class Densities:
    """Sizes as shares of the size with all gates open."""

    dense: Size
    expected: Size
    deployed: Size

    @property
    def expected_density(self) -> Size:
        """The shares that are open in expectation under the gates of training."""
        return _share(self.expected, self.dense)

    @property
    def deployed_density(self) -> Size:
        """The shares that strip leaves."""
        return _share(self.deployed, self.dense)

    @property
    def difference(self) -> Size:
        """Deployed minus expected density: what test-time gates close beyond training.

        `GateOptions.estimator` decides it.
        """
        pairs = zip(self.deployed_density, self.expected_density, strict=True)
        return Size(*(deployed - expected for deployed, expected in pairs))


@dataclasses.dataclass(frozen=True)
class LayerProfile(Densities):
    """One call of a layer: its units and its size.

    A layer that is called several times has a profile for each call; totals count its
    weights once.

    Attributes:
        name: The layer's name.
        kind: Its class name.
        units: Channels that it makes with all gates open.
        kept: Channels that are left after strip.
        dense: Size with all gates open, the gates themselves not counted.
        expected: Size in expectation under the gates.
        deployed: Size after strip.
    """

    name: str
    kind: str
    units: int
    kept: int
    dense: Size
    expected: Size
    deployed: Size


@dataclasses.dataclass(frozen=True)
class Profile(Densities):
    """The size of a model, whole and per layer. `profile` makes it.

    Attributes:
        dense: Size with all gates open, the gates themselves not counted.
        expected: Size in expectation under the gates of training.
        deployed: Size after strip.
        layers: A `LayerProfile` of each call that has a size or gates, in graph order.
    """

    dense: Size
    expected: Size
    deployed: Size
    layers: list[LayerProfile]


def profile(model: keras.Model, inputs: str = "keep") -> Profile:
    """Parameters and MACs of a gated model: dense, expected and deployed.

    A MAC is one multiply-accumulate of a kernel, per example; an axis of unknown size
    counts as one position. Parameters are counted as Keras counts them.

    Args:
        model: A built Sequential or functional model, gated or plain.
        inputs: As in `keras_l0.strip`.

    Returns:
        A `Profile`; ``deployed`` is what ``strip(model, inputs)`` really has.

    Raises:
        TypeError: If ``model`` is not a Keras model.
        ValueError: If ``model`` has no readable graph or holds a NaN or infinite
            weight, or ``inputs`` is unknown.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras_l0.layers.L0Dense(3), keras.layers.Dense(2)])
        >>> keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, 9.0])
        >>> report = keras_l0.profile(model)
        >>> report.dense, report.deployed
        (Size(params=23, macs=18), Size(params=16, macs=12))
        >>> [(layer.name, layer.units, layer.kept) for layer in report.layers]
        [('l0_dense', 3, 2), ('dense', 2, 2)]
        >>> [round(share, 2) for share in report.deployed_density]
        [0.7, 0.67]
    """
    require_finite(model)
    return profile_of(Analysis(model, inputs))


def profile_of(analysis: Analysis) -> Profile:
    """`profile` of a model that has been analysed."""
    dense = analysis.all_open()
    *expected, expected_total = analysis.expected_sizes()
    deployed = analysis.deployed()
    layers = [
        LayerProfile(
            name=step.node.name,
            kind=type(step.node.operation).__name__,
            units=analysis.channels[step.units].size,
            kept=step.kept(deployed),
            dense=dense.sizes[number].whole(),
            expected=expected[number],
            deployed=deployed.sizes[number].whole(),
        )
        for number, step in enumerate(analysis.steps)
        if step.rule.gates or dense.sizes[number].params
    ]
    return Profile(
        dense=dense.total.whole(),
        expected=expected_total,
        deployed=deployed.total.whole(),
        layers=layers,
    )


def summary(
    model: keras.Model,
    inputs: str = "keep",
    *,
    line_length: int = 100,
    print_fn: Callable[[str], Any] | None = None,
) -> None:
    """Prints a table of a gated model, like `keras.Model.summary`.

    For each layer: units open and in all, parameters and MACs with all gates open
    ("all"), in expectation under the gates of training, and deployed: what
    `keras_l0.strip` leaves. Below it the shares, and by how much they differ.

    Args:
        model: As in `profile`.
        inputs: As in `keras_l0.strip`.
        line_length: Width in characters.
        print_fn: What to do with the text. Default: ``print``.

    Raises:
        TypeError: As `profile` does, and if ``line_length`` is not an integer or
            ``print_fn`` not a function.
        ValueError: As `profile` does, and if ``line_length`` is below 1.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras_l0.layers.L0Dense(3), keras.layers.Dense(2)])
        >>> keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, 9.0])
        >>> texts = []
        >>> keras_l0.summary(model, print_fn=texts.append)
        >>> texts[0].splitlines()[-3]
        'Deployed: 69.6% of the parameters and 66.7% of the MACs.'
    """
    require_integer("line_length", line_length, 1)
    if print_fn is not None and not callable(print_fn):
        raise TypeError(
            f"`print_fn` must be a function of a text. Received: {print_fn!r}"
        )
    report = profile(model, inputs)
    table = _table(report, f'Model "{model.name}" and its gates')
    (print_fn or print)(printed([table, *_sentences(report)], line_length))


def _table(report: Profile, title: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED, title=title)
    table.add_column("layer (type)", overflow="fold")
    for title in (
        "units",
        *("params", "params\nexpected", "params\ndeployed"),
        *("MACs", "MACs\nexpected", "MACs\ndeployed"),
    ):
        table.add_column(title, justify="right")
    for row in report.layers:
        name = f"{row.name} ({row.kind})"
        table.add_row(name, f"{row.kept:,} / {row.units:,}", *_sizes(row))
    table.add_section()
    table.add_row("total", "", *_sizes(report))
    return table


def _sentences(report: Profile) -> Iterator[str]:
    """The shares, and by how much they differ."""
    for label, shares, form in (
        ("Deployed", report.deployed_density, "{:.1%}"),
        ("Expected", report.expected_density, "{:.1%}"),
        ("Deployed minus expected", report.difference, "{:+.1%}"),
    ):
        told = [
            f"{form.format(share)} of the {what}"
            for share, size, what in zip(
                shares, report.dense, ("parameters", "MACs"), strict=True
            )
            if size
        ]
        yield f"{label}: {' and '.join(told) or 'nothing'}."


def _share(size: Size, dense: Size) -> Size:
    """Of nothing, all is there."""
    pairs = zip(size, dense, strict=True)
    return Size(*(part / whole if whole else 1.0 for part, whole in pairs))


def _sizes(row: LayerProfile | Profile) -> list[str]:
    sizes = (row.dense, row.expected.whole(), row.deployed)
    return [f"{size[i]:,}" for i in range(2) for size in sizes]
