"""How well a latency table predicts .tflite files, and what budgets of latency give.

    python benchmarks/latency_budget.py

measures the layer shapes of LeNet-5 and a residual network, trains both under a budget
of half the latency and under one of half the MACs, closes gates at random for a few
networks more, and times the files of all of them in turns. The results go to a JSON
file, which is rendered as a Markdown page; a network that the file holds already is
not run again. Tables and trained networks are kept (``--models``): ``--train`` stops
there, so that the files can be timed when the machine is quiet.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import budget as budgets
import images
import keras
import models
import numpy as np
from checkout import COMMIT
from runs import Parser, Runs, use_threads, versions

import keras_l0
from keras_l0.export.latency import fastest

HERE = Path(__file__).resolve().parent
NETWORKS = {"lenet-5": models.lenet_5, "residual": budgets.residual}
LIMITS = ("latency", "macs")
TARGET = 0.5
SETTINGS = {"learning_rate": 2e-3, "batch_size": 128, "images": 12_000, "epochs": 5}
# The mean shares of gates that are open in the networks that are closed at random.
OPEN = (0.9, 0.75, 0.6, 0.45, 0.3, 0.2, 0.1)
ROUND_TO = (1, 16)


def table_of(network: str, args: argparse.Namespace) -> keras_l0.LatencyTable:
    """The table of a network's layer shapes, measured once."""
    path = args.models / f"{network}-table.json"
    if not path.exists():
        shares = (1.0,) if args.tiny else keras_l0.latency_table.SHARES
        model = NETWORKS[network]()
        keras_l0.measure_latency(model, shares=shares).save(path)
    return keras_l0.LatencyTable.load(path)


def trained(network: str, limit: str, args: argparse.Namespace) -> keras.Model:
    """A network trained to a budget, with its gates."""
    path = args.models / f"{network}-{limit}.keras"
    if not path.exists():
        keras.utils.set_random_seed(args.seed)
        table = table_of(network, args) if limit == "latency" else None
        budget = keras_l0.Budget(**{limit: TARGET}, table=table)
        model = keras_l0.add_gates(NETWORKS[network](), budget=budget)
        x, y, *_ = images.load("mnist", path=args.data, tiny=args.tiny)
        x, y = x[: SETTINGS["images"]], y[: SETTINGS["images"]]
        epochs = 1 if args.tiny else SETTINGS["epochs"]
        steps = -(-len(x) // SETTINGS["batch_size"])
        rate = keras.optimizers.schedules.CosineDecay(
            SETTINGS["learning_rate"], steps * epochs
        )
        model.compile(
            keras.optimizers.Adam(rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            steps_per_execution=min(20, steps),
            jit_compile=False,
        )
        model.fit(x, y, SETTINGS["batch_size"], epochs, verbose=0)
        model.save(path)
    return keras.models.load_model(path)


def closed(network: str, share: float, rng: np.random.Generator) -> keras.Model:
    """A gated network with about this share of its gates open, of each layer its own.

    No layer dies: one gate of each stays open.
    """
    model = keras_l0.add_gates(NETWORKS[network]())
    for gate in keras_l0.gates(model):
        own = np.clip(share * rng.uniform(0.4, 1.6), 0.0, 1.0)
        is_open = rng.uniform(size=gate.count) < own
        is_open[rng.integers(gate.count)] = True
        gate.assign_log_alpha(np.where(is_open, 9.0, -9.0))
    return model


def run(network: str, args: argparse.Namespace) -> dict[str, Any]:
    """Makes the files of one network and times them; the record of it."""
    table = table_of(network, args)
    rng = np.random.default_rng(args.seed)
    variants = {"dense": NETWORKS[network]()}
    for limit in LIMITS:
        model = trained(network, limit, args)
        for step in ROUND_TO:
            variants[_name(f"{limit} {TARGET:.0%}", step)] = keras_l0.strip(
                model, budget=model.budgets, round_to=step
            )
    for share in () if args.tiny else OPEN:
        model = closed(network, share, rng)
        for step in ROUND_TO:
            variants[_name(f"{share:.0%} open", step)] = keras_l0.strip(
                model, round_to=step
            )
    _, _, x_test, y_test = images.load("mnist", path=args.data, tiny=args.tiny)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.tflite" for name in variants]
        for path, model in zip(paths, variants.values(), strict=True):
            keras_l0.to_tflite(model, path)
        # As the table is measured: medians would tell of what else the machine does.
        times = fastest(paths)
    for (name, model), measured in zip(variants.items(), times, strict=True):
        row = {
            "variant": name,
            "round_to": int((name.partition("round_to=")[2] or "1").rstrip("`")),
            "macs": keras_l0.profile(model).dense.macs,
            "predicted": table.estimate(model),
            "measured": measured,
            "ratio": measured / times[0],
        }
        if name.partition(" ")[0] in LIMITS:
            logits = model.predict(x_test, 500, verbose=0)
            row["error"] = 100 * float((logits.argmax(1) != y_test).mean())
        rows.append(row)
    return {
        "network": network,
        "tiny": args.tiny,
        "seed": args.seed,
        "rows": rows,
        "entries": sum(len(e.inputs) * len(e.outputs) for e in table.entries),
        "shapes": len(table.entries),
        "overhead": table.overhead,
        "device": table.device,
        "commit": COMMIT,
        "versions": versions() | table.versions,
    }


def _name(what: str, round_to: int) -> str:
    return what if round_to == 1 else f"{what}, `round_to={round_to}`"


def rank(a: list[float], b: list[float]) -> float:
    """Spearman's correlation of ranks."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def render(records: list[dict[str, Any]]) -> str:
    """The page."""
    lines = [
        "# Budgets of latency",
        "",
        "Written by `benchmarks/latency_budget.py`: float32 .tflite files on one "
        "thread. Predicted is the sum over the table of layer shapes "
        "(`keras_l0.measure_latency`), measured is the whole file, in the same way: in "
        "turns, of each turn the fastest run, of the turns the median. Shares are of "
        "the dense network; ranks are Spearman's correlations with the measured "
        "latencies. Two networks were trained to half of the dense one, on "
        f"{SETTINGS['images']:,} images of MNIST for {SETTINGS['epochs']} epochs, and "
        "stripped with their budget; of the others gates were closed at random. With "
        "`round_to`, `strip` takes whole sixteens out of a trained network: fine-tuned "
        "it was not.",
    ]
    for record in records:
        rows = record["rows"]
        dense = rows[0]
        lines += [
            "",
            f"## {record['network']}",
            "",
            "| network | MACs | predicted | measured | of dense: MACs | predicted "
            "| measured | error |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            error = f"{row['error']:.2f} %" if "error" in row else ""
            lines.append(
                f"| {row['variant']} | {row['macs']:,} | {row['predicted']:.1f} µs "
                f"| {row['measured']:.1f} µs | {row['macs'] / dense['macs']:.2f} "
                f"| {row['predicted'] / dense['predicted']:.2f} "
                f"| {row['ratio']:.2f} | {error} |"
            )
        lines += [
            "",
            "| networks | predicted / measured | share of dense off by: table, mean "
            "(most) | MACs, mean (most) | ranks: table | MACs |",
            "|---|---|---|---|---|---|",
            *(_agreement(rows, step) for step in ROUND_TO),
            "",
            f"The table has {record['shapes']} shapes and {record['entries']} entries; "
            f"a call's overhead is {record['overhead']} µs. {record['device']}; commit "
            f"{record['commit']}; "
            f"{', '.join(' '.join(pair) for pair in record['versions'].items())}.",
        ]
    return "\n".join(lines)


def _agreement(rows: list[dict[str, Any]], round_to: int) -> str:
    """How predictions of the stripped networks agree with measurements."""
    dense, *stripped = (
        row for row in rows if row["round_to"] == round_to or row is rows[0]
    )
    measured = [row["measured"] for row in stripped]
    spread = [row["predicted"] / row["measured"] for row in stripped]
    cells = [f"`round_to={round_to}`", f"{min(spread):.2f} to {max(spread):.2f}"]
    ranks = []
    for by in ("predicted", "macs"):
        shares = [row[by] / dense[by] for row in stripped]
        off = [
            abs(share - row["ratio"])
            for share, row in zip(shares, stripped, strict=True)
        ]
        cells.append(f"{np.mean(off):.3f} ({max(off):.3f})")
        ranks.append(f"{rank(shares, measured):.3f}")
    return f"| {' | '.join([*cells, *ranks])} |"


def main(arguments: list[str] | None = None) -> None:
    """Runs what was asked for and has not been run yet, and writes the results."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    add("--seed", type=int, default=0)
    add("--train", action="store_true", help="time no files, only make them")
    add("--tiny", action="store_true", help="random images, few layers timed")
    add("--data", type=Path, help="an .npz file as Keras keeps it for MNIST")
    add("--models", type=Path, default=HERE / "models-latency")
    add("--output", type=Path, default=HERE / "results-latency.json")
    add("--threads", type=int, default=1, help="of TensorFlow; 0: as they are")
    args = parser.parse_args(arguments)
    use_threads(args.threads)
    args.models.mkdir(parents=True, exist_ok=True)
    records = Runs(args.output)
    for network in args.network:
        key = {"network": network, "tiny": args.tiny, "seed": args.seed}
        if records.found(key):
            continue
        if args.train:
            for limit in LIMITS:
                trained(network, limit, args)
            continue
        records.keep(run(network, args))
        args.output.with_suffix(".md").write_text(render(records) + "\n")
    if records:
        args.output.with_suffix(".md").write_text(render(records) + "\n")


if __name__ == "__main__":
    main()
