"""What training may do to gates: bounds of log_alpha, and layers that never die."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_l0
from keras_l0 import Budget, GateOptions, HardConcrete
from keras_l0.layers import L0Dense, L0Gate

# Compiling a train step takes TensorFlow longer than running these few.
EAGER = keras.backend.backend() == "tensorflow"


def network(l0=10.0, units=8, **options):
    """A network whose gates all want to close."""
    layer = L0Dense(units, l0=l0, gate_options=GateOptions(**options))
    return keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(2)])


def trained(model, steps=8, eager=EAGER):
    model.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=eager)
    x = np.random.default_rng(0).normal(size=(8 * steps, 4)).astype("float32")
    model.fit(x, x[:, :2], batch_size=8, verbose=0)
    return ops.convert_to_numpy(keras_l0.gates(model)[0].log_alpha)


def still_open(model):
    return (ops.convert_to_numpy(keras_l0.gates(model)[0].test_gates) > 0).sum()


@pytest.mark.parametrize(
    "clamp, multiplier", [((-3.0, 4.0), 16.0), ([-2.5, 3], 10.0), (None, 16.0)]
)
def test_training_keeps_log_alpha_within_its_clamp(clamp, multiplier):
    options = {"clamp": clamp, "learning_rate_multiplier": multiplier}
    model = network(**options, min_units=0)
    low = trained(model)
    assert still_open(model) == 0
    if clamp is None:
        assert low.max() < -5
    else:
        np.testing.assert_allclose(low, clamp[0], atol=1e-5)
        # It still learns: the gradient there has not vanished.
        keras_l0.gates(model)[0].assign_log_alpha(99.0)
        assert trained(model, steps=1).max() <= clamp[1]


@pytest.mark.parametrize("estimator", ["deterministic", "median"])
@pytest.mark.parametrize("min_units", [0, 1, 3])
def test_a_layer_never_dies_whole(min_units, estimator):
    distribution = HardConcrete(beta=0.5, gamma=-0.4, zeta=1.2)
    model = network(min_units=min_units, estimator=estimator, distribution=distribution)
    trained(model)
    assert still_open(model) == min_units
    z = ops.convert_to_numpy(keras_l0.gates(model)[0].test_gates)
    np.testing.assert_allclose(z[z > 0], 0.5, atol=1e-5)


def test_the_likeliest_are_held():
    options = GateOptions(min_units=2)
    log_alpha = np.float32([[-3, -9], [4, -1], [-2, -7]])
    expected = np.float32([[-3, -9], [4, 0], [-2, -7]])
    found = ops.convert_to_numpy(options.bounded(ops.convert_to_tensor(log_alpha)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Equal ones are not all lifted.
    found = options.bounded(ops.convert_to_tensor(np.full(5, -9.0, "float32")))
    assert sum(np.isclose(ops.convert_to_numpy(found), 0, atol=1e-6)) == 2


def test_compiled():
    model = network()
    trained(model, eager=False)
    assert still_open(model) == 1


def test_a_gate_that_is_alone_may_close():
    model = network(units=1)
    trained(model)
    assert still_open(model) == 0


def test_frozen_gates_and_assigned_ones_are_left_alone():
    model = network(l0=0.0)
    gate = keras_l0.gates(model)[0]
    gate.trainable = False
    gate.assign_log_alpha(-9.0)
    assert set(trained(model, steps=1)) == {-9.0}


def test_a_budget_holds_as_many_as_it_says():
    model = network(l0=0.0, min_units=5, clamp=(-6, 6))
    model = keras_l0.with_budget(model, Budget(params=0.5, min_units=3))
    gate = keras_l0.gates(model)[0]
    assert gate.options == GateOptions(min_units=3, clamp=(-6, 6))
    gate.assign_log_alpha(-5.0)
    trained(model, steps=1)
    assert still_open(model) == 3


def test_where_a_gate_begins_to_be():
    for options in (GateOptions(), GateOptions(estimator="median")):
        gate = L0Gate(options=options)
        gate.build((None, 3))
        gate.assign_log_alpha([options.location(z) for z in (0.0, 0.5, 1.0)])
        found = ops.convert_to_numpy(gate.test_gates)
        np.testing.assert_allclose(found, [0, 0.5, 1], atol=1e-6)


def test_options_are_saved(tmp_path):
    model = network(clamp=[-5, 5], min_units=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    (gate,) = keras_l0.gates(loaded)
    assert gate.options == GateOptions(clamp=(-5.0, 5.0), min_units=2)
    trained(loaded)
    assert still_open(loaded) == 2


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"clamp": 5.0}, TypeError, "`clamp` must be a pair.*Received: clamp=5.0"),
        ({"clamp": "ab"}, TypeError, "`clamp` must be a pair"),
        ({"clamp": (-2.0, 5.0)}, ValueError, r"room to close, at .*-2.398.*\(-2.0, 5"),
        ({"clamp": (-5.0, 2.0)}, ValueError, "to start, at 2.997"),
        ({"clamp": (float("nan"), 5.0)}, ValueError, "`clamp` must be two finite"),
        ({"min_units": -1}, ValueError, "`min_units` must be .*min_units=-1"),
        ({"min_units": 1.5}, TypeError, "`min_units` must be .*min_units=1.5"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        GateOptions(**options)
