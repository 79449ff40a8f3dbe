"""Every model of `keras.applications`, gated, stripped and compared.

    python benchmarks/strip_zoo.py --models ResNet50 VGG16 --seeds 0 1

builds each model with random weights, puts a gate behind every layer with a kernel,
closes a third to two thirds of the units and checks what `keras_l0.strip` promises: the
same outputs (in float64 up to 1e-9 of their variation, in float32 up to ten times the
model's own rounding), that a mistake would be noticed, and exactly the size that `plan`
and `cost(open)` say; time and memory are measured by the way. Seeds with odd numbers
share gates along residual streams. `--kinds corners` compares `cost(open)` with what
strip makes under many random gates, whole layers closed included. Each run has a
process of its own, appends to a JSON file and is not repeated; the file is rendered as
a Markdown table.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from runs import Parser, Runs, facts
from strip_zoo_runs import FAMILIES, MODELS, WIDTHS, build, corners, prove
from strip_zoo_table import render, run_row

HERE = Path(__file__).resolve().parent

EVERY = [*MODELS, *WIDTHS]


def child(key: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Runs one run in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(key)]
    command += ["--corners", str(args.corners), "--repeats", str(args.repeats)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        # A process that was killed says nothing: mostly, memory ran out.
        said = (done.stderr.strip().splitlines() or ["killed"])[-1]
        return {**key, "failures": [f"exit {done.returncode}: {said}"]}
    return {**key, **json.loads(lines[-1])}


def run_child(key: dict[str, Any], args: argparse.Namespace) -> None:
    start = time.perf_counter()
    make = functools.partial(build, key["model"])
    if key["kind"] == "proof":
        record = prove(make, key["seed"], args.repeats)
    else:
        record = corners(make, key["seed"], args.corners)
    record |= {
        "minutes": (time.perf_counter() - start) / 60,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **facts(),
    }
    print(json.dumps(record))


def wanted(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    for name in args.models:
        for kind in args.kinds:
            for seed in args.seeds:
                yield {"kind": kind, "model": name, "seed": seed}


def render_all(runs: list[dict]) -> str:
    """The records as Markdown, in the order of `EVERY`."""
    return render([r for r in runs if "minutes" in r], EVERY)


def main(arguments: list[str] | None = None) -> int:
    """Runs what was asked for and has not been run yet; the number of failed runs."""
    parser = Parser(__doc__)
    add = parser.add_argument
    known = [*EVERY, *FAMILIES]
    add("--models", nargs="+", choices=known, default=EVERY, metavar="MODEL")
    add("--kinds", nargs="+", choices=["proof", "corners"], default=["proof"])
    add("--seeds", nargs="+", type=int, default=[0, 1])
    add("--workers", type=int, default=1, help="runs at a time")
    add("--corners", type=int, default=100, help="random gates in a run of that kind")
    add("--repeats", type=int, default=3, help="of each time measured, the best counts")
    add("--output", type=Path, default=HERE / "results-strip-zoo.json")
    add("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        run_child(args.child, args)
        return 0
    runs = Runs(args.output)
    runs = [r for r in runs if "minutes" in r]  # what did not finish is tried again
    keys = [k for k in wanted(args) if not any(k.items() <= r.items() for r in runs)]
    with concurrent.futures.ThreadPoolExecutor(args.workers) as pool:
        for record in pool.map(lambda key: child(key, args), keys):
            runs.keep(record)
            print(run_row(record), flush=True)
    args.output.with_suffix(".md").write_text(render_all(runs) + "\n")
    return sum(bool(r.get("failures")) for r in runs)


if __name__ == "__main__":
    sys.exit(main() > 0)
