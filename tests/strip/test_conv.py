"""Convolutions and layers on positions: sizes, folded gates, and why some stay."""

import math

import keras
import models_conv
import numpy as np
import pytest
import test_equal
from adversary import batch, harden, run, variation
from keras import layers
from small_models import CASES, hardened

import keras_l0
from keras_l0.analysis.cost import Cost
from keras_l0.layers import L0Gate

CONV = [
    name
    for name, facts in CASES.items()
    if facts.build.__module__ == models_conv.__name__
]


# Sizes, counted by another method: from the weights of the stripped layers


def positions(tensor, layer):
    first = getattr(layer, "data_format", None) == "channels_first"
    shape = tensor.shape[2:] if first else tensor.shape[1:-1]
    return math.prod(shape)


def macs(model):
    total = 0
    for layer in model.layers:
        kernels = [math.prod(w.shape) for w in layer.weights if "kernel" in w.name]
        for node in layer._inbound_nodes if kernels else ():
            tensor = node.outputs[0]
            if "Transpose" in type(layer).__name__:
                tensor = node.input_tensors[0]
            # A recurrence that returns its last output has applied them at each step.
            last = "LSTM" in type(layer).__name__ and not layer.return_sequences
            steps = node.input_tensors[0].shape[1] if last else 1
            total += steps * sum(kernels) * positions(tensor, layer)
    return total


def corners(model):
    """All gates closed, those of one layer closed, random ones."""
    rng = np.random.default_rng(0)
    sizes = [gate.count for gate in keras_l0.gates(model)]
    yield [np.zeros(n) for n in sizes]
    for which in {0, len(sizes) - 1} if len(sizes) > 1 else ():
        yield [np.full(n, float(i != which)) for i, n in enumerate(sizes)]
    for share in (0.3, 0.7):
        yield [(rng.uniform(size=n) < share).astype("float64") for n in sizes]


@pytest.mark.parametrize("name", CONV)
def test_cost_is_the_stripped_size(name):
    if CASES[name].first and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolutions on the CPU")
    model = CASES[name].build()
    cost = Cost(model)
    for corner in corners(model):
        for gate, part in zip(keras_l0.gates(model), corner, strict=True):
            gate.assign_log_alpha(np.where(part, 9.0, -9.0).reshape(gate.raw.shape))
        stripped = keras_l0.strip(model, verify=False)
        size = cost(corner)
        found = float(size.params), float(size.macs)
        assert found == (stripped.count_params(), macs(stripped))


@pytest.mark.parametrize(
    "name", ["DepthwiseConv2D_twice_at_rest", "grouped_gated", "inverted_residual"]
)
def test_tensors_and_arrays_cost_the_same(name):
    cost = Cost(CASES[name].build())
    openness = np.random.default_rng(1).uniform(size=sum(cost.counts))
    exact = cost(openness)
    tensors = cost(keras.ops.convert_to_tensor(openness))
    for a, b in zip(exact, tensors, strict=True):
        assert float(b) == pytest.approx(float(a), rel=1e-12)


# Gates leave no trace


# Shared weights cannot take a factor for one call, nor sigmoid one for its own gate.
MULTIPLYING = ("shared_convolutions", "grouped_gated")


# Units that feed their own recurrence are held: these models have barriers.
RECURRENT = tuple(name for name in CONV if name.startswith(("ConvLSTM", "conv_recu")))


@pytest.mark.parametrize("name", sorted({*CONV} - {*MULTIPLYING, *RECURRENT}))
def test_no_multiplication_is_left(name):
    # The channels of an input are taken to lie last.
    first = CASES[name].first
    assert not [b for b in keras_l0.plan(hardened(name)).barriers if not first]
    stripped = keras_l0.strip(hardened(name), verify=False)
    kinds = {type(operation).__name__ for operation in stripped.operations}
    assert not {"Multiply", "Rescaling"} & kinds


def units(model, name):
    return {row.name: (row.units, row.kept) for row in keras_l0.plan(model).layers}[
        name
    ]


def gated(model, *openness):
    for gate, part in zip(keras_l0.gates(model), openness, strict=True):
        gate.assign_log_alpha(np.where(np.array(part) > 0, 9.0, -9.0))
    return model


# What goes with what


def test_depthwise_outputs_go_with_their_input():
    def model():
        return harden(
            keras.Sequential(
                [
                    keras.Input((5, 5, 3)),
                    layers.Conv2D(3, 1, name="before"),
                    layers.DepthwiseConv2D(2, depth_multiplier=2, name="deep"),
                    L0Gate(),
                    layers.Conv2D(2, 1),
                ]
            )
        )

    # Of channel 0 both outputs are closed, of channel 1 one, of channel 2 none.
    closed = gated(model(), [0, 0, 1, 0, 1, 1])
    assert units(closed, "deep") == (6, 4)
    assert units(closed, "before") == (3, 2)
    test_equal.assert_equal(closed, keras_l0.strip(closed), batch(closed))


def test_whole_groups_go():
    model = harden(
        keras.Sequential(
            [
                keras.Input((5, 5, 3)),
                layers.Conv2D(6, 1, name="before"),
                layers.Conv2D(6, 2, groups=3, name="grouped"),
                L0Gate(),
                layers.Conv2D(2, 1),
            ]
        )
    )
    for openness, groups in (([1, 0, 0, 0, 0, 1], 2), ([0, 0, 1, 0, 0, 0], 1)):
        stripped = keras_l0.strip(gated(model, openness))
        assert stripped.get_layer("grouped").groups == groups
        assert stripped.get_layer("grouped").filters == 2 * groups
        assert stripped.get_layer("before").filters == 2 * groups
        test_equal.assert_equal(model, stripped, batch(model))


def test_one_channel_carries_all_constants_that_meet_a_border():
    model = hardened("Conv1D_causal_at_rest")
    closed = (np.array(keras_l0.gates(model)[0].test_gates) == 0).sum()
    assert closed > 1
    first = keras_l0.plan(model).layers[0]
    assert first.kept == first.units - closed + 1


def test_same_padding_that_adds_nothing_needs_no_carrier():
    model = hardened("same_without_padding")
    closed = (np.array(keras_l0.gates(model)[0].test_gates) == 0).sum()
    first = keras_l0.plan(model).layers[0]
    assert first.kept == first.units - closed


# Counter-examples: what slicing would do where strip does not


def response(layer, value=1.0, shape=(6, 6, 1)):
    """What a constant channel becomes."""
    x = keras.ops.full((1, *shape), value, dtype="float64")
    return np.array(layer(x))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(1, 3, padding="same"),
        lambda: layers.Conv2DTranspose(1, 3),
        lambda: layers.Conv2DTranspose(1, 2, strides=2),
        lambda: layers.DepthwiseConv2D(3, padding="same"),
        lambda: layers.SeparableConv2D(1, 3, padding="same"),
        lambda: layers.ZeroPadding2D(1),
        lambda: layers.Resizing(4, 9, pad_to_aspect_ratio=True),
    ],
)
def test_a_constant_is_not_uniform_behind(layer):
    # So it cannot go into a bias.
    assert np.ptp(response(layer())) > 1e-2


def test_a_separable_kernel_cannot_carry_another_channel():
    # Both channels are constant, and each has a border of its own shape.
    layer = layers.SeparableConv2D(1, 3, padding="same", use_bias=False)
    layer.build((None, 6, 6, 2))
    both = []
    for channel in range(2):
        x = np.zeros((1, 6, 6, 2))
        x[..., channel] = 1
        both.append(np.array(layer(x)).ravel())
    assert np.linalg.matrix_rank(np.array(both), tol=1e-6) == 2


def test_padding_with_a_value_is_a_barrier():
    model = harden(
        keras.Sequential(
            [
                keras.Input((6, 5, 3)),
                layers.Conv2D(4, 1, activation="relu"),
                L0Gate(),
                layers.Resizing(4, 9, pad_to_aspect_ratio=True, fill_value=2.0),
                layers.Flatten(),
                layers.Dense(2),
            ]
        )
    )
    (barrier,) = keras_l0.plan(model).barriers
    assert "pads with a value" in barrier.reason
    old = run(model, batch(model))[0]
    new = run(keras_l0.strip(model), batch(model))[0]
    assert np.abs(old - new).max() <= 1e-6 * variation(old)
    fill = layers.Resizing(4, 9, pad_to_aspect_ratio=True, fill_value=2.0)
    assert np.ptp(response(fill, 0.0)) > 1  # a closed channel is no longer 0
