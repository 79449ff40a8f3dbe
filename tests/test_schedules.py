"""Strengths over time: what schedules are, and that gates follow them in training."""

import keras
import numpy as np
import pytest

import keras_l0
from keras_l0.layers import L0Dense, L0Gate, L0SimpleRNN
from keras_l0.regularizers import L0
from keras_l0.schedules import Constant, Cubic, Linear

# Compiling a train step takes TensorFlow longer than running these few.
EAGER = keras.backend.backend() == "tensorflow"


def data(size=32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 6)).astype("float32")
    return x, x[:, :2] ** 2


def network(l0, calls=1, **options):
    x = keras.Input((6,))
    layer = L0Dense(6, activation="relu", l0=l0, name="gated")
    h = x
    for _ in range(calls):
        h = layer(h)
    model = keras.Model(x, keras.layers.Dense(2)(h))
    options = {"run_eagerly": EAGER, **options}
    model.compile(keras.optimizers.Adam(0.01), "mse", **options)
    return model


def gate(model):
    (found,) = keras_l0.gates(model)
    return found


def fit(model, epochs=1, **options):
    # Four training steps an epoch.
    return model.fit(
        *data(), batch_size=8, epochs=epochs, verbose=0, shuffle=False, **options
    ).history


# What a schedule is.


@pytest.mark.parametrize(
    "schedule, values",
    [
        (Constant(0.5), [0.5] * 6),
        (Constant(0.5, delay=3), [0, 0, 0.5, 0.5, 0.5, 0.5]),
        (Linear(0.8, 4), [0, 0.4, 0.6, 0.8, 0.8, 0.8]),
        (Linear(0.8, 4, delay=2), [0, 0, 0.2, 0.8, 0.8, 0.8]),
        (Cubic(0.8, 4), [0, 0.7, 0.7875, 0.8, 0.8, 0.8]),
        (Cubic(0.8, 4, delay=2), [0, 0, 0.4625, 0.8, 0.8, 0.8]),
    ],
    ids=str,
)
def test_values_by_hand(schedule, values):
    found = [float(schedule(step)) for step in (0, 2, 3, 6, 100, 2**24)]
    assert found == pytest.approx(values)
    assert L0(schedule).final == pytest.approx(schedule.l0)
    config = keras.saving.serialize_keras_object(L0(schedule, l2=0.1))
    again = keras.saving.deserialize_keras_object(config)
    assert (again.l0, again.l2) == (schedule, 0.1) and type(again.l0) is type(schedule)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Constant(-1.0), ValueError, "`l0` must be .*Received: l0=-1"),
        (lambda: Linear("1", 4), TypeError, "`l0` must be .*Received: l0='1'"),
        (lambda: Linear(1.0, 0), ValueError, "`steps` must be .*>= 1.*steps=0"),
        (lambda: Cubic(1.0, 2.5), TypeError, "`steps` must be .*steps=2.5"),
        (lambda: Cubic(1.0, 2, -1), ValueError, "`delay` must be .*>= 0.*delay=-1"),
        (lambda: L0(Linear), TypeError, "`l0` must be .*or a schedule.*Received"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


# In training.


@pytest.mark.parametrize("calls", [1, 2])
def test_a_step_counts_once_however_often_a_layer_is_called(calls):
    model = network(Linear(0.8, 8), calls)
    assert gate(model).strength == 0
    for step in (4, 8, 12):
        fit(model)
        assert gate(model).strength == pytest.approx(min(0.8, 0.1 * step))


@pytest.mark.parametrize("options", [{"run_eagerly": False}, {"jit_compile": True}])
def test_compiled(options):
    if keras.backend.backend() == "torch" and options.get("jit_compile"):
        pytest.skip("Keras does not do this on Torch")
    model = network(Linear(0.8, 8), **{"run_eagerly": False, **options})
    fit(model)
    assert gate(model).strength == pytest.approx(0.4)


def test_inside_of_wrappers():
    schedule = Linear(0.8, 8)
    x = keras.Input((3, 4))
    h = keras.layers.TimeDistributed(L0Dense(3, l0=schedule))(x)
    h = keras.layers.Bidirectional(L0SimpleRNN(2, l0=schedule))(h)
    model = keras.Model(x, h)
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 3, 4)), np.ones((8, 4)), batch_size=2, verbose=0)
    found = [one.strength for one in keras_l0.gates(model)]
    assert found == pytest.approx([0.4] * 3)


def test_each_step_is_charged_with_its_own_strength():
    schedule = Linear(0.8, 4, delay=1)
    model = network(schedule)
    model.optimizer.learning_rate = 0.0
    gate(model).assign_log_alpha(50.0)  # nothing is drawn, all is charged
    losses = model.fit(*data(), batch_size=32, epochs=7, verbose=0).history["loss"]
    charged = gate(model).cost * 6
    expected = [float(schedule(step)) * charged for step in range(7)]
    assert np.array(losses) - losses[0] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    # Evaluation charges what training has come to, and goes no further.
    found = [model.evaluate(*data(), verbose=0) for _ in range(2)]
    assert found == pytest.approx([losses[-1]] * 2)
    model.predict(data()[0], verbose=0)
    assert float(sum(model.losses)) == pytest.approx(expected[-1])


def test_a_frozen_gate_is_not_charged_and_waits():
    model = network(Linear(0.8, 8))
    gate(model).trainable = False
    model.compile("sgd", "mse", run_eagerly=EAGER)
    fit(model)
    assert gate(model).strength == 0 and not model.losses


def test_schedules_of_keras():
    model = network(keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.5, 2.0]))
    assert gate(model).strength == 0.5
    fit(model)
    assert gate(model).strength == 2.0


def test_saved_cloned_and_resumed(tmp_path):
    def train(model, epochs, *callbacks):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        fit(model, epochs, callbacks=[backup, *callbacks])

    class Interrupted(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    schedule = L0(Cubic(0.8, 20))
    model = network(schedule)
    fit(model, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert gate(loaded).regularizer.l0 == schedule.l0
    assert gate(loaded).strength == gate(model).strength > 0
    assert gate(keras.models.clone_model(model)).strength == 0
    with pytest.raises(KeyboardInterrupt):
        train(network(schedule), 3, Interrupted())
    resumed = network(schedule)
    train(resumed, 3)
    assert gate(resumed).strength == pytest.approx(float(schedule.l0(12)))


def test_wherever_a_number_goes():
    schedule = Linear(0.1, 4)
    model = keras.Sequential([keras.Input((4,), name="x")])
    model.add(keras.layers.Dense(3, activation="relu", name="first"))
    model.add(keras.layers.Dense(3, activation="relu", name="second"))
    model.add(keras.layers.Dense(2))
    gated = keras_l0.add_gates(model, {"first": schedule, "second": 0.2})
    found = [one.regularizer.l0 for one in keras_l0.gates(gated)]
    assert found == [schedule, 0.2]
    assert keras_l0.strip(gated).count_params() == model.count_params()
    with pytest.raises(ValueError, match="a strength or a budget.*l0=Linear"):
        keras_l0.add_gates(model, schedule, budget=keras_l0.Budget(params=0.5))
    # Of layers that share a mask, the strongest in the end.
    x = keras.Input((4,))
    a = keras.layers.Dense(4, name="a")(x)
    b = keras.layers.Dense(4, name="b")(x)
    y = keras.layers.Dense(2)(keras.layers.ReLU()(keras.layers.Add()([a, b])))
    gated = keras_l0.add_gates(keras.Model(x, y), {"a": schedule, "b": 0.05})
    assert gate(gated).regularizer.l0 == schedule
    shared = L0Gate(l0=schedule)
    model = keras.Sequential([keras.Input((4,)), shared])
    assert len(shared.weights) == 2 and shared.strength == 0
