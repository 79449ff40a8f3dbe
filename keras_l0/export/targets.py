"""Does the target take the file? What it says of it."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from keras_l0.export import edgetpu, ethos_u
from keras_l0.export.flatbuffer import Op
from keras_l0.export.report import ExportError


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where an operation runs.

    Attributes:
        op: The operation.
        reason: Why it runs on the CPU, or None if the accelerator takes it.
    """

    op: Op
    reason: str | None


@dataclasses.dataclass(frozen=True, repr=False)
class TargetReport:
    """What a target makes of a file. ``print(report)`` shows it.

    Attributes:
        target: Its name, with the configuration.
        placements: Operation by operation, where it runs; empty for a target without an
            accelerator.
        figures: What was measured or estimated, by name and with the unit in it.
        compiler: What the target's own compiler says, where it was run.
    """

    target: str
    placements: tuple[Placement, ...] = ()
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    compiler: str | None = None

    @property
    def mapped(self) -> float:
        """Share of the operations that the accelerator takes."""
        if not self.placements:
            return 0.0
        taken = sum(placement.reason is None for placement in self.placements)
        return taken / len(self.placements)

    def __repr__(self) -> str:
        return f"TargetReport({self.target!r}, {self.mapped:.0%} mapped)"

    def __str__(self) -> str:
        lines = [f"{self.target}:"]
        if self.placements:
            lines[0] += (
                f" {self.mapped:.0%} of {len(self.placements)} operations mapped"
            )
        for placement in self.placements:
            if placement.reason is not None:
                lines.append(f"  on the CPU: {placement.op}: {placement.reason}")
        for name, value in self.figures.items():
            lines.append(f"  {name.replace('_', ' ')}: {value:,.6g}")
        if self.compiler:
            lines += ("  " + line for line in self.compiler.splitlines())
        return "\n".join(lines)


def examine(
    target: str,
    content: bytes,
    ops: list[Op],
    run_micro: Callable[[], int],
) -> TargetReport:
    """What a target makes of a file.

    Args:
        target: One of `options.TARGETS`.
        content: The bytes of the .tflite file.
        ops: Its operations.
        run_micro: For ``"micro"``: runs the file there, compares, and returns the bytes
            of the arena.

    Raises:
        ImportError: If the target's package is not installed.
        ExportError: If the target does not take the file, or the Edge TPU leaves an
            operation of it to the CPU.
    """
    if target == "edgetpu":
        report = TargetReport(target, tuple(place(ops)))
        for placement in report.placements:
            if placement.reason is not None:
                raise ExportError(
                    f"target='edgetpu' leaves {placement.op} to the CPU, and all that "
                    f"comes after it: {placement.reason}. Nothing was written."
                )
        return dataclasses.replace(report, compiler=_google(content))
    if target == "micro":
        return TargetReport(target, figures={"arena_bytes": run_micro()})
    configuration = ethos_u.DEFAULT if target == "ethos-u" else target
    on_cpu, figures = ethos_u.compile_for(content, configuration)
    placements = tuple(Placement(op, on_cpu.get(op.outputs[0].name)) for op in ops)
    return TargetReport(configuration, placements, figures)


def place(ops: list[Op]) -> list[Placement]:
    """Where the Edge TPU's compiler would put each operation.

    All that comes after the first operation that it cannot take runs on the CPU.
    """
    placements: list[Placement] = []
    first: Op | None = None
    for op in ops:
        reason = edgetpu.why_not(op)
        if reason is None and first is not None:
            reason = f"it comes after {first}"
        elif reason is not None and first is None:
            first = op
        placements.append(Placement(op, reason))
    return placements


def _google(content: bytes) -> str | None:
    """What `edgetpu_compiler` prints, where it is installed."""
    program = shutil.which("edgetpu_compiler")
    if program is None:
        return None
    with tempfile.TemporaryDirectory(prefix="keras-l0-") as folder:
        (Path(folder) / "model.tflite").write_bytes(content)
        done = subprocess.run(
            [program, "-s", "-o", folder, "model.tflite"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode:
        raise ExportError(
            "edgetpu_compiler refused the file: "
            f"{' '.join((done.stdout + done.stderr).split())[-400:]}. "
            "Nothing was written."
        )
    return done.stdout.strip()
