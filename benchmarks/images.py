"""The images that the benchmarks train on."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

LOCAL = Path(__file__).resolve().parents[2] / "shared" / "data"
DATASETS = ("mnist", "fashion_mnist")


def load(
    dataset: str,
    *,
    path: Path | None = None,
    validation: bool = False,
    tiny: bool = False,
) -> list[np.ndarray]:
    """Images, float32 of shape (n, 28, 28, 1) up to 1, and labels.

    Args:
        dataset: One of `DATASETS`.
        path: An .npz file as Keras keeps it; otherwise Keras downloads it. The
            Fashion-MNIST beside this repository, if there is one, is another split.
        validation: Whether to test on the last twelfth of the training set instead.
        tiny: Whether random images will do, a few of them.

    Returns:
        Images and labels to train on, and to test on.

    Raises:
        FileNotFoundError: If there is nothing at the path.
    """
    path = path or LOCAL / f"{dataset}.npz"
    if tiny:
        rng = np.random.default_rng(0)
        x, x_test = rng.integers(0, 256, (2, 600, 28, 28))
        y, y_test = rng.integers(0, 10, (2, 600))
    elif path.exists():
        with np.load(path) as file:
            names = ("x_train", "y_train", "x_test", "y_test")
            x, y, x_test, y_test = (file[name] for name in names)
    elif path != LOCAL / f"{dataset}.npz":
        raise FileNotFoundError(f"`path` must be a file. Received: {str(path)!r}")
    else:
        (x, y), (x_test, y_test) = getattr(keras.datasets, dataset).load_data()
    if validation:
        held = len(x) // 12
        x, y, x_test, y_test = x[:-held], y[:-held], x[-held:], y[-held:]
    x, x_test = (a[..., None].astype("float32") / 255 for a in (x, x_test))
    return [x, y.astype("int32"), x_test, y_test.astype("int32")]
