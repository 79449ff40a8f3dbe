"""Granularity of gates: what single layers do about it."""

import keras
import numpy as np
import pytest

import keras_l0
from keras_l0.layers import (
    L0LSTM,
    L0Conv2D,
    L0Dense,
    L0EinsumDense,
    L0Embedding,
    L0MultiHeadAttention,
)


@pytest.mark.parametrize("granularity", ["inputs", "weights", (1, 4)], ids=str)
def test_groups_have_units_only(granularity):
    with pytest.raises(ValueError, match="`granularity` of .*'units'.*groups=2"):
        L0Conv2D(4, 3, groups=2, granularity=granularity)


@pytest.mark.parametrize(
    "made",
    [
        lambda **k: L0LSTM(4, **k),
        lambda **k: L0Embedding(5, 4, **k),
        lambda **k: L0MultiHeadAttention(2, 3, **k),
    ],
)
def test_layers_that_offer_no_choice_say_so(made):
    with pytest.raises((TypeError, ValueError), match="granularity"):
        made(granularity="weights")


@pytest.mark.parametrize("granularity", ["inputs", (1, 4)], ids=str)
def test_equations_that_sum_over_several_axes_have_no_inputs(granularity):
    with pytest.raises(ValueError, match="`equation` of .* must sum over one"):
        L0EinsumDense("abc,bcd->ad", 4, granularity=granularity).build((None, 3, 2))
    layer = L0EinsumDense("abc,bcd->ad", 4, granularity="weights")
    layer.build((None, 3, 2))
    assert layer.gate.count == 3 * 2 * 4


def test_lora_would_open_closed_weights():
    with pytest.raises(ValueError, match="`granularity` of .* for LoRA.*Received"):
        L0Dense(4, lora_rank=2, granularity="weights").build((None, 3))
    L0Dense(4, lora_rank=2, granularity="inputs").build((None, 3))


def two_readers(other):
    """A Dense(6) whose channels two layers read, one of them with gated inputs."""
    x = keras.Input((4,))
    h = keras.layers.Dense(6, "relu", name="source")(x)
    a = L0Dense(5, "relu", granularity="inputs", name="a")(h)
    return keras.Model(x, keras.layers.Concatenate()([a, other(h)]))


def test_inputs_leave_where_nobody_else_reads_them():
    log_alpha = [9.0, -9.0, 9.0, -9.0, 0.4, 9.0]
    alone = two_readers(keras.layers.Dense(2))
    alone.get_layer("a").gate.assign_log_alpha(log_alpha)
    small = keras_l0.strip(alone)
    # Another layer reads all six: they stay, and meet zeros.
    assert small.get_layer("source").units == 6
    assert (np.array(small.get_layer("a").kernel)[[1, 3]] == 0).all()
    both = two_readers(L0Dense(2, granularity="inputs", name="b"))
    both.get_layer("a").gate.assign_log_alpha(log_alpha)
    both.get_layer("b").gate.assign_log_alpha([-9.0, -9.0, 9.0, -9.0, 9.0, 9.0])
    small = keras_l0.strip(both)
    assert small.get_layer("source").units == 4
    rows = {row.name: (row.units, row.kept) for row in keras_l0.plan(both).layers}
    assert rows["a_gate"] == rows["b_gate"] == (6, 4) and rows["a"] == (5, 5)


@pytest.mark.parametrize("mode", ["keep", "gather", "narrow"])
def test_inputs_of_the_model(mode):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L0Dense(3, "relu", granularity="inputs"),
            keras.layers.Dense(2),
        ]
    )
    (gate,) = keras_l0.gates(model)
    gate.assign_log_alpha([9.0, -9.0, 0.4, -9.0, 9.0, 9.0])
    small = keras_l0.strip(model, inputs=mode)
    rows = 6 if mode == "keep" else 4
    assert small.count_params() == rows * 3 + 3 + 3 * 2 + 2
    assert small.input_shape == (None, 4 if mode == "narrow" else 6)


def test_units_and_inputs_without_open_weights_go():
    x = keras.Input((3,))
    h = keras.layers.Dense(4, "relu", name="before")(x)
    h = L0Dense(3, "sigmoid", granularity="weights", name="a")(h)
    model = keras.Model(x, keras.layers.Dense(2, name="after")(h))
    for weight in model.weights:
        if weight.name != "raw_log_alpha":
            weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    # Unit 1 reads nothing; nobody reads inputs 0 and 2.
    open_ = np.array([[0, 0, 0], [1, 0, 1], [0, 0, 0], [0, 0, 1]])
    model.get_layer("a").gate.assign_log_alpha(np.where(open_, 9.0, -9.0))
    small = keras_l0.strip(model)
    assert small.get_layer("before").units == 2
    assert small.get_layer("a").units == 2 and small.get_layer("after").units == 2
    # What is left holds one zero, which counts.
    assert small.count_params() == (3 * 2 + 2) + (2 * 2 + 2) + (2 * 2 + 2)
    kernel = np.array(small.get_layer("a").kernel)
    assert (kernel == 0).sum() == 1
    profile = keras_l0.profile(model)
    assert profile.deployed.params == small.count_params()
    (row,) = (row for row in profile.layers if row.name == "a")
    assert (row.units, row.kept) == (3, 2)


@pytest.mark.parametrize("granularity", ["weights", (1, 4)], ids=str)
def test_rounding_leaves_weights_alone(granularity):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            L0Dense(8, "relu", granularity=granularity),
            keras.layers.Dense(2),
        ]
    )
    (gate,) = keras_l0.gates(model)
    closed = np.arange(gate.count).reshape(gate.raw.shape) % 3 == 0
    gate.assign_log_alpha(np.where(closed, -9.0, 9.0))
    plan = keras_l0.plan(model, round_to=16, min_units=5)
    assert plan.layers[0].kept == 8
    assert plan.layers[0].note.startswith(f"{(~closed).sum()} of {closed.size} gates")
    kernel = np.array(keras_l0.strip(model, round_to=8).layers[1].kernel)
    blocks = kernel if granularity == "weights" else kernel.reshape(2, 4, 8).any(axis=1)
    assert ((blocks == 0) == closed).all()


def test_wrapped_layers_have_no_gates_in_front():
    x = keras.Input((3, 4))
    layer = L0Dense(5, granularity="inputs")
    model = keras.Model(x, keras.layers.TimeDistributed(layer)(x))
    with pytest.raises(ValueError, match="whose gates are in front of it"):
        keras_l0.strip(model)
