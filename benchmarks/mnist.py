"""LeNet-300-100 and LeNet-5-Caffe with L0 gates on MNIST.

    python benchmarks/mnist.py --seeds 0 1 2

trains both networks, strips them, converts them to TFLite, appends each run to a JSON
file and renders that file as a Markdown table. A run that the file holds already is not
trained again. ``--validation`` trains on the first 55,000 images and reports the error
on the other 5,000 of the training set: for choosing settings (``--set NAME=VALUE``).
The figures to report train on all 60,000 and take the test error after the last epoch.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import images
import keras
import numpy as np
from mnist_table import render, run_row
from runs import Runs, Timed, facts, options, settings_option, use_threads

import keras_l0
from keras_l0.layers import L0Conv2D, L0Dense, L0Gate

NETWORKS = ("lenet-300-100", "lenet-5")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run is trained with.

    ``l0`` has one strength per gate, in the order of the network; ``dropout`` the rates
    behind the gated inputs of the first dense layer and behind hidden units.
    """

    l0: tuple[float, ...]
    epochs: int
    frozen_epochs: int = 0
    batch_size: int = 128
    learning_rate: float = 1e-3
    frozen_learning_rate: float = 5e-4
    weight_decay: float = 0.0
    dropout: tuple[float, float] = (0.0, 0.0)
    open_probability: float = 0.99
    learning_rate_multiplier: float = 16.0
    noise: str = "batch"
    standardize: bool = False


SETTINGS = {
    "lenet-300-100": Settings(
        l0=(5.5e-6, 5.5e-6, 8e-6), epochs=40, learning_rate=2e-3, dropout=(0.2, 0.0)
    ),
    "lenet-5": Settings(
        l0=(1.1e-3, 6e-5, 9e-6, 1.3e-5),
        epochs=36,
        learning_rate=2e-3,
        dropout=(0.15, 0.0),
    ),
}


def build(network: str, settings: Settings) -> keras.Model:
    """The gated network, with logits as its output."""
    options = keras_l0.GateOptions(
        open_probability=settings.open_probability,
        noise=settings.noise,
        learning_rate_multiplier=settings.learning_rate_multiplier,
    )
    gated: dict[str, Any] = {"activation": "relu", "gate_options": options}
    if network == "lenet-300-100":
        inputs, first, second = settings.l0
        layers = [
            keras.Input((784,)),
            L0Gate(l0=inputs, cost=300, options=options),
            keras.layers.Dropout(settings.dropout[0]),
            L0Dense(300, l0=first, **gated),
            keras.layers.Dropout(settings.dropout[1]),
            L0Dense(100, l0=second, **gated),
        ]
    else:
        conv1, conv2, features, hidden = settings.l0
        layers = [
            keras.Input((28, 28, 1)),
            L0Conv2D(20, 5, l0=conv1, **gated),
            keras.layers.MaxPooling2D(),
            L0Conv2D(50, 5, l0=conv2, **gated),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            L0Gate(l0=features, cost=500, options=options),
            keras.layers.Dropout(settings.dropout[0]),
            L0Dense(500, l0=hidden, **gated),
        ]
    layers += [keras.layers.Dropout(settings.dropout[1]), keras.layers.Dense(10)]
    return keras.Sequential([layer for layer in layers if getattr(layer, "rate", 1)])


def load(args: argparse.Namespace, flat: bool, standardize: bool) -> list[np.ndarray]:
    """Images and labels: to train on, and to report the error of."""
    x, y, x_test, y_test = images.load(
        "mnist", path=args.data, validation=args.validation, tiny=args.tiny
    )
    if flat:
        x, x_test = (a.reshape(len(a), -1) for a in (x, x_test))
    if standardize:
        mean, deviation = x.mean(), x.std()
        x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    return [x, y, x_test, y_test]


def adam(rate: Any, weight_decay: float) -> keras.optimizers.Optimizer:
    """AdamW, which decays kernels only."""
    optimizer = keras.optimizers.AdamW(rate, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["raw_log_alpha", "bias"])
    return optimizer


def train(
    model: keras.Model,
    settings: Settings,
    x: np.ndarray,
    y: np.ndarray,
    *callbacks: Any,
) -> keras.callbacks.History:
    """Trains gates and weights, then, if asked to, the weights under fixed gates."""
    phases = [(settings.epochs, settings.learning_rate)]
    if settings.frozen_epochs:
        phases.append((settings.frozen_epochs, settings.frozen_learning_rate))
    steps = -(-len(x) // settings.batch_size)
    for number, (epochs, rate) in enumerate(phases):
        for gate in keras_l0.gates(model):
            gate.trainable = number == 0
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps * epochs)
        model.compile(
            adam(schedule, settings.weight_decay),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            steps_per_execution=min(20, steps),
            jit_compile=False,
        )
        history = model.fit(
            x, y, settings.batch_size, epochs, verbose=0, callbacks=list(callbacks)
        )
    return history


def measure(model: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """The size and the error of a trained network: gated, stripped and as a file."""
    some = x[:100]
    stripped = keras_l0.strip(model, inputs="gather", data=some)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        exported = keras_l0.to_tflite(model, path, inputs="gather", data=some)
    gated_logits, logits = (m.predict(x, 500, verbose=0) for m in (model, stripped))
    profile = keras_l0.profile(model, inputs="gather")
    return {
        "architecture": [n.kept for n in profile.layers if n.kind.startswith("L0")],
        "params_dense": profile.dense.params,
        "params_gather": stripped.count_params(),
        "params_gather_profile": profile.deployed.params,
        "params_keep": keras_l0.strip(model, data=some).count_params(),
        "macs_dense": profile.dense.macs,
        "macs_gather": profile.deployed.macs,
        "error_gated": error(gated_logits, y),
        "error": error(logits, y),
        "stripped_difference": float(
            np.abs(gated_logits - logits).max() / np.abs(gated_logits).max()
        ),
        "tflite_difference": exported.max_difference,
        "tflite_bytes": exported.bytes,
    }


def error(logits: np.ndarray, y: np.ndarray) -> float:
    """Share of wrong answers, in percent."""
    return 100 * float(np.mean(logits.argmax(-1) != y))


def run(key: dict[str, Any], settings: Settings, args: argparse.Namespace) -> dict:
    """Trains one network, measures it, and returns the record of both."""
    data = load(args, key["network"] == "lenet-300-100", settings.standardize)
    keras.utils.set_random_seed(key["seed"])
    model = build(key["network"], settings)
    with Timed() as timed:
        history = train(model, settings, *data[:2]).history
    record = {
        **key,
        "minutes": timed.minutes,
        "cpu_minutes": timed.cpu_minutes,
        "training_accuracy": history["accuracy"][-1],
    }
    if args.models:
        args.models.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:8]
        name = f"{key['network']}-{key['seed']}-{digest}"
        model.save(args.models / f"{name}.keras")
        (args.models / f"{name}.json").write_text(json.dumps(record))
    return {
        **record,
        **measure(model, *data[2:]),
        **facts(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Runs what was asked for and has not been run yet, and writes the results."""
    parser = options(__doc__, "results-mnist", "600 images, one epoch")
    settings_option(parser)
    add = parser.add_argument
    add("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--epochs", type=int, help="instead of those of the settings")
    add("--models", type=Path, help="a folder to keep the trained gated models in")
    args = parser.parse_args(arguments)
    use_threads(args.threads)
    changes = dict(args.set)
    if args.epochs or args.tiny:
        changes["epochs"] = args.epochs or 1
    runs = Runs(args.output)
    for network in args.network:
        settings = dataclasses.replace(SETTINGS[network], **changes)
        for seed in args.seeds:
            key = {
                "network": network,
                "seed": seed,
                "validation": args.validation,
                "tiny": args.tiny,
                "settings": json.loads(json.dumps(dataclasses.asdict(settings))),
            }
            if runs.found(key):
                print(f"{network}, seed {seed}: already in {args.output.name}")
                continue
            record = run(key, settings, args)
            runs.keep(record)
            print(run_row(record), flush=True)
    args.output.with_suffix(".md").write_text(render(runs) + "\n")


if __name__ == "__main__":
    main()
