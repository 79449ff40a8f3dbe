"""Attention with gated heads: which of them go, what that costs, what holds them."""

import itertools
import math

import keras
import models_heads
import numpy as np
import pytest
from adversary import batch, harden, run, swapped, variation
from keras import layers
from small_models import CASES, hardened

import keras_l0
from keras_l0 import rewrite
from keras_l0.analysis.cost import Cost
from keras_l0.analysis.rules.attention import projections
from keras_l0.layers import L0Dense, L0GroupQueryAttention, L0MultiHeadAttention

HEADS = [
    name
    for name, facts in CASES.items()
    if facts.build.__module__ == models_heads.__name__
]


def corners(gates):
    """Every corner of the smallest gate, the others open; all closed; random ones."""
    sizes = [gate.count for gate in gates]
    smallest = int(np.argmin(sizes))
    at = sum(sizes[:smallest])
    found = np.ones((2 ** sizes[smallest], sum(sizes)))
    every = itertools.product((0.0, 1.0), repeat=sizes[smallest])
    found[:, at : at + sizes[smallest]] = list(every)
    random = np.random.default_rng(0).uniform(size=(4, sum(sizes))) < 0.4
    return np.concatenate([found, np.zeros((1, sum(sizes))), random])


def attention(layer):
    """The sizes of an attention layer's weights by its arguments alone, per role."""
    config = layer.get_config()
    heads = config.get("num_heads") or config["num_query_heads"]
    groups = config.get("num_key_value_heads", heads)
    key_dim = config.get("key_dim") or config["head_dim"]
    value_dim = config.get("value_dim", key_dim)
    return {
        "query": heads * key_dim,
        "key": groups * key_dim,
        "value": groups * value_dim,
        "attention_output": heads * value_dim,
    }


def counted(layer, node):
    """Parameters and multiplications of a call, from shapes and arguments."""

    def positions(tensor):
        return math.prod(size or 1 for size in tensor.shape[1:-1])

    if isinstance(layer, layers.Dense):
        (x,) = node.input_tensors
        weights = x.shape[-1] * layer.units
        return weights + layer.units, weights * positions(x)
    if isinstance(layer, layers.Embedding):
        return layer.input_dim * layer.output_dim, 0
    query, value = node.arguments.args[0], node.arguments.kwargs.get("value")
    value = node.arguments.args[1] if value is None else value
    key = node.arguments.kwargs.get("key", value)
    out = math.prod(layer.get_config().get("output_shape") or [query.shape[-1]])
    params = macs = 0
    for role, width in attention(layer).items():
        source = {"key": key, "value": value}.get(role, query)
        into, bias = source.shape[-1], width
        if role == "attention_output":
            into, bias = out, out
        params += width * into + bias * layer.use_bias
        macs += width * into * positions(source)
    return params, macs


@pytest.mark.parametrize("name", HEADS)
def test_cost_is_the_stripped_size_on_every_corner(name):
    model = CASES[name].build()
    gates = keras_l0.gates(model)
    cost = Cost(model)
    ends = np.cumsum([gate.count for gate in gates])[:-1]
    for corner in corners(gates):
        for gate, part in zip(gates, np.split(corner, ends), strict=True):
            gate.assign_log_alpha(np.where(part, 9.0, -9.0).reshape(gate.raw.shape))
        stripped = keras_l0.strip(model, verify=False)
        weighty = [layer for layer in stripped.layers if layer.weights]
        sizes = [[counted(o, n) for n in o._inbound_nodes] for o in weighty]
        size = cost(corner)
        params = sum(calls[0][0] for calls in sizes)
        assert float(size.params) == stripped.count_params() == params, corner
        assert float(size.macs) == sum(macs for c in sizes for _, macs in c), corner


@pytest.mark.parametrize(
    "name", ["heads_residual", "heads_scores", "groups_cross_shared", "heads_no_bias"]
)
def test_tensors_and_arrays_cost_the_same_and_have_gradients(name, gradient):
    cost = Cost(CASES[name].build())
    openness = np.random.default_rng(1).uniform(0.1, 0.9, sum(cost.counts))
    variable = keras.Variable(openness)
    for measure in ("params", "macs"):

        def of(z, m=measure):
            return getattr(cost(z), m)

        exact = float(of(openness))
        assert float(of(variable.value)) == pytest.approx(exact, rel=1e-12)
        slopes = gradient(lambda f=of: f(variable.value), variable)
        steps = [
            float(of(openness + d) - of(openness - d)) / 2e-6
            for d in 1e-6 * np.eye(len(openness))
        ]
        np.testing.assert_allclose(slopes, steps, rtol=1e-5, atol=1e-4)


def closed(layer, log_alpha):
    """A model of the layer alone, between an input and a Dense(2)."""
    x = keras.Input((4, 5))
    model = harden(keras.Model(x, layers.Dense(2)(layer(x, x))))
    layer.gate.assign_log_alpha(log_alpha)
    return model


def test_exactly_the_closed_heads_go():
    layer = L0MultiHeadAttention(4, 2, name="a")
    model = closed(layer, [9.0, -9.0, 0.3, -9.0])
    plan = keras_l0.plan(model)
    row = plan.layers[0]
    assert (row.kind, row.units, row.kept) == ("L0MultiHeadAttention", 4, 2)
    assert not plan.barriers
    new = keras_l0.strip(model).get_layer("a")
    assert type(new) is layers.MultiHeadAttention and new.num_heads == 2
    for name in ("query", "key", "value"):
        old = np.array(projections(layer)[name].kernel)[:, [0, 2]]
        np.testing.assert_array_equal(np.array(projections(new)[name].kernel), old)
    # A gate between 0 and 1 is folded into the output projection.
    z = np.array(layer.gate.test_gates)[[0, 2], None, None]
    old = np.array(projections(layer)["attention_output"].kernel)[[0, 2]] * z
    np.testing.assert_allclose(
        np.array(projections(new)["attention_output"].kernel), old, rtol=1e-12
    )


def test_whole_groups_go():
    layer = L0GroupQueryAttention(3, 6, 3, name="a")
    model = closed(layer, [9.0, -9.0, 0.3])
    row = keras_l0.plan(model).layers[0]
    assert (row.units, row.kept) == (3, 2)
    new = keras_l0.strip(model).get_layer("a")
    assert type(new) is layers.GroupQueryAttention
    assert (new.num_query_heads, new.num_key_value_heads) == (4, 2)
    old = np.array(projections(layer)["query"].kernel)[:, [0, 1, 4, 5]]
    np.testing.assert_array_equal(np.array(projections(new)["query"].kernel), old)


def test_attention_without_open_heads_is_a_constant():
    model = hardened("heads_dead_plain")
    stripped = keras_l0.strip(model)
    kinds = {type(layer) for layer in stripped.layers}
    assert layers.MultiHeadAttention not in kinds
    row = next(r for r in keras_l0.plan(model).layers if r.name == "a")
    assert row.kept == 0 and row.after.params == 0


def test_heads_stay_where_scores_are_read():
    layer = L0MultiHeadAttention(3, 2, name="a")
    x = keras.Input((4, 5))
    h, scores = layer(x, x, return_attention_scores=True)
    model = harden(keras.Model(x, [layers.Dense(2)(h), scores]))
    plan = keras_l0.plan(model)
    assert (plan.layers[0].units, plan.layers[0].kept) == (3, 3)
    (barrier,) = plan.barriers
    assert barrier.name == "a" and "scores" in barrier.reason and barrier.held > 0


def test_named_layers_keep_their_heads():
    model = closed(L0MultiHeadAttention(4, 2, name="a"), [9.0, -9.0, 0.3, -9.0])
    stripped = keras_l0.strip(model, keep=["a"])
    assert stripped.get_layer("a").num_heads == 4


@pytest.mark.parametrize(
    ("dims", "options", "heads"),
    [
        ({"key_dim": 4}, {"round_to": 8}, 2),  # 1 head of 4 features, rounded to 8
        ({"key_dim": 8}, {"round_to": 8}, 1),
        ({"key_dim": 4, "value_dim": 6}, {"round_to": 4}, 2),
        ({"key_dim": 4}, {"min_units": 3}, 3),
    ],
)
def test_rounding_counts_the_features_of_heads(dims, options, heads):
    layer = L0MultiHeadAttention(4, **dims, name="a")
    model = closed(layer, [-9.0, 0.7, -9.0, -9.0])
    stripped = keras_l0.strip(model, **options)
    assert stripped.get_layer("a").num_heads == heads
    assert stripped.count_params() == keras_l0.plan(model, **options).after.params


@pytest.mark.parametrize("gated", [True, False])
def test_heads_and_features_count_as_reachable(gated):
    kind = L0MultiHeadAttention if gated else layers.MultiHeadAttention
    x = keras.Input((4, 8))
    h = layers.LayerNormalization()(x)
    model = keras.Model(x, layers.Dense(2)(kind(4, 2, use_bias=False)(h, h)))
    # Of each kernel one head of four is left, and of the last one feature of eight.
    assert keras_l0.plan(model).reachable == pytest.approx(1 - (3 + 1 / 8) / 16)


@pytest.mark.parametrize("role", ["query", "value", "attention_output"])
def test_one_swapped_head_is_noticed(role, monkeypatch):
    model = closed(L0MultiHeadAttention(4, 3, name="a"), [9.0, -9.0, 0.3, 1.0])
    keras_l0.strip(model)
    build = rewrite.Rewriter._build
    at = {"query": 0, "value": 4, "attention_output": 6}[role]

    def mutated(self, step, kind, config, weights):
        if step.node.name == "a":
            axis = 0 if role == "attention_output" else 1
            heads = np.moveaxis(weights[at], axis, -1)
            weights[at] = np.moveaxis(swapped(heads), -1, axis)
        return build(self, step, kind, config, weights)

    monkeypatch.setattr(rewrite.Rewriter, "_build", mutated)
    with pytest.raises(RuntimeError, match="stripped model"):
        keras_l0.strip(model)


@pytest.mark.skipif(
    "use_gate" not in layers.MultiHeadAttention(1, 1).get_config(),
    reason="this Keras has no gated attention of its own",
)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: L0MultiHeadAttention(3, 2, value_dim=4, use_gate=True),
        lambda: L0GroupQueryAttention(2, 6, 3, use_gate=True),
    ],
)
def test_the_gate_of_keras_is_a_projection_with_heads(layer):
    x = keras.Input((4, 5))
    h = L0Dense(5, "relu")(x)
    model = harden(keras.Model(x, layers.Dense(2)(layer()(h, h))))
    stripped = keras_l0.strip(model, verify=False)
    inputs = batch(model)
    ((old,), (new,)) = run(model, inputs), run(stripped, inputs)
    assert np.abs(old - new).max() <= 1e-9 * variation(old)
    assert stripped.count_params() == keras_l0.plan(model).after.params
