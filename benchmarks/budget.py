"""How near training comes to a budget, and what accuracy that costs, on MNIST.

    python benchmarks/budget.py --seeds 0

trains LeNet-300-100, LeNet-5-Caffe and a residual network under budgets of parameters
and of MACs, all with one setting, appends each run to a JSON file and renders that file
as a Markdown table. A run that the file holds already is not trained again.
``--by-hand`` trains under strengths instead, and then once under a budget of the size
that each of them came to: what the search for a strength would have gained.
``--validation`` trains on the first 55,000 images and reports the error on the other
5,000 of the training set.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import mnist
from keras import layers
from runs import Runs, Timed, facts, options, use_threads

import keras_l0
from keras_l0.layers import L0Conv2D, L0Dense, L0Gate

TARGETS = [("params", share) for share in (0.8, 0.5, 0.2, 0.1, 0.05)]
TARGETS += [("macs", share) for share in (0.5, 0.25, 0.1)]
EPOCHS = {"lenet-300-100": 20, "lenet-5": 12, "residual": 10}
INPUTS = {"lenet-300-100": "gather", "lenet-5": "gather", "residual": "keep"}
SETTINGS = {"learning_rate": 2e-3, "batch_size": 128, "schedule": "cosine"}
# Prices of a parameter to choose among by hand.
STRENGTHS = (1e-6, 3e-6, 1e-5, 3e-5)


def residual(
    widths: tuple[int, ...] = (16, 32, 64), stem_strides: int = 2
) -> keras.Model:
    """Stages of one residual block each, so many channels wide."""

    def normalized(x: Any, filters: int, strides: int = 1, size: int = 3) -> Any:
        options = {"strides": strides, "padding": "same", "use_bias": False}
        return layers.BatchNormalization()(layers.Conv2D(filters, size, **options)(x))

    inputs = keras.Input((28, 28, 1))
    x = layers.ReLU()(normalized(inputs, widths[0], stem_strides))
    for filters in widths:
        strides = 1 if filters == widths[0] else 2
        h = layers.ReLU()(normalized(x, filters, strides))
        h = normalized(h, filters)
        if strides == 2:
            x = normalized(x, filters, 2, 1)
        x = layers.ReLU()(layers.Add()([x, h]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x), name="residual")


def build(network: str, budget: keras_l0.Budget | None, l0: float = 0.0) -> Any:
    """The gated network under a budget or a strength, with logits as its output."""
    if network == "residual":
        return keras_l0.add_gates(residual(), l0=l0, budget=budget)
    gated: dict[str, Any] = {"activation": "relu", "l0": l0}
    if network == "lenet-300-100":
        stack = [
            keras.Input((784,)), L0Gate(l0=l0, cost=300), L0Dense(300, **gated),
            L0Dense(100, **gated), layers.Dense(10),
        ]  # fmt: skip
    else:
        stack = [
            keras.Input((28, 28, 1)), L0Conv2D(20, 5, **gated),
            layers.MaxPooling2D(), L0Conv2D(50, 5, **gated),
            layers.MaxPooling2D(), layers.Flatten(), L0Gate(l0=l0, cost=500),
            L0Dense(500, **gated), layers.Dense(10),
        ]  # fmt: skip
    model = keras.Sequential(stack, name=network)
    return keras_l0.with_budget(model, budget) if budget else model


def run(key: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Trains one network under one budget; the record of it."""
    network, inputs = key["network"], INPUTS[key["network"]]
    x, y, x_test, y_test = mnist.load(args, network == "lenet-300-100", False)
    keras.utils.set_random_seed(key["seed"])
    by_hand = key["measure"] == "l0"
    measure = "params" if by_hand else key["measure"]
    budget = None
    if not by_hand:
        budget = keras_l0.Budget(**{measure: key["target"]}, inputs=inputs)
    model = build(network, budget, key["target"] if by_hand else 0.0)
    steps = -(-len(x) // SETTINGS["batch_size"])
    rate = keras.optimizers.schedules.CosineDecay(
        SETTINGS["learning_rate"], steps * key["epochs"]
    )
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=min(20, steps),
        jit_compile=False,
    )
    with Timed() as timed:
        model.fit(x, y, SETTINGS["batch_size"], key["epochs"], verbose=0)
    profile = keras_l0.profile(model, inputs)
    sizes = {
        name: getattr(getattr(profile, name), measure)
        for name in ("dense", "expected", "deployed")
    }
    stripped = keras_l0.strip(model, inputs, budget=budget, verify=False)
    held = getattr(keras_l0.profile(stripped, inputs).dense, measure)
    return {
        **key,
        "minutes": timed.minutes,
        "cpu_minutes": timed.cpu_minutes,
        "architecture": [n.kept for n in profile.layers if n.kind.startswith("L0")],
        "expected": sizes["expected"] / sizes["dense"],
        "deployed": sizes["deployed"] / sizes["dense"],
        "stripped": held / sizes["dense"],
        "error": mnist.error(model.predict(x_test, 500, verbose=0), y_test),
        "error_stripped": mnist.error(stripped.predict(x_test, 500, verbose=0), y_test),
        **facts(),
    }


def render(runs: list[dict[str, Any]]) -> str:
    """The runs as a table, and how far they are from their targets."""
    lines = [
        "# Budgets on MNIST",
        "",
        "Written by `benchmarks/budget.py`. One setting for all: Adam at "
        f"{SETTINGS['learning_rate']} with cosine decay, batches of "
        f"{SETTINGS['batch_size']}, a ramp over the first half of the epochs. Shares "
        "are of the size with all gates open: expected under the training gates, "
        "deployed after `strip`, and after `strip` with the budget. Errors in percent "
        "after the last epoch, of the gated model and of the one stripped with the "
        "budget (not fine-tuned).",
        "",
        "| network | epochs | seed | data | budget | expected | deployed | off by "
        "| stripped | error | stripped |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = sorted(
        runs, key=lambda r: (r["network"], r["measure"], -r["target"], r["seed"])
    )
    for r in order:
        data = "validation" if r["validation"] else "test"
        target, off = f"{r['measure']} {100 * r['target']:.3g}%", ""
        if r["measure"] == "l0":
            target = f"l0 {r['target']:.0e}"
        else:
            off = f"{100 * (r['deployed'] - r['target']):+.2f}"
        lines.append(
            f"| {r['network']} | {r['epochs']} | {r['seed']} | {data} "
            f"| {target} | {r['expected']:.2%} | {r['deployed']:.2%} | {off} "
            f"| {r['stripped']:.2%} | {r['error']:.2f} | {r['error_stripped']:.2f} |"
        )
    return "\n".join(lines + by_hand(runs))


def by_hand(runs: list[dict[str, Any]]) -> list[str]:
    """Lines that set each strength against the budget of the size that it came to."""
    alike = ("network", "seed", "epochs", "validation", "tiny")
    rows = []
    for hand in sorted(
        (r for r in runs if r["measure"] == "l0"),
        key=lambda r: (r["network"], r["target"], r["seed"]),
    ):
        for r in runs:
            same = all(r[name] == hand[name] for name in alike)
            if same and (r["measure"], r["target"]) == ("params", size_of(hand)):
                rows.append(
                    f"| {r['network']} | {r['seed']} "
                    f"| {'validation' if r['validation'] else 'test'} "
                    f"| {hand['target']:.0e} | {hand['deployed']:.2%} "
                    f"| {r['stripped']:.2%} | {hand['error']:.2f} "
                    f"| {r['error_stripped']:.2f} "
                    f"| {r['error_stripped'] - hand['error']:+.2f} |"
                )
    if not rows:
        return []
    return [
        "",
        "## Against strengths chosen by hand",
        "",
        "One price of a parameter for all layers, and a budget of the size that it "
        "came to. The best price is the one with the smallest error at a size that "
        "suits.",
        "",
        "| network | seed | data | l0 | size | size under the budget | error, l0 "
        "| error, budget | more |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def size_of(hand: dict[str, Any]) -> float:
    """The budget that a run under a strength is compared with."""
    return round(hand["deployed"], 4)


def main(arguments: list[str] | None = None) -> None:
    """Runs what was asked for and has not been run yet, and writes the results."""
    parser = options(__doc__, "results-budget", "600 images, two epochs")
    add = parser.add_argument
    add("--network", nargs="+", choices=list(EPOCHS), default=list(EPOCHS))
    add("--measure", nargs="+", choices=["params", "macs"], default=["params", "macs"])
    add("--target", nargs="+", type=float, help="shares; default: those of the table")
    add("--by-hand", nargs="*", type=float, metavar="L0", help="strengths instead")
    add("--seeds", nargs="+", type=int, default=[0])
    add("--epochs", type=int, help="instead of those of the settings")
    args = parser.parse_args(arguments)
    use_threads(args.threads)
    runs = Runs(args.output)
    wanted = [t for t in TARGETS if t[0] in args.measure]
    if args.target:
        wanted = [(m, share) for m in args.measure for share in args.target]
    if args.by_hand is not None:
        wanted = [("l0", price) for price in args.by_hand or STRENGTHS]
    for seed in args.seeds:
        for measure, target in wanted:
            for network in args.network:
                key = {
                    "network": network,
                    "measure": measure,
                    "target": target,
                    "seed": seed,
                    "epochs": 2 if args.tiny else args.epochs or EPOCHS[network],
                    "validation": args.validation,
                    "tiny": args.tiny,
                }
                done = run_once(key, runs, args)
                if measure == "l0":
                    key |= {"measure": "params", "target": size_of(done)}
                    run_once(key, runs, args)
    args.output.with_suffix(".md").write_text(render(runs) + "\n")


def run_once(key: dict[str, Any], runs: Runs, args: argparse.Namespace) -> dict:
    """The record of a run, made now unless it is among those made already."""
    if found := runs.found(key):
        return found
    runs.keep(run(dict(key), args))
    args.output.with_suffix(".md").write_text(render(runs) + "\n")
    print(render(runs[-1:]).splitlines()[-1], flush=True)
    return runs[-1]


if __name__ == "__main__":
    main()
