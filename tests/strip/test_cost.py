"""The differentiable size is the size of the stripped model on every corner."""

import itertools

import keras
import numpy as np
import pytest
from adversary import PRECISION, macs
from keras import layers

import keras_l0
from keras_l0.analysis.cost import Cost
from keras_l0.layers import L0Conv2D, L0Dense, L0Gate

pytestmark = pytest.mark.any_backend
ROUNDING = {"float64": 1e-12, "float32": 1e-5}[PRECISION]


def toy():
    return keras.Sequential(
        [keras.Input((4,)), L0Dense(3, "relu"), L0Dense(2, "relu"), layers.Dense(2)]
    )


def residual_concatenate():
    x = keras.Input((2,))
    a = L0Dense(3, "relu")(x)
    h = layers.Add()([a, L0Dense(3)(a)])
    b = L0Dense(2, "sigmoid")(x)
    h = layers.Concatenate()([h, b])
    return keras.Model(x, layers.Dense(1)(h))


def conv_batchnorm_flatten():
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            L0Conv2D(3, 2, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(2, 3, padding="same", use_bias=False),
            L0Gate(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            L0Dense(2, "relu", use_bias=False),
            layers.Dense(1, use_bias=False),
        ]
    )


def shared():
    x, y = keras.Input((3,)), keras.Input((3,))
    one = L0Dense(3, "relu")
    gate = L0Gate()
    h = layers.Add()([gate(one(x)), one(L0Dense(3)(y))])
    return keras.Model([x, y], layers.Dense(2)(h))


def gated_features():
    return keras.Sequential([keras.Input((4,)), L0Gate(), L0Dense(3), layers.Dense(1)])


def granular():
    return keras.Sequential(
        [
            keras.Input((3,)),
            L0Dense(2, "relu", granularity="weights"),
            L0Dense(3, "sigmoid", granularity=(1, 2)),
            L0Dense(2, use_bias=False, granularity="inputs"),
            L0Dense(2, granularity="weights", use_bias=False),
            layers.Dense(1),
        ]
    )


def granular_conv():
    return keras.Sequential(
        [
            keras.Input((3, 3, 2)),
            L0Conv2D(2, 2, padding="same", activation="relu", granularity="weights"),
            L0Conv2D(2, 2, padding="same", activation="sigmoid", granularity=(1, 2)),
            L0Conv2D(2, 2, granularity="inputs"),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )


BUILDERS = (
    toy,
    residual_concatenate,
    conv_batchnorm_flatten,
    shared,
    gated_features,
    granular,
    granular_conv,
)


def built(builder):
    keras.utils.set_random_seed(1)
    model = builder()
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name != "raw_log_alpha":
            weight.assign(rng.uniform(0.3, 2, weight.shape))
    return model


def corners(model):
    """Every corner of a small model; of others those of whole gates, and a share."""
    sizes = [gate.count for gate in keras_l0.gates(model)]
    whole = list(itertools.product((0.0, 1.0), repeat=len(sizes)))
    if sum(sizes) > 16:
        rng = np.random.default_rng(0)
        every = [
            rng.uniform(size=sum(sizes)) < share for share in np.linspace(0, 1, 40)
        ]
    else:
        every = list(itertools.product((0.0, 1.0), repeat=sum(sizes)))
    if len(every) <= 32:
        return np.array(every)
    found = [np.repeat(c, sizes) for c in whole] + every[3 :: len(every) // 12]
    return np.array(found, "float64")


def set_corner(model, corner):
    gates = keras_l0.gates(model)
    ends = np.cumsum([gate.count for gate in gates])
    for gate, part in zip(gates, np.split(corner, ends[:-1]), strict=True):
        gate.assign_log_alpha(np.where(part, 9.0, -9.0).reshape(gate.raw.shape))


@pytest.mark.parametrize(
    "builder, mode",
    [
        *((builder, "keep") for builder in BUILDERS),
        (conv_batchnorm_flatten, "gather"),
        (gated_features, "gather"),
        (gated_features, "narrow"),
        (granular, "gather"),
    ],
)
def test_cost_is_the_stripped_size_on_every_corner(builder, mode):
    model = built(builder)
    cost = Cost(model, inputs=mode)
    for corner in corners(model):
        set_corner(model, corner)
        stripped = keras_l0.strip(model, inputs=mode, verify=False)
        assert all(np.isfinite(w).all() for w in stripped.get_weights())
        size = cost(corner)
        found = (float(size.params), float(size.macs))
        assert found == (stripped.count_params(), macs(stripped)), corner
    profile = keras_l0.profile(model, inputs=mode)
    assert profile.deployed == keras_l0.plan(model, inputs=mode).after == found


@pytest.mark.parametrize("builder", BUILDERS)
def test_tensors_and_arrays_cost_the_same(builder):
    model = built(builder)
    cost = Cost(model)
    rng = np.random.default_rng(2)
    for openness in (*corners(model)[::7], rng.uniform(size=sum(cost.counts))):
        exact = cost(openness)
        tensors = cost(keras.ops.convert_to_tensor(openness))
        for a, b in zip(exact, tensors, strict=True):
            assert float(b) == pytest.approx(float(a), rel=ROUNDING)


def derivative(function, at):
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(at))
    x = keras.Variable(at)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            y = function(x.value)
        return np.asarray(tape.gradient(y, x.value))
    y = function(x.value)
    y.backward()
    return keras.ops.convert_to_numpy(x.value.grad)


@pytest.mark.parametrize("builder", BUILDERS)
def test_gradient_is_that_of_finite_differences(builder):
    model = built(builder)
    cost = Cost(model)
    at = np.random.default_rng(4).uniform(0.1, 0.9, sum(cost.counts))
    for measure in ("params", "macs"):
        found = derivative(lambda z, m=measure: getattr(cost(z), m), at)
        step = 1e-6
        expected = [
            float(getattr(cost(at + d), measure) - getattr(cost(at - d), measure))
            / (2 * step)
            for d in step * np.eye(len(at))
        ]
        rtol = 1e-6 + 10 * ROUNDING
        atol = 1e-7 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)
        assert np.abs(found).max() > 0


@pytest.mark.tensorflow
def test_cost_compiles_into_a_graph():
    import tensorflow as tf

    model = built(conv_batchnorm_flatten)
    cost = Cost(model)
    compiled = tf.function(lambda z: cost(z).params)
    for corner in corners(model)[::9]:
        assert float(compiled(tf.constant(corner))) == float(cost(corner).params)


def test_a_model_without_gates_has_a_cost():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert Cost(model)([]).whole() == (8, 6)
