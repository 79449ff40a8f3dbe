"""What `peers.py` has measured, as Markdown."""

from __future__ import annotations

import numpy as np
from mnist_table import table

PREFACE = """# Gates beside what else a user might do

Written by `python benchmarks/peers.py`; versions, settings and unrounded figures are in
the JSON file beside this one. All ways lead to the same share of the dense network's
MACs (parameters may differ) in about the CPU time that "gates" took after it: in
brackets are thousands of parameters, and minutes. How many epochs fit in is estimated
beforehand; up to commit 46fe774 an epoch was estimated to take up to 1.4 times as long
as it does, so that the others had less time than "gates" had. "gates_tuned" has gates
for half of the epochs, and trains what strip leaves for the rest of the time;
"gates_both" does so under a limit on parameters, of the same share, as well; "norm"
closes the units with the smallest weights of each layer, "random" any, the same share
of each layer; "narrow" is a network of the size of "norm" trained from scratch, which
has the time of the dense network as well. "tfmot" is magnitude pruning by
tensorflow-model-optimization to the same share of weights that are not 0, which are the
ones in brackets: it makes no layer smaller, and what it deploys computes all MACs of
the dense network. "dense" was trained for `dense_epochs` only. Errors are in percent,
on the test images after the last epoch, mean (smallest to largest, and of how many
seeds, if not of all); **bold** is the smallest. All train with Adam at 1e-3, batches of
128 and a cosine decay; gates have the defaults of `Budget`, and six epochs after strip
for networks with many BatchNormalizations (`transfer.py`); nothing else was tuned for
any of them. But "gates_tuned" was added after "gates" had been seen beside "norm" on
the test set, and "gates_both" after validation images had shown that a limit on MACs
alone leaves LeNet-5 wide where units are cheap. Fashion- MNIST is a re-split, not
comparable with published figures."""

WAYS = ("gates", "gates_tuned", "gates_both", "norm", "random", "narrow", "tfmot")
SUMMARY = f"network | images | of them | seeds | MACs left | dense | {' | '.join(WAYS)}"
RUN = (
    "network | images | of them | seed | error on | MACs left | way | parameters | "
    "not 0 | MACs | "
    "error before (%) | after | epochs | CPU minutes | commit"
)


def render(runs: list[dict]) -> str:
    """The runs as Markdown: their means, and each of them."""
    groups: dict[tuple, list[dict]] = {}
    for r in runs:
        if not r["validation"]:
            settings = str(r["settings"])
            key = (r["network"], r["dataset"], r["trained_on"], r["share"], settings)
            groups.setdefault(key, []).append(r)
    summary = []
    for (network, dataset, images, share, _), group in groups.items():
        by_way = {way: [r for r in group if r["method"] == way] for way in WAYS}
        means = [np.mean([r["error"] for r in ran]) for ran in by_way.values() if ran]
        seeds = len({r["seed"] for r in group})
        ways = [_cell(by_way[way], min(means), seeds) for way in WAYS]
        dense = np.mean([r["error_dense"] for r in group])
        row = [network, dataset, f"{images:,}", str(seeds), f"{share:.0%}"]
        summary.append(" | ".join([*row, f"{dense:.2f}", *ways]))
    parts = [PREFACE, table(SUMMARY, summary), "## Runs"]
    return "\n\n".join([*parts, table(RUN, [run_row(r) for r in runs])])


def _cell(runs: list[dict], best: float, seeds: int) -> str:
    """The errors of one way, and its parameters that are not 0."""
    if not runs:
        return "-"
    errors = [r["error"] for r in runs]
    mean = float(np.mean(errors))
    mark = "**" if mean == best else ""
    params = float(np.mean([r["not_zero"] for r in runs]))
    spread = f"{min(errors):.2f} to {max(errors):.2f}"
    if len(runs) < seeds:
        spread += f", {len(runs)} of them"
    took = float(np.mean([r["cpu_minutes"] for r in runs]))
    return f"{mark}{mean:.2f}{mark} ({spread}) [{params / 1000:.0f} k, {took:.2f}]"


def run_row(r: dict) -> str:
    """One run as a row of the table."""
    return (
        f"{r['network']} | {r['dataset']} | {r['trained_on']:,} | {r['seed']} | "
        f"{'validation' if r['validation'] else 'test'} | "
        f"{r['share']:.0%} | {r['method']} | {r['params']:,} | {r['not_zero']:,} | "
        f"{r['macs']:,} | {r['error_dense']:.2f} | {r['error']:.2f} | {r['epochs']} | "
        f"{r['cpu_minutes']:.1f} | {r['commit']}"
    )
