"""Networks as people build them, small: vision."""

import keras
from keras import layers, ops
from small_models import case

from keras_l0.layers import L0Conv2D, L0Dense, L0Gate


def conv(filters, size, name, **options):
    return layers.Conv2D(filters, size, padding="same", name=name, **options)


def block(x, filters, name, size=3, **options):
    """Convolution, normalization, ReLU, gate: the gate is called ``name``_gate."""
    h = conv(filters, size, name, use_bias=False, **options)(x)
    h = layers.ReLU()(layers.BatchNormalization(name=f"{name}_norm")(h))
    return L0Gate(name=f"{name}_gate")(h)


def unet(transposed):
    def up(h, filters, name):
        if transposed:
            return layers.Conv2DTranspose(filters, 2, strides=2, name=name)(h)
        return block(layers.UpSampling2D()(h), filters, name, 2)

    x = keras.Input((8, 8, 2), name="image")
    a = block(x, 4, "down1")
    b = block(layers.MaxPooling2D()(a), 6, "down2")
    c = block(layers.AveragePooling2D(2)(b), 8, "middle")
    h = layers.Concatenate()([up(c, 6, "up2"), b])
    h = block(h, 6, "decode2")
    h = layers.Concatenate()([up(h, 4, "up1"), a])
    h = block(h, 4, "decode1")
    return keras.Model(x, layers.Conv2D(2, 1, activation="sigmoid", name="mask")(h))


case(lambda: unet(True), name="unet_transposed")
case(lambda: unet(False), name="unet_upsampled")


@case
def feature_pyramid():
    # The heads, and the gate of the pyramid's channels, are shared by all levels.
    x = keras.Input((8, 8, 3))
    fine = block(x, 5, "fine", strides=2)
    coarse = block(fine, 6, "coarse", strides=2)
    pyramid = L0Gate(name="pyramid")
    top = pyramid(conv(6, 1, "lateral2")(coarse))
    low = layers.Add()([conv(6, 1, "lateral1")(fine), layers.UpSampling2D()(top)])
    levels = [pyramid(conv(6, 3, "smooth1")(pyramid(low))), top]
    tower = L0Conv2D(5, 3, padding="same", activation="relu", name="tower")
    kind, box = conv(3, 3, "kind"), conv(4, 3, "box")
    outputs = {"kinds": [], "boxes": []}
    for level in levels:
        h = tower(level)
        outputs["kinds"].append(kind(h))
        outputs["boxes"].append(box(h))
    return keras.Model(x, outputs)


def siamese(difference):
    code = keras.Sequential(
        [
            keras.Input((6, 6, 2)), L0Conv2D(5, 3, activation="relu", name="look"),
            layers.GlobalAveragePooling2D(), layers.Dense(6, "tanh", name="code"),
            L0Gate(name="code_gate"),
        ],
        name="encoder",
    )  # fmt: skip
    a, b = keras.Input((6, 6, 2), name="a"), keras.Input((6, 6, 2), name="b")
    if difference:
        h = ops.absolute(layers.Subtract()([code(a), code(b)]))
    else:
        h = layers.Dot(1, normalize=True)([code(a), code(b)])
    return keras.Model([a, b], layers.Dense(1, "sigmoid", name="same")(h))


case(lambda: siamese(True), name="siamese_difference")
case(lambda: siamese(False), name="siamese_dot")


@case
def convnext():
    x = keras.Input((8, 8, 3))
    h = layers.LayerNormalization(name="norm")(conv(6, 2, "stem", strides=2)(x))
    for n in "12":
        y = layers.DepthwiseConv2D(7, padding="same", name=f"depthwise{n}")(h)
        y = layers.LayerNormalization(name=f"norm{n}")(y)
        y = L0Dense(12, "gelu", name=f"expand{n}")(y)
        y = layers.Dense(6, name=f"project{n}")(y)
        # A scale for each channel: Keras' own LayerScale is no public layer.
        y = layers.DepthwiseConv2D(1, use_bias=False, name=f"scale{n}")(y)
        h = layers.Add()([h, y])
    h = L0Gate(name="top")(layers.GlobalAveragePooling2D()(h))
    return keras.Model(x, layers.Dense(3, name="class")(h))


@case
def channel_shuffle():
    x = keras.Input((4, 4, 3))
    h = block(x, 6, "stem")
    h = block(h, 6, "first", 1, groups=2)
    h = layers.Reshape((4, 4, 2, 3), name="split")(h)
    h = layers.Reshape((4, 4, 6), name="join")(ops.swapaxes(h, 3, 4))
    h = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(h)
    h = block(h, 6, "second", 1, groups=2)
    return keras.Model(x, layers.Dense(2, name="class")(layers.Flatten()(h)))


def hard_swish(x):
    return x * (ops.relu6(x + 3.0) * (1.0 / 6.0))


@case
def mobilenet_v3():
    # Inverted residuals with squeeze-excite: all blocks gate one residual stream.
    x = keras.Input((6, 6, 3))
    stream = L0Gate(name="stream")
    h = stream(hard_swish(layers.BatchNormalization()(conv(5, 3, "stem")(x))))
    for n in "12":
        y = conv(8, 1, f"expand{n}", use_bias=False)(h)
        y = hard_swish(layers.BatchNormalization(name=f"norm{n}")(y))
        y = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise{n}")(y)
        y = hard_swish(layers.BatchNormalization()(y))
        y = L0Gate(name=f"depthwise{n}_gate")(y)
        s = layers.GlobalAveragePooling2D(keepdims=True)(y)
        s = L0Conv2D(4, 1, activation="relu", name=f"squeeze{n}")(s)
        s = layers.Conv2D(8, 1, activation="hard_sigmoid", name=f"excite{n}")(s)
        y = conv(5, 1, f"project{n}", use_bias=False)(layers.Multiply()([y, s]))
        h = layers.Add()([h, stream(layers.BatchNormalization()(y))])
    h = layers.GlobalAveragePooling2D()(h)
    return keras.Model(x, layers.Dense(3, name="class")(h))


@case
def densenet():
    # Pre-activation: what a gate closes comes out of BatchNormalization as a constant.
    x = keras.Input((6, 6, 3))
    h = L0Gate(name="stem_gate")(conv(4, 3, "stem")(x))
    for n in "12":
        y = layers.ReLU()(layers.BatchNormalization(name=f"norm{n}")(h))
        y = block(y, 5, f"narrow{n}", 1)
        y = L0Gate(name=f"grow{n}_gate")(conv(3, 3, f"grow{n}", use_bias=False)(y))
        h = layers.Concatenate()([h, y])
    h = layers.ReLU()(layers.BatchNormalization(name="norm")(h))
    h = layers.AveragePooling2D(2)(conv(5, 1, "transition", use_bias=False)(h))
    h = layers.GlobalAveragePooling2D()(L0Gate(name="transition_gate")(h))
    return keras.Model(x, layers.Dense(3, name="class")(h))


@case
def autoencoder_outputs():
    x = keras.Input((8, 8, 1), name="image")
    h = block(x, 4, "encode1", strides=2)
    h = block(h, 6, "encode2", strides=2)
    code = L0Dense(5, "tanh", name="code")(layers.Flatten()(h))
    h = L0Dense(24, "relu", name="spread")(code)
    h = layers.Reshape((2, 2, 6), name="unfold")(h)
    h = layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="decode2")(h)
    h = L0Gate(name="decode2_gate")(layers.ReLU()(h))
    h = layers.Conv2DTranspose(1, 2, strides=2, name="decode1")(h)
    kind = layers.Dense(3, "softmax", name="kind")(L0Dense(6, "relu", name="ask")(code))
    return keras.Model(x, {"image": h, "code": code, "kind": kind})


@case
def resnext():
    x = keras.Input((6, 6, 3))
    stream = L0Gate(name="stream")
    h = stream(layers.ReLU()(conv(6, 3, "stem")(x)))
    for n in "12":
        y = block(h, 6, f"reduce{n}", 1)
        y = block(y, 6, f"grouped{n}", groups=3)
        y = stream(layers.BatchNormalization()(conv(6, 1, f"expand{n}")(y)))
        h = layers.ReLU()(layers.Add()([h, y]))
    h = layers.GlobalAveragePooling2D()(h)
    return keras.Model(x, layers.Dense(3, name="class")(h))


@case
def nested_tasks():
    # A stem in a trunk, and the heads are models too.
    x = keras.Input((8, 8, 2))
    stem = keras.Model(x, block(x, 4, "look"), name="stem")
    h = stem(x)
    trunk = keras.Model(
        x, [h, block(layers.MaxPooling2D()(h), 6, "think")], name="trunk"
    )
    features = keras.Input((4, 4, 6))
    y = L0Dense(5, "relu", name="hidden")(layers.GlobalMaxPooling2D()(features))
    head = keras.Model(features, layers.Dense(3, "softmax", name="kind")(y), name="h")
    image = keras.Input((8, 8, 2), name="image")
    fine, coarse = trunk(image)
    place = L0Conv2D(4, 1, activation="relu", name="where")(fine)
    place = layers.Conv2D(1, 1, name="place")(place)
    return keras.Model(image, {"kind": head(coarse), "place": place})
