"""What `wide_resnet.py` has measured, as Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np
from mnist_table import table

PREFACE = """# Wide residual networks

Written by `python benchmarks/wide_resnet.py`; settings, versions and each epoch are in
the JSON file beside this one. MACs per example of a forward pass: of all gates open, of
those open in expectation, averaged over training (what training would take if closed
units were skipped, as the paper counts; here they are multiplied, so that it takes the
first), and of the stripped network. The test error is that after the last epoch."""
HEAD = (
    "data | network | l0 x N | epochs | MACs | expected, mean over training | "
    "expected at the end | stripped | parameters | stripped | test error (%) | TFLite "
    "bytes | differs by | CPU minutes | commit"
)


def render(runs: list[dict[str, Any]]) -> str:
    """The runs as Markdown."""
    return f"{PREFACE}\n\n{table(HEAD, [row(r) for r in runs])}"


def row(r: dict[str, Any]) -> str:
    """One run as a row of the table."""
    settings, expected = r["settings"], r["history"]["macs_expected"]
    macs = [np.mean(expected), expected[-1], r["history"]["macs_deployed"][-1]]
    shares = " | ".join(f"{m / r['macs_dense']:.1%}" for m in macs)
    file = "- | -"
    if r["tflite_bytes"] is not None:
        file = f"{r['tflite_bytes']:,} | {r['tflite_difference']:.1e}"
    return (
        f"{r['dataset']} | WRN-{settings['depth']}-{settings['width']} | "
        f"{settings['l0']} | {settings['epochs']} | {r['macs_dense']:,} | {shares} | "
        f"{r['params_dense']:,} | {r['params']:,} | {r['error']:.2f} | "
        f"{file} | "
        f"{r['cpu_minutes']:.1f} | {r['commit']}"
    )
