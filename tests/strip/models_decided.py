"""Models of layers and operations that are rarer: one for everything that is ruled."""

import keras
import numpy as np
from keras import layers, ops
from models_operations import between, odd
from small_models import case, chain

from keras_l0.layers import L0Conv2D, L0Dense, L0DepthwiseConv1D

AUGMENTATIONS = {
    "AugMix": (), "CenterCrop": (5, 5), "CutMix": (),
    "MaxNumBoundingBoxes": (3,), "MixUp": (), "RandomBrightness": (0.5,),
    "RandomContrast": (0.5,), "RandomCrop": (5, 5), "RandomElasticTransform": (),
    "RandomErasing": (), "RandomFlip": (), "RandomGaussianBlur": (),
    "RandomInvert": (1.0,), "RandomPerspective": (), "RandomPosterization": (4,),
    "RandomRotation": (0.3,), "RandomSharpness": (0.9,), "RandomShear": (),
    "RandomTranslation": (0.3, 0.3), "RandomZoom": (0.4,), "Solarization": (),
}  # fmt: skip


@case
def augmentations():
    x = keras.Input((6, 6, 3))
    h = L0Conv2D(6, 3, padding="same", activation="relu")(x)
    h = layers.CenterCrop(5, 5)(odd(6)(h))
    for name, arguments in AUGMENTATIONS.items():
        if hasattr(layers, name):
            h = getattr(layers, name)(*arguments)(h)
    return keras.Model(x, layers.Conv2D(3, 3, padding="same")(h))


@case
def contrast():
    x = keras.Input((16, 16, 3))
    results = []
    for name in ("AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization"):
        if hasattr(layers, name):
            h = L0Conv2D(6, 3, activation="relu")(x)
            h = getattr(layers, name)(dtype="float32")(h * 40.0)
            results.append(ops.cast(h, x.dtype))
    h = layers.Concatenate()(results)
    return keras.Model(x, layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(h)))


case(
    between(
        lambda a, b: [
            ops.cast(layers.Discretization([-0.5, 0.2, 0.9])(h), a.dtype)
            for h in (a, b)
        ]
    ),
    name="discretization",
)


def whole(x):
    """A tensor as whole numbers."""
    return ops.cast(x * 5.0, "int32")


def grouped(title, names, call, size=8):
    """Cases of so many functions each, those that this Keras has."""
    here = [n for n in names.split() if hasattr(ops, n)]
    for start in range(0, len(here), size):
        functions = [getattr(ops, n) for n in here[start : start + size]]

        def build(functions=functions):
            x = keras.Input((4, 5))
            a, b = L0Dense(6, "tanh")(x), odd()(x)
            made = [y for f in functions for y in call(f, a, b)]
            made = [ops.cast(y, a.dtype) for y in made]
            h = layers.Concatenate()([a[:, : made[0].shape[1]], *made])
            return keras.Model(x, layers.Conv1D(3, 1)(h))

        case(build, name=f"raw_{title}_{here[start]}")


grouped(
    "unary",
    "angle array conjugate convert_to_tensor erfc fabs i0 imag isneginf isposinf "
    "isreal ones_like rad2deg real zeros_like",
    lambda f, a, b: [f(a), f(b)],
)
grouped(
    "binary",
    "fmax fmin fmod heaviside isclose logaddexp2",
    lambda f, a, b: [f(a, ops.abs(b) + 1.0), f(b, ops.abs(a) + 1.5)],
)
grouped(
    "integers",
    "bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor gcd lcm "
    "left_shift right_shift",
    lambda f, a, b: [
        f(whole(a), abs(whole(b)) + 1),
        f(whole(b), np.array([3], "int32")),
    ],
)
grouped(
    "along",
    "all any count_nonzero cumprod cumsum diff median nancumprod nancumsum "
    "nanmax nanmean nanmedian nanmin nanprod nanstd nansum nanvar norm prod ptp sort "
    "trapezoid",
    lambda f, a, b: [
        ops.expand_dims(y, 1) if len(y.shape) == 2 else y[:, :1]
        for y in (f(a, axis=1), f(b, axis=1))
    ],
    size=12,
)  # fmt: skip


def known(name, *args, **kwargs):
    """What a function returns, as a list; nothing if this Keras does not have it."""
    if not hasattr(ops, name):
        return []
    return keras.tree.flatten(getattr(ops, name)(*args, **kwargs))


for _name, _call in {
    "more": lambda a, b: [
        ops.logsumexp(b, axis=(1,)),
        ops.clip(b, -0.5, 0.5), ops.full_like(a, 2.0) + b,
        ops.binary_crossentropy(ops.sigmoid(a), ops.sigmoid(b)),
        *known("threshold", a, 0.1, -0.3), *known("threshold", b, 0.1, -0.3),
        ops.select([a > 0.2, b > 0.1], [a, b], 0.3),
    ],
    "tests": lambda a, b: [
        ops.cast(y, a.dtype) + b
        for h in (a, b)
        for y in (
            ops.digitize(h, np.array([-0.5, 0.1])), ops.bitwise_not(whole(h)),
            ops.bitwise_invert(whole(h)), ops.saturate_cast(h, "float32"),
            *known("isin", whole(h), np.array([0, 2])),
        )
    ],
    "rare": lambda a, b: [
        a, *known("nextafter", a, b), *known("ldexp", b, whole(a)),
    ],
    "splits": lambda a, b: [
        *ops.unstack(b, axis=1)[:2], ops.unstack(a, axis=1)[2],
        *known("array_split", b, 4, axis=-1), *known("dsplit", b, 2),
        *known("hsplit", b, 2),
    ],
    "joins": lambda a, b: [ops.hstack([a, b]), *known("dstack", [a, b])],
    "flips": lambda a, b: [
        ops.flip(b, axis=1), *known("fliplr", b), *known("fliplr", a[:, 1]),
    ],
    "examples": lambda a, b: [
        ops.vstack([a, b]), *known("flipud", b),
        *known("vsplit", ops.vstack([a, b]), 2),
    ],
}.items():  # fmt: skip
    case(between(_call), name=f"raw_{_name}")


@case
def raw_segments():
    x, ids = keras.Input((4, 5)), keras.Input((), dtype="int32")
    results = []
    for name in ("segment_sum", "segment_max", "segment_min", "segment_prod"):
        for h in (L0Dense(6, "tanh")(x), odd()(x)):
            if hasattr(ops, name):
                results.append(getattr(ops, name)(h, ids, num_segments=4))
    total = layers.Dense(3)(layers.Concatenate()(results[:2]))
    rest = [ops.clip(h, -9.0, 9.0) for h in results[2:]]
    return keras.Model([x, ids], [total, layers.Dense(3)(layers.Concatenate()(rest))])


@case
def raw_broadcast_to():
    # Only where the number of examples is known, since Keras takes no other shapes.
    x = keras.Input((5,), batch_size=48)
    h = ops.broadcast_to(ops.expand_dims(odd()(x), 1), (48, 4, 6))
    return keras.Model(x, layers.Conv1D(3, 3, padding="same")(h))


@case
def raw_images():
    x = keras.Input((8, 8, 3))
    a, b = L0Conv2D(6, 3, padding="same", activation="relu")(x), odd()(x)

    def small(h):
        return h[:, :4, :4]

    calls = [
        lambda h: ops.max_pool(h, 2),
        lambda h: ops.average_pool(h, 2, padding="same"),
        lambda h: ops.image.resize(h, (4, 4)),
        lambda h: ops.image.resize(h, (4, 4), pad_to_aspect_ratio=True),
        lambda h: ops.image.crop_images(h, 1, 2, target_height=4, target_width=4),
        lambda h: ops.image.pad_images(
            h[:, :2, :2], 1, 1, target_height=4, target_width=4
        ),
        lambda h: ops.image.affine_transform(
            small(h), np.array([1.0, 0, 0.5, 0, 1, 0.2, 0, 0])
        ),
        lambda h: ops.image.elastic_transform(small(h), seed=0),
        lambda h: ops.image.perspective_transform(
            small(h),
            np.array([[0.0, 0], [3, 0], [0, 3], [3, 3]]),
            np.array([[0.0, 1], [3, 0], [0, 2], [3, 3]]),
        ),
    ]
    h = layers.Concatenate()([call(h) for h in (a, b) for call in calls])
    return keras.Model(x, layers.Conv2D(3, 3, padding="same")(h))


# Keras 3.10 blurs in float32 only.
@case(narrow=True)
def raw_blur():
    x = keras.Input((4, 4, 3))
    a, b = L0Conv2D(6, 3, padding="same", activation="relu")(x), odd()(x)
    h = [ops.image.gaussian_blur(h, (3, 3), (1.0, 1.0)) for h in (a, b)]
    h = layers.Concatenate()(h)
    return keras.Model(x, layers.Conv2D(3, 3, padding="same")(h))


@case
def depthwise_gated_barrier():
    # Its units cannot be told apart: all of them stay, closed ones as zeros.
    return chain(
        L0Dense(4, "relu"), L0DepthwiseConv1D(3, activation="softmax"),
        layers.Flatten(), layers.Dense(2), shape=(9, 4),
    )  # fmt: skip
