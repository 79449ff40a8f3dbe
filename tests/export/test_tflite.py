import dataclasses
import gzip
import os
import sys

import keras
import numpy as np
import pytest
from keras import layers
from networks import awkward, conv_net, normal, run, small, two_by_two

from keras_l0.export import ExportError, ExportReport, tflite, to_tflite

pytestmark = pytest.mark.tensorflow


def test_a_conv_net_computes_the_same_with_builtin_operations(tmp_path):
    model, path = conv_net(), tmp_path / "net.tflite"
    report = to_tflite(model, path)
    assert report.ops == {
        "CONV_2D": 2,
        "MAX_POOL_2D": 2,
        "RESHAPE": 1,
        "FULLY_CONNECTED": 2,
        "SOFTMAX": 1,
    }
    x = normal(5, 16, 16, 2)
    want = model.predict(x, verbose=0)
    assert np.ptp(want, axis=0).max() > 0.01  # the outputs depend on the inputs
    np.testing.assert_allclose(run(path, image=x)["scores"], want, atol=1e-5)


def test_the_report_says_what_was_written(tmp_path):
    model, path = conv_net(), tmp_path / "net.tflite"
    report = to_tflite(model, str(path))
    content = path.read_bytes()
    assert report.path == path
    assert report.bytes == len(content)
    assert report.gzip_bytes == len(gzip.compress(content, mtime=0)) < report.bytes
    assert report.params == model.count_params()
    assert report.macs == 14 * 14 * 4 * 18 + 5 * 5 * 6 * 36 + 24 * 7 + 7 * 3
    assert report.inputs == ("image",) and report.outputs == ("scores",)
    assert 0 <= report.max_difference <= report.tolerance < 1e-3
    assert len(repr(report)) < len(str(path)) + 50
    text = str(report)
    assert "2 CONV_2D" in text and "image -> scores" in text
    assert f"{report.params:,} parameters" in text
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.bytes = 0


def test_a_report_without_comparison_or_macs_prints(tmp_path):
    report = ExportReport(
        tmp_path, 9, 8, None, None, {"ADD": 1}, 3, None, ("x",), ("y",)
    )
    assert "not compared" in str(report) and "MACs" not in str(report)
    assert "12 MACs" in str(dataclasses.replace(report, macs=12))


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_the_report_says_what_it_was_before(tmp_path, quantization):
    if quantization:
        pytest.importorskip("tflite_micro", reason="pip install keras-l0[micro]")
    x = keras.Input((6,), name="x")
    before = awkward(keras.Model(x, layers.Dense(3)(layers.Dense(90)(x))))
    data, labels = normal(40, 6), np.arange(40) % 3
    report = to_tflite(
        awkward(keras.Model(x, layers.Dense(3)(layers.Dense(9)(x)))),
        tmp_path / "net.tflite", quantization, iter([data]), data=data, labels=labels,
        before=before, target="micro" if quantization else None,
    )  # fmt: skip
    old = report.before
    alone = to_tflite(
        before, tmp_path / "before.tflite", quantization, data,
        data=data, labels=labels, io_dtype="int8" if quantization else None,
    )  # fmt: skip
    for name in ("bytes", "params", "macs", "accuracy", "keras_accuracy", "ops"):
        assert getattr(old, name) == getattr(alone, name)
    text = str(report)
    assert f"{old.bytes:,} -> {report.bytes:,} bytes ({old.gzip_bytes:,} -> " in text
    assert f"903 -> {report.params:,} parameters, 810 -> 81 MACs" in text
    assert f"{old.latency} -> {report.latency} per inference" in text
    assert f"accuracy {old.accuracy:.2%} -> {report.accuracy:.2%}" in text
    assert old.before is None and os.listdir(tmp_path).count("net.tflite") == 1


@pytest.mark.parametrize(
    "before, error, message",
    [
        ("dense.tflite", TypeError, "`before` must be a Keras model.*'dense.tflite'"),
        (two_by_two("list"), ValueError, "`before` could not be exported: `data` must"),
    ],
)
def test_what_nothing_can_be_compared_with(tmp_path, before, error, message):
    with pytest.raises(error, match=message):
        to_tflite(small(), tmp_path / "net.tflite", before=before)
    assert not list(tmp_path.iterdir())


def test_lists_of_inputs_and_outputs_keep_names_and_order(tmp_path):
    model, path = two_by_two("list"), tmp_path / "net.tflite"
    report = to_tflite(model, path)
    assert report.inputs == ("left", "right")
    assert report.outputs == ("z_first", "a_second")
    data = [normal(3, 4), normal(3, 3)]
    got = run(path, left=data[0], right=data[1])
    for name, want in zip(report.outputs, model.predict(data, verbose=0), strict=True):
        np.testing.assert_allclose(got[name], want, atol=1e-5)


def test_dicts_of_inputs_and_outputs_keep_their_keys(tmp_path):
    model, path = two_by_two("dict"), tmp_path / "net.tflite"
    report = to_tflite(model, path)
    assert set(report.inputs) == {"left", "right"}
    assert set(report.outputs) == {"one", "another"}
    data = {"right": normal(3, 3), "left": normal(3, 4)}
    got = run(path, **data)
    for name, want in model.predict(data, verbose=0).items():
        np.testing.assert_allclose(got[name], want, atol=1e-5)


@pytest.mark.parametrize(
    "structure, data",
    [
        ("list", [normal(3, 4), normal(3, 3)]),
        ("list", (normal(3, 4).astype("float64"), normal(3, 3))),
        ("list", {"right": normal(3, 3), "left": normal(3, 4), "unused": "x"}),
        ("dict", {"right": normal(3, 3), "left": normal(3, 4)}),
    ],
)
def test_data_comes_in_the_forms_of_predict(tmp_path, structure, data):
    report = to_tflite(two_by_two(structure), tmp_path / "net.tflite", data=data)
    assert report.max_difference is not None


@pytest.mark.parametrize(
    "data",
    [
        [normal(3, 4)],
        [normal(3, 3), normal(3, 4)],
        [normal(3, 4), normal(2, 3)],
        [normal(0, 4), normal(0, 3)],
        [normal(4), normal(3)],
        {"left": normal(3, 4)},
        [np.array(["a"]), normal(1, 3)],
        "train.csv",
    ],
)
def test_data_that_does_not_fit_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match="`data` must hold.*Received"):
        to_tflite(two_by_two("list"), tmp_path / "net.tflite", data=data)
    assert not list(tmp_path.iterdir())


def test_names_that_tensorflow_refuses_are_mended(tmp_path):
    inputs = [keras.Input((2,), name=name) for name in ("Größe-1", "Gr__e_1", "1st")]
    outputs = layers.Dense(2, name="out-put")(layers.Concatenate()(inputs))
    model = awkward(keras.Model(inputs, [outputs, outputs]))
    report = to_tflite(model, tmp_path / "net.tflite")
    assert report.inputs == ("Gr__e_1", "Gr__e_1_1", "tensor_1st")
    assert report.outputs == ("out_put", "out_put_1")


SPECIAL = {
    "lstm": ((6, 4), "float32", lambda: [layers.LSTM(5)]),
    "attention": ((6, 4), "float32", lambda: [SelfAttention(2, 4)]),
    "embedding": ((5,), "int32", lambda: [layers.Embedding(3, 4), layers.Flatten()]),
    "uint8 image": ((4, 4, 1), "uint8", lambda: [layers.Rescaling(1 / 255)]),
    "bool": ((4,), "bool", lambda: [layers.Dense(2)]),
    # Its custom gradient once cost the file its signature.
    "swish": ((4,), "float32", lambda: [layers.Dense(3, activation="swish")]),
    "channels first": (
        (2, 6, 6),
        "float32",
        lambda: [layers.Conv2D(3, 3, data_format="channels_first")],
    ),
}


class SelfAttention(layers.MultiHeadAttention):
    def call(self, x):
        return super().call(x, x)

    def build(self, input_shape):
        super().build(input_shape, input_shape)

    def compute_output_spec(self, x):
        return super().compute_output_spec(x, x)


@pytest.mark.parametrize("name", SPECIAL)
def test_other_layers_and_dtypes_export(tmp_path, name):
    shape, dtype, stack = SPECIAL[name]
    model = awkward(keras.Sequential([keras.Input(shape, dtype=dtype), *stack()]))
    if name == "channels first":
        try:
            model.predict(np.zeros((1, *shape), dtype), verbose=0)
        except Exception as error:  # On processors that oneDNN is not for.
            pytest.skip(f"no channels_first convolution here: {type(error).__name__}")
    report = to_tflite(model, tmp_path / "net.tflite")
    assert report.max_difference <= report.tolerance
    assert not [op for op in report.ops if op.startswith("Flex")]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_other_precisions_are_exported_under_float32(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    try:
        x = keras.Input((6, 4), name="x")
        h = keras.ops.cast(layers.Bidirectional(layers.LSTM(3))(x), "float16")
        model = awkward(keras.Model(x, layers.Dense(2, name="y")(h)))
        before = model.get_weights()
        path = tmp_path / "net.tflite"
        to_tflite(model, path)
        assert keras.config.dtype_policy().name == policy
    finally:
        keras.config.set_dtype_policy("float32")
    for old, new in zip(before, model.get_weights(), strict=True):
        assert old.dtype == new.dtype and (old == new).all()
    data = normal(4, 6, 4)
    got = run(path, x=data)["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.asarray(model(data), "float32"), atol=0.05)


def test_constants_of_float64_are_exported_under_float32(tmp_path):
    # What is added makes all that follows float64, which TFLite has no sums for.
    x = keras.Input((3, 4), name="x")
    h = x + np.sin(np.arange(12.0)).reshape(3, 4)
    model = awkward(keras.Model(x, keras.ops.relu(h) + layers.Dense(4)(h)))
    assert model.outputs[0].dtype == "float64"
    report = to_tflite(model, tmp_path / "net.tflite")
    assert report.max_difference <= report.tolerance


def test_a_model_that_cannot_be_rebuilt_is_named(tmp_path):
    class Unregistered(layers.Dense):
        pass

    model = keras.Sequential([keras.Input((4,)), Unregistered(2, dtype="float16")])
    with pytest.raises(ExportError, match="under float32.*Unregistered"):
        to_tflite(model, tmp_path / "net.tflite")
    assert keras.config.dtype_policy().name == "float32"


def test_a_gated_model_is_stripped_first(tmp_path):
    from keras_l0.layers import L0Dense

    gated = L0Dense(6, activation="relu")
    model = keras.Sequential([keras.Input((4,), name="x"), gated, layers.Dense(2)])
    gated.gate.assign_log_alpha([5, -9, 5, -9, -9, 5])
    report = to_tflite(model, tmp_path / "net.tflite")
    assert report.params == (4 * 3 + 3) + (3 * 2 + 2)
    assert report.ops == {"FULLY_CONNECTED": 2}
    assert gated.units == 6


def test_nothing_is_printed(tmp_path, capfd):
    to_tflite(conv_net(), tmp_path / "net.tflite")
    with pytest.raises(ExportError):
        to_tflite(no_builtin_form(), tmp_path / "other.tflite")
    assert capfd.readouterr() == ("", "")


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = conv_net()
    contents = set()
    for name in ("a", "b"):
        to_tflite(model, tmp_path / name)
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1


def test_the_model_is_left_as_it_is(tmp_path):
    model = conv_net()
    model.compile("adam", "mse")
    before, names = model.get_weights(), [layer.name for layer in model.layers]
    to_tflite(model, tmp_path / "net.tflite")
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    assert [layer.name for layer in model.layers] == names
    model.fit(normal(4, 16, 16, 2), normal(4, 3), verbose=0)


def no_builtin_form():
    x = keras.Input((4,))
    return keras.Model(x, keras.ops.erfinv(x), name="odd")


def test_an_operation_without_a_builtin_form_is_named(tmp_path):
    with pytest.raises(ExportError, match="could not be.*none exists for Erfinv"):
        to_tflite(no_builtin_form(), tmp_path / "net.tflite")


def converts_something_else(monkeypatch, amount):
    """The converter gets a bias that is off by a share of the output's scale."""
    freeze = tflite.freeze

    def wrong(model, *arguments):
        bias = model.layers[-1].bias
        right = bias.numpy()
        bias.assign(right + amount * np.abs(right).max())
        try:
            return freeze(model, *arguments)
        finally:
            bias.assign(right)

    monkeypatch.setattr(tflite, "freeze", wrong)


@pytest.mark.parametrize("amount", [1, 1e-2, 1e-4])
def test_a_file_that_disagrees_is_an_error(tmp_path, monkeypatch, amount):
    converts_something_else(monkeypatch, amount)
    path = tmp_path / "net.tflite"
    with pytest.raises(ExportError, match="'y' of the converted model differs"):
        to_tflite(small(), path)
    assert not path.exists()
    assert to_tflite(small(), path, verify=False).max_difference is None


def test_outputs_that_are_never_finite_are_no_agreement(tmp_path):
    x = keras.Input((4,))
    model = keras.Model(x, keras.ops.log(-1 - keras.ops.square(x)))
    with pytest.raises(ExportError, match="nowhere finite.*`data`"):
        to_tflite(model, tmp_path / "net.tflite")


def test_a_model_that_amplifies_rounding_cannot_be_judged(tmp_path):
    x = keras.Input((4,))
    h = layers.Dense(4)(x)
    model = awkward(keras.Model(x, keras.ops.sin(1e7 * h)))
    with pytest.raises(ExportError, match="rounded differently.*`data`"):
        to_tflite(model, tmp_path / "net.tflite")


def fail(*args, **kwargs):
    raise OSError("no space left")


@pytest.mark.parametrize(
    "broken", ["export.tflite.convert", "export.deliver.compare", "files.os.fsync"]
)
def test_an_earlier_file_survives_every_failure(tmp_path, monkeypatch, broken):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"earlier")
    monkeypatch.setattr(f"keras_l0.{broken}", fail)
    with pytest.raises(OSError, match="no space left"):
        to_tflite(small(), path)
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["net.tflite"]


def test_the_destination_is_checked_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(tflite, "require_graph", fail)
    with pytest.raises(FileNotFoundError, match="`path` must lie in a folder that"):
        to_tflite(small(), tmp_path / "missing" / "net.tflite")


def unbuilt():
    return keras.Sequential([layers.Dense(2)])


def subclassed():
    class Net(keras.Model):
        def call(self, x):
            return x

    return Net()


def with_weight(value):
    def build():
        model = small("bad")
        model.layers[-1].bias.assign([1.0, value, 2.0])
        return model

    return build


def of_input(shape, dtype="float32"):
    def build():
        x = keras.Input(shape, name="words", dtype=dtype)
        return keras.Model(x, keras.layers.Identity()(x))

    return build


@pytest.mark.parametrize(
    "build, error, message",
    [
        (
            unbuilt,
            ValueError,
            "`model` must be built.*keras.Input.*Received: a Sequential",
        ),
        (subclassed, ValueError, "`model` must be.*Received: .*subclassed.*Net"),
        (lambda: "net.keras", TypeError, "`model` must be.*Received: .*'net.keras'"),
        (lambda: layers.Dense(2), TypeError, "`model` must be.*Received: .*Dense"),
        (with_weight(np.nan), ValueError, "y/bias' of 'bad': training diverged"),
        (with_weight(np.inf), ValueError, "y/bias' of 'bad': training diverged"),
        (of_input((None, 3)), ValueError, r"known sizes.*'words'.*\(None, None, 3\)"),
        (of_input((1,), "string"), ValueError, "numeric inputs.*'words'"),
    ],
)
def test_models_that_cannot_be_exported(tmp_path, build, error, message):
    with pytest.raises(error, match=message):
        to_tflite(build(), tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())


def test_an_unknown_mode_for_inputs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`inputs` must be.*Received: inputs='drop'"):
        to_tflite(small(), tmp_path / "net.tflite", inputs="drop")


@pytest.mark.parametrize("module", ["tensorflow", "ai_edge_litert"])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, module):
    model = small()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*keras-l0\[tensorflow\]"):
        to_tflite(model, tmp_path / "net.tflite")
