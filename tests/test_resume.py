"""An interrupted run goes on to the same numbers; NaN stops it with a name."""

import keras
import numpy as np
import pytest

import keras_l0
from keras_l0 import Budget, with_budget
from keras_l0.layers import L0Dense

EAGER = keras.backend.backend() == "tensorflow"


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6)).astype("float32")
    return x, x[:, :2] ** 2


def network(budget=True):
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [keras.Input((6,)), L0Dense(16, activation="relu"), keras.layers.Dense(2)]
    )
    if budget:
        model = with_budget(model, Budget(params=0.4))
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=EAGER)
    return model


class Interrupted(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def fit(model, folder, *callbacks):
    backup = keras.callbacks.BackupAndRestore(folder)
    return model.fit(
        *data(), batch_size=16, epochs=6, verbose=0, shuffle=False,
        callbacks=[backup, *callbacks],
    )  # fmt: skip


# After the fifth epoch of six a budget settles its gates.
@pytest.mark.parametrize("budget, epoch", [(True, 3), (True, 5), (False, 3)])
def test_a_resumed_run_ends_at_the_same_numbers(budget, epoch, tmp_path):
    whole = network(budget)
    fit(whole, tmp_path / "whole")
    broken = network(budget)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, tmp_path / "broken", Interrupted(epoch))
    resumed = network(budget)
    history = fit(resumed, tmp_path / "broken")
    assert history.epoch == list(range(epoch, 6))
    for a, b in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (a, b)))


def test_a_saved_gate_goes_on_drawing(tmp_path):
    model = network(budget=False)
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for gate in (*keras_l0.gates(model), *keras_l0.gates(loaded)):
        gate.assign_log_alpha(0.0)
    x = np.ones((4, 6), "float32")
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(m(x, training=True)) for m in (model, loaded))
    )


@pytest.mark.parametrize("budget", [True, False])
def test_a_gate_that_is_no_number_stops_the_run(budget):
    model = network(budget)
    gate = keras_l0.gates(model)[0]
    gate.raw.assign(np.full(16, np.nan))
    callbacks = [] if budget else [keras_l0.callbacks.Density()]
    with pytest.raises(ValueError, match=f"diverged: gate '{gate.path}'"):
        model.fit(*data(), verbose=0, callbacks=callbacks)
