"""The process that `benchmark` starts to measure memory: no Keras, no TensorFlow."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def main(path: str, threads: int) -> None:
    """Prints by how many bytes loading and running a file raises the peak at most."""
    from ai_edge_litert.interpreter import Interpreter

    before = _status("VmRSS")
    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    for _ in range(3):
        interpreter.invoke()
    print(max(0, _status("VmHWM") - before))


def _status(name: str) -> int:
    """Bytes of resident memory now, or at most until now."""
    # The usual getrusage() would count what this process was before it was Python.
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found
    return int(found.group(1)) * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
