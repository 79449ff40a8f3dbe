"""TFLite files of Keras models. TensorFlow is imported in here alone, by calls."""

from keras_l0.export.latency import Benchmark, FileBenchmark, Latency, benchmark
from keras_l0.export.qat import QuantizeAware, quantize_aware
from keras_l0.export.report import ExportError, ExportReport
from keras_l0.export.targets import Placement, TargetReport
from keras_l0.export.tflite import to_tflite

__all__ = [
    "Benchmark", "ExportError", "ExportReport", "FileBenchmark", "Latency", "Placement",
    "QuantizeAware", "TargetReport", "benchmark", "quantize_aware", "to_tflite",
]  # fmt: skip
