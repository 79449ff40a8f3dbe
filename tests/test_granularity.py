"""Gates on inputs, on single weights and on blocks of them."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_l0
from keras_l0 import GateOptions, HardConcrete
from keras_l0.layers import (
    L0Conv2D,
    L0Conv2DTranspose,
    L0Dense,
    L0EinsumDense,
    L0Gate,
)
from keras_l0.regularizers import L0

# For each layer: where its kernel has units and inputs.
LAYERS = {
    "dense": (lambda **k: L0Dense(5, "tanh", **k), (6,), (1, 0)),
    "conv": (
        lambda **k: L0Conv2D(5, (2, 3), activation="tanh", **k),
        (5, 4, 6),
        (3, 2),
    ),
    "transposed": (lambda **k: L0Conv2DTranspose(5, 2, **k), (5, 4, 6), (2, 3)),
    "einsum": (
        lambda **k: L0EinsumDense("abc,dce->abde", (4, 2, 5), bias_axes="de", **k),
        (4, 6),
        (2, 1),
    ),
    "turned": (lambda **k: L0EinsumDense("ab...,cb->ac...", 5, **k), (6, 4), (0, 1)),
}
BLOCKS = ("weights", (1, 1), (1, 4), (2, 1), (2, 3), (9, 9))
EVERY = ["inputs", *BLOCKS]

pytestmark = pytest.mark.parametrize("name", LAYERS)


def values(tensor):
    return ops.convert_to_numpy(tensor)


def built(name, granularity, seed=0, **kwargs):
    make, shape, _ = LAYERS[name]
    layer = make(granularity=granularity, **kwargs)
    layer.build((None, *shape))
    rng = np.random.default_rng(seed)
    for weight in layer.trainable_weights:
        if weight.name != "raw_log_alpha":
            weight.assign(rng.normal(size=weight.shape))
    return layer


def batch(name, size=3, seed=0):
    shape = (size, *LAYERS[name][1])
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def plain(layer, name, kernel=None):
    twin = layer.plain_class.from_config(layer.plain_config())
    twin.build((None, *LAYERS[name][1]))
    weights = [values(layer.kernel) if kernel is None else kernel]
    twin.set_weights(weights + ([] if layer.bias is None else [values(layer.bias)]))
    return twin


def mask(name, granularity, layer, z):
    """For each weight of the kernel the gate that switches it, one weight at a time."""
    units, inputs = LAYERS[name][2]
    if granularity == "inputs":
        rows, columns = 1, None
    else:
        columns, rows = (1, 1) if granularity == "weights" else granularity
    found = np.zeros(layer.kernel.shape)
    for index in np.ndindex(found.shape):
        if columns is None:
            found[index] = z[index[inputs]]
            continue
        at = list(index)
        at[units] //= columns
        at[inputs] //= rows
        found[index] = z[tuple(at)]
    return found


def drawn(layer, seed=1):
    """Gates of all kinds."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice([-9.0, 9.0, 0.4, -0.7], size=layer.gate.raw.shape)
    layer.gate.assign_log_alpha(kinds)
    return values(layer.gate.test_gates).astype("float64")


@pytest.mark.parametrize("granularity", EVERY, ids=str)
def test_gates_multiply_their_part_of_the_kernel(name, granularity):
    layer = built(name, granularity)
    z = drawn(layer)
    kernel = values(layer.kernel) * mask(name, granularity, layer, z)
    expected = values(plain(layer, name, kernel)(batch(name)))
    found = values(layer(batch(name)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # The kernel itself is what it was.
    assert type(layer.kernel) is type(layer.gate.raw)


@pytest.mark.parametrize("granularity", EVERY, ids=str)
def test_open_gates_are_the_keras_layer_to_the_bit(name, granularity):
    layer = built(name, granularity)
    expected = values(plain(layer, name)(batch(name)))
    np.testing.assert_array_equal(values(layer(batch(name))), expected)
    layer.gate.assign_log_alpha(1e6)
    found = values(layer(batch(name), training=True))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("granularity", EVERY, ids=str)
def test_penalties_count_and_square_the_weights_of_each_gate(name, granularity):
    layer = built(name, granularity, l0=L0(0.5, l2=0.25))
    drawn(layer)
    p = values(layer.gate.prob_open)
    p = mask(name, granularity, layer, p)
    squares = values(layer.kernel).astype("float64") ** 2
    expected = 0.5 * p.sum() + 0.25 * (p * squares).sum()
    assert values(layer.losses[0]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("granularity", BLOCKS, ids=str)
def test_weights_are_drawn_once_per_batch(name, granularity):
    layer = built(name, granularity, gate_options=GateOptions(0.5))
    x = np.repeat(batch(name, 1), 3, axis=0)
    y, again = (values(layer(x, training=True)) for _ in range(2))
    np.testing.assert_allclose(y, np.broadcast_to(y[:1], y.shape), atol=1e-6)
    assert layer.gate.count < 3 or (y != again).any()
    with pytest.raises(ValueError, match="`gate_options` of .*noise='batch'.*Received"):
        built(name, granularity, gate_options=GateOptions(noise="example"))


def test_inputs_may_be_drawn_for_each_example(name):
    layer = built(name, "inputs", gate_options=GateOptions(0.5, "example"))
    x = np.repeat(batch(name, 1), 8, axis=0)
    y = values(layer(x, training=True)).reshape(8, -1)
    assert len(np.unique(y, axis=0)) > 1


@pytest.mark.parametrize("granularity", ["inputs", "weights", (2, 3)], ids=str)
def test_gradients_are_those_of_finite_differences(name, granularity, gradient):
    options = GateOptions(0.9, distribution=HardConcrete(beta=2.0))
    layer = built(name, granularity, gate_options=options)
    gate, x = layer.gate, batch(name)
    start = values(gate.seed_generator.state).copy()

    def total():
        gate.seed_generator.state.assign(start)
        return ops.sum(layer(x, training=True) ** 2)

    # The draw, out of a layer whose kernel is multiplied by it alone.
    gate.seed_generator.state.assign(start)
    shape = (None, *gate.raw.shape) if granularity != "inputs" else x.shape
    z = values(gate.values(shape, training=True)).reshape(gate.raw.shape)
    z = z.astype("float64")
    kernel = values(layer.kernel)
    found = gradient(total, gate.raw)
    inside = np.argwhere((z > 0.01) & (z < 0.99))[:4]
    assert len(inside)
    for index in map(tuple, inside):
        sums = []
        for step in (1e-2, -1e-2):
            moved = z.copy()
            moved[index] += step
            twin = plain(layer, name, kernel * mask(name, granularity, layer, moved))
            sums.append((values(twin(x)).astype("float64") ** 2).sum())
        slope = (sums[0] - sums[1]) / 2e-2
        s = (z[index] + 0.1) / 1.2
        # dz / dlog_alpha, and log_alpha is 16 times the variable.
        slope *= 16 * 1.2 * s * (1 - s) / 2.0
        assert found[index] == pytest.approx(slope, rel=0.02, abs=0.02)


@pytest.mark.parametrize("mode", ["full", "activations"])
@pytest.mark.parametrize("granularity", ["inputs", "weights"])
def test_gradients_under_remat_are_those_without(name, granularity, mode, gradient):
    if not hasattr(keras, "RematScope"):
        pytest.skip("this Keras has no RematScope")
    found = []
    for scope in (None, mode):
        keras.utils.set_random_seed(3)
        with keras.RematScope(scope):
            layer = built(name, granularity, gate_options=GateOptions(0.7))
        x, start = batch(name), values(layer.gate.seed_generator.state).copy()

        def total(layer=layer, x=x, start=start):
            layer.gate.seed_generator.state.assign(start)
            return ops.sum(layer(ops.convert_to_tensor(x), training=True) ** 2)

        found.append([gradient(total, w) for w in (layer.gate.raw, layer.kernel)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("granularity", EVERY, ids=str)
def test_strip_leaves_the_same_function(name, granularity):
    layer = built(name, granularity)
    x = keras.Input(LAYERS[name][1])
    h = layer(keras.layers.Activation("tanh")(x))
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(h)))
    z = drawn(layer)
    small = keras_l0.strip(model)
    expected = values(model(batch(name)))
    found = values(small(batch(name)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    kernel = small.get_layer(layer.name).kernel
    gates = mask(name, granularity, layer, z)
    if granularity != "inputs" and kernel.shape == layer.kernel.shape:
        assert ((values(kernel) == 0) == (gates == 0)).all()
    if granularity != "inputs":
        (row,) = (r for r in keras_l0.plan(model).layers if r.name == layer.name)
        if granularity == "units":
            assert (row.units, row.kept) == (layer.gate.count, max((z > 0).sum(), 1))
        else:
            assert row.note == f"{(z > 0).sum()} of {layer.gate.count} gates open"


@pytest.mark.parametrize("granularity", EVERY, ids=str)
def test_config_round_trip(name, granularity):
    layer = built(name, granularity)
    config = keras.saving.serialize_keras_object(layer)
    twin = keras.saving.deserialize_keras_object(config)
    assert twin.granularity == layer.granularity == granularity
    assert twin.get_config() == layer.get_config()
    assert "granularity" not in layer.plain_config()


@pytest.mark.parametrize(
    "granularity", ["weight", "", None, 1, (1,), (1, 2, 3), (0, 4), (1, -4), (True, 4),
                    (1.0, 4), ("1", 4)],
    ids=str,
)  # fmt: skip
def test_granularity_is_checked(name, granularity):
    with pytest.raises(ValueError, match="`granularity` must be .*Received: granul"):
        LAYERS[name][0](granularity=granularity)


def trained_like(name, activation, gradient, **kwargs):
    """A training call's outputs, and the gradients of a function of them."""
    keras.utils.set_random_seed(5)
    layer = built(name, "units", **kwargs)
    layer.activation = activation
    layer.gate.assign_log_alpha(np.linspace(-3, 3, layer.gate.count))
    x, start = batch(name), values(layer.gate.seed_generator.state).copy()

    def outputs():
        layer.gate.seed_generator.state.assign(start)
        return layer(ops.convert_to_tensor(x), training=True)

    weights = layer.trainable_weights
    return values(outputs()), [
        gradient(lambda: ops.sum(outputs() ** 2), weight) for weight in weights
    ]


@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu"])
def test_gates_in_the_weights_are_gates_on_the_outputs(
    name, activation, gradient, monkeypatch
):
    function = keras.activations.get(activation)
    options = GateOptions(0.8)
    monkeypatch.setattr("keras_l0.layers.granular._MANY", 0)
    expected = trained_like(name, function, gradient, gate_options=options)

    def refuse(*args, **kwargs):
        raise AssertionError("outputs were multiplied")

    monkeypatch.setattr("keras_l0.layers.granular._MANY", 1000)
    if name != "einsum":  # whose bias has more entries than units
        monkeypatch.setattr(L0Gate, "call", refuse)
    found = trained_like(name, function, gradient, gate_options=options)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)
    for a, b in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    assert any((z != 0).any() for z in expected[1])


@pytest.mark.parametrize(
    "activation, noise",
    [(f, "batch") for f in ("sigmoid", "gelu", "relu6", "elu")] + [("relu", "example")],
)
def test_what_gates_in_the_weights_would_change_is_multiplied(
    name, activation, noise, monkeypatch
):
    monkeypatch.setattr("keras_l0.layers.granular._MANY", 1000)
    layer = built(name, "units", gate_options=GateOptions(0.6, noise=noise))
    layer.activation = keras.activations.get(activation)
    z = drawn(layer)
    open_ = built(name, "units")
    open_.activation = layer.activation
    expected = np.moveaxis(values(open_(batch(name))), layer.gated_axis, -1) * z
    found = np.moveaxis(values(layer(batch(name))), layer.gated_axis, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    y = values(layer(np.repeat(batch(name, 1), 8, axis=0), training=True))
    assert np.allclose(y, y[:1]) == (noise == "batch")
