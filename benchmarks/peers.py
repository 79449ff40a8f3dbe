"""What else a user might do: gates beside other ways to the same size in the same time.

    python benchmarks/peers.py --networks lenet_5 resnet_20 --seeds 0 1 2 3 4

trains each network of `models.py`, and then makes it smaller in four ways, to the same
share of its MACs: by gates under a budget (`gates`), by closing the units with the
smallest weights in each layer (`norm`: the L1 norm of filters, Li et al. 2017,
arXiv 1608.08710), by closing units at random (`random`), and by training a network
of that size from scratch (`narrow`). All are stripped by `keras_l0.strip`, so their
sizes are counted alike, and each is trained on for as long, in CPU time, as the gated
network was; `narrow` has the time of the dense network as well. Each network, data set
and seed is a few lines of a JSON file, which is rendered as a Markdown table; what the
file holds is not run again. ``--validation`` holds out a twelfth of the training set.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from images import DATASETS, load
from models import NETWORKS
from peers_table import render, run_row
from ranking import close_lowest, norms, random_scores
from runs import Runs, Timed, facts, options, use_threads
from transfer import SETTINGS, Settings, error, pruned, train

import keras_l0

METHODS = ("gates", "norm", "random", "narrow")
# Of an epoch, to tell how long one takes.
TRIED = 8


def epochs_in(
    minutes: float, model: keras.Model, x: np.ndarray, y: np.ndarray, settings: Settings
) -> int:
    """How many epochs of a network fit into some CPU time, at least one."""
    trial = keras.models.clone_model(model)
    some = max(len(x) // TRIED, min(len(x), settings.batch_size))
    train(trial, x[:some], y[:some], settings, 1)  # compiles
    with Timed() as timed:
        trial.fit(x[:some], y[:some], settings.batch_size, verbose=0)
    return max(1, round(minutes / (timed.cpu_minutes * len(x) / some)))


def shrink(method: str, dense: keras.Model, share: float, seed: int) -> keras.Model:
    """A network with that share of the MACs, not yet trained on."""
    rng = np.random.default_rng(seed)
    scores = norms if method == "norm" else random_scores(rng)
    small = keras_l0.strip(close_lowest(dense, scores, share), verify=False)
    if method == "narrow":
        keras.utils.set_random_seed(seed)
        return keras.models.clone_model(small)
    return small


def run(key: dict[str, Any], settings: Settings, args: argparse.Namespace) -> list:
    """Trains one network, makes it smaller in each way, and returns the records."""
    x, y, x_test, y_test = load(
        key["dataset"], validation=args.validation, tiny=args.tiny
    )
    keras.utils.set_random_seed(key["seed"])
    dense = NETWORKS[key["network"]]()
    with Timed() as dense_time:
        train(dense, x, y, settings, settings.dense_epochs)
    budget = keras_l0.Budget(macs=args.share)
    with Timed() as gated_time:
        of_gates = pruned(dense, x, y, settings, budget, key["seed"])
    before = keras_l0.plan(dense).before
    records = []
    for method in METHODS:
        if method == "gates":
            small, minutes = of_gates, gated_time.cpu_minutes
            epochs = settings.gated_epochs + settings.fine_epochs
        else:
            small = shrink(method, dense, args.share, key["seed"])
            minutes = gated_time.cpu_minutes
            if method == "narrow":
                minutes += dense_time.cpu_minutes
            epochs = epochs_in(minutes, small, x, y, settings)
            with Timed() as timed:
                train(small, x, y, settings, epochs)
            minutes = timed.cpu_minutes
        if method != "narrow":
            minutes += dense_time.cpu_minutes
        after = keras_l0.plan(small).before
        records.append(
            {
                **key,
                "method": method,
                "error_dense": error(dense, x_test, y_test),
                "error": error(small, x_test, y_test),
                "params_dense": before.params,
                "params": after.params,
                "macs_dense": before.macs,
                "macs": after.macs,
                "epochs": epochs,
                "cpu_minutes": minutes,
                **facts(),
            }
        )
    return records


def main(arguments: list[str] | None = None) -> None:
    """Runs what was asked for and has not been run yet, and writes the results."""
    parser = options(__doc__, "results-peers", "random images, one epoch", data=False)
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    add("--share", type=float, default=0.25, help="of the MACs")
    args = parser.parse_args(arguments)
    use_threads(args.threads)
    runs = Runs(args.output)
    for seed in args.seeds:
        for network in args.networks:
            settings = SETTINGS[network]
            if args.tiny:
                settings = Settings(dense_epochs=1, gated_epochs=1)
            for dataset in args.datasets:
                key = {
                    "network": network,
                    "dataset": dataset,
                    "seed": seed,
                    "share": args.share,
                    "validation": args.validation,
                    "tiny": args.tiny,
                }
                if runs.found(key):
                    continue
                made = run(key, settings, args)
                runs.keep(*made)
                print("\n".join(map(run_row, made)), flush=True)
    args.output.with_suffix(".md").write_text(render(runs) + "\n")


if __name__ == "__main__":
    main()
