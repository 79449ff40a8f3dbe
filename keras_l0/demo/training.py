"""Training, its progress, and prediction."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_l0.demo.data import Images

_LEARNING_RATE = 3e-3
_CHUNK = 500


class ShowEpoch(keras.callbacks.Callback):
    """Moves a progress bar epoch by epoch.

    Args:
        bars: A `rich.progress.Progress`.
        task: Its task to move.
    """

    def __init__(self, bars: Any, task: Any) -> None:
        super().__init__()
        self.bars = bars
        self.task = task

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        figures = f"accuracy {logs.get('accuracy', 0):.3f}"
        if "density" in logs:
            figures += f"  density {logs['density']:.3f}"
        self.bars.update(self.task, advance=1, figures=figures)


def train(
    model: keras.Model,
    images: Images,
    epochs: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Trains a model on the images.

    Args:
        model: A network of the demo, gated or not.
        images: The images.
        epochs: How often the training images are shown.
        callbacks: What Keras is to call meanwhile.
    """
    batch_size = 128 if images.many else 64
    steps = math.ceil(len(images.x_train) / batch_size)
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, epochs * steps)
        ),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        # Networks as small as these spend their time between steps.
        steps_per_execution=min(steps, 50),
    )
    model.fit(
        images.x_train,
        images.y_train,
        batch_size=batch_size,
        epochs=epochs,
        verbose=0,
        callbacks=callbacks,
    )


def predict(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """A model's class probabilities, one row per image."""
    # Called as it is: `Model.predict` would compile a function for every model.
    return np.concatenate(
        [
            keras.ops.convert_to_numpy(model(x[start : start + _CHUNK], training=False))
            for start in range(0, len(x), _CHUNK)
        ]
    )
