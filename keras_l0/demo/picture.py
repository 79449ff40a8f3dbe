"""A picture of what survived: pixels, filters and units, at work on one image."""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from keras_l0.layers import find_gates

_REMOVED = "#f3c5c0"


def draw(model: keras.Model, image: np.ndarray, path: Path) -> None:
    """Draws what the gates of a model keep, as a .png file.

    Each panel is one gate: one tile per filter with its map, one cell per unit or
    pixel with its output, on the image that is given. What is closed is red.

    Args:
        model: A network of the demo with gates.
        image: One image, of shape (height, width, channels).
        path: Where to write the picture.
    """
    gated = [layer for layer in model.layers if find_gates(layer)]
    probe = keras.Model(model.inputs[0], [layer.output for layer in gated])
    outputs = keras.tree.flatten(probe(image[None], training=False))

    figure = Figure(figsize=(3 * (1 + len(gated)), 3.6), layout="constrained")
    axes = figure.subplots(1, 1 + len(gated))
    axes[0].imshow(image.mean(axis=-1), cmap="gray_r")
    axes[0].set_title("image")
    for ax, layer, tensor in zip(axes[1:], gated, outputs, strict=True):
        output = keras.ops.convert_to_numpy(tensor)[0]
        (gate,) = find_gates(layer)
        kept = np.asarray(keras.ops.convert_to_numpy(gate.test_gates)) > 0
        if layer.name == "pixels":
            grid = _pixels(output, kept, image.shape)
        else:
            grid = _tiles(output, kept)
        _show(ax, grid)
        ax.set_title(f"{layer.name}: {kept.sum()} of {kept.size}")
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_color("#cccccc")
    figure.suptitle("Red is what training closed, and strip removed", fontsize=10)
    figure.savefig(path, dpi=150)


def _show(ax: Axes, grid: np.ndarray) -> None:
    """Draws a grid in which NaN is closed and infinity is no place at all."""
    closed = np.where(np.isnan(grid), 1.0, np.nan)
    ax.imshow(np.where(np.isfinite(grid), grid, np.nan), cmap="gray_r", vmin=0)
    ax.imshow(closed, cmap=ListedColormap([_REMOVED]))


def _pixels(values: np.ndarray, kept: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Flattened pixels in their places; a pixel is open if any channel of it is."""
    seen = np.where(kept, values, np.nan).reshape(shape)
    anything = kept.reshape(shape).any(axis=-1)
    return np.where(anything, np.nansum(seen, axis=-1), np.nan)


def _tiles(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Channels side by side in about a square, the maps of filters with a margin."""
    maps = np.atleast_3d(values) if values.ndim == 3 else values[None, None]
    height, width, count = maps.shape
    maps = np.where(kept, maps / max(float(maps.max()), 1e-12), np.nan)
    margin = 1 if height > 1 else 0
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.full((rows * (height + margin), columns * (width + margin)), np.inf)
    for channel in range(count):
        top = channel // columns * (height + margin)
        left = channel % columns * (width + margin)
        grid[top : top + height, left : left + width] = maps[..., channel]
    return grid
