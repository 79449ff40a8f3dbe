"""Stripped networks as .tflite files: every topology, and no operation too many."""

import collections

import keras
import numpy as np
import pytest
from adversary import harden, policy
from small_models import CASES, hardened
from test_topologies import TOPOLOGIES, copied, shuffle_gates

import keras_l0
from keras_l0.analysis.batches import random_arrays
from keras_l0.layers import L0Gate

# The rest of them with -m thorough, which takes a few minutes.
CHEAP = ("unet_transposed", "mobilenet_v3", "densenet", "vit_first", "text_cnn")
# Counting words has no builtin form.
WITHOUT_FILE = ("wide_and_deep",)
# Whose 8 bits hold up under adversarial weights, which no training has seen.
CONVOLUTIONAL = (
    "unet_transposed", "unet_upsampled", "feature_pyramid", "densenet", "resnext",
    "autoencoder_outputs", "nested_tasks", "siamese_difference", "siamese_dot",
    "convnext", "channel_shuffle", "mobilenet_v3", "text_cnn",
)  # fmt: skip
# One number is no choice among classes.
WITHOUT_CLASSES = ("siamese_difference", "siamese_dot")
# What these consist of, with or without gates, the Edge TPU does not have.
NOT_MAPPED = {
    "siamese_difference": "ABS .*no such operation",
    "siamese_dot": "BATCH_MATMUL .*no such operation",
    "convnext": "MEAN .*multiple of 4",
    "channel_shuffle": "three innermost dimensions",
    "mobilenet_v3": "HARD_SWISH .*no such operation",
    "text_cnn": "LESS .*no such operation",
}


def some(names):
    return [
        pytest.param(name, marks=[] if name in CHEAP else [pytest.mark.thorough])
        for name in names
        if name not in WITHOUT_FILE
    ]


def without_gates(model):
    """The network as it is written by hand, with all units."""

    def plain(layer):
        if isinstance(layer, L0Gate):
            return keras.layers.Identity(name=layer.name)
        kind = next(c for c in type(layer).__mro__ if c.__module__.startswith("keras."))
        return kind.from_config(kind.get_config(layer))

    model = keras.Model(model.inputs, model.outputs)
    model = keras.models.clone_model(model, clone_function=plain, recursive=True)
    return harden(model, alive=False)  # A bias of 0 takes no ADD.


def close_some(model, rng):
    """Closes a third of every gate's units, and opens the others whole."""
    for gate in keras_l0.gates(model):
        closed = rng.permutation(gate.count) < gate.count // 3
        gate.assign_log_alpha(np.where(closed, -9.0, 9.0))


@pytest.mark.parametrize("inputs", ["keep", "narrow"])
@pytest.mark.parametrize("name", some(TOPOLOGIES))
def test_a_file_has_no_operation_that_the_network_by_hand_has_not(
    name, inputs, tmp_path
):
    path = tmp_path / "net.tflite"
    by_hand = keras_l0.to_tflite(without_gates(hardened(name)), path, verify=False)
    model = copied(name)
    close_some(model, np.random.default_rng(len(name)))
    report = keras_l0.to_tflite(model, path, inputs=inputs)
    assert not collections.Counter(report.ops) - collections.Counter(by_hand.ops)
    assert report.max_difference <= report.tolerance
    assert report.params <= by_hand.params


# Of its one channel left TensorFlow's converter makes a transposition that it refuses.
PARTLY_OPEN = [name for name in TOPOLOGIES if name != "temporal_convolutions"]


@pytest.mark.parametrize("name", some(PARTLY_OPEN))
def test_files_agree_whatever_the_gates(name, tmp_path):
    model = copied(name)
    shuffle_gates(model, np.random.default_rng(len(name)))
    report = keras_l0.to_tflite(model, tmp_path / "net.tflite")
    assert report.max_difference <= report.tolerance < 1e-3


@pytest.mark.parametrize("name", some(CONVOLUTIONAL))
def test_convolutional_networks_compute_in_8_bits(name, tmp_path):
    with policy("float32"):
        facts = CASES[name]
        model = harden(facts.build(), facts.dead, facts.alive, seed=3)
    close_some(model, np.random.default_rng(len(name)))
    data = random_arrays(keras_l0.strip(model, verify=False), 40)
    path = tmp_path / "net.tflite"
    if name in NOT_MAPPED:
        with pytest.raises(keras_l0.export.ExportError, match=NOT_MAPPED[name]):
            keras_l0.to_tflite(model, path, "int8", data, target="edgetpu")
        report = keras_l0.to_tflite(model, path, "int8", data, io_dtype="int8")
    else:
        report = keras_l0.to_tflite(model, path, "int8", data, target="edgetpu")
        assert report.target.mapped == 1
    assert report.max_difference < 0.05
    assert (report.top1 is None) == (name in WITHOUT_CLASSES)
    assert name in WITHOUT_CLASSES or report.top1 > 0.95
    by_hand = keras_l0.to_tflite(
        without_gates(hardened(name)), path, "int8", data, io_dtype="int8", verify=False
    )
    assert not collections.Counter(report.ops) - collections.Counter(by_hand.ops)
