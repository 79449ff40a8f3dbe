"""How long .tflite files take on this machine, and how much memory."""

from __future__ import annotations

import dataclasses
import gzip
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_l0.arguments import require_integer
from keras_l0.export import memory_run
from keras_l0.export.child import run_python
from keras_l0.export.silence import silence
from keras_l0.packages import required

_WARM_UP_RUNS = 10
# What an export spends on timing its file.
_SECONDS = 0.2
# How often each file of a latency table gets its turn, and for how long.
_TURNS, _TURN_SECONDS = 9, 0.002


class Latency(NamedTuple):
    """Seconds per inference.

    Attributes:
        median: The median of the runs.
        p95: What 95 % of the runs stay below.
    """

    median: float
    p95: float

    def __str__(self) -> str:
        return f"{_milliseconds(self.median)} (95 %: {_milliseconds(self.p95)})"


@dataclasses.dataclass(frozen=True)
class FileBenchmark:
    """What `benchmark` measured of one file.

    Attributes:
        path: The file.
        bytes: Its size.
        gzip_bytes: Its size after gzip.
        latency: Seconds per inference.
        ratio: Its latency over that of the first file: the median of the runs, each
            over the run of the first file beside it.
        ratio_quartiles: Between these lie half of those ratios.
        memory_bytes: What loading and running it adds at most to the memory of a fresh
            process. None where the system does not tell (it is read from Linux' /proc).
    """

    path: Path
    bytes: int
    gzip_bytes: int
    latency: Latency
    ratio: float
    ratio_quartiles: tuple[float, float]
    memory_bytes: int | None


@dataclasses.dataclass(frozen=True, repr=False)
class Benchmark:
    """Files side by side. ``print(benchmark)`` shows a table.

    Attributes:
        files: What was measured of each file, in the order given.
        runs: Timed inferences of each.
        threads: Threads of the interpreter.
    """

    files: tuple[FileBenchmark, ...]
    runs: int
    threads: int

    def __repr__(self) -> str:
        return f"Benchmark({len(self.files)} files, {self.runs} runs)"

    def __str__(self) -> str:
        cells = [file_cells(file) for file in self.files]
        for row in cells:
            row["ratio"] += f" ({row.pop('middle half')})"
        rows = [list(cells[0]), *(list(row.values()) for row in cells)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if number == 0 else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return "\n".join([*lines, f"{self.runs} runs in turns, {threads}"])


def file_cells(file: FileBenchmark) -> dict[str, str]:
    """A file's row in a table, by the columns' titles."""
    low, high = file.ratio_quartiles
    memory = file.memory_bytes
    return {
        "file": str(file.path),
        "bytes": f"{file.bytes:,}",
        "gzip": f"{file.gzip_bytes:,}",
        "median": _milliseconds(file.latency.median),
        "95 %": _milliseconds(file.latency.p95),
        "ratio": f"{file.ratio:.2f}",
        "middle half": f"{low:.2f}-{high:.2f}",
        "memory": "?" if memory is None else f"{memory / 2**20:.1f} MiB",
    }


def benchmark(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    runs: int = 200,
    threads: int = 1,
) -> Benchmark:
    """Measures .tflite files side by side, with XNNPACK, on random inputs.

    The files take turns, run by run, so that what else the machine does meanwhile
    slows all of them alike. On a phone, Google's ``benchmark_model`` says more:
    ``adb push`` it and the file to ``/data/local/tmp``, then ``adb shell
    /data/local/tmp/benchmark_model --graph=/data/local/tmp/model.tflite
    --num_threads=1 --use_xnnpack=true``.

    Args:
        paths: A file, or a list of files; the first one is what the ratios are of.
        runs: Timed inferences of each file; 10 more come first.
        threads: Threads of the interpreter.

    Returns:
        A `Benchmark`; ``print`` shows it as a table.

    Raises:
        ImportError: If LiteRT is not installed.
        TypeError: If ``runs`` or ``threads`` is not an integer.
        OSError: If a file cannot be read.
        ValueError: If one is not positive, no file is given, or one is not a .tflite
            file.

    Example:
        >>> import keras_l0
        >>> files = ["dense.tflite", "ours.tflite"]
        >>> result = keras_l0.benchmark(files)  # doctest: +SKIP
        >>> result.files[1].ratio  # doctest: +SKIP
        0.31
    """
    names = _paths(paths)
    seconds = _seconds(names, runs, threads)
    files = []
    for path, row in zip(names, seconds, strict=True):
        content = path.read_bytes()
        ratios = row / seconds[0]
        low, middle, high = np.percentile(ratios, (25, 50, 75))
        files.append(
            FileBenchmark(
                path=path,
                bytes=len(content),
                gzip_bytes=len(gzip.compress(content, mtime=0)),
                latency=_latency(row),
                ratio=float(middle),
                ratio_quartiles=(float(low), float(high)),
                memory_bytes=_memory(path, threads),
            )
        )
    return Benchmark(tuple(files), runs, threads)


def latency(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    runs: int = 200,
    threads: int = 1,
) -> list[Latency]:
    """The latencies alone, as `benchmark` measures them; one per file, in order."""
    return [_latency(row) for row in _seconds(_paths(paths), runs, threads)]


def quick_latency(contents: Sequence[bytes]) -> list[Latency]:
    """A first impression of files not written yet, in turns, within .2 s or 5 runs."""
    with silence():
        interpreters = [_ready(1, model_content=content) for content in contents]
    first = sum(map(_run, interpreters))
    count = int(np.clip(_SECONDS / max(first, 1e-6), 5, 100))
    rounds = np.array([list(map(_run, interpreters)) for _ in range(count)])
    return list(map(_latency, rounds.T))


def fastest(paths: Sequence[Path], threads: int = 1) -> list[float]:
    """Microseconds per inference of small files, undisturbed and one after another.

    The files take turns. In a turn each one runs several times, so that its weights are
    where they are in the middle of a network; the fastest run of a turn counts, and of
    the turns the median.
    """
    with silence():
        interpreters = [_ready(threads, model_path=os.fspath(path)) for path in paths]
    turns = np.zeros((_TURNS, len(interpreters)))
    for turn in range(-1, _TURNS):
        for index, interpreter in enumerate(interpreters):
            least = _run(interpreter)
            stop = time.perf_counter() + _TURN_SECONDS
            while True:
                least = min(least, _run(interpreter))
                if time.perf_counter() > stop:
                    break
            if turn >= 0:
                turns[turn, index] = least
    return (1e6 * np.median(turns, axis=0)).tolist()


def _paths(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> list[Path]:
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if not paths:
        raise ValueError("`paths` must name at least one file. Received: none")
    return [Path(path) for path in paths]


def _seconds(paths: list[Path], runs: int, threads: int) -> np.ndarray:
    """Seconds of every timed run, a row per file."""
    require_integer("runs", runs, 1)
    require_integer("threads", threads, 1)
    for path in paths:
        path.stat()  # of what is not there, the interpreter says that it is damaged
    with silence():
        interpreters = [_ready(threads, model_path=os.fspath(path)) for path in paths]
    for path, interpreter in zip(paths, interpreters, strict=True):
        require_one_signature(path, interpreter)
    seconds = np.zeros((len(interpreters), runs))
    for run in range(-_WARM_UP_RUNS, runs):
        for index, interpreter in enumerate(interpreters):
            taken = _run(interpreter)
            if run >= 0:
                seconds[index, run] = taken
    return seconds


def require_one_signature(path: str | os.PathLike[str], interpreter: Any) -> None:
    """Raises if a file holds several models: which of them is meant, nothing says."""
    names = list(interpreter.get_signature_list())
    if len(names) > 1:
        raise ValueError(
            "A .tflite file to run must have one signature. "
            f"Received: {os.fspath(path)!r} with {', '.join(map(repr, names))}"
        )


def _run(interpreter: Any) -> float:
    start = time.perf_counter()
    interpreter.invoke()
    return time.perf_counter() - start


def _latency(seconds: np.ndarray) -> Latency:
    return Latency(float(np.median(seconds)), float(np.percentile(seconds, 95)))


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def _memory(path: Path, threads: int) -> int | None:
    done = run_python(memory_run.__file__, os.fspath(path), str(threads))
    last = done.stdout.strip().splitlines()[-1:]
    return int(last[0]) if done.returncode == 0 and last else None


def _ready(threads: int, **model: Any) -> Any:
    litert = required("ai_edge_litert.interpreter", "Running a TFLite file", "litert")

    try:
        interpreter = litert.Interpreter(num_threads=threads, **model)
    except ValueError as error:
        name = model.get("model_path", "a file that was just written")
        raise ValueError(f"{name} is damaged or cut short: {error}") from error
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for tensor in interpreter.get_input_details():
        # Zeros are valid whatever an integer input looks up.
        values = np.zeros(tensor["shape"], tensor["dtype"])
        if values.dtype.kind == "f":
            values = np.asarray(rng.normal(size=values.shape), values.dtype)
        interpreter.set_tensor(tensor["index"], values)
    return interpreter
