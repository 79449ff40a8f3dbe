"""Models of convolutions and of layers that work on positions."""

import keras
from keras import layers
from models_operations import odd
from small_models import case, chain

import keras_l0
from keras_l0.layers import L0Conv2D, L0Dense, L0Gate

SHAPES = {1: (9, 4), 2: (7, 6, 4), 3: (4, 5, 4, 4)}


def layer_of(kind, rank, *args, **kwargs):
    return getattr(layers, f"{kind}{rank}D")(*args, **kwargs)


def at_zero(rank, channels=6):
    """Channels that are 0 when closed."""
    return [layer_of("Conv", rank, channels, 1, activation="relu"), L0Gate()]


def at_rest(rank, channels=6):
    """Channels that are some other constant when closed."""
    return [
        layer_of("Conv", rank, channels, 1), L0Gate(),
        layers.BatchNormalization(epsilon=0.01),
    ]  # fmt: skip


def network(rank, start, *members, shape=None):
    return chain(
        *start(rank), *members, layer_of("GlobalAveragePooling", rank), layers.Dense(2),
        shape=shape or SHAPES[rank],
    )  # fmt: skip


def rank_of(kind):
    return int(next(letter for letter in kind if letter.isdigit()))


def filters_of(kind):
    return () if "Depthwise" in kind else (5,)


def gated_network(kind, start, **kwargs):
    rank, filters = rank_of(kind), filters_of(kind)
    layer = getattr(keras_l0.layers, f"L0{kind}")
    return chain(
        *start(rank), layer(*filters, 3, **kwargs), layer(*filters, 2),
        layers.Flatten(), layers.Dense(2), shape=SHAPES[rank],
    )  # fmt: skip


STARTS = (at_zero, at_rest)
SAME = {"padding": "same"}
CAUSAL = {"padding": "causal", "dilation_rate": 2}
CONV = {"": {}, "_same": {**SAME, "strides": 2}}
WINDOWS = {
    "Conv1D": {**CONV, "_causal": CAUSAL},
    "Conv3D": CONV,
    "DepthwiseConv1D": CONV,
    "DepthwiseConv2D": {**CONV, "_twice": {"depth_multiplier": 2, "use_bias": False}},
    "SeparableConv1D": CONV,
    "SeparableConv2D": {**CONV, "_twice": {"depth_multiplier": 2, "use_bias": False}},
    "Conv1DTranspose": {"": {"strides": 2}, "_no_bias": {"use_bias": False}},
    "Conv2DTranspose": {
        "": {"strides": 2, **SAME},
        "_more": {"strides": 2, "output_padding": 1},
    },
    "Conv3DTranspose": {"": {"strides": 2, "output_padding": 1}},
}

for _kind, _options in WINDOWS.items():
    for _suffix, _kwargs in _options.items():
        for _start in STARTS if not _suffix else (at_rest,):

            @case(name=f"{_kind}{_suffix}_{_start.__name__}")
            def window(kind=_kind, kwargs=_kwargs, start=_start):
                return network(
                    rank_of(kind), start,
                    getattr(layers, kind)(*filters_of(kind), 3, **kwargs),
                    layers.BatchNormalization(), layers.ReLU(), L0Gate(),
                )  # fmt: skip

    # The gated twin, with a gate of its own behind its activation.
    for _start, _activation in zip(STARTS, ("relu", "sigmoid"), strict=True):

        @case(name=f"L0{_kind}_{_start.__name__}")
        def gated_window(kind=_kind, start=_start, activation=_activation):
            options = list(WINDOWS[kind].values())[-1] | {"activation": activation}
            return gated_network(kind, start, **options)

    @case(name=f"L0{_kind}_dead", dead=("b",), alive=False)
    def dead_window(kind=_kind):
        return gated_network(kind, at_rest, name="b")


for _start in STARTS:
    for _rank in (1, 2):

        @case(name=f"grouped_{_rank}D_{_start.__name__}")
        def grouped(rank=_rank, start=_start):
            return network(
                rank, start,
                layer_of("Conv", rank, 9, 2, groups=3, activation="relu"), L0Gate(),
                layer_of("Conv", rank, 6, 2, groups=3, padding="same"),
                layers.BatchNormalization(), layers.ReLU(), L0Gate(),
            )  # fmt: skip

    for _rank in (1, 2, 3):

        @case(name=f"positions_{_rank}D_{_start.__name__}")
        def positions(rank=_rank, start=_start):
            return network(
                rank, start, layer_of("Cropping", rank, 1),
                layer_of("UpSampling", rank, 2), layer_of("Conv", rank, 4, 2), L0Gate(),
                layer_of("ZeroPadding", rank, 1), layer_of("Conv", rank, 4, 2),
            )  # fmt: skip

    # TensorFlow resizes in float32.
    @case(name=f"resizing_{_start.__name__}", narrow=True)
    def resizing(start=_start):
        return network(
            2, start, layers.Resizing(8, 9),
            layers.Resizing(5, 7, interpolation="bicubic", antialias=True),
            layers.Resizing(7, 7, interpolation="nearest"),
            layers.Resizing(6, 9, crop_to_aspect_ratio=True),
            layers.UpSampling2D(2, interpolation="bilinear"), layers.Conv2D(4, 2),
        )  # fmt: skip

    @case(name=f"resizing_padded_{_start.__name__}", narrow=True)
    def resizing_padded(start=_start):
        pad = layers.Resizing(5, 9, pad_to_aspect_ratio=True)
        return network(2, start, pad, layers.Conv2D(4, 2))


for _rank in (1, 2, 3):

    @case(name=f"padded_{_rank}D")
    def padded(rank=_rank):
        return network(
            rank, at_rest, layer_of("ZeroPadding", rank, 1),
            layer_of("Conv", rank, 4, 2), L0Gate(),
        )  # fmt: skip

    if hasattr(layers, "AdaptiveMaxPooling1D"):

        @case(name=f"adaptive_{_rank}D", narrow=_rank == 3)
        def adaptive(rank=_rank):
            return network(
                rank, at_rest, layer_of("AdaptiveMaxPooling", rank, 3),
                layer_of("AdaptiveAveragePooling", rank, 2),
                layer_of("Conv", rank, 4, 2),
            )  # fmt: skip


@case
def inverted_residual():
    x = keras.Input((6, 6, 4))
    h = layers.Conv2D(8, 1, use_bias=False)(x)
    h = L0Gate()(layers.ReLU(6.0)(layers.BatchNormalization()(h)))
    h = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(h)
    h = layers.ReLU(6.0)(layers.BatchNormalization()(h))
    h = layers.BatchNormalization()(layers.Conv2D(4, 1, use_bias=False)(h))
    h = L0Gate()(layers.Add()([x, h]))
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))


@case
def autoencoder():
    return chain(
        L0Conv2D(6, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
        layers.BatchNormalization(), layers.ReLU(), L0Gate(),
        layers.UpSampling2D(), layers.Conv2D(2, 3, padding="same"), shape=(6, 6, 3),
    )  # fmt: skip


@case
def same_without_padding():
    # Patches: "same" adds nothing where the windows fit, so constants are folded.
    return chain(
        *at_rest(2), layers.Conv2D(5, 2, strides=2, padding="same"), layers.Flatten(),
        layers.Dense(2), shape=(6, 6, 3),
    )  # fmt: skip


@case
def causal_stack():
    return chain(
        layers.Conv1D(6, 3, padding="causal"), layers.BatchNormalization(),
        layers.ReLU(), L0Gate(),
        layers.Conv1D(6, 3, padding="causal", dilation_rate=2), L0Gate(),
        layers.BatchNormalization(),
        layers.Conv1D(3, 3, padding="causal", dilation_rate=4), shape=(9, 3),
    )  # fmt: skip


@case
def grouped_gated():
    return chain(
        L0Conv2D(6, 1, activation="sigmoid"),
        L0Conv2D(6, 3, groups=3, activation="sigmoid"),
        L0Conv2D(6, 3, groups=6, activation="relu"),
        layers.Conv2D(12, 1, groups=6, padding="same"), L0Gate(), layers.Flatten(),
        layers.Dense(2), shape=(6, 6, 3),
    )  # fmt: skip


@case
def shared_convolutions():
    # What rests in one call varies in the other: nothing can be carried.
    x, y = keras.Input((6, 6, 4)), keras.Input((6, 6, 4))
    norm, gate = layers.BatchNormalization(), L0Gate()
    conv = layers.Conv2D(5, 3, padding="same")
    deep = layers.DepthwiseConv2D(3, padding="same")
    parted = layers.SeparableConv2D(5, 3, padding="same")
    a, b = norm(gate(x)), norm(gate(L0Gate()(y)))
    outputs = [f(h) for f in (conv, deep, parted) for h in (a, b)]
    pooled = [layers.GlobalAveragePooling2D()(L0Gate()(h)) for h in outputs]
    return keras.Model([x, y], layers.Dense(2)(layers.Concatenate()(pooled)))


@case(dead=("b",), alive=False)
def dead_behind_constants():
    # The convolution only holds a place: no channel carries its constants.
    return chain(
        *at_rest(2), layers.Conv2D(5, 3, padding="same"), L0Gate(name="b"),
        layers.Flatten(), layers.Dense(2), shape=(6, 6, 3),
    )  # fmt: skip


@case(dead=("b",), alive=False)
def dead_depthwise():
    return chain(
        layers.Conv2D(6, 1), L0Gate(name="b"),
        layers.DepthwiseConv2D(3, activation="elu"),
        layers.Conv2D(6, 3, groups=2), layers.SeparableConv2D(3, 2), layers.Flatten(),
        layers.Dense(2), shape=(6, 6, 3),
    )  # fmt: skip


@case(first=True)
def channels_first_spatial():
    first = {"data_format": "channels_first"}
    return chain(
        layers.Conv2D(6, 3, **first), layers.BatchNormalization(axis=1),
        layers.ReLU(), L0Gate(axis=1), layers.ZeroPadding2D(1, **first),
        layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", **first),
        layers.UpSampling2D(2, **first), layers.Cropping2D(1, **first), L0Gate(axis=1),
        layers.Conv2D(6, 2, groups=3, padding="same", **first), L0Gate(axis=1),
        layers.SeparableConv2D(4, 2, activation="relu", **first), L0Gate(axis=1),
        layers.Conv2DTranspose(3, 2, **first), layers.GlobalAveragePooling2D(**first),
        layers.Dense(2), shape=(3, 7, 7),
    )  # fmt: skip


# Convolutional recurrences

for _rank in (1, 2, 3):
    for _options in (
        {"padding": "same"},
        {"padding": "valid", "return_sequences": True},
        {"padding": "same", "use_bias": False, "strides": 2},
    ):

        @case(name=f"ConvLSTM{_rank}D_{'_'.join(_options)}_{_options['padding']}")
        def conv_recurrent(rank=_rank, options=_options):
            x = keras.Input((3, *[3] * rank, 4))
            layer = getattr(layers, f"ConvLSTM{rank}D")(3, 2, **options)
            return keras.Model(x, layers.Dense(2)(layer(odd(6)(x))))


@case
def conv_recurrent_shared():
    x = keras.Input((3, 4, 4))
    layer = layers.ConvLSTM1D(3, 2, padding="same")
    ends = [layer(odd(6)(x)), layer(L0Dense(6, "relu")(x))]
    return keras.Model(x, layers.Dense(2)(layers.Add()(ends)))


@case
def conv_recurrent_states():
    x, y = keras.Input((3, 4, 4)), keras.Input((2, 4, 4))
    make = layers.ConvLSTM1D
    _, *states = make(3, 2, padding="same", return_state=True)(odd(4)(x))
    h = make(3, 2, padding="same")(L0Dense(6, "relu")(y), initial_state=states)
    return keras.Model([x, y], layers.Dense(2)(L0Gate()(h)))
