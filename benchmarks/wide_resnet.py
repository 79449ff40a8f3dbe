"""Wide residual networks with the gates and the recipe of Louizos et al. (2017).

    KERAS_BACKEND=jax python benchmarks/wide_resnet.py --dataset cifar10 --l0 0.001

is the paper's WRN-28-10 on CIFAR-10: 200 epochs, for a GPU. Without arguments it trains
a WRN-16-4 on the 8 x 8 digits of scikit-learn, minutes on a CPU. Both are stripped,
exported, and appended to a JSON file, which is rendered as a Markdown table. After each
epoch the history gets the multiplications of the gates that are open in expectation and
of those that would be deployed. ``--backup FOLDER`` lets an interrupted run go on, and
keeps the trained weights there, a folder for each setting and seed. Without TensorFlow
nothing is exported.

One gate per filter of the first convolution of each block, behind its normalization and
activation: where the networks of Zagoruyko & Komodakis (2016) have their dropout. The
authors' code multiplies in front of the normalization, which undoes all of a gate but
its zeros. As there, the second convolution has the stride, gates start at a drop rate
of .3, pay for and decay the first convolution's kernel only (the decay of a kernel that
is gated is divided by 1 - .3), and weights are averaged over steps (.99). Unlike there,
biases and the scales of normalizations do not decay.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers, ops
from runs import Parser, Runs, facts, settings_option
from wide_resnet_table import render, row

import keras_l0
from keras_l0.layers import L0Gate

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Settings:
    """The paper's; ``l0`` is its lambda, which the number of images divides."""

    depth: int = 28
    width: int = 10
    l0: float = 0.001
    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    drop_rate: float = 0.3
    ema: float = 0.99
    multiplier: float = 1.0
    augment: bool = True


# Few steps: gates learn faster. Digits are not to be shifted or mirrored.
SETTINGS = {
    "digits": Settings(16, 4, 0.002, 20, multiplier=16.0, augment=False),
    "cifar10": Settings(),
    "cifar100": Settings(),
}


def network(
    shape: tuple[int, int, int],
    classes: int,
    depth: int,
    width: int,
    behind: Callable[..., Any],
    decay: float = 0.0,
) -> keras.Model:
    """A wide residual network.

    Args:
        shape: Of an image.
        classes: How many.
        depth: Layers, 6 n + 4.
        width: Factor of the widths 16, 32, 64.
        behind: What follows the first convolution of each block, its normalization and
            activation: a function of the tensor and of the convolution.
        decay: Strength of the weight decay: half of it is that of the squares.

    """

    def conv(x: Any, filters: int, size: int = 3, strides: int = 1) -> Any:
        penalty = keras.regularizers.L2(decay / 2) if decay else None
        return layers.Conv2D(
            filters, size, strides, "same", use_bias=False,
            kernel_initializer="he_normal", kernel_regularizer=penalty,
        )(x)  # fmt: skip

    def normalized(x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    if depth % 6 != 4:
        raise ValueError(f"`depth` must be 6 n + 4. Received: depth={depth}")
    image = keras.Input(shape)
    x = conv(image, 16)
    for stage, base in enumerate((16, 32, 64)):
        for block in range((depth - 4) // 6):
            filters = base * width
            strides = 2 if stage and not block else 1
            skip, h = x, normalized(x)
            if x.shape[-1] != filters:
                skip = conv(h, filters, 1, strides)
            first = layers.Conv2D(
                filters, 3, padding="same", use_bias=False,
                kernel_initializer="he_normal",
            )  # fmt: skip
            h = behind(normalized(first(h)), first)
            x = layers.Add()([conv(h, filters, strides=strides), skip])
    x = layers.GlobalAveragePooling2D()(normalized(x))
    penalty = keras.regularizers.L2(decay / 2) if decay else None
    logits = layers.Dense(classes, kernel_regularizer=penalty)(x)
    return keras.Model(image, logits, name=f"wrn_{depth}_{width}")


def gated(settings: Settings, shape: Any, classes: int, count: int) -> keras.Model:
    """The network with the paper's gates, for so many images to train on."""
    distribution = keras_l0.HardConcrete()
    # The paper's gates start at log_alpha = logit(1 - drop rate).
    start = float(np.log(1 - settings.drop_rate) - np.log(settings.drop_rate))
    options = keras_l0.GateOptions(
        open_probability=float(distribution.prob_open(start)),
        learning_rate_multiplier=settings.multiplier,
    )
    decay = settings.weight_decay / 2 / (1 - settings.drop_rate)
    l0 = keras_l0.regularizers.L0(settings.l0 / count, l2=decay)

    def gate(x: Any, conv: layers.Conv2D) -> Any:
        layer = L0Gate(
            l0=l0, cost=float(np.prod(conv.kernel.shape[:3])), options=options
        )
        layer.squares = lambda: ops.sum(ops.square(conv.kernel), axis=(0, 1, 2))
        return layer(x)

    return network(
        shape, classes, settings.depth, settings.width, gate, settings.weight_decay
    )


def load(dataset: str, tiny: bool) -> list[np.ndarray]:
    """Images, standardized per channel, and labels: to train on, and to test on."""
    if dataset == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = x.reshape(-1, 8, 8, 1)
        order = np.random.default_rng(0).permutation(len(x))
        x, y = x[order], y[order]
        x, y, x_test, y_test = x[:1437], y[:1437], x[1437:], y[1437:]
    else:
        (x, y), (x_test, y_test) = getattr(keras.datasets, dataset).load_data()
    if tiny:
        x, y, x_test, y_test = (a[:64] for a in (x, y, x_test, y_test))
    mean, scale = x.mean((0, 1, 2)), x.std((0, 1, 2))
    x, x_test = (((a - mean) / scale).astype("float32") for a in (x, x_test))
    return [x, y.ravel().astype("int32"), x_test, y_test.ravel().astype("int32")]


class Batches(keras.utils.PyDataset):
    """Shuffled batches; images are shifted by up to 4 pixels, and half are mirrored."""

    def __init__(
        self, x: np.ndarray, y: np.ndarray, size: int, augment: bool, seed: int = 0
    ) -> None:
        super().__init__()
        self.x, self.y, self.size, self.augment = x, y, size, augment
        self.rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return max(1, len(self.x) // self.size)

    def on_epoch_end(self) -> None:
        self.order = self.rng.permutation(len(self.x))

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[number * self.size :][: self.size]
        x = self.x[chosen]
        if self.augment:
            count, height, width, _ = x.shape
            x = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
            down, right = self.rng.integers(0, 9, (2, count, 1, 1))
            rows = down + np.arange(height)[:, None]
            mirrored = self.rng.random((count, 1, 1)) < 0.5
            columns = np.arange(width)
            columns = right + np.where(mirrored, columns[::-1], columns)
            x = x[np.arange(count)[:, None, None], rows, columns]
        return x, self.y[chosen]


class Macs(keras.callbacks.Callback):
    """Logs the MACs that are open in expectation and those that would be deployed.

    And the minutes of the CPU since the last epoch.
    """

    def on_train_begin(self, logs: Any = None) -> None:
        self.start = time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        now = time.process_time()
        logs["cpu_minutes"], self.start = (now - self.start) / 60, now
        profile = keras_l0.profile(self.model)
        logs["macs_expected"] = profile.expected.macs
        logs["macs_deployed"] = profile.deployed.macs


def train(
    model: keras.Model, batches: Batches, epochs: int, verbose: int, kept: Path | None
) -> dict[str, list[float]]:
    """Trains a compiled model; its history.

    Args:
        model: What to train.
        batches: The images.
        epochs: How often.
        verbose: As `fit` has it.
        kept: A folder with what an interrupted run has left, and for what is trained.
    """
    callbacks: list[Any] = [Macs()]
    options = {"epochs": epochs, "verbose": verbose, "callbacks": callbacks}
    if kept is None:
        return model.fit(batches, **options).history
    kept.mkdir(parents=True, exist_ok=True)
    file, log = kept / "trained.weights.h5", kept / "epochs.csv"
    if file.exists():
        model.load_weights(file)
    else:
        callbacks.append(keras.callbacks.CSVLogger(log, append=True))
        callbacks.append(keras.callbacks.BackupAndRestore(kept / "backup"))
        model.fit(batches, **options)
        model.save_weights(file)
    with log.open() as lines:
        # Of an epoch that was run twice, the run that went on.
        rows = {int(row.pop("epoch")): row for row in csv.DictReader(lines)}
    # It has columns for a validation, too.
    names = [n for n in rows[0] if not n.startswith("val_")]
    return {n: [float(rows[e][n]) for e in sorted(rows)] for n in names}


def run(key: dict[str, Any], settings: Settings, args: argparse.Namespace) -> dict:
    """Trains, strips, exports, and returns the record."""
    x, y, x_test, y_test = load(key["dataset"], args.tiny)
    keras.utils.set_random_seed(key["seed"])
    model = gated(settings, x.shape[1:], int(y.max()) + 1, len(x))
    batches = Batches(x, y, settings.batch_size, settings.augment, key["seed"])
    # To a fifth at 60, 120 and 160 of 200 epochs.
    ends = [int(share * settings.epochs) * len(batches) for share in (0.3, 0.6, 0.8)]
    rates = [settings.learning_rate * 0.2**k for k in range(4)]
    model.compile(
        keras.optimizers.SGD(
            keras.optimizers.schedules.PiecewiseConstantDecay(ends, rates),
            momentum=0.9, nesterov=True, use_ema=True, ema_momentum=settings.ema,
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile="auto" if keras.backend.backend() == "jax" else False,
    )  # fmt: skip
    kept = None
    if args.backup:
        # Whatever differs in its settings is another run.
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        kept = args.backup / f"{key['dataset']}-{digest[:12]}"
    history = train(model, batches, settings.epochs, args.verbose, kept)
    keras_l0.calibrate(model, x, batch_size=settings.batch_size)
    small = keras_l0.strip(model, data=x_test[:8])
    exported = None
    if find_spec("tensorflow"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            exported = keras_l0.to_tflite(small, path, data=x_test[:8])
    dense = keras_l0.profile(model).dense
    answers, gated_answers = (m.predict(x_test, 128, verbose=0) for m in (small, model))
    return {
        **key,
        "error": 100 * float(np.mean(answers.argmax(-1) != y_test)),
        "error_gated": 100 * float(np.mean(gated_answers.argmax(-1) != y_test)),
        "params_dense": dense.params,
        "params": small.count_params(),
        "macs_dense": dense.macs,
        "history": history,
        "tflite_bytes": exported and exported.bytes,
        "tflite_difference": exported and exported.max_difference,
        "cpu_minutes": sum(history["cpu_minutes"]),
        "backend": keras.backend.backend(),
        **facts(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Runs what was asked for and has not been run yet, and writes the results."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--dataset", choices=SETTINGS, default="digits")
    add("--l0", type=float, nargs="+", help="the paper's lambda: 0.001 and 0.002")
    add("--seed", type=int, default=0)
    settings_option(parser)
    add("--tiny", action="store_true", help="64 images, WRN-10-1, one epoch")
    add("--backup", type=Path, help="a folder, for a run that may be interrupted")
    add("--verbose", type=int, default=2, help="as `fit` has it")
    add("--output", type=Path, default=HERE / "results-wide-resnet.json")
    args = parser.parse_args(arguments)
    changes = dict(args.set)
    if args.tiny:
        changes = {"depth": 10, "width": 1, "epochs": 1, "batch_size": 16, **changes}
    settings = dataclasses.replace(SETTINGS[args.dataset], **changes)
    runs = Runs(args.output)
    for l0 in args.l0 or [settings.l0]:
        key = {
            "dataset": args.dataset,
            "seed": args.seed,
            "tiny": args.tiny,
            "settings": dataclasses.asdict(dataclasses.replace(settings, l0=l0)),
        }
        if not runs.found(key):
            chosen = dataclasses.replace(settings, l0=l0)
            runs.keep(run(key, chosen, args))
            print(row(runs[-1]), flush=True)
    args.output.with_suffix(".md").write_text(render(runs) + "\n")


if __name__ == "__main__":
    main()
