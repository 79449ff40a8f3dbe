"""What the benchmarks have in common: options, records of what has run, its facts."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from checkout import COMMIT

HERE = Path(__file__).resolve().parent


class Runs(list[dict[str, Any]]):
    """The records of a file. Each new one is written at once: a run may be cut short.

    What other processes have written to the file meanwhile stays in it.

    Args:
        path: The file, if there is one yet.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(_read(path))
        self.path = path

    def found(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The first record of which these are a part; None if there is none."""
        return next((r for r in self if key.items() <= r.items()), None)

    def keep(
        self, *records: dict[str, Any], instead_of: dict[str, Any] | None = None
    ) -> None:
        """Appends records, and writes all of them.

        Args:
            *records: The records.
            instead_of: A part that records have which are to go.
        """
        there = _read(self.path)
        if instead_of is not None:
            there = [r for r in there if not instead_of.items() <= r.items()]
        self[:] = [*there, *records]
        beside = self.path.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(self, indent=1) + "\n")
        os.replace(beside, self.path)


def _read(path: Path, kind: type = list) -> Any:
    """The records of a file, if there is one: a list, or what else it is to hold.

    Raises:
        ValueError: If it holds something else.
    """
    if not path.exists():
        return kind()
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{str(path)!r} must be a JSON file: {error}") from error
    if not isinstance(found, kind):
        raise ValueError(
            f"{str(path)!r} must hold a {kind.__name__} of records. "
            f"Received: a {type(found).__name__}"
        )
    return found


class Parser(argparse.ArgumentParser):
    """Of a benchmark. What cannot be read or written is known before anything runs.

    Args:
        doc: The script's docstring.
        holds: What its file of results is, as JSON.
    """

    def __init__(self, doc: str | None, holds: type = list) -> None:
        super().__init__(description=(doc or "").partition("\n")[0])
        self.holds = holds

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        found = super().parse_args(*args, **kwargs)
        output = found.output
        if getattr(found, "tiny", False) and output == self.get_default("output"):
            # What is published is not to be mixed with what says nothing.
            found.output = output = Path(tempfile.mkdtemp()) / output.name
            print(f"writing {output}")
        if not output.parent.is_dir():
            self.error(f"--output must lie in a folder that is there: {str(output)!r}")
        try:
            _read(output, self.holds)
        except ValueError as error:
            self.error(f"--output: {error}")
        data = getattr(found, "data", None)
        if data and not data.is_file():
            self.error(f"--data names {str(data)!r}, which is not a file")
        return found


class Timed:
    """Minutes spent in a block, by the clock and of the CPU."""

    def __enter__(self) -> Timed:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: Any) -> None:
        self.minutes = (time.perf_counter() - self._start[0]) / 60
        self.cpu_minutes = (time.process_time() - self._start[1]) / 60


def options(
    doc: str, results: str, tiny: str, validation: bool = True, data: bool = True
) -> Parser:
    """A parser with the options that benchmarks share.

    Args:
        doc: The script's docstring.
        results: Name of its results, without suffix.
        tiny: What ``--tiny`` makes of it.
        validation: Whether it can hold out training images.
        data: Whether it takes the images of MNIST from a file.
    """
    parser = Parser(doc)
    add = parser.add_argument
    add("--tiny", action="store_true", help=tiny)
    add("--output", type=Path, default=HERE / f"{results}.json")
    add("--threads", type=int, default=1, help="of TensorFlow; 0: as they are")
    if validation:
        add("--validation", action="store_true", help="hold out training images")
    if data:
        add("--data", type=Path, help="an .npz file as Keras keeps it for MNIST")
    return parser


def settings_option(
    parser: argparse.ArgumentParser, flag: str = "--set", help: str = "other settings"
) -> None:
    """Lets settings be changed by name."""
    parser.add_argument(
        flag, nargs="+", default=[], type=_setting, metavar="NAME=VALUE", help=help
    )


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def use_threads(count: int) -> None:
    """Lets TensorFlow use so many threads; 0 leaves them as they are."""
    import tensorflow as tf

    if count:
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)


def versions() -> dict[str, str]:
    """Of Python and of what is imported."""
    names = ("keras_l0", "keras", "tensorflow", "jax", "torch", "numpy")
    names += ("tf_keras", "tensorflow_model_optimization")
    modules = {name: sys.modules[name] for name in names if name in sys.modules}
    found = {name: str(module.__version__) for name, module in modules.items()}
    return {"python": platform.python_version(), **found}


def processor() -> str:
    """What the machine computes on, as far as it says so."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    names = [line for line in text.splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{name}, {'with' if 'avx512' in text else 'without'} AVX-512"


def facts() -> dict[str, Any]:
    """What a record says of the code that it was measured with."""
    package = sys.modules.get("keras_l0")
    if package and not Path(package.__file__ or "").is_relative_to(HERE.parent):
        raise RuntimeError(f"{package} was measured, which is not this checkout's")
    return {"commit": COMMIT, "versions": versions(), "processor": processor()}
