"""What an export says of itself: `ExportReport`, or else `ExportError`."""

from __future__ import annotations

import dataclasses
from pathlib import Path


class ExportError(RuntimeError):
    """The model could not be converted, or the file does not compute what it should."""


@dataclasses.dataclass(frozen=True, repr=False)
class ExportReport:
    """What `to_tflite` wrote. ``print(report)`` shows it in a few lines.

    Attributes:
        path: The file.
        bytes: Its size.
        gzip_bytes: Its size after gzip, which is what a download costs.
        max_difference: Largest difference between the file's and Keras' outputs, as a
            share of the output's scale (its largest absolute value); of several
            outputs, that of the one closest to its tolerance. None if not verified.
        tolerance: The difference that would have been an error, in the same unit.
        ops: Operation name -> how often it occurs in the file.
        params: Parameters of the exported network, as Keras counts them.
        macs: Multiply-accumulates of one inference.
        inputs: Names of the inputs in the file's signature, in Keras' order.
        outputs: Names of the outputs in the file's signature, in Keras' order.
    """

    path: Path
    bytes: int
    gzip_bytes: int
    max_difference: float | None
    tolerance: float | None
    ops: dict[str, int]
    params: int
    macs: int | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __repr__(self) -> str:
        return f"ExportReport({str(self.path)!r}, {self.bytes:,} bytes)"

    def __str__(self) -> str:
        counted = [f"{self.params:,} parameters"]
        if self.macs is not None:
            counted.append(f"{self.macs:,} MACs")
        ops = sorted(self.ops.items(), key=lambda item: (-item[1], item[0]))
        if self.max_difference is None:
            verified = "not compared with Keras"
        else:
            verified = (
                f"differs from Keras by at most {self.max_difference:.1e} "
                f"of the output's scale (allowed: {self.tolerance:.1e})"
            )
        return "\n".join(
            (
                f"{self.path}: {self.bytes:,} bytes ({self.gzip_bytes:,} gzipped)",
                f"  {', '.join(counted)}",
                f"  {', '.join(self.inputs)} -> {', '.join(self.outputs)}",
                f"  {', '.join(f'{count} {name}' for name, count in ops)}",
                f"  {verified}",
            )
        )
