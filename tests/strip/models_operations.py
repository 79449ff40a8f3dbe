"""Models of normalizations, merges, moves and raw operations."""

import keras
import numpy as np
from keras import layers, ops
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from small_models import case, chain

from keras_l0.layers import L0Conv2D, L0Dense, L0Gate


def odd(width=6):
    """Channels that rest at values other than 0, some of them behind a ReLU."""

    def call(x):
        h = L0Gate()(layers.Dense(width)(x))
        return layers.BatchNormalization(epsilon=0.01)(h)

    return call


def between(call, shape=(4, 5), width=6, top=None):
    """A model of ``call`` on two tensors: one rests at 0, the other does not."""

    def build():
        x = keras.Input(shape)
        h = call(L0Dense(width, "tanh")(x), odd(width)(x))
        h = h if isinstance(h, list) else [h]
        return keras.Model(x, [(top or layers.Dense(3))(y) for y in h])

    return build


def normed(layer, shape=(4, 5), width=8):
    """A layer behind a gate, behind constants, and before a gate."""

    def build():
        x = keras.Input(shape)
        a = layer()(L0Gate()(layers.Dense(width)(x)))
        b = L0Gate()(layer()(odd(width)(x)))
        h = layers.Conv1D(4, 3, padding="same")(layers.Concatenate()([a, b]))
        return keras.Model(x, layers.Dense(2)(h))

    return build


# Normalizations

NORMALIZATIONS = {
    "rms": lambda: layers.RMSNormalization(epsilon=0.1),
    "unit": lambda: layers.UnitNormalization(),
    "unit_positions": lambda: layers.UnitNormalization(axis=1),
    "group": lambda: layers.GroupNormalization(4, epsilon=0.1),
    "group_plain": lambda: layers.GroupNormalization(2, center=False, scale=False),
    "group_scaled": lambda: layers.GroupNormalization(4, center=False),
    "instance": lambda: layers.GroupNormalization(-1),
    "layer": lambda: layers.LayerNormalization(),
    "layer_positions": lambda: layers.LayerNormalization(axis=1),
    "fixed": lambda: layers.Normalization(mean=list(range(8)), variance=[2.0] * 8),
    "fixed_scalar": lambda: layers.Normalization(mean=0.3, variance=2.0, axis=None),
    "inverse": lambda: layers.Normalization(
        mean=[0.3] * 8, variance=[2.0] * 8, invert=True
    ),
    "rescaling": lambda: layers.Rescaling(0.3, 0.2),
    "rescaling_only": lambda: layers.Rescaling(2),
    "rescaling_row": lambda: layers.Rescaling(np.linspace(0.3, 2, 8)[None], 0.1),
    "rescaling_array": lambda: layers.Rescaling([1.0, 2, 3, 4, 5, 6, 7, 8], [0.1] * 8),
    "prelu": lambda: layers.PReLU(shared_axes=[1]),
    "prelu_positions": lambda: layers.PReLU(),
    "prelu_shared": lambda: layers.PReLU(shared_axes=[1, 2]),
    "softmax": lambda: layers.Softmax(),
    "masking": lambda: layers.Masking(),
}
for _name, _layer in NORMALIZATIONS.items():
    case(normed(_layer), name=f"norm_{_name}")


@case
def norm_adapted():
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(1, 3, (20, 6)))
    return chain(L0Dense(6, "relu"), norm, layers.Dense(3))


@case(dead=("b",), alive=False)
def norm_rms_of_constants():
    # Nothing varies, so that the length is a constant too.
    x = keras.Input((4, 5))
    h = layers.BatchNormalization()(L0Gate(name="b")(layers.Dense(8)(x)))
    h = layers.RMSNormalization(epsilon=0.1)(L0Gate()(h))
    return keras.Model(x, layers.Conv1D(3, 3, padding="same")(h))


@case(dead=("b",))
def norm_dead_group():
    x = keras.Input((4, 5))
    a, b = layers.Dense(4)(x), L0Gate(name="b")(layers.Dense(4)(x))
    h = layers.GroupNormalization(2)(layers.Concatenate()([a, b]))
    return keras.Model(x, layers.Dense(3)(L0Gate()(h)))


@case
def norm_residual_stream():
    x = keras.Input((4, 5))
    gate = L0Gate()
    h = gate(layers.Dense(8)(x))
    for _ in range(2):
        y = layers.RMSNormalization(epsilon=0.1)(h)
        y = layers.Dense(8)(L0Dense(6, "gelu")(y))
        h = layers.Add()([h, gate(y)])
    return keras.Model(x, layers.Dense(3)(layers.RMSNormalization()(h)))


@case
def spectral():
    x = keras.Input((6, 6, 3))
    h = layers.SpectralNormalization(layers.Conv2D(5, 3, activation="relu"))(x)
    h = layers.SpectralNormalization(layers.Dense(4))(L0Gate()(h))
    return keras.Model(x, layers.Dense(2)(L0Gate()(h)))


# Merging layers

for _kind in ("Add", "Subtract", "Average", "Multiply", "Maximum", "Minimum"):
    _merge = getattr(layers, _kind)
    case(between(lambda a, b, m=_merge: m()([a, b])), name=f"merge_{_kind}")
    case(between(lambda a, b, m=_merge: m()([b, a])), name=f"merge_{_kind}_swapped")

    @case(name=f"merge_{_kind}_wide_and_narrow")
    def wide_and_narrow(merge=_merge):
        # A map with a vector, and a map with a map of one channel.
        x = keras.Input((3, 4, 5))
        a = L0Dense(6, "relu")(x)
        b = L0Dense(6, "tanh")(layers.GlobalMaxPooling2D(keepdims=True)(x))
        c = L0Gate()(layers.Dense(1)(x))
        h = merge()([merge()([a, b]), c])
        return keras.Model(x, layers.Dense(3)(h))

    for _dead in "ab":

        @case(name=f"merge_{_kind}_dead_{_dead}", dead=(_dead,), alive=False)
        def dead_operand(merge=_merge):
            x = keras.Input((4, 5))
            a = L0Dense(6, "relu", name="a")(x)
            b = L0Dense(6, "tanh", name="b")(
                layers.GlobalMaxPooling1D(keepdims=True)(x)
            )
            return keras.Model(x, layers.Dense(3)(merge()([a, b])))


@case
def merge_ranks():
    x = keras.Input((4, 5))
    a = L0Dense(6, "relu")(x)
    b = L0Dense(6)(layers.GlobalMaxPooling1D()(x))
    return keras.Model(x, layers.Dense(2)(layers.Multiply()([a, b])))


@case
def merge_three():
    x = keras.Input((5,))
    h = [L0Dense(7, f)(x) for f in ("relu", "tanh", "sigmoid")]
    merges = (layers.Average(), layers.Multiply(), layers.Maximum(), layers.Minimum())
    return keras.Model(x, [layers.Dense(2)(merge(h)) for merge in merges])


@case(dead=("b",))
def merge_average_without_one():
    x = keras.Input((5,))
    h = [
        L0Dense(7, f, name=n)(x)
        for f, n in (("relu", "a"), ("tanh", "b"), ("elu", "c"))
    ]
    return keras.Model(x, layers.Dense(2)(layers.Average()(h)))


@case(dead=("b",))
def merge_subtract_without_second():
    x = keras.Input((5,))
    h = [L0Dense(7, f, name=n)(x) for f, n in (("relu", "a"), ("tanh", "b"))]
    return keras.Model(x, layers.Dense(2)(layers.Subtract()(h)))


@case(dead=("b",))
def merge_broadcast_without_map():
    # The branch that is 0 gives the sum its shape.
    x = keras.Input((4, 5))
    a = L0Dense(6, "relu")(layers.GlobalMaxPooling1D(keepdims=True)(x))
    h = layers.Add()([a, L0Dense(6, name="b")(x)])
    return keras.Model(x, layers.Dense(3)(h))


@case
def merge_masked():
    x = keras.Input((4,), dtype="int32")
    a = L0Gate()(layers.Embedding(5, 6, mask_zero=True)(x))
    b = L0Gate()(layers.Embedding(5, 6)(x))
    return keras.Model(x, layers.Dense(2)(layers.Maximum()([a, b])))


for _normalize in (False, True):

    @case(name=f"dot_normalize_{_normalize}")
    def dot(normalize=_normalize):
        x = keras.Input((4, 5))
        a, b = L0Dense(8, "relu")(x), odd(8)(x)
        vectors = [layers.GlobalMaxPooling1D()(h) for h in (a, b)]
        one = layers.Dot(1, normalize=normalize)(vectors)
        two = layers.Dot((2, 2), normalize=normalize)([a, b])
        return keras.Model(x, [one, layers.Dense(2)(two)])


@case
def dot_positions():
    x = keras.Input((4, 5))
    a, b = L0Dense(6, "relu")(x), L0Dense(6)(x)
    return keras.Model(x, layers.Dense(2)(layers.Dot(1)([a, b])))


case(between(lambda a, b: layers.Concatenate(axis=1)([a, b])), name="join_positions")
case(
    between(lambda a, b: layers.Concatenate(axis=1)([b, b])),
    name="join_equal_constants",
)


def squeeze_excite(activation="sigmoid", raw=False):
    x = keras.Input((6, 6, 3))
    h = L0Conv2D(8, 3, padding="same", activation="relu")(x)
    s = layers.GlobalAveragePooling2D()(h)
    s = ops.reshape(s, (-1, 1, 1, 8)) if raw else layers.Reshape((1, 1, 8))(s)
    s = L0Conv2D(4, 1, activation="relu")(s)
    s = layers.Conv2D(8, 1, activation=activation)(s)
    h = h * s if raw else layers.Multiply()([h, s])
    h = layers.Conv2D(4, 3, padding="same")(h)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))


case(squeeze_excite)
case(lambda: squeeze_excite(raw=True), name="squeeze_excite_raw")


# Moves

for _name, _move in {
    "permute": lambda a, b: layers.Permute((2, 1))(layers.Permute((2, 1))(a + b)),
    "permuted": lambda a, b: layers.Permute((2, 1))(a),
    "transpose": lambda a, b: ops.transpose(ops.transpose(b, (0, 2, 1)), (0, 2, 1)),
    "moveaxis": lambda a, b: ops.moveaxis(ops.moveaxis(b, 1, 2), 2, 1),
    "swapaxes": lambda a, b: ops.swapaxes(ops.swapaxes(b, 1, 2), 1, -1),
    "expand_squeeze": lambda a, b: ops.squeeze(ops.expand_dims(b, 1), 1) + a,
    "squeeze_all": lambda a, b: ops.squeeze(ops.expand_dims(b, (1, -1)), (1, 4)),
    "reshape": lambda a, b: ops.reshape(b, (-1, 6)),
    "reshape_flat": lambda a, b: ops.reshape(b, (-1, 24)),
    "reshape_behind": lambda a, b: ops.reshape(b, (-1, 4, 6, 1)),
    "reshape_splits": lambda a, b: ops.reshape(b, (-1, 8, 3)),
    "last": lambda a, b: [a[:, -1], b[:, 1:3], b[:, 0, :]],
    "ranges": lambda a, b: [b[..., 1:4], a[:, :, 2:], b[:, None, ::2, ::-1]],
    "one_channel": lambda a, b: a[:, :, 2],
    "take": lambda a, b: [ops.take(b, [0, 3], axis=1), ops.take(b, [5, 1, 1], axis=2)],
    "flip": lambda a, b: [ops.flip(b, axis=1), ops.flip(b, axis=(1, 2))],
    "roll": lambda a, b: [ops.roll(b, 1, axis=1), ops.roll(a, 1, axis=2)],
    "repeat": lambda a, b: [ops.repeat(b, 2, axis=1), ops.repeat(b, 2, axis=2)],
    "tile": lambda a, b: [ops.tile(b, (1, 2, 1)), ops.tile(b, (1, 1, 2))],
    "split": lambda a, b: [*ops.split(b, 2, axis=-1), *ops.split(a, [1, 4], axis=2)],
    "split_positions": lambda a, b: ops.split(b, 2, axis=1),
    "split_nothing": lambda a, b: ops.split(b, [6], axis=-1)[0],
    "pad": lambda a, b: [ops.pad(h, ((0, 0), (1, 2), (0, 0))) for h in (a, b)],
    "pad_number": lambda a, b: ops.pad(
        a, ((0, 0), (1, 2), (0, 0)), constant_values=0.3
    ),
    "pad_reflect": lambda a, b: ops.pad(b, ((0, 0), (1, 2), (0, 0)), mode="reflect"),
    "pad_channels": lambda a, b: ops.pad(b, ((0, 0), (0, 0), (0, 1))),
    "stack": lambda a, b: [ops.stack([a, b], axis=1), ops.stack([b, b], axis=2)],
    "stack_behind": lambda a, b: ops.squeeze(ops.stack([b, b], axis=-1)[..., :1], -1),
    "concatenate": lambda a, b: ops.concatenate([a, b], axis=-1),
    "concatenate_positions": lambda a, b: ops.concatenate([a, b], axis=1),
    "reductions": lambda a, b: [
        ops.mean(b, axis=1), ops.max(b, axis=1, keepdims=True), ops.sum(b, axis=1),
        ops.min(b, axis=1), ops.amax(a, axis=1), ops.amin(a, axis=1),
    ],
    "spread": lambda a, b: [ops.std(b, axis=1), ops.var(a + b, axis=1)],
    "reduced_channels": lambda a, b: [
        a * ops.mean(a, axis=-1, keepdims=True), b - ops.max(b, axis=2, keepdims=True),
    ],
}.items():  # fmt: skip
    case(between(_move), name=f"move_{_name}")


@case
def move_sum_of_unknown_length():
    x = keras.Input((None, 5))
    return keras.Model(x, layers.Dense(2)(ops.sum(odd()(x), axis=1)))


@case
def move_repeat_vector():
    x = keras.Input((5,))
    h = layers.RepeatVector(3)(odd()(x))
    return keras.Model(x, layers.Conv1D(2, 3, padding="same")(h))


@case(dead=("b",), alive=False)
def move_split_dead():
    x = keras.Input((5,))
    a, b = ops.split(layers.Dense(8)(x), 2, axis=-1)
    return keras.Model(x, layers.Dense(2)(L0Gate(name="a")(a) * L0Gate(name="b")(b)))


@case
def move_split_gated_part():
    x = keras.Input((4, 3))
    a, b = ops.split(layers.Dense(5, "relu")(x), 2, axis=1)
    c, d = ops.unstack(layers.Dense(5, "relu")(L0Gate()(a)), axis=1)
    return keras.Model(x, [layers.Dense(2)(h) for h in (b, c, L0Gate()(d))])


# Raw operations

UNARY = (
    "absolute arctan arcsinh ceil celu copy cos cosh deg2rad elu erf exp exp2 expm1 "
    "floor gelu hard_shrink hard_sigmoid hard_silu hard_tanh isfinite isinf isnan "
    "leaky_relu log_sigmoid nan_to_num negative relu relu6 round selu sigmoid sign "
    "silu sin sinc sinh soft_shrink softplus softsign sparse_plus sparse_sigmoid "
    "square squareplus stop_gradient tanh tanh_shrink trunc tan cbrt"
).split()
PARTIAL = "log log2 log10 log1p sqrt rsqrt reciprocal arccosh".split()
INSIDE = "arccos arcsin arctanh erfinv".split()
BINARY = (
    "divide equal greater greater_equal hypot less less_equal logaddexp "
    "logical_and logical_or logical_xor not_equal true_divide floor_divide mod "
    "divide_no_nan"
).split()
BINARY = [name for name in BINARY if hasattr(ops, name)]


def unary(names, prepare=lambda h: h):
    """All of these functions, one behind another branch of the same tensors."""

    def build():
        x = keras.Input((4, 5))
        results = []
        for name in names:
            if not hasattr(ops, name):
                continue
            function = getattr(ops, name)
            for h in (L0Dense(6, "tanh")(x), odd()(x)):
                y = ops.cast(function(prepare(h)), keras.config.floatx())
                results.append(y)
        h = layers.Concatenate()(results)
        return keras.Model(x, layers.Conv1D(3, 3, padding="same")(h))

    return build


for _index in range(0, len(UNARY), 8):
    case(unary(UNARY[_index : _index + 8]), name=f"unary_{UNARY[_index]}")
case(unary(PARTIAL, lambda h: ops.abs(h) + 1.1), name="unary_partial")
case(unary(INSIDE, lambda h: 0.9 * ops.tanh(h)), name="unary_inside")
case(unary(["sqrt"], lambda h: h * h), name="unary_at_zero")


@case
def binary():
    x = keras.Input((4, 5))
    a, b = L0Dense(6, "tanh")(x), odd()(x)
    results = [
        ops.cast(getattr(ops, name)(a, ops.abs(b) + 1.0), keras.config.floatx())
        for name in BINARY
    ]
    row = np.full(6, 0.7, a.dtype)
    results += [ops.cast(getattr(ops, n)(b, row), a.dtype) for n in BINARY]
    results += [ops.where(a > b, a, b), ops.logical_not(a > 0.0), a**2, 2.0**b]
    results += [ops.cast(h, "float32") for h in (a, b)]
    h = layers.Concatenate()([keras.ops.cast(h, a.dtype) for h in results])
    return keras.Model(x, layers.Conv1D(3, 3, padding="same")(h))


_row = np.linspace(-1, 2, 6)
_map = np.linspace(-1, 2, 24).reshape(4, 6)
for _name, _call in {
    "scalars": lambda a, b: 2.0 * a + 1.0 - b / 3.0,
    "from_scalars": lambda a, b: [1.0 - a, 1.0 / (ops.abs(b) + 1.0), a * 0.0 + b],
    "rows": lambda a, b: [
        a + _row, b * _row, ops.subtract(_row, a),
        b / (_row + 3),
    ],
    "maps": lambda a, b: [a + _map, b * _map, ops.maximum(a, _map), a * _map],
    "columns": lambda a, b: [a + _map[:, :1], b * _map[:, :1]],
    "extremes": lambda a, b: [
        ops.maximum(a, 0.0), ops.minimum(b, 0.3), ops.maximum(a, b),
        ops.minimum(a, b), ops.maximum(b, _row),
    ],
    "clip": lambda a, b: ops.clip(a, -0.5, 0.4) + ops.clip(b, 0.1, 6),
    "hard_swish": lambda a, b: a * (ops.relu6(a + 3.0) * (1.0 / 6.0)),
    "sums": lambda a, b: [ops.add(a, b), ops.subtract(a, b), ops.add(b, b)],
    "narrow": lambda a, b: [a * L0Gate()(b[:, :, :1]), b + L0Gate()(a[:, :, :1])],
    "one_to_many": lambda a, b: L0Gate()(a[:, :, :1]) * _row,
    "parametric": lambda a, b: keras.activations.relu(
        a, negative_slope=0.3
    ) + keras.activations.relu(b, max_value=1.0),
    "contractions": lambda a, b: [
        ops.matmul(a, ops.transpose(b, (0, 2, 1))), ops.einsum("btc,bsc->bts", a, b),
    ],
    "normalized": lambda a, b: [
        ops.softmax(a), ops.log_softmax(a), ops.normalize(b), ops.glu(a),
        ops.rms_normalization(a), ops.sparsemax(a),
    ],
    "ordered": lambda a, b: [
        ops.sort(a), ops.cumsum(a, axis=1), ops.cumprod(b, axis=1),
        ops.logsumexp(a, axis=(1,)), ops.prod(b, axis=1), ops.average(a, axis=1),
        ops.median(a, axis=1), ops.norm(b, axis=1),
    ],
}.items():  # fmt: skip
    case(between(_call), name=f"raw_{_name}")


@case
def raw_barriers():
    x = keras.Input((4, 5))
    a = L0Dense(6, "tanh")(x)
    tests = [a > 0.1, a > -0.1]
    counts = [ops.any(tests[0], axis=1), ops.all(tests[1], axis=1)]
    # Keras' argmax tells -0.0, which a closed gate may make, from 0.0.
    free = layers.Dense(6)(a)
    counts += [ops.argmax(free, axis=1), ops.argmin(free, axis=1)]
    counts.append(ops.argsort(free)[:, 0])
    counts.append(ops.count_nonzero(a, axis=1))
    counts.append(ops.tensordot(a, _map.T, axes=1)[:, 0])
    if hasattr(ops, "layer_normalization"):
        counts.append(ops.layer_normalization(a)[:, 0])
    h = ops.concatenate([ops.cast(c, a.dtype) for c in counts], axis=-1)
    return keras.Model(x, layers.Dense(3)(h))


@case(dead=("b",))
def raw_add_dead():
    x = keras.Input((4, 5))
    a, b = L0Dense(6, "relu", name="a")(x), L0Dense(6, name="b")(x)
    return keras.Model(x, layers.Dense(3)((a + b) * 2.0 - b))


@case
def raw_constant_meets_border():
    x = keras.Input((6, 6, 3))
    h = L0Conv2D(6, 3, activation="relu")(x) + 1.0
    h = layers.Conv2D(3, 3, padding="same")(h)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))


# Layers that keras.applications brings along


@case
def layer_scale_and_stochastic_depth():
    x = keras.Input((4, 6))
    h = layers.Dense(8)(x)
    y = L0Dense(9, "gelu")(layers.LayerNormalization()(h))
    y = StochasticDepth(0.3)(LayerScale(0.5, 8)(layers.Dense(8)(y)))
    gate = L0Gate()
    h = layers.Add()([gate(h), gate(y)])
    shared = LayerScale(0.5, 8)
    return keras.Model(x, layers.Dense(3)(shared(shared(h))))


@case(dead=("gone", "gone_too"))
def custom_scale():
    x = keras.Input((6, 6, 3))
    gate = L0Gate()
    h = gate(layers.Conv2D(8, 3, activation="relu")(x))
    for name in ("branch", "gone"):
        y = L0Conv2D(6, 3, padding="same", activation="relu", name=name)(h)
        y = gate(layers.Conv2D(8, 1, use_bias=name == "branch")(y))
        h = layers.ReLU()(CustomScaleLayer(0.3)([h, y]))
    bare = layers.Conv2D(4, 3, use_bias=False)(layers.Dense(5)(h))
    h = CustomScaleLayer(0.3)([L0Gate(name="gone_too")(bare), L0Conv2D(4, 3)(h)])
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))


class Centered(layers.Layer):
    """Without a rule, and not for sparse tensors."""

    def call(self, x):
        return x - ops.mean(x, axis=-1, keepdims=True)


@case
def scale_before_a_layer_of_the_user():
    return chain(L0Dense(6, "sigmoid"), Centered(), layers.Dense(3))
