"""TFLite files of Keras models. TensorFlow is imported in here alone, by calls."""

from keras_l0.budget.fitting import measure_files_by
from keras_l0.export.latency import Benchmark, FileBenchmark, Latency, benchmark
from keras_l0.export.measuring import measure_latency
from keras_l0.export.qat import QuantizeAware, quantize_aware
from keras_l0.export.report import ExportError, ExportReport
from keras_l0.export.targets import Placement, TargetReport
from keras_l0.export.tflite import file_bytes, to_tflite

# Strip, which is below this package, measures files by it.
measure_files_by(file_bytes)

__all__ = [
    "Benchmark", "ExportError", "ExportReport", "FileBenchmark", "Latency", "Placement",
    "QuantizeAware", "TargetReport", "benchmark", "file_bytes",
    "measure_latency", "quantize_aware", "to_tflite",
]  # fmt: skip
