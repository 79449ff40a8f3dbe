"""What Arm's Vela compiler makes of a file for an Ethos-U NPU."""

from __future__ import annotations

import csv
import importlib.util
import re
import tempfile
from pathlib import Path

from keras_l0.export.child import how_it_ended, run_python
from keras_l0.export.report import ExportError
from keras_l0.packages import missing

DEFAULT = "ethos-u55-128"

_KIBIBYTE = 1024
_REASON = re.compile(r"operator: (\w+), ofm: '([^']*)'\s*\n\s*(?:Reason: )?(.*)")


def compile_for(
    content: bytes, configuration: str
) -> tuple[dict[str, str], dict[str, float]]:
    """Runs Vela on a file, under its default system and memory mode.

    Args:
        content: The bytes of the .tflite file.
        configuration: One of `ETHOS_U`.

    Returns:
        Name of an operation's first output -> why it runs on the CPU, and Vela's
        estimates.

    Raises:
        ImportError: If Vela is not installed.
        ExportError: If it refuses the file.
    """
    if importlib.util.find_spec("ethosu") is None:
        raise missing("ethosu.vela", "target='ethos-u'", "ethos-u")
    with tempfile.TemporaryDirectory(prefix="keras-l0-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(content)
        done = run_python(
            "-m", "ethosu.vela", "--accelerator-config", configuration,
            "--show-cpu-operations", "--output-dir", name,
            str(folder / "model.tflite"),
        )  # fmt: skip
        summaries = list(folder.glob("model_summary_*.csv"))
        if done.returncode or not summaries:
            raise ExportError(
                f"Vela {how_it_ended(done)} on the file for {configuration}. "
                "Nothing was written."
            )
        with open(summaries[0], newline="") as file:
            (row,) = csv.DictReader(file)
    flash = float(row["on_chip_flash_memory_used"])
    flash += float(row["off_chip_flash_memory_used"])
    figures = {
        "sram_bytes": float(row["sram_memory_used"]) * _KIBIBYTE,
        "dram_bytes": float(row["dram_memory_used"]) * _KIBIBYTE,
        "flash_bytes": flash * _KIBIBYTE,
        "cycles": float(row["cycles_total"]),
        "inferences_per_second": float(row["inferences_per_second"]),
    }
    text = done.stdout + done.stderr
    on_cpu = {output: reason for _, output, reason in _REASON.findall(text)}
    for output in re.findall(r"^ *CPU: \w+ = (.*) \(outputs", text, re.MULTILINE):
        on_cpu.setdefault(output, "Vela leaves it to the CPU")
    return on_cpu, figures
