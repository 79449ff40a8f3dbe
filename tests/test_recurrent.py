"""Gates inside of recurrent layers, against the recurrence written out."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_l0
from keras_l0 import GateOptions
from keras_l0.layers import L0GRU, L0LSTM, L0SimpleRNN

KINDS = (L0SimpleRNN, L0LSTM, L0GRU)
UNITS, STEPS, FEATURES = 5, 4, 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def built(kind, seed=0, **options):
    layer = kind(UNITS, **options)
    layer.build((None, STEPS, FEATURES))
    rng = np.random.default_rng(seed)
    for weight in layer.cell.weights:
        weight.assign(rng.normal(size=weight.shape))
    layer.gate.assign_log_alpha([-9.0, 0.4, 9.0, -0.7, 9.0])
    return layer


def sequence(seed=1, size=2):
    shape = (size, STEPS, FEATURES)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def written_out(layer, x, h, c=None):
    """All outputs, in NumPy: every reader of a state reads it times the gate."""
    z = np.asarray(keras.ops.convert_to_numpy(layer.gate.test_gates), "float64")
    w, u, b = (
        np.asarray(keras.ops.convert_to_numpy(v), "float64") for v in layer.cell.weights
    )
    outputs = []
    for step in range(x.shape[1]):
        read = (h * z) @ u
        given = x[:, step] @ w
        if isinstance(layer, L0SimpleRNN):
            h = np.tanh(given + read + b)
        elif isinstance(layer, L0LSTM):
            i, f, g, o = np.split(given + read + b, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            one, two = np.split(given + b[0], 3, axis=1), np.split(read + b[1], 3, 1)
            update, reset = (sigmoid(one[k] + two[k]) for k in (0, 1))
            h = update * h + (1 - update) * np.tanh(one[2] + reset * two[2])
        outputs.append(h * z)
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_is_read_wherever_its_unit_is(kind, unroll):
    layer = built(kind, return_sequences=True, unroll=unroll)
    x, start = sequence(), np.full((2, UNITS), 0.3, "float32")
    states = [start] * len(layer.state_size)
    got = layer(x, initial_state=[keras.ops.convert_to_tensor(s) for s in states])
    expected = written_out(layer, x, start, start)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(got), expected, rtol=1e-4, atol=1e-5
    )
    assert (expected[..., 0] == 0).all() and (np.ptp(expected[..., 1:], 0) > 1e-3).any()


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_closed_units_are_zero(kind):
    layer = built(kind, return_state=True)
    for output in layer(sequence()):
        output = keras.ops.convert_to_numpy(output)
        assert (output[:, 0] == 0).all() and (output[:, 1:] != 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_draw_serves_the_whole_sequence(kind):
    """Two equal halves of the batch agree, and two batches do not."""
    layer = built(kind, return_sequences=True)
    layer.gate.assign_log_alpha(0.0)
    x = np.concatenate([sequence()] * 2)
    one, two = (keras.ops.convert_to_numpy(layer(x, training=True)) for _ in range(2))
    np.testing.assert_allclose(one[:2], one[2:], rtol=1e-5, atol=1e-6)
    assert np.abs(one - two).max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_gates_learn_from_the_recurrence(kind, gradient):
    """The gradient of log_alpha against finite differences, at test-time gates."""
    layer = built(kind, dtype="float64" if keras.backend.backend() != "jax" else None)
    x = keras.ops.convert_to_tensor(sequence(), dtype=layer.compute_dtype)
    raw = np.array([-0.03, 0.02, 0.05, -0.01, 0.0])
    layer.gate.raw.assign(raw)

    def total():
        return keras.ops.sum(keras.ops.square(layer(x)))

    found = gradient(total, layer.gate.raw)
    for i, step in enumerate(1e-3 * np.eye(UNITS)):
        ends = []
        for sign in (1, -1):
            layer.gate.raw.assign(raw + sign * step)
            ends.append(float(keras.ops.convert_to_numpy(total())))
        slope = (ends[0] - ends[1]) / 2e-3
        assert found[i] == pytest.approx(slope, rel=2e-2, abs=1e-2)
    assert np.abs(found).min() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_noise_per_example_is_refused(kind):
    with pytest.raises(ValueError, match="noise='batch'.*Received: noise='example'"):
        kind(UNITS, gate_options=GateOptions(noise="example"))


def test_bidirectional_gates_each_direction():
    model = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            layers.Bidirectional(L0LSTM(UNITS, l0=0.5)),
            layers.Dense(2),
        ]
    )
    forward, backward = keras_l0.gates(model)
    forward.assign_log_alpha(-9.0)
    x = keras.ops.convert_to_tensor(sequence())
    y = keras.ops.convert_to_numpy(model.layers[0](x))
    assert (y[:, :UNITS] == 0).all() and (y[:, UNITS:] != 0).all()
    cost = 4 * (FEATURES + UNITS + 1)
    expected = (
        0.5
        * cost
        * sum(float(keras.ops.sum(gate.prob_open)) for gate in (forward, backward))
    )
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stateful_layer_goes_on_where_it_stopped(kind):
    """Two halves of a sequence are the whole, gates between 0 and 1 included."""
    x = sequence(size=2)
    whole = built(kind, return_sequences=True)
    halves = kind(UNITS, return_sequences=True, stateful=True)
    halves.build((2, STEPS // 2, FEATURES))
    for old, new in zip(whole.cell.weights, halves.cell.weights, strict=True):
        new.assign(old)
    halves.gate.raw.assign(whole.gate.raw)
    parts = [halves(x[:, :2]), halves(x[:, 2:])]
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(whole(x)),
        np.concatenate([keras.ops.convert_to_numpy(part) for part in parts], axis=1),
        rtol=1e-4,
        atol=1e-5,
    )
