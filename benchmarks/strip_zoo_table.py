"""What `strip_zoo.py` has measured, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from mnist_table import table

PREFACE = """# Strip, on every model of keras.applications

Written by `python benchmarks/strip_zoo.py`; unrounded figures and versions are in the
JSON file beside this one. Models have ten classes, random weights and the smallest
input that they take. "Reachable" is the share of kernels and biases outside the output
layer that goes if all units but one of every group are closed; "MCT" is the same share
by the rule of Sony's Model Compression Toolkit on the same graph. "Differs" is the
largest difference between gated and stripped outputs as a share of how far the outputs
vary over inputs, in float64 (allowed: 1e-9); in float32 as a share of what ten times
the model's own rounding allows. "Mutant" is the same with two kept units of one layer
swapped. "Corners" are random gates for which `cost(open)` was the size of the stripped
model, and its outputs were right. Time and memory are those of `plan` and of `strip`
without its comparison, beside `clone_model` and `set_weights` on the same gated model,
on a machine that did other work too."""

MODEL_HEADER = (
    "model | parameters | reachable | MCT | plan (s) | rewrite (s) | copy (s) | "
    "(plan + rewrite) / copy | comparison (s) | memory: rewrite (MiB) | copy (MiB) | "
    "barriers"
)
PROOF_HEADER = (
    "model | seed | gates | parameters | stripped | MACs | stripped | streams | "
    "outputs vary | differs | mutant | differs, float32 | corners | minutes | "
    "peak (MiB) | holds"
)


def render(runs: list[dict], models: Sequence[str]) -> str:
    """The runs as Markdown: each model's reach and cost, each proof, what is left."""
    parts = [PREFACE]
    if left := [m for m in models if m not in {r["model"] for r in runs}]:
        parts.append(f"Not run yet: {', '.join(left)}.")
    for kind, header in (("measure", MODEL_HEADER), ("proof", PROOF_HEADER)):
        rows = [run_row(r) for r in runs if r["kind"] == kind]
        parts += [f"## {TITLES[kind]}", table(header, rows)]
    return "\n\n".join(parts)


TITLES = {"measure": "Reach and speed", "proof": "Each proof"}


def run_row(r: dict) -> str:
    """One row of the table of runs."""
    failures = "; ".join(r.get("failures", ()))
    if "minutes" not in r:
        return f"{r['model']} | {r['seed']} | not finished: {failures}"
    if r["kind"] == "measure":
        compared = r["seconds_verified"] - r["seconds_rewrite"]
        kinds = sorted({b.partition(":")[0] for b in r["barriers"]})
        return (
            f"{r['model']} | {r['params']:,} | **{r['reachable']:.2%}** | "
            f"{r['reachable_mct']:.1%} | {r['seconds_plan']:.2f} | "
            f"{r['seconds_rewrite']:.2f} | {r['seconds_copy']:.2f} | "
            f"**{r['ratio']:.2f}** | {compared:.2f} | {whole(r['memory_rewrite'])} | "
            f"{whole(r['memory_copy'])} | {', '.join(kinds) or 'none'}"
        )
    seed = f"{r['seed']}{', shared' if r['seed'] % 2 else ''}"
    rounding = (
        f"{r['difference32'] / r['tolerance32']:.2f}" if "tolerance32" in r else "-"
    )
    return (
        f"{r['model']} | {seed} | {r['gates']} | {r['params']:,} | "
        f"{r['params_stripped']:,} | {r['macs']:,} | {r['macs_stripped']:,} | "
        f"{streams(r['streams'])} | {r['variation']:.2f} | {r['difference']:.0e} | "
        f"{r['mutant']:.0e} | {rounding} | {r['corners']} | {r['minutes']:.1f} | "
        f"{whole(r['peak_mib'])} | {failures or 'all'}"
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
