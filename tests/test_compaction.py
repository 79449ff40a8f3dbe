"""Closed units leave a model while it trains, and nothing else changes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_l0
from keras_l0 import Budget, Compaction, GateOptions, compact, fit_compacting
from keras_l0.layers import (
    L0LSTM,
    L0Conv2D,
    L0Dense,
    L0DepthwiseConv2D,
    L0Gate,
    L0MultiHeadAttention,
)

EAGER = keras.backend.backend() == "tensorflow"
CLOSED = -30.0


def image_stack(**gate):
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L0Conv2D(8, 3, activation="relu", padding="same", **gate),
            layers.MaxPooling2D(),
            L0DepthwiseConv2D(3, activation="relu", padding="same", **gate),
            L0Conv2D(6, 3, activation="sigmoid", **gate),
            layers.Flatten(),
            layers.Dropout(0.0),
            L0Gate(**gate),
            L0Dense(10, activation="tanh", **gate),
            layers.Dense(3),
        ]
    )


def residual():
    x = inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for strides in (1, 2):
        options = {"padding": "same", "use_bias": False}
        h = layers.Conv2D(8, 3, strides, **options)(x)
        h = layers.ReLU()(layers.BatchNormalization()(h))
        h = layers.BatchNormalization()(layers.Conv2D(8, 3, **options)(h))
        if strides == 2:
            x = layers.BatchNormalization()(layers.Conv2D(8, 1, 2, **options)(x))
        x = layers.ReLU()(layers.Add()([x, h]))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def dense(budget=None, optimizer=None, l0=1e-3, name="dense"):
    stack = [keras.Input((8,)), L0Gate(l0=0.0 if budget else l0)]
    stack += [L0Dense(16, activation="relu", l0=0.0 if budget else l0, name="hidden")]
    stack += [L0Dense(12, activation="relu", l0=0.0 if budget else l0, name="second")]
    model = keras.Sequential([*stack, layers.Dense(3)], name=name)
    if budget:
        model = keras_l0.with_budget(model, budget)
    model.compile(optimizer or keras.optimizers.Adam(0.01), "mse", run_eagerly=EAGER)
    return model


def shaken(model, share=0.6, seed=0):
    """Weights and statistics far from where they start; a share of gates closed."""
    rng = np.random.default_rng(seed)
    for w in model.weights:
        if "variance" in w.path:
            w.assign(rng.uniform(0.1, 0.6, w.shape))
        elif "gamma" in w.path:
            w.assign(rng.uniform(0.5, 1.5, w.shape))
        elif any(name in w.path for name in ("bias", "beta", "moving_mean")):
            w.assign(rng.normal(0.2, 0.3, w.shape))
    for gate in keras_l0.gates(model):
        shut = rng.random(gate.raw.shape) < share
        shut.ravel()[:2] = False
        gate.assign_log_alpha(np.where(shut, CLOSED, rng.normal(2, 2, shut.shape)))
    return model


def images(n=16, shape=(8, 8, 2)):
    return 3 * np.random.default_rng(1).normal(size=(n, *shape)).astype("float32")


def data():
    x = images(48, (8,)) / 3
    return x, np.tanh(x[:, :3] * x[:, 3:6])


def array(x):
    return ops.convert_to_numpy(x)


def predict(model, x):
    return array(model(x, training=False))


def recurrent_stream(directions):
    x = keras.Input((5, 3))
    h = layers.Dense(8)(x)
    cells = layers.GRU(8 // directions, return_sequences=True)
    cells = layers.Bidirectional(cells) if directions == 2 else cells
    h = layers.Add()([h, cells(h)])
    model = keras.Model(x, layers.Dense(3)(layers.LSTM(6)(h)))
    return keras_l0.add_gates(model, l0=1e-3)


MODELS = {
    "recurrent": lambda: recurrent_stream(1),
    "directions": lambda: recurrent_stream(2),
    "stack": lambda: image_stack(l0=1e-3),
    "residual": lambda: keras_l0.add_gates(residual(), l0=1e-3),
    "budget": lambda: keras_l0.add_gates(residual(), budget=Budget(macs=0.5)),
}


def costly(*values):
    """Compiling it takes JAX long, and it would not find out more there."""
    return pytest.param(*values, marks=pytest.mark.tensorflow)


@pytest.mark.parametrize(
    "name, inputs",
    [
        ("stack", "gather"),
        costly("stack", "keep"),
        costly("residual", "keep"),
        costly("budget", "keep"),
    ],
)
def test_outputs_stay_and_strip_leaves_the_same(name, inputs):
    keras.utils.set_random_seed(0)
    model = shaken(MODELS[name](), share=0.5)
    before = [array(w).copy() for w in model.weights]
    x = images(shape=model.input_shape[1:])
    small = compact(model, inputs=inputs)
    expected, received = predict(model, x), predict(small, x)
    assert expected.std(axis=0).max() > 1e-2 * np.abs(expected).max()
    np.testing.assert_allclose(
        received, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )
    assert small.count_params() < 0.7 * model.count_params()
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, array(b))
    for gate in keras_l0.gates(small):
        assert (array(gate.log_alpha) > CLOSED).sum() >= 1
    stripped, again = (keras_l0.strip(m, inputs) for m in (model, small))
    assert [w.shape for w in stripped.weights] == [w.shape for w in again.weights]
    np.testing.assert_allclose(
        predict(again, x), predict(stripped, x), atol=1e-5 * np.abs(expected).max()
    )


def same_noise(monkeypatch):
    """All draws alike, however many there are."""
    monkeypatch.setattr(
        keras.random, "uniform",
        lambda shape, dtype=None, seed=None: ops.full(shape, 0.5, dtype=dtype),
    )  # fmt: skip


def rate():
    return keras.optimizers.schedules.CosineDecay(0.02, 10)


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(rate(), global_clipnorm=1.0),
    "momentum": lambda: keras.optimizers.SGD(
        0.01, momentum=0.9, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=4
    ),
    "adamw": lambda: keras_l0.exclude_from_weight_decay(
        keras.optimizers.AdamW(rate(), weight_decay=0.3, gradient_accumulation_steps=2)
    ),
}


@pytest.mark.parametrize("optimizer", ["adam", costly("momentum"), costly("adamw")])
def test_training_goes_on_to_the_same_weights(optimizer, monkeypatch):
    same_noise(monkeypatch)
    budget = Budget(params=0.5, ramp_steps=6) if optimizer == "adam" else None
    model = shaken(dense(budget, OPTIMIZERS[optimizer]()))
    options = {"batch_size": 24, "shuffle": False, "verbose": 0}
    model.fit(*data(), epochs=2, **options)
    small = compact(model)
    assert small.count_params() < 0.7 * model.count_params()
    for one in (model, small):
        one.fit(*data(), epochs=5, initial_epoch=2, **options)
    assert int(small.optimizer.iterations) == int(model.optimizer.iterations)
    closed = (array(keras_l0.gates(model)[1].log_alpha) < -20).sum()
    assert closed >= 6 and small.get_layer("hidden").units == 16 - closed
    kept = [
        np.flatnonzero(array(gate.log_alpha) > -20) for gate in keras_l0.gates(model)
    ]
    first, *rest = (array(w) for w in model.get_layer("hidden").weights)
    wanted = [first[kept[0]][:, kept[1]], *(w[kept[1]] for w in rest)]
    first, *rest = (array(w) for w in model.get_layer("second").weights)
    wanted += [first[kept[1]][:, kept[2]], *(w[kept[2]] for w in rest)]
    # Features that nobody reads stay under "keep".
    first, *rest = (array(w) for w in small.get_layer("hidden").weights)
    numbers = np.arange(8)[kept[0]]
    rest += [array(w) for w in small.get_layer("second").weights]
    assert len(first) in (8, len(numbers))
    received = [first[numbers] if len(first) == 8 else first, *rest]
    for a, b in zip(wanted, received, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=2e-6)
    x = images(16, (8,))
    np.testing.assert_allclose(predict(small, x), predict(model, x), atol=1e-5)
    if budget:
        assert small.multipliers == pytest.approx(model.multipliers, rel=1e-4)
        assert small.ramp == model.ramp and model.ramp[1] == 6


@pytest.mark.tensorflow
def test_statistics_train_on_alike(monkeypatch):
    same_noise(monkeypatch)
    model = shaken(keras_l0.add_gates(residual(), budget=Budget(macs=0.4)))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", run_eagerly=EAGER)
    x, y = images(), np.random.default_rng(2).normal(size=(16, 3))
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    model.fit(x, y, **options)
    small = compact(model)
    for one in (model, small):
        one.fit(x, y, epochs=3, initial_epoch=1, **options)
    scale = np.abs(predict(model, x)).max()
    np.testing.assert_allclose(predict(small, x), predict(model, x), atol=2e-5 * scale)
    assert small.multipliers == pytest.approx(model.multipliers, rel=1e-3)


def test_a_budget_stays_a_share_of_the_full_size(tmp_path):
    budget = Budget(params=0.4)
    model = shaken(dense(budget), share=0.5)
    small = compact(model)
    assert small.budgets == model.budgets and small.wide == model.wide
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    assert loaded.wide == model.wide
    sizes = [keras_l0.strip(m, budget=budget).count_params() for m in (model, loaded)]
    assert sizes[0] == sizes[1] <= 0.4 * keras_l0.profile(model).dense.params


def test_a_gate_costs_what_it_did():
    model = shaken(dense())
    small = compact(model)
    for old, new in zip(keras_l0.gates(model), keras_l0.gates(small), strict=True):
        # Features of the input stay under "keep".
        assert new.count <= old.count and new.cost == old.cost
    assert keras_l0.gates(small)[1].count < 16
    clone = keras.models.clone_model(small)
    assert keras_l0.gates(clone)[1].cost == keras_l0.gates(model)[1].cost == 9


def test_what_opens_now_and_then_stays():
    model = dense()
    gate = keras_l0.gates(model)[1]
    gate.assign_log_alpha([9.0] * 8 + [-3.0] * 4 + [-9.0] * 4)
    assert compact(model).get_layer("hidden").units == 12
    assert compact(model, max_open=0.3).get_layer("hidden").units == 8
    gate.trainable = False  # It is never drawn then.
    assert compact(model).get_layer("hidden").units == 8


def test_a_unit_that_training_would_move_stays():
    """Behind a gate, normalization learns what a closed channel is."""
    inputs = keras.Input((4,))
    x = L0Gate()(layers.Dense(6)(inputs))
    x = layers.Dense(2)(layers.BatchNormalization()(x))
    model = keras.Model(inputs, x)
    keras_l0.gates(model)[0].assign_log_alpha([9.0] * 3 + [CLOSED] * 3)
    assert keras_l0.strip(model).count_params() < model.count_params() - 6
    assert compact(model).count_params() == model.count_params()


def held_back(layer, shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.Dense(2)(layer(inputs)))


WHOLE = {
    "weights": (lambda: L0Dense(6, granularity="weights"), (8,), "several axes"),
    "inputs": (lambda: L0Dense(6, granularity="inputs"), (8,), "not only, those"),
    "matched": (
        lambda: L0Dense(6, gate_options=GateOptions(estimator="size_matched")),
        (8,), "how many there are",
    ),
    "wrapped": (lambda: layers.Bidirectional(L0LSTM(3)), (4, 8), "not only, those"),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
def test_what_cannot_be_cut_stays_and_is_named(case):
    make, shape, reason = WHOLE[case]
    model = held_back(make(), shape)
    for gate in keras_l0.gates(model):
        values = np.full(gate.raw.shape, 9.0)
        values.ravel()[2:] = CLOSED
        gate.assign_log_alpha(values)
    with pytest.warns(UserWarning, match=reason):
        small = compact(model)
    assert small.count_params() == model.count_params()
    x = images(4, shape)
    np.testing.assert_allclose(predict(small, x), predict(model, x), atol=1e-6)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "layer, shape",
    [
        (lambda: L0LSTM(6), (4, 5)),
        (lambda: layers.TimeDistributed(layers.Dense(6)), (4, 5)),
    ],
)
def test_recurrences_and_wrappers_are_cut_or_left(layer, shape):
    model = held_back(layer(), shape)
    model = shaken(model if keras_l0.gates(model) else keras_l0.add_gates(model))
    small = compact(model)
    x = images(4, shape)
    np.testing.assert_allclose(predict(small, x), predict(model, x), atol=1e-5)


@pytest.mark.tensorflow
def test_heads_are_cut():
    x = inputs = keras.Input((4, 8))
    x = L0MultiHeadAttention(4, 2)(x, x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    keras_l0.gates(model)[0].assign_log_alpha([9.0, CLOSED, CLOSED, 0.3])
    small = compact(model)
    assert keras_l0.gates(small)[0].count == 2
    x = images(4, (4, 8))
    np.testing.assert_allclose(predict(small, x), predict(model, x), atol=1e-5)


def test_a_layer_whose_rule_rescales_weights_stays_whole():
    if not hasattr(layers, "RMSNormalization"):
        return
    inputs = keras.Input((4,))
    x = L0Dense(8, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.RMSNormalization()(x)))
    keras_l0.gates(model)[0].assign_log_alpha([9.0] * 4 + [CLOSED] * 4)
    assert keras_l0.strip(model).count_params() < model.count_params() - 8
    assert compact(model).count_params() == model.count_params()


def test_a_layer_that_is_another_one_in_training_stays_whole():
    inputs = keras.Input((4,))
    x = layers.SpectralNormalization(layers.Dense(8, activation="relu"))(inputs)
    model = keras.Model(inputs, layers.Dense(2)(L0Gate()(x)))
    keras_l0.gates(model)[0].assign_log_alpha([9.0] * 4 + [CLOSED] * 4)
    small = compact(model)
    assert type(small.layers[1]) is layers.SpectralNormalization
    x = images(4, (4,))
    for _ in range(2):
        expected, received = (array(m(x, training=True)) for m in (model, small))
        np.testing.assert_allclose(received, expected, atol=1e-6)


def test_state_that_cannot_be_cut_is_an_error():
    model = shaken(dense(optimizer=keras.optimizers.Adafactor()))
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="one number for each weight.*Adafactor"):
        compact(model)


def test_weights_to_put_back_stay_whole_where_it_goes_wrong():
    model = shaken(dense(optimizer=keras.optimizers.Adafactor()))
    best = keras.callbacks.EarlyStopping(
        "loss", min_delta=1e9, patience=99, restore_best_weights=True
    )
    with pytest.warns(UserWarning, match="trains on with all its units"):
        history = fit_compacting(
            model, *data(), 48, 5, verbose=0, callbacks=[best],
            compaction=Compaction(patience=1),
        )  # fmt: skip
    assert history.model is model
    assert [w.shape for w in best.best_weights] == [w.shape for w in model.weights]


def test_a_run_outlives_what_goes_wrong(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("it disagrees")

    monkeypatch.setattr(keras_l0.compaction.training, "compacted", broken)
    model = shaken(dense())
    with pytest.warns(UserWarning, match="trains on with all its units: it disagrees"):
        history = fit_compacting(
            model, *data(), 48, 5, verbose=0, compaction=Compaction(patience=1)
        )
    assert history.model is model and len(history.epoch) == 5


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"max_open": 2.0}, ValueError),
        ({"inputs": "narrow"}, ValueError),
        ({"patience": 0}, ValueError),
        ({"times": 1.5}, TypeError),
        ({"min_saving": 0.0}, ValueError),
        ({"min_saving": "much"}, TypeError),
    ],
)
def test_options_are_checked(arguments, error):
    (name,) = arguments
    with pytest.raises(error, match=f"`{name}` must be"):
        Compaction(**arguments)


def test_a_model_without_gates_is_an_error():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="must have gates"):
        compact(model)
    with pytest.raises(ValueError, match="must have gates"):
        fit_compacting(model, np.ones((4, 4)))


@pytest.mark.parametrize("kind", ["Lamb", "Muon"])
def test_optimizers_that_look_at_whole_weights_are_refused(kind):
    if not hasattr(keras.optimizers, kind):
        pytest.skip("not in this version of Keras")
    model = shaken(dense(optimizer=getattr(keras.optimizers, kind)(0.01)))
    with pytest.raises(ValueError, match=f"each number of a weight.*Received: {kind}"):
        compact(model)


class Named(keras.optimizers.SGD):
    """It cannot be made again: its config lacks what it is made of."""

    def __init__(self, word, **kwargs):
        super().__init__(**kwargs)
        self.word = word


def test_an_optimizer_that_cannot_be_made_again():
    model = shaken(dense(optimizer=Named("so", learning_rate=0.01)))
    with pytest.warns(UserWarning, match="trains on with all its units: .*word"):
        history = fit_compacting(
            model, *data(), 48, 5, verbose=0, compaction=Compaction(patience=1)
        )
    assert history.model is model and len(history.epoch) == 5


class Counted:
    """A training step of one's own, with a setting, a layer and another model."""

    factor = 1.0

    def tell(self, other):
        self.factor, self.other, self._steps = 0.25, other, []
        self.front = self.get_layer("hidden")

    def train_step(self, *args):
        self._steps.append((self.factor, self.front.units))
        return super().train_step(*args)


class OfKeras(Counted, keras.Model):
    pass


class UnderBudget(Counted, keras_l0.BudgetedModel):
    pass


@pytest.mark.parametrize("kind", [OfKeras, UnderBudget])
def test_a_class_of_ones_own_stays_what_it_is(kind):
    plain = dense(Budget(params=0.3) if kind is UnderBudget else None)
    model = kind(plain.inputs[0], plain.outputs[0])
    other = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    other.trainable = False
    model.tell(other)
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=EAGER)
    history = fit_compacting(
        shaken(model), *data(), 48, 5, verbose=0, compaction=Compaction(patience=1)
    )
    small = history.model
    assert type(small) is kind and small is not model and small.other is other
    assert small.front is small.get_layer("hidden") is not model.front
    steps = {*model._steps, *small._steps}
    assert steps == {(0.25, 16), (0.25, small.front.units)}
    if kind is UnderBudget:
        assert small.budgets == model.budgets


def test_a_class_that_holds_what_has_no_counterpart_trains_on():
    inner = keras.Sequential([keras.Input((8,)), L0Dense(16), layers.Dense(8)])
    x = keras.Input((8,))
    model = OfKeras(x, layers.Dense(3)(L0Dense(6, name="hidden")(inner(x))))
    model.tell(inner)
    with pytest.raises(ValueError, match="have no counterpart.*'other'"):
        compact(shaken(model))


def test_an_interrupted_run_keeps_what_is_trained():
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 4:
                raise KeyboardInterrupt

    model = shaken(dense())
    with pytest.raises(KeyboardInterrupt) as caught:
        fit_compacting(
            model, *data(), 48, 8, verbose=0, callbacks=[Stop()],
            compaction=Compaction(patience=1),
        )  # fmt: skip
    assert "model.history.model" in caught.value.__notes__[0]
    trained = model.history.model
    assert trained.count_params() < model.count_params()
    assert int(trained.optimizer.iterations) == 4
    assert not model.stop_training


def test_units_that_averaged_weights_have_open_stay():
    optimizer = keras.optimizers.SGD(1e-4, use_ema=True, ema_momentum=0.999)
    model = shaken(dense(optimizer=optimizer))
    gate = keras_l0.gates(model)[1]
    is_open = array(gate.log_alpha) != CLOSED

    class Shut(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                gates = keras_l0.gates(self.model)
                gates[1].assign_log_alpha([9.0] * 4 + [CLOSED] * (gates[1].count - 4))

    history = fit_compacting(
        model, *data(), 48, 6, verbose=0, callbacks=[Shut()],
        compaction=Compaction(patience=1, min_saving=0.1, times=9),
    )  # fmt: skip
    assert history.model.get_layer("hidden").units >= is_open.sum()


@pytest.mark.tensorflow
def test_all_devices_stay():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        model = shaken(dense())
    small = compact(model)
    assert small.distribute_strategy is strategy
    kinds = {type(w.value) for w in (*small.weights, *small.optimizer.variables)}
    assert kinds == {type(model.weights[0].value)}


def test_over_several_processes_all_units_stay(monkeypatch):
    monkeypatch.setattr(keras_l0.devices, "processes", lambda: 2)
    model = shaken(dense())
    with pytest.raises(ValueError, match="`model` must lose units in one process"):
        compact(model)
    with pytest.warns(UserWarning, match="trains on with all its units"):
        fit_compacting(
            model, *data(), 48, 4, verbose=0, compaction=Compaction(patience=1)
        )


def test_a_budgeted_model_without_gates_trains():
    x = keras.Input((8,))
    model = keras_l0.BudgetedModel(x, layers.Dense(3)(x))
    model.compile("sgd", "mse", run_eagerly=EAGER)
    assert model.budgets == () and model.fit(*data(), verbose=0).history["loss"]


class Told(keras.callbacks.Callback):
    """Writes down what it is told."""

    def __init__(self):
        super().__init__()
        self.what, self.sizes = [], []

    def on_train_begin(self, logs=None):
        self.what.append("begin")

    def on_train_end(self, logs=None):
        self.what.append("end")

    def on_epoch_begin(self, epoch, logs=None):
        self.what.append(epoch)
        self.sizes.append(self.model.count_params())

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 4


def test_a_fit_that_compacts_is_one_training(tmp_path):
    model = shaken(dense(), share=0.7)
    told, density = Told(), keras_l0.callbacks.Density()
    saved = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    history = fit_compacting(
        model, *data(), batch_size=48, epochs=9, verbose=0, validation_split=0.25,
        callbacks=[told, density, saved],
    )  # fmt: skip
    small = history.model
    # Twice closed at the end of an epoch, then gone; and it is stopped early.
    assert told.what == ["begin", 0, 1, 2, 3, 4, "end"]
    assert history.epoch == [0, 1, 2, 3, 4]
    assert told.sizes[:2] == [model.count_params()] * 2
    assert told.sizes[2:] == [small.count_params()] * 3
    assert small.count_params() < 0.6 * model.count_params()
    assert {len(v) for v in history.history.values()} == {5}
    assert history.history["density"][0] < 0.6
    assert history.history["density"] == pytest.approx([0.33] * 5, abs=0.3)
    assert np.ptp(history.history["density"]) < 0.05
    assert int(small.optimizer.iterations) == 5
    assert small.history is history
    loaded = keras.models.load_model(tmp_path / "5.keras")
    assert loaded.count_params() == small.count_params()
    loaded = keras.models.load_model(tmp_path / "1.keras")
    assert loaded.count_params() == model.count_params()


def test_units_that_the_best_weights_need_stay():
    model = shaken(dense())
    gate = keras_l0.gates(model)[1]
    shut = array(gate.log_alpha) == CLOSED
    best = keras.callbacks.EarlyStopping(
        "loss", min_delta=1e9, patience=99, restore_best_weights=True
    )

    class Shut(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                for one in keras_l0.gates(self.model)[1:]:
                    one.assign_log_alpha([9.0] * 4 + [CLOSED] * (one.count - 4))

    history = fit_compacting(
        model, *data(), 48, 5, verbose=0, callbacks=[Shut(), best],
        compaction=Compaction(patience=1, min_saving=0.1, times=9),
    )  # fmt: skip
    # Of the first epoch, whose weights are put back, all that was open is there.
    assert history.model.get_layer("hidden").units == (~shut).sum()


def test_when_it_is_worth_it():
    x, y = data()
    for epochs, compaction, cut in (
        (2, Compaction(patience=1), False),  # What is left would not gain by it.
        (5, Compaction(patience=1, min_saving=0.95), False),
        (5, Compaction(patience=1), True),
    ):
        model = shaken(dense())
        history = fit_compacting(
            model, x, y, 48, epochs, verbose=0, compaction=compaction
        )
        assert (history.model is not model) == cut
        assert history.epoch == list(range(epochs))
    backup = keras.callbacks.BackupAndRestore("nowhere")
    with pytest.raises(ValueError, match="BackupAndRestore"):
        fit_compacting(model, x, y, callbacks=[backup])
    for wrong in (True, False):
        with pytest.raises(TypeError, match="`compaction` must be"):
            fit_compacting(model, x, y, compaction=wrong)
    with pytest.raises(TypeError, match="`fit_compacting` takes what .* 'epoch'"):
        fit_compacting(model, x, y, epoch=3)
