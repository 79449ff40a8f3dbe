import keras
import numpy as np
import pytest

from keras_l0.export import to_tflite
from keras_l0.export.latency import benchmark, latency

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


def test_files_are_compared_with_the_first(tmp_path):
    big = write(tmp_path / "big.tflite", 1000)
    tiny = write(tmp_path / "tiny.tflite", 2)
    result = benchmark([big, str(tiny)], runs=20)
    first, second = result.files
    assert first.path == big and first.bytes == big.stat().st_size
    assert first.ratio == 1 and first.ratio_quartiles == (1, 1)
    low, high = second.ratio_quartiles
    assert 0 < low <= second.ratio <= high < 1
    assert second.gzip_bytes < first.gzip_bytes
    if first.memory_bytes is not None:  # 8 MB of weights
        assert first.memory_bytes > second.memory_bytes + 4 * 2**20
    head, *rows, last = str(result).splitlines()
    assert head.split()[:2] == ["file", "bytes"] and len(rows) == 2
    assert last == "20 runs in turns, 1 thread"


def test_memory_is_left_out_where_it_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_l0.export.memory_run.__file__", "missing.py")
    result = benchmark(write(tmp_path / "net.tflite", 2), runs=2, threads=2)
    assert result.files[0].memory_bytes is None
    assert "?" in str(result) and "2 threads" in str(result)


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="`runs` must be an integer.*Received: runs=0"):
        latency(tmp_path / "net.tflite", runs=0)
    with pytest.raises(TypeError, match="`runs` must be an integer.*runs='3'"):
        benchmark(tmp_path / "net.tflite", runs="3")
    with pytest.raises(ValueError, match="`threads` must be.*Received: threads=0"):
        benchmark(tmp_path / "net.tflite", threads=0)
    with pytest.raises(ValueError, match="`paths` must name at least one file"):
        benchmark([])
    with pytest.raises(FileNotFoundError, match="missing.tflite"):
        latency(tmp_path / "missing.tflite")


def test_a_file_of_two_signatures_is_refused(tmp_path):
    import tensorflow as tf

    from keras_l0.export.answers import answers

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, 3])])
        def double(self, x):
            return {"y": 2 * x}

        @tf.function(input_signature=[tf.TensorSpec([1, 3])])
        def shift(self, x):
            return {"y": x + 2}

    made, path = Two(), tmp_path / "two.tflite"
    names = {"double": made.double, "shift": made.shift}
    tf.saved_model.save(made, tmp_path / "two", signatures=names)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "two"))
    path.write_bytes(converter.convert())
    for run in (benchmark, lambda file: answers(file, np.ones((1, 3)))):
        with pytest.raises(ValueError, match="one signature.*'double', 'shift'"):
            run(path)
