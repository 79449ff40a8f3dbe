"""Whole trainings with and without compaction, one after the other, from equal seeds.

    python benchmarks/compaction.py --seeds 0 1

trains LeNet-300-100, LeNet-5-Caffe and a residual network on MNIST, and a WRN-16-4 on
the digits of scikit-learn and on a few images of MNIST, by `model.fit` and by
`keras_l0.fit_compacting`, under the same settings, the order turned around with each
seed. It appends each run to a JSON file and renders that file as a Markdown table. A
run that the file holds already is not trained again. What is timed is the whole of the
training: tracing, all epochs, and what compaction itself takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import budget
import keras
import mnist
import numpy as np
import wide_resnet
from compaction_table import render, run_row
from runs import Runs, facts, options, use_threads

import keras_l0

# The strengths and rates of `mnist.py`, the network and the rates of `budget.py`.
EPOCHS = {
    "lenet-300-100": 40, "lenet-5": 24, "residual": 10, "wrn-16-4": 200,
    "wrn-16-4-mnist": 30,
}  # fmt: skip
WIDE = {"wrn-16-4": (8, 8, 1), "wrn-16-4-mnist": (28, 28, 1)}
# Of the digits all that there is to train on; of MNIST as many, of which an epoch takes
# forty seconds. They make few batches of 128.
IMAGES = dict.fromkeys(WIDE, 1437)
BATCH_SIZES = dict.fromkeys(WIDE, 32)
# Their gates waver under a budget: what is closed at test time goes, however often it
# is open in training.
COMPACTIONS = dict.fromkeys(
    WIDE, keras_l0.Compaction(max_open=0.32, min_saving=0.25, times=4)
)
BUDGET = keras_l0.Budget(macs=0.25)


class Clock(keras.callbacks.Callback):
    """Notes how long it took, and how large the model was, at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[dict[str, float]] = []
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(
            {
                "minutes": (time.perf_counter() - self.wall) / 60,
                "cpu_minutes": (time.process_time() - self.cpu) / 60,
                "trained": self.model.count_params(),
            }
        )


def build(network: str) -> keras.Model:
    """The gated network, with logits as its output, compiled later."""
    if network == "residual":
        return keras_l0.add_gates(budget.residual(), budget=BUDGET)
    if network in WIDE:
        dense = wide_resnet.network(WIDE[network], 10, 16, 4, lambda x, _: x)
        return keras_l0.add_gates(dense, budget=BUDGET)
    return mnist.build(network, mnist.SETTINGS[network])


def load(network: str, args: argparse.Namespace) -> list[np.ndarray]:
    """Images and labels: to train on, and to report the error of."""
    if network == "wrn-16-4":
        return wide_resnet.load("digits", args.tiny)
    return mnist.load(args, network == "lenet-300-100", False)


def run(key: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Trains one network one way; the record of it."""
    network = key["network"]
    x, y, x_test, y_test = load(network, args)
    x, y = x[: key["images"]], y[: key["images"]]
    keras.utils.set_random_seed(key["seed"])
    model = build(network)
    steps = -(-len(x) // key["batch_size"])
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps * key["epochs"])
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=min(20, steps),
        jit_compile=False,
    )
    clock = Clock()
    options: dict[str, Any] = {
        "batch_size": key["batch_size"], "epochs": key["epochs"], "verbose": 0,
        "callbacks": [clock],
    }  # fmt: skip
    when = COMPACTIONS.get(network, keras_l0.Compaction())
    if key["compaction"]:
        history = keras_l0.fit_compacting(model, x, y, compaction=when, **options)
    else:
        history = model.fit(x, y, **options)
    clock.on_epoch_end(key["epochs"])
    model = history.model
    stripped = keras_l0.strip(model, data=x[:50])
    profile = keras_l0.profile(model)
    return {
        **key,
        **{name: clock.epochs[-1][name] for name in ("minutes", "cpu_minutes")},
        "each_epoch": clock.epochs[:-1],
        "params": stripped.count_params(),
        "macs": profile.deployed.macs,
        "trained": model.count_params(),
        "error": mnist.error(stripped.predict(x_test, 500, verbose=0), y_test),
        "settings": dataclasses.asdict(when),
        **facts(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Runs what was asked for and has not been run yet, and writes the results."""
    parser = options(__doc__, "results-compaction", "600 images, four epochs")
    add = parser.add_argument
    add("--network", nargs="+", choices=list(EPOCHS), default=list(EPOCHS))
    add("--seeds", nargs="+", type=int, default=[0])
    add("--epochs", type=int, help="instead of those of the settings")
    add("--images", type=int, default=60_000, help="how many to train on")
    args = parser.parse_args(arguments)
    use_threads(args.threads)
    runs = Runs(args.output)
    for seed in args.seeds:
        for network in args.network:
            for compaction in (True, False) if seed % 2 else (False, True):
                key = {
                    "network": network,
                    "seed": seed,
                    "compaction": compaction,
                    "epochs": args.epochs or (4 if args.tiny else EPOCHS[network]),
                    "batch_size": BATCH_SIZES.get(network, 128),
                    "images": IMAGES.get(network, args.images),
                    "validation": args.validation,
                    "tiny": args.tiny,
                }
                if runs.found(key):
                    continue
                runs.keep(run(key, args))
                args.output.with_suffix(".md").write_text(render(runs) + "\n")
                print(run_row(runs[-1]), flush=True)
    args.output.with_suffix(".md").write_text(render(runs) + "\n")


if __name__ == "__main__":
    main()
