"""What gates cost in training: time and memory of a step, beside none and Dropout.

    KERAS_BACKEND=tensorflow python benchmarks/overhead.py
    KERAS_BACKEND=jax python benchmarks/overhead.py
    KERAS_BACKEND=torch python benchmarks/overhead.py

trains each network in four forms, with nothing, Dropout, gates, or gates under a budget
behind its hidden layers (in the LeNets: in them), taking turns in one process: what
else the machine does slows all of them. Each figure is the ratio to the plain network's
time in the same round, the median and the quartiles over rounds. Peak memory is that of
a process per form. Results go to a JSON file, one record per backend and network,
rendered as Markdown.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from mnist_table import table
from runs import Parser, Runs, facts, use_threads
from wide_resnet import network as wide_resnet

import keras_l0
from keras_l0.layers import L0Gate

HERE = Path(__file__).resolve().parent
FORMS = ("plain", "dropout", "gated", "budget")
# Batch size, steps in a round, and the images.
SIZES = {
    "lenet-300-100": (256, 50, (28, 28, 1)),
    "lenet-5": (128, 5, (28, 28, 1)),
    "wrn-16-4": (8, 2, (16, 16, 3)),
}
PREFACE = """# What gates cost in training

Written by `python benchmarks/overhead.py`; versions and all rounds are in the JSON file
beside this one. CPU time and wall clock of the same training steps, over those of the
plain network in the same round: the median, and in brackets the quartiles over rounds.
Peak memory is that of a process that trains this form only, the backend included;
where there is none, it has not been measured. To put a model under a budget copies it,
for which Keras imports TensorFlow where it is installed: on the other backends most of
that memory is TensorFlow's."""
HEAD = (
    "backend | network | batch | form | CPU time | wall clock | peak memory | "
    "plain: ms of CPU per step | rounds | commit"
)


def build(name: str, form: str, steps: int) -> keras.Model:
    """A network in one of the forms, compiled."""

    l0 = 0.0 if form == "budget" else 1e-6

    def behind(x: Any, conv: Any = None) -> Any:
        """What is behind a hidden layer that is not gated itself."""
        if form == "plain":
            return x
        if form == "dropout":
            return layers.Dropout(0.5)(x)
        return L0Gate(l0=l0, cost=100.0)(x)

    def hidden(kind: str, x: Any, *sizes: int) -> Any:
        """A layer of ReLUs, by its name in Keras."""
        if form in ("plain", "dropout"):
            return behind(getattr(layers, kind)(*sizes, activation="relu")(x))
        gated = getattr(keras_l0.layers, f"L0{kind}")
        return gated(*sizes, activation="relu", l0=l0)(x)

    _, _, shape = SIZES[name]
    x = image = keras.Input(shape)
    if name == "wrn-16-4":
        model = wide_resnet(shape, 10, 16, 4, behind)
    else:
        if name == "lenet-5":
            for filters in (20, 50):
                x = layers.MaxPooling2D()(hidden("Conv2D", x, filters, 5))
        x = layers.Flatten()(x)
        for units in (300, 100) if name == "lenet-300-100" else (500,):
            x = hidden("Dense", x, units)
        model = keras.Model(image, layers.Dense(10)(x))
    if form == "budget":
        model = keras_l0.with_budget(model, keras_l0.Budget(params=0.9))
    backend = keras.backend.backend()
    model.compile(
        keras.optimizers.Adam(1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # On Torch Keras has one, and runs it as Python.
        steps_per_execution=1 if backend == "torch" else steps,
        jit_compile="auto" if backend == "jax" else False,
    )
    return model


def trainer(name: str, form: str, steps: int) -> Callable[[], Any]:
    """What trains a form for one round of steps."""
    batch, _, shape = SIZES[name]
    rng = np.random.default_rng(0)
    x = rng.random((batch * steps, *shape), "float32")
    y = rng.integers(0, 10, batch * steps)
    model = build(name, form, steps)
    return lambda: model.fit(x, y, batch, 1, verbose=0, shuffle=False)


def measure(name: str, rounds: int, steps: int) -> dict[str, Any]:
    """Times of all forms, taking turns."""
    trainers = {form: trainer(name, form, steps) for form in FORMS}
    times: dict[str, list[list[float]]] = {form: [] for form in FORMS}
    for number in range(rounds + 1):
        for form, train in trainers.items():
            cpu, wall = time.process_time(), time.perf_counter()
            train()
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if number:  # the first one compiles
                times[form].append([1000 * seconds / steps for seconds in spent])
    return {"network": name, "batch": SIZES[name][0], "ms": times}


def peak(name: str, form: str) -> int:
    """The peak of a process that trains one form, in KiB."""
    command = [sys.executable, __file__, "--peak", name, form]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(said.split()[-1])


def high_water() -> int:
    """The most memory that this process has held, in KiB.

    Not what `resource` says, which a process takes over from the one that starts it.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


def rows(record: dict[str, Any]) -> list[str]:
    """A record as rows of the table."""
    times = {form: np.array(ms) for form, ms in record["ms"].items()}
    lines = []
    for form in FORMS[1:]:
        quartiles = np.percentile(times[form] / times["plain"], [25, 50, 75], axis=0)
        cpu, wall = (f"{m:.2f} ({a:.2f}-{b:.2f})" for a, m, b in quartiles.T)
        memory = record["peak_kib"]
        both = {form, "plain"} <= memory.keys()
        more = f"{memory[form] / memory['plain']:.3f}" if both else ""
        lines.append(
            f"{record['backend']} | {record['network']} | {record['batch']} | {form} | "
            f"{cpu} | {wall} | {more} | {np.median(times['plain'][:, 0]):.1f} | "
            f"{len(times[form])} | {record['commit']}"
        )
    return lines


def render(runs: list[dict[str, Any]]) -> str:
    """The records as Markdown."""
    lines = [line for record in runs for line in rows(record)]
    return f"{PREFACE}\n\n{table(HEAD, lines)}"


def main(arguments: list[str] | None = None) -> None:
    """Measures what was asked for, and writes the results."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--networks", nargs="+", choices=SIZES, default=list(SIZES))
    add("--rounds", type=int, default=15)
    add("--threads", type=int, default=1, help="not of JAX; 0: as they are")
    add("--memory", nargs="*", choices=FORMS, default=FORMS, help="of which forms")
    add("--tiny", action="store_true", help="one round of a step, no memory")
    add("--output", type=Path, default=HERE / "results-overhead.json")
    add("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        use_threads(args.threads)
    if backend == "torch":
        import torch

        torch.set_num_threads(args.threads or torch.get_num_threads())
    if args.peak:
        name, form = args.peak
        trainer(name, form, SIZES[name][1])()
        print(high_water())
        return
    runs = Runs(args.output)
    rounds, memory = (1, ()) if args.tiny else (args.rounds, args.memory)
    for name in args.networks:
        record = {
            "backend": backend,
            **measure(name, rounds, 1 if args.tiny else SIZES[name][1]),
            "peak_kib": {form: peak(name, form) for form in memory},
            **facts(),
        }
        print(*rows(record), sep="\n", flush=True)
        runs.keep(record, instead_of={"backend": backend, "network": name})
    args.output.with_suffix(".md").write_text(render(runs) + "\n")


if __name__ == "__main__":
    main()
