"""What `compaction.py` has measured, as Markdown."""

from __future__ import annotations

import numpy as np
from mnist_table import table

PREFACE = """# Training that gets faster while it prunes

Written by `python benchmarks/compaction.py`; versions and each epoch's times are in the
JSON file beside this one. One thread; MNIST, and for wrn-16-4 scikit-learn's digits, of
8 x 8 pixels: an epoch of them takes less time than tracing a compacted network.
LeNet-300-100 and LeNet-5-Caffe are trained with the strengths of `mnist.py`, the
residual networks under a budget of 25 % of their MACs. "faster" divides the time of
`model.fit` by that of `keras_l0.fit_compacting`, of the whole training, tracing and
compaction included, over all seeds. A row is of one commit, and thereby of one machine,
which did other work meanwhile, so that wall-clock times wander; CPU times hardly do.
Runs of c163971 are of a processor without AVX-512, for which TensorFlow does not use
oneDNN: convolutions take twice as long there, and compaction gains more. In longer runs
the last epoch counts for more. `Compaction` has its defaults, but for WRN-16-4, whose
gates waver: `max_open=0.32, min_saving=0.25, times=4`, chosen in trials that are not
listed; there units go that are 0 at test time, but open in up to 32 % of the steps of
training. Of its 360 test images one is .28 %. Sizes and errors are those of the
stripped network (`"keep"`) on the test images after the last epoch. Gates draw other
numbers once there are fewer of them, so that two runs from one seed end near each
other, not at the same weights."""

HEADER = (
    "network | images | epochs | seeds | CPU minutes without | with | "
    "**faster, CPU** | faster, wall | last epoch, CPU seconds without | with | "
    "parameters without | with | "
    "error without (%) | with | commit"
)
RUN_HEADER = (
    "network | images | epochs | seed | compaction | minutes | CPU minutes | "
    "parameters in training | parameters stripped | MACs | error (%) | commit"
)


def render(runs: list[dict]) -> str:
    """The runs as Markdown: pairs, and the runs behind them."""
    groups: dict[tuple, dict[int, dict[bool, dict]]] = {}
    for r in runs:
        if r["validation"]:
            continue
        run = r["network"], r["images"], r["epochs"], r["commit"]
        seeds = groups.setdefault(run, {})
        seeds.setdefault(r["seed"], {})[r["compaction"]] = r
    rows = []
    for (network, images, epochs, commit), seeds in groups.items():
        pairs = [pair for pair in seeds.values() if len(pair) == 2]
        if not pairs:
            continue
        mean = {
            (name, on): float(np.mean([pair[on][name] for pair in pairs]))
            for name in ("minutes", "cpu_minutes", "params", "error")
            for on in (False, True)
        }
        cpu, wall = (
            mean[name, False] / mean[name, True] for name in ("cpu_minutes", "minutes")
        )
        rows.append(
            f"{network} | {images:,} | {epochs} | {len(pairs)} | "
            f"{mean['cpu_minutes', False]:.2f} | {mean['cpu_minutes', True]:.2f} | "
            f"**{cpu:.2f}x** | {wall:.2f}x | "
            f"{last(pairs, False):.1f} | {last(pairs, True):.1f} | "
            f"{mean['params', False]:,.0f} | {mean['params', True]:,.0f} | "
            f"{mean['error', False]:.2f} | {mean['error', True]:.2f} | {commit}"
        )
    return "\n\n".join(
        [
            PREFACE,
            table(HEADER, rows),
            "## Each run",
            table(RUN_HEADER, [run_row(r) for r in runs]),
        ]
    )


def last(pairs: list[dict[bool, dict]], compaction: bool) -> float:
    """CPU seconds of the last epoch, which all that was compacted is out of."""
    each = [[e["cpu_minutes"] for e in p[compaction]["each_epoch"]] for p in pairs]
    return 60 * float(np.mean([epochs[-1] - epochs[-2] for epochs in each]))


def run_row(r: dict) -> str:
    """One row of the table of runs."""
    each = [epoch["trained"] for epoch in r["each_epoch"]]
    sizes = [f"{each[0]:,}"] + [
        f"{now:,} from epoch {number}"
        for number, (before, now) in enumerate(zip(each, each[1:], strict=False), 2)
        if now != before
    ]
    return (
        f"{r['network']} | {r['images']:,} | {r['epochs']} | {r['seed']} | "
        f"{'yes' if r['compaction'] else 'no'} | {r['minutes']:.2f} | "
        f"{r['cpu_minutes']:.2f} | {'; '.join(sizes)} | {r['params']:,} | "
        f"{r['macs']:,} | {r['error']:.2f} | {r['commit']}"
    )
