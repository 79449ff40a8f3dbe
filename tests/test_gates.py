import keras
import numpy as np
import pytest
from keras import layers

import keras_l0
from keras_l0.layers import L0Conv2D, L0Dense, L0Gate


def names(model):
    return [gate.name for gate in keras_l0.gates(model)]


def owners(model, *candidates):
    """The layers (among candidates) whose gates a model has, in its order."""
    owner = {id(gate): layer.name for layer in candidates for gate in layer.gates}
    return [owner[id(gate)] for gate in keras_l0.gates(model)]


def test_order_of_a_sequential():
    parts = [L0Conv2D(2, 3, name="c"), L0Dense(3, name="a"), L0Dense(2, name="b")]
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), parts[0], layers.Flatten(), parts[1], parts[2]]
    )
    assert owners(model, *parts) == ["c", "a", "b"]


def test_order_of_a_functional_model_is_that_of_the_graph():
    x = keras.Input((4,))
    first, second, third = (L0Dense(4, name=n) for n in ("z", "y", "x"))
    gate = L0Gate(name="input_gate")
    # Made in another order than called.
    h = second(first(gate(x)))
    model = keras.Model(x, third(layers.Add()([h, x])))
    found = keras_l0.gates(model)
    assert found == [gate, first.gate, second.gate, third.gate]


def test_nested_models():
    dense, inner_dense, gate = L0Dense(3), L0Dense(3), L0Gate()
    x = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), inner_dense, gate])
    core = keras.Model(x, inner(dense(x)))
    outer = keras.Sequential([keras.Input((3,)), core])
    assert keras_l0.gates(outer) == [dense.gate, inner_dense.gate, gate]


def test_wrappers():
    dense = L0Dense(3)
    x = keras.Input((5, 4))
    model = keras.Model(x, layers.TimeDistributed(dense)(x))
    assert keras_l0.gates(model) == [dense.gate]
    assert keras_l0.gates(model.layers[1]) == [dense.gate]


def test_shared_layers_are_listed_once():
    shared, x = L0Dense(3), keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), shared])
    model = keras.Model(x, inner(shared(shared(x))))
    assert keras_l0.gates(model) == [shared.gate]


def test_layers_that_hold_layers():
    @keras.saving.register_keras_serializable(package="tests")
    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.parts = [L0Dense(3, name="one"), L0Dense(3, name="two")]
            self.by_name = {"gate": L0Gate(name="in_a_dict")}

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return self.by_name["gate"](x)

    block = Block()
    block(keras.ops.ones((2, 3)))
    assert names(block) == ["gate", "gate", "in_a_dict"]
    assert names(keras.Sequential([keras.Input((3,)), block])) == names(block)


def test_subclassed_models():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = L0Dense(3), layers.Dense(2)

        def call(self, x):
            return self.two(self.one(x))

    net = Net()
    assert keras_l0.gates(net) == [net.one.gate]


def test_layers_that_know_their_parent():
    class Child(layers.Layer):
        def __init__(self, parent):
            super().__init__()
            self.parent, self.gate = parent, L0Gate()

    class Parent(layers.Layer):
        def __init__(self):
            super().__init__()
            self.child = Child(self)

    parent = Parent()
    assert keras_l0.gates(parent) == [parent.child.gate]


def test_without_gates():
    assert keras_l0.gates(keras.Sequential([keras.Input((3,)), layers.Dense(2)])) == []


def test_a_gate_is_its_own_gate():
    gate = L0Gate()
    assert keras_l0.gates(gate) == [gate]
    assert keras_l0.gates(L0Dense(3))[0].name == "gate"


@pytest.mark.parametrize("wrong", [None, "model.keras", [L0Dense], L0Dense])
def test_not_a_model(wrong):
    with pytest.raises(TypeError, match="`model` must be a Keras model or layer.*Rec"):
        keras_l0.gates(wrong)


def test_gates_show_in_the_variables_of_the_model():
    model = keras.Sequential([keras.Input((3,)), L0Dense(4, name="hidden")])
    paths = [v.path for v in model.trainable_variables]
    assert any(p.endswith("hidden/gate/raw_log_alpha") for p in paths)
    assert model.count_params() == 3 * 4 + 4 + 4


def test_strip_leaves_the_states_of_recurrent_layers_alone():
    x = keras.Input((5, 4), batch_size=3)
    recurrent = keras.layers.LSTM(3, stateful=True)
    model = keras.Model(x, recurrent(keras_l0.layers.L0Dense(5)(x)))
    model(np.ones((3, 5, 4), "float32"))
    held = [keras.ops.convert_to_numpy(state) for state in recurrent.states]
    assert all(state.any() for state in held)
    assert keras_l0.strip(model).count_params() == model.count_params() - 5
    for state, before in zip(recurrent.states, held, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(state), before)
