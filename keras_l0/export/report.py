"""What an export says of itself: `ExportReport`, or else `ExportError`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

# Below, the converter stores zeros like other numbers.
_MANY_ZEROS = 0.3


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
            outputs of a float file, that of the one closest to its tolerance. None if
            not verified.
        tolerance: The difference that would have been an error, in the same unit; None
            for a quantized file.
        ops: Operation name -> how often it occurs in the file.
        params: Parameters of the exported network, as Keras counts them.
        macs: Multiply-accumulates of one inference.
        inputs: Names of the inputs in the file's signature, in Keras' order.
        outputs: Names of the outputs in the file's signature, in Keras' order.
        quantization: As it was asked for.
        error: Of a quantized file, the root mean square of the difference, as a share
            of how far the output itself varies; of several outputs, the largest.
        top1: Of a quantized file, the share of examples for which the largest output
            is the same one as Keras'; of several outputs, the smallest share.
        latency: Of one inference on this machine, one thread: a first impression, which
            `keras_l0.benchmark` makes precise. None if the file was not run.
        accuracy: Share of the labels that the file gets right, if they were given.
        keras_accuracy: The same of the Keras model.
        dense_params: Parameters with all gates open, if the model had gates.
        dense_macs: Multiply-accumulates with all gates open, if the model had gates.
        target: What the target makes of the file, a `TargetReport`, if one was given.
        before: Of the model given as ``before``, the same; its file was temporary.
        zeros: Share of the weights, biases and the like aside, that are 0.
        sparse: How many tensors of weights are stored without their zeros.
        skipping: How many operations do not compute with these zeros, either.
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
    quantization: str | None = None
    error: float | None = None
    top1: float | None = None
    latency: Any = None
    accuracy: float | None = None
    keras_accuracy: float | None = None
    dense_params: int | None = None
    dense_macs: int | None = None
    target: Any = None
    before: ExportReport | None = None
    zeros: float = 0.0
    sparse: int = 0
    skipping: int = 0

    def __repr__(self) -> str:
        return f"ExportReport({str(self.path)!r}, {self.bytes:,} bytes)"

    def __str__(self) -> str:
        ops = sorted(self.ops.items(), key=lambda item: (-item[1], item[0]))
        kind = f", {self.quantization}" if self.quantization else ""
        size = f"{self._was('bytes', ',')} bytes ({self._was('gzip_bytes', ',')} "
        lines = [
            f"{self.path}: {size}gzipped){kind}",
            f"  {', '.join(self._counted())}",
            f"  {', '.join(self.inputs)} -> {', '.join(self.outputs)}",
            f"  {', '.join(f'{count} {name}' for name, count in ops)}",
            f"  {self._verified()}",
        ]
        if self.sparse or self.zeros > _MANY_ZEROS:
            lines.append(f"  {self._zeros()}")
        if self.latency is not None:
            lines.append(f"  {self._was('latency')} per inference on this machine")
        if self.accuracy is not None:
            lines.append(
                f"  accuracy {self._was('accuracy', '.2%')} "
                f"(in Keras {self._was('keras_accuracy', '.2%')})"
            )
        if self.target is not None:
            lines += ("  " + line for line in str(self.target).splitlines())
        return "\n".join(lines)

    def _was(self, name: str, form: str = "") -> str:
        """What it is now, behind what it was before if that is known."""
        now = format(getattr(self, name), form)
        was = None if self.before is None else getattr(self.before, name)
        return now if was is None else f"{format(was, form)} -> {now}"

    def _counted(self) -> list[str]:
        counted = []
        dense = self.dense_params, self.dense_macs
        if self.before is not None:
            dense = self.before.params, self.before.macs
        for before, now, what in zip(
            dense, (self.params, self.macs), ("parameters", "MACs"), strict=True
        ):
            if now is not None:
                was = "" if before is None else f"{before:,} -> "
                counted.append(f"{was}{now:,} {what}")
        return counted

    def _zeros(self) -> str:
        if not self.sparse:
            saves = "no time, and of bytes those of gzip: sparse=True saves all of them"
        elif self.skipping:
            saves = f"bytes, and time in the {self.skipping} operations that skip them"
        else:
            saves = "bytes, and no time"
        return f"{self.zeros:.0%} of the weights are 0, which saves {saves}"

    def _verified(self) -> str:
        if self.max_difference is None:
            return "not compared with Keras"
        differs = (
            f"differs from Keras by at most {self.max_difference:.1e} "
            "of the output's scale"
        )
        if self.error is None:
            return f"{differs} (allowed: {self.tolerance:.1e})"
        top1 = "" if self.top1 is None else f"; the same top-1 in {self.top1:.1%}"
        return f"{differs}, by {self.error:.1%} of its variation{top1}"


def accuracy(outputs: Any, labels: Any) -> float:
    """Share of examples whose largest output is the label."""
    return float((outputs.argmax(-1) == labels).mean())
