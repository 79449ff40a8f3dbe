"""Zeros in weights: stored or not, and what the report says of them."""

import keras
import numpy as np
import pytest
from keras import layers
from networks import awkward, conv_net, normal

import keras_l0
from keras_l0.export import ExportError, to_tflite
from keras_l0.export.flatbuffer import read_ops
from keras_l0.layers import L0Conv2D, L0Dense

pytestmark = pytest.mark.tensorflow


def gated(granularity, features=64, units=(48, 10)):
    """Two layers of whose weights one in ten is open."""
    model = keras.Sequential(
        [keras.Input((features,), name="x")]
        + [
            L0Dense(n, activation="relu", granularity=granularity, name=f"gated{n}")
            for n in units
        ]
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.kernel.assign(rng.normal(size=layer.kernel.shape))
        layer.bias.assign(rng.normal(size=layer.bias.shape))
        shape = layer.gate.log_alpha.shape
        layer.gate.assign_log_alpha(np.where(rng.random(shape) < 0.1, 9.0, -9.0))
    return model


def agrees(report):
    return report.max_difference <= report.tolerance


def test_blocks_are_stored_and_run_without_their_zeros(tmp_path):
    model = gated((1, 4))
    dense = to_tflite(model, tmp_path / "dense.tflite")
    report = to_tflite(model, tmp_path / "net.tflite", sparse=True)
    assert agrees(report) and report.zeros > 0.7
    assert report.ops == {"FULLY_CONNECTED": 2}
    assert (report.sparse, report.skipping) == (2, 2)
    assert report.bytes < dense.bytes / 2
    assert "saves bytes, and time in the 2 operations that skip" in str(report)
    assert (dense.sparse, dense.skipping) == (0, 0)
    assert "which saves no time" in str(dense) and "sparse=True" in str(dense)


def test_single_weights_save_bytes_and_no_time(tmp_path):
    model = gated("weights")
    dense = to_tflite(model, tmp_path / "dense.tflite")
    report = to_tflite(model, tmp_path / "net.tflite", sparse=True)
    assert agrees(report) and report.bytes < dense.bytes / 2
    assert report.ops == {"DENSIFY": 2, "FULLY_CONNECTED": 2}
    assert (report.sparse, report.skipping) == (2, 0)
    assert "saves bytes, and no time" in str(report)


def test_convolutions_are_stored_without_their_zeros(tmp_path):
    conv = L0Conv2D(8, 3, activation="relu", granularity="weights")
    model = keras.Sequential(
        [keras.Input((9, 9, 4)), conv, layers.Flatten(), layers.Dense(3)]
    )
    rng = np.random.default_rng(0)
    opened = rng.random(conv.gate.log_alpha.shape) < 0.1
    conv.gate.assign_log_alpha(np.where(opened, 9.0, -9.0))
    report = to_tflite(model, tmp_path / "net.tflite", sparse=True, batch_size=None)
    assert agrees(report) and report.sparse == 1 and report.ops["DENSIFY"] == 1


def test_a_network_without_zeros_stays_as_it_is(tmp_path):
    plain = to_tflite(conv_net(), tmp_path / "net.tflite")
    report = to_tflite(conv_net(), tmp_path / "net.tflite", sparse=True)
    assert report.ops == plain.ops and abs(report.bytes - plain.bytes) < 100
    assert report.zeros == report.sparse == 0 and "weights are 0" not in str(report)


def of_odd_width():
    """Of 63 inputs the last three are a block by themselves, and not 0."""
    model = keras.Sequential(
        [keras.Input((63,)), layers.Dense(8, use_bias=False, name="odd")]
    )
    kernel = np.repeat(np.eye(16), 4, axis=0)[:63, -8:]
    awkward(model).get_layer("odd").kernel.assign(kernel)
    return model


@pytest.mark.parametrize("verify", [True, False])
def test_blocks_that_litert_computes_wrongly_are_refused(tmp_path, verify):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"earlier")
    with pytest.raises(ExportError, match=r"FULLY_CONNECTED.*'odd'.*it has 63.*wrong"):
        to_tflite(of_odd_width(), path, sparse=True, verify=verify)
    assert path.read_bytes() == b"earlier"
    assert agrees(to_tflite(of_odd_width(), path))


def test_blocks_stay_side_by_side(tmp_path):
    # Without the units that are dead, the blocks of the next layer would be cut.
    model = gated((1, 4))
    assert keras_l0.strip(model).count_params() < 48 * 64
    to_tflite(model, tmp_path / "net.tflite", sparse=True)
    ops = read_ops((tmp_path / "net.tflite").read_bytes())
    assert [op.inputs[1].shape for op in ops] == [(48, 64), (10, 48)]
    assert [op.inputs[1].block for op in ops] == [4, 4]


def test_units_are_left_in_numbers_that_blocks_fill(tmp_path):
    first, last = L0Dense(16, activation="relu"), L0Dense(3, granularity="weights")
    model = keras.Sequential([keras.Input((8,)), first, last])
    first.gate.assign_log_alpha([9.0] * 5 + [-9.0] * 11)
    last.gate.assign_log_alpha(np.where(np.eye(16, 3, -2) > 0, 9.0, -9.0))
    report = to_tflite(model, tmp_path / "net.tflite", sparse=True)
    assert agrees(report)
    last_op = read_ops((tmp_path / "net.tflite").read_bytes())[-1]
    assert last_op.inputs[1].shape == (3, 4)


@pytest.mark.parametrize("options", [
    {"quantization": "float16"}, {"quantization": "dynamic"},
    {"quantization": "int8", "representative_data": normal(9, 64)},
    {"target": "micro"},
])  # fmt: skip
def test_files_that_do_not_run_with_sparse_weights_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match="`sparse` must be False.*Received"):
        to_tflite(gated((1, 4)), tmp_path / "net.tflite", sparse=True, **options)
    assert not list(tmp_path.iterdir())


def test_gates_on_units_leave_nothing_to_store_sparsely(tmp_path):
    inside = gated("units", units=(14,))
    model = keras.Sequential([*inside.layers, layers.Dense(3)])
    model.build((None, 64))
    plain = to_tflite(model, tmp_path / "plain.tflite")
    with pytest.warns(UserWarning, match="sparse=True stores no kernel"):
        report = to_tflite(model, tmp_path / "net.tflite", sparse=True)
    assert report.sparse == 0 and report.params == plain.params
