"""What `peers.py` has measured, as Markdown."""

from __future__ import annotations

import numpy as np
from mnist_table import table

PREFACE = """# Gates beside what else a user might do

Written by `python benchmarks/peers.py`; versions and unrounded figures are in the JSON
file beside this one. All ways lead to the same share of the network's MACs, counted on
the stripped model, in about the same CPU time, that of the dense network included.
"norm" closes the units with the smallest weights of each layer, "random" any, "narrow"
is a network of that size trained from scratch. Errors are in percent, on the test
images after the last epoch, mean (smallest to largest) over the seeds; nothing was
tuned for any of them. Fashion-MNIST is a re-split, not comparable with published
figures."""

SUMMARY = (
    "network | images | seeds | MACs left | dense | gates | norm | random | narrow"
)
RUN = (
    "network | images | seed | way | parameters | MACs | error before (%) | after | "
    "epochs | CPU minutes | commit"
)


def render(runs: list[dict]) -> str:
    """The runs as Markdown: their means, and each of them."""
    groups: dict[tuple, list[dict]] = {}
    for r in runs:
        if not r["validation"]:
            key = (r["network"], r["dataset"], r["share"])
            groups.setdefault(key, []).append(r)
    summary = []
    for (network, dataset, share), group in groups.items():
        errors: dict[str, list[float]] = {}
        for r in group:
            errors.setdefault(r["method"], []).append(r["error"])
        ways = [
            f"{np.mean(e):.2f} ({min(e):.2f} to {max(e):.2f})" for e in errors.values()
        ]
        dense = np.mean([r["error_dense"] for r in group])
        seeds = len({r["seed"] for r in group})
        row = [network, dataset, str(seeds), f"{share:.0%}", f"{dense:.2f}", *ways]
        summary.append(" | ".join(row))
    parts = [PREFACE, table(SUMMARY, summary), "## Runs"]
    return "\n\n".join([*parts, table(RUN, [run_row(r) for r in runs])])


def run_row(r: dict) -> str:
    """One run as a row of the table."""
    return (
        f"{r['network']} | {r['dataset']} | {r['seed']} | {r['method']} | "
        f"{r['params']:,} | {r['macs']:,} | {r['error_dense']:.2f} | "
        f"{r['error']:.2f} | {r['epochs']} | {r['cpu_minutes']:.1f} | {r['commit']}"
    )
