"""Every wrong argument: one error that names it, what was expected, what came."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_l0
from keras_l0.layers import L0Dense, L0Gate

FUNCTIONS = (keras_l0.strip, keras_l0.plan, keras_l0.profile)


def gated():
    return keras.Sequential(
        [keras.Input((4,)), L0Dense(5, "relu", name="hidden"), layers.Dense(2)]
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L0Dense(3)

    def call(self, x):
        return self.dense(x)


class FunctionalWithCall(keras.Model):
    def call(self, x):
        return 2 * super().call(x)


class SequentialWithCall(keras.Sequential):
    def call(self, x, training=None, mask=None):
        return 2 * super().call(x)


def functional_with_call():
    x = keras.Input((4,))
    return FunctionalWithCall(x, L0Dense(3)(x))


def built_subclass():
    model = Subclassed()
    model(np.zeros((1, 4)))
    return model


UNREADABLE = {
    "unbuilt": (lambda: keras.Sequential([L0Dense(3)]), ["must be built", "Input"]),
    "empty": (lambda: keras.Sequential(), ["must be built"]),
    "subclassed": (built_subclass, ["functional", "Subclassed", "own `call`"]),
    "unbuilt subclass": (Subclassed, ["functional", "Subclassed", "own `call`"]),
    "functional with call": (
        functional_with_call,
        ["FunctionalWithCall", "own `call`"],
    ),
    "sequential with call": (
        lambda: SequentialWithCall([keras.Input((4,)), L0Dense(3)]),
        ["SequentialWithCall", "own `call`"],
    ),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", UNREADABLE)
def test_models_without_a_graph(kind, function):
    make, words = UNREADABLE[kind]
    with pytest.raises(ValueError, match="`model` must be.*Received: ") as caught:
        function(make())
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrong", [None, "model.keras", 3, [1], keras.Sequential])
def test_not_a_model(wrong, function):
    with pytest.raises(TypeError, match="`model` must be a Keras model.*Received: "):
        function(wrong)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_layer_is_not_a_model(function):
    with pytest.raises(TypeError, match="`model` must be a Keras model.*L0Dense"):
        function(L0Dense(3))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrong", ["bogus", "", None, 3, True, ["keep"]])
def test_unknown_input_mode(wrong, function):
    if wrong is None and function is keras_l0.strip:
        # What a budget says, or "keep".
        model = gated()
        weights = [function(model, inputs).get_weights() for inputs in (None, "keep")]
        np.testing.assert_equal(*weights)
        return
    with pytest.raises(
        ValueError, match="`inputs` must be one of 'keep', 'gather'"
    ) as e:
        function(gated(), inputs=wrong)
    assert f"inputs={wrong!r}" in str(e.value)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_diverged_gate_is_named(value, function):
    model = gated()
    raw = keras_l0.gates(model)[0].raw
    raw.assign([0.0, value, 0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="training diverged") as caught:
        function(model)
    assert "hidden" in str(caught.value) and "log_alpha" in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_diverged_weight_is_named(function, dtype):
    keras.config.set_dtype_policy(dtype)
    model = gated()
    bias = model.get_layer("hidden").bias
    bias.assign([0, np.nan, 0, 0, 0])
    with pytest.raises(ValueError, match="training diverged") as caught:
        function(model)
    assert "hidden/bias" in str(caught.value)


def test_one_diverged_layer_in_a_nested_model_is_named():
    inner = gated()
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(inner(x)))
    inner.get_layer("hidden").kernel.assign(np.full((4, 5), np.inf))
    with pytest.raises(ValueError, match="hidden/kernel"):
        keras_l0.strip(model)


@pytest.mark.parametrize(
    "data", [np.zeros((3, 5)), np.zeros((0, 4)), [np.zeros((2, 4))] * 2, "abc", {}]
)
def test_data_that_does_not_fit(data):
    with pytest.raises(ValueError, match="`data` must.*Received: "):
        keras_l0.strip(gated(), data=data)


@pytest.mark.parametrize("name", ["round_to", "min_units"])
@pytest.mark.parametrize("wrong", [0, -1, 2.5, "8", None, True, [8]])
def test_numbers_out_of_range(name, wrong):
    error = ValueError if type(wrong) is int else TypeError
    with pytest.raises(error, match=f"`{name}` must be an integer >= 1") as e:
        keras_l0.strip(gated(), **{name: wrong})
    assert f"{name}={wrong!r}" in str(e.value)


@pytest.mark.parametrize("wrong", [3, None, [3], [layers.Dense(2)], True])
def test_what_names_no_layer(wrong):
    with pytest.raises(TypeError, match="`keep` must be names of layers"):
        keras_l0.strip(gated(), keep=wrong)


@pytest.mark.parametrize("wrong", ["hiden", ["hidden", "hiden"], ("hiden",)])
def test_unknown_layers(wrong):
    with pytest.raises(ValueError, match="`keep` must name.*'hidden'.*'hiden'"):
        keras_l0.strip(gated(), keep=wrong)


def test_known_layers():
    for keep in ("hidden", ["hidden"], iter(["hidden"])):
        assert keras_l0.strip(gated(), keep=keep).layers[1].units == 5


def test_data_that_fits():
    stripped = keras_l0.strip(gated(), data=np.ones((3, 4)))
    assert stripped.count_params() == 4 * 5 + 5 + 5 * 2 + 2


class Twice(L0Dense):
    def call(self, x, training=None):
        return 2 * super().call(x, training=training)


@keras.saving.register_keras_serializable(package="test")
class Wrapper(layers.Wrapper):
    def call(self, x):
        return self.layer(x)


def wrapped():
    return keras.Sequential([keras.Input((4,)), Wrapper(L0Dense(5), name="hidden")])


def subclassed_gated_layer():
    return keras.Sequential([keras.Input((4,)), Twice(5, name="hidden")])


def nested_subclass():
    x = keras.Input((4,))
    inner = Subclassed()
    inner.name = "hidden"
    return keras.Model(x, layers.Dense(2)(inner(x)))


def always_random():
    x = keras.Input((4,))
    return keras.Model(x, L0Gate(name="hidden")(x, training=True))


def always_random_model():
    x = keras.Input((4,))
    inner = gated()
    inner.name = "hidden"
    return keras.Model(x, inner(x, training=True))


@pytest.mark.parametrize(
    "make",
    [
        wrapped,
        subclassed_gated_layer,
        nested_subclass,
        always_random,
        always_random_model,
    ],
)
def test_a_gate_out_of_reach_is_refused(make):
    """Nothing of this package may be left in the result: say so, name the layer."""
    with pytest.raises(ValueError, match="hidden"):
        keras_l0.strip(make())


def test_dropout_that_never_rests_is_a_barrier():
    x = keras.Input((4,))
    h = layers.Dropout(0.5, name="noise")(L0Dense(5)(x), training=True)
    plan = keras_l0.plan(keras.Model(x, layers.Dense(2)(h)))
    assert [(b.name, b.reason) for b in plan.barriers] == [
        ("noise", "it is called with training=True")
    ]


def test_a_model_without_gates_is_copied_with_a_word():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)], name="plain")
    with pytest.warns(UserWarning, match="Nothing was gated in model 'plain'"):
        copy = keras_l0.strip(model)
    assert copy.count_params() == model.count_params()
    assert "Nothing is gated" in str(keras_l0.plan(model))
