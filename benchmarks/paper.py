"""Table 1 of the paper: LeNet-300-100 and LeNet-5-Caffe on MNIST, size against error.

    python benchmarks/paper.py --seeds 0 1 2 3 4

trains both networks to several sizes, so that a front of sizes and errors comes of it.
The track ``plain`` is, as in the paper, one training from scratch on the
images as they are, LeNet-300-100 under the strengths of `mnist.py`, LeNet-5 under a
budget, and the error is that of the stripped network after the last epoch. ``practice``
is what a practitioner would do: train a dense network on shifted images, put gates into
it under a budget, with half of each target from the dense network's answers (Hinton et
al. 2015, arXiv 1503.02531), and train what strip leaves, which is cheap, for some time.
``--scales`` multiply the strengths or the budgets. Training compacts, which changes its
time only. Each run is appended to a JSON file, which is rendered as a table and
a plot; what it holds already is not run again. ``--validation`` reports errors on the
last twelfth of the training set: for choosing settings.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import mnist
import numpy as np
from paper_table import picture, render, run_row
from runs import Runs, Timed, facts, options, settings_option, use_threads

import keras_l0


@dataclasses.dataclass(frozen=True)
class Practice:
    """How a practitioner trains.

    Attributes:
        shift: Pixels by which images are moved at most, in each direction.
        teacher: Share of the targets that the dense network gives.
        temperature: Of its softmax.
        dense_epochs: Of the dense network.
        gated_epochs: Under the budget.
        fine_epochs: Of the stripped network.
        learning_rate: Of Adam, in each of them, at first.
        batch_size: In each of them.
    """

    shift: int = 1
    teacher: float = 0.5
    temperature: float = 2.0
    dense_epochs: int = 10
    gated_epochs: int = 20
    fine_epochs: int = 60
    learning_rate: float = 2e-3
    batch_size: int = 128


TRACKS = ("plain", "practice")
SCALES = {"plain": (0.5, 1.0, 1.4), "practice": (0.6, 1.0, 2.0)}
BUDGETS = {
    ("lenet-5", "plain"): {"params": 4_100, "macs": 283_000},
    ("lenet-300-100", "practice"): {"params": 9_700},
    ("lenet-5", "practice"): {"params": 2_800, "macs": 153_000},
}
# Under a budget, instead of what `mnist.SETTINGS` has. The limit is reached after this
# share of the epochs, and the learning rate starts anew when the gates are settled.
OF_BUDGET = {"epochs": 48, "dropout": (0.0, 0.0), "weight_decay": 0.1}
RAMP, SETTLED = 0.3, 0.75


class Trained(NamedTuple):
    """A gated network, what strip leaves of it, and that after further training."""

    gated: keras.Model
    stripped: keras.Model
    tuned: keras.Model


class Images(keras.utils.PyDataset):
    """Shuffled batches of images, shifted anew in each epoch.

    Args:
        x: Images, shape (n, 28, 28, 1).
        targets: Probabilities, shape (n, 10).
        shift: Pixels by which they are moved at most, in each direction.
        flat: Whether the network takes flat images.
        size: Of a batch.
        seed: Of order and shifts.
    """

    def __init__(
        self, x: np.ndarray, targets: np.ndarray, shift: int, flat: bool, size: int,
        seed: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.x, self.targets, self.shift = x, targets, shift
        self.flat, self.size = flat, size
        self.rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def on_epoch_end(self) -> None:
        """Draws order and shifts of the next epoch."""
        order = self.rng.permutation(len(self.x))
        images, most = self.x[order], self.shift
        if most:
            padded = np.pad(images, [(0, 0), (most, most), (most, most), (0, 0)])
            moves = self.rng.integers(0, 2 * most + 1, (len(images), 2))
            images = np.stack(
                [
                    image[row : row + 28, column : column + 28]
                    for image, (row, column) in zip(padded, moves, strict=True)
                ]
            )
        images = images.reshape(len(images), -1) if self.flat else images
        self.epoch = images, self.targets[order]

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        part = slice(index * self.size, (index + 1) * self.size)
        return tuple(values[part] for values in self.epoch)


@dataclasses.dataclass(frozen=True)
class Data:
    """What there is to train on.

    Attributes:
        x: Images, shape (n, 28, 28, 1).
        y: Labels, shape (n,).
        flat: Whether the network takes flat images.
        size: Of a batch.
        seed: Of order and shifts.
    """

    x: np.ndarray
    y: np.ndarray
    flat: bool
    size: int
    seed: int

    def shaped(self, x: np.ndarray) -> np.ndarray:
        """Images as the network takes them."""
        return x.reshape(len(x), -1) if self.flat else x

    def images(
        self, shift: int = 0, share: float = 0.0, temperature: float = 1.0,
        teacher: keras.Model | None = None,
    ) -> Images:  # fmt: skip
        """Batches, a share of whose targets a teacher gives."""
        targets = np.eye(10, dtype="float32")[self.y]
        if teacher is not None:
            # Of the images as they are; shifts do not change what they show.
            logits = teacher.predict(self.shaped(self.x), 500, verbose=0)
            soft = np.asarray(keras.ops.softmax(logits / temperature))
            targets = (1 - share) * targets + share * soft
        return Images(self.x, targets, shift, self.flat, self.size, self.seed)


def fit(
    model: keras.Model, images: Images, epochs: int, rate: float,
    weight_decay: float = 0.0, restarts: bool = False,
) -> keras.Model:  # fmt: skip
    """Trains with Adam, whose learning rate falls along a cosine to 0.

    What is closed for good leaves a gated model; what is returned is what is left.

    Args:
        model: The network.
        images: What to train it on.
        epochs: For how long.
        rate: The learning rate at first.
        weight_decay: Of kernels.
        restarts: Whether it starts anew, once.
    """
    schedules = keras.optimizers.schedules
    steps = len(images) * epochs
    schedule = schedules.CosineDecay(rate, steps)
    if restarts:
        first = round(SETTLED * steps)
        schedule = schedules.CosineDecayRestarts(rate, first, t_mul=1 / SETTLED - 1)
    model.compile(
        mnist.adam(schedule, weight_decay),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        steps_per_execution=min(20, len(images)),
        jit_compile=False,
    )
    train = keras_l0.fit_compacting if keras_l0.gates(model) else type(model).fit
    return train(model, images, epochs=epochs, verbose=0).model


def plain(settings: mnist.Settings, key: dict[str, Any], data: Data) -> Trained:
    """Trains as the paper does."""
    model, images, budget = mnist.build(key["network"], settings), data.images(), None
    if key["budget"]:
        ramp = round(RAMP * len(images) * settings.epochs)
        budget = keras_l0.Budget(**key["budget"], inputs="gather", ramp_steps=ramp)
        model = keras_l0.with_budget(model, budget)
    how = settings.epochs, settings.learning_rate, settings.weight_decay
    model = fit(model, images, *how, restarts=bool(key["budget"]))
    stripped = keras_l0.strip(model, inputs="gather", budget=budget)
    return Trained(model, stripped, stripped)


def practice(how: Practice, key: dict[str, Any], data: Data) -> Trained:
    """Trains as a practitioner would."""
    network = key["network"]
    without = mnist.Settings(l0=(0.0,) * len(mnist.SETTINGS[network].l0), epochs=0)
    gated = mnist.build(network, without)
    # All gates are open: this is the network without them.
    dense = keras_l0.strip(gated, verify=False)
    fit(dense, data.images(how.shift), how.dense_epochs, how.learning_rate)
    layers = [layer for layer in gated.layers if hasattr(layer, "kernel")]
    trained = [layer for layer in dense.layers if hasattr(layer, "kernel")]
    for layer, source in zip(layers, trained, strict=True):
        layer.kernel.assign(source.kernel)
        layer.bias.assign(source.bias)
    lessons = data.images(how.shift, how.teacher, how.temperature, dense)
    budget = keras_l0.Budget(**key["budget"], inputs="gather")
    model = keras_l0.with_budget(gated, budget)
    model = fit(model, lessons, how.gated_epochs, how.learning_rate)
    stripped = keras_l0.strip(model, budget=budget)
    tuned = keras.models.clone_model(stripped)
    tuned.set_weights(stripped.get_weights())
    return Trained(
        model, stripped, fit(tuned, lessons, how.fine_epochs, how.learning_rate)
    )


def run(key: dict[str, Any], args: Any) -> dict[str, Any]:
    """Trains one network, strips it, and returns the record."""
    how = key["settings"]
    flat = key["network"] == "lenet-300-100"
    x, y, x_test, y_test = mnist.load(args, False, how.get("standardize", False))
    data = Data(x, y, flat, how["batch_size"], key["seed"])
    x_test = data.shaped(x_test)
    keras.utils.set_random_seed(key["seed"])
    with Timed() as timed:
        if key["track"] == "plain":
            found = plain(mnist.Settings(**how), key, data)
        else:
            found = practice(Practice(**how), key, data)
    errors = [
        mnist.error(model.predict(x_test, 500, verbose=0), y_test)
        for model in (found.stripped, found.tuned)
    ]
    sizes = keras_l0.profile(found.gated, inputs="gather")
    return {
        **key,
        "architecture": [n.kept for n in sizes.layers if n.kind.startswith("L0")],
        "params": found.tuned.count_params(),
        "params_keep": keras_l0.profile(found.gated).deployed.params,
        "macs": keras_l0.plan(found.tuned).before.macs,
        "error_stripped": errors[0],
        "error": errors[1],
        "minutes": timed.minutes,
        "cpu_minutes": timed.cpu_minutes,
        **facts(),
    }


def planned(args: Any) -> Iterator[dict[str, Any]]:
    """What was asked for."""
    for seed, network, track in itertools.product(args.seeds, args.network, args.track):
        for scale in args.scales or SCALES[track]:
            limits = BUDGETS.get((network, track), {})
            how = dataclasses.asdict(Practice())
            if track == "plain":
                how = dataclasses.asdict(mnist.SETTINGS[network])
                price = 0.0 if limits else scale
                how["l0"] = tuple(float(f"{price * l0:.4g}") for l0 in how["l0"])
                how |= OF_BUDGET if limits else {}
            how |= dict(args.set)
            if args.tiny:
                epochs = [name for name in how if "epochs" in name and how[name]]
                how |= dict.fromkeys(epochs, 1)
            yield {
                "network": network,
                "track": track,
                "scale": scale,
                "budget": {name: round(scale * n) for name, n in limits.items()},
                "seed": seed,
                "validation": args.validation,
                "tiny": args.tiny,
                "settings": json.loads(json.dumps(how)),
            }


def main(arguments: list[str] | None = None) -> None:
    """Runs what was asked for and has not been run yet, and writes the results."""
    parser = options(__doc__, "results-paper", "600 images, one epoch")
    settings_option(parser)
    add = parser.add_argument
    add("--network", nargs="+", choices=mnist.NETWORKS, default=list(mnist.NETWORKS))
    add("--track", nargs="+", choices=TRACKS, default=list(TRACKS))
    add("--scales", nargs="+", type=float, help="of the strengths, or of the budgets")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    args = parser.parse_args(arguments)
    use_threads(args.threads)
    runs = Runs(args.output)
    for key in planned(args):
        if not runs.found(key):
            runs.keep(run(key, args))
            print(run_row(runs[-1]), flush=True)
    args.output.with_suffix(".md").write_text(render(runs) + "\n")
    picture(runs, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
