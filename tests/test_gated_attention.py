"""Attention with a gate per head, or per group of heads that share keys and values."""

import inspect

import keras
import numpy as np
import pytest
from cases import ATTENTION
from keras import ops

import keras_l0
from keras_l0 import GateOptions
from keras_l0.analysis.rules.attention import projections
from keras_l0.layers import L0GroupQueryAttention, L0MultiHeadAttention

# Keras' own attention on JAX wants as many value as key dimensions.
VALUES = 2 if keras.backend.backend() == "jax" else 4
ARGUMENTS = {
    L0MultiHeadAttention: {"num_heads": 3, "key_dim": 2, "value_dim": VALUES},
    L0GroupQueryAttention: {
        "head_dim": 2,
        "num_query_heads": 6,
        "num_key_value_heads": 3,
    },
}
# By hand, for 5 features: kernels and biases into the head, and the kernel out of it.
COST = {
    L0MultiHeadAttention: (5 + 1) * (2 + 2 + VALUES) + VALUES * 5,
    L0GroupQueryAttention: (5 + 1) * (2 * 2 + 2 + 2) + 2 * 2 * 5,
}
COST_WITHOUT_BIAS = {
    L0MultiHeadAttention: 5 * (2 + 2 + VALUES) + VALUES * 5,
    L0GroupQueryAttention: 5 * (2 * 2 + 2 + 2) + 2 * 2 * 5,
}
SHAPE = (None, 4, 5)
GATES = [-9.0, 0.4, 9.0]

pytestmark = [
    pytest.mark.parametrize("kind", ATTENTION, ids=lambda kind: kind.__name__),
]


def values(tensor):
    return ops.convert_to_numpy(tensor)


def batch(seed=0, size=3):
    shape = (size, *SHAPE[1:])
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def make(kind, **kwargs):
    return kind(**{**ARGUMENTS[kind], **kwargs})


def plain_class(kind):
    return next(c for c in kind.__mro__ if c.__module__.startswith("keras."))


def pair(kind, **kwargs):
    """A gated layer and the plain one with the same weights."""
    gated = make(kind, **kwargs)
    for name in ("gate_options", "gate_dims"):
        kwargs.pop(name, None)
    plain = plain_class(kind)(**{**ARGUMENTS[kind], **kwargs})
    rng = np.random.default_rng(1)
    for layer in (gated, plain):
        layer.build(SHAPE, SHAPE)
    ours = [w for w in gated.weights if w.name != "raw_log_alpha"]
    for a, b in zip(ours, plain.weights, strict=True):
        assert a.path.split("/")[-2:] == b.path.split("/")[-2:]
        start = rng.normal(size=a.shape)
        a.assign(start)
        b.assign(start)
    return gated, plain


def model_of(layer):
    x = keras.Input(SHAPE[1:])
    h = keras.layers.Flatten()(layer(x, x))
    return keras.Model(x, keras.layers.Dense(2)(h))


def gate_in(model):
    (gate,) = keras_l0.gates(model)
    return gate


def test_takes_every_argument_of_the_keras_layer(kind):
    plain = inspect.signature(plain_class(kind)).parameters
    ours = inspect.signature(kind).parameters
    assert set(ours) - set(plain) == {"l0", "gate_options", "gate_dims"}
    assert all(ours[n].default == p.default for n, p in plain.items())
    for method in ("call", "build"):
        ours = inspect.signature(getattr(kind, method)).parameters
        plain = inspect.signature(getattr(plain_class(kind), method)).parameters
        assert list(ours) == list(plain)
    with pytest.raises((TypeError, ValueError), match="drop_rate"):
        make(kind, drop_rate=0.5)


def test_config_is_that_of_the_keras_layer_and_the_gate(kind):
    layer = make(kind, l0=0.5, gate_options=GateOptions(0.7), name="heads")
    plain = plain_class(kind)(**ARGUMENTS[kind], name="heads")
    assert layer.plain_config() == plain.get_config()
    assert layer.plain_class is plain_class(kind)
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == f"keras_l0>{kind.__name__}"
    twin = keras.saving.deserialize_keras_object(config)
    assert twin.get_config() == layer.get_config()
    assert twin.gate.regularizer.l0 == 0.5
    assert twin.gate.options == GateOptions(0.7)


@pytest.mark.parametrize(
    "call", [{}, {"use_causal_mask": True}, {"return_attention_scores": True}], ids=str
)
@pytest.mark.parametrize("use_bias", [True, False])
def test_open_gates_are_the_keras_layer_to_the_bit(kind, use_bias, call):
    gated, plain = pair(kind, use_bias=use_bias)
    x, y = batch(), batch(1)
    expected = keras.tree.flatten(plain(x, y, **call))
    for training in (None, False, True):
        if training:
            gated.gate.assign_log_alpha(1e6)
        received = keras.tree.flatten(gated(x, y, training=training, **call))
        for a, b in zip(expected, received, strict=True):
            np.testing.assert_array_equal(values(b), values(a))


def by_hand(gated, plain, z, x):
    """The plain layer with the rows of its output projection multiplied by gates."""
    kernel = plain._output_dense.kernel
    before = values(kernel)
    rows = np.repeat(z, len(before) // len(z))
    kernel.assign(before * rows[:, None, None])
    y = values(plain(x, x))
    kernel.assign(before)
    return y


@pytest.mark.parametrize("training", [False, True])
def test_gates_multiply_heads(kind, training):
    gated, plain = pair(kind)
    gated.gate.assign_log_alpha([-100.0, 100.0, -100.0])
    expected = by_hand(gated, plain, np.array([0.0, 1.0, 0.0]), batch())
    received = values(gated(batch(), batch(), training=training))
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
    gated.gate.assign_log_alpha(GATES)
    expected = by_hand(gated, plain, values(gated.gate.test_gates), batch())
    received = values(gated(batch(), batch()))
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


def test_draws_multiply_whole_heads(kind):
    gated, plain = pair(kind, gate_options=GateOptions(0.5), use_bias=False)
    x = batch()
    alone = [by_hand(gated, plain, one, x).ravel() for one in np.eye(3)]
    draws = []
    for _ in range(4):
        y = values(gated(x, x, training=True)).ravel()
        z, residual, *_ = np.linalg.lstsq(np.stack(alone, 1), y, rcond=None)
        assert residual[0] < 1e-6
        assert (z > -1e-4).all() and (z < 1 + 1e-4).all()
        draws.append(z)
    assert np.ptp(draws, axis=0).max() > 0.01


def test_queries_of_unknown_length(kind):
    gated, plain = pair(kind)
    query, value = keras.Input((None, 5)), keras.Input((None, 5))
    ours = keras.Model([query, value], gated(query, value))
    theirs = keras.Model([query, value], plain(query, value))
    data = [batch(), batch(1)[:, :2]]
    np.testing.assert_array_equal(
        ours.predict(data, verbose=0), theirs.predict(data, verbose=0)
    )


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_gate_costs_the_weights_of_its_head(kind, use_bias):
    layer = make(kind, use_bias=use_bias, l0=0.25)
    layer.build(SHAPE, SHAPE)
    cost = (COST if use_bias else COST_WITHOUT_BIAS)[kind]
    assert layer.gate.count == 3 and layer.gate.cost == cost
    layer.gate.assign_log_alpha(GATES)
    (loss,) = layer.losses
    expected = 0.25 * cost * values(layer.gate.prob_open).sum()
    assert values(loss) == pytest.approx(expected, rel=1e-5)


def test_the_expected_l2_norm_of_heads(kind):
    layer = make(kind, l0=keras_l0.regularizers.L0(l2=0.25))
    layer.build(SHAPE, SHAPE)
    layer.gate.assign_log_alpha(GATES)
    squares = np.zeros(3)
    for name, inner in projections(layer).items():
        for w in inner.weights:
            w = values(w).astype("float64")
            if name == "attention_output":
                if w.ndim == 1:
                    continue
                w = np.moveaxis(w, 0, -2)
            # Heads of the query come in groups, one after the other.
            for head in range(w.shape[-2]):
                group = head // (w.shape[-2] // 3)
                squares[group] += (w[..., head, :] ** 2).sum()
    expected = 0.25 * (values(layer.gate.prob_open) * squares).sum()
    assert values(layer.losses[0]) == pytest.approx(expected, rel=1e-5)


def test_charged_once_however_often_it_is_called(kind):
    layer = make(kind, l0=0.125)
    x = keras.Input(SHAPE[1:])
    h = keras.layers.Add()([layer(x, x), layer(2 * x, x)])
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(h)))
    expected = 0.125 * COST[kind] * values(layer.gate.prob_open).sum()
    model.compile(
        keras.optimizers.SGD(0.0), lambda y_true, y_pred: 0.0 * ops.sum(y_pred, axis=-1)
    )
    data = batch(size=8), np.zeros((8, 2), "float32")
    history = model.fit(*data, batch_size=4, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert float(sum(map(values, model.losses))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_trains_saves_and_loads(kind, jit, tmp_path):
    if jit and keras.backend.backend() == "torch":
        pytest.skip("torch.compile needs a C++ compiler")
    layer = make(kind, l0=1e-3, gate_options=GateOptions(0.9, "example"), dropout=0.1)
    model = model_of(layer)
    model.compile("adam", "mse", jit_compile=jit)
    before = values(layer.gate.log_alpha)
    data = batch(size=8), np.zeros((8, 2), "float32")
    assert np.isfinite(model.fit(*data, verbose=0).history["loss"]).all()
    assert (values(layer.gate.log_alpha) != before).all()
    layer.gate.assign_log_alpha(GATES)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.load_weights(tmp_path / "model.weights.h5")
    expected = values(model(data[0]))
    for copy in (loaded, clone):
        np.testing.assert_array_equal(values(copy(data[0])), expected)
        assert gate_in(copy) is not layer.gate
        assert gate_in(copy).cost == COST[kind]
        assert gate_in(copy).options == GateOptions(0.9, "example")


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(kind, dtype):
    layer = make(kind, l0=1e-4, dtype=dtype)
    model = model_of(layer)
    of = keras.backend.standardize_dtype
    assert of(layer(batch(), batch()).dtype) == dtype.removeprefix("mixed_")
    assert of(layer.gate.raw.dtype) == of(layer.losses[0].dtype) == "float32"
    assert np.isfinite(values(ops.cast(model(batch()), "float32"))).all()


def test_frozen_gates_use_their_test_values(kind):
    layer = make(kind, l0=0.5, gate_options=GateOptions(0.6))
    model = model_of(layer)
    layer.gate.trainable = False
    assert model.losses == []
    x = batch()
    np.testing.assert_array_equal(
        values(layer(x, x, training=True)), values(layer(x, x))
    )
    assert not gate_in(keras.models.clone_model(model)).trainable


def test_gates_of_dimensions_frozen_on_their_own_stay_frozen_in_copies(kind):
    model = model_of(make(kind, l0=0.5, gate_dims=True))
    for gate in keras_l0.gates(model)[1:]:
        gate.trainable = False
    heads, *dims = keras_l0.gates(keras.models.clone_model(model))
    assert heads.trainable and dims and not any(gate.trainable for gate in dims)


@pytest.mark.parametrize("options", [{}, {"use_gate": True}], ids=str)
def test_closed_heads_get_no_gradient(kind, options, gradient):
    if options and "use_gate" not in plain_class(kind)(**ARGUMENTS[kind]).get_config():
        pytest.skip("this Keras has no gated attention of its own")
    layer = make(kind, **options)
    layer.build(SHAPE, SHAPE)
    layer.gate.assign_log_alpha([-100.0, 100.0, 100.0])
    x = ops.convert_to_tensor(batch())
    kernel = layer._value_dense.kernel
    slopes = gradient(lambda: ops.sum(layer(x, x, training=True) ** 2), kernel)
    assert (slopes[:, 0] == 0).all() and (slopes[:, 1:] != 0).any()


def dims_by_hand(gated, plain, z, x):
    """The plain layer with weights multiplied by the gates of `gates`, in order."""
    heads, values_, keys = z[0], z[1], z[-1]
    before = [values(w) for w in plain.weights]
    for name, inner in projections(plain).items():
        kernel = values(inner.kernel)
        if name == "query":
            inner.kernel.assign(kernel * keys)
            if inner.bias is not None:
                inner.bias.assign(values(inner.bias) * keys)
        if name == "attention_output":
            rows = np.repeat(heads, len(kernel) // len(heads))
            inner.kernel.assign(kernel * np.outer(rows, values_)[..., None])
    y = values(plain(x, x))
    plain.set_weights(before)
    return y


@pytest.mark.parametrize("use_bias", [True, False])
def test_dimensions_have_gates_of_their_own(kind, use_bias):
    gated, plain = pair(kind, gate_dims=True, use_bias=use_bias)
    counts = {"value_gate": VALUES, "key_gate": 2}
    if kind is L0GroupQueryAttention:
        counts = {"dim_gate": 2}
    assert gated.gates[0] is gated.gate
    assert {g.name: g.count for g in gated.gates[1:]} == counts
    assert keras_l0.gates(gated) == gated.gates
    x = batch()
    expected = values(plain(x, x))
    np.testing.assert_array_equal(values(gated(x, x)), expected)
    for gate in gated.gates:
        gate.assign_log_alpha(np.linspace(-3, 2, gate.count))
    z = [values(gate.test_gates) for gate in gated.gates]
    assert (z[-1] == 0).any() and ((z[0] > 0) & (z[0] < 1)).any()
    expected = dims_by_hand(gated, plain, z, x)
    np.testing.assert_allclose(values(gated(x, x)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("noise", ["batch", "example"])
def test_dimensions_are_drawn(kind, noise):
    gated, plain = pair(kind, gate_dims=True, gate_options=GateOptions(0.6, noise))
    size = 1 if noise == "example" else 3
    x = batch(size=size)
    before = None
    for _ in range(2):
        y = values(gated(x, x, training=True))
        # Those of queries and of values are one draw, if they are one gate.
        shape = (size, 1, 1, 1)
        z = [values(gated.gate.values((size, 1, 3, *gated.head_shape[1:]), True, True))]
        z += [values(g.values(shape, True, True)) for g in gated.dim_gates]
        expected = dims_by_hand(gated, plain, [gate.ravel() for gate in z], x)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
        assert before is None or (y != before).any()
        before = y


@pytest.mark.parametrize("use_bias", [True, False])
def test_dimensions_cost_their_weights_of_all_heads(kind, use_bias):
    layer = make(kind, gate_dims=True, use_bias=use_bias, l0=0.25)
    layer.build(SHAPE, SHAPE)
    bias = int(use_bias)
    if kind is L0GroupQueryAttention:
        # Six heads of queries, three of keys and values, and six into 5 features.
        cost = [(5 + bias) * (6 + 3 + 3) + 6 * 5]
    else:
        cost = [(5 + bias) * 3 + 3 * 5, (5 + bias) * (3 + 3)]
    assert [gate.cost for gate in layer.dim_gates] == cost
    assert layer.gate.cost == (COST if use_bias else COST_WITHOUT_BIAS)[kind]
    total = sum(g.cost * values(g.prob_open).sum() for g in layer.gates)
    assert sum(map(values, layer.losses)) == pytest.approx(0.25 * total, rel=1e-5)


def test_gated_dimensions_train_save_and_load(kind, tmp_path):
    layer = make(kind, l0=1e-3, gate_dims=True)
    model = model_of(layer)
    model.compile("adam", "mse", jit_compile=False)
    before = [values(gate.log_alpha) for gate in layer.gates]
    data = batch(size=8), np.zeros((8, 2), "float32")
    assert np.isfinite(model.fit(*data, verbose=0).history["loss"]).all()
    for gate, start in zip(layer.gates, before, strict=True):
        assert (values(gate.log_alpha) != start).all()
        gate.assign_log_alpha(np.linspace(-3, 2, gate.count))
    model.save(tmp_path / "model.keras")
    expected = values(model(data[0]))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(values(loaded(data[0])), expected)
    costs = [gate.cost for gate in keras_l0.gates(loaded)]
    assert costs == [gate.cost for gate in layer.gates]
    np.testing.assert_allclose(
        values(keras_l0.strip(loaded)(data[0])), expected, rtol=1e-3, atol=1e-4
    )
    config = keras.saving.serialize_keras_object(layer)
    assert keras.saving.deserialize_keras_object(config).gate_dims is True


def test_gate_dims_is_a_bool(kind):
    with pytest.raises(TypeError, match="`gate_dims` of .*Received: gate_dims=1"):
        make(kind, gate_dims=1)


REMAT = [
    {"mode": "full"},
    {"mode": "larger_than", "output_size_threshold": 1},
    {"mode": "list_of_layers", "layer_names": ["attention"]},
]


@pytest.mark.skipif(
    not hasattr(keras, "RematScope"), reason="this Keras has no RematScope"
)
@pytest.mark.parametrize(
    ("scope", "dropout"), [*((scope, 0.0) for scope in REMAT), (REMAT[0], 0.3)]
)
def test_gradients_under_remat_are_those_without(
    kind, scope, dropout, gradient, monkeypatch
):
    times, remat = [], keras.src.backend.common.remat.remat
    monkeypatch.setattr(
        keras.src.backend.common.remat,
        "remat",
        lambda f: remat(lambda *args: times.append(f) or f(*args)),
    )
    found = []
    for options in (None, scope):
        keras.utils.set_random_seed(3)
        with keras.RematScope(**(options or {"mode": None})):
            layer = make(
                kind,
                name="attention",
                dropout=dropout,
                gate_options=GateOptions(0.7, "example"),
            )
        layer.build(SHAPE, SHAPE)
        x = ops.convert_to_tensor(batch())
        start = [values(v) for v in layer.non_trainable_variables]

        def total(layer=layer, start=start, x=x):
            for variable, value in zip(
                layer.non_trainable_variables, start, strict=True
            ):
                variable.assign(value)
            return ops.sum(layer(x, x, training=True) ** 2)

        times.clear()
        found.append(
            [gradient(total, w) for w in (layer.gate.raw, layer._key_dense.kernel)]
        )
    for plain, again in zip(*found, strict=True):
        np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-5)
    assert bool(times) == (not dropout)


@pytest.mark.skipif(
    not hasattr(keras, "RematScope"), reason="this Keras has no RematScope"
)
def test_trains_under_remat(kind):
    with keras.RematScope("full"):
        layer = make(kind, l0=1e-3)
    model = model_of(layer)
    model.compile("adam", "mse", jit_compile=False)
    data = batch(size=8), np.zeros((8, 2), "float32")
    assert np.isfinite(model.fit(*data, verbose=0).history["loss"]).all()
