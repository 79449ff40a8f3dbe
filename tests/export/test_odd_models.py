"""Models that nobody expects, and data that nobody should give."""

import os

import keras
import numpy as np
import pytest
from keras import layers, ops
from networks import awkward, normal, run, small

import keras_l0
from keras_l0.export import ExportError, to_tflite
from keras_l0.layers import L0Dense

pytestmark = pytest.mark.tensorflow


def of(function, shape=(4,), dtype="float32", batch=None):
    x = keras.Input(shape, batch, name="x", dtype=dtype)
    return lambda: awkward(keras.Model(x, function(x)))


def dense(x):
    return layers.Dense(5, name="y")(x)


def unused_input():
    x, unused = keras.Input((4,), name="x"), keras.Input((3,), name="unused")
    return awkward(keras.Model([x, unused], dense(x)))


def nested_structures():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    outputs = {"one": dense(a), "rest": [layers.Dense(2, name="z")(b)]}
    return awkward(keras.Model({"a": a, "rest": [b]}, outputs))


def gated_inside():
    inner = keras.Sequential([keras.Input((4,)), L0Dense(8, activation="relu")])
    model = keras.Sequential([keras.Input((4,), name="x"), inner, layers.Dense(3)])
    keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0] * 4)
    return model


def spoken(x):
    return layers.Embedding(5, 3, mask_zero=True)(x)


ODD = {
    "one number": of(lambda x: ops.sum(dense(x), axis=-1)),
    "the input": of(lambda x: x),
    "a truth": of(lambda x: dense(x) > 0),
    "a class": of(lambda x: ops.argmax(dense(x), axis=-1)),
    "a kept class": of(lambda x: ops.argmax(dense(x), axis=-1, keepdims=True)),
    "one output twice": of(lambda x: [y := dense(x), y]),
    "an unused input": unused_input,
    "nested structures": nested_structures,
    "gates in a model inside": gated_inside,
    "a very long name": of(lambda x: layers.Dense(2, name="d" * 3000)(x)),
    "masked words": of(lambda x: layers.LSTM(3)(spoken(x)), dtype="int32"),
    "two directions": of(
        lambda x: layers.Bidirectional(layers.GRU(3))(x), shape=(4, 3)
    ),
    "float64": of(lambda x: layers.Dense(2, dtype="float64")(x), dtype="float64"),
    "noise and augmentation": of(
        lambda x: layers.GaussianNoise(1.0)(layers.RandomFlip()(x)), shape=(4, 4, 3)
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_models_agree(tmp_path, name):
    report = to_tflite(ODD[name](), tmp_path / "Größe 模型.tflite")
    assert report.max_difference <= report.tolerance
    assert os.listdir(tmp_path) == ["Größe 模型.tflite"]


def test_a_class_is_an_index_in_8_bits_too(tmp_path):
    model, x = ODD["a class"](), normal(40, 4)
    report = to_tflite(model, tmp_path / "net.tflite", "int8", x)
    assert report.ops["ARG_MAX"] == 1
    (got,) = run(tmp_path / "net.tflite", x=x).values()
    assert got.dtype == np.int32
    assert np.mean(got == model.predict(x, verbose=0)) > 0.9


@pytest.mark.parametrize(
    "build, error, message",
    [
        (
            of(lambda x: ops.sum(dense(x))),
            ValueError,
            "`model` must have outputs with one row per example.*Received: output",
        ),
        (
            of(lambda x: layers.LSTM(3, name="odd", stateful=True)(x), (4, 3), batch=1),
            ExportError,
            "keeps no state.*'odd'. Build them with stateful=False",
        ),
    ],
)  # fmt: skip
def test_what_no_file_can_be_is_said(tmp_path, build, error, message):
    with pytest.raises(error, match=message):
        to_tflite(build(), tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())


def fails():
    yield normal(2, 4)
    raise RuntimeError("disk gone")


def endless():
    while True:
        yield normal(1, 4)


def test_streams_end_fail_and_go_on(tmp_path):
    path = tmp_path / "net.tflite"
    to_tflite(small(), path, "int8", endless())
    earlier = path.read_bytes()
    with pytest.raises(RuntimeError, match="disk gone"):
        to_tflite(small(), path, "int8", fails())
    with pytest.raises(ValueError, match="`representative_data` must hold one array"):
        to_tflite(small(), path, "int8", iter([normal(2, 4), normal(2, 3)]))
    assert path.read_bytes() == earlier and os.listdir(tmp_path) == ["net.tflite"]
