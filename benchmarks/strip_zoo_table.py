"""What `strip_zoo.py` has measured, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mnist_table import table

from keras_l0.analysis.rounding import BLIND

PREFACE = """# Strip, on every model of keras.applications

Written by `python benchmarks/strip_zoo.py`; unrounded figures and versions are in the
JSON file beside this one. Models have ten classes, random weights and the smallest
input that they take."""

REACH = """"Reachable" is the share of kernels and biases outside the output layer that
goes if all units but one of every group are closed; "MCT" is the same share by the rule
of Sony's Model Compression Toolkit on the same graph. Time and memory are those of
`plan` and of `strip` without its comparison, which is apart, beside `clone_model` and
`set_weights` on the same gated model; seconds are of CPU time."""

PROOFS = """Odd seeds share gates along residual streams: "streams" are groups of tied
layers, and how many channels they lose. "Differs" is the largest difference between
gated and stripped outputs as a share of how far the outputs vary over inputs, in
float64 (allowed: 1e-9); in float32 as a share of what ten times the model's own
rounding allows, "blind" where rounding alone moves the outputs so far that the
comparison shows nothing. "Mutant" is the difference with two kept units of one layer
swapped; it has to be larger than what is allowed."""

CORNERS = """Corners are random gates, each stripped: `cost(open)` is compared with the
parameters and MACs of the stripped model, of every tenth the outputs as well. In "with
dead layers" of them some layer is closed as a whole. Small are the families with few
and narrow blocks that the tests use."""

MODEL_HEADER = (
    "model | parameters | reachable | MCT | plan (s) | rewrite (s) | copy (s) | "
    "(plan + rewrite) / copy | comparison (s) | memory: rewrite (MiB) | copy (MiB) | "
    "barriers"
)
PROOF_HEADER = (
    "model | seed | gates | parameters | stripped | MACs | stripped | streams | "
    "outputs vary | differs | mutant | differs, float32 | minutes | "
    "peak (MiB) | holds"
)
CORNER_HEADER = "model | seed | gates | corners | with dead layers | minutes | holds"


def render(runs: list[dict], models: Sequence[str]) -> str:
    """The runs as Markdown: each model's reach and cost, each proof, what is left."""
    parts = [PREFACE, summary(runs)]
    if left := [m for m in models if m not in {r["model"] for r in runs}]:
        parts.append(f"Not run yet: {', '.join(left)}.")
    order = {model: number for number, model in enumerate(models)}
    for title, text, header, row, kind in TABLES:
        done = [r for r in runs if r["kind"] == kind and "minutes" in r]
        done.sort(key=lambda r: (order.get(r["model"], math.inf), r["seed"]))
        if row is measure_row:
            done = list({r["model"]: r for r in reversed(done)}.values())[::-1]
        parts += [f"## {title}", text, table(header, [row(r) for r in done])]
    return "\n\n".join(parts)


def summary(runs: list[dict]) -> str:
    """What holds of all runs together."""
    done = [r for r in runs if "minutes" in r]
    proofs = [r for r in done if r["kind"] == "proof"]
    corners = [r for r in done if r["kind"] == "corners"]
    right = sum(not r["failures"] for r in proofs)
    # Rounding alone may move the outputs so far that a comparison shows nothing.
    seeing = [r for r in proofs if r["tolerance32"] <= BLIND]
    noticed = sum(r["mutant32"] > r["tolerance32"] for r in seeing)
    lines = [
        f"{right} of {len(proofs)} proofs hold, of {len({r['model'] for r in proofs})} "
        f"models; in float32, where {len(seeing)} are not blind, {noticed} mutants are "
        f"noticed. {sum(r['corners'] for r in corners):,} corners were compared, "
        f"{sum(len(r['failures']) for r in corners)} of them differ."
    ]
    took = {(r["model"], r["seed"]): taken(r) for r in proofs}
    # What was timed again apart from its proof says how.
    timed = {r["seed"]: r["timed"]["how"] for r in proofs if "timed" in r}
    for seed in sorted({r["seed"] for r in proofs}):
        if {("ResNet152", seed), ("ResNet50", seed)} <= took.keys():
            ratio = took["ResNet152", seed] / took["ResNet50", seed]
            lines.append(
                f"Plan and rewrite of ResNet152 take {ratio:.2f} times what they take "
                f"of ResNet50 ({timed.get(seed, 'each with its proof')})."
            )
    commits = ", ".join(f"`{c}`" for c in dict.fromkeys(r["commit"] for r in done))
    return " ".join([*lines, f"Commits: {commits}."])


def run_row(r: dict) -> str:
    """One row of the table of runs."""
    if "minutes" not in r:
        failures = "; ".join(r["failures"])
        return f"{r['model']} | {r['seed']} | not finished: {failures}"
    return proof_row(r) if r["kind"] == "proof" else corner_row(r)


def taken(r: dict) -> float:
    return r["seconds_plan"] + r["seconds_rewrite"]


def measure_row(r: dict) -> str:
    kinds = sorted({b.partition(":")[0] for b in r["barriers"]})
    return (
        f"{r['model']} | {r['params']:,} | **{r['reachable']:.2%}** | "
        f"{r['reachable_mct']:.1%} | {r['seconds_plan']:.2f} | "
        f"{r['seconds_rewrite']:.2f} | {r['seconds_copy']:.2f} | "
        f"**{taken(r) / r['seconds_copy']:.2f}** | {r['seconds_comparison']:.2f} | "
        f"{whole(r['memory_rewrite'])} | "
        f"{whole(r['memory_copy'])} | {', '.join(kinds) or 'none'}"
    )


def proof_row(r: dict) -> str:
    return (
        f"{r['model']} | {seed(r)} | {r['gates']} | {r['params']:,} | "
        f"{r['params_stripped']:,} | {r['macs']:,} | {r['macs_stripped']:,} | "
        f"{streams(r['streams'])} | {r['variation']:.2f} | {r['difference']:.0e} | "
        f"{r['mutant']:.0e} | {rounded(r)} | "
        f"{r['minutes']:.1f} | {whole(r['peak_mib'])} | "
        f"{'; '.join(r['failures']) or 'all'}"
    )


def rounded(r: dict) -> str:
    share = f"{r['difference32'] / r['tolerance32']:.2f}"
    return f"{share} (blind)" if r["tolerance32"] > BLIND else share


def corner_row(r: dict) -> str:
    return (
        f"{r['model']} | {seed(r)} | {r['gates']} | {r['corners']:,} | {r['dead']} | "
        f"{r['minutes']:.1f} | {'; '.join(r['failures']) or 'all'}"
    )


def seed(r: dict) -> str:
    return f"{r['seed']}{', shared' if r['seed'] % 2 else ''}"


TABLES = (
    ("Reach and speed", REACH, MODEL_HEADER, measure_row, "proof"),
    ("Each proof", PROOFS, PROOF_HEADER, proof_row, "proof"),
    ("Corners", CORNERS, CORNER_HEADER, corner_row, "corners"),
)


def streams(groups: Sequence[Sequence[int]]) -> str:
    """``12 of 16, 1,240 → 620``: groups of tied layers that lose channels."""
    smaller = sum(kept < units for units, kept in groups)
    units, kept = (
        (sum(column) for column in zip(*groups, strict=True)) if groups else (0, 0)
    )
    return f"{smaller} of {len(groups)}, {units:,} → {kept:,}"


def whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
