"""Quantized files: what they hold, how they are compared, what they are made from."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import layers
from networks import awkward, conv_net, normal, run, small, two_by_two

from keras_l0.export import ExportError, child, convert, prepare, to_tflite
from keras_l0.export.flatbuffer import float_ops, read_ops
from keras_l0.export.options import Options
from keras_l0.export.representative import read_representative

pytestmark = pytest.mark.tensorflow
IMAGES = (40, 16, 16, 2)


def write(tmp_path, model, *arguments, **keywords):
    path = tmp_path / "net.tflite"
    return path, to_tflite(model, path, *arguments, **keywords)


@pytest.mark.parametrize("io_dtype", ["float32", "int8", "uint8"])
def test_an_int8_file_is_int8_throughout(tmp_path, io_dtype):
    x = normal(*IMAGES)
    path, report = write(tmp_path, conv_net(), "int8", x, io_dtype=io_dtype)
    inside = [op for op in read_ops(path.read_bytes()) if "QUANTIZE" not in op.name]
    dtypes = {
        tensor.dtype for op in inside for tensor in (*op.inputs, *op.outputs) if tensor
    }
    assert dtypes == {"INT8", "INT32"}
    assert report.quantization == "int8" and report.tolerance is None
    assert 0 < report.max_difference < 0.1
    assert 0 < report.error < 0.1 and report.top1 > 0.9
    assert "int8" in str(report) and "top-1" in str(report)


def test_an_int8_file_answers_as_keras(tmp_path):
    model, x = conv_net(), normal(*IMAGES)
    path, report = write(tmp_path, model, "int8", x)
    want = model.predict(x, verbose=0)
    apart = np.abs(run(path, image=x)["scores"] - want).max() / want.max()
    assert 0 < apart < 0.1
    assert report.max_difference == pytest.approx(apart, rel=0.02)


@pytest.mark.parametrize("quantization, share", [("float16", 0.75), ("dynamic", 0.6)])
def test_other_quantizations_make_the_file_smaller(tmp_path, quantization, share):
    model = awkward(
        keras.Sequential([keras.Input((40,)), layers.Dense(80), layers.Dense(9)])
    )
    _, plain = write(tmp_path, model)
    _, report = write(tmp_path, model, quantization)
    assert report.bytes < share * plain.bytes
    assert report.error < 0.1 and report.quantization == quantization


def test_several_inputs_and_outputs_keep_their_names(tmp_path):
    data = {"right": normal(30, 3), "left": normal(30, 4)}
    model = two_by_two("dict")
    path, report = write(tmp_path, model, "int8", data, io_dtype="int8")
    ins = {tensor.shape for tensor in read_ops(path.read_bytes())[0].inputs}
    assert ins == {(1, 4), (1, 3)}
    assert set(report.inputs) == {"left", "right"}
    assert set(report.outputs) == {"one", "another"}
    assert report.error < 0.1


def test_the_same_model_and_data_give_the_same_bytes(tmp_path):
    model, x = conv_net(), normal(*IMAGES)
    contents = {write(tmp_path, model, "int8", x)[0].read_bytes() for _ in range(2)}
    assert len(contents) == 1


def test_a_trained_network_keeps_its_answers(tmp_path):
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x[:1200], y[:1200], 64, 6, verbose=0)
    _, report = write(
        tmp_path, model, "int8", x[:200], data=x[1200:], labels=y[1200:], min_top1=0.99
    )
    assert report.top1 >= 0.99
    assert report.accuracy > 0.85
    assert abs(report.accuracy - report.keras_accuracy) <= 0.01
    assert f"accuracy {report.accuracy:.2%}" in str(report)


def test_gates_are_stripped_and_the_report_says_what_was_gained(tmp_path):
    from keras_l0.layers import L0Dense

    gated = L0Dense(6, activation="relu")
    model = keras.Sequential([keras.Input((4,)), gated, layers.Dense(2)])
    gated.gate.assign_log_alpha([5, -9, 5, -9, -9, 5])
    _, report = write(tmp_path, model, "int8", normal(30, 4))
    assert (report.dense_params, report.params) == (44, 23)
    assert (report.dense_macs, report.macs) == (36, 18)
    assert "44 -> 23 parameters, 36 -> 18 MACs" in str(report)


# What cannot be 8 bits throughout


def with_elu():
    x = keras.Input((6,), name="x")
    h = layers.ELU(name="odd")(layers.Dense(8, name="first")(x))
    return awkward(keras.Model(x, layers.Dense(3, name="last")(h)))


def test_float_inside_an_int8_file_is_refused_and_named(tmp_path):
    with pytest.raises(ExportError, match=r"ELU \(layer 'odd'\).*allow=\('float',\)"):
        write(tmp_path, with_elu(), "int8", normal(30, 6))
    assert not list(tmp_path.iterdir())


def test_float_inside_an_int8_file_can_be_allowed(tmp_path):
    path, report = write(tmp_path, with_elu(), "int8", normal(30, 6), allow=("float",))
    assert float_ops(read_ops(path.read_bytes()))
    assert report.error < 0.4


LOWERED = {
    "layer": (layers.LayerNormalization, "MUL"),
    "layer, no scale": (lambda: layers.LayerNormalization(scale=False), "SUB"),
    "layer, all axes": (lambda: layers.LayerNormalization((1, 2, 3)), "SUB"),
    "layer, two axes": (lambda: layers.LayerNormalization((-1, 1)), "SUB"),
    "groups": (lambda: layers.GroupNormalization(2), "SUB"),
    "channels": (lambda: layers.GroupNormalization(-1, center=False), "SUB"),
    "rows": (lambda: layers.GroupNormalization(4, axis=1), "SUB"),
    "root mean square": (layers.RMSNormalization, "RSQRT"),
    "unit": (layers.UnitNormalization, "RSQRT"),
    "upsampling": (lambda: layers.UpSampling2D((3, 2)), "RESIZE_NEAREST_NEIGHBOR"),
    "channels first": (
        lambda: layers.UpSampling2D(2, "channels_first"), "RESIZE_NEAREST_NEIGHBOR",
    ),
    "bilinear": (
        lambda: layers.UpSampling2D(interpolation="bilinear"), "RESIZE_BILINEAR"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOWERED)
def test_layers_are_written_in_what_tflite_has_in_8_bits(tmp_path, name):
    make, expected = LOWERED[name]
    before = make().call.__func__
    model = awkward(
        keras.Sequential(
            [
                keras.Input((4, 4, 4), name="image"),
                layers.Conv2D(4, 1),
                make(),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
    )
    _, report = write(tmp_path, model)
    assert report.max_difference <= report.tolerance
    _, report = write(tmp_path, model, "int8", normal(30, 4, 4, 4))
    assert expected in report.ops and report.error < 0.1
    assert not {"TILE", "NEG", "SQUARE", "SQUARED_DIFFERENCE"} & set(report.ops)
    assert make().call.__func__ is before


def needs_flex():
    x = keras.Input((4,), name="x")
    square = layers.Reshape((2, 2))(layers.Dense(4)(x))
    return awkward(keras.Model(x, keras.ops.det(square)))


def test_tensorflow_operations_are_an_option(tmp_path):
    with pytest.raises(ExportError, match="none exists for MatrixDeterminant"):
        write(tmp_path, needs_flex())
    with pytest.raises(ExportError, match="FlexMatrixDeterminant.*verify=False"):
        write(tmp_path, needs_flex(), allow=("flex",))
    assert not list(tmp_path.iterdir())
    _, report = write(tmp_path, needs_flex(), allow=("flex",), verify=False)
    assert report.ops["FlexMatrixDeterminant"] == 1


def test_activations_that_are_always_zero_are_named(tmp_path):
    # XNNPACK does not load a tensor without a range.
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, activation="relu", name="dead"),
            layers.Conv2D(3, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    awkward(model).get_layer("dead").bias.assign([-99.0] * 4)
    with pytest.raises(ExportError, match=r"is 0 on all of `repr.*layer 'dead'"):
        write(tmp_path, model, "int8", normal(30, 6, 6, 1))


# Batches


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_the_batch_can_stay_open(tmp_path, quantization):
    x = normal(*IMAGES)
    path, report = write(tmp_path, conv_net(), quantization, x, batch_size=None)
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    assert runner(image=x[:7])["scores"].shape == (7, 3)
    assert runner(image=x[:2])["scores"].shape == (2, 3)
    assert report.max_difference < 0.1


def test_a_batch_of_several_examples(tmp_path):
    # 40 examples do not fill batches of 16.
    x = normal(*IMAGES)
    path, report = write(tmp_path, conv_net(), "int8", x, batch_size=16)
    assert read_ops(path.read_bytes())[0].inputs[0].shape == (16, 16, 16, 2)
    assert report.error < 0.1


def test_a_fixed_batch_stays(tmp_path):
    x = keras.Input(batch_shape=(4, 5), name="x")
    model = awkward(keras.Model(x, layers.Dense(2)(x)))
    path, _ = write(tmp_path, model)
    assert read_ops(path.read_bytes())[0].inputs[0].shape == (4, 5)


def recurrent(layer):
    x = keras.Input((5, 4), name="x")
    return awkward(keras.Model(x, layers.Dense(3)(layer(x)), name="recurrent"))


def test_recurrent_layers_are_unrolled_where_they_must_be(tmp_path):
    layer = layers.LSTM(4)
    _, report = write(tmp_path, recurrent(layer), "int8", normal(30, 5, 4))
    assert "WHILE" not in report.ops and report.error < 0.2
    _, report = write(tmp_path, recurrent(layers.GRU(4)), batch_size=None)
    assert "WHILE" not in report.ops
    assert not layer.unroll


def test_what_the_converter_leaves_in_float_by_chance_is_converted_again(
    tmp_path, monkeypatch
):
    chances = [True, True, False]
    monkeypatch.setattr(convert, "_left_by_chance", lambda content: chances.pop(0))
    write(tmp_path, conv_net(), "int8", normal(*IMAGES))
    assert not chances
    monkeypatch.undo()
    # One conversion in six of this one comes out otherwise.
    for _ in range(3):
        write(tmp_path, recurrent(layers.LSTM(4)), "int8", normal(30, 5, 4))


def test_a_crash_of_the_converter_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "unrolled", lambda model: model)
    with pytest.raises(ExportError, match="could not be converted: the process.*SIG"):
        write(tmp_path, recurrent(layers.LSTM(4)), "int8", normal(30, 5, 4))
    assert not list(tmp_path.iterdir())


def test_how_a_process_ended_is_said():
    assert "status 3 (bad)" in child.how_it_ended(
        child.run_python("-c", "import sys; print('bad', file=sys.stderr); exit(3)")
    )
    assert "status 4 (no message)" in child.how_it_ended(
        child.run_python("-c", "raise SystemExit(4)")
    )


# Limits


@pytest.mark.parametrize(
    "limits, message",
    [
        ({"max_error": 1e-4}, "'y' of the quantized model differs.*max_error=0.0001"),
        ({"min_top1": 1.0}, "agrees in .*% of top-1.*min_top1=1"),
    ],
)
def test_a_file_outside_the_limits_is_not_left(tmp_path, limits, message):
    x = keras.Input((4,))
    model = awkward(keras.Model(x, layers.Dense(60, name="y")(x)))
    path = tmp_path / "net.tflite"
    path.write_bytes(b"earlier")
    with pytest.raises(ExportError, match=message):
        to_tflite(model, path, "int8", normal(300, 4), **limits)
    assert path.read_bytes() == b"earlier"


# Representative data


def batches():
    for _ in range(3):
        yield normal(4, 4)


@pytest.mark.parametrize(
    "data",
    [
        lambda: normal(12, 4),
        lambda: {"x": normal(12, 4).astype("float64")},
        lambda: [normal(12, 4)],
        lambda: batches(),
        lambda: batches,
        lambda: ([batch] for batch in batches()),
        lambda: ({"x": batch} for batch in batches()),
        lambda: ((batch, np.zeros(4)) for batch in batches()),
        lambda: (({"x": batch}, np.zeros(4)) for batch in batches()),
        lambda: (example for batch in batches() for example in batch),
    ],
)
def test_representative_data_comes_in_many_forms(data):
    (array,) = read_representative(small(), data(), ("x",))
    assert array.shape == (12, 4) and array.dtype == "float32"


def test_representative_data_of_tensorflow_and_keras():
    import tensorflow as tf

    pairs = tf.data.Dataset.from_tensor_slices((normal(12, 4), np.zeros(12)))
    for dataset in (pairs, pairs.batch(5), pairs.batch(5).repeat()):
        (array,) = read_representative(small(), dataset, ("x",))
        assert array.shape[1:] == (4,) and 12 <= len(array) <= 512

    class Batches(keras.utils.PyDataset):
        num_batches = 3

        def __getitem__(self, index):
            return normal(4, 4), np.zeros(4)

    assert read_representative(small(), Batches(), ("x",))[0].shape == (12, 4)


def test_much_representative_data_is_sampled_evenly():
    x = np.repeat(np.arange(1000.0)[:, None], 4, axis=1)
    (array,) = read_representative(small(), x, ("x",))
    assert len(array) == 512 and array[0, 0] == 0 and array[-1, 0] == 999


def test_two_inputs_are_told_from_targets():
    model, (left, right) = two_by_two("list"), (normal(6, 4), normal(6, 3))
    for element in ((left, right), [left, right], ([left, right], np.zeros(6))):
        found = read_representative(model, iter([element]), ("left", "right"))
        assert [array.shape for array in found] == [(6, 4), (6, 3)]


def with_nan():
    x = normal(5, 4)
    x[2, 1] = np.nan
    return x


@pytest.mark.parametrize(
    "data, message",
    [
        (None, "`representative_data` must be given for quantization='int8'"),
        (normal(5, 3), "`representative_data` must hold one array per input"),
        (normal(0, 4), "`representative_data` must hold.*n > 0"),
        (np.array([["a"] * 4]), "one array per input"),
        (with_nan(), "finite.*Received: NaN or infinity in 'x'"),
        (iter([with_nan()]), "finite"),
        (iter([]), "at least one example"),
        (iter([normal(5, 3)]), "one array per input"),
        (iter(["a"]), "must yield arrays"),
        (iter([()]), "one array per input"),
        ("train.csv", "arrays, or be a tf.data.Dataset.*'train.csv'"),
        (7, "arrays, or be a tf.data.Dataset.*Received: 7"),
    ],
)
def test_bad_representative_data(tmp_path, data, message):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"earlier")
    with pytest.raises(ValueError, match=message):
        to_tflite(small(), path, "int8", data)
    assert path.read_bytes() == b"earlier"


def test_fractions_are_refused_where_integers_are_looked_up(tmp_path):
    words = keras.Input((3,), dtype="int32", name="words")
    h = layers.Flatten()(layers.Embedding(5, 4)(words))
    model = awkward(keras.Model(words, layers.Dense(2)(h)))
    with pytest.raises(ValueError, match="`representative_data`.*integers.*'words'"):
        write(tmp_path, model, "int8", np.full((4, 3), 0.5))
    write(tmp_path, model, "int8", np.arange(30).reshape(10, 3) % 5)


# Options


def test_what_is_allowed_reaches_a_child():
    options = Options("int8", allow={"float"})
    assert json.loads(json.dumps(dataclasses.asdict(options)))["allow"] == ["float"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"quantization": "int4"}, "`quantization` must be.*Received: .*'int4'"),
        ({"io_dtype": "int16"}, "`io_dtype` must be.*Received: .*'int16'"),
        ({"io_dtype": "int8"}, "`io_dtype` must be .* without quantization='int8'"),
        ({"batch_size": 0}, "`batch_size` must be.*Received: batch_size=0"),
        ({"batch_size": True}, "`batch_size` must be"),
        ({"batch_size": 2.0}, "`batch_size` must be"),
        ({"allow": ("double",)}, "`allow` must be.*'double'"),
        ({"allow": "flex"}, "`allow` must be.*'flex'"),
        ({"allow": 3}, "`allow` must be.*Received: allow=3"),
        ({"sparse": "yes"}, "`sparse` must be True or False.*'yes'"),
        ({"max_error": -1}, "`max_error` must be a number of at least 0.*=-1"),
        ({"max_error": "1"}, "`max_error` must be a number.*'1'"),
        ({"max_error": np.nan}, "`max_error` must be a number.*nan"),
        ({"min_top1": 99}, "`min_top1` must be a number from 0 to 1.*=99"),
        ({"labels": [0]}, "`labels` must hold.*no examples"),
        ({"data": normal(3, 4), "labels": [0]}, "`labels` must hold.*3 examples"),
        ({"data": normal(2, 4), "labels": [0, 3]}, "`labels` must hold"),
        ({"data": normal(2, 4), "labels": [0, np.nan]}, "`labels` must hold"),
        ({"data": normal(2, 4), "labels": ["0", "1"]}, "`labels` must hold.*<U1"),
        ({"data": [[np.nan] * 4]}, "`data` must hold one array"),
        ({"data": np.full((2, 4), np.nan)}, "`data` must hold finite.*in 'x'"),
        ({"data": np.full((2, 4), np.inf)}, "`data` must hold finite.*in 'x'"),
    ],
)
def test_bad_options(tmp_path, options, message):
    (value, *_) = options.values()
    wrong_type = options.keys() <= {"batch_size", "sparse"} and value != 0
    with pytest.raises(TypeError if wrong_type else ValueError, match=message):
        write(tmp_path, small(), **options)
    assert not list(tmp_path.iterdir())
