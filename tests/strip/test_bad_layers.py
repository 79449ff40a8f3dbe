"""Layers that strip cannot take as they seem: named, with the reason, never guessed."""

import keras
import numpy as np
import pytest
from adversary import policy, run
from keras import layers

import keras_l0
from keras_l0.analysis.rules import RULES
from keras_l0.layers import L0Dense, L0Gate


@pytest.fixture(autouse=True)
def float32():
    """What Keras quantizes computes in float32."""
    with policy("float32"):
        yield


@pytest.fixture
def register():
    """`register_strip_rule`, undone after the test."""
    before = dict(RULES)
    yield keras_l0.register_strip_rule
    RULES.clear()
    RULES.update(before)


def half_closed(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "lora" in weight.name:
            weight.assign(rng.normal(size=weight.shape))
    for gate in keras_l0.gates(model):
        values = np.where(np.arange(gate.count) % 2, 0.8, -9.0)
        gate.assign_log_alpha(values.reshape(gate.raw.shape))
    return model


def state(model):
    counts = [len(layer._inbound_nodes) for layer in model.layers]
    return [np.array(w) for w in model.get_weights()], counts


def around(make, shape=(5,), dtype=None):
    """The layer ``special`` between gates, and a Dense behind."""

    def build():
        x = keras.Input(shape, dtype=dtype)
        special = make()
        h = x if dtype else L0Gate()(layers.Dense(6, "relu")(x))
        h = L0Gate(name="behind")(special(h))
        return keras.Model(x, layers.Dense(2, name="top")(h)), special

    return build


HELD = {
    "Dense": around(lambda: layers.Dense(6, name="special")),
    "Conv2D": around(lambda: layers.Conv2D(4, 2, name="special"), (4, 4, 3)),
    "EinsumDense": around(
        lambda: layers.EinsumDense("ab,bc->ac", 6, bias_axes="c", name="special")
    ),
    "Embedding": around(lambda: layers.Embedding(9, 6, name="special"), (4,), "int32"),
}


@pytest.mark.parametrize("kind", HELD)
@pytest.mark.parametrize("how", ["lora", "int8", "int4", "float8", "gptq"])
def test_weights_that_are_not_what_they_seem_stay(kind, how):
    model, special = HELD[kind]()
    try:
        special.enable_lora(2) if how == "lora" else special.quantize(how)
    except Exception as error:
        pytest.skip(f"Keras has no {how} {kind}: {error}")
    half_closed(model)
    (barrier,) = [b for b in keras_l0.plan(model).barriers if b.name == "special"]
    assert ("LoRA" if how == "lora" else f"quantized ({how})") in barrier.reason
    before = state(model)
    x = np.arange(8 * np.prod(model.input_shape[1:])).reshape(8, *model.input_shape[1:])
    x = x % 9 if kind == "Embedding" else np.sin(x)
    try:
        stripped = keras_l0.strip(model, data=x)
    except ValueError as error:
        # Keras itself does not get this layer back from its config.
        assert how == "float8" and "'special'" in str(error)
        assert "strip first, then quantize" in str(error)
    else:
        same = stripped.get_layer("special")
        assert same.count_params() == special.count_params()
        np.testing.assert_allclose(run(stripped, x), run(model, x), atol=1e-5)
    np.testing.assert_equal(state(model), before)


def test_a_gated_layer_with_lora_is_refused_by_name():
    model = keras.Sequential([keras.Input((4,)), L0Dense(3, name="hidden")])
    model.layers[0].enable_lora(2)
    with pytest.raises(ValueError, match=r"'hidden' \(L0Dense\).*LoRA is enabled"):
        keras_l0.strip(model)


class Twice(layers.Layer):
    def call(self, x):
        return 2 * x


class Scaled(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones")

    def call(self, x):
        return self.scale * x


class Forgetful(layers.Layer):
    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def call(self, x):
        return x + self.table


def with_layer(layer):
    x = keras.Input((4,))
    h = layer(L0Dense(6, "relu", name="gated")(x))
    return half_closed(keras.Model(x, layers.Dense(2)(h)))


def test_a_layer_without_a_rule_is_a_barrier():
    model = with_layer(Scaled(name="special"))
    (barrier,) = keras_l0.plan(model).barriers
    assert (barrier.name, barrier.reason) == ("special", "no rule for Scaled")
    assert barrier.held > 0
    assert keras_l0.strip(model).get_layer("gated").units == 6


def test_a_layer_that_cannot_be_made_anew_is_named():
    model = with_layer(Forgetful(np.ones(6), name="special"))
    before = state(model)
    with pytest.raises(ValueError, match=r"'special' \(Forgetful\)") as caught:
        keras_l0.strip(model)
    caught.match("no rule for Forgetful")
    caught.match("get_config")
    np.testing.assert_equal(state(model), before)


def test_an_own_rule_makes_it_no_barrier(register):
    @register(Scaled)
    class ScaledRule(keras_l0.Rule):
        def size(self, ins, keep_in, keep):
            return super().size(ins, keep_in, keep)._replace(params=keep[0].sum())

        def constants(self, site):
            return [site.ins[0].value * np.array(self.layer.scale)]

        def rewrite(self, site):
            weights = [np.array(self.layer.scale)[site.keep[0]]]
            layer = site.build(Scaled, self.layer.get_config(), weights)
            return [(layer(site.rescale(0).tensor), np.ones(self.outs[0].size))]

    stripped = keras_l0.strip(with_layer(Scaled(name="special")))
    assert stripped.get_layer("gated").units == 3
    assert stripped.get_layer("special").scale.shape == (3,)


def too_many_weights(rule, site):
    layer = site.build(Scaled, rule.layer.get_config(), [np.ones(6)])
    return [(layer(site.rescale(0).tensor), np.ones(6))]


def all_channels(rule, site):
    layer = site.build(layers.Dense, {"units": 6}, [])
    return [(layer(site.rescale(0).tensor), np.ones(6))]


def the_old_layer(rule, site):
    return [(rule.layer(site.rescale(0).tensor), np.ones(6))]


def two_outputs(rule, site):
    return [(site.ins[0].tensor, np.ones(6))] * 2


def no_such_option(rule, site):
    return [(site.build(layers.Dense, {"unit": 6}, [])(site.ins[0].tensor), np.ones(6))]


@pytest.mark.parametrize(
    ("rewrite", "why"),
    [
        (too_many_weights, r"takes weights of the shapes \[\(3,\)\], not \[\(6,\)\]"),
        (all_channels, "made 6 channels where 3 were to be kept"),
        (two_outputs, "longer"),
        (no_such_option, "unit"),
    ],
)
def test_a_wrong_rule_is_blamed(rewrite, why, register):
    rule = type("WrongRule", (keras_l0.Rule,), {"rewrite": rewrite})
    register(Scaled)(rule)
    model = with_layer(Scaled(name="special"))
    before = state(model)
    with pytest.raises(RuntimeError, match=r"'special' \(Scaled\).*WrongRule") as e:
        keras_l0.strip(model)
    np.testing.assert_equal(state(model), before)
    e.match(why)


@pytest.mark.parametrize(
    "question", ["connect", "forward", "claims", "backward", "operands", "size"]
)
def test_a_rule_that_fails_while_it_is_asked_is_blamed(question, register):
    def fails(rule, *args):
        raise IndexError("out of range")

    register(Scaled)(type("FailingRule", (keras_l0.Rule,), {question: fails}))
    model = with_layer(Scaled(name="special"))
    with pytest.raises(RuntimeError, match="While reading 'special'.*FailingRule") as e:
        keras_l0.plan(model)
    e.match("out of range")


def test_what_is_registered_is_checked(register):
    with pytest.raises(TypeError, match=r"`@register_strip_rule\(MyLayer\)`"):

        @register
        class WithoutParentheses(keras_l0.Rule):
            pass


def test_a_rule_that_calls_the_source_is_blamed(register):
    register(Twice)(type("OldRule", (keras_l0.Rule,), {"rewrite": the_old_layer}))
    with pytest.raises(RuntimeError, match="'special'.*OldRule.*`site.build`"):
        keras_l0.strip(with_layer(Twice(name="special")))


def test_a_rule_that_counts_wrongly_is_found(register):
    class Uncounted(keras_l0.Rule):
        def rewrite(self, site):
            layer = site.build(Scaled, self.layer.get_config(), [np.ones(3)])
            return [(layer(site.rescale(0).tensor), np.ones(6))]

    register(Scaled)(Uncounted)
    promise = (
        r"parameters where its plan promised \d+: 'special' \(Scaled\) has 3, not the "
        "0 of its rule Uncounted"
    )
    with pytest.raises(RuntimeError, match=promise):
        keras_l0.strip(with_layer(Scaled(name="special")))


def test_a_rule_that_forgets_the_weights_is_blamed(register):
    register(Scaled)(type("Forgetful", (keras_l0.Rule,), {}))
    with pytest.raises(
        RuntimeError, match=r"'special'.*Forgetful.*\[\(3,\)\], not \[\]"
    ):
        keras_l0.strip(with_layer(Scaled(name="special")))


def test_a_rule_that_computes_wrongly_is_found(register):
    class Undone(keras_l0.Rule):
        def rewrite(self, site):
            x = site.rescale(0)
            return [(x.tensor, x.scale)]

    register(Twice)(Undone)
    with pytest.raises(RuntimeError, match="differs from that of model"):
        keras_l0.strip(with_layer(Twice(name="special")))
