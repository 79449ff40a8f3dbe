"""All results on one page: what each benchmark says first, and its summary.

    python benchmarks/results.py

writes `RESULTS.md` from the `results-*.md` beside it, which the benchmarks write.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HERE = Path(__file__).resolve().parent

PREFACE = """# Results

Written by `python benchmarks/results.py` from the pages of the benchmarks, which have
every run with its settings, seed and commit."""


def summary(page: str) -> str:
    """A page up to the end of its first table, its headings one level down."""
    lines, in_table = [], False
    for line in page.splitlines():
        if in_table and not line.startswith("|"):
            break
        in_table = line.startswith("|")
        lines.append(f"#{line}" if line.startswith("#") else line)
    return "\n".join(lines).rstrip()


def main(arguments: list[str] | None = None) -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=HERE)
    folder = parser.parse_args(arguments).folder
    parts = [PREFACE]
    for path in sorted(folder.glob("results-*.md")):
        parts += [summary(path.read_text()), f"[All of it]({path.name})"]
    (folder / "RESULTS.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
