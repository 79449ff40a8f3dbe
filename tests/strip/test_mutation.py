"""strip notices its own mistakes, and those of rules that users register."""

import keras
import pytest
from adversary import policy, swapped
from keras import layers
from small_models import CASES, hardened

import keras_l0
from keras_l0 import rewrite
from keras_l0.analysis.rules import RULES


@pytest.fixture
def registry():
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


@pytest.mark.parametrize(
    "precision", ["float32", "float64", "mixed_bfloat16", "float16"]
)
@pytest.mark.parametrize(
    "name", ["dense_chain", "lenet", "residual", "two_inputs_two_outputs"]
)
def test_one_swapped_channel_is_noticed(name, precision, monkeypatch):
    build = rewrite.Rewriter._build
    done = []

    def mutated(self, step, kind, config, weights):
        if not done and weights and weights[0].shape[-1] > 1:
            done.append(step.node.name)
            weights = [swapped(weights[0]), *weights[1:]]
        return build(self, step, kind, config, weights)

    with policy(precision):
        model = CASES[name].build()
    model.set_weights(hardened(name).get_weights())
    keras_l0.strip(model)
    monkeypatch.setattr(rewrite.Rewriter, "_build", mutated)
    with pytest.raises(RuntimeError, match="stripped model"):
        keras_l0.strip(model)
    assert done


class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x


class Mixed(keras.layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, axis=-1, keepdims=True)


def around(layer):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras_l0.layers.L0Dense(6, "relu"),
            layer,
            layers.Dense(3),
        ]
    )
    alphas = [9.0, -9.0, 0.3, 9.0, -9.0, 9.0]
    keras_l0.gates(model)[0].assign_log_alpha(alphas)
    return model


def test_an_unknown_layer_is_a_barrier():
    plan = keras_l0.plan(around(Doubled(name="twice")))
    assert [(b.name, b.kind) for b in plan.barriers] == [("twice", "Doubled")]
    assert "no rule for Doubled" in str(plan)


def test_a_right_rule_is_followed(registry):
    @keras_l0.register_strip_rule(Doubled)
    class DoubledRule(keras_l0.Rule):
        passes_scale = True

        def constants(self, site):
            return [2 * site.ins[0].value]

    stripped = keras_l0.strip(around(Doubled()))
    assert stripped.layers[1].units == 4


def test_a_rule_that_mistakes_the_function_is_noticed(registry):
    @keras_l0.register_strip_rule(Mixed)
    class MixedRule(keras_l0.Rule):
        pass

    with pytest.raises(RuntimeError, match="stripped model"):
        keras_l0.strip(around(Mixed()))


def test_a_rule_that_makes_the_wrong_width_is_named(registry):
    @keras_l0.register_strip_rule(Doubled)
    class Greedy(keras_l0.Rule):
        def rewrite(self, site):
            x = site.ins[0]
            wide = keras.ops.concatenate([x.tensor, x.tensor], axis=-1)
            return [(wide, x.scale)]

    with pytest.raises(RuntimeError, match=r"'twice' \(Doubled\).*Greedy.*8.*4"):
        keras_l0.strip(around(Doubled(name="twice")))


def test_a_subclass_is_not_ruled_by_its_parent():
    class Odd(layers.ReLU):
        def call(self, x):
            return x + 1

    plan = keras_l0.plan(around(Odd(name="odd")))
    assert [b.name for b in plan.barriers] == ["odd"]


@pytest.mark.parametrize(
    "wrong, error",
    [((3,), "layer or operation classes"), ((), "subclass of `keras_l0.Rule`")],
)
def test_only_rules_for_classes_can_be_registered(wrong, error, registry):
    with pytest.raises(TypeError, match=error):
        keras_l0.register_strip_rule(*wrong)(object)
