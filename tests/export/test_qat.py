"""Quantization-aware training.

It takes an environment of its own, since tensorflow-model-optimization brings the full
``tensorflow``:

    python -m venv .venv-tfmot
    .venv-tfmot/bin/pip install -e ".[tfmot,litert,test]" tensorflow
    KERAS_BACKEND=tensorflow .venv-tfmot/bin/pytest tests/export/test_qat.py
"""

import importlib

import keras
import numpy as np
import pytest
from keras import layers
from networks import awkward, normal, small

import keras_l0
from keras_l0.export.flatbuffer import read_ops

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def tfmot():
    for module in ("tensorflow_model_optimization", "tf_keras"):
        try:
            importlib.import_module(module)
        except ImportError:
            pytest.skip("the extra tfmot is not installed; the module says how")


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tf_keras", None)
    with pytest.raises(ImportError, match=r"tf_keras.*keras-l0\[tfmot\]"):
        keras_l0.quantize_aware(small())


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: "net.keras", TypeError, "`model` must be"),
        (
            lambda: keras.Sequential(
                [keras.Input((4,)), keras_l0.layers.L0Dense(3, name="gated")]
            ),
            ValueError,
            "`model` must be without gates",
        ),
    ],
)
def test_models_that_are_refused_at_once(build, error, message):
    with pytest.raises(error, match=message):
        keras_l0.quantize_aware(build())


def residual():
    x = keras.Input((8, 8, 3), name="image")
    h = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    h = layers.ReLU()(layers.BatchNormalization(name="stem_norm")(h))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(h)
    y = layers.ReLU(6)(layers.BatchNormalization(name="depthwise_norm")(y))
    h = layers.Add()([h, y])
    h = layers.SeparableConv2D(6, 3, activation="relu", name="separable")(h)
    h = layers.Concatenate()([h, layers.MaxPooling2D(3, 1, "same")(h)])
    h = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(h))
    h = layers.Dense(12, activation="relu", name="hidden")(h)
    return keras.Model(x, layers.Dense(3, activation="softmax", name="class")(h))


def task(count=512):
    """Images whose class is the channel that is brightest."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=count)
    x = rng.normal(size=(count, 8, 8, 3)) + 0.7 * np.eye(3)[y][:, None, None]
    return x.astype("float32"), y


@pytest.fixture(scope="module")
def trained():
    model, (x, y) = residual(), task()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x, y, 64, 5, verbose=0)
    return model


def test_it_trains_and_exports_8_bits_throughout(tmp_path, tfmot, trained):
    x, y = task()
    network = keras_l0.quantize_aware(trained)
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = network.fit(x, y, batch_size=64, epochs=3, verbose=0).history
    assert history["accuracy"][-1] > 0.9
    assert network.evaluate(x, y, verbose=0)[1] > 0.9
    path = tmp_path / "net.tflite"
    report = network.to_tflite(path, data=x, labels=y, target="edgetpu")
    assert report.top1 >= 0.99 and report.accuracy > 0.9
    assert report.target.mapped == 1 and report.inputs == ("image",)
    dtypes = {
        tensor.dtype
        for op in read_ops(path.read_bytes())
        for tensor in (*op.inputs, *op.outputs)
        if tensor is not None
    }
    assert dtypes == {"INT8", "INT32"}
    assert not {"MUL", "DEQUANTIZE"} & set(report.ops)
    assert report.ops["ADD"] == 1


def test_weights_go_there_and_back(tfmot, trained):
    network = keras_l0.quantize_aware(trained)
    before = trained.get_weights()
    for old, new in zip(before, network.to_keras().get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    x, y = task(64)
    network.compile("sgd", "sparse_categorical_crossentropy")
    network.fit(x, y, verbose=0)
    back = network.to_keras()
    assert any((a != b).any() for a, b in zip(before, back.get_weights(), strict=True))
    # Rounding to 8 bits is all that tells them apart.
    apart = np.abs(back.predict(x, verbose=0) - network.predict(x, verbose=0))
    assert 0 < apart.mean() < 0.1
    assert all(
        (a == b).all() for a, b in zip(before, trained.get_weights(), strict=True)
    )


def test_several_inputs_and_outputs(tmp_path, tfmot):
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    h = layers.Dense(8, activation="relu")(layers.Concatenate()([left, right]))
    outputs = {"b": layers.Dense(2)(h), "a": layers.Dense(3)(h)}
    model = awkward(keras.Model({"right": right, "left": left}, outputs))
    network = keras_l0.quantize_aware(model)
    data = {"left": normal(64, 4), "right": normal(64, 3)}
    network.compile("sgd", {"a": "mse", "b": "mse"})
    network.model.optimizer.learning_rate = 0.0
    for _ in range(5):
        network.fit(data, model.predict(data, verbose=0), verbose=0)
    report = network.to_tflite(tmp_path / "net.tflite", data=data)
    assert set(report.inputs) == {"left", "right"}
    assert set(report.outputs) == {"a", "b"}


def test_dropout_drops_in_training(tfmot):
    model = awkward(through(layers.Dense(8), layers.Dropout(0.5), shape=(4,))())
    twin = keras_l0.quantize_aware(model).model
    x = normal(64, 4)
    assert (np.array(twin(x, training=False)) == 0).mean() < 0.1
    assert 0.4 < (np.array(twin(x, training=True)) == 0).mean() < 0.6


def through(*members, shape=(8, 8, 4)):
    return lambda: keras.Sequential([keras.Input(shape), *members])


def called_twice():
    x = keras.Input((4,))
    layer = layers.Dense(4, name="twice")
    return keras.Model(x, layer(layer(x)))


def with_operation():
    x = keras.Input((4,))
    return keras.Model(x, keras.ops.sin(layers.Dense(3)(x)))


@pytest.mark.parametrize(
    "build, message",
    [
        (through(layers.LayerNormalization(name="odd")), "'odd' .LayerNormalization"),
        (through(layers.LSTM(3, name="odd"), shape=(5, 4)), "'odd' .LSTM"),
        (
            through(layers.BatchNormalization(name="odd"), layers.Conv2D(3, 3)),
            "'odd' .BatchNormalization.*where it stands",
        ),
        (through(layers.RMSNormalization(name="odd")), "'odd' .RMSNorm.*not have"),
        (called_twice, "'twice' .Dense, which is called more than once"),
        (with_operation, "an operation: Sin"),
    ],
)
def test_what_cannot_be_quantized_is_named(tfmot, build, message):
    with pytest.raises(ValueError, match=message):
        keras_l0.quantize_aware(build())


def test_objects_of_keras_3_are_refused_with_a_reason(tfmot):
    network = keras_l0.quantize_aware(small())
    with pytest.raises(TypeError, match="runs in tf_keras.*Received: .*Adam"):
        network.compile(keras.optimizers.Adam(), "mse")


def test_an_unwritable_path_is_refused_at_once(tmp_path, tfmot):
    network = keras_l0.quantize_aware(small())
    with pytest.raises(FileNotFoundError, match="`path` must lie in a folder"):
        network.to_tflite(tmp_path / "missing" / "net.tflite")
