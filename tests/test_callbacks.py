import keras
import numpy as np
import pytest
from keras import ops

import keras_l0
from keras_l0.callbacks import Density
from keras_l0.layers import L0Conv2D, L0Dense, L0Gate

# Compiling a train step takes TensorFlow longer than running these few.
QUICK = keras.backend.backend() == "tensorflow"
SHOWN = {"density", "params", "macs"}


def data(size=16, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 6, 6, 1)).astype("float32")
    return x, rng.normal(size=(size, 2)).astype("float32")


def network(l0=0.0, run_eagerly=QUICK, **compile_options):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L0Conv2D(4, 3, activation="relu", l0=l0),
            keras.layers.Flatten(),
            L0Dense(8, activation="relu", l0=l0),
            keras.layers.Dense(2),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01), "mse", run_eagerly=run_eagerly, **compile_options
    )
    return model


def half_closed(model):
    for gate in keras_l0.gates(model):
        log_alpha = np.where(np.arange(gate.count) % 2, 50.0, -50.0)
        gate.assign_log_alpha(log_alpha)
    return model


# Conv 4 and Dense 8: 2 filters of 9 + 1, 4 units of 4 * 4 * 2 + 1, 2 outputs of 4 + 1.
HALF = 2 * 10 + 4 * 33 + 2 * 5
FULL = 4 * 10 + 8 * 65 + 2 * 9


def test_values_by_hand():
    history = (
        half_closed(network())
        .fit(*data(), epochs=2, verbose=0, callbacks=[Density()])
        .history
    )
    assert set(history) == {"loss"} | SHOWN
    assert history["params"] == [HALF, HALF]
    assert history["density"] == pytest.approx([HALF / FULL] * 2)
    assert history["macs"] == [16 * 2 * 9 + 4 * 32 + 2 * 4] * 2
    for name, kind in (("params", int), ("macs", int), ("density", float)):
        assert all(type(value) is kind for value in history[name])


@pytest.mark.parametrize("inputs", ["keep", "gather"])
def test_what_is_shown_is_what_profile_says_after_each_epoch(inputs):
    profiles = []

    class Recorder(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            profiles.append(keras_l0.profile(self.model, inputs))

    model = network(l0=0.05)
    # Spread out, so that gates close one after the other.
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(np.linspace(-2.3, 3, gate.count))
    history = model.fit(
        *data(), batch_size=8, epochs=4, verbose=0,
        callbacks=[Density(inputs), Recorder()],
    ).history  # fmt: skip
    assert history["params"] == [p.deployed.params for p in profiles]
    assert history["macs"] == [p.deployed.macs for p in profiles]
    dense = profiles[0].dense.params
    assert dense == FULL
    assert history["density"] == pytest.approx([n / dense for n in history["params"]])
    assert history["params"][0] > history["params"][-1]
    stripped = keras_l0.strip(model, inputs)
    assert history["params"][-1] == stripped.count_params()


def test_expected_density_is_not_shown_for_deployed():
    model = network()
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(0.0)  # P = .83, and every test-time gate is .5
        gate.trainable = False
    history = model.fit(*data(), verbose=0, callbacks=[Density()]).history
    assert history["density"] == [1.0]


def test_training_is_the_same_with_and_without():
    def losses(callbacks, **options):
        keras.utils.set_random_seed(3)
        model = network(l0=1e-3, **options)
        return model.fit(
            *data(), batch_size=4, epochs=2, verbose=0, callbacks=callbacks,
            validation_data=data(8, seed=1),
        ).history  # fmt: skip

    for options in ({}, {"metrics": ["mae"]}):
        plain, shown = losses([], **options), losses([Density()], **options)
        assert set(shown) == set(plain) | SHOWN
        for name, values in plain.items():
            assert shown[name] == values


def test_evaluate_and_predict_are_left_alone(capsys):
    model, (x, y) = network(l0=1e-3, metrics=["mae"]), data()
    model.fit(x, y, verbose=0)
    capsys.readouterr()
    plain = model.evaluate(x, y, verbose=1)
    printed = capsys.readouterr().out
    model.fit(x, y, epochs=0, verbose=0, callbacks=[Density()])
    assert model.evaluate(x, y, verbose=0, callbacks=[Density()]) == plain
    assert list(model.evaluate(x, y, verbose=0, return_dict=True)) == ["loss", "mae"]
    assert [m.name for m in model.metrics] == ["loss", "compile_metrics"]
    model.predict(x, verbose=0, callbacks=[Density()])
    assert not any(name in printed for name in SHOWN)


@pytest.mark.parametrize("verbose", [1, 2])
def test_shows_in_the_progress_bar(verbose, capsys):
    half_closed(network()).fit(
        *data(), batch_size=4, epochs=2, verbose=verbose, callbacks=[Density()]
    )
    printed = capsys.readouterr().out
    assert printed.count(f"density: {HALF / FULL:.4f}") >= 2
    assert f"params: {HALF}" in printed and "macs: " in printed
    if verbose == 1:
        # While the first epoch runs, too.
        assert "density: " in printed.split("4/4")[0]


@pytest.mark.parametrize("verbose", [0, 1])
def test_validation(verbose, capsys):
    history = (
        half_closed(network())
        .fit(*data(), verbose=verbose, callbacks=[Density()], validation_data=data(8))
        .history
    )
    assert set(history) == {"loss", "val_loss"} | SHOWN


@pytest.mark.parametrize(
    "options",
    [
        {"run_eagerly": False, "steps_per_execution": 3},
        {"run_eagerly": False, "jit_compile": False},
        {"run_eagerly": True},
    ],
    ids=str,
)
def test_however_it_is_compiled(options):
    if keras.backend.backend() == "torch" and "steps_per_execution" in options:
        pytest.skip("one step per execution is all that Keras offers on Torch")
    history = (
        half_closed(network(**options))
        .fit(*data(), batch_size=2, epochs=2, verbose=1, callbacks=[Density()])
        .history
    )
    assert history["params"] == [HALF, HALF]


def test_other_callbacks_can_monitor_it(tmp_path):
    model = half_closed(network())
    path = str(tmp_path / "{epoch}-{params}-{density:.2f}.keras")
    callbacks = [
        Density(),
        keras.callbacks.EarlyStopping(monitor="density", mode="min", patience=2),
        keras.callbacks.ModelCheckpoint(
            path, monitor="params", mode="min", save_best_only=True
        ),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
    ]
    history = model.fit(*data(), epochs=9, verbose=0, callbacks=callbacks).history
    assert len(history["density"]) == 3
    saved = [p.name for p in tmp_path.glob("*.keras")]
    assert saved == [f"1-{HALF}-{HALF / FULL:.2f}.keras"]
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert SHOWN <= set(header.split(","))


def test_used_for_several_fits_and_models():
    density, model, other = Density(), half_closed(network()), network()
    assert model.fit(*data(), verbose=0, callbacks=[density]).history["params"] == [
        HALF
    ]
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(50.0)
    assert model.fit(*data(), verbose=0, callbacks=[density]).history["params"] == [
        FULL
    ]
    assert other.fit(*data(), verbose=0, callbacks=[density]).history["params"] == [
        FULL
    ]


def test_a_model_that_is_built_by_fit():
    model = keras.Sequential([L0Dense(3), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 5), "float32"), np.ones((4, 2), "float32")
    history = model.fit(x, y, verbose=0, callbacks=[Density()]).history
    assert history["params"] == [3 * 6 + 2 * 4]


def test_a_plain_model():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 5), "float32"), np.ones((4, 2), "float32")
    history = model.fit(x, y, verbose=0, callbacks=[Density()]).history
    assert history["density"] == [1.0] and history["params"] == [12]


def test_a_model_of_gates_alone():
    model = keras.Sequential([keras.Input((5,)), L0Gate()])
    model.compile("sgd", "mse")
    x = np.ones((4, 5), "float32")
    history = model.fit(x, x, verbose=0, callbacks=[Density()]).history
    assert history["density"] == [1.0] and history["params"] == [0]


def test_a_functional_model_with_input_gates():
    x = keras.Input((6,))
    gate = L0Gate(cost=4)
    h = L0Dense(4, activation="relu")(gate(x))
    model = keras.Model(x, keras.layers.Dense(2)(h))
    gate.assign_log_alpha([50.0, 50, 50, -50, -50, -50])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 6), "float32"), np.ones((4, 2), "float32")
    shown = [
        model.fit(x, y, verbose=0, callbacks=[Density(mode)]).history["params"][0]
        for mode in ("keep", "gather")
    ]
    assert shown == [6 * 4 + 4 + 4 * 2 + 2, 3 * 4 + 4 + 4 * 2 + 2]


def test_a_model_without_a_graph_says_so():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L0Dense(2)

        def call(self, x):
            return self.dense(x)

    net = Net()
    net.compile("sgd", "mse")
    with pytest.raises(ValueError, match="subclassed model"):
        net.fit(ops.ones((4, 2)), ops.ones((4, 2)), verbose=0, callbacks=[Density()])


def test_a_wrong_input_mode_says_so():
    with pytest.raises(ValueError, match="`inputs` must be one of.*Received"):
        network().fit(*data(), verbose=0, callbacks=[Density("drop")])


def test_a_budget_shows_its_multiplier():
    budget = keras_l0.Budget(params=0.5, ramp_steps=2)
    model = keras_l0.with_budget(network(), budget)
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=QUICK)
    history = model.fit(*data(), batch_size=4, verbose=0, callbacks=[Density()]).history
    assert set(history) == {"loss", "multiplier"} | SHOWN
    assert history["multiplier"] == [max(model.multipliers)]
    assert history["multiplier"][0] > 0


def test_other_callbacks_monitor_the_size(tmp_path):
    path = tmp_path / "smallest.keras"
    model = network(l0=0.5)
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(np.linspace(-2.3, 3, gate.count))
    callbacks = [
        Density(),
        keras.callbacks.ModelCheckpoint(
            path, monitor="params", mode="min", save_best_only=True
        ),
        keras.callbacks.EarlyStopping(monitor="macs", mode="min", patience=3),
    ]
    history = model.fit(
        *data(), batch_size=8, epochs=4, verbose=0, callbacks=callbacks
    ).history
    saved = keras_l0.profile(keras.models.load_model(path)).deployed.params
    assert saved == min(history["params"]) < history["params"][0]


@pytest.mark.tensorflow
def test_tensorboard_holds_the_gates(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorflow.python.summary.summary_iterator import summary_iterator

    model = half_closed(network())
    model.fit(
        *data(), verbose=0, callbacks=[keras_l0.callbacks.TensorBoard(str(tmp_path))]
    )
    (path,) = (tmp_path / "train").iterdir()
    tags = {v.tag for event in summary_iterator(str(path)) for v in event.summary.value}
    gate = keras_l0.gates(model)[0].path
    assert {"gates/params", "gates/macs", f"gates/{gate}/open"} <= tags
    assert f"gates/{gate}/log_alpha" in tags
    assert f"gates/{gate}/image" not in tags


@pytest.mark.tensorflow
@pytest.mark.parametrize("shape, wanted", [((4, 6), (4, 6)), ((25,), (5, 5))])
def test_tensorboard_shows_gates_on_inputs(shape, wanted, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorflow.python.summary.summary_iterator import summary_iterator

    flatten = keras.layers.Flatten() if len(shape) == 2 else keras.layers.Identity()
    stack = [flatten, keras_l0.layers.L0Gate(name="pixels"), L0Dense(7, name="hidden")]
    model = keras.Sequential([keras.Input(shape), *stack])
    model.compile("sgd", "mse")
    board = keras_l0.callbacks.TensorBoard(str(tmp_path), shapes={"hidden": (7, 1)})
    model.fit(np.ones((4, *shape)), np.ones((4, 7)), verbose=0, callbacks=[board])
    (path,) = (tmp_path / "train").iterdir()
    images = {
        value.tag: keras.ops.convert_to_numpy(
            keras.ops.array([int(x) for x in value.tensor.string_val[:2]])
        ).tolist()
        for event in summary_iterator(str(path))
        for value in event.summary.value
        if value.tag.endswith("/image")
    }
    path = keras_l0.gates(model)[0].path
    assert images[f"gates/{path}/image"] == [wanted[1], wanted[0]]
    assert len(images) == 2
    wrong = keras_l0.callbacks.TensorBoard(str(tmp_path), shapes={"pixels": (3, 3)})
    with pytest.raises(ValueError, match="`shapes` must give .*/pixels' a shape"):
        model.fit(np.ones((4, *shape)), np.ones((4, 7)), verbose=0, callbacks=[wrong])
