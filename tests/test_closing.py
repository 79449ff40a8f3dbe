"""strip with a budget: the cheapest gates close until it is kept."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_l0
from keras_l0 import Budget, add_gates, strip, with_budget
from keras_l0.budget.closing import to_open
from keras_l0.layers import L0Dense


def network(seed=0):
    model = keras.Sequential(
        [
            keras.Input((10,)),
            L0Dense(40, activation="relu"),
            L0Dense(40, activation="relu"),
            layers.Dense(2),
        ],
        name="net",
    )
    rng = np.random.default_rng(seed)
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(rng.normal(2, 2, gate.count))
    return model


def residual():
    x = keras.Input((8, 8, 3))
    h = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    for _ in range(2):
        y = layers.Conv2D(16, 3, padding="same", use_bias=False)(h)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(16, 3, padding="same", use_bias=False)(y)
        h = layers.ReLU()(layers.Add()([h, layers.BatchNormalization()(y)]))
    return keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling2D()(h)))


@pytest.mark.parametrize("limit", [{"params": 0.3}, {"macs": 0.1}, {"params": 0.15}])
@pytest.mark.parametrize("build", [network, lambda: add_gates(residual())])
def test_the_result_fits_and_is_not_needlessly_small(build, limit):
    model = build()
    ((measure, amount),) = limit.items()
    dense = keras_l0.profile(model).dense
    allowed = amount * getattr(dense, measure) if isinstance(amount, float) else amount
    stripped = strip(model, budget=Budget(**limit))
    size = getattr(keras_l0.profile(stripped).dense, measure)
    assert 0.6 * allowed < size <= allowed
    assert keras_l0.profile(model).dense == dense
    assert stripped.count_params() <= dense.params


def test_what_fits_already_stays_as_it_is():
    model = network()
    plain = strip(model)
    fitted = strip(model, budget=Budget(params=1.0))
    for a, b in zip(plain.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_least_likely_close_first():
    model = network()
    first = keras_l0.gates(model)[0]
    first.assign_log_alpha(np.linspace(3, 8, 40))
    keras_l0.gates(model)[1].assign_log_alpha(9.0)
    model.get_layer(index=0).bias.assign(np.arange(40.0))
    stripped = strip(model, budget=Budget(params=0.6))
    kept = stripped.layers[1].get_weights()[1]
    np.testing.assert_array_equal(kept, np.arange(40 - len(kept), 40))


def test_frozen_gates_stay_what_they_are():
    model = network()
    first, second = keras_l0.gates(model)
    first.trainable = False
    first.assign_log_alpha([-1.0] * first.count)
    second.assign_log_alpha([3.0] * second.count)
    stripped = strip(model, budget=Budget(params=0.4))
    assert [layer.units for layer in stripped.layers[1:]] == [40, 9, 2]


@pytest.mark.parametrize("limit", [{"params": 0.9}, {"macs": 0.6}, {"macs": 0.3}])
def test_of_gates_alike_all_layers_lose_some(limit):
    model = add_gates(residual())
    small = strip(model, budget=Budget(**limit))
    left = [x.filters / 16 for x in small.layers if isinstance(x, layers.Conv2D)]
    # Those that save more lose more, within bounds.
    assert 0.2 < min(left) and max(left) - min(left) < 0.4


def test_what_saves_little_stays():
    x = keras.Input((12, 12, 1))
    h = layers.Conv2D(32, 3, activation="relu")(x)
    h = layers.Conv2D(32, 3, activation="relu")(h)
    h = layers.Dense(128, activation="relu")(layers.GlobalAveragePooling2D()(h))
    model = add_gates(keras.Model(x, layers.Dense(10)(h)))
    # The dense units are a little less likely, but not worth closing for their MACs.
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(3.0 if gate.count == 32 else 2.5)
    small = strip(model, budget=Budget(macs=0.5))
    units = [row.units for row in keras_l0.profile(small).layers]
    assert 16 <= units[0] < 30 and 16 <= units[1] < 30 and units[2] > 100


def branches():
    x = keras.Input((10,))
    names = "a", "b"
    both = [L0Dense(40, activation="relu", name=name)(x) for name in names]
    model = keras.Model(x, layers.Dense(2)(layers.Concatenate()(both)))
    for gate, least in zip(keras_l0.gates(model), (1, 4), strict=True):
        gate.assign_log_alpha(np.linspace(least, least + 1, 40))
    return model


def test_a_limit_that_is_kept_closes_nothing():
    """However much another one closes."""
    model = branches()
    budgets = [Budget(params=0.9, layers="a"), Budget(params=0.5, layers="b")]
    units = [
        [strip(model, budget=b).get_layer(name).units for name in ("a", "b")]
        for b in (budgets[0], budgets[1], budgets)
    ]
    assert units == [[36, 40], [40, 20], [36, 20]]


def test_a_gate_that_is_alone_goes_by_what_it_is_worth():
    x = keras.Input((64,))
    h = L0Dense(64, activation="relu")(x)
    h = keras_l0.layers.L0Gate()(layers.Dense(1)(h))
    y = layers.Concatenate()([layers.Dense(32)(x), h])
    model = keras.Model(x, layers.Dense(2)(y))
    units, branch = keras_l0.gates(model)
    units.assign_log_alpha(6.0)
    branch.assign_log_alpha(-2.0)
    small = strip(model, budget=Budget(params=0.5))
    # The whole branch goes, not half of its units.
    assert [x.units for x in small.layers if isinstance(x, layers.Dense)] == [32, 2]


def test_a_limit_that_is_full_leaves_room_to_others():
    x = keras.Input((10,))
    both = [L0Dense(40, activation="relu", name=name)(x) for name in ("a", "b")]
    model = keras.Model(x, layers.Dense(2)(layers.Concatenate()(both)))
    budgets = [Budget(params=0.8), Budget(params=0.5, layers="a")]
    model = with_budget(model, budgets)
    for gate, low in zip(keras_l0.gates(model), (-2.5, -3.0), strict=True):
        gate.assign_log_alpha([9.0] * 20 + [low] * 20)
    opened = [z.sum() for z in to_open(model, budgets)]
    assert opened == [0, 20]


def test_closing_does_not_see_what_has_left(tmp_path):
    model = network()
    first, second = keras_l0.gates(model)
    first.assign_log_alpha([3.0] * 10 + [-20.0] * 30)
    second.assign_log_alpha(4.0)
    model = with_budget(model, Budget(params=0.15))
    small = keras_l0.compact(model)
    assert small.count_params() < model.count_params()
    kept = [
        [x.units for x in strip(m, budget=Budget(params=0.15)).layers[1:]]
        for m in (model, small)
    ]
    assert kept[0] == kept[1]


@pytest.mark.tensorflow
def test_shares_of_a_file_are_shares_of_the_whole_one():
    model = network()
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha([9.0] * 27 + [-20.0] * 13)
    budget = Budget(bytes=0.5)
    model = with_budget(model, budget)
    sizes = [
        strip(m, budget=budget).count_params() for m in (model, keras_l0.compact(model))
    ]
    # Of what it was, only an estimate is left.
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_another_table_is_another_measure():
    plain = network()
    times = [
        keras_l0.LatencyTable.of(plain, lambda shape, i, o, k=k: k * i * o, overhead=1)
        for k in (1.0, 10.0)
    ]
    model = with_budget(plain, Budget(latency=0.5, table=times[0]))
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha([9.0] * 27 + [-20.0] * 13)
    small = keras_l0.compact(model)
    fitted = strip(small, budget=Budget(latency=0.9, table=times[1]))
    assert fitted.count_params() > 0.6 * small.count_params() * 0.9


def test_inputs_are_those_of_the_budget():
    model = keras.Sequential(
        [keras.Input((40,)), keras_l0.layers.L0Gate(), L0Dense(40), layers.Dense(2)]
    )
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha([9.0] * 16 + [-9.0] * 24)
    budget = Budget(params=0.2, inputs="gather")
    small = strip(model, budget=budget)
    assert small.count_params() == 16 * 16 + 16 + 16 * 2 + 2 <= 0.2 * 1722
    assert strip(model, "keep", budget=budget).count_params() <= 0.2 * 1722
    with pytest.raises(ValueError, match="`inputs` must be given where budgets differ"):
        strip(model, budget=[budget, Budget(macs=0.5)])


def test_as_many_stay_as_the_budget_holds():
    model = branches()
    small = strip(model, budget=Budget(params=0.4, min_units=10))
    assert small.get_layer("a").units == 10 and small.get_layer("b").units > 10
    with pytest.raises(ValueError, match="With 30 of its units left in each"):
        strip(model, budget=Budget(params=0.4, min_units=30))


def test_what_saves_nothing_stays():
    model = network()
    budget = Budget(params=0.5, layers=[model.layers[0].name])
    keras_l0.gates(model)[0].assign_log_alpha(5.0)
    stripped = strip(model, budget=budget)
    assert stripped.layers[1].units == 20
    assert stripped.layers[2].units == strip(model).layers[2].units


def test_size_matched_gates_stay_what_they_are():
    """Closing some of them leaves the others, which are judged together, alone."""
    options = keras_l0.GateOptions(estimator="size_matched")
    model = keras.Sequential(
        [
            keras.Input((10,)),
            L0Dense(40, activation="relu", gate_options=options),
            layers.Dense(2),
        ]
    )
    (gate,) = keras_l0.gates(model)
    gate.assign_log_alpha(np.random.default_rng(0).normal(-1, 1, 40))
    z = keras.ops.convert_to_numpy(gate.test_gates)
    fitted, plain = strip(model, budget=Budget(params=0.25)), strip(model)
    assert 0.8 * 130 < fitted.count_params() <= 0.25 * 522 < plain.count_params()
    shut = np.argsort(z)[: 40 - fitted.layers[1].units]
    kernel, bias = model.get_weights()[:2]
    x = np.random.default_rng(1).normal(size=(4, 10)).astype("float32")
    hidden = np.maximum(x @ kernel + bias, 0) * np.where(np.isin(range(40), shut), 0, z)
    last = model.layers[-1]
    expected = hidden @ keras.ops.convert_to_numpy(last.kernel)
    np.testing.assert_allclose(fitted.predict(x, verbose=0), expected, atol=1e-5)


def test_several_budgets_and_other_options():
    budgets = [Budget(macs=0.5), Budget(params=0.4)]
    stripped = strip(network(), budget=budgets, round_to=8)
    assert [layer.units % 8 for layer in stripped.layers[1:3]] == [0, 0]
    assert stripped.count_params() <= 0.4 * (440 + 1640 + 82)


def test_of_a_budgeted_model():
    model = with_budget(network(), Budget(params=0.3))
    assert strip(model, budget=model.budgets).count_params() <= 0.3 * 2162


def test_out_of_reach():
    with pytest.raises(ValueError, match="within reach of the gates of 'net'"):
        strip(network(), budget=Budget(params=10))
    with pytest.raises(TypeError, match="`budget` must be a `keras_l0.Budget`"):
        strip(network(), budget=0.5)


def test_without_gates():
    plain = keras.Sequential(dense(), name="plain")
    with pytest.raises(ValueError, match="must have gates.*'plain'"):
        strip(plain, budget=Budget(params=0.5))


def test_gates_are_added_with_a_budget():
    model = residual()
    gated = add_gates(model, budget=Budget(macs=0.25))
    assert type(gated) is keras_l0.BudgetedModel
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(
        model.predict(x, verbose=0), gated.predict(x, verbose=0), atol=1e-5
    )
    with pytest.raises(ValueError, match="a strength or a budget"):
        add_gates(model, 1e-3, budget=Budget(macs=0.25))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "limit, quantization", [(4000, None), (4000, "int8"), (0.6, None)]
)
def test_the_file_fits(limit, quantization, tmp_path):
    model = network()
    budget = Budget(bytes=limit, quantization=quantization)
    stripped = strip(model, budget=budget)
    x = np.random.default_rng(0).normal(size=(16, 10)).astype("float32")
    path = tmp_path / "small.tflite"
    report = keras_l0.to_tflite(stripped, path, quantization, x, max_error=9.0)
    if isinstance(limit, float):
        full = keras_l0.to_tflite(keras.Sequential(dense()), path)
        limit = int(limit * full.bytes)
    assert 0.6 * limit < report.bytes <= limit


def dense():
    return [keras.Input((10,)), *(layers.Dense(n, "relu") for n in (40, 40, 2))]


def test_names_to_keep_may_come_one_by_one():
    model = network()
    names = [model.layers[0].name]
    small = strip(model, keep=iter(names), budget=Budget(params=0.4))
    assert small.layers[1].units == 40
    assert (
        small.count_params()
        == strip(model, keep=names, budget=Budget(params=0.4)).count_params()
    )
