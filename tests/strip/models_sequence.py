"""Models of sequence layers: embeddings, recurrences, attention, their wrappers."""

import keras
from keras import layers
from small_models import case, chain

from keras_l0.layers import (
    L0GRU,
    L0LSTM,
    L0Dense,
    L0EinsumDense,
    L0Embedding,
    L0Gate,
    L0RecurrentSwitch,
    L0SharedGate,
    L0SimpleRNN,
    L0Switch,
)


def gated(width=6):
    """Channels some of which rest at a value other than 0."""

    def call(x):
        h = L0Gate()(layers.Dense(width)(x))
        return layers.BatchNormalization(epsilon=0.01)(h)

    return call


def tokens(length=4, **kwargs):
    return keras.Input((length,), dtype="int32", **kwargs)


# Embeddings


@case
def embedding_gated():
    x = tokens()
    h = L0Gate()(layers.Embedding(5, 9)(x))
    return keras.Model(x, layers.Dense(2)(h))


@case
def embedding_unread():
    # What the Dense in between leaves unread goes from the table as well.
    x = tokens()
    h = L0Gate(name="inner")(layers.ReLU()(layers.Embedding(5, 9)(x)))
    return keras.Model(x, layers.Flatten()(L0Dense(4, "relu")(h)))


@case(dead=("b",), alive=False)
def embedding_dead():
    x = tokens()
    h = L0Gate(name="b")(layers.Embedding(5, 9)(x))
    return keras.Model(x, layers.Dense(2)(h))


@case
def embedding_shared():
    x, y = tokens(), tokens(3)
    embed = layers.Embedding(5, 9)
    h = layers.Concatenate(axis=1)([L0Gate()(embed(x)), L0Gate()(embed(y))])
    return keras.Model([x, y], layers.Dense(2)(h))


@case
def embedding_masked():
    x = tokens(5)
    h = L0Gate()(layers.Embedding(5, 9, mask_zero=True)(x))
    h = layers.LSTM(4, return_sequences=True)(L0Dense(6, "relu")(h))
    return keras.Model(x, layers.Dense(2)(layers.GRU(3)(h)))


@case
def embedding_masked_attention():
    x = tokens(5)
    h = L0Gate()(layers.Embedding(5, 9, mask_zero=True)(x))
    h = layers.MultiHeadAttention(2, 3)(h, h, use_causal_mask=True)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(L0Dense(6)(h))))


@case
def masked_layers():
    # Keras passes the mask to those layers that mind it, as another input.
    x = tokens(5)
    h = L0Gate()(layers.Embedding(5, 9, mask_zero=True)(x))
    h = L0Gate()(layers.Dense(6, "relu")(layers.BatchNormalization()(h)))
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(h)))


@case
def masked_scale():
    # A scale that cannot be folded must not lose the mask that attention goes by.
    x = tokens(5)
    h = layers.Dense(6, "tanh")(layers.Embedding(5, 6, mask_zero=True)(x))
    h = layers.LayerNormalization()(L0Gate()(h))
    return keras.Model(x, layers.MultiHeadAttention(2, 3)(h, h))


@case(dead=("b",))
def masked_branch():
    # Without the branch that has no mask, the sum would have one.
    x, y = tokens(5), keras.Input((5, 3))
    e = layers.Embedding(5, 6, mask_zero=True)(x)
    h = layers.Add()([e, L0Dense(6, "relu", name="b")(y)])
    return keras.Model([x, y], layers.Dense(2)(layers.LSTM(4)(h)))


@case
def embedding_gated_inside():
    x = tokens()
    return keras.Model(x, layers.Dense(2)(L0Gate()(L0Embedding(5, 9)(x))))


@case
def embedding_gated_inside_shared():
    x, y = tokens(), tokens(3)
    embed = L0Embedding(5, 9)
    h = layers.Concatenate(axis=1)([embed(x), L0Gate()(embed(y))])
    return keras.Model([x, y], layers.Dense(2)(h))


@case
def embedding_gated_inside_masked():
    x = tokens(5)
    h = layers.BatchNormalization()(L0Embedding(5, 9, mask_zero=True)(x))
    h = layers.LSTM(4, return_sequences=True)(L0Dense(6, "relu")(h))
    return keras.Model(x, layers.Dense(2)(layers.GRU(3)(h)))


@case(dead=("b",), alive=False)
def embedding_gated_inside_dead():
    x = tokens(5)
    h = L0Embedding(5, 9, mask_zero=True, name="b")(x)
    return keras.Model(x, layers.Dense(2)(layers.GRU(3)(h)))


if hasattr(layers, "ReversibleEmbedding"):
    from keras_l0.layers import L0ReversibleEmbedding

    for _tied in (True, False):

        @case(name=f"reversible_embedding_tied_{_tied}")
        def reversible(tied=_tied):
            x = tokens()
            embed = layers.ReversibleEmbedding(5, 9, tie_weights=tied)
            h = L0Gate()(embed(x))
            h = layers.Add()([h, layers.Dense(9)(L0Dense(5, "relu")(h))])
            return keras.Model(x, embed(L0Gate()(h), reverse=True))

        @case(name=f"reversible_embedding_constants_{_tied}")
        def reversible_constants(tied=_tied):
            x = tokens()
            embed = layers.ReversibleEmbedding(5, 9, tie_weights=tied)
            h = L0Gate()(embed(x))
            h = layers.BatchNormalization(epsilon=0.01)(h)
            return keras.Model(x, embed(h, reverse=True))

        @case(name=f"reversible_embedding_gated_inside_{_tied}")
        def reversible_gated_inside(tied=_tied):
            x = tokens()
            embed = L0ReversibleEmbedding(5, 9, tie_weights=tied)
            h = embed(x)
            h = layers.Add()([h, layers.Dense(9)(L0Dense(5, "relu")(h))])
            return keras.Model(x, embed(L0Gate()(h), reverse=True))

        @case(name=f"reversible_embedding_gated_alone_{_tied}")
        def reversible_gated_alone(tied=_tied):
            x = tokens()
            embed = L0ReversibleEmbedding(5, 9, tie_weights=tied)
            h = layers.BatchNormalization(epsilon=0.01)(embed(x))
            return keras.Model(x, embed(h, reverse=True))

        @case(name=f"reversible_embedding_dead_{_tied}", dead=("b",), alive=False)
        def reversible_dead(tied=_tied):
            x = tokens()
            embed = L0ReversibleEmbedding(5, 9, tie_weights=tied, name="b")
            h = layers.LSTM(9, return_sequences=True)(embed(x))
            return keras.Model(x, embed(h, reverse=True))

    @case
    def reversible_embedding_gated_inside_reverse_only():
        x = keras.Input((4, 9))
        embed = L0ReversibleEmbedding(5, 9, logit_soft_cap=3.0)
        embed.build((None, 9))
        return keras.Model(x, embed(layers.Dense(9)(x), reverse=True))

    @case
    def reversible_embedding_gated_inside_forward_only():
        x = tokens()
        h = L0ReversibleEmbedding(5, 9, mask_zero=True)(x)
        return keras.Model(x, layers.Dense(2)(layers.GRU(3)(h)))

    @case
    def reversible_embedding_forward_only():
        x = tokens()
        h = L0Gate()(layers.ReversibleEmbedding(5, 9)(x))
        return keras.Model(x, layers.Dense(2)(h))

    @case
    def reversible_embedding_reverse_only():
        x = keras.Input((4, 9))
        embed = layers.ReversibleEmbedding(5, 9, logit_soft_cap=3.0)
        embed.build((None, 9))
        return keras.Model(x, embed(gated(9)(x), reverse=True))


# EinsumDense

for _name, (_equation, _shape, _options) in {
    "dense": ("abc,cd->abd", (4, 7), {"bias_axes": "d"}),
    "ellipsis": ("...x,xy->...y", 7, {"bias_axes": "y", "activation": "relu"}),
    "no_bias": ("...x,xy->...y", (7,), {"activation": "tanh"}),
    "heads": ("abc,cde->abde", (4, 2, 7), {"bias_axes": "de"}),
    "heads_bias_last": ("abc,cde->abde", (4, 2, 7), {"bias_axes": "e"}),
    "heads_bias_first": ("abc,cde->abde", (4, 2, 7), {"bias_axes": "d"}),
    "kernel_turned": ("abc,dc->abd", (4, 7), {"bias_axes": "d"}),
    "heads_turned": ("abc,edc->abde", (4, 2, 7), {"bias_axes": "de"}),
    "bias_by_position": ("abc,cd->abd", (4, 7), {"bias_axes": "bd"}),
    "kernel_by_position": ("abc,bcd->abd", (4, 7), {"bias_axes": "bd"}),
    "kernel_by_position_2": ("abc,bcd->abd", (4, 7), {"bias_axes": "d"}),
    "tokens": ("abc,bd->adc", (7, 6), {"bias_axes": "d"}),
    "turned_output": ("abc,cd->adb", (7, 4), {"bias_axes": "d"}),
    "several_axes": ("abc,bcd->ad", 7, {"bias_axes": "d"}),
    "scaling": ("abc,c->abc", (4, 6), {"bias_axes": "c"}),
    "scaling_ellipsis": ("...c,c->...c", 6, {"bias_axes": "c", "activation": "elu"}),
    "scaling_turned": ("abc,c->acb", (6, 4), {"activation": "sigmoid"}),
    "scaling_by_position": ("abc,bc->abc", (4, 6), {"bias_axes": "c"}),
    "weighted_sum": ("abc,bc->ac", 6, {"bias_axes": "c", "activation": "relu"}),
    "weighted_sum_turned": ("abc,cb->ac", 6, {}),
    "softmax": ("abc,cd->abd", (4, 7), {"bias_axes": "d", "activation": "softmax"}),
    "ellipsis_right": ("ab...,bc->ac...", 7, {"bias_axes": "c"}),
}.items():

    @case(name=f"einsum_{_name}")
    def einsum(equation=_equation, shape=_shape, options=_options):
        x = keras.Input((4, 5))
        h = layers.EinsumDense(equation, shape, **options)(gated()(x))
        h = layers.Dense(3)(L0Gate()(h))
        return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))

    _made = set(_equation.partition("->")[2]) - set(_equation.partition(",")[0])
    if _made - {"."}:

        @case(name=f"L0einsum_{_name}")
        def gated_einsum(equation=_equation, shape=_shape, options=_options):
            x = keras.Input((4, 5))
            h = L0EinsumDense(equation, shape, **options)(gated()(x))
            return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))


@case(dead=("b",), alive=False)
def einsum_dead():
    x = keras.Input((4, 5))
    h = L0EinsumDense("abc,cd->abd", (4, 7), bias_axes="d", name="b")(gated()(x))
    return keras.Model(x, layers.Dense(2)(layers.Dense(3, "relu")(h)))


@case
def einsum_gated_shared():
    x, y = keras.Input((4, 5)), keras.Input((4, 5))
    project = L0EinsumDense("abc,cd->abd", (4, 7), bias_axes="d")
    a, b = project(gated()(x)), project(L0Dense(6, "relu")(y))
    return keras.Model([x, y], layers.Dense(2)(L0Gate()(layers.Add()([a, b]))))


@case
def einsum_shared():
    x, y = keras.Input((4, 5)), keras.Input((4, 5))
    project = layers.EinsumDense("abc,cd->abd", (4, 7), bias_axes="d")
    a, b = project(gated()(x)), project(L0Dense(6, "relu")(y))
    return keras.Model([x, y], layers.Dense(2)(L0Gate()(layers.Add()([a, b]))))


# Recurrent layers

for _kind in ("SimpleRNN", "LSTM", "GRU"):
    for _name, _options in {
        "plain": {},
        "no_bias": {"use_bias": False},
        "sequences": {"return_sequences": True, "go_backwards": True},
        "unrolled": {"unroll": True, "return_sequences": True, "dropout": 0.2},
    }.items():

        @case(name=f"{_kind}_{_name}")
        def recurrent_layer(kind=_kind, options=_options):
            x = keras.Input((4, 5))
            h = getattr(layers, kind)(5, **options)(gated()(x))
            return keras.Model(x, layers.Dense(2)(L0Gate()(h)))

    @case(name=f"{_kind}_states")
    def recurrent_states(kind=_kind):
        # An encoder hands its states to a decoder.
        x, y = keras.Input((4, 5)), keras.Input((3, 5))
        make = getattr(layers, kind)
        _, *states = make(5, return_state=True)(gated()(x))
        h = L0Dense(6, "relu")(y)
        h = make(5, return_sequences=True)(h, initial_state=states)
        return keras.Model([x, y], layers.Dense(2)(L0Gate()(h)))

    @case(name=f"{_kind}_state_from_dense")
    def recurrent_from_dense(kind=_kind):
        x, y = keras.Input((4, 5)), keras.Input((3,))
        states = [L0Dense(5, "relu")(y) for _ in range(2 if kind == "LSTM" else 1)]
        h = getattr(layers, kind)(5)(gated()(x), initial_state=states)
        return keras.Model([x, y], layers.Dense(2)(h))

    @case(name=f"{_kind}_shared")
    def recurrent_shared(kind=_kind):
        x, y = keras.Input((4, 5)), keras.Input((3, 5))
        layer = getattr(layers, kind)(5)
        ends = [layer(gated()(x)), layer(L0Dense(6, "relu")(y))]
        return keras.Model([x, y], layers.Dense(2)(layers.Concatenate()(ends)))

    for _merge in ("concat", "sum", "mul", "ave", None):

        @case(name=f"Bidirectional_{_kind}_{_merge}")
        def bidirectional(kind=_kind, merge=_merge):
            x = keras.Input((4, 5))
            inner = getattr(layers, kind)(3, return_sequences=True)
            h = layers.Bidirectional(inner, merge_mode=merge)(gated()(x))
            parts = h if isinstance(h, (list, tuple)) else [h]
            h = layers.Concatenate()([L0Gate()(part) for part in parts])
            return keras.Model(x, layers.Dense(2)(h))

    @case(name=f"RNN_{_kind}")
    def cell(kind=_kind):
        x = keras.Input((4, 5))
        cell = getattr(layers, f"{kind}Cell")(5)
        h = layers.RNN(cell, return_sequences=True)(gated()(x))
        return keras.Model(x, layers.Dense(2)(L0Gate()(h)))


@case
def gru_reset_before():
    x = keras.Input((4, 5))
    h = layers.GRU(5, reset_after=False)(gated()(x))
    return keras.Model(x, layers.Dense(2)(h))


@case
def gru_unknown_length():
    x = keras.Input((None, 5))
    return keras.Model(x, layers.GRU(4, return_sequences=True)(gated()(x)))


@case
def recurrent_other_axis():
    x = keras.Input((4, 5))
    h = layers.Permute((2, 1))(L0Dense(6)(x))
    return keras.Model(x, layers.Dense(2)(layers.LSTM(3)(h)))


@case
def recurrent_state_only():
    x = keras.Input((4, 5))
    _, *states = layers.LSTM(5, return_state=True, return_sequences=True)(gated()(x))
    return keras.Model(x, layers.Dense(2)(layers.Concatenate()(states)))


@case(dead=("b",))
def recurrent_unread():
    # Nobody reads the recurrent branch: it goes as a whole, with both outputs.
    x = keras.Input((4, 5))
    h, state = layers.GRU(5, return_sequences=True, return_state=True)(gated()(x))
    h = layers.Dense(6)(layers.Concatenate()([h, h]))
    h = layers.GlobalMaxPooling1D()(L0Gate(name="b")(h))
    a = L0Dense(6, "relu")(layers.GlobalMaxPooling1D()(x))
    return keras.Model(x, layers.Dense(2)(layers.Add()([a, h])))


@case(dead=("b",), alive=False)
def recurrent_dead_input():
    x = keras.Input((4, 5))
    return keras.Model(x, layers.Dense(2)(layers.LSTM(3)(L0Gate(name="b")(x))))


@case
def bidirectional_states():
    x, y = keras.Input((4, 5)), keras.Input((3, 5))
    _, *states = layers.Bidirectional(layers.LSTM(3, return_state=True))(gated()(x))
    backward = layers.LSTM(3, activation="relu", go_backwards=True)
    layer = layers.Bidirectional(layers.LSTM(3), backward_layer=backward)
    h = layer(L0Dense(6, "relu")(y), initial_state=states)
    return keras.Model([x, y], layers.Dense(2)(h))


@case
def bidirectional_cells():
    x = keras.Input((4, 5))
    layer = layers.Bidirectional(layers.RNN(layers.GRUCell(3)))
    return keras.Model(x, layers.Dense(2)(layer(gated()(x))))


@case
def stacked_cells():
    x = keras.Input((4, 5))
    cells = [layers.GRUCell(3), layers.LSTMCell(4)]
    return keras.Model(x, layers.Dense(2)(layers.RNN(cells)(gated()(x))))


# Attention

for _name, _options in {
    "plain": {},
    "value_dim": {"value_dim": 4},
    "no_bias": {"use_bias": False},
    "output": {"output_shape": 7, "dropout": 0.2},
}.items():

    @case(name=f"attention_{_name}")
    def self_attention(options=_options):
        x = keras.Input((4, 5))
        h = gated()(x)
        h = layers.MultiHeadAttention(2, 3, **options)(h, h)
        return keras.Model(x, layers.Dense(2)(L0Gate()(h)))

    @case(name=f"attention_cross_{_name}")
    def cross_attention(options=_options):
        x, y = keras.Input((4, 5)), keras.Input((3, 5))
        layer = layers.MultiHeadAttention(2, 3, **options)
        h = layer(gated(7)(x), value=gated(6)(y), key=L0Dense(8)(y))
        h = layers.Dense(2)(L0Gate()(h))
        return keras.Model([x, y], h)


@case
def attention_to_itself():
    # One tensor is several inputs, and its scale is folded into all projections.
    x = keras.Input((4, 9))
    h = L0Gate()(x)
    return keras.Model(x, layers.Dense(2)(layers.MultiHeadAttention(2, 3)(h, h)))


@case
def attention_axes():
    x = keras.Input((2, 3, 5))
    h = gated()(x)
    layer = layers.MultiHeadAttention(2, 3, attention_axes=(2,), output_shape=(2, 7))
    h = layers.Dense(3)(L0Gate()(layer(h, h)))
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))


@case
def attention_scores():
    x = keras.Input((4, 5))
    h = gated()(x)
    layer = layers.MultiHeadAttention(2, 3)
    h, scores = layer(h, h, return_attention_scores=True, use_causal_mask=True)
    h = layers.Dense(2)(L0Gate()(h))
    return keras.Model(x, [h, layers.Flatten()(scores)])


@case
def attention_scores_only():
    x = keras.Input((4, 5))
    h = gated()(x)
    _, scores = layers.MultiHeadAttention(2, 3)(h, h, return_attention_scores=True)
    return keras.Model(x, layers.Flatten()(scores))


@case
def attention_scores_gated():
    # As many keys as features, and another number.
    x = keras.Input((4, 5))
    h = layers.Dense(4)(x)
    a, scores = layers.MultiHeadAttention(2, 3)(h, h, return_attention_scores=True)
    b, others = layers.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True)
    scores = [L0Gate()(scores), L0Gate()(others)]
    return keras.Model(x, [layers.Dense(2)(h) for h in (a, b, *scores)])


@case
def attention_shared():
    x, y = keras.Input((4, 5)), keras.Input((4, 5))
    layer = layers.MultiHeadAttention(2, 3)
    a, b = gated()(x), L0Dense(6, "relu")(y)
    h = layers.Add()([layer(a, a), layer(b, b)])
    return keras.Model([x, y], layers.Dense(2)(L0Gate()(h)))


@case
def attention_shared_unlike():
    # Its calls have different numbers of inputs.
    x = keras.Input((4, 5))
    layer = layers.MultiHeadAttention(2, 3)
    a, b = gated()(x), L0Dense(6, "relu")(x)
    h = layers.Add()([layer(a, a), layer(a, b, key=b)])
    return keras.Model(x, layers.Dense(2)(L0Gate()(h)))


@case
def attention_with_mask():
    x = keras.Input((4, 5))
    mask = keras.Input((4, 4), dtype="int32")
    h = gated()(x)
    h = layers.MultiHeadAttention(2, 3)(h, h, attention_mask=mask)
    return keras.Model([x, mask], layers.Dense(2)(L0Gate()(h)))


@case
def attention_other_axis():
    x = keras.Input((4, 5))
    h = layers.Permute((2, 1))(L0Dense(6)(x))
    h = layers.MultiHeadAttention(2, 3)(h, h)
    return keras.Model(x, layers.Dense(2)(L0Gate()(h)))


if hasattr(layers, "GroupQueryAttention"):
    for _bias in (True, False):

        @case(name=f"grouped_query_attention_bias_{_bias}")
        def grouped_query(bias=_bias):
            x = keras.Input((4, 5))
            layer = layers.GroupQueryAttention(3, 4, 2, use_bias=bias)
            h = gated(8)(x)
            return keras.Model(x, layers.Dense(2)(L0Gate()(layer(h, gated(8)(x)))))

    @case
    def grouped_query_other_axis():
        x = keras.Input((4, 5))
        h = layers.Permute((2, 1))(L0Dense(6)(x))
        h = layers.GroupQueryAttention(3, 4, 2)(h, h)
        return keras.Model(x, layers.Dense(2)(L0Gate()(h)))


for _kind in ("Attention", "AdditiveAttention"):

    @case(name=f"{_kind}_unprojected")
    def unprojected(kind=_kind):
        x = keras.Input((4, 5))
        h = L0Dense(6, "relu")(x)
        h = getattr(layers, kind)()([h, L0Dense(6)(x)])
        return keras.Model(x, layers.Dense(2)(L0Gate()(h)))


# Wrappers

for _name, _layer in {
    "dense": lambda: layers.Dense(7, "relu"),
    "gated": lambda: L0Dense(7, "tanh"),
    "norm": lambda: layers.BatchNormalization(),
    "activation": lambda: layers.Activation("tanh"),
    "pooling": lambda: layers.MaxPooling1D(),
    "conv": lambda: layers.Conv2D(7, 2, padding="same"),
    "groups": lambda: layers.Conv2D(9, 2, groups=3),
    "spectral": lambda: layers.SpectralNormalization(layers.Dense(7)),
    "layer_norm": lambda: layers.LayerNormalization(),
    "flatten": lambda: layers.Flatten(),
    "recurrent": lambda: layers.GRU(3),
    "model": lambda: chain(layers.Dense(7), shape=(6,)),
}.items():
    _positions = {"conv": (4, 4), "groups": (4, 4), "pooling": (4,), "recurrent": (4,)}
    _shape = (3, *_positions.get(_name, ()), 5)

    @case(name=f"time_distributed_{_name}")
    def time_distributed(make=_layer, shape=_shape):
        x = keras.Input(shape)
        h = layers.TimeDistributed(make())(gated()(x))
        h = layers.Dense(2)(layers.Flatten()(L0Gate()(h)))
        return keras.Model(x, h)


@case
def time_distributed_twice():
    x = keras.Input((2, 3, 5))
    inner = layers.TimeDistributed(layers.Dense(7, "relu"))
    h = L0Gate()(layers.TimeDistributed(inner)(gated()(x)))
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))


@case
def time_distributed_masked():
    x = keras.Input((5,), dtype="int32")
    h = layers.Embedding(4, 6, mask_zero=True)(x)
    h = layers.TimeDistributed(L0Dense(7, "sigmoid"))(L0Gate()(h))
    return keras.Model(x, layers.Dense(2)(layers.LSTM(3)(h)))


@case
def time_distributed_shared():
    x, y = keras.Input((3, 5)), keras.Input((3, 5))
    layer = layers.TimeDistributed(layers.Dense(7, "relu"))
    h = layers.Add()([layer(gated()(x)), layer(L0Dense(6, "relu")(y))])
    return keras.Model([x, y], layers.Dense(2)(L0Gate()(h)))


@case
def time_distributed_on_time():
    x = keras.Input((6, 5))
    h = layers.Permute((2, 1))(L0Dense(7)(x))
    h = layers.Permute((2, 1))(layers.TimeDistributed(layers.Dense(4))(h))
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))


@case
def lambda_layer():
    x = keras.Input((5,))
    h = layers.Lambda(lambda h: h[:, ::-1] * 2.0)(L0Dense(6, "relu")(x))
    return keras.Model(x, layers.Dense(2)(h))


# Gates inside of recurrences


for kind in (L0SimpleRNN, L0LSTM, L0GRU):

    @case(name=f"{kind.__name__}_stack")
    def inside(kind=kind):
        # The second layer reads the first; BatchNormalization wants the closed ones.
        x = keras.Input((4, 3))
        h = kind(6, return_sequences=True, name="one")(x)
        h = layers.BatchNormalization(epsilon=0.01)(h)
        return keras.Model(x, layers.Dense(2)(kind(5, name="two")(h)))

    @case(name=f"{kind.__name__}_dead", dead=("one",), alive=False)
    def inside_dead(kind=kind):
        x = keras.Input((4, 3))
        h = kind(6, return_sequences=True, name="one")(x)
        return keras.Model(x, layers.Dense(2)(kind(5)(h)))

    @case(name=f"{kind.__name__}_states")
    def inside_states(kind=kind):
        # An encoder hands its states to a decoder with gates of its own.
        x, y = keras.Input((4, 3)), keras.Input((3, 2))
        read, *states = kind(6, return_state=True, name="encoder")(x)
        told = kind(6, return_sequences=True, name="decoder")(y, initial_state=states)
        return keras.Model([x, y], [layers.Dense(2)(read), layers.Dense(2)(told)])

    @case(name=f"{kind.__name__}_twice")
    def inside_twice(kind=kind):
        x, y = keras.Input((4, 3)), keras.Input((5, 3))
        shared = kind(6, name="shared")
        return keras.Model(
            [x, y], layers.Dense(2)(layers.Add()([shared(x), shared(y)]))
        )

    for merge in ("concat", None):

        @case(name=f"{kind.__name__}_both_ways_{merge}")
        def both_ways(kind=kind, merge=merge):
            x = keras.Input((4, 3))
            h = layers.Bidirectional(
                kind(6, return_sequences=True, name="cells"), merge_mode=merge
            )(x)
            h = [layers.Dense(3, "relu")(part) for part in keras.tree.flatten(h)]
            return keras.Model(x, layers.Dense(2)(layers.Concatenate()(h * 2)))


@case
def gated_recurrences_masked():
    x = tokens(5)
    h = layers.Embedding(5, 4, mask_zero=True)(x)
    h = layers.Bidirectional(L0LSTM(4, return_sequences=True))(h)
    return keras.Model(x, layers.Dense(2)(L0GRU(5, reset_after=False)(h)))


@case
def gated_recurrence_output():
    return chain(L0LSTM(5, use_bias=False, return_sequences=True), shape=(4, 3))


@case(dead=("forward_cells",))
def one_direction_dead():
    x = keras.Input((4, 3))
    h = layers.Bidirectional(L0LSTM(4, name="cells"))(x)
    return keras.Model(x, layers.Dense(2)(h))


@case
def one_direction_gated():
    x = keras.Input((4, 3))
    backward = layers.GRU(4, return_state=True, go_backwards=True)
    h = layers.Bidirectional(L0GRU(4, return_state=True), backward_layer=backward)(x)
    return keras.Model(x, [layers.Dense(2)(part) for part in h])


@case
def gated_recurrence_residual():
    x = keras.Input((4, 3))
    h = L0Dense(5, "relu")(x)
    h = layers.Add()([h, L0LSTM(5, return_sequences=True)(h)])
    return keras.Model(x, layers.Dense(2)(h))


@case
def einsum_scaling_shared():
    x = keras.Input((4, 5))
    scale = layers.EinsumDense("abc,c->abc", (4, 6), bias_axes="c")
    h = layers.Add()([scale(gated()(x)), scale(L0Dense(6, "relu")(x))])
    return keras.Model(x, layers.Dense(2)(h))


# Recurrences under a mask that other places share


for _kind in (layers.SimpleRNN, layers.LSTM, layers.GRU):

    @case(name=f"{_kind.__name__}_in_a_stream")
    def in_a_stream(kind=_kind):
        x = keras.Input((4, 3))
        z = L0SharedGate(6)(x)
        h = L0Switch()(layers.Dense(6)(x), z)
        cells = kind(6, return_sequences=True, bias_initializer="normal")
        h = layers.Add()([h, L0RecurrentSwitch(cells)(h, z)])
        return keras.Model(x, layers.Dense(2)(h))

    @case(name=f"{_kind.__name__}_hands_on_its_states")
    def hands_on(kind=_kind):
        x = keras.Input((4, 3))
        z = L0SharedGate(5)(x)
        indices = [4, 0, 2, 1, 3]
        first = kind(5, return_state=True, return_sequences=True)
        h, *states = L0RecurrentSwitch(first, indices)(gated()(x), z)
        second = L0RecurrentSwitch(kind(5), indices)
        states = states if len(states) > 1 else states[0]
        h = second(h, z, initial_state=states)
        return keras.Model(x, layers.Dense(2)(h))


@case
def directions_under_one_mask():
    x = tokens()
    h = layers.Embedding(5, 6, mask_zero=True)(x)
    z = L0SharedGate(3)(x)
    both = layers.Bidirectional(layers.GRU(3, return_sequences=True))
    h = L0RecurrentSwitch(both)(L0Gate()(h), z)
    return keras.Model(x, layers.Dense(2)(h))
