"""Networks as people build them, small: text, series, tables, transformers."""

import keras
import numpy as np
from keras import layers
from models_sequence import tokens
from small_models import case

from keras_l0.layers import L0Dense, L0Gate


def vision_transformer(token):
    """With learned positions and the mean token, or with fixed ones and the first."""
    x = keras.Input((8, 8, 3), name="image")
    h = layers.Conv2D(8, 4, strides=4, name="patches")(x)
    h = layers.Reshape((4, 8))(h)
    if token == "mean":
        places = keras.Input((4,), dtype="int32", name="places")
        inputs = [x, places]
        h = layers.Add()([h, layers.Embedding(4, 8, name="positions")(places)])
    else:
        inputs = x
        h = h + np.sin(np.arange(32.0)).reshape(4, 8)
    for n in "12":
        y = layers.LayerNormalization(name=f"norm{n}a")(h)
        y = layers.MultiHeadAttention(2, 4, name=f"attention{n}")(y, y)
        h = layers.Add()([h, y])
        y = layers.LayerNormalization(name=f"norm{n}b")(h)
        y = L0Dense(12, "gelu", name=f"widen{n}")(y)
        h = layers.Add()([h, layers.Dense(8, name=f"narrow{n}")(y)])
    h = layers.LayerNormalization(name="norm")(h)
    h = layers.GlobalAveragePooling1D()(h) if token == "mean" else h[:, 0]
    h = L0Dense(6, "tanh", name="pool")(h)
    return keras.Model(inputs, layers.Dense(3, name="class")(h))


case(lambda: vision_transformer("mean"), name="vit_mean")
case(lambda: vision_transformer("first"), name="vit_first")


@case
def decoder():
    # RMSNormalization, grouped attention, gated FFN; all blocks gate one stream.
    x = tokens(5, name="text")
    stream = L0Gate(name="stream")
    h = stream(layers.Embedding(7, 8, name="words")(x))
    for n in "12":
        y = layers.RMSNormalization(name=f"norm{n}a")(h)
        if hasattr(layers, "GroupQueryAttention"):
            attention = layers.GroupQueryAttention(4, 4, 2, name=f"attention{n}")
        else:
            attention = layers.MultiHeadAttention(2, 4, name=f"attention{n}")
        h = layers.Add()([h, stream(attention(y, y, use_causal_mask=True))])
        y = layers.RMSNormalization(name=f"norm{n}b")(h)
        left = layers.Dense(10, "silu", name=f"left{n}", use_bias=False)(y)
        right = layers.Dense(10, name=f"right{n}", use_bias=False)(y)
        y = L0Gate(name=f"inner{n}")(layers.Multiply()([left, right]))
        y = layers.Dense(8, name=f"out{n}", use_bias=False)(y)
        h = layers.Add()([h, stream(y)])
    h = layers.RMSNormalization(name="norm")(h)
    return keras.Model(x, layers.Dense(7, use_bias=False, name="logits")(h))


@case
def mlp_mixer():
    x = keras.Input((8, 8, 3))
    h = layers.Reshape((4, 6))(layers.Conv2D(6, 4, strides=4, name="patches")(x))
    for n in "12":
        y = layers.LayerNormalization(name=f"norm{n}a")(h)
        y = layers.Permute((2, 1))(y)
        y = L0Dense(7, "gelu", name=f"tokens{n}")(y)
        y = layers.Dense(4, name=f"mixed{n}")(y)
        h = layers.Add(name=f"add{n}")([h, layers.Permute((2, 1))(y)])
        y = layers.LayerNormalization(name=f"norm{n}b")(h)
        y = L0Dense(9, "gelu", name=f"channels{n}")(y)
        h = layers.Add()([h, layers.Dense(6, name=f"joined{n}")(y)])
    h = layers.GlobalAveragePooling1D()(layers.LayerNormalization(name="norm")(h))
    return keras.Model(x, layers.Dense(3, name="class")(h))


@case
def text_classifier():
    x = tokens(6)
    h = layers.Embedding(7, 8, mask_zero=True, name="words")(x)
    h = L0Gate(name="words_gate")(h)
    lstm = layers.LSTM(4, return_sequences=True)
    h = layers.Bidirectional(lstm, name="both")(h)
    h = L0Dense(7, "relu", name="mix")(h)
    h = layers.GRU(5, name="last")(h)
    h = L0Dense(8, "relu", name="top")(h)
    return keras.Model(x, layers.Dense(3, "softmax", name="class")(h))


@case
def text_cnn():
    x = tokens(7)
    h = L0Gate(name="words_gate")(layers.Embedding(7, 8, name="words")(x))
    grams = []
    for size in (2, 3, 4):
        y = layers.Conv1D(5, size, activation="relu", name=f"grams{size}")(h)
        grams.append(L0Gate(name=f"gate{size}")(layers.GlobalMaxPooling1D()(y)))
    h = layers.Dropout(0.3)(layers.Concatenate()(grams))
    return keras.Model(x, layers.Dense(3, "softmax", name="class")(h))


@case
def temporal_convolutions():
    x = keras.Input((9, 3))
    stream = L0Gate(name="stream")
    h = stream(layers.Conv1D(6, 1, name="stem")(x))
    for n, rate in enumerate((1, 2, 4)):
        causal = {"padding": "causal", "dilation_rate": rate}
        y = layers.Conv1D(7, 2, name=f"inner{n}", **causal)(h)
        y = layers.ReLU()(layers.BatchNormalization(name=f"norm{n}")(y))
        y = layers.SpatialDropout1D(0.2)(L0Gate(name=f"gate{n}")(y))
        y = layers.Conv1D(6, 2, name=f"outer{n}", activation="relu", **causal)(y)
        h = layers.ReLU()(layers.Add()([h, stream(y)]))
    return keras.Model(x, layers.Dense(2, name="next")(h[:, -1]))


@case
def translator():
    # Recurrent encoder and decoder, the second attends to the first.
    x, y = tokens(5, name="source"), tokens(4, name="target")
    e = layers.Embedding(7, 6, mask_zero=True, name="words")(x)
    e = L0Gate(name="words_gate")(e)
    encoder = layers.GRU(5, return_sequences=True, return_state=True, name="encoder")
    e, state = encoder(e)
    d = layers.Embedding(7, 6, name="spoken")(y)
    decoder = layers.GRU(5, return_sequences=True, name="decoder")
    d = decoder(L0Gate(name="spoken_gate")(d), initial_state=state)
    seen = layers.Attention(name="look")([d, e])
    h = L0Dense(8, "tanh", name="mix")(layers.Concatenate()([d, seen]))
    return keras.Model(
        {"source": x, "target": y}, layers.Dense(7, "softmax", name="word")(h)
    )


@case
def wide_and_deep():
    inputs = {
        "ages": keras.Input((3,), name="ages"),
        "city": keras.Input((1,), dtype="int32", name="city"),
        "job": keras.Input((2,), dtype="int32", name="job"),
        "day": keras.Input((1,), name="day"),
    }
    ages = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])
    ages = ages(inputs["ages"])
    city = layers.CategoryEncoding(4, "one_hot", name="encode")(inputs["city"])
    job = layers.CategoryEncoding(4, "multi_hot", name="count")(inputs["job"])
    day = layers.Discretization([-0.5, 0.5], output_mode="one_hot", name="bin")
    day = day(inputs["day"])
    place = layers.Embedding(4, 5, name="place")(inputs["city"])
    place = L0Gate(name="place_gate")(layers.Flatten()(place))
    wide = layers.Concatenate(name="crossed")([city, job, day])
    deep = layers.Concatenate()([ages, place])
    deep = L0Dense(8, "relu", name="deep1")(deep)
    deep = L0Dense(6, "relu", name="deep2")(deep)
    both = layers.Concatenate()([wide, deep])
    return keras.Model(
        inputs,
        {
            "buys": layers.Dense(1, "sigmoid", name="buys")(both),
            "spends": layers.Dense(1, name="spends")(deep),
        },
    )
