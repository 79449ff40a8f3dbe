"""Docstrings as the site shows them: see `griffe.Extension`."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import griffe

DOCUMENTED = {
    name
    for page in Path(__file__).parents[1].glob("reference/*.md")
    for name in re.findall(r"^::: (\S+)", page.read_text(), flags=re.MULTILINE)
}
SHORT = {name.rpartition(".")[2]: name for name in sorted(DOCUMENTED)}


class Docstrings(griffe.Extension):
    """Gated layers as Python has them, examples as examples, and names as links."""

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Gated layers get their signature, and part of their docstring, on import."""
        if cls.path.startswith("keras_l0.layers.") and cls.docstring:
            made = getattr(importlib.import_module(cls.module.path), cls.name)
            if "__signature__" in vars(made):
                cls.docstring.value = _shown(inspect.cleandoc(made.__doc__))
                cls.set_member("__init__", _constructor(made))

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = _shown(obj.docstring.value)


def _constructor(made: type) -> griffe.Function:
    none = inspect.Parameter.empty
    parameters = [
        griffe.Parameter(
            p.name,
            kind=griffe.ParameterKind[p.kind.name.lower()],
            default=None if p.default is none else repr(p.default),
            annotation=None
            if p.annotation is none
            else re.sub(r"[\w.]+\.", "", inspect.formatannotation(p.annotation)),
        )
        for p in inspect.signature(made).parameters.values()
    ]
    return griffe.Function("__init__", parameters=griffe.Parameters(*parameters))


def _shown(text: str) -> str:
    text = text.replace("Example:\n", "Examples:\n")
    return re.sub(r"(?<!`)`([\w.]+)`(?!`)", _link, text)


def _link(match: re.Match[str]) -> str:
    name = match[1]
    path = (
        name if name in DOCUMENTED else SHORT.get(name) if name[0].isupper() else None
    )
    return f"[`{name}`][{path}]" if path else match[0]
