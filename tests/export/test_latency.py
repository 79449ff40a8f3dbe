import keras
import pytest

from keras_l0.export import to_tflite
from keras_l0.export.latency import latency

pytestmark = pytest.mark.tensorflow


def write(path, units, dtype="float32"):
    model = keras.Sequential(
        [keras.Input((8,), dtype=dtype)] + [keras.layers.Dense(units) for _ in range(3)]
    )
    to_tflite(model, path, verify=False)
    return path


def test_files_are_timed_in_their_order(tmp_path):
    big = write(tmp_path / "big.tflite", 700)
    tiny = write(tmp_path / "tiny.tflite", 2)
    slow, fast = latency([big, str(tiny)], runs=20)
    assert 0 < fast.median <= fast.p95
    assert fast.median < slow.median <= slow.p95


def test_one_file_and_integer_inputs(tmp_path):
    path = write(tmp_path / "net.tflite", 2, dtype="int32")
    (only,) = latency(path, runs=3, threads=2)
    assert only.median > 0


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="`runs` must be at least 1. Received: runs=0"):
        latency(tmp_path / "net.tflite", runs=0)
    with pytest.raises(ValueError, match="missing.tflite"):
        latency(tmp_path / "missing.tflite")
