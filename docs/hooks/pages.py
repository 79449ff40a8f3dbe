"""Pages of the site that are made of other files of the repository.

MkDocs calls what is named ``on_...``; the rest is plain Python, so that tests can look
at the pages without it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Written elsewhere in the repository, and shown as they are.
COPIED = ["CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"]


def on_config(config: Any) -> None:
    """Fills the parts of the navigation that list the files of a folder."""
    for entry in config.nav:
        for part, pages in (("Benchmarks", results()), ("Tutorials", tutorials())):
            if part in entry:
                entry[part] = list(pages)


def on_files(files: Any, config: Any) -> None:
    """Adds the pages that are made of other files."""
    from mkdocs.structure.files import File

    made = {name: (ROOT / name).read_text() for name in [*COPIED, *results()]}
    made |= {"index.md": (ROOT / "README.md").read_text(), **tutorials()}
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    for picture in ROOT.glob("benchmarks/results-*.png"):
        path = picture.relative_to(ROOT).as_posix()
        files.append(File.generated(config, path, content=picture.read_bytes()))


def on_page_markdown(markdown: str, *, page: Any, **kwargs: Any) -> str:
    """Links between files of the repository become links between their pages."""
    up = "../" * page.file.src_uri.count("/")
    for folder in ("../", "docs/"):  # out of docs/, and into it
        markdown = markdown.replace(f"]({up}{folder}", f"]({up}")
    # A notebook's page is made of its script.
    markdown = re.sub(r"\]\(([\w/.]+)\.ipynb\)", r"](\1.md)", markdown)
    before, marker, after = markdown.partition("<!-- tables -->")
    return before + layers() + after if marker else markdown


def results() -> list[str]:
    """The tables of the benchmarks, all on one page first."""
    pages = sorted(ROOT.glob("benchmarks/results-*.md"))
    return ["benchmarks/RESULTS.md", *(f"benchmarks/{page.name}" for page in pages)]


def tutorials() -> dict[str, str]:
    """A page for each script in percent format: its text, and its code."""
    pages = {}
    for script in sorted(ROOT.glob("tutorials/*.py")):
        cells = re.split(r"^# %%", script.read_text(), flags=re.MULTILINE)[1:]
        pages[f"tutorials/{script.stem}.md"] = "\n\n".join(map(cell, cells)) + "\n"
    return pages


def cell(source: str) -> str:
    """A cell of a script in percent format as Markdown."""
    head, _, body = source.partition("\n")
    if "[markdown]" in head:
        return re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip()
    return f"```python\n{body.strip()}\n```" if body.strip() else ""


def layers() -> str:
    """What becomes of every layer and operation, out of the registry of rules."""
    import keras

    from keras_l0.analysis.decisions import decisions

    groups = defaultdict(list)
    for row in decisions():
        kind = "Layers" if row.layer else "Operations"
        part = f"{kind}: {'barriers' if row.barrier else 'ruled'}"
        groups[part, row.barrier or row.summary].append(f"`{row.name}`")
    page, last = [f"This is the list for Keras {keras.__version__}."], ""
    for (part, text), names in sorted(groups.items(), key=_place):
        if part != last:
            text_is = "why" if part.endswith("barriers") else "rule"
            page += ["", f"## {part}", "", f"| names | {text_is} |", "|---|---|"]
            last = part
        page.append(f"| {', '.join(names)} | {text} |")
    return "\n".join(page) + "\n"


def _place(group: tuple[tuple[str, str], list[str]]) -> tuple[bool, bool, list[str]]:
    """Layers before operations, rules before barriers, then by name."""
    (part, _), names = group
    return part.startswith("Operations"), part.endswith("barriers"), names
