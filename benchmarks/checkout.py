"""Which commit of this repository the benchmarks measure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What is measured is this checkout, whatever is installed.
sys.path.insert(0, str(HERE.parent))


def commit() -> str:
    """The commit that this is, with a + where its code has changed since."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(HERE.parent), *words]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "keras_l0", "benchmarks/*.py")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


# Taken now: by the end of a run the checkout may have moved on.
COMMIT = commit()
