"""KerasTuner searches over budgets, as over any other number of a model."""

import keras
import numpy as np
import pytest

import keras_l0
from keras_l0.layers import L0Dense

keras_tuner = pytest.importorskip("keras_tuner")
if keras.backend.backend() == "tensorflow":
    pytest.importorskip("tensorboard")  # KerasTuner needs it there


def build(hp):
    layers = [L0Dense(16, activation="relu"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    share = hp.Choice("share", [0.3, 0.7])
    model = keras_l0.with_budget(model, keras_l0.Budget(params=share))
    eager = keras.backend.backend() == "tensorflow"  # compiling takes longer
    model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=eager)
    return model


def test_a_search_over_budgets(tmp_path):
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    tuner = keras_tuner.GridSearch(
        build, keras_tuner.Objective("density", "min"), directory=tmp_path
    )
    callbacks = [keras_l0.callbacks.Density()]
    tuner.search(x, x[:, :2] ** 2, batch_size=8, epochs=1, verbose=0,
                 callbacks=callbacks)  # fmt: skip
    trials = tuner.oracle.trials.values()
    tried = [trial.hyperparameters.get("share") for trial in trials]
    assert sorted(tried) == [0.3, 0.7]
    (best,) = tuner.get_best_hyperparameters()
    (model,) = tuner.get_best_models()
    assert model.budgets == (keras_l0.Budget(params=best.get("share")),)
    found = keras_l0.profile(model).deployed_density.params
    scores = [trial.score for trial in trials]
    assert min(scores) == pytest.approx(found) and found < 1
