"""Sequence layers: sizes, what a unit or a head takes with it, barriers."""

import itertools

import keras
import models_sequence
import numpy as np
import pytest
from adversary import batch, harden, run, variation
from keras import layers
from small_models import CASES, hardened

import keras_l0
from keras_l0.analysis.cost import Cost
from keras_l0.analysis.rules.attention import projections
from keras_l0.analysis.rules.heads import slice_heads
from keras_l0.analysis.rules.recurrent import slice_cell, unread_units
from keras_l0.layers import L0LSTM, L0Dense, L0Gate

SEQUENCE = [
    name
    for name, facts in CASES.items()
    if facts.build.__module__ == models_sequence.__name__
]


def agree(old, new, inputs, allowed=1e-9):
    for a, b in zip(run(old, inputs), run(new, inputs), strict=True):
        assert variation(a) > 0
        assert np.abs(a - b).max() <= allowed * variation(a)


# Sizes, counted by another method: one multiplication per weight and position


def positions(tensor):
    return int(np.prod([size or 1 for size in tensor.shape[1:-1]]))


def of_matrices(layer, node):
    return (
        layer.kernel.shape[0] * layer.kernel.shape[1] * positions(node.input_tensors[0])
    )


def of_einsum(layer, node, shape=None):
    shape = tuple(node.input_tensors[0].shape if shape is None else shape)
    sides = layer.equation.replace("->", ",").split(",")
    free = "".join(map(str, range(len(shape) - len(sides[0].replace("...", "")))))
    source, kernel, _ = (side.replace("...", free) for side in sides)
    sizes = dict(zip(source, shape, strict=True))
    sizes |= dict(zip(kernel, layer.kernel.shape, strict=True))
    sizes[source[0]] = 1
    return int(np.prod([size or 1 for size in sizes.values()]))


def of_cells(layer, node):
    weights = sum(int(np.prod(w.shape)) for w in layer.weights if "kernel" in w.name)
    return weights * (node.input_tensors[0].shape[1] or 1)


def of_attention(layer, node):
    named = dict(zip(("query", "value", "key"), node.arguments.args, strict=False))
    named |= node.arguments.kwargs
    query, value = named["query"], named["value"]
    key = value if named.get("key") is None else named["key"]
    total = 0
    for name, inner in projections(layer).items():
        source = {"key": key, "value": value}.get(name, query)
        total += int(np.prod(inner.kernel.shape)) * positions(source)
    return total


def of_convolution(layer, node):
    return int(np.prod(layer.kernel.shape)) * positions(node.outputs[0])


def of_reverse(layer, node):
    if not node.arguments.kwargs.get("reverse"):
        return 0
    return layer.input_dim * layer.output_dim * positions(node.input_tensors[0])


COUNTS = {
    "Dense": of_matrices,
    "EinsumDense": of_einsum,
    "Conv2D": of_convolution,
    "MultiHeadAttention": of_attention,
    "GroupedQueryAttention": of_attention,
    "ReversibleEmbedding": of_reverse,
    **dict.fromkeys(
        ("SimpleRNN", "LSTM", "GRU", "RNN", "Bidirectional"), of_cells
    ),
}  # fmt: skip


def macs(model):
    return sum(
        COUNTS.get(type(layer).__name__, lambda *_: 0)(layer, node)
        for layer in model.layers
        for node in layer._inbound_nodes
    )


def weighty(model):
    """The layers with weights, but for those that multiply by none."""
    free = ("Embedding", "BatchNormalization", "LayerNormalization")
    return [x for x in model.layers if x.weights and type(x).__name__ not in free]


def set_corner(model, corner):
    gates = keras_l0.gates(model)
    ends = np.cumsum([gate.count for gate in gates])
    for gate, part in zip(gates, np.split(corner, ends[:-1]), strict=True):
        gate.assign_log_alpha(np.where(part, 9.0, -9.0).reshape(gate.raw.shape))


def corners(model):
    """All gates open, all closed, and random ones."""
    rng = np.random.default_rng(0)
    count = sum(gate.count for gate in keras_l0.gates(model))
    yield np.ones(count)
    yield np.zeros(count)
    for share in (0.2, 0.7):
        yield (rng.uniform(size=count) < share).astype("float64")


@pytest.mark.parametrize("name", SEQUENCE)
def test_cost_is_the_stripped_size(name):
    model = CASES[name].build()
    cost = Cost(model)
    for corner in corners(model):
        set_corner(model, corner)
        stripped = keras_l0.strip(model, verify=False)
        size = cost(corner)
        assert float(size.params) == stripped.count_params()
        # Of what a barrier multiplies nothing is known.
        if name != "stacked_cells" and all(
            type(layer).__name__ in COUNTS for layer in weighty(stripped)
        ):
            assert float(size.macs) == macs(stripped)


@pytest.mark.parametrize(
    "name",
    [
        "LSTM_states",
        "attention_scores",
        "einsum_heads",
        "time_distributed_gated",
        "embedding_shared",
    ],
)
def test_tensors_and_arrays_cost_the_same(name):
    cost = Cost(CASES[name].build())
    openness = np.random.default_rng(1).uniform(size=sum(cost.counts))
    exact = cost(openness)
    tensors = cost(keras.ops.convert_to_tensor(openness))
    for a, b in zip(exact, tensors, strict=True):
        assert float(b) == pytest.approx(float(a), rel=1e-12)


# Recurrent units


def recurrent(kind, units=5, **options):
    x = keras.Input((4, 3))
    h = getattr(layers, kind)(units, return_sequences=True, **options)(x)
    return harden(keras.Model(x, h))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("SimpleRNN", {}),
        ("SimpleRNN", {"use_bias": False}),
        ("LSTM", {}),
        ("GRU", {}),
        ("GRU", {"reset_after": False}),
        ("GRU", {"use_bias": False}),
    ],
)
def test_units_that_no_unit_reads_can_be_sliced(kind, options):
    model = recurrent(kind, **options)
    layer = model.layers[1]
    cell = layer.cell
    units = np.array([1, 0, 1, 1, 0], bool)
    recurrent_kernel = np.array(cell.recurrent_kernel)
    recurrent_kernel[~units] = 0
    cell.recurrent_kernel.assign(recurrent_kernel)
    assert (unread_units(recurrent_kernel) == ~units).all()

    weights = {w.name: np.array(w) for w in layer.weights}
    rows = np.array([1, 0, 1], bool)
    sliced = slice_cell(weights, rows, units)
    small = recurrent(kind, 3, **options)
    small.layers[1].set_weights(
        [slice_cell(weights, np.ones(3, bool), units)[w.name] for w in layer.weights]
    )
    x = batch(model)
    assert np.abs(run(model, x)[0][..., units] - run(small, x)[0]).max() <= 1e-12
    assert (sliced["kernel"] == weights["kernel"][rows][:, np.tile(
        units, weights["kernel"].shape[1] // 5)]).all()  # fmt: skip


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_slicing_a_unit_that_others_read_is_wrong(kind):
    model = recurrent(kind)
    layer = model.layers[1]
    units = np.array([1, 0, 1, 1, 0], bool)
    weights = {w.name: np.array(w) for w in layer.weights}
    small = recurrent(kind, 3)
    sliced = slice_cell(weights, np.ones(3, bool), units)
    small.layers[1].set_weights([sliced[w.name] for w in layer.weights])
    x = batch(model)
    old, new = run(model, x)[0][..., units], run(small, x)[0]
    assert np.abs(old - new).max() > 1e-2 * variation(old)


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("states", [False, True])
def test_units_that_nobody_reads_go(kind, states):
    x, y = keras.Input((4, 3)), keras.Input((2,))
    n_states = 2 if kind in ("LSTM", "RNN") else 1
    initial = [L0Dense(5, "relu")(y) for _ in range(n_states)] if states else None
    cell = layers.LSTMCell(5)
    layer = layers.RNN(cell) if kind == "RNN" else getattr(layers, kind)(5)
    h = L0Gate(name="top")(layer(x, initial_state=initial))
    model = harden(keras.Model([x, y], [layers.Dense(2)(h), layers.Dense(1)(y)]))
    kernel = np.array(layer.cell.recurrent_kernel)
    kernel[:3] = 0  # units 0 to 2 feed nobody, not even themselves
    layer.cell.recurrent_kernel.assign(kernel)
    keras_l0.gates(model)[-1].assign_log_alpha([-9.0, 9.0, -9.0, -9.0, 9.0])
    stripped = keras_l0.strip(model)
    assert stripped.get_layer(layer.name).cell.units == 3  # 1, 3 and 4
    assert stripped.count_params() == keras_l0.plan(model).after.params
    agree(model, stripped, batch(model))


def test_the_plan_says_why_units_stay():
    plan = keras_l0.plan(hardened("LSTM_plain"))
    (barrier,) = plan.barriers
    assert barrier.kind == "LSTM"
    assert "recurrence" in barrier.reason


def test_states_are_kept_between_calls():
    x = keras.Input(batch_shape=(8, 4, 3))
    h = layers.GRU(4, stateful=True)(L0Gate()(x))
    model = harden_with(keras.Model(x, layers.Dense(2)(h)), 8)
    stripped = keras_l0.strip(model, verify=False)
    inputs = batch(model, 8)
    for layer in (model.layers[2], stripped.layers[1]):
        layer.reset_state()
    first = run(model, inputs)[0]
    for expected in (first, run(model, inputs)[0]):
        received = run(stripped, inputs)[0]
        assert np.abs(expected - received).max() <= 1e-9 * variation(first)
        assert received is not first
    assert np.abs(first - expected).max() > 1e-3


def harden_with(model, size):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name != "raw_log_alpha":
            weight.assign(rng.normal(size=weight.shape))
    keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, 0.5])
    return model


# Attention heads


def head_masks(kind):
    # One key dimension of four stays: Keras rounds 1 / sqrt(key_dim) to float32 on
    # TensorFlow, which changes nothing for 1 and 4.
    if kind == "MultiHeadAttention":
        heads = np.array([1, 0, 1], bool)
        keys = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]], bool)
        values = np.array([[1, 0], [1, 1], [0, 1]], bool)
    else:
        heads = np.array([1, 0, 0, 0, 1, 0], bool)
        keys = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]], bool)
        values = np.array([[0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]], bool)
    return heads, keys, values


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupQueryAttention"])
def test_heads_and_dimensions_that_are_zero_can_be_sliced(kind, use_bias):
    if not hasattr(layers, kind):
        pytest.skip(f"this Keras has no {kind}")
    heads, keys, values = head_masks(kind)

    def build(heads, key_heads, key_dim, value_dim):
        x = keras.Input((4, 5))
        if kind == "MultiHeadAttention":
            layer = layers.MultiHeadAttention(
                heads, key_dim, value_dim=value_dim, use_bias=use_bias
            )
        else:
            layer = layers.GroupQueryAttention(
                key_dim, heads, key_heads, use_bias=use_bias
            )
        return harden(keras.Model(x, layer(x, x)))

    model = build(len(heads), len(keys), keys.shape[1], values.shape[1])
    found = projections(model.layers[1])
    group = np.repeat(np.arange(len(keys)), len(heads) // len(keys))
    zeros = {"query": ~keys[group], "value": ~values}
    for name, gone in zeros.items():
        for weight in found[name].weights:
            array = np.array(weight)
            array[..., gone] = 0
            weight.assign(array)
    kernel = np.array(found["attention_output"].kernel)
    kernel[~heads] = 0
    found["attention_output"].kernel.assign(kernel)

    weights = {
        name: (np.array(p.kernel), None if p.bias is None else np.array(p.bias))
        for name, p in found.items()
    }
    left, sliced = slice_heads(weights, heads, keys, values)
    small = build(**left)
    for name, projection in projections(small.layers[1]).items():
        projection.set_weights([w for w in sliced[name] if w is not None])
    agree(model, small, batch(model), 1e-12)


def test_heads_must_be_left_alike():
    weights = {"query": (np.zeros((5, 2, 3)), None)}
    keys = np.array([[1, 1, 1], [1, 0, 1]], bool)
    with pytest.raises(ValueError, match="equally many key dimensions"):
        slice_heads(weights, np.ones(2, bool), keys, np.ones((2, 3), bool))


# Barriers: what cutting channels there would do


@pytest.mark.parametrize("kind", ["Attention", "AdditiveAttention"])
def test_unread_output_channels_steer_attention(kind):
    # Channel 0 of the output is not read; still it decides where attention looks.
    layer = getattr(layers, kind)()
    rng = np.random.default_rng(0)
    query, value = rng.normal(size=(2, 1, 4, 3))
    whole = np.array(layer([query, value]))[..., 1:]
    small = getattr(layers, kind)()([query[..., 1:], value[..., 1:]])
    assert np.abs(whole - np.array(small)).max() > 1e-2
    assert keras_l0.plan(hardened(f"{kind}_unprojected")).barriers[0].kind == kind


def test_a_softmax_over_units_reads_all_of_them():
    logits = np.array([[1.0, 2.0, 3.0]])
    cut = keras.ops.softmax(logits[:, :2])
    assert (
        np.abs(np.array(keras.ops.softmax(logits))[:, :2] - np.array(cut)).max() > 0.1
    )


def test_lambdas_keep_their_function():
    stripped = keras_l0.strip(hardened("lambda_layer"))
    (layer,) = (o for o in stripped.layers if type(o) is layers.Lambda)
    assert layer.name == hardened("lambda_layer").layers[2].name


def test_a_gate_behind_a_recurrence_is_read_as_zeros():
    model = hardened("LSTM_plain")
    stripped = keras_l0.strip(model)
    dense = stripped.layers[-1]
    assert stripped.layers[-2].units == 5
    assert (np.abs(np.array(dense.kernel)).sum(axis=1) == 0).any()


# Gates inside of recurrences


@pytest.mark.parametrize("kind", ["L0SimpleRNN", "L0LSTM", "L0GRU"])
def test_size_of_gated_recurrences_on_every_corner(kind):
    kind = getattr(keras_l0.layers, kind)
    model = keras.Sequential(
        [
            keras.Input((4, 2)),
            layers.Bidirectional(kind(2, return_sequences=True)),
            kind(2),
            layers.Dense(1),
        ]
    )
    gates = keras_l0.gates(model)
    cost = Cost(model)
    for corner in itertools.product((0.0, 1.0), repeat=6):
        for gate, part in zip(gates, np.split(np.array(corner), 3), strict=True):
            gate.assign_log_alpha(np.where(part > 0, 9.0, -9.0))
        stripped = keras_l0.strip(model, verify=False)
        macs = sum(
            4 * cell.units * (cell.kernel.shape[0] + cell.units)
            * (cell.kernel.shape[1] // cell.units)
            for layer in stripped.layers
            for one in (
                [layer.forward_layer, layer.backward_layer]
                if isinstance(layer, layers.Bidirectional)
                else [layer]
            )
            if (cell := getattr(one, "cell", None))
        ) + stripped.layers[-1].kernel.shape[0]  # fmt: skip
        size = cost(np.array(corner))
        assert (size.params, size.macs) == (stripped.count_params(), macs), corner


def test_a_closed_unit_leaves_the_recurrence():
    model = hardened("L0LSTM_stack")
    plan = keras_l0.plan(model)
    stripped = keras_l0.strip(model)
    open_ = [int((keras.ops.convert_to_numpy(g.test_gates) > 0).sum())
             for g in keras_l0.gates(model)]  # fmt: skip
    assert [layer.kept for layer in plan.layers if "LSTM" in layer.kind] == open_
    for name, units in zip(("one", "two"), open_, strict=True):
        layer = stripped.get_layer(name)
        assert type(layer) is layers.LSTM and layer.units == units
        assert layer.cell.recurrent_kernel.shape == (units, 4 * units)


def test_directions_that_are_merged_cannot_lose_gated_units():
    model = keras.Sequential(
        [
            keras.Input((4, 2)),
            layers.Bidirectional(keras_l0.layers.L0LSTM(3), merge_mode="sum"),
        ]
    )
    with pytest.raises(ValueError, match="gates inside.*do not hold units one by one"):
        keras_l0.strip(model)
    assert any("will refuse the model" in note for note in keras_l0.plan(model).notes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: [layers.RNN([layers.LSTMCell(4), layers.LSTMCell(4)])],
        lambda: [layers.Bidirectional(layers.LSTM(4), merge_mode="sum")],
    ],
)
def test_steps_of_a_recurrence_that_is_a_barrier_count(make):
    model = keras.Sequential([keras.Input((10, 3)), *make()])
    kernels = [w for w in model.weights if "kernel" in w.name]
    expected = 10 * sum(np.prod(w.shape) for w in kernels)
    assert keras_l0.profile(model).dense.macs == expected


def test_steps_and_positions_of_a_recurrent_convolution_count():
    for sequences in (True, False):
        layer = layers.ConvLSTM2D(2, (3, 1), return_sequences=sequences)
        model = keras.Sequential([keras.Input((5, 6, 4, 3)), layer])
        expected = 5 * (4 * 4) * (3 * 3 * 8 + 3 * 2 * 8)
        assert keras_l0.profile(model).dense.macs == expected


@pytest.mark.parametrize("kind", [layers.LSTM, L0LSTM])
def test_units_of_a_recurrence_count_as_reachable(kind):
    x = keras.Input((4, 5))
    model = keras.Model(x, layers.Dense(2)(kind(6, use_bias=False)(x)))
    # Of the blocks of 6 + 5 rows by 6 columns one column is left, with 1 + 5 rows.
    assert keras_l0.plan(model).reachable == pytest.approx(1 - 6 / (11 * 6))


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
def test_units_that_are_handed_on_count_as_reachable(kind):
    x, y = keras.Input((4, 5)), keras.Input((3, 2))
    _, *states = kind(6, return_state=True)(x)
    h = kind(6)(y, initial_state=states)
    model = keras.Model([x, y], layers.Dense(2)(h))
    reachable = keras_l0.plan(model).reachable
    assert reachable == pytest.approx(keras_l0.plan_gates(model).reached)
    assert reachable > 0.7


@pytest.mark.parametrize("equation", ["abc,c->abc", "abc,bc->ac", "abc,cb->ac"])
def test_equations_that_keep_channels_lose_closed_ones(equation):
    x = keras.Input((4, 3))
    shape = (4, 6) if equation.endswith("abc") else 6
    scale = layers.EinsumDense(equation, shape, bias_axes="c", name="scale")
    model = harden(keras.Model(x, layers.Dense(2)(scale(L0Dense(6, "relu")(x)))))
    (gate,) = keras_l0.gates(model)
    gate.assign_log_alpha([9.0, -9.0, 0.3, -9.0, -9.0, 9.0])
    assert not keras_l0.plan(model).barriers
    kernel = keras_l0.strip(model).get_layer("scale").kernel
    assert tuple(kernel.shape) == tuple(3 if n == 6 else n for n in scale.kernel.shape)
