import inspect
import math

import keras
import numpy as np
import pytest
from keras import ops

import keras_l0
from keras_l0 import GateOptions, HardConcrete
from keras_l0.layers import L0Gate

SHIFT = 2 / 3 * math.log(11)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, "float64")))


def test_gates(log_alpha):
    """Eq. 13 of the paper."""
    return np.clip(sigmoid(log_alpha) * 1.2 - 0.1, 0, 1)


test_gates.__test__ = False


def values(tensor):
    return ops.convert_to_numpy(tensor)


def built(input_shape, **kwargs):
    gate = L0Gate(**kwargs)
    gate.build((None, *input_shape))
    return gate


def ones(*shape):
    return np.ones(shape, "float32")


AXES = [
    (-1, (4, 5, 3), (3,), (1, 1, 1, 3)),
    (3, (4, 5, 3), (3,), (1, 1, 1, 3)),
    (1, (4, 5, 3), (4,), (1, 4, 1, 1)),
    ((1, 2), (4, 5, 3), (4, 5), (1, 4, 5, 1)),
    ([2, 1], (4, 5, 3), (4, 5), (1, 4, 5, 1)),
    ((-1, 1), (4, 5, 3), (4, 3), (1, 4, 1, 3)),
    ((1, 2, 3), (4, 5, 3), (4, 5, 3), (1, 4, 5, 3)),
    (-2, (6, 2), (6,), (1, 6, 1)),
    (np.int64(1), (7,), (7,), (1, 7)),
]


@pytest.mark.parametrize(("axis", "shape", "gates", "broadcast"), AXES)
def test_axes(axis, shape, gates, broadcast):
    gate = built(shape, axis=axis)
    assert tuple(gate.log_alpha.shape) == gates
    assert gate.count == math.prod(gates)
    rng = np.random.default_rng(0)
    log_alpha = rng.normal(scale=3, size=gates).astype("float32")
    x = rng.normal(size=(2, *shape)).astype("float32")
    gate.assign_log_alpha(log_alpha)
    expected = x * test_gates(log_alpha).reshape(broadcast)
    np.testing.assert_allclose(values(gate(x)), expected, atol=1e-6)
    # A draw is shared along the same axes, and by the examples of a batch.
    z = values(gate(ones(2, *shape), training=True))
    assert z.shape == (2, *shape)
    same = tuple(a for a, size in enumerate(broadcast) if size == 1)
    assert (z == z.max(axis=same, keepdims=True)).all()


@pytest.mark.parametrize(
    ("axis", "shape", "expected"),
    [
        (0, (4, 3), "axes between 1 and 2 (axis 0 is the batch)"),
        (-3, (4, 3), "axes between 1 and 2 (axis 0 is the batch)"),
        ((0, 1), (4, 3), "axes between 1 and 2 (axis 0 is the batch)"),
        (3, (4, 3), "axes between 1 and 2"),
        (-4, (4, 3), "axes between 1 and 2"),
        ((1, 1), (4, 3), "each axis once"),
        ((2, -1), (4, 3), "each axis once"),
        (1, (None, 3), "axes of known size"),
        ((1, 2), (None, 3), "axes of known size"),
        (-1, (), "an axis besides the batch axis"),
    ],
)
def test_wrong_axes(axis, shape, expected):
    with pytest.raises(ValueError, match="`axis` of gate 'pixels' must name") as caught:
        built(shape, axis=axis, name="pixels")
    message = str(caught.value)
    assert expected in message
    assert f"Received: axis={axis} for an input of shape {(None, *shape)}" in message


def test_an_ungated_axis_may_be_of_unknown_size():
    gate = built((None, 3), axis=-1)
    assert values(gate(ones(2, 5, 3))).shape == (2, 5, 3)


@pytest.mark.parametrize(
    "axis", [True, (1, False), 1.0, (1.0,), "1", None, (), [], {1}, np.ones(1)]
)
def test_axes_of_the_wrong_type(axis):
    with pytest.raises(TypeError, match="`axis` must be an integer.*Received: axis="):
        L0Gate(axis=axis)


@pytest.mark.parametrize("cost", [-1.0, math.nan, math.inf, [1.0, -1.0], [math.nan]])
def test_costs_out_of_range(cost):
    with pytest.raises(ValueError, match="`cost` must be .*Received: cost="):
        L0Gate(cost=cost)


@pytest.mark.parametrize("cost", ["3", None, True, [1, None], [[1], [1, 2]], 1j])
def test_costs_of_the_wrong_type(cost):
    with pytest.raises(TypeError, match="`cost` must be .*Received: cost="):
        L0Gate(cost=cost)


@pytest.mark.parametrize("cost", [[1.0, 2.0], [1.0] * 4])
def test_cost_of_the_wrong_length(cost):
    with pytest.raises(ValueError, match=r"`cost` of 'g' .*one per gate \(3\).*Rec"):
        built((3,), cost=cost, name="g")


@pytest.mark.parametrize(
    ("cost", "axis", "total"),
    [
        (7, -1, 7 * 6),
        (2.5, -1, 2.5 * 6),
        (np.arange(6), -1, 15),
        ([0, 1, 2, 3, 4, 5], -1, 15),
        (np.arange(12).reshape(2, 6), (1, 2), 66),
    ],
)
def test_cost_is_charged_per_gate(cost, axis, total):
    gate = built((2, 6), axis=axis, l0=0.5, cost=cost)
    gate.assign_log_alpha(1.0)
    (loss,) = gate.losses
    assert float(loss) == pytest.approx(0.5 * total * sigmoid(1 + SHIFT), rel=1e-5)


def test_costs_go_with_their_gates():
    gate = built((3,), l0=1.0, cost=[1, 10, 100])
    gate.assign_log_alpha([-20.0, 20.0, -20.0])
    assert float(gate.losses[0]) == pytest.approx(10, rel=1e-4)


@pytest.mark.parametrize("noise", ["batch", "example"])
def test_noise_per_batch_and_per_example(noise):
    gate = built((50,), options=GateOptions(0.6, noise))
    z = values(gate(ones(8, 50), training=True))
    assert ((z >= 0) & (z <= 1)).all()
    rows_differ = len(np.unique(z, axis=0)) == 8
    assert rows_differ == (noise == "example")
    assert (z == z[0]).all() == (noise == "batch")
    # And every batch is drawn afresh.
    assert (values(gate(ones(8, 50), training=True)) != z).any()


def test_noise_per_example_is_shared_along_the_other_axes():
    gate = built((4, 5, 3), axis=1, options=GateOptions(0.6, "example"))
    z = values(gate(ones(6, 4, 5, 3), training=True))
    assert (z == z[:, :, :1, :1]).all()
    assert len(np.unique(z[:, :, 0, 0], axis=0)) == 6


@pytest.mark.parametrize("noise", ["batch", "example"])
def test_draws_have_the_distribution(noise):
    options = GateOptions(0.6, noise, distribution=HardConcrete(beta=0.5))
    gate = built((2000,), options=options)
    z = values(gate(ones(10, 2000), training=True))
    draws = z[0] if noise == "batch" else z
    assert (draws != 0).mean() == pytest.approx(0.6, abs=5 * 0.49 / draws.size**0.5)


def test_draws_are_seeded():
    draws = [
        values(
            built((20,), options=GateOptions(0.5), seed=s)(ones(2, 20), training=True)
        )
        for s in (3, 3, 4)
    ]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_open_gates_are_neutral_to_the_bit(dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless it is told to")
    gate = built((64,), dtype=dtype)
    x = ops.cast(np.random.default_rng(0).normal(size=(9, 64)) * 100, dtype)
    y = gate(x, training=False)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    np.testing.assert_array_equal(values(y), values(x))
    gate.assign_log_alpha(1e6)
    np.testing.assert_array_equal(values(gate(x, training=True)), values(x))


def test_closed_gates_give_exact_zeros():
    gate = built((4,))
    gate.assign_log_alpha([-2.398, -5, -100, -1e30])
    assert (values(gate(ones(3, 4))) == 0).all()


@pytest.mark.parametrize("distribution", [HardConcrete(), HardConcrete(1, -0.5, 2.0)])
def test_the_test_time_gate_is_eq_13(distribution):
    log_alpha = np.linspace(-6, 6, 25).astype("float32")
    gate = built((25,), options=GateOptions(distribution=distribution))
    gate.assign_log_alpha(log_alpha)
    gamma, zeta = distribution.gamma, distribution.zeta
    expected = np.clip(sigmoid(log_alpha) * (zeta - gamma) + gamma, 0, 1)
    np.testing.assert_allclose(values(gate.test_gates), expected, atol=1e-6)
    for training in (False, None):
        z = values(gate(ones(1, 25), training=training))[0]
        np.testing.assert_array_equal(z, values(gate.test_gates))
    p = sigmoid(log_alpha - distribution.beta * math.log(-gamma / zeta))
    np.testing.assert_allclose(values(gate.prob_open), p, rtol=1e-5)


@pytest.mark.parametrize("estimator", ["deterministic", "median", "size_matched"])
def test_the_estimator_decides_what_is_closed_everywhere(estimator):
    options = GateOptions(estimator=estimator)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras_l0.layers.L0Dense(4, "relu", gate_options=options),
            keras.layers.Dense(2),
        ]
    )
    (gate,) = keras_l0.gates(model)
    # P(z != 0) of the second is .4.
    log_alpha = np.float32([-9, -2, -1, 9])
    gate.assign_log_alpha(log_alpha)
    if estimator == "median":
        z, kept = np.clip(sigmoid(log_alpha * 1.5) * 1.2 - 0.1, 0, 1), 2
    elif estimator == "size_matched":
        # P is 0, .40, .65 and 1; the third one's draw for u = 1 - .645 / 2 is z.
        u = 1 - sigmoid(log_alpha + SHIFT) / 2
        s = sigmoid((np.log(u / (1 - u)) + log_alpha) * 1.5)
        z, kept = np.clip(s * 1.2 - 0.1, 0, 1) * [0, 0, 1, 1], 2
    else:
        z, kept = test_gates(log_alpha), 3
    np.testing.assert_allclose(values(gate.test_gates), z, atol=1e-6)
    np.testing.assert_allclose(values(gate(ones(1, 4)))[0], z, atol=1e-6)
    small = keras_l0.strip(model)
    assert small.layers[1].units == kept
    params = 3 * kept + kept + 2 * kept + 2
    assert small.count_params() == params
    assert keras_l0.plan(model).after.params == params
    assert keras_l0.profile(model).deployed.params == params
    gate.trainable = False
    np.testing.assert_allclose(values(gate(ones(1, 4), training=True))[0], z, atol=1e-6)


@pytest.mark.parametrize("estimator", ["mean", "Median", None, 1])
def test_unknown_estimators(estimator):
    with pytest.raises(ValueError, match="`estimator` must be .*Received: estimator="):
        GateOptions(estimator=estimator)


@pytest.mark.parametrize(
    "open_probability", [1e-3, 0.310, 0.5, 0.832, 0.920, 0.952, 0.989, 0.999]
)
def test_gates_start_at_the_open_probability_that_was_asked_for(open_probability):
    gate = built((3,), options=GateOptions(open_probability))
    np.testing.assert_allclose(values(gate.prob_open), open_probability, rtol=1e-4)


def test_by_default_gates_start_open():
    gate = built((3,))
    assert (values(gate.test_gates) == 1).all()
    assert (values(gate.prob_open) >= 0.985).all()


@pytest.mark.parametrize("open_probability", [0, 1, 0.0, 1.0, -0.1, 1.5, math.nan])
def test_an_impossible_open_probability_is_refused_not_replaced(open_probability):
    with pytest.raises(ValueError, match="`open_probability` must .*Received: "):
        GateOptions(open_probability)


@pytest.mark.parametrize("multiplier", [0, -16.0, math.nan, math.inf])
def test_multipliers_out_of_range(multiplier):
    with pytest.raises(ValueError, match="`learning_rate_multiplier` must .*Received"):
        GateOptions(learning_rate_multiplier=multiplier)


@pytest.mark.parametrize(
    "name", ["open_probability", "learning_rate_multiplier", "distribution"]
)
@pytest.mark.parametrize("value", [True, None, "0.5", [0.5]])
def test_options_of_the_wrong_type(name, value):
    with pytest.raises(TypeError, match=f"`{name}` must be .*Received: "):
        GateOptions(**{name: value})


@pytest.mark.parametrize("noise", ["", "Batch", "step", None, 1])
def test_unknown_noise(noise):
    with pytest.raises(ValueError, match="`noise` must be 'batch'.*Received: noise="):
        GateOptions(noise=noise)


@pytest.mark.parametrize("options", [0.5, "batch", HardConcrete()])
def test_options_that_are_none(options):
    with pytest.raises(TypeError, match="`options` must be .*Received: "):
        L0Gate(options=options)


def test_log_alpha_is_not_clamped():
    gate = built((4,), l0=1.0)
    wanted = np.float32([-50, -10, 10, 50])
    gate.assign_log_alpha(wanted)
    gate(ones(2, 4), training=True)
    np.testing.assert_array_equal(values(gate.log_alpha), wanted)
    assert values(gate.prob_open)[0] < 1e-6
    assert float(gate.losses[0]) == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize("multiplier", [1.0, 2.0, 16.0, 0.25])
def test_assign_log_alpha_round_trip_is_exact(multiplier):
    gate = built((4, 5), axis=(1, 2), options=GateOptions(0.9, "batch", multiplier))
    wanted = np.random.default_rng(0).normal(scale=7, size=(4, 5)).astype("float32")
    gate.assign_log_alpha(wanted)
    np.testing.assert_array_equal(values(gate.log_alpha), wanted)
    gate.assign_log_alpha(gate.log_alpha + 1)
    np.testing.assert_array_equal(values(gate.log_alpha), wanted + 1)
    gate.assign_log_alpha(-3)
    np.testing.assert_array_equal(values(gate.log_alpha), np.full((4, 5), -3.0))


@pytest.mark.parametrize("wrong", [[1.0, 2.0], np.ones((1, 3)), np.ones((3, 1)), []])
def test_assign_log_alpha_of_the_wrong_shape(wrong):
    gate = built((3,), name="g")
    with pytest.raises(ValueError, match=r"`values` for gate 'g' .*\(3,\).*Received: "):
        gate.assign_log_alpha(wrong)


@pytest.mark.parametrize("wrong", ["open", None, ["a", "b", "c"]])
def test_assign_log_alpha_of_the_wrong_type(wrong):
    gate = built((3,), name="g")
    with pytest.raises(TypeError, match="`values` for gate 'g' must be numbers"):
        gate.assign_log_alpha(wrong)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_assign_log_alpha_of_what_is_not_finite(wrong):
    gate = built((3,), name="g")
    with pytest.raises(ValueError, match="`values` for gate 'g' must be finite"):
        gate.assign_log_alpha([0.0, wrong, 1.0])
    with pytest.raises(ValueError, match="`clamp` must be two finite numbers"):
        keras_l0.GateOptions(clamp=(-5.0, wrong))


def test_log_alpha_is_read_only():
    with pytest.raises(AttributeError):
        built((3,)).log_alpha = np.zeros(3)


@pytest.mark.parametrize(
    "use",
    [
        lambda gate: gate.log_alpha,
        lambda gate: gate.prob_open,
        lambda gate: gate.test_gates,
        lambda gate: gate.count,
        lambda gate: gate.assign_log_alpha(0.0),
    ],
)
def test_a_gate_that_is_not_built_says_so(use):
    with pytest.raises(ValueError, match="'inner' has no log_alpha yet: build"):
        use(L0Gate(name="inner"))


@pytest.mark.parametrize("multiplier", [1.0, 16.0])
def test_adam_moves_log_alpha_multiplier_times_as_far(multiplier):
    gate = built((3,), l0=1e-3, options=GateOptions(0.9, "batch", multiplier))
    model = keras.Sequential([keras.Input((3,)), gate])
    before = values(gate.log_alpha)
    # A loss of its own: Adam's first step is the learning rate, whatever the gradient.
    model.compile(keras.optimizers.Adam(0.01, epsilon=1e-12), lambda y, p: 0.0 * p)
    model.fit(ones(4, 3), ones(4, 3), epochs=1, batch_size=4, verbose=0)
    moved = values(gate.log_alpha) - before
    np.testing.assert_allclose(moved, -0.01 * multiplier, rtol=1e-3)


def test_sgd_moves_log_alpha_multiplier_squared_as_far():
    moved = []
    for multiplier in (1.0, 16.0):
        gate = built((3,), l0=1.0, options=GateOptions(0.9, "batch", multiplier))
        model = keras.Sequential([keras.Input((3,)), gate])
        before = values(gate.log_alpha)
        model.compile(keras.optimizers.SGD(1e-3), lambda y, p: 0.0 * p)
        model.fit(ones(4, 3), ones(4, 3), epochs=1, batch_size=4, verbose=0)
        moved.append(values(gate.log_alpha) - before)
    np.testing.assert_allclose(moved[1], 256 * moved[0], rtol=1e-3)


def test_gradient_through_a_gate_against_finite_differences(gradient):
    rng = np.random.default_rng(3)
    log_alpha = rng.normal(size=12)
    x = rng.normal(size=(7, 12)).astype("float32")
    weights = rng.normal(size=(7, 12)).astype("float32")
    gate = built((12,), options=GateOptions(0.9, "example", 4.0), seed=1)
    gate.assign_log_alpha(log_alpha)
    start = values(gate.seed_generator.state).copy()

    def with_fixed_noise(inputs):
        gate.seed_generator.state.assign(start)
        return gate(inputs, training=True)

    # What was drawn, from the gates that it gave.
    z = values(with_fixed_noise(ones(7, 12))).astype("float64")
    inside = (z > 0) & (z < 1)
    s = (np.where(inside, z, 0.5) + 0.1) / 1.2
    noise = np.log(s / (1 - s)) * 2 / 3 - log_alpha

    def total(location):
        s = sigmoid((noise + location) * 3 / 2)
        draw = np.where(inside, s * 1.2 - 0.1, z)
        return (weights * x * draw).sum(axis=0)

    step = 1e-5
    slopes = (total(log_alpha + step) - total(log_alpha - step)) / (2 * step)
    w = ops.convert_to_tensor(weights)
    found = gradient(lambda: ops.sum(w * with_fixed_noise(x)), gate.raw)
    # log_alpha is 4 times the variable.
    np.testing.assert_allclose(found, 4 * slopes, rtol=1e-3, atol=1e-3)
    assert inside.any() and not inside.all()


def test_gradient_of_the_penalty_against_finite_differences(gradient):
    log_alpha = np.linspace(-5, 5, 6).astype("float32")
    cost = np.arange(1.0, 7.0)
    gate = built((6,), l0=0.5, cost=cost)
    gate.assign_log_alpha(log_alpha)
    found = gradient(lambda: gate.losses[0], gate.raw)
    at = log_alpha.astype("float64") + SHIFT
    slopes = 0.5 * cost * (sigmoid(at + 1e-5) - sigmoid(at - 1e-5)) / 2e-5
    np.testing.assert_allclose(found, 16 * slopes, rtol=1e-3)
    # Towards closed: whoever minimizes the loss lowers log_alpha.
    assert (found > 0).all()


@pytest.mark.parametrize("frozen_by", ["argument", "attribute"])
def test_a_frozen_gate_is_a_constant_and_is_not_charged(frozen_by):
    options = GateOptions(0.6, "example")
    if frozen_by == "argument":
        gate = built((40,), l0=1.0, options=options, trainable=False)
    else:
        gate = built((40,), l0=1.0, options=options)
        gate.trainable = False
    y = values(gate(ones(3, 40), training=True))
    assert (y == values(gate.test_gates)).all()
    assert gate.losses == [] and gate.trainable_weights == []
    gate.trainable = True
    assert len(gate.losses) == 1 and len(gate.trainable_weights) == 1
    assert (values(gate(ones(3, 40), training=True)) != y).any()


@pytest.mark.parametrize("l0", [0.0, None])
def test_without_a_strength_nothing_is_charged(l0):
    assert built((3,), l0=l0).losses == []


def test_integers_are_gated_like_floats():
    gate = built((3,))
    gate.assign_log_alpha([-9.0, 0.0, 9.0])
    y = gate(np.full((2, 3), 10, "int32"))
    np.testing.assert_allclose(values(y), [[0, 5, 10]] * 2, rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_log_alpha_and_penalty_stay_float32(policy):
    gate = built((3,), dtype=policy, l0=1e-3, cost=[1, 2, 3])
    y = gate(ones(2, 3), training=True)
    of = keras.backend.standardize_dtype
    assert of(y.dtype) == policy.removeprefix("mixed_")
    assert of(gate.raw.dtype) == of(gate.log_alpha.dtype) == "float32"
    assert of(gate.losses[0].dtype) == "float32"


def test_masks_pass_through():
    assert L0Gate().supports_masking


def test_shape_and_symbolic_call():
    x = keras.Input((4, 3))
    y = L0Gate(axis=1)(x)
    assert y.shape == (None, 4, 3)
    assert L0Gate().compute_output_shape((None, 4, 3)) == (None, 4, 3)


def test_config_round_trip():
    options = GateOptions(0.7, "example", 4.0, HardConcrete(0.5, -0.2, 1.3))
    gate = built(
        (4, 5, 3), axis=(-1, 1), l0=0.25, cost=np.arange(12).reshape(4, 3),
        options=options, seed=7, name="g", trainable=False, dtype="mixed_bfloat16",
    )  # fmt: skip
    config = keras.saving.serialize_keras_object(gate)
    assert config["registered_name"] == "keras_l0>L0Gate"
    twin = keras.saving.deserialize_keras_object(config)
    assert twin.built
    assert twin.get_config() == gate.get_config()
    assert twin.options == options and twin.seed == 7 and twin.axis == (-1, 1)
    assert twin.regularizer.l0 == 0.25 and twin.cost == gate.cost
    assert not twin.trainable and twin.dtype_policy == gate.dtype_policy
    np.testing.assert_array_equal(values(twin.log_alpha), values(gate.log_alpha))


def test_config_names_every_argument():
    arguments = set(inspect.signature(L0Gate).parameters) - {"kwargs"}
    assert arguments <= set(L0Gate().get_config())


def test_options_serialize():
    options = GateOptions(0.7, "example", 4.0, HardConcrete(0.5, -0.2, 1.3), "median")
    config = keras.saving.serialize_keras_object(options)
    assert config["registered_name"] == "keras_l0>GateOptions"
    assert keras.saving.deserialize_keras_object(config) == options
    assert GateOptions.get(config) == options
    assert GateOptions.get(None) == GateOptions()


def test_saved_and_loaded(tmp_path):
    x = keras.Input((4, 3))
    gate = L0Gate(axis=(1, 2), l0=0.1, cost=np.arange(12), options=GateOptions(0.8))
    model = keras.Model(x, gate(x))
    gate.assign_log_alpha(np.random.default_rng(0).normal(size=(4, 3)))
    model.save(tmp_path / "gate.keras")
    loaded = keras.models.load_model(tmp_path / "gate.keras")
    (twin,) = keras_l0.gates(loaded)
    np.testing.assert_array_equal(values(twin.log_alpha), values(gate.log_alpha))
    assert float(loaded.losses[0]) == float(model.losses[0])
    np.testing.assert_array_equal(
        values(loaded(ones(2, 4, 3))), values(model(ones(2, 4, 3)))
    )


def test_what_no_gate_and_no_generator_takes():
    gate = L0Gate()
    gate.build((None, 3))
    with pytest.raises(ValueError, match="must be finite numbers"):
        gate.assign_log_alpha([1.0, float("nan"), 2.0])
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=r"`seed` must be in \[0, 2\*\*32\)"):
            L0Gate(seed=seed)


@pytest.mark.parametrize("seed", [True, 1.5, "one"])
def test_seed_is_an_integer(seed):
    with pytest.raises(TypeError, match="`seed` must be an integer or None"):
        L0Gate(seed=seed)
