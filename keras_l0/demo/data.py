"""Images to train on: bundled with scikit-learn, downloaded by Keras, or a file."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_l0.demo.errors import DemoError, require

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_SMALLEST = 8
_MANY = 10_000


@dataclasses.dataclass(frozen=True)
class Images:
    """Labelled images, float32 of shape (n, height, width, channels) up to 1."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return self.x_train.shape[1:]

    @property
    def many(self) -> bool:
        """Whether an epoch is long: sets batch size, and epochs and price if open."""
        return len(self.x_train) >= _MANY

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.y_train.max()) + 1


def load(dataset: str, path: Path | None = None) -> Images:
    """Loads the images of the demo.

    Args:
        dataset: ``"digits"`` (1,797 images of 8 x 8 pixels, part of scikit-learn) or
            ``"mnist"`` (70,000 of 28 x 28, downloaded unless Keras has them).
        path: A .npz file to take instead, with x_train, y_train, x_test and y_test.

    Raises:
        DemoError: If the images cannot be had, or are not such images.
    """
    if path is not None:
        return _images(path.name, *_read_npz(path))
    if dataset == "digits":
        return _digits()
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:
        raise DemoError(
            f"MNIST could not be downloaded ({' '.join(str(error).split())}). Use "
            "--dataset digits, which needs no download, or --data with a copy of "
            "mnist.npz."
        ) from error
    return _images("mnist", x_train, y_train, x_test, y_test)


def _digits() -> Images:
    why = "read its digits"
    datasets = require("sklearn.datasets", why)
    selection = require("sklearn.model_selection", why)
    digits = datasets.load_digits()
    x_train, x_test, y_train, y_test = selection.train_test_split(
        digits.images,
        digits.target,
        test_size=0.25,
        random_state=0,
        stratify=digits.target,
    )
    return _images("digits", x_train, y_train, x_test, y_test)


def _read_npz(path: Path) -> list[np.ndarray]:
    if not path.is_file():
        raise DemoError(f"--data names {str(path)!r}, which is not a file.")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in _ARRAYS if name not in file]
            arrays = [] if missing else [file[name] for name in _ARRAYS]
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DemoError(
            f"--data names {str(path)!r}, which cannot be read as a .npz file of "
            "plain arrays."
        ) from error
    if missing:
        raise DemoError(f"{path.name} has no array named {' or '.join(missing)}.")
    return arrays


def _images(
    name: str,
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
) -> Images:
    """Brings arrays to the form of `Images`, or says what is wrong with them."""
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if x.ndim not in (3, 4) or min(x.shape[1:3]) < _SMALLEST:
            raise DemoError(
                f"x_{part} of {name} must hold images of at least {_SMALLEST} x "
                f"{_SMALLEST} pixels, of shape (n, height, width) or (n, height, "
                f"width, channels); it has shape {x.shape}."
            )
        if x.dtype.kind not in "fiu" or not np.isfinite(x).all():
            raise DemoError(f"x_{part} of {name} must hold finite numbers.")
        if y.shape != (len(x),) or y.dtype.kind not in "iu" or y.min(initial=0) < 0:
            raise DemoError(
                f"y_{part} of {name} must hold one class, an integer from 0, for each "
                f"of the {len(x)} images; it has shape {y.shape} of {y.dtype}."
            )
        if not len(x):
            raise DemoError(f"x_{part} of {name} holds no images.")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DemoError(
            f"The images of {name} have shape {x_train.shape[1:]} in x_train and "
            f"{x_test.shape[1:]} in x_test."
        )
    if not 0 < y_train.max() >= y_test.max():
        raise DemoError(
            f"y_train of {name} must hold at least two classes, and every class that "
            "y_test holds."
        )
    if y_train.max() >= len(y_train):
        raise DemoError(
            f"y_train of {name} holds class {y_train.max()}: classes count from 0, and "
            f"there are only {len(y_train)} images."
        )
    largest = np.abs(x_train).max()
    if not largest:
        raise DemoError(f"The images of {name} are all zero.")
    if x_train.ndim == 3:
        x_train, x_test = x_train[..., None], x_test[..., None]
    return Images(
        name,
        np.asarray(x_train, "float32") / np.float32(largest),
        y_train.astype("int32"),
        np.asarray(x_test, "float32") / np.float32(largest),
        y_test.astype("int32"),
    )
