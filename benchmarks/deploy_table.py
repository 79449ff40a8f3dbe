"""The results of deploy.py as a Markdown page."""

from __future__ import annotations

from typing import Any

_NAMES = {
    "dense": "dense",
    "tfmot": "TFMOT, {sparsity:.0%} of the weights 0",
    "ours": 'gates, `inputs="keep"`',
    "ours-gather": 'gates, `inputs="gather"`',
}


def render(result: dict[str, Any]) -> str:
    """The page."""
    about, records = result["about"], result["records"]
    lines = [
        "# What a device gets",
        "",
        "Made by `benchmarks/deploy.py`; one seed. Errors are those of the file on the "
        "10,000 test images of MNIST. Latencies are ratios to the dense file of the "
        f"same precision, medians of {about['runs']} runs in turns on one x86 thread "
        "(between quartiles); where a file takes fractions of a millisecond, fixed "
        "overhead hides the work. The arena is TFLite Micro's on a 64-bit machine; "
        f"inferences per second, SRAM and flash are Vela's estimates for an "
        f"{about['npu']}, default system and memory mode.",
    ]
    for network in dict.fromkeys(record["network"] for record in records):
        rows = [record for record in records if record["network"] == network]
        lines += ["", f"## {network}", ""]
        for settings in [row["settings"] for row in rows if "settings" in row][:1]:
            lines += [
                f"Dense: {rows[0]['epochs']} epochs, and as many to prune it. Gates: "
                f"{settings['epochs']} epochs {_how(settings)}. "
                f"Commit {rows[0]['commit']}.",
                "",
            ]
        for precision in ("float32", "int8"):
            lines += [
                f"| {precision} | parameters | MACs | bytes | gzip | error | latency | "
                "memory |",
                "|---|---|---|---|---|---|---|---|",
                *(_file(row, rows[0], precision) for row in rows),
                "",
            ]
        if about["npu"] in rows[0] or "micro" in rows[0]:
            lines += [
                "| int8 | arena | inferences/s | SRAM | flash | mapped |",
                "|---|---|---|---|---|---|",
                *(_target(row, rows[0], about["npu"]) for row in rows),
                "",
            ]
    while lines[-1] == "":
        lines.pop()
    if "scaling" in result:
        lines += ["", *_scaling(result["scaling"])]
    lines.append("")
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    lines.append(f"Versions: {versions}.")
    return "\n".join(lines)


def _how(settings: dict[str, Any]) -> str:
    if "budget" in settings:
        limits = ", ".join(f"{k}={v:g}" for k, v in settings["budget"].items())
        return f"from the dense network, under `Budget({limits})`"
    return f"of `mnist.py`, `l0` = {', '.join(f'{l0:g}' for l0 in settings['l0'])}"


def _scaling(rows: list[dict[str, Any]]) -> list[str]:
    """How latency follows MACs where overhead does not hide it."""
    lines = [
        "## Latency and MACs",
        "",
        "A residual network of 128, 256 and 512 channels on images of 28 x 28, "
        "float32, not trained, zeros as images. Of each layer the share of units in "
        "the first column is open; CPU time of one thread.",
        "",
        "| open | parameters | MACs | latency | latency over MACs |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        share = row["macs"] / rows[0]["macs"]
        low, high = row["ratio_quartiles"]
        cells = [
            f"{row['share']:.0%}",
            f"{row['params']:,}",
            f"{row['macs']:,} ({share:.3f}x)",
            f"{row['milliseconds']:.2f} ms, {row['ratio']:.3f}x ({low:.3f}-{high:.3f})",
            f"{row['ratio'] / share:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _file(row: dict[str, Any], dense: dict[str, Any], precision: str) -> str:
    file, first = row[precision], dense[precision]
    low, high = file["ratio_quartiles"]
    memory = file["memory_bytes"]
    cells = [
        _NAMES[row["variant"]].format(**row),
        f"{row['params']:,}",
        f"{row['macs']:,}",
        _share(file["bytes"], first["bytes"]),
        _share(file["gzip_bytes"], first["gzip_bytes"]),
        f"{file['error']:.2f} %",
        f"{file['milliseconds']:.3f} ms, {file['ratio']:.2f}x ({low:.2f}-{high:.2f})",
        "?" if memory is None else f"{memory / 2**20:.1f} MiB",
    ]
    return f"| {' | '.join(cells)} |"


def _target(row: dict[str, Any], dense: dict[str, Any], npu: str) -> str:
    cells = [_NAMES[row["variant"]].format(**row)]
    if "micro" in row:
        cells.append(_share(row["micro"]["arena_bytes"], dense["micro"]["arena_bytes"]))
    else:
        cells.append("-")
    if npu in row:
        figures, first = row[npu], dense[npu]
        speed, before = figures["inferences_per_second"], first["inferences_per_second"]
        cells += [
            f"{speed:,.0f} ({speed / before:.1f}x)",
            f"{figures['sram_bytes']:,.0f}",
            f"{figures['flash_bytes']:,.0f}",
            f"{figures['mapped']:.0%}",
        ]
    else:
        cells += ["-"] * 4
    return f"| {' | '.join(cells)} |"


def _share(value: float, before: float) -> str:
    return f"{value:,.0f} ({value / before:.3f}x)"
