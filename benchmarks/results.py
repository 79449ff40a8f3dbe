"""All results, from what the benchmarks have measured, and one page of summaries.

    python benchmarks/results.py

writes each `results-*.md` from the `results-*.json` beside it, with its plot if it has
one, and `RESULTS.md`: the pages without their lists of single runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import budget
import compaction_table
import deploy_table
import identity
import latency_budget
import mnist_table
import overhead
import paper_table
import peers_table
import strip_zoo
import transfer_table
import wide_resnet_table

HERE = Path(__file__).resolve().parent

PREFACE = """# Results

Written by `python benchmarks/results.py` from the pages of the benchmarks, which have
every run with its settings, seed and commit."""
PAGES: dict[str, Callable[[Any], str]] = {
    "budget": budget.render,
    "compaction": compaction_table.render,
    "deploy": deploy_table.render,
    "identity": identity.render,
    "latency": latency_budget.render,
    "mnist": mnist_table.render,
    "overhead": overhead.render,
    "paper": paper_table.render,
    "peers": peers_table.render,
    "strip-zoo": strip_zoo.render_all,
    "transfer": transfer_table.render,
    "wide-resnet": wide_resnet_table.render,
}
PLOTS = {"paper": paper_table.picture}


def summary(page: str) -> str:
    """A page without its lists of single runs, its headings one level down."""
    lines = page.split("\n## Each ")[0].split("\n## Runs")[0].splitlines()
    return "\n".join(f"#{x}" if x.startswith("#") else x for x in lines).rstrip()


def main(arguments: list[str] | None = None) -> None:
    """Writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=HERE)
    folder = parser.parse_args(arguments).folder
    parts = [PREFACE]
    for name, render in PAGES.items():
        path = folder / f"results-{name}.json"
        records = json.loads(path.read_text())
        page = render(records)
        path.with_suffix(".md").write_text(page + "\n")
        if name in PLOTS:
            PLOTS[name](records, path.with_suffix(".png"))
        parts += [summary(page), f"[All of it](results-{name}.md)"]
    (folder / "RESULTS.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
