"""A file as C source, for firmware that has no file system."""

from __future__ import annotations

import os
import re
from pathlib import Path

from keras_l0.files import check_destination

_PER_LINE = 12
# Names of files that C++ does not take for variables.
_KEYWORDS = frozenset(
    "auto bool char class const default delete do double enum explicit export float "
    "for friend if inline int long main namespace new operator private protected "
    "public register short signed static struct switch template this typename union "
    "unsigned using virtual void volatile while".split()
)


def check_c_path(path: str | os.PathLike[str], model: Path) -> Path:
    """Refuses a path that C++ source cannot be written to, beside a model.

    Raises:
        ValueError: If it does not end in .cc or .cpp, or the model would go to the same
            file.
        TypeError, OSError: As `check_destination`.
    """
    target = check_destination(path, "c_array")
    if target.suffix not in (".cc", ".cpp"):
        raise ValueError(
            f"`c_array` must end in .cc or .cpp. Received: c_array={os.fspath(path)!r}"
        )
    header = target.with_suffix(".h")
    check_destination(header, "c_array")
    if os.path.realpath(model) in map(os.path.realpath, (target, header)):
        raise ValueError(
            "`c_array` and its header must be other files than `path`. "
            f"Received: c_array={os.fspath(path)!r}, path={os.fspath(model)!r}"
        )
    return target


def c_sources(content: bytes, path: Path) -> dict[Path, bytes]:
    """The bytes of a file as a constant in C++.

    Args:
        content: The bytes of the .tflite file.
        path: The .cc file; the header goes beside it.

    Returns:
        Path -> content of the .cc and the .h file. The array, aligned to 16 bytes as
        TFLite Micro asks, has the name of the file.
    """
    header = path.with_suffix(".h")
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    if name[:1].isdigit() or name in _KEYWORDS:
        name = f"model_{name}"
    rows = (
        ", ".join(f"0x{byte:02x}" for byte in content[start : start + _PER_LINE])
        for start in range(0, len(content), _PER_LINE)
    )
    declarations = (
        "#pragma once\n\n"
        f"extern const unsigned char {name}[];\n"
        f"extern const unsigned int {name}_size;\n"
    )
    source = (
        f'#include "{header.name}"\n\n'
        f"alignas(16) const unsigned char {name}[] = {{\n    "
        + ",\n    ".join(rows)
        + f"}};\nconst unsigned int {name}_size = {len(content)};\n"
    )
    return {header: declarations.encode(), path: source.encode()}
