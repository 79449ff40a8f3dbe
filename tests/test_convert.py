"""add_gates as its user sees it: where gates go, what they cost, what is refused."""

import inspect
import re
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_l0
from keras_l0.layers import (
    L0GRU,
    L0Gate,
    L0MultiHeadAttention,
    L0RecurrentSwitch,
    L0SharedGate,
    L0Switch,
)

CLOSED, OPEN = -9.0, 9.0
RMS = hasattr(layers, "RMSNormalization")


def chain():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(6, 3, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(5, 3, activation="relu", name="second"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(2, name="classes"),
        ],
        name="chain",
    )


def residual():
    x = keras.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    h = layers.Conv2D(6, 1, activation="relu", name="wide")(stem)
    h = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(h)
    h = layers.BatchNormalization(name="norm")(h)
    s = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(h)
    s = layers.Conv2D(2, 1, activation="relu", name="reduce")(s)
    s = layers.Conv2D(6, 1, activation="sigmoid", name="excite")(s)
    h = layers.Multiply(name="scaled")([h, s])
    h = layers.Add(name="sum")([stem, layers.Conv2D(4, 1, name="narrow")(h)])
    y = layers.Dense(2, name="classes")(layers.GlobalAveragePooling2D(name="mean")(h))
    return keras.Model(x, y, name="residual")


def images(count=4, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 8, 8, 3)).astype("float32")


def of_type(model, kind):
    return {layer.name: layer for layer in model.layers if isinstance(layer, kind)}


def penalty(model):
    return float(sum(model.losses))


def test_gates_go_behind_what_follows_a_layer_and_never_on_outputs():
    names = [layer.name for layer in keras_l0.add_gates(chain()).layers]
    assert names == [
        "image", "first", "norm", "relu", "pool", "first_gate",
        "second", "mean", "second_gate", "classes",
    ]  # fmt: skip


def test_what_is_added_up_shares_a_mask():
    gated = keras_l0.add_gates(residual())
    assert {g.count for g in keras_l0.gates(gated)} == {4, 6, 2}
    assert len(keras_l0.gates(gated)) == 3
    assert set(of_type(gated, L0SharedGate)) == {"stem_gates"}
    assert set(of_type(gated, L0Switch)) == {"stem_gate", "narrow_gate"}
    # Behind the depthwise convolution, and not on what scales it.
    assert set(of_type(gated, L0Gate)) == {"wide_gate", "reduce_gate"}
    assert gated.get_layer("wide_gate").input is gated.get_layer("norm").output


def test_the_model_is_left_alone():
    model = residual()
    model.compile("sgd", "mse")
    config, weights = model.get_config(), model.get_weights()
    gated = keras_l0.add_gates(model, l0=1e-3)
    gated.compile("sgd", "mse")
    gated.fit(images(), np.zeros((4, 2)), verbose=0)
    assert model.get_config() == config
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not {id(a) for a in model.layers} & {id(b) for b in gated.layers}
    # Its own graph is no longer than it was either.
    assert all(len(layer._inbound_nodes) == 1 for layer in model.layers)


def test_weights_are_found_under_the_same_names():
    model = residual()
    gated = keras_l0.add_gates(model)
    assert gated.name == model.name
    assert [x.name for x in gated.inputs] == [x.name for x in model.inputs]
    for layer in model.layers:
        for old, new in zip(
            layer.get_weights(), gated.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(old, new)


def sequences():
    x = keras.Input((6, 8))
    h = layers.Dense(4, name="embed")(x)
    a = layers.MultiHeadAttention(2, 4, name="attend")(h, h)
    h = layers.GRU(5, return_sequences=True)(layers.Add()([h, a]))
    h = layers.Bidirectional(layers.LSTM(3))(h)
    return keras.Model(x, layers.Dense(2)(h))


@pytest.mark.parametrize("build", [chain, residual, sequences])
def test_a_gate_costs_what_its_removal_saves(build):
    """Against strip: the parameters that are there without one unit."""
    gated = keras_l0.add_gates(build())
    gates = keras_l0.gates(gated)
    whole = keras_l0.strip(gated, verify=False).count_params()
    for gate in gates:
        for unit in range(gate.count):
            closed = np.arange(gate.count) == unit
            gate.assign_log_alpha(np.where(closed, CLOSED, OPEN))
            left = keras_l0.strip(gated, verify=False).count_params()
            assert whole - left == np.broadcast_to(gate.cost, gate.count)[unit]
        gate.assign_log_alpha(OPEN)


def preactivation():
    """A stream that is normalized each time that a padded convolution reads it."""
    x = keras.Input((8, 8, 3))
    h = layers.Conv2D(12, 3, padding="same", use_bias=False)(x)
    for _ in range(3):
        r = h
        for filters in (5, 12):
            h = layers.ReLU()(layers.BatchNormalization()(h))
            h = layers.Conv2D(filters, 3, padding="same")(h)
        h = layers.Add()([h, r])
    h = layers.ReLU()(layers.BatchNormalization()(h))
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(h)))


def twice():
    """One encoder with a normalization inside, called twice."""
    encoder = keras.Sequential(
        [
            keras.Input((8, 8, 3)), layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(), layers.ReLU(),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
        ]
    )  # fmt: skip
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    apart = keras.ops.absolute(keras.ops.subtract(encoder(a), encoder(b)))
    return keras.Model([a, b], layers.Dense(1)(apart))


def by_length(kind):
    """A normalization by a length over all channels behind the units."""

    def build():
        x = keras.Input((8, 8, 3))
        h = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
        h = kind()(h)
        h = layers.Conv2D(5, 3, padding="same", activation="relu")(h)
        return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(h)))

    return build


def halves():
    """Units in two parts, each of which is normalized for a padded convolution."""
    x = keras.Input((8, 8, 3))
    h = layers.Conv2D(8, 3, padding="same")(x)
    parts = [
        layers.Conv2D(4, 3, padding="same", activation="relu")(
            layers.ReLU()(layers.BatchNormalization()(part))
        )
        for part in keras.ops.split(h, 2, -1)
    ]
    h = layers.GlobalAveragePooling2D()(layers.Add()(parts))
    return keras.Model(x, layers.Dense(2)(h))


AWAKE = {
    "halves": halves,
    "preactivation": preactivation,
    "twice": twice,
    "unit": by_length(layers.UnitNormalization),
    **({"rms": by_length(layers.RMSNormalization)} if RMS else {}),
}


@pytest.mark.parametrize("name", AWAKE)
def test_where_gates_go_does_not_depend_on_weights(name):
    fresh, model = AWAKE[name](), AWAKE[name]()
    shaken(model)
    names = [
        [re.sub(r"(_\d+)+", "", layer.name) for layer in keras_l0.add_gates(m).layers]
        for m in (fresh, model)
    ]
    assert names[0] == names[1]


def shaken(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        spread = rng.uniform if "variance" in weight.path else rng.normal
        weight.assign(spread(0.2, 0.9, weight.shape))


@pytest.mark.parametrize("name", AWAKE)
def test_what_makes_something_of_a_closed_unit_does_not_hold_it(name):
    model, rng = AWAKE[name](), np.random.default_rng(1)
    shaken(model)
    gated = keras_l0.add_gates(model)
    planned = sum(group.units for group in keras_l0.plan_gates(model).groups)
    assert sum(gate.count for gate in keras_l0.gates(gated)) == planned
    for gate in keras_l0.gates(gated):
        for others in keras_l0.gates(gated):
            others.assign_log_alpha(OPEN)
        closed = rng.permutation(gate.count) < gate.count - 1
        gate.assign_log_alpha(np.where(closed, CLOSED, 0.4))
        sizes = keras_l0.profile(gated)
        saved = sizes.dense.params - sizes.deployed.params
        assert saved == np.sum(gate.cost * np.ones(gate.count) * closed)
        stripped = keras_l0.strip(gated, verify=False)
        assert stripped.count_params() == sizes.deployed.params
        x = [images(seed=k) for k in range(len(model.inputs))]
        expected, found = (m.predict(x, verbose=0) for m in (gated, stripped))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_prices_inside_of_layers_are_saved(tmp_path):
    gated = keras_l0.add_gates(sequences(), l0=0.1)
    gated.save(tmp_path / "gated.keras")
    other = keras.models.load_model(tmp_path / "gated.keras")
    costs = [gate.cost for gate in keras_l0.gates(gated)]
    assert [gate.cost for gate in keras_l0.gates(other)] == costs
    assert penalty(other) == pytest.approx(penalty(gated))


def test_units_that_cost_differently():
    x = keras.Input((4,))
    a, b = layers.Dense(2, name="a")(x), layers.Dense(3, name="b")(x)
    both = layers.Concatenate()([a, b])
    h = layers.Add()([both, layers.Dense(5, name="c")(x)])
    y = layers.Dense(2)(layers.Concatenate()([h, layers.Dense(6, name="d")(a)]))
    gated = keras_l0.add_gates(keras.Model(x, y))
    stream, other = keras_l0.gates(gated)
    # In and out of the unit; those of "a" are read by "d" as well.
    assert stream.cost == [5 + 5 + 2 + 6] * 2 + [5 + 5 + 2] * 3
    assert other.cost == 2 + 1 + 2
    assert gated.get_layer("b_gate").indices == [2, 3, 4]


def test_penalty_is_charged_once_and_follows_the_probability():
    gated = keras_l0.add_gates(residual(), l0=0.5)
    costs = [
        (np.broadcast_to(g.cost, g.count), np.asarray(g.prob_open).ravel())
        for g in keras_l0.gates(gated)
    ]
    expected = 0.5 * sum(float(np.sum(c * p)) for c, p in costs)
    gated(images(), training=True)
    assert penalty(gated) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("noise", ["batch", "example"])
def test_all_places_of_a_mask_see_one_draw(noise):
    x = keras.Input((3,))
    ones = {"kernel_initializer": "zeros", "bias_initializer": "ones"}
    a, b = layers.Dense(64, name="a", **ones)(x), layers.Dense(64, name="b", **ones)(x)
    model = keras.Model(x, layers.Dense(1)(layers.Add(name="sum")([a, b])))
    options = keras_l0.GateOptions(open_probability=0.6, noise=noise)
    gated = keras_l0.add_gates(model, gate_options=options, seed=3)
    places = [gated.get_layer(name).output for name in ("a_gate", "b_gate")]
    probe = keras.Model(gated.inputs, places)
    first, second = map(np.asarray, probe(np.ones((5, 3)), training=True))
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first)) > 3
    assert (np.ptp(first, axis=0).max() > 0) == (noise == "example")
    again = np.asarray(probe(np.ones((5, 3)), training=True)[0])
    assert not np.array_equal(first, again)


@pytest.mark.parametrize("build", [chain, sequences])
def test_seeds_make_runs_repeat_and_gates_differ(build):
    def run():
        options = keras_l0.GateOptions(open_probability=0.6)
        gated = keras_l0.add_gates(model, seed=np.int64(1), gate_options=options)
        return np.asarray(gated(x, training=True)), gated

    model = build()
    x = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:]))
    (first, gated), (second, _) = run(), run()
    np.testing.assert_array_equal(first, second)
    gates = keras_l0.gates(gated)
    assert {gate.seed for gate in gates} == set(range(1, 1 + len(gates)))


@pytest.mark.parametrize("copy", ["saved", "cloned"])
def test_gated_models_are_saved_and_cloned(copy, tmp_path):
    gated = keras_l0.add_gates(residual(), l0=1e-2)
    for gate in keras_l0.gates(gated):
        gate.assign_log_alpha(np.linspace(-3, 3, gate.count))
    if copy == "saved":
        gated.save(tmp_path / "gated.keras")
        other = keras.models.load_model(tmp_path / "gated.keras")
    else:
        other = keras.models.clone_model(gated)
        other.set_weights(gated.get_weights())
    x = images()
    np.testing.assert_allclose(gated(x), other(x), rtol=1e-5, atol=1e-6)
    assert penalty(other) == pytest.approx(penalty(gated))
    for old, new in zip(keras_l0.gates(gated), keras_l0.gates(other), strict=True):
        assert old.get_config() == new.get_config()


@pytest.mark.parametrize("frozen", ["gates", "model", "argument"])
def test_a_shared_mask_that_is_frozen_is_a_constant_in_copies_too(frozen):
    options = keras_l0.GateOptions(open_probability=0.6)
    if frozen == "argument":
        x = keras.Input((3,))
        mask = keras_l0.layers.L0SharedGate(8, l0=0.5, options=options, trainable=False)
        model = keras.Model(x, mask(x))
    else:
        model = keras_l0.add_gates(residual(), l0=0.5, gate_options=options)
        for part in keras_l0.gates(model) if frozen == "gates" else [model]:
            part.trainable = False
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    assert copy.losses == [] and not any(g.trainable for g in keras_l0.gates(copy))
    x = images() if frozen != "argument" else np.ones((2, 3))
    np.testing.assert_array_equal(copy(x, training=True), copy(x, training=True))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_dtype_policies(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = residual()
    finally:
        keras.config.set_dtype_policy(before)
    gated = keras_l0.add_gates(model)
    x = images()
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(keras.ops.cast(m(x), "float32"))
          for m in (model, gated))
    )  # fmt: skip
    assert gated.output.dtype == model.output.dtype
    gated.compile("sgd", "mse")
    gated.fit(x, np.zeros((4, 2)), verbose=0)


def test_jit():
    gated = keras_l0.add_gates(residual(), l0=1e-4)
    gated.compile("adam", "mse", jit_compile=True)
    history = gated.fit(images(), np.zeros((4, 2)), verbose=0)
    assert np.isfinite(history.history["loss"][0])


def test_recurrent_units_and_heads_are_gated_inside():
    x = keras.Input((6, 8))
    h = layers.Dense(8, name="embed")(x)
    a = layers.MultiHeadAttention(2, 4, name="attend")(h, h)
    h = layers.GRU(5, name="recur")(layers.Add()([h, a]))
    model = keras.Model(x, layers.Dense(2)(h))
    options = keras_l0.GateOptions(noise="example")
    gated = keras_l0.add_gates(model, l0=1e-3, gate_options=options)
    assert isinstance(gated.get_layer("attend"), L0MultiHeadAttention)
    assert isinstance(gated.get_layer("recur"), L0GRU)
    assert [g.count for g in keras_l0.gates(gated)] == [8, 2, 5]
    for gate in keras_l0.gates(gated):
        gate.assign_log_alpha(np.where(np.arange(gate.count) % 2, OPEN, CLOSED))
    small = keras_l0.strip(gated)
    assert small.get_layer("recur").units == 2
    assert small.get_layer("attend").num_heads == 1
    assert small.get_layer("embed").units == 4


def test_shared_layers_and_nested_models():
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, "relu", name="look")], name="tower"
    )
    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    y = layers.Dense(1, name="same")(layers.Subtract()([inner(left), inner(right)]))
    model = keras.Model({"l": left, "r": right}, {"same": y})
    gated = keras_l0.add_gates(model)
    (gate,) = keras_l0.gates(gated)
    assert gate.count == 6 and gate.cost == 5 + 1 + 1
    gate.assign_log_alpha([OPEN, CLOSED, OPEN, CLOSED, CLOSED, OPEN])
    small = keras_l0.strip(gated)
    assert small.get_layer("look").units == 3
    assert set(small.output) == {"same"}


@pytest.mark.parametrize(
    "choice",
    ["fir*", layers.Conv2D, lambda layer: layer.name == "first", ["first", "second"]],
)
def test_selection(choice):
    gated = keras_l0.add_gates(chain(), layers=choice, skip="second")
    assert [gate.count for gate in keras_l0.gates(gated)] == [6]


def test_a_nested_model_is_selected_as_a_whole():
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, "relu", name="dense")], name="backbone"
    )
    x = keras.Input((6,))
    h = layers.Dense(4, "relu", name="dense")(inner(x))
    model = keras.Model(x, layers.Dense(2, name="classes")(h))
    for choice, count in (("backbone", 5), (inner, 5), ("back*", 5), ("dense", 9)):
        gated = keras_l0.add_gates(model, layers=choice)
        assert sum(gate.count for gate in keras_l0.gates(gated)) == count
    skipped = keras_l0.add_gates(model, skip=inner)
    assert [gate.count for gate in keras_l0.gates(skipped)] == [4]
    strong = keras_l0.add_gates(model, l0={"backbone": 1e-3})
    assert [gate.regularizer.l0 for gate in keras_l0.gates(strong)] == [1e-3, 0.0]


def test_a_choice_without_effect_is_told():
    for arguments in ({"layers": ["first", "classes"]}, {"l0": {"classes": 1e-3}}):
        with pytest.warns(UserWarning, match="'classes' fits layers that get no gates"):
            keras_l0.add_gates(chain(), **arguments)


def test_a_class_that_trains_in_its_own_way_is_told():
    class Own(keras.Model):
        def compute_loss(self, *args, **kwargs):
            return 2.0 * super().compute_loss(*args, **kwargs)

    x = keras.Input((6,))
    model = Own(x, layers.Dense(2)(layers.Dense(4)(x)))
    with pytest.warns(UserWarning, match="'compute_loss' of its own"):
        keras_l0.add_gates(model)


def test_positions_in_the_batch_axis_share_the_noise_of_their_example():
    x = keras.Input((4, 6))
    h = layers.Dense(8)(keras.ops.reshape(x, (-1, 6)))
    h = layers.Add()([h, layers.Dense(8)(layers.Dense(5, "relu")(h))])
    model = keras.Model(x, keras.ops.reshape(layers.Dense(2)(h), (-1, 4, 2)))
    options = keras_l0.GateOptions(0.6, noise="example")
    gated = keras_l0.add_gates(model, gate_options=options)
    switch = next(iter(of_type(gated, L0Switch).values()))
    behind = keras.Model(gated.input, switch.output)
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")
    y = keras.ops.convert_to_numpy(behind(x, training=True)).reshape(3, 4, 8)
    shut = y == 0
    assert (shut == shut[:, :1]).all() and len(np.unique(shut[:, 0], axis=0)) > 1
    gated.compile("adam", "mse")
    gated.fit(x, np.zeros((3, 4, 2)), verbose=0)


def test_a_normalization_computes_as_before():
    norm = layers.Normalization()
    stack = [keras.Input((3,)), norm, layers.Dense(4, "relu"), layers.Dense(1)]
    model = keras.Sequential(stack)
    norm.adapt(np.random.default_rng(0).normal(5, 3, (50, 3)))
    # Weights alone do not tell it what to compute with.
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    x = np.ones((2, 3), "float32")
    for make in (model, copy):
        expected, found = (
            keras.ops.convert_to_numpy(m(x)) for m in (make, keras_l0.add_gates(make))
        )
        np.testing.assert_array_equal(found, expected)


def test_selection_by_layer():
    model = chain()
    gated = keras_l0.add_gates(model, layers=model.get_layer("second"))
    assert [gate.count for gate in keras_l0.gates(gated)] == [5]


def test_what_is_tied_to_a_skipped_layer_gets_no_gates():
    plan = keras_l0.plan_gates(residual(), skip="narrow")
    reasons = {layer.name: layer.reason for layer in plan.ungated}
    assert reasons["stem"] == "its units are tied to those of 'narrow', skipped"
    assert {group.layers for group in plan.groups} == {("wide", "excite"), ("reduce",)}


def depthwise(reads):
    x = keras.Input((4, 4, 3))
    h = layers.Conv2D(6, 1, name="widen")(x) if reads == "widen" else x
    h = layers.DepthwiseConv2D(3, name="deep")(layers.BatchNormalization()(h))
    h = layers.Dense(5, "relu", name="mix")(layers.GlobalAveragePooling2D()(h))
    return keras.Model(x, layers.Dense(2, name="out")(h))


def test_a_layer_that_follows_the_units_of_another_is_chosen_like_it():
    def groups(**choice):
        plan = keras_l0.plan_gates(depthwise("widen"), **choice)
        reasons = {layer.name: layer.reason for layer in plan.ungated}
        return [group.layers for group in plan.groups], reasons

    reached, reasons = groups(skip=layers.DepthwiseConv2D)
    assert reached == [("mix",)]
    assert reasons["widen"] == "its units are tied to those of 'deep', skipped"
    assert set(reasons) == {"widen", "deep", "out"}
    assert groups(layers="deep")[0] == [("widen",)]
    gated = keras_l0.add_gates(depthwise("widen"), {"deep": 1e-3})
    assert [g.regularizer.l0 for g in keras_l0.gates(gated)] == [1e-3, 0]


def test_a_layer_that_follows_the_inputs_is_named():
    plan = keras_l0.plan_gates(depthwise("inputs"))
    reasons = {layer.name: layer.reason for layer in plan.ungated}
    assert reasons["deep"] == "its units are the channels that it reads, which all stay"


def test_strengths_by_layer():
    strengths = {"first": 1e-3, layers.Conv2D: keras_l0.regularizers.L0(1e-5)}
    gated = keras_l0.add_gates(chain(), l0=strengths)
    assert [g.regularizer.l0 for g in keras_l0.gates(gated)] == [1e-3, 1e-5]


def test_under_a_budget():
    gated = keras_l0.add_gates(residual(), budget=keras_l0.Budget(params=0.5))
    gated.compile(keras.optimizers.Adam(0.01), "mse")
    gated.fit(images(32), np.zeros((32, 2)), 2, epochs=10, verbose=0)
    share = keras_l0.strip(gated).count_params() / residual().count_params()
    assert 0.4 <= share <= 0.6
    assert gated.name == "residual"


def test_plan_gates_tells_it_all():
    model = residual()
    plan = keras_l0.plan_gates(model)
    assert plan.reached == pytest.approx(keras_l0.plan(model).reachable)
    assert plan.params == model.count_params()
    groups = {group.layers: group for group in plan.groups}
    assert groups[("stem", "narrow")].units == 4
    # 27 + 1 into it, 6 from it into "wide"; 6 + 1 into "narrow"; 2 into the classes.
    assert groups[("stem", "narrow")].saves.params == 28 + 6 + 7 + 2
    assert [u.name for u in plan.ungated] == ["classes"]
    text = str(plan)
    assert "stem + narrow" in text and "outputs of the model" in text
    assert repr(plan).startswith("<GatePlan of 'residual': 12 gates in 3 groups")


def test_plan_gates_of_a_model_without_a_place_for_gates():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="last")])
    text = str(keras_l0.plan_gates(model))
    assert "No gates for" in text and "'last' (Dense, 8 parameters)" in text
    assert "per unit" not in text


def test_held_back_by_a_barrier():
    x = keras.Input((6,))
    h = layers.LayerNormalization(name="norm")(layers.Dense(8, name="in")(x))
    model = keras.Model(x, layers.Dense(2, name="out")(h))
    plan = keras_l0.plan_gates(model)
    (reason,) = (u.reason for u in plan.ungated if u.name == "in")
    assert reason.startswith("'norm' needs all of its units: its mean and variance")
    with pytest.warns(UserWarning, match="No layer of model .* can be gated"):
        gated = keras_l0.add_gates(model)
    assert not keras_l0.gates(gated)


def test_transfer_learning():
    """Gates on frozen layers learn, the layers do not."""
    model = chain()
    model.get_layer("first").trainable = False
    gated = keras_l0.add_gates(model, l0=1.0)
    assert not gated.get_layer("first").trainable
    before = gated.get_layer("first").get_weights()
    gated.compile(keras.optimizers.Adam(0.1), "mse")
    gated.fit(images(), np.zeros((4, 2)), epochs=2, verbose=0)
    np.testing.assert_array_equal(before[0], gated.get_layer("first").get_weights()[0])
    assert float(np.max(keras_l0.gates(gated)[0].log_alpha)) < 3.5


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (lambda: 3, {}, TypeError, "`model` must be a Keras model"),
        (Subclassed, {}, ValueError, "Rebuild it as"),
        (lambda: keras_l0.add_gates(chain()), {}, ValueError, "no gates yet"),
        (chain, {"l0": -1}, ValueError, "`l0` must be .*>= 0"),
        (chain, {"l0": "much"}, TypeError, "`l0`"),
        (
            chain,
            {"l0": keras_l0.regularizers.L0(1e-3, l2=1e-4)},
            ValueError,
            "`l0` must have l2=0: gates behind a layer",
        ),
        (chain, {"l0": {"fist": 1e-3}}, ValueError, "`l0` must fit layers of 'chain'"),
        (chain, {"layers": "fist"}, ValueError, "`layers` must fit layers of 'chain'"),
        (chain, {"skip": [layers.LSTM]}, ValueError, "`skip` must fit layers of"),
        (chain, {"layers": 3}, TypeError, "`layers` must be a name, a pattern"),
        (chain, {"layers": [3]}, TypeError, "`layers` must hold names, patterns"),
        (chain, {"gate_options": 3}, TypeError, "`gate_options` must be"),
        (chain, {"budget": 0.5}, TypeError, "`budget` must be a `keras_l0.Budget`"),
        (
            chain,
            {"l0": 1e-3, "budget": keras_l0.Budget(params=0.5)},
            ValueError,
            "either a strength or a budget",
        ),
        (chain, {"budget": keras_l0.Budget(params=0.001)}, ValueError, "reach"),
        (chain, {"seed": 0.5}, TypeError, "`seed` must be an integer or None"),
    ],
)
def test_bad_input(make, options, error, message):
    model = make()
    with pytest.raises(error, match=message):
        keras_l0.add_gates(model, **options)


def test_not_built():
    with pytest.raises(ValueError, match="must be built"):
        keras_l0.add_gates(keras.Sequential([layers.Dense(3)]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: L0SharedGate(2.5), TypeError, "`units` must be an integer"),
        (lambda: L0SharedGate(0), ValueError, "`units` must be an integer >= 1"),
        (lambda: L0Switch(axis="x"), TypeError, "`axis` must be an integer"),
        (lambda: L0Switch(axis=(1, 2)), TypeError, "`axis` must be an integer"),
        (lambda: L0Switch(indices=3), TypeError, "`indices` must be .* of integers"),
        (lambda: L0Switch(indices="ab"), TypeError, "`indices` must be .* of integers"),
        (lambda: L0Switch(indices=[0.5]), TypeError, "`indices` must be .* of integer"),
        (lambda: L0Switch(indices=[]), TypeError, "`indices` must be a non-empty"),
        (lambda: L0Switch(axis=0).build((None, 3), (1, 3)), ValueError, "`axis` of"),
        (lambda: L0Switch().build((None, 3), (1, 4)), ValueError, "`indices` of"),
        (
            lambda: L0Switch(indices=[0, 5, 1]).build((None, 3), (1, 3)),
            ValueError,
            "one of 3 gates for each of 3 channels",
        ),
        (
            lambda: L0RecurrentSwitch(layers.Dense(2)),
            TypeError,
            "must be a SimpleRNN, an LSTM, a GRU or a Bidirectional",
        ),
        (
            lambda: L0RecurrentSwitch(layers.Bidirectional(layers.GRU(2), "sum")),
            ValueError,
            "'concat' or None",
        ),
        (
            lambda: L0RecurrentSwitch(layers.GRU(2)).build((None, 3, 2), (None, 2)),
            ValueError,
            "drawn once per batch",
        ),
        (
            lambda: L0RecurrentSwitch(layers.GRU(2)).build((None, 3, 2), (1, 3)),
            ValueError,
            "one of 3 gates for each of 2 channels",
        ),
    ],
)
def test_bad_arguments_of_the_layers(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_gates_that_something_else_reads_are_refused():
    x = keras.Input((3,))
    z = L0SharedGate(3, name="mask")(x)
    model = keras.Model(x, layers.Add()([L0Switch()(layers.Dense(3)(x), z), z]))
    with pytest.raises(RuntimeError, match="may be read by `L0Switch` layers only"):
        keras_l0.strip(model)


def recurrent_residual():
    x = keras.Input((6, 4))
    h = layers.Dense(5, name="embed")(x)
    h = layers.Add()([h, layers.GRU(5, return_sequences=True, name="recur")(h)])
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(h)))


def encoder_decoder():
    x = keras.Input((6, 4))
    h, *states = layers.LSTM(5, return_sequences=True, return_state=True)(x)
    return keras.Model(x, layers.Dense(2)(layers.LSTM(5)(h, initial_state=states)))


def directions_in_a_stream():
    x = keras.Input((6,), dtype="int32")
    h = layers.Embedding(9, 6, mask_zero=True, name="embed")(x)
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")
    h = layers.Add()([h, both(h)])
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(h)))


RECURRENT = {recurrent_residual: 5, encoder_decoder: 5, directions_in_a_stream: 3}


def redrawn(model):
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.weights])
    return model


def sequences_for(model):
    if model.input.dtype == "int32":
        return np.array([[1, 4, 2, 0, 0, 0], [8, 3, 3, 5, 7, 1]])
    return np.random.default_rng(0).normal(size=(3, *model.input.shape[1:]))


@pytest.mark.parametrize("build", RECURRENT)
def test_recurrences_that_are_tied_to_others_follow_one_mask(build, tmp_path):
    model = redrawn(build())
    gated = keras_l0.add_gates(model, l0=1e-3)
    (gate,) = keras_l0.gates(gated)
    assert gate.count == RECURRENT[build]
    x = sequences_for(model)
    np.testing.assert_array_equal(gated(x), model(x))
    names = {layer.name for layer in gated.layers}
    assert names >= {layer.name for layer in model.layers}
    whole = keras_l0.strip(gated).count_params()
    assert whole == model.count_params()
    for closed in (1, 2):
        gate.assign_log_alpha([CLOSED] * closed + [OPEN] * (gate.count - closed))
        small = keras_l0.strip(gated)
        np.testing.assert_allclose(small(x), gated(x), atol=1e-6)
        assert small.count_params() == keras_l0.profile(gated).deployed.params
        if closed == 1:
            assert whole - small.count_params() == gate.cost
    gated.save(tmp_path / "gated.keras")
    again = keras.models.load_model(tmp_path / "gated.keras")
    np.testing.assert_array_equal(again(x), gated(x))


def test_a_stateful_recurrence_under_a_mask_starts_anew_when_it_is_told():
    x = keras.Input(batch_shape=(2, 3, 4))
    recur = layers.GRU(4, return_sequences=True, stateful=True, name="recur")
    h = layers.Dense(4)(x)
    model = keras.Model(x, layers.Dense(2)(layers.Add()([h, recur(h)])))
    gated = keras_l0.add_gates(model)
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    first, second = np.asarray(gated(x)), np.asarray(gated(x))
    assert np.abs(first - second).max() > 1e-3
    gated.get_layer("recur").reset_state()
    np.testing.assert_array_equal(gated(x), first)


@pytest.mark.parametrize("build", RECURRENT)
def test_a_mask_in_a_recurrence_is_drawn_once_a_step(build):
    model = redrawn(build())
    options = keras_l0.GateOptions(open_probability=0.6, noise="example")
    gated = keras_l0.add_gates(model, gate_options=options, seed=3)
    (shared,) = of_type(gated, L0SharedGate).values()
    assert shared.gate.options.noise == "batch"
    x = sequences_for(model)
    rows = np.repeat(x[:1], 4, axis=0)
    drawn = np.asarray(gated(rows, training=True))
    np.testing.assert_allclose(drawn, drawn[[0] * 4], rtol=1e-5)
    assert np.abs(drawn - gated(rows, training=True)).max() > 1e-3


@pytest.mark.parametrize("build", RECURRENT)
def test_a_budget_closes_units_of_tied_recurrences(build):
    gated = keras_l0.add_gates(redrawn(build()), budget=keras_l0.Budget(params=0.7))
    gated.compile(keras.optimizers.Adam(0.05), "mse")
    x = np.repeat(sequences_for(gated), 8, axis=0)
    gated.fit(x, np.zeros((len(x), 2)), batch_size=8, epochs=30, verbose=0)
    assert keras_l0.profile(gated).deployed.params < 0.85 * gated.count_params()


def test_a_recurrent_layer_that_is_called_twice():
    inputs = [keras.Input((6, 4)), keras.Input((6, 4))]
    shared = layers.GRU(5, name="recur")
    y = layers.Dense(2)(layers.Concatenate()([shared(x) for x in inputs]))
    gated = keras_l0.add_gates(keras.Model(inputs, y))
    (gate,) = keras_l0.gates(gated)
    gate.assign_log_alpha([CLOSED, OPEN, OPEN, OPEN, OPEN])
    assert keras_l0.strip(gated).get_layer("recur").units == 4


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", ["int", "tf_idf"])
@pytest.mark.parametrize("make", ["add_gates", "with_budget", "strip"])
def test_words_that_a_lookup_has_adapted_to_are_carried_over(make, mode):
    import tensorflow as tf

    length = {"output_sequence_length": 3} if mode == "int" else {}
    words = layers.TextVectorization(output_mode=mode, **length)
    words.adapt(["a b", "b c", "d"])
    x = keras.Input((1,), dtype="string")
    h = words(x)
    if mode == "int":
        h = layers.Flatten()(layers.Embedding(6, 3)(h))
    y = layers.Dense(2)(layers.Dense(4, activation="relu")(h))
    model = other = keras.Model(x, y)
    if make != "strip":
        other = keras_l0.add_gates(model)
    if make == "with_budget":
        other = keras_l0.with_budget(other, keras_l0.Budget(params=0.8))
    if make == "strip":
        other = keras_l0.strip(keras_l0.add_gates(model))
    text = tf.constant([["a b z"], ["d c a"]])
    np.testing.assert_allclose(model(text), other(text), rtol=1e-5, atol=1e-6)


class WithoutConfig(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def test_a_layer_that_cannot_be_made_anew_is_named():
    x = keras.Input((4,))
    h = WithoutConfig(keras.ops.sin)(layers.Dense(5, activation="relu")(x))
    model = keras.Model(x, layers.Dense(2)(h))
    assert not keras_l0.plan_gates(model).groups
    with pytest.raises(ValueError, match=r"'without_config' \(WithoutConfig\)"):
        keras_l0.add_gates(model)


@pytest.mark.parametrize("noise", ["batch", "example"])
def test_an_input_that_may_be_missing(noise):
    a, b = keras.Input((4,), name="a", optional=True), keras.Input((4,), name="b")
    both = [layers.Dense(5, name=name)(b) for name in ("left", "right")]
    try:
        model = keras.Model([a, b], layers.Dense(2)(layers.Add()(both)))
    except ValueError:
        pytest.skip("this Keras takes no input that nothing reads, as 3.10")
    options = keras_l0.GateOptions(noise=noise)
    gated = keras_l0.add_gates(model, gate_options=options)
    x = np.ones((3, 4), "float32")
    gated([None, x], training=True)
    np.testing.assert_allclose(gated([None, x]), model([None, x]), rtol=1e-6)


def test_a_model_as_deep_as_python_lets_keras_build():
    limit, pairs = sys.getrecursionlimit(), 60
    narrow = len(inspect.stack(0)) + 2 * pairs + 45
    sys.setrecursionlimit(narrow)
    try:
        x = h = keras.Input((2,))
        for _ in range(pairs):
            h = layers.Identity()(layers.Dense(2)(h))
        model = keras.Model(x, layers.Dense(1)(h))
        gated = keras_l0.add_gates(model, budget=keras_l0.Budget(params=0.9))
        assert len(keras_l0.gates(gated)) == pairs
        assert len(keras_l0.strip(gated, verify=False).layers) == len(model.layers)
        assert sys.getrecursionlimit() == narrow
    finally:
        sys.setrecursionlimit(limit)
