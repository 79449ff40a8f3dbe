"""What else a user might do: gates beside other ways to the same size in the same time.

    python benchmarks/peers.py --networks lenet_5 resnet_20 --seeds 0 1 2 3 4

trains each network of `models.py`, and then makes it smaller, to the same share of its
MACs: by gates under a budget (`gates`), by gates for half of the epochs and by training
what strip leaves for the rest of the time (`gates_tuned`), by the same under a budget
that limits parameters to that share as well (`gates_both`), by closing the units with
the smallest weights in each layer (`norm`: the L1 norm of filters, Li et al. 2017,
arXiv 1608.08710), by closing units at random (`random`), and by training a network of
that size from scratch (`narrow`). These are stripped by `keras_l0.strip`, so their
sizes are counted alike. `tfmot` is what tensorflow-model-optimization does in the same
place: of the weights of each layer it sets all but that share to 0, by magnitude (Zhu
and Gupta 2017, arXiv 1710.01878), and leaves the layers as large as they are; it takes
the extra ``tfmot``. Each trains for as long, in CPU time, as the gated network did;
`narrow` has the time of the dense network as well. Each way is a record in a JSON file,
which is rendered as a Markdown table; what the file holds is not run again.
``--validation`` holds out a twelfth of the training set.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
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
from transfer import SETTINGS, Settings, compile_to_train, error, pruned, train

import keras_l0
from keras_l0.export.tf_keras_twin import build_twin

METHODS = ("gates", "gates_tuned", "gates_both", "norm", "random", "narrow", "tfmot")
# What can be run without the extra.
INSTALLED = METHODS[: None if find_spec("tensorflow_model_optimization") else -1]
# Which have layers that tf_keras does not.
NOT_IN_TF_KERAS = ("vit_4",)
# What is left of the MACs; of some more, where one unit in each layer takes a tenth.
SHARE = 0.1
SHARES = {"vit_4": 0.25}
# Of an epoch, to tell how long one takes.
TRIED = 8


def epochs_in(
    minutes: float, fit: Callable[..., Any], x: np.ndarray, y: np.ndarray
) -> int:
    """How many epochs fit into some CPU time, at least one.

    Args:
        minutes: The CPU time.
        fit: Trains on images and labels for so many ``epochs``.
        x: Images.
        y: Labels.
    """
    some = max(1, len(x) // TRIED)
    many = min(4 * some, len(x))
    fit(x[:some], y[:some], epochs=1)  # compiles
    # Of one epoch each: what one takes beside its images is not to be multiplied.
    took = []
    for images in (some, many):
        with Timed() as timed:
            fit(x[:images], y[:images], epochs=1)
        took.append(timed.cpu_minutes)
    # Few images may seem to take no time at all.
    each = max((took[1] - took[0]) / max(1, many - some), took[1] / many / 10)
    beside = max(0.0, took[0] - each * some)
    return max(1, round((minutes - beside) / (each * len(x))))


def shrink(method: str, dense: keras.Model, share: float, seed: int) -> keras.Model:
    """A network with that share of the MACs, not yet trained on."""
    rng = np.random.default_rng(seed)
    scores = norms if method == "norm" else random_scores(rng)
    small = keras_l0.strip(close_lowest(dense, scores, share), verify=False)
    if method == "narrow":
        keras.utils.set_random_seed(seed)
        return keras.models.clone_model(small)
    return small


def trained_on(
    model: keras.Model, minutes: float, x: np.ndarray, y: np.ndarray, settings: Settings
) -> int:
    """Trains a network for so long, and returns the number of epochs."""
    trial = keras.models.clone_model(model)
    compile_to_train(trial, len(x) // TRIED, settings, 1)
    some = {"batch_size": settings.batch_size, "verbose": 0}
    epochs = epochs_in(minutes, partial(trial.fit, **some), x, y)
    train(model, x, y, settings, epochs)
    return epochs


def magnitude(
    dense: keras.Model, share: float, minutes: float, x: np.ndarray, y: np.ndarray,
    settings: Settings,
) -> tuple[keras.Model, int]:  # fmt: skip
    """A copy that TFMOT prunes while it trains for so long, and the number of epochs.

    The share of zeros rises in the first half of the training, less and less.
    """
    tf_keras, tfmot = map(import_module, ("tf_keras", "tensorflow_model_optimization"))
    functional = keras.Model(dense.inputs, dense.outputs[0])
    sparsity = tfmot.sparsity.keras

    def wrapped(steps: int) -> Any:
        schedule = sparsity.PolynomialDecay(
            0.0, 1 - share, 0, steps // 2, frequency=min(100, max(1, steps // 20))
        )
        model = sparsity.prune_low_magnitude(build_twin(functional).model, schedule)
        rate = tf_keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
        # That it cannot do several steps in one execution is its own limit.
        model.compile(
            tf_keras.optimizers.Adam(rate),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        return partial(
            model.fit, batch_size=settings.batch_size, verbose=0,
            callbacks=[sparsity.UpdatePruningStep()],
        )  # fmt: skip

    trial = wrapped(1000)
    epochs = epochs_in(minutes, trial, x, y)
    fit = wrapped(epochs * -(-len(x) // settings.batch_size))
    pruned = sparsity.strip_pruning(fit(x, y, epochs=epochs).model)
    copy = keras.models.clone_model(dense)
    for layer in pruned.layers:
        if layer.weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy, epochs


def run(
    key: dict[str, Any], methods: list[str], settings: Settings,
    args: argparse.Namespace,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Trains one network, makes it smaller in each way, and yields the records."""
    x, y, x_test, y_test = load(
        key["dataset"], validation=args.validation, tiny=args.tiny
    )
    x, y = x[: args.images], y[: args.images]
    keras.utils.set_random_seed(key["seed"])
    dense = NETWORKS[key["network"]]()
    with Timed() as dense_time:
        train(dense, x, y, settings, settings.dense_epochs)
    of_dense = error(dense, x_test, y_test)
    before = keras_l0.plan(dense).before
    budget = keras_l0.Budget(macs=key["share"])
    # All others are given the time that this takes.
    with Timed() as gated_time:
        of_gates = pruned(dense, x, y, settings, budget, key["seed"])
    for method in methods:
        minutes = gated_time.cpu_minutes
        with Timed() as timed:
            if method == "gates":
                small = of_gates
                epochs = settings.gated_epochs + settings.fine_epochs
            elif method in ("gates_tuned", "gates_both"):
                params = key["share"] if method == "gates_both" else None
                limits = keras_l0.Budget(macs=key["share"], params=params)
                half = dataclasses.replace(
                    settings, gated_epochs=-(-settings.gated_epochs // 2), fine_epochs=0
                )
                with Timed() as spent:
                    small = pruned(dense, x, y, half, limits, key["seed"])
                left = max(0.0, minutes - spent.cpu_minutes)
                epochs = half.gated_epochs + trained_on(small, left, x, y, settings)
            elif method == "tfmot":
                small, epochs = magnitude(dense, key["share"], minutes, x, y, settings)
            else:
                small = shrink(method, dense, key["share"], key["seed"])
                if method == "narrow":
                    minutes += dense_time.cpu_minutes
                epochs = trained_on(small, minutes, x, y, settings)
        size = keras_l0.plan(small).before
        yield {
            **key,
            "method": method,
            "trained_on": len(x),
            "error_dense": of_dense,
            "error": error(small, x_test, y_test),
            "params_dense": before.params,
            "params": size.params,
            "not_zero": sum(int(np.count_nonzero(w)) for w in small.get_weights()),
            "macs_dense": before.macs,
            "macs": size.macs,
            "epochs": epochs,
            "cpu_minutes": minutes if method == "gates" else timed.cpu_minutes,
            **facts(),
        }


def main(arguments: list[str] | None = None) -> None:
    """Runs what was asked for and has not been run yet, and writes the results."""
    parser = options(__doc__, "results-peers", "random images, one epoch", data=False)
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    add("--share", nargs="+", type=float, help="of the MACs; default: .1, ViT .25")
    add("--images", type=int, default=60_000, help="how many to train on")
    add("--methods", nargs="+", choices=METHODS, default=list(INSTALLED))
    args = parser.parse_args(arguments)
    use_threads(args.threads)
    runs = Runs(args.output)
    for seed, network, dataset in itertools.product(
        args.seeds, args.networks, args.datasets
    ):
        for share in args.share or [SHARES.get(network, SHARE)]:
            settings = SETTINGS[network]
            if args.tiny:
                settings = Settings(dense_epochs=1, gated_epochs=1)
            key = {
                "network": network,
                "dataset": dataset,
                "images": args.images,
                "settings": dataclasses.asdict(settings),
                "seed": seed,
                "share": share,
                "validation": args.validation,
                "tiny": args.tiny,
            }
            missing = [
                method
                for method in args.methods
                if not runs.found(key | {"method": method})
                and not (method == "tfmot" and network in NOT_IN_TF_KERAS)
            ]
            for made in run(key, missing, settings, args) if missing else ():
                runs.keep(made)
                print(run_row(made), flush=True)
    args.output.with_suffix(".md").write_text(render(runs) + "\n")


if __name__ == "__main__":
    main()
