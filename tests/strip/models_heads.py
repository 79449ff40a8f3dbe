"""Models of attention with gated heads."""

import keras
from keras import layers
from small_models import case

from keras_l0.layers import (
    L0Dense,
    L0Gate,
    L0GroupQueryAttention,
    L0MultiHeadAttention,
)


def sequence(length=4, width=5):
    return keras.Input((length, width))


def ends(h):
    return layers.Dense(2)(h)


for _name, _options in {
    "plain": {},
    "value_dim": {"value_dim": 3},
    "no_bias": {"use_bias": False},
    "output": {"output_shape": 7, "dropout": 0.2},
}.items():

    @case(name=f"heads_{_name}")
    def heads(options=_options):
        x = sequence()
        h = L0Dense(4, "relu")(x)
        return keras.Model(x, ends(L0MultiHeadAttention(3, 2, **options)(h, h)))

    @case(name=f"heads_dead_{_name}", dead=("a",), alive=False)
    def dead_heads(options=_options):
        # What attention then adds is a constant, or nothing.
        x = sequence()
        h = L0Dense(4, "relu")(x)
        a = L0MultiHeadAttention(3, 2, name="a", **options)(h, h)
        return keras.Model(x, ends(layers.Concatenate()([h, a])))


for _name, _options in {
    "plain": {},
    "value_dim": {"value_dim": 3},
    "no_bias": {"use_bias": False},
}.items():

    @case(name=f"dims_{_name}")
    def dims(options=_options):
        x = sequence()
        h = L0Dense(4, "relu")(x)
        return keras.Model(
            x, ends(L0MultiHeadAttention(3, 4, gate_dims=True, **options)(h, h))
        )

    @case(name=f"dims_dead_{_name}", dead=("a",), alive=False)
    def dead_dims(options=_options):
        x = sequence()
        h = L0Dense(4, "relu")(x)
        a = L0MultiHeadAttention(3, 4, name="a", gate_dims=True, **options)(h, h)
        return keras.Model(x, ends(layers.Concatenate()([h, a])))


@case
def dims_as_many_heads_as_positions():
    # Keras on TensorFlow takes a bias of shape (4, 1) for one of four positions.
    x = sequence(length=4)
    return keras.Model(x, ends(L0GroupQueryAttention(2, 8, 8, gate_dims=True)(x, x)))


@case
def dims_scores():
    x = sequence()
    layer = L0MultiHeadAttention(3, 4, gate_dims=True)
    h, scores = layer(x, x, return_attention_scores=True)
    return keras.Model(x, [ends(h), layers.Flatten()(scores)])


@case
def dims_shared():
    x, y = sequence(), sequence(3)
    layer = L0MultiHeadAttention(3, 4, gate_dims=True)
    h = layers.Concatenate(axis=1)([L0Gate()(layer(x, x)), layer(y, x)])
    return keras.Model([x, y], ends(h))


for _heads, _groups in ((3, 3), (4, 2)):

    @case(name=f"group_dims_{_heads}_{_groups}")
    def group_dims(heads=_heads, groups=_groups):
        x = sequence()
        h = L0Dense(5, "relu")(x)
        layer = L0GroupQueryAttention(4, heads, groups, gate_dims=True)
        return keras.Model(x, ends(layer(h, h, use_causal_mask=True)))


@case
def heads_cross():
    x, y = sequence(), sequence(3, 6)
    layer = L0MultiHeadAttention(4, 3, value_dim=2)
    h = layer(L0Dense(7)(x), value=L0Gate()(y), key=L0Dense(8, "sigmoid")(y))
    return keras.Model([x, y], ends(L0Gate()(h)))


@case
def heads_residual():
    x = sequence()
    h = L0Dense(6)(x)
    for name in ("a", "b"):
        a = L0MultiHeadAttention(3, 2, name=name)(h, h, use_causal_mask=True)
        h = layers.Add()([h, a])
        h = layers.Add()([h, layers.Dense(6)(L0Dense(4, "relu")(h))])
    return keras.Model(x, ends(L0Gate()(h)))


@case
def heads_masked():
    x = keras.Input((5,), dtype="int32")
    h = L0Gate()(layers.Embedding(5, 6, mask_zero=True)(x))
    return keras.Model(x, ends(L0MultiHeadAttention(3, 2)(h, h)))


@case
def heads_output():
    x = sequence()
    return keras.Model(x, L0MultiHeadAttention(3, 2)(x, x))


@case(dead=("a",), alive=False)
def heads_output_dead():
    # One closed head holds the place of all.
    x = sequence()
    return keras.Model(x, L0MultiHeadAttention(3, 2, name="a")(x, x))


@case
def heads_scores():
    x = sequence()
    layer = L0MultiHeadAttention(3, 2)
    h, scores = layer(x, x, return_attention_scores=True)
    return keras.Model(x, [ends(h), layers.Flatten()(scores)])


@case
def heads_scores_unread():
    x = sequence()
    layer = L0MultiHeadAttention(3, 2)
    h, _ = layer(x, x, return_attention_scores=True)
    return keras.Model(x, ends(h))


@case
def heads_shared():
    x, y = sequence(), sequence(3)
    layer = L0MultiHeadAttention(3, 2)
    h = layers.Concatenate(axis=1)([L0Gate()(layer(x, x)), layer(y, x)])
    return keras.Model([x, y], ends(h))


for _name, _dead in (("heads_axes", ()), ("heads_axes_dead", ("a",))):

    @case(name=_name, dead=_dead, alive=not _dead)
    def heads_axes():
        # The output's bias differs by position.
        x = keras.Input((2, 3, 5))
        layer = L0MultiHeadAttention(
            3, 2, attention_axes=(2,), output_shape=(4, 7), name="a"
        )
        return keras.Model(x, ends(layers.Flatten()(layer(x, x))))


@case
def heads_unread():
    # Nobody reads what attention makes: a gate behind it is closed.
    x = sequence()
    h = L0Gate(name="b")(L0MultiHeadAttention(3, 2)(x, x))
    return keras.Model(x, ends(layers.Add()([h, layers.Dense(5)(x)])))


for _heads, _groups in ((3, 3), (6, 3), (4, 1)):
    for _bias in (True, False):

        @case(name=f"groups_{_heads}_{_groups}_bias_{_bias}")
        def groups(heads=_heads, groups=_groups, bias=_bias):
            x = sequence()
            h = L0Dense(5, "relu")(x)
            layer = L0GroupQueryAttention(2, heads, groups, use_bias=bias)
            return keras.Model(x, ends(layer(h, h, use_causal_mask=True)))


@case(dead=("a",), alive=False)
def groups_dead():
    x = sequence()
    h = L0Dense(4, "relu")(x)
    a = L0GroupQueryAttention(2, 4, 2, name="a")(h, h)
    return keras.Model(x, ends(layers.Concatenate()([h, a])))


@case
def groups_cross_shared():
    x, y = sequence(), sequence(3)
    layer = L0GroupQueryAttention(2, 4, 2)
    h = layers.Concatenate(axis=1)([layer(x, y), layer(y, x)])
    return keras.Model([x, y], ends(L0Gate()(h)))
