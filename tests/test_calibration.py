"""Statistics of normalizations are those under test-time gates."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_l0
from keras_l0 import Budget, calibrate, with_budget
from keras_l0.layers import L0Dense


def network():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L0Dense(8, name="hidden"),
            layers.BatchNormalization(name="first"),
            layers.Dropout(0.5),
            layers.ReLU(),
            layers.Dense(4, name="second"),
            layers.BatchNormalization(name="last"),
        ]
    )
    keras_l0.gates(model)[0].assign_log_alpha(np.linspace(-4, 4, 8))
    return model


def data():
    return np.random.default_rng(0).normal(2, 3, size=(96, 6)).astype("float32")


def after(model, name):
    return keras.Model(model.inputs, model.get_layer(name).output)


@pytest.mark.parametrize("form", ["array", "batches", "pairs", "function"])
def test_statistics_are_those_of_the_data(form):
    model, x = network(), data()
    given = {
        "array": x,
        "batches": [keras.ops.convert_to_tensor(x)],
        "pairs": iter([(keras.ops.convert_to_tensor(x), None)]),
        "function": lambda: iter([keras.ops.convert_to_tensor(x)]),
    }[form]
    weights = [w.copy() for w in model.get_layer("hidden").get_weights()]
    assert calibrate(model, given) is model
    for before, norm in (("hidden", "first"), ("second", "last")):
        h = after(model, before).predict(x, verbose=0)
        norm = model.get_layer(norm)
        for found, expected in (
            (norm.moving_mean, h.mean(0)),
            (norm.moving_variance, h.var(0)),
        ):
            found = keras.ops.convert_to_numpy(found)
            # Of the second, what a batch does to the first comes in: epsilon.
            np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
        assert norm.momentum == 0.99
    assert model.layers[2].rate == 0.5 and keras_l0.gates(model)[0].trainable
    for a, b in zip(weights, model.get_layer("hidden").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_batches_count_alike():
    model, x = network(), data()
    calibrate(model, x, batch_size=32)
    h = after(model, "hidden").predict(x, verbose=0)
    norm = model.get_layer("first")
    found = keras.ops.convert_to_numpy(norm.moving_mean)
    np.testing.assert_allclose(found, h.mean(0), rtol=1e-4, atol=1e-4)
    parts = np.mean([part.var(0) for part in np.split(h, 3)], axis=0)
    found = keras.ops.convert_to_numpy(norm.moving_variance)
    np.testing.assert_allclose(found, parts, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [128, 129, 257])
def test_a_remainder_counts_for_what_it_is(count):
    x = np.random.default_rng(0).normal(size=(count, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization()])
    calibrate(model, x)
    found = keras.ops.convert_to_numpy(model.layers[0].moving_variance)
    np.testing.assert_allclose(found, x.var(0), rtol=0.03)


def test_a_budget_does_not_notice():
    model = with_budget(network(), Budget(params=0.8, ramp_steps=1))
    model(data(), training=True)
    before = (model.ramp, model.multipliers)
    calibrate(model, data())
    assert (model.ramp, model.multipliers) == before


DRAWING = {
    "dropout": lambda: [layers.Dropout(0.5)],
    "noise": lambda: [layers.GaussianNoise(0.9)],
    "recurrent": lambda: [
        layers.Reshape((2, 3)), layers.LSTM(6, dropout=0.5, recurrent_dropout=0.5)
    ],
    "augmentation": lambda: [
        layers.Reshape((2, 3, 1)), layers.RandomFlip(), layers.Flatten()
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", DRAWING)
def test_nothing_else_is_as_in_training(kind):
    stack = [keras.Input((6,)), *DRAWING[kind](), layers.Dense(3, name="before")]
    model = keras.Sequential([*stack, layers.BatchNormalization(name="norm")])
    h = after(model, "before").predict(data(), verbose=0)
    before = [np.array(w) for w in model.get_weights()]
    calibrate(model, data())
    norm = model.get_layer("norm")
    found = keras.ops.convert_to_numpy(norm.moving_variance)
    np.testing.assert_allclose(found, h.var(0), rtol=1e-4, atol=1e-5)
    for a, b in zip(before[:-2], model.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert "call" not in vars(norm)


def test_weights_that_change_in_training_stay():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.SpectralNormalization(layers.Dense(3)),
            layers.BatchNormalization(),
        ]
    )
    before = [w.copy() for w in model.layers[0].get_weights()]
    calibrate(model, data())
    for a, b in zip(before, model.layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_all_calls_of_a_shared_normalization_count():
    norm = layers.BatchNormalization()
    a, b = keras.Input((6,)), keras.Input((6,))
    model = keras.Model([a, b], layers.Add()([norm(a), norm(b)]))
    x = [data(), 5 - 2 * data()]
    calibrate(model, x, batch_size=32)
    found = keras.ops.convert_to_numpy(norm.moving_mean)
    np.testing.assert_allclose(found, np.concatenate(x).mean(0), rtol=1e-4, atol=1e-4)


def test_every_step_of_a_normalization_at_each_step_counts():
    norm = layers.BatchNormalization()
    stack = [keras.Input((3, 2)), layers.TimeDistributed(norm), layers.Flatten()]
    calibrate(keras.Sequential(stack), data().reshape(-1, 3, 2))
    found = keras.ops.convert_to_numpy(norm.moving_mean)
    expected = data().reshape(-1, 2).mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_frozen_statistics_stay():
    norm = layers.BatchNormalization(trainable=False)
    model = keras.Sequential([keras.Input((6,)), norm])
    before = [np.array(w) for w in norm.get_weights()]
    calibrate(model, data())
    for old, new in zip(before, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_statistics_stay_where_a_batch_fails():
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match="incompatible"):
        calibrate(model, iter([data(), data()[:, :3]]))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.get_layer("first").momentum == 0.99


def test_bad_input():
    two = [keras.Input((2,)), keras.Input((2,))]
    sum_of_two = keras.Model(two, layers.Add()(two))
    with pytest.raises(ValueError, match="as many examples.*arrays of 4, 3 examples"):
        calibrate(sum_of_two, [np.ones((4, 2)), np.ones((3, 2))])
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        calibrate(layers.Dense(2), data())
    with pytest.raises(ValueError, match="at least one batch"):
        calibrate(network(), data()[:0])
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1"):
        calibrate(network(), data(), batch_size=-1)
    with pytest.raises(ValueError, match="one array for each input of.*has 1.*2 arr"):
        calibrate(network(), [data(), data()])
    for wrong in (None, 5, "x", [1.0, 2.0], []):
        with pytest.raises(TypeError, match="`data` must be arrays, or batches"):
            calibrate(network(), wrong)


def test_nothing_that_is_no_number_is_kept():
    model = network()
    before = [np.array(w) for w in model.get_weights()]
    x = data()
    x[3] = np.nan
    with pytest.raises(ValueError, match="`data` must lead to statistics that are fin"):
        calibrate(model, x)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    gate = keras_l0.gates(model)[0]
    gate.raw.assign(np.full(gate.raw.shape, np.nan))
    with pytest.raises(ValueError, match="is NaN or infinite"):
        calibrate(model, data())
