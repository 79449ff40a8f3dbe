"""add_gates and strip on every model of `keras.applications`: with open gates, nothing.

    python benchmarks/identity.py --models ResNet50 VGG16

builds each model with random weights, adds gates and strips it again, and checks that
the gated model and the stripped one compute what the model does, that the stripped one
is as large and that all names are still there. Each model is one line of a JSON file,
which is rendered as a Markdown table; a model that the file holds is not run again.
"""

from __future__ import annotations

import concurrent.futures
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mnist_table import table
from runs import Parser, Runs, facts
from strip_zoo_runs import MODELS, build

HERE = Path(__file__).resolve().parent

PREFACE = """# Open gates change nothing

Written by `python benchmarks/identity.py`. Models have ten classes, random weights and
the smallest input that they take. "Reached" is the share of kernels outside the output
layer that goes when every group of gates is cut to one unit; "gated" and "stripped"
are the largest differences of their outputs from the model's, as a share of these, in
float32. Seconds are those of `add_gates` and of `strip` without its comparison, beside
those of `clone_model` and `set_weights`, on a machine that did other work too."""

HEADER = (
    "model | parameters | gates | masks | shared by several layers | reached | gated | "
    "stripped | add_gates (s) | strip (s) | copy (s) | holds"
)


def convert(name: str) -> dict[str, Any]:
    """Adds gates to one model and strips it."""
    import keras
    import numpy as np

    import keras_l0
    from keras_l0.analysis.tracing import trace
    from keras_l0.layers import L0SharedGate

    keras.utils.set_random_seed(0)
    model = build(name)
    x = np.random.default_rng(0).uniform(0, 255, (2, *model.input.shape[1:]))
    old = np.asarray(model(x.astype("float32"), training=False))

    def timed(function: Any, *args: Any, **options: Any) -> tuple[Any, float]:
        start = time.perf_counter()
        result = function(*args, **options)
        return result, time.perf_counter() - start

    def differs(other: keras.Model) -> float:
        new = np.asarray(other(x.astype("float32"), training=False))
        return float(np.abs(new - old).max() / np.abs(old).max())

    def copy() -> keras.Model:
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        return clone

    _, copied = timed(copy)
    plan = keras_l0.plan_gates(model)
    gated, adding = timed(keras_l0.add_gates, model, l0=1e-6)
    stripped, stripping = timed(keras_l0.strip, gated, verify=False)
    # Nested models are inlined: what counts is the layers in them.
    names = {node.name for node in trace(model).nodes}
    record = {
        "model": name,
        "params": model.count_params(),
        "params_stripped": stripped.count_params(),
        "gates": sum(gate.count for gate in keras_l0.gates(gated)),
        "masks": len(keras_l0.gates(gated)),
        "shared": sum(isinstance(layer, L0SharedGate) for layer in gated.layers),
        "reached": plan.reached,
        "reachable": keras_l0.plan(model).reachable,
        "gated": differs(gated),
        "stripped": differs(stripped),
        "seconds_add": adding,
        "seconds_strip": stripping,
        "seconds_copy": copied,
        **facts(),
    }
    holds = {
        "the gated model's outputs": record["gated"] <= 1e-6,
        "the stripped model's outputs": record["stripped"] <= 1e-6,
        "the stripped model's size": record["params"] == record["params_stripped"],
        "names of the gated model": names <= {x.name for x in gated.operations},
        "names of the stripped model": names <= {x.name for x in stripped.operations},
        "the same share": abs(record["reached"] - record["reachable"]) < 1e-4,
    }
    return {**record, "failures": [what for what, held in holds.items() if not held]}


def row(r: dict[str, Any]) -> str:
    """One model as a row of the table."""
    seconds = (r[f"seconds_{what}"] for what in ("add", "strip", "copy"))
    return (
        f"{r['model']} | {r['params']:,} | {r['gates']:,} | {r['masks']} | "
        f"{r['shared']} | {r['reached']:.2%} | {r['gated']:.1g} | "
        f"{r['stripped']:.1g} | {' | '.join(f'{s:.1f}' for s in seconds)} | "
        f"{', '.join(r['failures']) or 'all'}"
    )


def render(runs: list[dict[str, Any]]) -> str:
    """The records as Markdown."""
    return f"{PREFACE}\n\n{table(HEADER, [row(r) for r in runs])}"


def main(arguments: list[str] | None = None) -> int:
    """Runs the models that have not been run yet; the number of those that fail."""
    parser = Parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--output", type=Path, default=HERE / "results-identity.json")
    args = parser.parse_args(arguments)
    runs = Runs(args.output)
    left = [name for name in args.models if name not in {r["model"] for r in runs}]
    # Each in a process of its own: memory of one is none of the next one's.
    with concurrent.futures.ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:
        for record in pool.map(convert, left):
            runs.keep(record)
            print(row(record), flush=True)
    args.output.with_suffix(".md").write_text(render(runs) + "\n")
    return sum(bool(r["failures"]) for r in runs)


if __name__ == "__main__":
    sys.exit(main() > 0)
