"""Destinations that are checked before work starts, and files written whole or not."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path


def check_destination(path: str | os.PathLike[str], argument: str = "path") -> Path:
    """Refuses a path that a file cannot be written to.

    Args:
        path: Where a file is to go.
        argument: The argument that says so, for the message.

    Returns:
        The path as a `Path`.

    Raises:
        TypeError: If ``path`` is neither a string nor a path.
        ValueError: If no file can have that name, or it is a device or a pipe, which
            the new file would take the place of.
        OSError: If its folder is missing, it is a folder, or it is not writable
            (`FileNotFoundError`, `NotADirectoryError`, `IsADirectoryError`,
            `PermissionError`).
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(
            f"`{argument}` must be a string or a path, the file to write. "
            f"Received: {argument}={path!r} of type {type(path).__name__}"
        )

    def must(what: str) -> str:
        return f"`{argument}` must {what}. Received: {argument}={os.fspath(path)!r}"

    if "\0" in os.fspath(path):
        raise ValueError(must("be without null characters"))
    target = Path(os.path.realpath(path))
    folder = target.parent
    if target.is_dir():
        raise IsADirectoryError(must("name a file, not a folder"))
    if not folder.exists():
        raise FileNotFoundError(
            must(f"lie in a folder that exists; {str(folder)!r} does not")
        )
    if not folder.is_dir():
        raise NotADirectoryError(must(f"lie in a folder; {str(folder)!r} is a file"))
    if target.exists() and not target.is_file():
        raise ValueError(must("name a file, not a device or a pipe"))
    for needed in (target, folder):
        if needed.exists() and not os.access(needed, os.W_OK):
            raise PermissionError(must(f"be writable; {str(needed)!r} is not"))
    return Path(path)


def write_atomically(path: Path, content: bytes) -> None:
    """`write_together` for one file."""
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Writes files whole or not at all, all of them or none.

    The bytes go to temporary files in the same folders, which then take the places of
    the paths (of the files they point to, if they are links). If a file cannot be
    written, earlier ones stay as they were and the temporary ones are removed.

    Args:
        contents: Where each file is to go, and its bytes.

    Raises:
        OSError: If a file cannot be written.
    """
    temporaries: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            target = Path(os.path.realpath(path))
            temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
            temporaries[temporary] = target
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for temporary, target in temporaries.items():
            os.replace(temporary, target)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
