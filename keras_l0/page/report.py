"""`html_report`: all that there is to see of a model, in one file."""

from __future__ import annotations

import dataclasses
import importlib.resources
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_l0.analysis.graph import require_finite
from keras_l0.analysis.passes import Analysis
from keras_l0.analysis.plan import plan_of
from keras_l0.arguments import require_model
from keras_l0.files import check_destination, write_atomically
from keras_l0.layers import find_gates
from keras_l0.page.drawing import drawing
from keras_l0.page.features import filters, input_maps
from keras_l0.page.layers import bars
from keras_l0.page.rows import SizeRow, file_rows, keras_rows
from keras_l0.report import Profile, profile_of


@dataclasses.dataclass(frozen=True)
class HtmlReport:
    """What `html_report` wrote.

    Attributes:
        path: The page.
        bytes: Its size.
        rows: The table of sizes, latencies and accuracies.
    """

    path: Path
    bytes: int
    rows: tuple[SizeRow, ...]


def html_report(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    before: keras.Model | None = None,
    files: Sequence[str | os.PathLike[str]] = (),
    data: Any = None,
    labels: Any = None,
    inputs: str = "keep",
    runs: int = 100,
) -> HtmlReport:
    """Writes a page about a model: what was removed, and what it gained and cost.

    The page is one file that loads nothing from elsewhere. It shows the network with
    the units of each layer before and after, the input features that are read, the
    filters of the first convolution, sizes, latencies and accuracies, and what strip
    must not look through, with the reasons.

    Args:
        model: A built Sequential or functional model. Of a gated one, "after" is what
            `keras_l0.strip` leaves of it.
        path: The file to write; one that is there is replaced.
        before: The model that it was made from, such as the dense or the gated one.
            Layers are compared by name.
        files: .tflite files made of it, to be timed on this machine.
        data: Examples to measure accuracies on, as ``model.predict`` takes them.
        labels: The classes of ``data``, integers or one-hot.
        inputs: As in `keras_l0.strip`.
        runs: Timed inferences of each file.

    Returns:
        An `HtmlReport`, with the numbers of the page's table.

    Raises:
        TypeError: If a model is not a Keras model, or ``path`` is not a path.
        ValueError: If a model has no readable graph or holds a NaN or infinite weight,
            a file is not a .tflite file, or ``data`` and ``labels`` do not fit.
        OSError: If ``path`` cannot be written to.
        ImportError: If there are ``files`` and LiteRT is not installed.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras_l0.layers.L0Dense(3), keras.layers.Dense(2)])
        >>> keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, 9.0])
        >>> page = keras_l0.html_report(model, "model.html")
        >>> [(row.name, row.params) for row in page.rows]
        [('all gates open', 23), ('stripped', 16)]
    """
    destination = check_destination(path)
    require_finite(model)
    if before is not None:
        require_model("before", before)
        require_finite(before)
    if (data is None) != (labels is None):
        raise ValueError(
            "`data` and `labels` must come together, to measure accuracies. Received: "
            f"{'labels' if data is None else 'data'} only"
        )
    analysis = Analysis(model, inputs)
    earlier = None if before is None else Analysis(before)
    if earlier and not _names(analysis) & _names(earlier):
        raise ValueError(
            "`before` must be what `model` was made from: layers are compared by name. "
            f"Received: {earlier.graph.model.name!r}, none of whose layers has a name "
            f"that one of {model.name!r} has"
        )
    plan, now = plan_of(analysis), profile_of(analysis)
    then = None if earlier is None else profile_of(earlier)
    if then is not None:
        _warn_of_strangers(now, then)
    rows = (
        *keras_rows(model, now, before, then, data, labels),
        *file_rows(files, data, labels, runs),
    )
    content = _template().render(
        title=model.name,
        gated=bool(find_gates(model)),
        compared=before is not None,
        plan=plan,
        rows=rows,
        drawing=drawing(analysis, earlier, {b.name for b in plan.barriers}),
        bars=bars(now, then),
        maps=input_maps(analysis),
        filters=filters(analysis),
    )
    encoded = content.encode()
    write_atomically(destination, encoded)
    return HtmlReport(destination, len(encoded), rows)


def _names(analysis: Analysis) -> set[str]:
    return {step.node.name for step in analysis.steps}


def _warn_of_strangers(now: Profile, then: Profile) -> None:
    """Says so if layers have weights that no layer of the same name had before."""
    known = {row.name for row in then.layers}
    strange = [r.name for r in now.layers if r.dense.params and r.name not in known]
    if strange:
        warnings.warn(
            "`before` has no layers with weights named "
            f"{', '.join(map(repr, strange))}. Layers are compared by name: if they "
            "had other names, what the page says of them, and of layers that have "
            "their names by chance, is wrong. Name the layers alike in both models.",
            stacklevel=3,
        )


def _template() -> Any:
    """The page to fill in. Whatever goes into it is escaped."""
    import jinja2

    source = importlib.resources.files("keras_l0.page").joinpath("page.html")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    return environment.from_string(source.read_text("utf-8"))
