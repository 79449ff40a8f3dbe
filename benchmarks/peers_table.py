"""What `peers.py` has measured, as Markdown."""

from __future__ import annotations

import numpy as np
from mnist_table import table

PREFACE = """# Gates beside what else a user might do

Written by `python benchmarks/peers.py`; versions and unrounded figures are in the JSON
file beside this one. All ways lead to the same share of the dense network's MACs in
about the same CPU time after it. "norm" closes the units with the smallest weights of
each layer, "random" any, "narrow" is a network of that size trained from scratch, which
has the time of the dense network as well. "tfmot" is magnitude pruning by
tensorflow-model-optimization to the same share of weights that are not 0: it makes no
layer smaller, and what it deploys computes all MACs of the dense network. Errors are in
percent, on the test images after the last epoch, mean (smallest to largest) over the
seeds; **bold** is the smallest. Nothing was tuned for any of them. Fashion-MNIST is
a re-split, not comparable with published figures."""

WAYS = ("gates", "norm", "random", "narrow", "tfmot")
SUMMARY = f"network | images | of them | seeds | MACs left | dense | {' | '.join(WAYS)}"
RUN = (
    "network | images | of them | seed | MACs left | way | parameters | not 0 | MACs | "
    "error before (%) | after | epochs | CPU minutes | commit"
)


def render(runs: list[dict]) -> str:
    """The runs as Markdown: their means, and each of them."""
    groups: dict[tuple, list[dict]] = {}
    for r in runs:
        if not r["validation"]:
            key = (r["network"], r["dataset"], r["images"], r["share"])
            groups.setdefault(key, []).append(r)
    summary = []
    for (network, dataset, images, share), group in groups.items():
        errors = {
            way: [r["error"] for r in group if r["method"] == way] for way in WAYS
        }
        means = {way: float(np.mean(e)) for way, e in errors.items() if e}
        ways = []
        for way, e in errors.items():
            mark = "**" if e and means[way] == min(means.values()) else ""
            mean = f"{mark}{means[way]:.2f}{mark}" if e else "-"
            ways.append(f"{mean} ({min(e):.2f} to {max(e):.2f})" if e else mean)
        dense = np.mean([r["error_dense"] for r in group])
        seeds = len({r["seed"] for r in group})
        row = [network, dataset, f"{images:,}", str(seeds), f"{share:.0%}"]
        summary.append(" | ".join([*row, f"{dense:.2f}", *ways]))
    parts = [PREFACE, table(SUMMARY, summary), "## Runs"]
    return "\n\n".join([*parts, table(RUN, [run_row(r) for r in runs])])


def run_row(r: dict) -> str:
    """One run as a row of the table."""
    return (
        f"{r['network']} | {r['dataset']} | {r['images']:,} | {r['seed']} | "
        f"{r['share']:.0%} | {r['method']} | {r['params']:,} | {r['not_zero']:,} | "
        f"{r['macs']:,} | {r['error_dense']:.2f} | {r['error']:.2f} | {r['epochs']} | "
        f"{r['cpu_minutes']:.1f} | {r['commit']}"
    )
