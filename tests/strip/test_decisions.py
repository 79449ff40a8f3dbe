"""Every built-in layer and operation is decided: a rule, or a barrier that must be."""

import inspect

import keras
import numpy as np
import pytest
from adversary import run
from barriers import EXAMPLES, SHAPES, UNTESTABLE, call_of
from keras import layers

import keras_l0
from keras_l0.analysis.decisions import decisions
from keras_l0.analysis.rules import RULES
from keras_l0.analysis.rules.ops import OPERATIONS
from keras_l0.layers import L0Dense

# What no call in a graph is of, or what has nothing to decide.
NO_LAYERS = {
    "Layer": "the base of all layers",
    "Equalization": "Keras' own returns its input, which no graph can hold",
    "Wrapper": "the base of wrappers",
    "InputLayer": "it makes the model's inputs, which `inputs=` is about",
}
NO_OPERATIONS = {
    "SegmentReduction": "the base of reductions by segment",
    "Function": "the base of functional models, which are inlined",
    "Mish": "Keras' own function takes no symbolic tensors",
    "AdaptiveAveragePool": "Keras' own gives a wrong shape where it is symbolic",
    "AdaptiveMaxPool": "Keras' own gives a wrong shape where it is symbolic",
    "Abs": "calls are of Absolute",
    "Conj": "calls are of Conjugate",
    "Ndim": "it does not depend on the values of its tensor",
    "EmptyLike": "its values are undefined",
} | dict.fromkeys(
    "Arange Bartlett Blackman Empty Eye Full Hamming Identity Ones Tri Zeros".split(),
    "it takes no tensors",
)
BARRIERS = {kind: rule.reason for kind, rule in RULES.items() if rule.reason}


def built_in():
    members = {name: getattr(layers, name) for name in dir(layers)}
    for name, kind in members.items():
        if inspect.isclass(kind) and issubclass(kind, keras.Layer):
            if name not in NO_LAYERS:
                yield kind
    for name, kind in OPERATIONS.items():
        if name not in NO_OPERATIONS:
            yield kind


def test_everything_is_decided():
    undecided = [kind.__name__ for kind in built_in() if kind not in RULES]
    assert not undecided, f"neither a rule nor a barrier: {undecided}"


def test_the_decisions_can_be_listed():
    rows = {(row.name, row.layer): row for row in decisions()}
    assert rows["Dense", True].summary and rows["Dense", True].barrier is None
    assert rows["Softmax", True].barrier == "it normalizes over all channels"
    assert not [row for row in rows.values() if bool(row.barrier) == bool(row.summary)]
    assert len(rows) == len(RULES)


def test_every_barrier_has_a_counter_example():
    missing = [
        kind.__name__
        for kind in BARRIERS
        if call_of(kind) is None and kind.__name__ not in UNTESTABLE
    ]
    assert not missing


NAMED = pytest.mark.parametrize(
    "kind",
    [kind for kind in BARRIERS if kind.__name__ not in UNTESTABLE],
    ids=lambda kind: kind.__name__,
)


def shape_of(kind):
    return SHAPES.get(kind.__name__, (6, 6))


def numbers(result):
    flat = [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(result)]
    return flat[0]


@NAMED
def test_it_is_not_channelwise(kind):
    """Without a channel of zeros the others change, or the zeros' sign matters."""
    call, shape = call_of(kind), shape_of(kind)

    def outputs(x):
        return numbers(call(keras.ops.convert_to_tensor(x)))

    x = np.random.default_rng(0).normal(size=(EXAMPLES, *shape))
    x[..., 1] = 0.0
    try:
        whole = outputs(x)
    except ImportError as error:
        pytest.skip(str(error))
    try:
        cut = outputs(np.delete(x, 1, axis=-1))
    except Exception:
        return  # It does not take fewer channels.
    if whole.ndim and whole.shape[-1] == shape[-1]:
        same = np.delete(whole, 1, axis=-1)
    else:
        same = whole  # There is no channel to miss.
    x[..., 1] = -0.0
    assert (
        same.shape != cut.shape
        or not np.allclose(same, cut, atol=1e-3)
        or not np.array_equal(whole, outputs(x))
    )


@NAMED
def test_strip_stops_there(kind):
    x = keras.Input(shape_of(kind), batch_size=EXAMPLES)
    h = L0Dense(shape_of(kind)[-1], "relu", name="gated")(x)
    inputs = np.random.default_rng(1).normal(size=(EXAMPLES, *shape_of(kind)))
    try:
        model = keras.Model(x, call_of(kind)(h))
        run(model, inputs)
    except Exception as error:
        pytest.skip(f"Keras' own fails in a model: {error}")
    (gate,) = keras_l0.gates(model)
    gate.assign_log_alpha(np.where(np.arange(gate.count) % 3 == 1, -9.0, 0.8))
    plan = keras_l0.plan(model)
    (planned,) = [row for row in plan.layers if row.name == "gated"]
    assert planned.kept == planned.units
    named = {barrier.kind: barrier.reason for barrier in plan.barriers}
    assert named[kind.__name__] == BARRIERS[kind]
    stripped = keras_l0.strip(model, verify=False)
    for old, new in zip(run(model, inputs), run(stripped, inputs), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-9)


def test_the_sign_of_zero_is_not_promised():
    """A closed gate makes -0.0 of what is negative, strip 0.0: no two other numbers."""
    x = keras.Input((4,))
    h = L0Dense(6, "tanh")(x)
    model = keras.Model(x, [h, keras.ops.arctan2(h, -1.0)])
    (gate,) = keras_l0.gates(model)
    gate.assign_log_alpha(np.where(np.arange(6) % 2, -9.0, 0.8))
    (barrier,) = [b for b in keras_l0.plan(model).barriers if b.kind == "Arctan2"]
    assert barrier.reason == "it tells -0.0, which a closed gate may make, from 0.0"
    inputs = np.random.default_rng(0).normal(size=(20, 4))
    old, angles = run(model, inputs)
    new, others = run(keras_l0.strip(model, verify=False), inputs)
    np.testing.assert_allclose(new, old, atol=1e-12)
    assert (np.signbit(old) != np.signbit(new)).any()
    np.testing.assert_allclose(np.cos(others), np.cos(angles), atol=1e-12)
    with pytest.raises(RuntimeError, match="differs from that of model"):
        keras_l0.strip(model)
