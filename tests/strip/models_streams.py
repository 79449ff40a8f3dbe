"""Models where a normalization makes something of a unit that is closed before it."""

import keras
from keras import layers, ops
from models_topologies import conv
from small_models import case


@case(gated=False)
def preactivation():
    x = keras.Input((8, 8, 3))
    h = conv(8, 3, "stem")(x)
    for n in "12":
        y = layers.ReLU()(layers.BatchNormalization()(h))
        y = conv(5, 3, f"first{n}")(y)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        h = layers.Add()([h, conv(8, 3, f"second{n}")(y)])
    h = layers.ReLU()(layers.BatchNormalization()(h))
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(h)))


@case(gated=False)
def preactivated_separably():
    x = keras.Input((8, 8, 3))
    h = conv(6, 3, "stem")(x)
    for n in "12":
        y = layers.Activation("sigmoid")(layers.BatchNormalization()(h))
        y = layers.DepthwiseConv2D(3, padding="same", name=f"depth{n}")(y)
        h = layers.Add()([h, conv(6, 1, f"point{n}")(y)])
    return keras.Model(x, layers.Dense(3)(layers.GlobalMaxPooling2D()(h)))


@case(gated=False)
def encoder_of_two():
    look, norm = conv(5, 3, "look"), layers.BatchNormalization()
    see = conv(6, 3, "see", activation="relu")
    images = keras.Input((6, 6, 2), name="a"), keras.Input((6, 6, 2), name="b")
    ends = [
        layers.GlobalAveragePooling2D()(see(layers.ReLU()(norm(look(x)))))
        for x in images
    ]
    h = ops.absolute(layers.Subtract()(ends))
    return keras.Model(images, layers.Dense(1, "sigmoid", name="same")(h))


@case(gated=False)
def stream_of_unit_length():
    x = keras.Input((6, 3))
    h = layers.UnitNormalization()(layers.Dense(6, "relu", name="embed")(x))
    for n in "12":
        y = layers.UnitNormalization()(h)
        y = layers.Dense(5, "tanh", name=f"wide{n}")(y)
        h = layers.Add()([h, layers.Dense(6, name=f"narrow{n}")(y)])
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(h)))
