"""What a benchmark has run already, in a JSON file, and on how many threads it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Runs(list[dict[str, Any]]):
    """The records of a file. Each new one is written at once: a run may be cut short.

    Args:
        path: The file, if there is one yet.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(json.loads(path.read_text()) if path.exists() else [])
        self.path = path

    def found(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The first record of which these are a part; None if there is none."""
        return next((r for r in self if key.items() <= r.items()), None)

    def keep(self, *records: dict[str, Any]) -> None:
        """Appends records, and writes all of them."""
        self += records
        self.path.write_text(json.dumps(self, indent=1) + "\n")


def use_threads(count: int) -> None:
    """Lets TensorFlow use so many threads; 0 leaves them as they are."""
    import tensorflow as tf

    if count:
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)
