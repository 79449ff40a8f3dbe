"""Table 1 of the paper: LeNet-300-100 and LeNet-5-Caffe on MNIST, size against error.

    python benchmarks/paper.py --track plain --seeds 0 1 2 3 4

trains both networks under strengths of `mnist.py` times each of ``--scales``, so that
a front of sizes and errors comes of it. The track ``plain`` is like for like with the
paper: the images as they are, the last epoch of one training. ``practice`` is what a
practitioner would do: images shifted by up to two pixels, half of each target from the
dense network's answers (Hinton et al. 2015, arXiv 1503.02531), and some epochs of the
stripped network at the end. Each run is appended to a JSON file, which is rendered as a
Markdown table and a plot; what it holds already is not run again. ``--validation``
reports errors on the last twelfth of the training set: for choosing settings.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import mnist
import numpy as np
from paper_table import picture, render, run_row
from runs import Runs, facts, options, settings_option, use_threads

import keras_l0

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Track:
    """How a network is trained.

    Attributes:
        shift: Pixels by which images are moved at most, in each direction.
        teacher: Share of the targets that the dense network gives.
        temperature: Of its softmax.
        fine_tuning: Epochs of the stripped network.
    """

    shift: int = 0
    teacher: float = 0.0
    temperature: float = 2.0
    fine_tuning: int = 0


TRACKS = {"plain": Track(), "practice": Track(shift=2, teacher=0.5, fine_tuning=4)}
SCALES = (0.5, 1.0, 1.6, 2.5)
TEACHER_EPOCHS = 8


class Images(keras.utils.PyDataset):
    """Shuffled batches of shifted images with the targets of a track.

    Args:
        x: Images, shape (n, 28, 28, 1).
        y: Labels, shape (n,).
        track: The track.
        teacher: The dense network; only asked if the track has a teacher.
        flat: Whether the network takes flat images.
        size: Of a batch.
        seed: Of order and shifts.
    """

    def __init__(
        self, x: np.ndarray, y: np.ndarray, track: Track, teacher: keras.Model | None,
        flat: bool, size: int, seed: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.x, self.y, self.track, self.teacher = x, y, track, teacher
        self.flat, self.size = flat, size
        self.rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def on_epoch_end(self) -> None:
        """Draws order and shifts of the next epoch, and asks the teacher."""
        order = self.rng.permutation(len(self.x))
        images, labels, most = self.x[order], self.y[order], self.track.shift
        if most:
            padded = np.pad(images, [(0, 0), (most, most), (most, most), (0, 0)])
            moves = self.rng.integers(0, 2 * most + 1, (len(images), 2))
            images = np.stack(
                [
                    image[row : row + 28, column : column + 28]
                    for image, (row, column) in zip(padded, moves, strict=True)
                ]
            )
        targets = np.eye(10, dtype="float32")[labels]
        flat = images.reshape(len(images), -1)
        if self.teacher is not None:
            logits = self.teacher.predict(flat if self.flat else images, 500, verbose=0)
            soft = keras.ops.softmax(logits / self.track.temperature)
            share = self.track.teacher
            targets = (1 - share) * targets + share * np.asarray(soft)
        self.images, self.targets = flat if self.flat else images, targets

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(index * self.size, (index + 1) * self.size)
        return self.images[part], self.targets[part]


def fit(model: keras.Model, images: Images, epochs: int, rate: float) -> None:
    """Trains with Adam, whose learning rate falls along a cosine to 0."""
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(rate, len(images) * epochs)
        ),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    model.fit(images, epochs=epochs, verbose=0)


def run(key: dict[str, Any], settings: mnist.Settings, args: Any) -> dict[str, Any]:
    """Trains one network, strips it, and returns the record."""
    flat, track = key["network"] == "lenet-300-100", Track(**key["how"])
    x, y, x_test, y_test = mnist.load(args, False, settings.standardize)
    if flat:
        x_test = x_test.reshape(len(x_test), -1)
    keras.utils.set_random_seed(key["seed"])
    model = mnist.build(key["network"], settings)
    wall, cpu = time.perf_counter(), time.process_time()
    teacher = None
    size, seed = settings.batch_size, key["seed"]
    if track.teacher:
        # The network without gates: what strip makes of it while all are open.
        teacher = keras_l0.strip(mnist.build(key["network"], settings), verify=False)
        moved = dataclasses.replace(track, teacher=0.0)
        lessons = Images(x, y, moved, None, flat, size, seed)
        fit(teacher, lessons, min(TEACHER_EPOCHS, settings.epochs), 1e-3)
    images = Images(x, y, track, teacher, flat, size, seed)
    fit(model, images, settings.epochs, settings.learning_rate)
    stripped = keras_l0.strip(model, inputs="gather", data=x_test[:100])
    before = stripped.predict(x_test, 500, verbose=0)
    if track.fine_tuning:
        fit(stripped, images, min(track.fine_tuning, settings.epochs), 3e-4)
    after = stripped.predict(x_test, 500, verbose=0)
    sizes = keras_l0.profile(model, inputs="gather")
    return {
        **key,
        "architecture": [n.kept for n in sizes.layers if n.kind.startswith("L0")],
        "params": stripped.count_params(),
        "params_keep": keras_l0.profile(model).deployed.params,
        "macs": sizes.deployed.macs,
        "error_stripped": mnist.error(before, y_test),
        "error": mnist.error(after, y_test),
        "minutes": (time.perf_counter() - wall) / 60,
        "cpu_minutes": (time.process_time() - cpu) / 60,
        **facts(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Runs what was asked for and has not been run yet, and writes the results."""
    parser = options(__doc__, "results-paper", "600 images, one epoch")
    settings_option(parser)
    add = parser.add_argument
    add("--network", nargs="+", choices=mnist.NETWORKS, default=list(mnist.NETWORKS))
    add("--track", nargs="+", choices=TRACKS, default=list(TRACKS))
    add("--scales", nargs="+", type=float, default=SCALES, help="of the strengths")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    args = parser.parse_args(arguments)
    use_threads(args.threads)
    changes = dict(args.set)
    if args.tiny:
        changes["epochs"] = 1
    runs = Runs(args.output)
    for seed in args.seeds:
        for network in args.network:
            chosen = dataclasses.replace(mnist.SETTINGS[network], **changes)
            for scale in args.scales:
                l0 = tuple(float(f"{scale * price:.4g}") for price in chosen.l0)
                settings = dataclasses.replace(chosen, l0=l0)
                for track in args.track:
                    key = {
                        "network": network,
                        "track": track,
                        "scale": scale,
                        "seed": seed,
                        "validation": args.validation,
                        "tiny": args.tiny,
                        "how": dataclasses.asdict(TRACKS[track]),
                        "settings": json.loads(
                            json.dumps(dataclasses.asdict(settings))
                        ),
                    }
                    if runs.found(key):
                        continue
                    runs.keep(run(key, settings, args))
                    print(run_row(runs[-1]), flush=True)
    args.output.with_suffix(".md").write_text(render(runs) + "\n")
    picture(runs, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
