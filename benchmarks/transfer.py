"""Gates for networks that are trained already: how much smaller, at what loss.

    python benchmarks/transfer.py --networks lenet_5 gru --seeds 0 1 2

trains each network of `models.py` as it is, adds gates with `keras_l0.add_gates` under
a budget of parameters and MACs, trains on, strips, where the settings say so trains
what is left for some epochs more, and compares the test errors after the last epoch.
Each run is appended to a JSON file, which is rendered as a Markdown table; a run that
the file holds already is not made again. ``--validation`` holds out a twelfth of the
training set and reports the error on that: for choosing settings.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from images import DATASETS, load
from models import NETWORKS
from runs import Runs, Timed, facts, options, settings_option, use_threads
from transfer_table import render, run_row

import keras_l0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run is trained with; ``share`` is the budget, of parameters and MACs."""

    share: float = 0.24
    dense_epochs: int = 8
    gated_epochs: int = 12
    fine_epochs: int = 0
    batch_size: int = 128
    learning_rate: float = 1e-3
    gated_learning_rate: float = 1e-3


# Recurrences are asked for a third; what takes long to train is trained for less. What
# has BatchNormalization in many layers gains by training what is left: for MobileNetV2
# chosen by --validation --datasets fashion_mnist --set fine_epochs=6, or 0.
SHORT = Settings(dense_epochs=6, gated_epochs=9)
SETTINGS = {name: Settings() for name in NETWORKS} | {
    "gru": Settings(share=0.32),
    "resnet_20": dataclasses.replace(SHORT, fine_epochs=6),
    "mobilenet_v2": dataclasses.replace(SHORT, fine_epochs=6),
    "vit_4": SHORT,
}


def train(
    model: keras.Model, x: np.ndarray, y: np.ndarray, settings: Settings, epochs: int,
    rate: float | None = None,
) -> None:  # fmt: skip
    """Trains with Adam, whose learning rate falls along a cosine to 0."""
    compile_to_train(model, len(x), settings, epochs, rate)
    model.fit(x, y, settings.batch_size, epochs, verbose=0)


def compile_to_train(
    model: keras.Model, count: int, settings: Settings, epochs: int,
    rate: float | None = None,
) -> None:  # fmt: skip
    """Compiles a model for that, on so many images."""
    steps = -(-count // settings.batch_size)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                rate or settings.learning_rate, steps * epochs
            )
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=min(20, steps),
        jit_compile=False,
    )


def pruned(
    dense: keras.Model, x: np.ndarray, y: np.ndarray, settings: Settings,
    budget: keras_l0.Budget, seed: int,
) -> keras.Model:  # fmt: skip
    """What gates under a budget leave of a trained network, trained to the end."""
    gated = keras_l0.add_gates(dense, budget=budget, seed=seed)
    train(gated, x, y, settings, settings.gated_epochs, settings.gated_learning_rate)
    small = keras_l0.strip(gated, budget=budget, data=x[:100])
    if settings.fine_epochs:
        train(small, x, y, settings, settings.fine_epochs)
    return small


def error(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Share of wrong answers, in percent."""
    answers = model.predict(x, 500, verbose=0).argmax(-1)
    return 100 * float(np.mean(answers != y))


def run(key: dict[str, Any], settings: Settings, args: argparse.Namespace) -> dict:
    """Trains one network twice, and returns the record."""
    x, y, x_test, y_test = load(
        key["dataset"], validation=args.validation, tiny=args.tiny
    )
    keras.utils.set_random_seed(key["seed"])
    with Timed() as timed:
        dense = NETWORKS[key["network"]]()
        train(dense, x, y, settings, settings.dense_epochs)
        budget = keras_l0.Budget(params=settings.share, macs=settings.share)
        small = pruned(dense, x, y, settings, budget, key["seed"])
    before, after = keras_l0.plan(dense).before, keras_l0.plan(small).before
    return {
        **key,
        "error_dense": error(dense, x_test, y_test),
        "error": error(small, x_test, y_test),
        "params_dense": before.params,
        "params": after.params,
        "macs_dense": before.macs,
        "macs": after.macs,
        "reached": keras_l0.plan_gates(dense).reached,
        "minutes": timed.minutes,
        "cpu_minutes": timed.cpu_minutes,
        **facts(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Runs what was asked for and has not been run yet, and writes the results."""
    parser = options(
        __doc__, "results-transfer", "random images, one epoch", data=False
    )
    settings_option(parser)
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args(arguments)
    use_threads(args.threads)
    changes = dict(args.set)
    if args.tiny:
        changes |= {"dense_epochs": 1, "gated_epochs": 1, "fine_epochs": 1}
    runs = Runs(args.output)
    for seed in args.seeds:
        for network in args.networks:
            settings = dataclasses.replace(SETTINGS[network], **changes)
            for dataset in args.datasets:
                key = {
                    "network": network,
                    "dataset": dataset,
                    "seed": seed,
                    "validation": args.validation,
                    "tiny": args.tiny,
                    "settings": dataclasses.asdict(settings),
                }
                if runs.found(key):
                    continue
                runs.keep(run(key, settings, args))
                print(run_row(runs[-1]), flush=True)
    args.output.with_suffix(".md").write_text(render(runs) + "\n")


if __name__ == "__main__":
    main()
