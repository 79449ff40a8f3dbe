"""Learned structured pruning for Keras 3: hard-concrete gates, strip, TFLite."""

try:
    import keras as _keras  # noqa: F401  (fails late and darkly without a backend)
except (ImportError, ValueError) as _error:
    raise ImportError(
        "keras_l0 needs Keras with a backend to run on: "
        'pip install "keras-l0[tensorflow]" (or [tensorflow-cpu], [jax], [torch]), '
        "with KERAS_BACKEND=jax or =torch in the environment for these. "
        f"Keras said: {_error}"
    ) from None  # what Keras said is all that there is to know

from keras_l0 import callbacks, layers, regularizers, schedules
from keras_l0.analysis.plan import StripPlan, plan
from keras_l0.analysis.rules import Rule, register_strip_rule
from keras_l0.budget import Budget
from keras_l0.budget.making import with_budget
from keras_l0.budget.model import BudgetedModel
from keras_l0.calibration import calibrate
from keras_l0.compaction import Compaction, compact, fit_compacting
from keras_l0.convert import GatePlan, add_gates, plan_gates
from keras_l0.export import (
    ExportError,
    ExportReport,
    benchmark,
    measure_latency,
    quantize_aware,
    to_tflite,
)
from keras_l0.hard_concrete import HardConcrete
from keras_l0.latency_table import LatencyTable
from keras_l0.layers import GateOptions
from keras_l0.layers import find_gates as gates
from keras_l0.optimizers import exclude_from_weight_decay
from keras_l0.page import HtmlReport, html_report
from keras_l0.plots import plot_gates, plot_history
from keras_l0.report import Profile, profile, summary
from keras_l0.stripping import strip

__version__ = "0.1.0"

__all__ = [
    "Budget", "BudgetedModel", "Compaction", "ExportError", "ExportReport",
    "GateOptions", "GatePlan", "HardConcrete", "HtmlReport", "LatencyTable", "Profile",
    "Rule", "StripPlan", "add_gates", "benchmark", "calibrate", "callbacks", "compact",
    "exclude_from_weight_decay", "fit_compacting", "gates", "html_report", "layers",
    "measure_latency", "plan", "plan_gates", "plot_gates", "plot_history", "profile",
    "quantize_aware", "register_strip_rule", "regularizers", "schedules", "strip",
    "summary", "to_tflite", "with_budget",
]  # fmt: skip
