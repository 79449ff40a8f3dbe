"""What `mnist.py` has measured, as Markdown."""

from __future__ import annotations

import json

import numpy as np

PREFACE = """# MNIST

Written by `python benchmarks/mnist.py`; settings, versions and unrounded figures are in
the JSON file beside this one. Sizes are those of the stripped network, counted on the
model that `keras_l0.strip` returns: "gather" is `inputs="gather"`, which selects the
pixels and flattened features that are read; "keep" is the default, which keeps them
all. Errors are those of the stripped network on the 10,000 test images after the last
epoch. Training runs on one thread, on a machine that did other work too: minutes depend
on that, CPU minutes hardly. An architecture lists what is open at each gate."""

SUMMARY_HEADER = (
    "network | seeds | parameters before | after, gather | after, keep | "
    "MACs before | after | test error (%) | minutes | CPU minutes"
)

RUN_HEADER = (
    "network | seed | architecture | gather | keep | MACs | error, gated (%) | "
    "error, stripped (%) | stripped against gated | TFLite against Keras | "
    "TFLite bytes | minutes | CPU minutes | commit"
)

TRIED = """Settings were chosen with one seed, by the error on the last 5,000 images of
the training set after training on the first 55,000 ("validation"). What a run does not
list is as above. Rows with an error on the test set are what was reported with earlier
settings."""


def render(runs: list[dict]) -> str:
    """The runs as Markdown: figures, the runs behind them, and what was tried.

    Of each network, the settings of its newest run on the test set count as chosen.
    """
    chosen = {r["network"]: r["settings"] for r in runs if not r["validation"]}
    final, tried = [], []
    for r in runs:
        counts = not r["validation"] and r["settings"] == chosen[r["network"]]
        (final if counts else tried).append(r)
    groups: dict[str, list[dict]] = {}
    for r in final:
        groups.setdefault(r["network"], []).append(r)
    summary, used = [], []
    for network, group in groups.items():
        mean = {
            k: float(np.mean([r[k] for r in group]))
            for k, value in group[0].items()
            if isinstance(value, (int, float))
        }
        summary.append(
            f"{network} | {len(group)} | {mean['params_dense']:,.0f} | "
            f"**{mean['params_gather']:,.0f}** | {mean['params_keep']:,.0f} | "
            f"{mean['macs_dense']:,.0f} | {mean['macs_gather']:,.0f} | "
            f"**{mean['error']:.2f}** | {mean['minutes']:.1f} | "
            f"{mean['cpu_minutes']:.1f}"
        )
        used.append(f"{network} | {describe(group[0])}")
    return "\n\n".join(
        [
            PREFACE,
            table(SUMMARY_HEADER, summary),
            "## Each run",
            table(RUN_HEADER, [run_row(r) for r in final]),
            "## Settings",
            table("network | settings", used),
            "## What was tried",
            TRIED,
            table(
                "network | settings | architecture | parameters | error on | error (%)",
                [
                    f"{r['network']} | {describe(r, chosen.get(r['network']))} | "
                    f"{architecture(r)} | {r['params_gather']:,} | "
                    f"{'validation' if r['validation'] else 'test'} | {r['error']:.2f}"
                    for r in tried
                ],
            ),
        ]
    )


def run_row(r: dict) -> str:
    """One row of the table of runs."""
    return (
        f"{r['network']} | {r['seed']} | {architecture(r)} | {r['params_gather']:,} | "
        f"{r['params_keep']:,} | {r['macs_gather']:,} | {r['error_gated']:.2f} | "
        f"{r['error']:.2f} | {r['stripped_difference']:.1e} | "
        f"{r['tflite_difference']:.1e} | {r['tflite_bytes']:,} | {r['minutes']:.1f} | "
        f"{r['cpu_minutes']:.1f} | {r['commit']}"
    )


def architecture(r: dict) -> str:
    """``238-99-32``: what is open at each gate."""
    return "-".join(map(str, r["architecture"]))


def describe(r: dict, chosen: dict | None = None) -> str:
    """Settings in one line; of an attempt, those that are not the chosen ones."""
    differ = {
        name: value
        for name, value in r["settings"].items()
        if json.dumps(value) != json.dumps((chosen or {}).get(name))
    }
    return ", ".join(f"{k} {v}" for k, v in differ.items()) or "as above"


def table(header: str, rows: list[str]) -> str:
    """A Markdown table from rows whose cells are separated by bars."""
    rule = " | ".join(["---"] * len(header.split("|")))
    return "\n".join(f"| {row} |" for row in [header, rule, *rows])
