"""From converted bytes to a file: read back, run, compared, reported, written."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.facts import Size
from keras_l0.export import micro
from keras_l0.export.c_array import c_sources
from keras_l0.export.flatbuffer import Op, count, float_ops, rangeless, read_ops
from keras_l0.export.latency import quick_latency
from keras_l0.export.options import Options
from keras_l0.export.report import ExportError, ExportReport, accuracy
from keras_l0.export.signature import Signature
from keras_l0.export.sparse import check_sparse, sparse_counts, zero_share
from keras_l0.export.targets import examine
from keras_l0.export.verify import Limits, compare, run
from keras_l0.files import write_together
from keras_l0.report import profile


@dataclasses.dataclass(frozen=True)
class Delivery:
    """Where a file goes, and what it has to stand before.

    Attributes:
        path: The file to write.
        c_path: The C++ source to write, if any.
        model: The plain Keras model: names of layers, sizes, and for a float file the
            outputs up to rounding.
        signature: Its signature.
        options: What the converter was asked for.
        batch: One array per input to run the file on.
        classes: The class of each example, if known.
        expected: What the file should answer on a batch.
        verify: Whether to compare at all.
        limits: How far a quantized file may be off; None for a float file.
        dense: Size of the model with all gates open, if it had gates.
        before: The export to compare with, and its file, if any.
    """

    path: Path
    c_path: Path | None
    model: keras.Model
    signature: Signature
    options: Options
    batch: list[np.ndarray]
    classes: np.ndarray | None
    expected: Callable[[list[np.ndarray]], list[np.ndarray]]
    verify: bool
    limits: Limits | None
    dense: Size | None = None
    before: tuple[ExportReport, bytes] | None = None

    def deliver(self, content: bytes) -> ExportReport:
        """Writes the bytes if all is well with them.

        Raises:
            ExportError: If the file does not run, computes in float where it must not,
                does not agree with Keras, or is not what the target takes.
            ImportError: If what the target takes is not installed.
            OSError: If the file cannot be written.
        """
        model, signature = self.model, self.signature
        ops = read_ops(
            content,
            [layer.name for layer in model._flatten_layers(include_self=False)],
            dict(zip(signature.outputs, model.output_names, strict=True)),
        )
        self._check_ops(ops)
        check_sparse(ops)
        found: dict[str, Any] = {"max_difference": None, "tolerance": None}
        if self._runs:
            found |= self._run(content, ops)
        if self.options.target is not None:
            found["target"] = examine(
                self.options.target, content, ops, lambda: self._run_micro(content)
            )
        if self.before is not None:
            found.setdefault("before", self.before[0])
        if self.dense is not None:
            found["dense_params"] = self.dense.params
            found["dense_macs"] = self.dense.macs
        report = ExportReport(
            path=self.path,
            bytes=len(content),
            gzip_bytes=len(gzip.compress(content, mtime=0)),
            ops=count(ops),
            params=model.count_params(),
            macs=profile(model).deployed.macs,
            inputs=signature.inputs,
            outputs=signature.outputs,
            quantization=self.options.quantization,
            zeros=zero_share(model),
            **sparse_counts(ops),
            **found,
        )
        sources = c_sources(content, self.c_path) if self.c_path else {}
        write_together({self.path: content, **sources})
        return report

    @property
    def _runs(self) -> bool:
        return self.verify or self.classes is not None

    def _run(self, content: bytes, ops: list[Op]) -> dict[str, Any]:
        size = self.options.batch_size
        try:
            received = run(content, self.signature, self.batch, size)
        except ExportError as error:
            raise _explained(error, ops) from error
        found = self._compared(received, self.batch)
        if self.before is None:
            (found["latency"],) = quick_latency([content])
        else:
            report, earlier = self.before
            was, found["latency"] = quick_latency([earlier, content])
            found["before"] = dataclasses.replace(report, latency=was)
        if self.classes is not None:
            (expected,) = self.expected(self.batch)
            found["accuracy"] = accuracy(received[0], self.classes)
            found["keras_accuracy"] = accuracy(expected, self.classes)
        return found

    def _run_micro(self, content: bytes) -> int:
        """Bytes of the arena in TFLite Micro, where the file answers the same."""
        rows = micro.rows(len(self.batch[0]), self.options.batch_size)
        some = [array[rows] for array in self.batch]
        received, arena = micro.run(content, self.signature, some)
        self._compared(received, some)
        return arena

    def _compared(
        self, received: list[np.ndarray], batch: list[np.ndarray]
    ) -> dict[str, Any]:
        if not self.verify:
            return {}
        return compare(
            received, self.model, self.signature, batch, self.limits, self.expected
        )

    def _check_ops(self, ops: list[Op]) -> None:
        flex = sorted({op.name for op in ops if op.name.startswith("Flex")})
        if flex and self._runs:
            raise ExportError(
                f"The file has TensorFlow operations ({', '.join(flex)}), which LiteRT "
                "cannot run here to compare it: pass verify=False. Nothing was written."
            )
        if self.options.int8 and "float" not in self.options.allow:
            left = dict.fromkeys(map(str, float_ops(ops)))
            if left:
                raise ExportError(
                    "quantization='int8' leaves operations that compute in float, "
                    "because TFLite has no 8-bit form of them: "
                    f"{', '.join(left)}. Replace them in the model, or let them pass "
                    "with allow=('float',). Nothing was written."
                )


def _explained(error: ExportError, ops: list[Op]) -> ExportError:
    dead = dict.fromkeys(map(str, rangeless(ops)))
    if not dead:
        return error
    return ExportError(
        f"{error} What these make is 0 on all of `representative_data`, which leaves "
        f"it no range: {', '.join(dead)}. Calibrate on data that is like the model's "
        "own, or remove what never acts."
    )
