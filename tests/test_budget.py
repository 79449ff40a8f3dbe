"""Budgets: what they take, what they refuse, and that training keeps them."""

import fractions
import functools
import warnings

import keras
import numpy as np
import pytest

import keras_l0
from keras_l0 import Budget, with_budget
from keras_l0.budget.constraints import Constraints
from keras_l0.layers import L0Conv2D, L0Dense, L0Gate
from keras_l0.regularizers import L0


def data(size=512, seed=0):
    """Ten inputs, of which two matter."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 10)).astype("float32")
    return x, np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 0]], 1).astype("float32")


def network(name="net"):
    return keras.Sequential(
        [
            keras.Input((10,)),
            L0Dense(40, activation="relu"),
            L0Dense(40, activation="relu"),
            keras.layers.Dense(2),
        ],
        name=name,
    )


def density(model, measure="params"):
    profile = keras_l0.profile(model)
    return getattr(profile.deployed, measure) / getattr(profile.dense, measure)


def train(model, epochs=30, optimizer=None, initial_epoch=0, **options):
    model.compile(optimizer or keras.optimizers.Adam(0.01), "mse", **options)
    when = {"epochs": epochs, "initial_epoch": initial_epoch}
    return model.fit(*data(), batch_size=64, verbose=0, **when).history


# What a budget is.


@pytest.mark.parametrize("name", ["params", "macs", "bytes"])
@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, 1.5, float("nan"), float("inf")])
def test_amounts_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
        Budget(**{name: value})


@pytest.mark.parametrize("value", ["0.1", True, [0.1]])
def test_amounts_of_another_type(value):
    with pytest.raises(TypeError, match="`params` must be .*Received: params="):
        Budget(params=value)


def test_numbers_of_any_kind_mean_what_those_of_python_mean():
    assert Budget(params=np.float32(0.5)).limits == Budget(params=0.5).limits
    assert type(Budget(macs=np.int64(900)).macs) is int
    assert type(Budget(macs=fractions.Fraction(1, 2)).macs) is float


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({}, ValueError, "must limit `params`, `macs`, `bytes` or"),
        ({"params": 0.5, "inputs": "drop"}, ValueError, "`inputs` must be one of"),
        ({"params": 0.5, "layers": 3}, TypeError, "`layers` must be names"),
        ({"bytes": 9000, "layers": "a"}, ValueError, "`bytes` must be None"),
        ({"bytes": 9000, "quantization": "int4"}, ValueError, "`quantization` must be"),
        ({"params": 0.5, "min_units": -1}, ValueError, "`min_units` must be"),
        ({"params": 0.5, "ramp_steps": -1}, ValueError, "`ramp_steps` must be"),
        ({"params": 0.5, "ramp_steps": 1.5}, TypeError, "`ramp_steps` must be"),
    ],
)
def test_other_options(options, error, message):
    with pytest.raises(error, match=message):
        Budget(**options)


def test_config_round_trip():
    budget = Budget(params=0.2, macs=1000, layers=["a", "b"], ramp_steps=7)
    config = keras.saving.serialize_keras_object(budget)
    assert keras.saving.deserialize_keras_object(config) == budget
    assert budget.limits == {"params": 0.2, "macs": 1000}
    assert Budget(params=0.2, layers="a").layers == ("a",)


# What `with_budget` refuses, before anything is trained.


def test_no_gates():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="plain")
    with pytest.raises(ValueError, match="must have gates.*'plain'.*add_gates"):
        with_budget(model, Budget(params=0.5))


def test_strength_and_budget_on_one_gate():
    model = keras.Sequential([keras.Input((3,)), L0Dense(4, l0=1e-3, name="first")])
    with pytest.raises(ValueError, match="a strength or a budget.*l0=0.001.*first"):
        with_budget(model, Budget(params=0.5))


def test_frozen_gates():
    model = network()
    for gate in keras_l0.gates(model):
        gate.trainable = False
    with pytest.raises(ValueError, match="frozen"):
        with_budget(model, Budget(params=0.5))


def test_what_is_no_budget():
    with pytest.raises(TypeError, match="`budget` must be a `keras_l0.Budget`"):
        with_budget(network(), 0.1)
    with pytest.raises(ValueError, match="`layers` must name at least one layer"):
        Budget(params=0.5, layers=[])
    with pytest.raises(ValueError, match=r"`quantization` must be one of.*\['int8'\]"):
        Budget(bytes=5000, quantization=["int8"])
    assert Budget(params=0.5, layers=(name for name in "ab")).layers == ("a", "b")
    with pytest.raises(ValueError, match="`layers` must name layers.*'typo'"):
        with_budget(network(), Budget(params=0.5, layers=["typo"]))
    with pytest.raises(ValueError, match="without any macs"):
        model = keras.Sequential([keras.Input((4,)), L0Dense(4), keras.layers.ReLU()])
        with_budget(model, Budget(macs=0.5, layers=[model.layers[-1].name]))


def test_unreachable_names_the_floor_and_its_barriers():
    x = keras.Input((4,))
    h = L0Dense(16)(x)
    h = keras.layers.LayerNormalization(name="norm")(h)
    model = keras.Model(x, keras.layers.Dense(16)(h), name="walled")
    # 4 * 16 + 16, 2 * 16, and 16 * 16 + 16, of which all stays.
    with pytest.raises(ValueError) as error:
        with_budget(model, Budget(params=0.5))
    # Most of it is what the barrier keeps.
    assert "384 parameters (100.0%) stay (most in 'dense" in str(error.value)
    assert "'norm' (its mean and variance are over all channels" in str(error.value)
    assert "Received: params=0.5" in str(error.value)
    with_budget(model, Budget(params=1.0))


def test_the_largest_of_two_floors_counts():
    budgets = [Budget(params=0.1, min_units=1), Budget(macs=0.9, min_units=30)]
    with pytest.raises(ValueError, match="With 30 of its units left.*params=0.1"):
        with_budget(network(), budgets)


def test_what_strip_has_to_leave_is_a_part_of_the_floor():
    model = with_budget(network(), Budget(params=0.5))
    first = model.layers[1].name
    with pytest.raises(ValueError, match="With 30 of its units left in each gated la"):
        keras_l0.strip(model, budget=Budget(params=0.05), min_units=30)
    with pytest.raises(ValueError, match=f"layer, all of '{first}', ") as error:
        keras_l0.strip(model, budget=Budget(params=0.1), keep=[first])
    assert "' 0" not in str(error.value)
    with pytest.raises(TypeError, match="names of layers, strings. Received: keep=No"):
        keras_l0.strip(model, keep=None)


def test_min_units_of_strip_hold_no_gates_of_inputs():
    model = keras.Sequential(
        [
            keras.Input((40,)),
            L0Dense(8, activation="relu", granularity="inputs"),
            L0Dense(8, activation="relu"),
            keras.layers.Dense(2),
        ]
    )
    floor = (1 * 8 + 8) + (8 * 4 + 4) + (4 * 2 + 2)
    budget = Budget(params=floor, inputs="gather")
    small = keras_l0.strip(model, budget=budget, min_units=4)
    assert small.count_params() == floor
    with pytest.raises(ValueError, match=f"With 4 of its units left.* {floor} param"):
        keras_l0.strip(
            model, budget=Budget(params=floor - 1, inputs="gather"), min_units=4
        )


def test_frozen_gates_are_named_as_a_reason():
    model = network()
    keras_l0.gates(model)[0].trainable = False
    with pytest.raises(ValueError, match="layer, frozen ones as they are, 485 param"):
        with_budget(model, Budget(params=0.1))


def test_gates_that_are_no_numbers():
    model = network()
    gate = keras_l0.gates(model)[0]
    gate.raw.assign(np.full(40, np.nan))
    with pytest.raises(ValueError, match=f"gate '{gate.path}'.*is NaN or infinite"):
        with_budget(model, Budget(params=0.5))


def test_an_absolute_floor():
    floor = (10 + 1) + (1 + 1) + (2 + 2)
    with_budget(network(), Budget(params=floor))
    with pytest.raises(ValueError, match=f"{floor} parameters .*none: what has no"):
        with_budget(network(), Budget(params=floor - 1))


def test_a_floor_in_bytes():
    # Frame and three calls; 17 weights of 4 bytes stay of 2162.
    floor, full = 850 + 3 * 250 + 4 * 17, 850 + 3 * 250 + 4 * 2162
    with pytest.raises(ValueError) as error:
        with_budget(network(), Budget(bytes=1000))
    said = f"{floor:,} bytes, by estimate, ({floor / full:.1%}) stay"
    assert said in str(error.value)
    assert str(error.value).endswith("Received: bytes=1000")


@pytest.mark.tensorflow
@pytest.mark.parametrize("quantization", [None, "float16", "dynamic", "int8"])
@pytest.mark.parametrize("widths", [(20,), (40, 40), (8, 8, 8, 8), (16, 32)])
def test_estimates_of_bytes_are_near_the_file(widths, quantization, tmp_path):
    if len(widths) == 2 and widths[1] == 32:
        shape, kind, more = (12, 12, 1), functools.partial(L0Conv2D, kernel_size=3), [
            keras.layers.GlobalAveragePooling2D()
        ]  # fmt: skip
    else:
        shape, kind, more = (10,), L0Dense, []
    hidden = [kind(width, activation="relu") for width in widths]
    model = keras.Sequential(
        [keras.Input(shape), *hidden, *more, keras.layers.Dense(2)]
    )
    budget = Budget(bytes=100_000, quantization=quantization)
    (one,) = Constraints(model, [budget]).each
    x = np.random.default_rng(0).normal(size=(32, *shape)).astype("float32")
    for share in (1.0, 0.5):
        for gate in keras_l0.gates(model):
            shut = int((1 - share) * gate.count)
            gate.assign_log_alpha([-9.0] * shut + [9.0] * (gate.count - shut))
        file = keras_l0.to_tflite(
            model, tmp_path / "x.tflite", quantization, x, max_error=9.0
        )
        estimate = one.amount(one.share(one.analysis.test_open()))
        assert estimate == pytest.approx(file.bytes, rel=0.2, abs=600)


def test_more_units_than_there_are_hold_everything():
    with pytest.raises(ValueError, match="With 40 of its units.*100.0%"):
        with_budget(network(), Budget(params=0.9, min_units=40))


def test_a_schedule_and_a_budget_on_one_gate():
    l0 = keras_l0.schedules.Linear(1e-3, steps=10)
    model = keras.Sequential([keras.Input((3,)), L0Dense(4, l0=l0, name="first")])
    with pytest.raises(ValueError, match="a strength or a budget.*l0=Linear.*first"):
        with_budget(model, Budget(params=0.5))


def test_macs_of_unknown_sizes():
    stack = [L0Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential(
        [keras.Input((None, None, 2), name="image"), *stack, keras.layers.Dense(2)]
    )
    with pytest.warns(UserWarning, match="one position along axes.*Give sizes to 'ima"):
        with_budget(model, Budget(macs=0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with_budget(model, Budget(params=0.5))


def test_nothing_that_could_be_gated():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="plain")
    with pytest.warns(UserWarning, match="can be gated"):
        with pytest.raises(ValueError, match="must have gates.*'plain'"):
            keras_l0.add_gates(model, budget=Budget(params=0.5))


# What it returns.


def two_outputs():
    x = keras.Input((4,), name="features")
    h = L0Dense(6, activation="relu", name="shared")(x)
    outputs = {name: keras.layers.Dense(2, name=name)(h) for name in ("a", "b")}
    return keras.Model({"features": x}, outputs, name="two")


@pytest.mark.parametrize("build", [network, two_outputs])
def test_a_copy_with_the_same_names_and_weights(build):
    model = build()
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(np.linspace(-3, 3, gate.count))
    before = [w.copy() for w in model.get_weights()]
    copy = with_budget(model, Budget(params=0.5))
    inputs = keras.tree.map_structure(
        lambda t: np.ones((3, *t.shape[1:]), "float32"), copy.input
    )
    for old, new in zip(
        keras.tree.flatten(model.predict(inputs, verbose=0)),
        keras.tree.flatten(copy.predict(inputs, verbose=0)),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)
    names = [layer.name for layer in model.layers]
    assert [layer.name for layer in copy.layers][-len(names) :] == names
    # A multiplier, two numbers of the ramp; of each gate its price and its side.
    assert copy.count_params() - model.count_params() == 3 + 2 * sum(
        gate.count for gate in keras_l0.gates(model)
    )
    assert copy.name == model.name
    if isinstance(copy.output, dict):
        assert copy.output_names == model.output_names == ["a", "b"]
        assert set(copy.output) == set(model.output)
    for weight in copy.weights:
        weight.assign(weight + 1)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not any(g.regularizer.get_config().get("budgets")
                   for g in keras_l0.gates(model))  # fmt: skip


def test_an_expected_l2_norm_is_charged_as_ever():
    layers = [L0Dense(4, l0=L0(l2=0.1)), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((10,)), *layers])
    budgeted = with_budget(model, Budget(params=0.5))
    assert float(sum(budgeted.losses)) == float(sum(model.losses)) > 0
    clone = keras.models.clone_model(budgeted)
    assert keras_l0.gates(clone)[0].regularizer.l2 == 0.1


def test_losses_by_output_name():
    model = with_budget(two_outputs(), Budget(params=0.5))
    model.compile("adam", {"a": "mse", "b": "mae"})
    x = {"features": np.ones((8, 4), "float32")}
    y = {name: np.ones((8, 2), "float32") for name in "ab"}
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"][-1])


def test_plan_profile_strip_and_a_model_around_it():
    model = with_budget(network(), Budget(params=0.5))
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(np.where(np.arange(gate.count) % 2, 5.0, -5.0))
    size = keras_l0.profile(model).deployed
    assert keras_l0.plan(model).after == size
    stripped = keras_l0.strip(model)
    assert stripped.count_params() == size.params
    assert not type(stripped).__module__.startswith("keras_l0")
    x = keras.Input((10,))
    outer = keras.Model(x, keras.layers.Dense(1)(model(x)))
    assert keras_l0.strip(outer).count_params() == size.params + 3


# Training.


@pytest.mark.parametrize("limit", [{"params": 0.1}, {"macs": 250}])
def test_training_keeps_the_budget(limit):
    model = with_budget(network(), Budget(**limit))
    losses = train(model)["loss"]
    ((measure, wanted),) = limit.items()
    full = getattr(keras_l0.profile(model).dense, measure)
    wanted = wanted / full if isinstance(wanted, int) else wanted
    assert density(model, measure) == pytest.approx(wanted, abs=0.04)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": lambda: keras.optimizers.SGD(0.05, momentum=0.9)},
        {"optimizer": lambda: keras.optimizers.AdamW(0.01, global_clipnorm=1.0)},
        {
            "optimizer": lambda: keras.optimizers.Adam(
                0.02, gradient_accumulation_steps=2
            )
        },
        {"steps_per_execution": 4},
        {"jit_compile": True},
    ],
    ids=["sgd", "clipped", "accumulated", "several_steps", "jit"],
)
def test_any_way_of_training(options):
    options = dict(options)
    if keras.backend.backend() == "torch" and (
        options.get("jit_compile") or options.get("steps_per_execution")
    ):
        pytest.skip("Keras does not do this on Torch")
    optimizer = options.pop("optimizer", lambda: None)()
    model = with_budget(network(), Budget(params=0.3))
    train(model, optimizer=optimizer, **options)
    assert 0.2 < density(model) <= 0.34


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_any_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = with_budget(network(), Budget(params=0.3))
    train(model)
    assert 0.2 < density(model) <= 0.34


def test_a_budget_for_some_layers():
    model = network()
    first, second = (layer.name for layer in model.layers[:2])
    model = with_budget(
        model, [Budget(params=0.4, layers=[first]), Budget(macs=0.2, layers=[second])]
    )
    train(model, epochs=40)
    layers = {layer.name: layer for layer in keras_l0.profile(model).layers}
    shares = [
        layers[first].deployed.params / layers[first].dense.params,
        layers[second].deployed.macs / layers[second].dense.macs,
    ]
    assert shares[0] <= 0.45 and shares[1] <= 0.25 and len(model.multipliers) == 2


def test_frozen_gates_are_counted_but_stay():
    model = network()
    keras_l0.gates(model)[0].trainable = False
    model = with_budget(model, Budget(params=0.5))
    train(model)
    assert [layer.kept for layer in keras_l0.profile(model).layers][0] == 40
    assert density(model) <= 0.53


def slow(estimator):
    """A compiled model under a budget, whose gates hardly learn."""
    options = keras_l0.GateOptions(learning_rate_multiplier=1e-3, estimator=estimator)
    stack = [
        keras.Input((10,)),
        *(L0Dense(40, "relu", gate_options=options) for _ in range(2)),
        keras.layers.Dense(2),
    ]
    model = with_budget(keras.Sequential(stack), Budget(params=0.5))
    # Under Adam they would be as fast as the limit needs.
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


ESTIMATORS = pytest.mark.parametrize(
    "estimator", ["deterministic", "median", "size_matched"]
)


@ESTIMATORS
def test_room_under_the_limit_is_filled(estimator):
    model = slow(estimator)
    rng = np.random.default_rng(0)
    for gate in keras_l0.gates(model):
        # Most are closed at test time and now and then open in training.
        log_alpha = rng.normal(-3.0, 0.3, gate.count)
        log_alpha[:6], log_alpha[-6:] = 3.0, -9.0
        gate.assign_log_alpha(log_alpha)
    before = density(model)
    model.fit(*data(128), batch_size=64, epochs=8, verbose=0)
    if estimator == "size_matched":  # As many are open as are expected to be.
        assert density(model) == pytest.approx(before, abs=0.02)
        return
    assert before < 0.1 and 0.48 < density(model) <= 0.5
    for gate in keras_l0.gates(model):
        z = keras.ops.convert_to_numpy(gate.test_gates)
        assert (z[:6] == 1).all() and (z[-6:] == 0).all() and 0.4 < z.max()


@pytest.mark.parametrize("momentum", [0.99, 0.999])
def test_averages_of_weights_do_not_undo_it(momentum):
    model = with_budget(network(), Budget(params=0.3))
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=momentum)
    train(model, epochs=8, optimizer=optimizer)
    assert density(model) <= 0.3


@pytest.mark.parametrize("seed", range(3))
def test_the_last_epochs_open_nothing(seed):
    keras.utils.set_random_seed(seed)
    model = with_budget(network(), Budget(params=0.5))
    train(model, epochs=12, optimizer=keras.optimizers.Adam(1e-3))
    assert density(model) <= 0.5


@pytest.mark.parametrize("batch_size, epochs", [(128, 10), (256, 20)])
def test_what_is_settled_stays(batch_size, epochs):
    # Multipliers and the moments of Adam are still large when gates are settled.
    model = with_budget(network(), Budget(params=0.4))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    shares = []
    noted = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: shares.append(density(model))
    )
    x, y = data()
    model.fit(x, y, batch_size, epochs, verbose=0, callbacks=[noted])
    settled = shares[-1 - epochs // 4 :]
    assert len(set(settled)) == 1 and 0.38 < settled[0] <= 0.4


def test_averages_that_come_back_while_it_trains_open_nothing():
    model = with_budget(network(), Budget(params=0.3))
    optimizer = keras.optimizers.Adam(
        0.01, use_ema=True, ema_momentum=0.999, ema_overwrite_frequency=4
    )
    model.compile(optimizer, "mse")
    shares = []
    noted = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: shares.append(density(model))
    )
    model.fit(*data(), batch_size=64, epochs=8, verbose=0, callbacks=[noted])
    assert max(shares[-2:]) <= 0.3 and density(model) <= 0.3


def test_a_training_that_goes_on_after_its_end_draws_again():
    model = slow("deterministic")
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(-1.0)
    fit = functools.partial(model.fit, *data(128), batch_size=64, verbose=0)
    drawn = []
    noted = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: drawn.append(draws(model))
    )
    fit(epochs=2, callbacks=[noted])
    assert not model.settled and draws(model)
    fit(epochs=14, initial_epoch=2, callbacks=[noted])
    assert drawn[2:] == 8 * [True] + 4 * [False]


@ESTIMATORS
def test_what_is_over_the_limit_closes_for_good_before_the_end(estimator):
    model = slow(estimator)
    shares = []
    noted = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: shares.append(density(model))
    )
    fit = functools.partial(model.fit, *data(128), batch_size=64, verbose=0)
    fit(epochs=8, callbacks=[noted])
    assert set(shares[:5]) == {1.0}
    # Gates that are closed stay closed: this learning rate would never open them.
    assert len(set(shares[5:])) == 1 and 0.45 < shares[-1] <= 0.5
    assert model.budgets[0].limits == {"params": 0.5}


def test_closing_leaves_frozen_gates_and_those_that_are_held():
    options = keras_l0.GateOptions(learning_rate_multiplier=1e-3)
    stack = [
        keras.Input((10,)),
        *(L0Dense(40, "relu", gate_options=options) for _ in range(2)),
        keras.layers.Dense(2),
    ]
    model = with_budget(keras.Sequential(stack), Budget(params=0.3, min_units=12))
    first, second = keras_l0.gates(model)
    # Those that are held are the likeliest, and still less likely than others' open.
    first.assign_log_alpha([0.2] * 12 + [-9.0] * 28)
    train(model, epochs=6, optimizer=keras.optimizers.SGD(1e-4))
    kept = [row.kept for row in keras_l0.profile(model).layers]
    assert kept[0] == 12 and 12 <= kept[1] < 40 and density(model) <= 0.3
    first.trainable = False
    first.assign_log_alpha(9.0)
    second.assign_log_alpha(9.0)
    with pytest.warns(UserWarning, match="trains on above its budget"):
        history = train(model, epochs=8, optimizer=keras.optimizers.SGD(1e-4))
    assert len(history["loss"]) == 8 and density(model) > 0.3


def test_a_short_training_closes_before_its_last_epoch():
    model = with_budget(network(), Budget(params=0.5))
    train(model, epochs=2, optimizer=keras.optimizers.SGD(1e-6))
    assert density(model) <= 0.5


def draws(model):
    """Whether gates are drawn in training."""
    x = data(8)[0]
    first, second = (
        keras.ops.convert_to_numpy(model(x, training=training))
        for training in (True, False)
    )
    return not np.allclose(first, second, atol=1e-6)


@ESTIMATORS
def test_the_last_quarter_trains_what_is_deployed(estimator):
    model = slow(estimator)
    rng = np.random.default_rng(0)
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(rng.normal(-2, 1, 40))
    fit = functools.partial(model.fit, *data(128), batch_size=64, verbose=0)
    drawn = []
    noted = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: drawn.append(draws(model))
    )
    fit(epochs=8, callbacks=[noted])
    assert drawn == 5 * [True] + 3 * [False]
    for gate in keras_l0.gates(model):
        closed = keras.ops.convert_to_numpy(gate.test_gates) == 0
        shut = keras.ops.convert_to_numpy(gate.prob_open) < 1e-6
        # Size-matched gates are open as many as would be, and go if others go.
        none = np.zeros(40, bool)
        np.testing.assert_array_equal(
            shut, none if estimator == "size_matched" else closed
        )
    drawn.clear()
    fit(epochs=1, callbacks=[noted])
    fit(epochs=2, initial_epoch=1, callbacks=[noted])
    assert drawn == [True, True]


def test_normalizations_end_with_the_statistics_of_what_is_deployed():
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3))
    h = keras.layers.Conv2D(24, 3, padding="same", activation="relu")(x)
    for _ in range(2):
        y = keras.layers.Conv2D(24, 3, padding="same", use_bias=False)(h)
        y = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.8)(y))
        y = keras.layers.Conv2D(24, 3, padding="same", use_bias=False)(y)
        y = keras.layers.BatchNormalization(momentum=0.8)(y)
        h = keras.layers.ReLU()(keras.layers.Add()([h, y]))
    h = keras.layers.GlobalAveragePooling2D()(h)
    plain = keras.Model(x, keras.layers.Dense(2)(h))
    slow = keras_l0.GateOptions(learning_rate_multiplier=1e-3)
    model = keras_l0.add_gates(plain, budget=Budget(macs=0.3), gate_options=slow)
    rng = np.random.default_rng(0)
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(rng.normal(-2, 1, gate.count))
    images = rng.normal(1, 2, size=(64, 8, 8, 3)).astype("float32")
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    model.fit(images, np.ones((64, 2)), batch_size=64, epochs=80, verbose=0)
    small = keras_l0.strip(model)
    found = small.predict(images, verbose=0)
    expected = keras_l0.calibrate(small, images).predict(images, verbose=0)
    assert np.abs(found - expected).max() < 0.1 * np.ptp(expected)


def test_convolutions():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L0Conv2D(16, 3, activation="relu"),
            keras.layers.Conv2D(16, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            L0Gate(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    model = with_budget(model, Budget(macs=0.3))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8, 8, 1)).astype("float32")
    y = np.stack([x[:, 2:6, 2:6].mean((1, 2, 3)), (x**2).mean((1, 2, 3))], 1)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, y, batch_size=32, epochs=20, verbose=0)
    assert density(model, "macs") == pytest.approx(0.3, abs=0.08)


def test_the_likeliest_gates_are_free():
    model = with_budget(network(), Budget(params=0.5, ramp_steps=1, min_units=3))
    rng = np.random.default_rng(0)
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(rng.normal(4, 1, 40))
    model._set_ramp(9.0, 1)
    model(data(8)[0], training=True)
    prices = np.split(keras.ops.convert_to_numpy(model._prices), 2)
    for gate, found in zip(keras_l0.gates(model), prices, strict=True):
        p = keras.ops.convert_to_numpy(gate.prob_open)
        assert set(np.flatnonzero(found == 0)) == set(np.argsort(p)[-3:])
        assert found.min() == 0 and model.multipliers[0] > 0


def test_the_price_of_a_unit_is_what_its_removal_saves():
    # Also where all layers of a residual stream share its gate.
    image = x = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(12, 3, padding="same", activation="relu")(x)
    for _ in range(2):
        h = keras.layers.Conv2D(6, 3, padding="same", activation="relu")(x)
        h = keras.layers.Conv2D(12, 3, padding="same")(h)
        x = keras.layers.ReLU()(keras.layers.Add()([x, h]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    plain = keras.Model(image, keras.layers.Dense(2)(x))
    budget = Budget(params=0.5, ramp_steps=1, min_units=0)
    model = keras_l0.add_gates(plain, budget=budget)
    model._set_ramp(9.0, 1)
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(9.0)
    model(np.zeros((1, 8, 8, 3), "float32"), training=True)
    prices = iter(keras.ops.convert_to_numpy(model._prices))
    full = plain.count_params()
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha([-9.0] + [9.0] * (gate.count - 1))
        saved = full - keras_l0.profile(model).deployed.params
        gate.assign_log_alpha(9.0)
        for _ in range(gate.count):
            expected = model.multipliers[0] * saved / full
            assert next(prices) == pytest.approx(expected, rel=0.01)


# The ramp.


def test_fit_says_how_long_the_ramp_is():
    model = with_budget(network(), Budget(params=0.5))
    assert model.ramp == (0, 0)
    train(model, epochs=4)
    assert model.ramp == (32, 16)
    # It is small enough already: the limit stays where it is.
    train(model, epochs=10)
    assert model.ramp == (40 + 80, 40)
    model = with_budget(network(), Budget(params=0.5, ramp_steps=5))
    train(model, epochs=1)
    assert model.ramp == (8, 5)


def test_a_fit_that_starts_too_large_starts_the_ramp_anew():
    model = with_budget(network(), Budget(params=0.3))
    train(model, epochs=1)  # Does it run?
    assert model.ramp[1] == 4 and density(model) > 0.5
    history = train(model, epochs=12)
    assert model.ramp == (96, 48) and density(model) == pytest.approx(0.3, abs=0.02)
    assert max(history["loss"][6:]) < 1.5 * history["loss"][0]
    train(model, epochs=4)
    assert model.ramp == (16 + 32, 16)
    # Half of the way down already: the limit goes on from there.
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha([9.0] * 26 + [-9.0] * 14)
    above = (density(model) - 0.3) / 0.7
    model._start_ramp(100)
    step, ramp = model.ramp
    assert ramp == 100 and (1 - step / ramp) ** 3 == pytest.approx(above, abs=0.02)


def test_epochs_that_are_left_out_are_no_part_of_the_ramp():
    model = with_budget(network(), Budget(params=0.3))
    train(model, epochs=24, initial_epoch=12)
    assert model.ramp == (96, 48) and density(model) <= 0.3


def test_nothing_moves_while_gates_are_frozen():
    model = with_budget(network(), Budget(params=0.3))
    for gate in keras_l0.gates(model):
        gate.trainable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(model, epochs=8)
    assert model.multipliers == [0.0] and model.ramp[0] == 0
    for gate in keras_l0.gates(model):
        gate.trainable = True
    train(model, epochs=12)
    assert density(model) == pytest.approx(0.3, abs=0.02)


def test_a_list_of_callbacks_that_is_made_already_stays_as_it_is():
    model = with_budget(network(), Budget(params=0.5))
    model.compile("adam", "mse")
    once = keras.callbacks.CallbackList(add_history=True, model=model)
    for _ in range(2):
        model.fit(*data(128), batch_size=64, epochs=4, verbose=0, callbacks=once)
    assert [type(one).__name__ for one in once.callbacks] == ["History"]
    assert model.ramp == (4 + 8, 4)


def test_a_ramp_of_so_many_steps_goes_on_through_short_fits():
    model = with_budget(network(), Budget(params=0.4, ramp_steps=120))
    steps = []
    for _ in range(30):
        model.compile(keras.optimizers.Adam(0.01), "mse") if not steps else None
        model.fit(*data(), batch_size=64, epochs=1, verbose=0)
        steps.append(model.ramp[0])
    assert steps[:15] == list(range(8, 128, 8)) and density(model) < 0.5


def test_what_is_small_enough_in_the_middle_of_a_ramp_stays_small():
    model = with_budget(network(), Budget(params=0.5))
    model._set_ramp(0.0, 400)
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha([9.0] * 24 + [-9.0] * 16)
    before = density(model)
    shares = []
    noted = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: shares.append(density(model))
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(*data(), batch_size=64, epochs=8, verbose=0, callbacks=[noted])
    # As for a training that has come down to the limit.
    assert before < 0.5 and max(shares[:4]) < 0.6 and shares[-1] <= 0.5
    assert model.ramp == (32 + 64, 32)


def batches(count=8):
    x, y = data()
    for start in range(0, 64 * count, 64):
        yield x[start : start + 64], y[start : start + 64]


@pytest.mark.tensorflow
def test_of_batches_without_a_number_each_fit_finds_out_anew():
    import tensorflow as tf

    def unknown():
        types = tf.TensorSpec((None, 10)), tf.TensorSpec((None, 2))
        return tf.data.Dataset.from_generator(batches, output_signature=types)

    model = with_budget(network(), Budget(params=0.3))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(unknown(), epochs=1, verbose=0)
    assert model.ramp[1] == 4
    model.fit(unknown(), epochs=16, verbose=0)
    assert 64 <= model.ramp[1] <= 72 < model.ramp[0] and density(model) <= 0.3
    model = with_budget(network(), Budget(params=0.3))
    model.compile(keras.optimizers.SGD(1e-6), "mse")
    model.fit(unknown(), epochs=2, verbose=0)
    assert density(model) <= 0.3


def test_a_generator_says_it_after_an_epoch():
    class Batches(keras.utils.PyDataset):
        @property
        def num_batches(self):
            return None

        def __getitem__(self, index):
            return list(batches())[index % 8]

    model = with_budget(network(), Budget(params=0.5))
    model.compile("adam", "mse", run_eagerly=keras.backend.backend() == "tensorflow")
    model.fit((pair for pair in batches()), epochs=1, verbose=0)
    assert model.ramp == (8, 4)


def test_limits_come_down_cubically():
    constraints = with_budget(network(), Budget(params=0.2))._constraints
    found = [float(constraints.limits_at(t)[0]) for t in (0.0, 0.5, 1.0)]
    assert found == pytest.approx([1.0, 0.3, 0.2])


def test_the_multiplier_restarts_at_zero():
    def set_open(share):
        for gate in keras_l0.gates(model):
            is_open = np.arange(gate.count) < share * gate.count
            gate.assign_log_alpha(np.where(is_open, 5.0, -5.0))

    model = with_budget(network(), Budget(params=0.5, ramp_steps=1))
    model.compile("adam", "mse", run_eagerly=keras.backend.backend() == "tensorflow")
    for _ in range(3):
        model.fit(*data(128), verbose=0)
    assert model.multipliers[0] > 0
    set_open(0.1)
    model(data(8)[0], training=True)
    assert -100 <= model.multipliers[0] < 0
    set_open(1.0)
    model(data(8)[0], training=True)
    assert 0 < model.multipliers[0] <= 100
    share = model._constraints.each[0].share
    gates = keras_l0.gates(model)
    half = (
        next(k for k in range(40) if share([1.0 * (np.arange(40) < k)] * 2) > 0.5) - 1
    )
    set_open(half / 40)
    assert [gate.count for gate in gates] == [40, 40]
    model._constraints.slack = np.array([0.05])
    model(data(8)[0], training=True)
    assert model.multipliers == [0.0]


def test_evaluation_leaves_it_alone():
    model = with_budget(network(), Budget(params=0.5, ramp_steps=1))
    train(model, epochs=2)
    before = (model.multipliers, model.ramp)
    model.evaluate(*data(), verbose=0)
    model.predict(data()[0], verbose=0)
    model(data()[0])
    assert (model.multipliers, model.ramp) == before


# Files, clones, models around it.


def test_saved_and_loaded_it_goes_on_alike(tmp_path):
    model = with_budget(network(), Budget(params=0.5))
    train(model, epochs=3)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert type(loaded) is keras_l0.BudgetedModel
    assert loaded.budgets == model.budgets
    assert loaded.ramp == model.ramp and loaded.multipliers == model.multipliers
    assert density(loaded) == density(model)
    history = loaded.fit(*data(), batch_size=64, epochs=30, verbose=0).history
    assert density(loaded) <= 0.53 and np.isfinite(history["loss"][-1])


def test_a_clone_holds_its_own_gates():
    model = with_budget(network(), Budget(params=0.3))
    clone = keras.models.clone_model(model)
    assert clone.budgets == model.budgets and clone.ramp == (0, 0)
    own = {id(gate) for gate in keras_l0.gates(clone)}
    assert {id(gate) for gate in clone._constraints.gates} == own
    train(clone)
    assert density(clone) <= 0.34 and density(model) == 1.0


def test_inside_another_model():
    inner = with_budget(network("inner"), Budget(params=0.3, ramp_steps=120))
    x = keras.Input((10,))
    model = keras.Model(x, inner(keras.layers.Dense(10, name="front")(x)))
    train(model)
    assert inner.ramp[0] == 240
    assert density(inner) <= 0.34


def test_gates_are_pushed_by_what_they_add_to_the_expected_size(gradient):
    model = with_budget(network(), Budget(params=0.5, ramp_steps=1))
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(np.linspace(-1, 3, gate.count))
    model._set_ramp(10.0, 1)
    model(data(8)[0], training=True)
    (multiplier,), (constraint,) = model.multipliers, model._constraints.each
    assert multiplier > 0
    gates = keras_l0.gates(model)
    raw = [keras.ops.convert_to_numpy(gate.raw).astype("float64") for gate in gates]

    def expected(at):
        # In float64, which not every backend has.
        options = gates[0].options
        shift = options.distribution.log_odds_shift
        log_alpha = [options.learning_rate_multiplier * r for r in at]
        return constraint.share([1 / (1 + np.exp(-x - shift)) for x in log_alpha])

    for number, gate in enumerate(gates):
        found = gradient(
            lambda raw=gate.raw: raw.regularizer(keras.ops.convert_to_tensor(raw)),
            gate.raw,
        )
        for unit in (0, 13, 38):  # the last one is the likeliest, and free
            up, down = ([r.copy() for r in raw] for _ in range(2))
            up[number][unit] += 1e-5
            down[number][unit] -= 1e-5
            slope = multiplier * (expected(up) - expected(down)) / 2e-5
            assert found[unit] == pytest.approx(slope, rel=2e-2)
    assert sum(float(one) for one in model.losses) == 0


# What else trains the layers.


def test_gates_in_another_model_say_that_no_budget_acts_on_them():
    model = with_budget(network(), Budget(params=0.3))
    head = keras.layers.Dense(3)(model.layers[-2].output)
    other = keras.Model(model.inputs, head)
    other.compile("adam", "mse", run_eagerly=keras.backend.backend() == "tensorflow")
    x, y = data(64)
    with pytest.warns(UserWarning, match="no budget acts on them.*BudgetedModel"):
        other.fit(x, np.pad(y, ((0, 0), (0, 1))), verbose=0)
    whole = keras.Sequential([keras.Input((10,)), model])
    whole.compile("adam", "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        whole.fit(x, y, verbose=0)


def test_a_train_step_of_its_own_is_not_lost_in_silence():
    class Mine(keras.Model):
        def train_step(self, *args):
            return super().train_step(*args)

    gated = network()
    model = Mine(gated.inputs, gated.outputs)
    with pytest.warns(UserWarning, match="'train_step' of its own.*BudgetedModel"):
        with_budget(model, Budget(params=0.5))

    class MineUnderABudget(keras_l0.BudgetedModel):
        def train_step(self, *args):
            return super().train_step(*args)

    budgeted = with_budget(network(), Budget(params=0.3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        own = MineUnderABudget(budgeted.inputs, budgeted.outputs)
        train(own, epochs=12)
    assert density(own) == pytest.approx(0.3, abs=0.02)


def test_weight_decay_spares_the_gates(tmp_path):
    model = with_budget(network(), Budget(params=1.0))
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(9.0)
    kernel = model.layers[-1].kernel
    before = float(keras.ops.sum(keras.ops.abs(kernel)))
    train(model, optimizer=keras.optimizers.AdamW(1e-9, weight_decay=1e7), epochs=1)
    assert float(keras.ops.sum(keras.ops.abs(kernel))) < 0.95 * before
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(*data(), epochs=1, verbose=0)
    for one in (model, loaded):
        for gate in keras_l0.gates(one):
            found = keras.ops.convert_to_numpy(gate.log_alpha)
            np.testing.assert_allclose(found, 9.0, atol=1e-4)


def test_a_class_with_a_compile_of_its_own_can_be_loaded(tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class Own(keras_l0.BudgetedModel):
        def compile(self, optimizer, loss, alpha=0.5):
            super().compile(optimizer, loss)

    budgeted = with_budget(network(), Budget(params=0.5))
    model = Own(budgeted.inputs, budgeted.outputs)
    model.compile("adam", "mse", alpha=0.1)
    model.save(tmp_path / "own.keras")
    with pytest.warns(UserWarning, match="`compile\\(\\)` was not called"):
        loaded = keras.models.load_model(tmp_path / "own.keras")
    assert type(loaded) is Own and loaded.budgets == budgeted.budgets


def test_gates_by_themselves_take_no_bytes():
    stack = [keras.Input((6, 6, 2)), L0Gate(axis=(1, 2)), L0Conv2D(4, 3)]
    model = keras.Sequential([*stack, keras.layers.Flatten(), keras.layers.Dense(2)])
    budget = Budget(bytes=50_000, quantization="int8")
    (one,) = Constraints(model, [budget]).each
    params = 4 * 19 + 2 * (4 * 4 * 4 + 1)
    assert one.full == params + 24 * 4 + 12 * 2


def test_one_epoch_is_too_short_and_says_so():
    model = with_budget(network(), Budget(params=0.3))
    with pytest.warns(UserWarning, match="'net' is above .* trained for one epoch"):
        train(model, epochs=1)
    assert density(model) > 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(model, epochs=2)
    assert density(model) <= 0.3


class FirstIsBest(keras.callbacks.EarlyStopping):
    """Takes the first epoch it looks at for the best, and puts its weights back."""

    def __init__(self, **options):
        super().__init__("loss", mode="min", restore_best_weights=True, **options)
        self.seen = 0

    def get_monitor_value(self, logs):
        self.seen += 1
        return self.seen


def fit_beside(callback, run=None, **options):
    model = with_budget(network(), Budget(params=0.3))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    options = {"batch_size": 64, "epochs": 8, "verbose": 0} | options
    return (run or fit)(model, *data(), callbacks=[callback], **options).model


def fit_compacting(model, *args, **options):
    when = keras_l0.Compaction(min_saving=0.1, patience=1)
    return keras_l0.fit_compacting(model, *args, compaction=when, **options)


def fit(model, *args, **options):
    return model.fit(*args, **options)


@pytest.mark.parametrize("run", [fit, fit_compacting])
def test_weights_of_a_larger_network_that_a_callback_puts_back(run):
    with pytest.warns(UserWarning) as caught:
        model = fit_beside(FirstIsBest(patience=99), run)
    (told,) = (str(one.message) for one in caught if "above its" in str(one.message))
    assert "'net' is above its budget, at" in told
    assert "put back weights of an earlier epoch" in told
    assert "start_from_epoch=6" in told
    assert model.above
    with pytest.warns(UserWarning, match="'net' is above its budget, at .* params"):
        small = keras_l0.strip(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = fit_beside(FirstIsBest(patience=99, start_from_epoch=6), run)
        fits = keras_l0.strip(model).count_params()
        assert not model.above
        keras_l0.strip(model, budget=model.budgets)
    assert fits < small.count_params()


def test_a_training_that_stops_before_its_gates_are_settled_says_so():
    with pytest.warns(UserWarning, match="is above .* stopped before .* 6 of 8 epochs"):
        fit_beside(FirstIsBest(patience=1))


def test_a_training_in_parts_is_above_its_budget_in_between():
    model = with_budget(network(), Budget(params=0.3, ramp_steps=60))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(model, epochs=1)
        assert model.above
        train(model, epochs=20)
    assert not model.above


def test_frozen_gates_are_not_expected_to_fit():
    model = with_budget(network(), Budget(params=0.3))
    for gate in keras_l0.gates(model):
        gate.trainable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(model, epochs=2)
    assert model.above
