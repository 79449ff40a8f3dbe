"""The documentation names all that is public, and nothing that is not there.

`make docs` builds the pages and checks their links; this needs no MkDocs.
"""

import ast
import inspect
import re
import runpy
from pathlib import Path

import pytest

import keras_l0
from keras_l0.analysis.decisions import decisions

ROOT = Path(__file__).parents[1]
DOCS = sorted(ROOT.glob("docs/**/*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
REFERENCE = [
    name
    for page in sorted(ROOT.glob("docs/reference/*.md"))
    for name in re.findall(r"^::: (\S+)", page.read_text(), flags=re.MULTILINE)
]

pytestmark = pytest.mark.skipif(not DOCS, reason="not in a checkout")


def found(name):
    thing = keras_l0
    for part in name.split(".")[1:]:
        if part == "L0ReversibleEmbedding":  # Keras 3.10 has none to extend.
            thing = getattr(thing, part, "not in this Keras")
        else:
            thing = getattr(thing, part)
    return thing


def public():
    for name in keras_l0.__all__:
        thing = getattr(keras_l0, name)
        if inspect.ismodule(thing):
            own = [
                name
                for name, member in inspect.getmembers(thing)
                if getattr(member, "__module__", "") == thing.__name__
                and not name.startswith("_")
            ]
            yield from (getattr(thing, n) for n in getattr(thing, "__all__", own))
        else:
            yield thing


def test_the_reference_has_every_public_name_once():
    listed = [found(name) for name in REFERENCE]
    assert [x.__name__ for x in public() if x not in listed] == []
    assert len(REFERENCE) == len(set(REFERENCE))


def test_the_page_of_layers_has_every_decision():
    page = runpy.run_path(str(ROOT / "docs/hooks/pages.py"))["layers"]()
    titles = re.findall(r"^## (.*)$", page, flags=re.MULTILINE)
    kinds = ("ruled", "barriers")
    assert titles == [f"{a}: {b}" for a in ("Layers", "Operations") for b in kinds]
    parts = dict(zip(titles, page.split("\n## ")[1:], strict=True))
    for row in decisions():
        kind = "Layers" if row.layer else "Operations"
        lines = parts[f"{kind}: {kinds[bool(row.barrier)]}"].splitlines()
        (line,) = [x for x in lines if f"`{row.name}`" in x.split(" | ")[0]]
        assert line.endswith(f" | {row.barrier or row.summary} |")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_name_what_exists(page):
    text = page.read_text()
    for name in re.findall(r"\bkeras_l0(?:\.[A-Za-z_]\w*)+", text):
        assert found(name) is not None
    for source in re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S):
        ast.parse(source)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_to_files_lead_somewhere(page):
    hooks = runpy.run_path(str(ROOT / "docs/hooks/pages.py"))
    on_site = {ROOT / name for name in [*hooks["COPIED"], *hooks["results"]()]}
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        path = (page.parent / target).resolve()
        assert path.exists(), target
        assert path.suffix != ".md" or path in on_site.union(PAGES), target
