"""What `paper.py` has measured, as Markdown and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mnist_table import table

PREFACE = """# Table 1 of the paper

Written by `python benchmarks/paper.py`; settings, versions and unrounded figures are in
the JSON file beside this one. Sizes are those of the stripped network, inputs and
flattened features gathered ("keep": all of them kept). Errors are in percent on the
test images, after the last epoch. The paper (Louizos et al. 2017) has 266-88-33, 26.8 k
parameters by this count, at 1.8 % for LeNet-300-100 and 9-18-65-25, 6.2 k, at 1.0 % for
LeNet-5. All that was run is listed, whatever came of it.

![Size against error](results-paper.png)"""

SUMMARY = (
    "network | track | aim | seeds | parameters | keep | MACs | error (%) | "
    "smallest to largest"
)
RUN = (
    "network | track | aim | seed | error on | architecture | parameters | "
    "keep | MACs | error, stripped (%) | fine-tuned | CPU minutes | commit"
)


def aim(r: dict) -> str:
    """What a run was under."""
    if not r["budget"]:
        return f"strengths x {r['scale']:g}"
    return ", ".join(f"{limit:,} {name}" for name, limit in r["budget"].items())


def grouped(runs: list[dict]) -> dict[tuple, list[dict]]:
    """The runs on the test set by what was done."""
    groups: dict[tuple, list[dict]] = {}
    for r in sorted(runs, key=lambda r: (r["network"], r["track"], r["scale"])):
        if not r["validation"]:
            key = (r["network"], r["track"], aim(r), str(r["settings"]))
            groups.setdefault(key, []).append(r)
    return groups


def render(runs: list[dict]) -> str:
    """The runs as Markdown: their means, and each of them."""
    summary = []
    for (network, track, wanted, _), group in grouped(runs).items():
        params, keep, macs, error = (
            float(np.mean([r[name] for r in group]))
            for name in ("params", "params_keep", "macs", "error")
        )
        errors = [r["error"] for r in group]
        summary.append(
            f"{network} | {track} | {wanted} | {len(group)} | {params:,.0f} | "
            f"{keep:,.0f} | {macs:,.0f} | {error:.2f} | "
            f"{min(errors):.2f} to {max(errors):.2f}"
        )
    parts = [PREFACE, table(SUMMARY, summary), "## Runs"]
    return "\n\n".join([*parts, table(RUN, [run_row(r) for r in runs])])


def run_row(r: dict) -> str:
    """One run as a row of the table."""
    return (
        f"{r['network']} | {r['track']} | {aim(r)} | {r['seed']} | "
        f"{'validation' if r['validation'] else 'test'} | "
        f"{'-'.join(map(str, r['architecture']))} | {r['params']:,} | "
        f"{r['params_keep']:,} | {r['macs']:,} | {r['error_stripped']:.2f} | "
        f"{r['error']:.2f} | {r['cpu_minutes']:.1f} | {r['commit']}"
    )


def picture(runs: list[dict], path: Path) -> None:
    """Draws size against error, with the paper's results, one panel per network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    papers = {"lenet-300-100": (26_800, 1.8), "lenet-5": (6_200, 1.0)}
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for panel, (network, found) in zip(panels, papers.items(), strict=True):
        for color, track in (("C0", "plain"), ("C1", "practice")):
            label: str | None = track
            for (name, one, *_), group in grouped(runs).items():
                if (name, one) != (network, track):
                    continue
                sizes = np.array([r["params"] for r in group])
                errors = np.array([r["error"] for r in group])
                panel.errorbar(
                    sizes.mean(), errors.mean(), xerr=sizes.std(), yerr=errors.std(),
                    fmt="o", color=color, capsize=2, label=label,
                )  # fmt: skip
                label = None
        panel.plot(*found, "k*", markersize=10, label="paper")
        panel.set(title=network, xlabel="parameters, gathered", xscale="log")
        panel.set_ylabel("test error (%)")
        panel.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
