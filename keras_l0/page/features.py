"""Pictures of what a network looks at: its input features, and its first filters."""

from __future__ import annotations

import base64
import dataclasses
import math
import struct
import zlib

import keras
import numpy as np

from keras_l0.analysis.evaluation import Evaluation
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.rules.convolution import Convolution
from keras_l0.page.drawing import is_gate

# More filters than these say nothing more.
_FILTERS = 256
# Behind these, features are in the order in which they were.
_IN_ORDER = {
    keras.layers.Flatten, keras.layers.Reshape, keras.layers.Rescaling,
    keras.layers.Dropout, keras.layers.GaussianNoise, keras.layers.Activation,
}  # fmt: skip
_READ, _UNREAD = (37, 99, 235, 255), (128, 128, 128, 60)


@dataclasses.dataclass(frozen=True)
class InputMap:
    """Which features of an input are read.

    Attributes:
        name: The input.
        picture: A picture as a ``data:`` address, a pixel per feature or position.
        width: Pixels in a row.
        read: Features that are read.
        features: All of them.
        guessed: Whether the features have no places of their own: they are in rows.
    """

    name: str
    picture: str
    width: int
    read: int
    features: int
    guessed: bool


@dataclasses.dataclass(frozen=True)
class Filter:
    """One filter of a convolution: its picture, and whether it stays."""

    picture: str
    kept: bool


@dataclasses.dataclass(frozen=True)
class Filters:
    """The filters of the first convolution.

    Attributes:
        layer: Its name.
        units: All of its filters.
        kept: How many of them stay.
        shown: Those in the picture, the first ones.
        channels: Channels of each; of three the picture has the colors, of more or
            two their mean.
    """

    layer: str
    units: int
    kept: int
    shown: list[Filter]
    channels: int


def input_maps(analysis: Analysis) -> list[InputMap]:
    """Maps of the inputs of which some features are not read, or are gated."""
    after = analysis.deployed()
    maps = []
    for number, tensor in enumerate(analysis.graph.inputs):
        shape = [n for n in tensor.shape[1:] if n is not None]
        if not shape or len(shape) < len(tensor.shape) - 1:
            continue
        keep = _read(analysis, after, number, math.prod(shape))
        if keep is None:
            continue
        grid = _grid(keep, shape)
        colors = np.zeros((*grid.shape, 4), "uint8")
        colors[grid == 1], colors[grid == 0] = _READ, _UNREAD
        name = analysis.graph.model.inputs[number].name
        maps.append(
            InputMap(
                name=name,
                picture=png(colors),
                width=grid.shape[1],
                read=int(keep.sum()),
                features=keep.size,
                guessed=len(shape) == 1,
            )
        )
    return maps


def _grid(keep: np.ndarray, shape: list[int]) -> np.ndarray:
    """Rows of 1 (read), 0 (not read) and -1 (no feature)."""
    if len(shape) == 1:  # No places are known: about a square.
        width = math.isqrt(keep.size - 1) + 1
        grid = np.full(-(-keep.size // width) * width, -1)
        grid[: keep.size] = keep
        return grid.reshape(-1, width)
    places = keep.reshape(shape).astype(int)
    if len(shape) == 3:  # Of channels at one place, any.
        return places.max(axis=-1)
    return places.reshape(shape[0], -1)


def _read(
    analysis: Analysis, after: Evaluation, number: int, size: int
) -> np.ndarray | None:
    """Which features are read, one by one; None where nothing decides on each."""
    slots = {analysis.input_slots[number]}
    found = None
    for step in analysis.steps:
        # Along the chain of what only moves features, as Flatten, to the first gate.
        if not set(step.ins) <= slots or len(step.ins) != 1:
            continue
        if _moves(step):
            slots |= set(step.outs)
            channels = analysis.channels[step.outs[0]]
            if channels.axis is not None and channels.size == size:
                keep = np.asarray(after.keep[step.outs[0]]) > 0
                found = keep if found is None else found & keep
    slot = analysis.input_slots[number]
    if analysis.channels[slot].size == size > 1:
        keep = np.asarray(after.keep[slot]) > 0
        found = keep if found is None or not keep.all() else found
    if found is None or (found.all() and not analysis.gates):
        return None
    return found


def _moves(step: Step) -> bool:
    """Whether features stay in their order: behind a gate, or by what the layer is."""
    kind = type(step.node.operation)
    return step.node.operation is None or is_gate(step) or kind in _IN_ORDER


def filters(analysis: Analysis) -> Filters | None:
    """The filters of the first layer with a kernel over two positions."""
    after = analysis.deployed()
    for step in analysis.steps:
        kernel = _kernel(step)
        if kernel is None or kernel.ndim != 4 or max(kernel.shape[:2]) < 2:
            continue
        values = kernel.astype("float32")
        kept = np.asarray(after.keep[step.units]) > 0
        if values.shape[-1] != len(kept):
            continue
        scale = float(np.abs(values).max()) or 1.0
        gray = values if values.shape[2] == 3 else values.mean(2, keepdims=True)
        levels = np.clip(127.5 + 127.5 * gray / scale, 0, 255).astype("uint8")
        levels = np.broadcast_to(levels, (*levels.shape[:2], 3, levels.shape[-1]))
        shown = [
            Filter(png(levels[..., i]), bool(kept[i]))
            for i in range(min(len(kept), _FILTERS))
        ]
        count = int(kept.sum())
        return Filters(step.node.name, len(kept), count, shown, values.shape[2])
    return None


def _kernel(step: Step) -> np.ndarray | None:
    """The kernel of a convolution, filters last."""
    if isinstance(step.rule, Convolution):
        return step.rule.kernel()
    layer = step.node.operation
    if isinstance(layer, keras.layers.Conv2D):
        return np.asarray(keras.ops.convert_to_numpy(layer.kernel))
    return None


def png(pixels: np.ndarray) -> str:
    """An image of 8 bits, RGB or RGBA, as a ``data:`` address."""
    height, width, channels = pixels.shape
    lines = np.zeros((height, 1 + width * channels), "uint8")
    lines[:, 1:] = pixels.reshape(height, -1)
    kind = {3: 2, 4: 6}[channels]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part))
        + name
        + part
        + struct.pack(">I", zlib.crc32(name + part))
        for name, part in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)),
            (b"IDAT", zlib.compress(lines.tobytes(), 9)),
            (b"IEND", b""),
        )
    )
    return "data:image/png;base64," + base64.b64encode(content).decode()
