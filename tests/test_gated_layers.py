import inspect
import math

import keras
import numpy as np
import pytest
from cases import CASES, GRANULAR, gated_layers
from keras import ops

import keras_l0
from keras_l0 import GateOptions, HardConcrete
from keras_l0.analysis.rules import RULES
from keras_l0.layers import L0LSTM, L0Conv2D, L0Dense, L0EinsumDense, L0Embedding
from keras_l0.layers.granular import Granular
from keras_l0.regularizers import L0


def pytest_generate_tests(metafunc):
    """`case` is every gated layer of the package, those added later included.

    What takes long (it is marked `distinct`) runs on those that bring code of their own
    to calls, and on two of the many that have only what all have.
    """
    if "case" in metafunc.fixturenames:
        layers = gated_layers()
        if metafunc.definition.get_closest_marker("distinct"):
            few = (L0Dense, L0Conv2D, L0LSTM)
            layers = [cls for cls in layers if cls in few or "call" in vars(cls)]
        cases = [CASES[cls] for cls in layers if cls in CASES]
        cases += [case for case in GRANULAR if case.cls in layers]
        metafunc.parametrize("case", cases, ids=lambda case: case.name)


def test_every_gated_layer_has_a_case_and_a_rule():
    layers = set(gated_layers())
    assert layers == set(CASES)
    assert not layers - set(RULES)
    public = set(map(keras_l0.layers.__dict__.get, keras_l0.layers.__all__))
    assert layers <= public


SHIFT = 2 / 3 * math.log(11)
BACKEND = keras.backend.backend()


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, "float64")))


def values(tensor):
    return ops.convert_to_numpy(tensor)


def no_loss(y_true, y_pred):
    """Leaves nothing in the reported loss but the penalties."""
    return 0.0 * ops.sum(y_pred, axis=tuple(range(1, len(y_pred.shape))))


def behind_only(case):
    if not case.behind:
        pytest.skip("its gates act inside")


def targets(size=4):
    return np.zeros((size, 2), "float32")


def same_weights(case, gate_options=None, **kwargs):
    """A gated layer and the plain one, built with the same weights."""
    gated = case.gated(gate_options=gate_options, **kwargs)
    plain = case.plain(**kwargs)
    gated.build((None, *case.input_shape))
    plain.build((None, *case.input_shape))
    rng = np.random.default_rng(1)
    for a, b in zip(plain.weights, gated.weights, strict=False):
        assert a.name == b.name
        start = rng.normal(size=a.shape)
        a.assign(start)
        b.assign(start)
    return gated, plain


def test_takes_every_argument_of_the_keras_layer(case):
    plain = inspect.signature(case.plain_class()).parameters
    ours = inspect.signature(case.cls).parameters
    for name, parameter in plain.items():
        assert ours[name].default == parameter.default
        assert ours[name].kind == parameter.kind
    offered = {"granularity"} if issubclass(case.cls, Granular) else set()
    assert set(ours) - set(plain) == {"l0", "gate_options"} | offered
    keywords = [n for n, p in ours.items() if p.kind is not p.VAR_KEYWORD]
    order = [n for n in plain if n in keywords]
    assert keywords[: len(order)] == order
    inspect.signature(case.cls).bind(*[None] * len(order), l0=0.1, name="by_position")


def test_config_has_every_key_of_the_keras_layer(case):
    layer, plain = case.gated(l0=0.1), case.plain()
    config = layer.get_config()
    assert set(plain.get_config()) <= set(config)
    for name in set(plain.get_config()) - {"name"}:
        assert config[name] == plain.get_config()[name]
    assert layer.plain_config() == {**plain.get_config(), "name": layer.name}
    # The plain layer can be made from it.
    assert case.plain_class().from_config(layer.plain_config()).name == layer.name


def test_unknown_arguments_are_refused(case):
    with pytest.raises((TypeError, ValueError), match="drop_rate"):
        case.gated(drop_rate=0.5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_open_gates_are_the_keras_layer_to_the_bit(case, use_bias):
    gated, plain = same_weights(case, **case.bias(use_bias))
    x = case.batch(16)
    expected = values(plain(x))
    for training in (None, False):
        np.testing.assert_array_equal(values(gated(x, training=training)), expected)
    gated.gate.assign_log_alpha(1e6)
    np.testing.assert_array_equal(values(gated(x, training=True)), expected)
    model = keras.Sequential([case.input(), gated])
    plain_model = keras.Sequential([case.input(), plain])
    found, expected = (m.predict(x, verbose=0) for m in (model, plain_model))
    if keras.backend.backend() == "jax":
        # Two programs, compiled without optimization (conftest.py), round differently.
        np.testing.assert_allclose(found, expected, 1e-5, 1e-6)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("training", [False, True])
def test_gates_multiply_the_output_bias_included(case, training):
    behind_only(case)
    gated, plain = same_weights(case)
    gated.gate.assign_log_alpha(case.log_alphas() * 100)
    y = values(gated(case.batch(), training=training))
    open_ = case.log_alphas() > 0
    assert 0 < open_.sum() < case.units
    # A closed unit is 0, its bias and activation included, in training as at test time.
    assert (y[..., ~open_] == 0).all()
    np.testing.assert_array_equal(
        y[..., open_], values(plain(case.batch()))[..., open_]
    )


def test_draws_in_training_multiply_whole_units(case):
    behind_only(case)
    gated, plain = same_weights(case, gate_options=GateOptions(0.7))
    x, expected = case.batch(), values(plain(case.batch()))
    y = values(gated(x, training=True))
    z = np.array([np.linalg.norm(y[..., u]) for u in range(case.units)])
    z /= [np.linalg.norm(expected[..., u]) for u in range(case.units)]
    np.testing.assert_allclose(y, expected * z, rtol=1e-4, atol=1e-5)
    assert (values(gated(x, training=True)) != y).any()


def test_one_gate_per_unit(case):
    layer = case.gated()
    layer.build((None, *case.input_shape))
    assert layer.gates == [layer.gate]
    assert layer.gate.count == case.units
    assert keras_l0.gates(layer) == [layer.gate]


@pytest.mark.parametrize("l0", [0.25, L0(0.25)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_cost_is_the_weights_of_a_unit(case, use_bias, l0):
    layer = case.gated(l0=l0, **case.bias(use_bias))
    layer.build((None, *case.input_shape))
    cost = case.cost if use_bias else case.cost_without_bias
    layer.gate.assign_log_alpha(case.log_alphas())
    (loss,) = layer.losses
    expected = 0.25 * cost * sigmoid(case.log_alphas() + SHIFT).sum()
    assert values(loss) == pytest.approx(expected, rel=1e-5)


def test_cost_of_grouped_convolutions_and_of_lora():
    layer = L0Conv2D(6, 3, groups=2)
    layer.build((None, 8, 8, 4))
    assert layer.gate.cost == 3 * 3 * 2 + 1
    layer = L0Dense(6, lora_rank=2)
    layer.build((None, 8))
    assert layer.gate.cost == 8 + 1


def random_weights(layer, case):
    layer.build((None, *case.input_shape))
    rng = np.random.default_rng(1)
    for weight in layer.switched_weights():
        weight.assign(rng.normal(size=weight.shape))
    return layer


def squares_by_unit(case, layer):
    """For each unit the sum of the squared weights that make it."""
    if case.shape:
        pytest.skip("its gates switch no units: tests/test_granularity.py")
    total = np.zeros(case.units)
    for weight in layer.switched_weights():
        w = values(weight).astype("float64")
        if case.behind:
            total += _squares_that_move_a_unit(case, layer, weight, w)
        else:  # Of a recurrent kernel: the columns of each of its own gates.
            total += (w.reshape(-1, case.units) ** 2).sum(axis=0)
    return total


def _squares_that_move_a_unit(case, layer, weight, start):
    """Whose a weight is shows when it moves: no other unit does."""
    total, x = np.zeros(case.units), case.batch(8)
    before = values(layer(x)).reshape(-1, case.units)
    for index in np.ndindex(start.shape):
        moved = start.copy()
        moved[index] += 1.0
        weight.assign(moved)
        changed = (values(layer(x)).reshape(-1, case.units) != before).any(axis=0)
        if case.vocabulary and not changed.any():
            changed[index[-1]] = True  # An index that is not in the batch.
        assert changed.sum() == 1
        total[changed] += start[index] ** 2
    weight.assign(start)
    return total


@pytest.mark.parametrize("open_probability", [0.99, 0.6])
def test_the_expected_l2_norm_of_what_gates_switch(case, open_probability):
    # Where gates started plays no part in it.
    options = GateOptions(open_probability)
    layer = random_weights(
        case.gated(gate_options=options, l0=L0(0.25, l2=0.125)), case
    )
    squares = squares_by_unit(case, layer)
    layer.gate.assign_log_alpha(case.log_alphas())
    p = sigmoid(case.log_alphas() + SHIFT)
    expected = 0.25 * case.cost * p.sum() + 0.125 * (p * squares).sum()
    assert values(layer.losses[0]) == pytest.approx(expected, rel=1e-5)


def test_the_expected_l2_norm_decays_weights_and_biases(case, gradient):
    layer = random_weights(case.gated(l0=L0(l2=0.125)), case)
    layer.gate.assign_log_alpha(case.log_alphas())
    for weight in layer.switched_weights():
        raw = ops.convert_to_tensor(layer.gate.raw)
        slope = gradient(lambda raw=raw: layer.gate.penalty(raw), weight)
        w = values(weight)
        # Towards 0, each weight as far as its gate is open.
        assert (np.sign(slope) == np.sign(w)).all()
        shares = np.unique((slope / w / 0.25).round(4))
        p = sigmoid(case.log_alphas() + SHIFT).round(4)
        np.testing.assert_allclose(shares, np.unique(p), atol=2e-4)


def test_trains_with_an_expected_l2_norm():
    layer = L0Dense(5, l0=L0(1e-3, l2=1e-2))
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(2)])
    model.compile("adam", "mse")
    data = np.ones((8, 3), "float32"), targets(8)
    history = model.fit(*data, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    clone = keras.models.clone_model(model)
    assert keras_l0.gates(clone)[0].regularizer.l2 == 1e-2 and clone.losses


def once(layer, x):
    return layer(x)


def twice(layer, x):
    return keras.layers.Add()([layer(x), layer(2 * x)])


def thrice(layer, x):
    return keras.layers.Add()([layer(x), layer(2 * x), layer(3 * x)])


def in_two_models(layer, x):
    inner = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype), layer])
    return keras.layers.Add()([inner(x), layer(x)])


def time_distributed(layer, x):
    steps = keras.layers.RepeatVector(3)(keras.layers.Flatten()(x))
    steps = keras.layers.Reshape((3, *x.shape[1:]))(steps)
    return keras.layers.TimeDistributed(layer)(steps)


WIRINGS = [once, twice, thrice, in_two_models, time_distributed]


def check_charged_once(case, layer, wiring):
    l0, x = layer.gate.regularizer.l0, case.input()
    h = wiring(layer, x)
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(h)))
    layer.gate.assign_log_alpha(case.log_alphas())
    expected = l0 * case.cost * sigmoid(case.log_alphas() + SHIFT).sum()
    assert float(sum(values(x) for x in model.losses)) == pytest.approx(expected)
    model.compile(keras.optimizers.SGD(0.0), no_loss)
    x = case.batch(8)
    history = model.fit(x, targets(8), batch_size=4, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    # However often: after training, and at test time, too.
    assert float(sum(values(x) for x in model.losses)) == pytest.approx(expected)
    loss = model.evaluate(x, targets(8), batch_size=4, verbose=0)
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.distinct
@pytest.mark.parametrize("wiring", WIRINGS)
def test_charged_once_however_often_it_is_called(case, wiring):
    check_charged_once(case, case.gated(l0=0.125), wiring)


needs_remat = pytest.mark.skipif(
    not hasattr(keras, "RematScope"), reason="this Keras has no RematScope"
)


@pytest.mark.distinct
@needs_remat
@pytest.mark.parametrize("mode", ["full", "activations"])
def test_charged_once_under_remat(case, mode):
    if mode == "full":
        behind_only(case)  # Keras cannot rematerialize its own recurrent layers
    with keras.RematScope(mode):
        layer = case.gated(l0=0.125)
    check_charged_once(case, layer, twice)


@pytest.mark.distinct
def test_charged_with_the_other_losses(case):
    """Beside weight penalties of Keras, on top of the loss on the data."""
    layer = case.gated(l0=0.125, **{case.regularizer: keras.regularizers.L2(0.5)})
    model = case.model(layer)
    layer.gate.assign_log_alpha(case.log_alphas())
    penalty = 0.125 * case.cost * sigmoid(case.log_alphas() + SHIFT).sum()
    penalty += 0.5 * (values(case.kernel(layer)).astype("float64") ** 2).sum()
    x, y = case.batch(8), np.ones((8, 2), "float32")
    error = ((model.predict(x, verbose=0) - 1) ** 2).mean()
    model.compile(loss="mse")
    assert model.evaluate(x, y, verbose=0) == pytest.approx(error + penalty, rel=1e-5)


def test_a_model_of_several_gated_layers_is_charged_for_each():
    model = keras.Sequential(
        [keras.Input((3,)), L0Dense(4, l0=0.5), L0Dense(2, l0=2.0), L0Dense(1)]
    )
    p = sigmoid(0.0 + SHIFT)
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(0.0)
    total = float(sum(values(x) for x in model.losses))
    assert total == pytest.approx(p * (0.5 * 4 * 4 + 2.0 * 2 * 5), rel=1e-5)


# Few gates are drawn exactly 0 or 1, where the gradient is 0.
SMOOTH = GateOptions(0.9, distribution=HardConcrete(beta=2.0))


def check_gradient(case, layer, call, gradient):
    """Gradient of what ``call(x)`` gives for log_alpha, with the noise held fixed."""
    gate, x, beta = layer.gate, case.batch(3), SMOOTH.distribution.beta
    start = values(gate.seed_generator.state).copy()

    def with_fixed_noise():
        gate.seed_generator.state.assign(start)
        return call(x)

    y = values(with_fixed_noise()).astype("float64")
    plain = case.plain()
    plain.build((None, *case.input_shape))
    plain.set_weights([values(w) for w in layer.weights[: len(plain.weights)]])
    u = values(plain(x)).astype("float64")
    weights = np.random.default_rng(2).normal(size=u.shape)
    # z and the logit of its noise, from one output of each unit.
    z = np.array(
        [np.vdot(y[..., i], u[..., i]) / np.vdot(u[..., i], u[..., i])
         for i in range(case.units)]
    )  # fmt: skip
    inside = (z > 1e-4) & (z < 1 - 1e-4)
    s = (np.where(inside, z, 0.5) + 0.1) / 1.2
    noise = np.log(s / (1 - s)) * beta - values(gate.log_alpha).astype("float64")
    log_alpha = values(gate.log_alpha).astype("float64")

    def total(location):
        draw = np.where(inside, sigmoid((noise + location) / beta) * 1.2 - 0.1, z)
        return (weights * u * draw).sum(axis=tuple(range(u.ndim - 1)))

    slopes = (total(log_alpha + 1e-5) - total(log_alpha - 1e-5)) / 2e-5
    w = ops.convert_to_tensor(weights.astype("float32"))
    found = gradient(lambda: ops.sum(w * with_fixed_noise()), gate.raw)
    np.testing.assert_allclose(found, 16 * slopes, rtol=2e-3, atol=2e-3)
    assert inside.any()


def test_gradient_through_a_layer_against_finite_differences(case, gradient):
    behind_only(case)
    layer = case.gated(gate_options=SMOOTH)
    layer.build((None, *case.input_shape))
    check_gradient(case, layer, lambda x: layer(x, training=True), gradient)


def test_gradients_reach_the_weights_through_open_gates_only(case, gradient):
    behind_only(case)
    layer = case.gated()
    layer.build((None, *case.input_shape))
    layer.gate.assign_log_alpha(case.log_alphas() * 100)
    x = case.batch()
    kernel = case.kernel(layer)
    found = gradient(lambda: ops.sum(layer(x, training=True)), kernel)
    found = case.by_unit(ops.convert_to_numpy(found))
    closed = case.log_alphas() < 0
    assert (found[..., closed] == 0).all()
    assert (found[..., case.log_alphas() > 0] != 0).any()


@pytest.mark.distinct
@pytest.mark.parametrize(
    "options",
    [{"run_eagerly": True}, {"jit_compile": True}, {"jit_compile": False},
     {"jit_compile": "auto", "steps_per_execution": 2}],
    ids=str,
)  # fmt: skip
def test_trains_however_it_is_compiled(case, options):
    if BACKEND == "torch" and options.get("jit_compile") is True:
        pytest.skip("torch.compile needs a C++ compiler")
    if BACKEND == "torch" and "steps_per_execution" in options:
        pytest.skip("one step per execution is all that Keras offers on Torch")
    layer = case.gated(l0=1e-3)
    model = case.model(layer)
    before = values(layer.gate.log_alpha)
    model.compile("adam", "mse", **options)
    history = model.fit(case.batch(4), targets(4), batch_size=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert (values(layer.gate.log_alpha) != before).all()


@pytest.mark.distinct
def test_closes_under_a_strong_penalty_and_stays_open_without(case):
    options = GateOptions(noise=case.noise, min_units=0)
    for l0, closed in ((1.0, True), (0.0, False)):
        layer = case.gated(l0=l0, gate_options=options)
        model = case.model(layer)
        model.compile(keras.optimizers.Adam(0.1), no_loss)
        model.fit(case.batch(8), targets(8), batch_size=2, epochs=2, verbose=0)
        assert (values(layer.gate.test_gates) == (0 if closed else 1)).all()


@pytest.mark.distinct
def test_same_seed_same_numbers(case):
    def trained(seed):
        keras.utils.set_random_seed(seed)
        model = case.model(case.gated(l0=1e-3, gate_options=GateOptions(0.8)))
        model.compile("adam", "mse")
        history = model.fit(
            case.batch(8), targets(8), batch_size=2, epochs=2, verbose=0
        ).history
        return history["loss"], [values(w) for w in model.weights]

    (loss, weights), (again, weights_again) = trained(5), trained(5)
    assert loss == again
    for a, b in zip(weights, weights_again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert trained(6)[0] != loss


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("how", ["argument", "global"])
def test_mixed_precision(case, policy, how):
    if how == "global":
        keras.config.set_dtype_policy(policy)
        layer = case.gated(l0=1e-4)
    else:
        layer = case.gated(l0=1e-4, dtype=policy)
    case.model(layer)
    of = keras.backend.standardize_dtype
    assert of(layer(case.batch()).dtype) == policy.removeprefix("mixed_")
    assert of(layer.gate.raw.dtype) == "float32"
    assert of(layer.gate.log_alpha.dtype) == "float32"
    assert of(layer.losses[0].dtype) == "float32"
    # A penalty that half precision would round to 0.
    layer.gate.assign_log_alpha(-30.0)
    assert 0 < values(layer.losses[0]) < 1e-12


@pytest.mark.distinct
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_trains_in_mixed_precision(case, policy):
    keras.config.set_dtype_policy(policy)
    layer = case.gated(l0=1e-4)
    model = case.model(layer)
    layer.gate.assign_log_alpha(0.0)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    x, y = case.batch(8, dtype="float16"), targets(8)
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(values(layer.gate.log_alpha)).all()
    assert (values(layer.gate.log_alpha) != 0).all()


def test_saved_and_loaded(case, tmp_path):
    options = GateOptions(0.7, case.noise, 8.0)
    layer = case.gated(l0=L0.aic(10), gate_options=options)
    model = case.model(layer)
    model.compile("adam", "mse", run_eagerly=True)
    model.fit(case.batch(8), targets(8), verbose=0)
    layer.gate.assign_log_alpha(case.log_alphas())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    twin = loaded.layers[0]
    assert type(twin) is case.cls
    assert twin.gate.options == options and twin.gate.regularizer.l0 == 0.1
    assert twin.gate.cost == case.cost
    np.testing.assert_array_equal(values(twin.gate.log_alpha), case.log_alphas())
    x = case.batch(8)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    assert values(loaded.losses[0]) == values(model.losses[0])
    history = loaded.fit(x, targets(8), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert (values(twin.gate.log_alpha) != case.log_alphas()).all()


def test_weights_saved_and_loaded(case, tmp_path):
    model, twin = case.model(case.gated()), case.model(case.gated())
    (gate,), (twin_gate,) = keras_l0.gates(model), keras_l0.gates(twin)
    gate.assign_log_alpha(case.log_alphas())
    model.save_weights(tmp_path / "model.weights.h5")
    twin.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(values(twin_gate.log_alpha), case.log_alphas())
    twin.set_weights(case.model(case.gated()).get_weights())
    assert (values(twin_gate.test_gates) == 1).all()


def test_cloned(case):
    options = GateOptions(0.7, case.noise, 8.0)
    model = case.model(case.gated(l0=0.5, gate_options=options))
    clone = keras.models.clone_model(model)
    (gate,), (twin,) = keras_l0.gates(model), keras_l0.gates(clone)
    assert twin is not gate and twin.raw is not gate.raw
    assert twin.options == options and twin.regularizer.l0 == 0.5
    clone.set_weights(model.get_weights())
    x = case.batch()
    np.testing.assert_array_equal(values(clone(x)), values(model(x)))
    twin.assign_log_alpha(-9.0)
    assert (values(gate.log_alpha) != -9).all()


@pytest.mark.distinct
@pytest.mark.parametrize("frozen_by", ["argument", "attribute", "model"])
def test_frozen_layers(case, frozen_by):
    kwargs = {"trainable": False} if frozen_by == "argument" else {}
    layer = case.gated(l0=0.5, gate_options=GateOptions(0.6), **kwargs)
    model = case.model(layer)
    if frozen_by == "attribute":
        layer.trainable = False
    elif frozen_by == "model":
        model.trainable = False
    assert model.losses == []
    assert not layer.trainable_weights and not layer.gate.trainable_weights
    x = case.batch()
    expected = values(layer(x, training=False))
    np.testing.assert_array_equal(values(layer(x, training=True)), expected)
    if frozen_by != "model":
        # The layer behind it is all that learns.
        assert len(model.trainable_weights) == 2
        before = [values(w) for w in layer.weights]
        model.compile("adam", "mse")
        model.fit(x, targets(), verbose=0)
        for a, b in zip(before, layer.weights, strict=True):
            np.testing.assert_array_equal(a, values(b))
        layer.trainable = True
    else:
        model.trainable = True
    assert len(model.losses) == 1 and layer.gate.trainable_weights
    assert (values(layer(x, training=True)) != expected).any()


def test_gates_frozen_on_their_own_stay_frozen_in_copies(case, tmp_path):
    layer = case.gated(l0=0.5)
    model = case.model(layer)
    layer.gate.trainable = False
    trained = {id(w) for w in model.trainable_weights}
    assert model.losses == [] and id(case.kernel(layer)) in trained
    model.save(tmp_path / "model.keras")
    for copy in (
        keras.models.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
    ):
        (gate,) = keras_l0.gates(copy)
        assert not gate.trainable and copy.losses == []
        assert len(copy.trainable_weights) == len(trained)


def test_config_round_trip(case):
    options = GateOptions(0.7, case.noise, 8.0)
    layer = case.gated(l0=0.5, gate_options=options, name="units", dtype="bfloat16")
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == f"keras_l0>{case.cls.__name__}"
    twin = keras.saving.deserialize_keras_object(config)
    assert twin.get_config() == layer.get_config()
    assert type(twin).from_config(twin.get_config()).get_config() == twin.get_config()
    assert twin.gate.options == options and twin.gate.regularizer.l0 == 0.5


@pytest.mark.parametrize("dtype", ["int8_from_float32", "float8_from_float32"])
def test_quantized_policies_are_refused(case, dtype):
    # Keras calls such a layer past its `call`, and past its gate.
    with pytest.raises(ValueError, match="`dtype` of .* must not be a quantized.*Rec"):
        case.gated(dtype=dtype)


def test_gate_options_of_the_wrong_type(case):
    with pytest.raises(TypeError, match="`gate_options` must .*Received: 0.5"):
        case.gated(gate_options=0.5)


@pytest.mark.parametrize("training", [False, True])
def test_channels_first(training):
    kwargs = {"filters": 4, "kernel_size": 3, "data_format": "channels_first"}
    layer, plain = L0Conv2D(**kwargs), keras.layers.Conv2D(**kwargs)
    layer.build((None, 2, 6, 5))
    plain.build((None, 2, 6, 5))
    plain.set_weights([values(layer.kernel), values(layer.bias)])
    assert layer.gate.count == 4 and layer.gate.cost == 3 * 3 * 2 + 1
    assert layer.gate.broadcast_shape(4) == (4, 1, 1)
    x = np.random.default_rng(0).normal(size=(2, 2, 6, 5)).astype("float32")
    try:
        expected = values(plain(x))
    except Exception as error:  # Whatever the backend raises.
        pytest.skip(f"no channels_first convolution here: {type(error).__name__}")
    np.testing.assert_array_equal(values(layer(x)), expected)
    layer.gate.assign_log_alpha([100.0, -100.0, 100.0, -100.0])
    y = values(layer(x, training=training))
    np.testing.assert_array_equal(y[:, ::2], expected[:, ::2])
    assert (y[:, 1::2] == 0).all()


def test_dense_on_sequences():
    layer = L0Dense(5, l0=1.0)
    layer.build((None, 7, 3))
    layer.gate.assign_log_alpha([-9, -9, 9, 9, 9])
    y = values(layer(np.ones((2, 7, 3), "float32"), training=True))
    assert y.shape == (2, 7, 5) and (y[..., :2] == 0).all() and (y[..., 2:] != 0).all()
    assert values(layer.losses[0]) == pytest.approx(3 * 4, rel=1e-3)


@pytest.mark.parametrize("noise", ["batch", "example"])
@pytest.mark.parametrize(("built", "called"), [((7, 3), (3,)), ((3,), (7, 3))])
def test_dense_on_another_rank_than_it_was_built_for(built, called, noise):
    layer = L0Dense(50, use_bias=False, gate_options=GateOptions(0.6, noise))
    layer.build((None, *built))
    x = np.ones((6, *called), "float32")
    z = values(layer(x, training=True)) / values(layer(x))
    assert z.shape == (6, *called[:-1], 50)
    rows = z.reshape(6, -1, 50)
    np.testing.assert_allclose(rows, np.broadcast_to(rows[:, :1], rows.shape))
    assert len(np.unique(rows[:, 0], axis=0)) == (6 if noise == "example" else 1)


@pytest.mark.distinct
@needs_remat
def test_gradient_under_remat(case, gradient):
    behind_only(case)
    with keras.RematScope("full"):
        layer = case.gated(gate_options=SMOOTH)
    layer.build((None, *case.input_shape))
    check_gradient(case, layer, lambda x: layer(x, training=True), gradient)


@pytest.mark.parametrize(
    "equation, shape, axes, axis, cost",
    [
        ("...x,xy->...y", 4, "y", 2, 3 + 1),
        ("ab...,bc->ac...", 4, "c", 1, 5 + 1),
        ("abc,dc->adb", (4, 5), "d", 1, 3 + 1),
        ("abc,cde->abde", (5, 2, 4), "de", 3, 3 * 2 + 2),
        # A bias without an entry per unit stays when a unit goes.
        ("abc,cde->abde", (5, 2, 4), "d", 3, 3 * 2),
    ],
)
def test_units_of_an_equation(equation, shape, axes, axis, cost):
    layer = L0EinsumDense(equation, shape, bias_axes=axes)
    y = layer(np.ones((2, 5, 3), "float32"))
    assert layer.gate.gated_axes(len(y.shape)) == (axis,)
    assert layer.gate.count == y.shape[axis] == 4
    assert layer.gate.cost == cost
    per_unit = sum(ops.shape(layer.by_unit(w))[0] for w in layer.switched_weights())
    assert per_unit == cost


def test_equations_without_units_are_refused():
    with pytest.raises(ValueError, match="`equation` of .* must have units.*Rec"):
        L0EinsumDense("abc,c->abc", (5, 3))


def test_embedding_with_initial_weights_and_masks():
    table = np.arange(12.0).reshape(4, 3)
    for layer in (
        L0Embedding(4, 3, mask_zero=True, weights=[table]),
        L0Embedding(4, 3, "uniform", None, None, True, table),
    ):
        y = layer(np.array([[1, 0, 3]]))
        np.testing.assert_array_equal(values(y)[0], table[[1, 0, 3]])
        assert layer.gate.count == 3 and layer.gate.cost == 4
        mask = keras.src.backend.get_keras_mask(y)
        np.testing.assert_array_equal(values(mask), [[True, False, True]])
