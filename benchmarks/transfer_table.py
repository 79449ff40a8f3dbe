"""What `transfer.py` has measured, as Markdown."""

from __future__ import annotations

import numpy as np
from mnist_table import table

PREFACE = """# Gates for networks that are trained already

Written by `python benchmarks/transfer.py`; settings, versions and unrounded figures are
in the JSON file beside this one. Each network of `benchmarks/models.py` is trained,
gets gates by `keras_l0.add_gates` under a budget, is trained on, stripped, and where
`fine_epochs` are not 0 trained for as many more. Sizes are those of the stripped
network, inputs kept; errors are on the test images after the last epoch. "Before" is
after `dense_epochs`, "after" has all epochs behind it: networks that would go on to
improve without gates as well do so here. Fashion-MNIST is a re-split, not comparable
with published figures."""

SUMMARY = (
    "network | images | seeds | parameters before | after | smaller | MACs before | "
    "after | fewer | error before (%) | after | lost | worst"
)
RUN = (
    "network | images | seed | parameters | MACs | error before (%) | after | "
    "validation | settings | CPU minutes | commit"
)


def render(runs: list[dict]) -> str:
    """The runs as Markdown: their means, and each of them."""
    groups: dict[tuple, list[dict]] = {}
    for r in runs:
        if not r["validation"]:
            key = (r["network"], r["dataset"], r["tiny"])
            groups.setdefault(key, []).append(r)
    summary = []
    for (network, dataset, _), group in groups.items():
        mean = {
            name: float(np.mean([r[name] for r in group]))
            for name in ("params_dense", "params", "macs_dense", "macs", "error_dense")
        }
        lost = [r["error"] - r["error_dense"] for r in group]
        summary.append(
            f"{network} | {dataset} | {len(group)} | {mean['params_dense']:,.0f} | "
            f"{mean['params']:,.0f} | {mean['params_dense'] / mean['params']:.1f} x | "
            f"{mean['macs_dense']:,.0f} | {mean['macs']:,.0f} | "
            f"{mean['macs_dense'] / mean['macs']:.1f} x | {mean['error_dense']:.2f} | "
            f"{mean['error_dense'] + np.mean(lost):.2f} | {np.mean(lost):+.2f} | "
            f"{max(lost):+.2f}"
        )
    parts = [PREFACE, table(SUMMARY, summary), "## Runs"]
    return "\n\n".join([*parts, table(RUN, [run_row(r) for r in runs])])


def run_row(r: dict) -> str:
    """One run as a row of the table."""
    settings = ", ".join(f"{k} {v}" for k, v in r["settings"].items())
    return (
        f"{r['network']} | {r['dataset']} | {r['seed']} | {r['params']:,} | "
        f"{r['macs']:,} | {r['error_dense']:.2f} | {r['error']:.2f} | "
        f"{'yes' if r['validation'] else ''} | {settings} | {r['cpu_minutes']:.1f} | "
        f"{r['commit']}"
    )
