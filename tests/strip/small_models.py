"""Small models, at least one for every rule of strip."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import pytest
from adversary import PRECISION, harden, policy
from keras import layers, ops

from keras_l0.layers import (
    L0GRU,
    L0Conv2D,
    L0Dense,
    L0Gate,
    L0SharedGate,
    L0Switch,
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, and what is known of it.

    ``dead``: layers all of whose gates close. ``alive``: the outputs then still vary.
    ``gated``: it has gates. ``first``: it needs channels_first convolutions.
    ``narrow``: TensorFlow's CPU kernels compute it in float32 only.
    """

    build: Callable[[], keras.Model]
    dead: tuple[str, ...] = ()
    alive: bool = True
    gated: bool = True
    first: bool = False
    narrow: bool = False

    @property
    def precision(self) -> str:
        return "float32" if self.narrow else PRECISION


CASES: dict[str, Case] = {}


def case(function=None, *, name=None, **facts):
    if function is None:
        return functools.partial(case, name=name, **facts)
    CASES[name or function.__name__] = Case(function, **facts)
    return function


@functools.cache
def hardened(name):
    """The case's model with adversarial weights; nobody may change it."""
    facts = CASES[name]
    if facts.first and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolutions on the CPU")
    with policy(facts.precision):
        return harden(facts.build(), facts.dead, facts.alive)


def is_core(name):
    """Whether a model is of this file, not one of a whole family of rules."""
    return CASES[name].build.__module__ == __name__


def spread(names):
    """What is tried of each core model, and of every third of the others.

    `make nightly` tries it of all.
    """
    others = [name for name in names if not is_core(name)]
    for name in names:
        usual = is_core(name) or others.index(name) % 3 == 0
        yield pytest.param(name, marks=[] if usual else [pytest.mark.thorough])


def operations(model):
    """Every operation in a model, those of nested models included."""
    for operation in model.operations if hasattr(model, "operations") else model.layers:
        yield operation
        if isinstance(operation, keras.Model):
            yield from operations(operation)


def chain(*members, shape=(6,), **kwargs):
    return keras.Sequential([keras.Input(shape, name="x"), *members], **kwargs)


def image(*members, shape=(6, 6, 3)):
    return chain(*members, shape=shape)


# Dense


@case
def dense_chain():
    return chain(
        L0Dense(9, "relu", name="a"), L0Dense(8, "tanh"), L0Dense(7), layers.Dense(3)
    )


@case
def dense_on_positions():
    return chain(L0Dense(6, "relu"), layers.Dense(5), layers.Flatten(), layers.Dense(2),
                 shape=(4, 6))  # fmt: skip


@case
def dense_unknown_length():
    return chain(L0Dense(6, "relu"), layers.Dense(5), shape=(None, 4))


@case
def gated_inputs():
    return chain(L0Gate(), L0Dense(8, "relu"), layers.Dense(3), shape=(9,))


@case
def gated_outputs():
    return chain(L0Dense(8, "relu"), L0Dense(6, "sigmoid"))


@case
def gate_last():
    return chain(layers.Dense(6), layers.BatchNormalization(), layers.ReLU(), L0Gate())


@case
def gates_shared_by_places():
    x = keras.Input((4,))
    z = L0SharedGate(6)(x)
    a = L0Switch()(layers.Dense(6, "tanh")(x), z)
    b = L0Switch(indices=[5, 0, 0, 3])(layers.Dense(4, "relu")(a), z)
    return keras.Model(x, layers.Dense(3)(layers.Concatenate()([a, b])))


@case
def gates_shared_by_positions():
    x = keras.Input((4, 5))
    z = L0SharedGate(4)(x)
    a = L0Switch(axis=1)(layers.Dense(6, "tanh")(x), z)
    b = L0Switch()(layers.Dense(4)(a), z)
    c = L0Switch(axis=1, indices=[3, 0, 0, 1])(layers.BatchNormalization()(b), z)
    return keras.Model(x, layers.Dense(3)(layers.Concatenate()([a, c])))


@case
def gate_only():
    return chain(L0Gate())


@case
def gate_twice_in_a_row():
    return chain(layers.Dense(9, "relu"), L0Gate(), L0Gate(), layers.Dense(2))


@case
def folded_without_bias():
    # The constant behind the BatchNormalization makes the bias of a layer without one.
    return chain(
        layers.Dense(8, use_bias=False), L0Gate(), layers.BatchNormalization(),
        L0Dense(7, use_bias=False), layers.Dense(3, use_bias=False),
    )  # fmt: skip


@case
def nothing_gated_in_softmax():
    return chain(L0Dense(8, "relu"), layers.Dense(5, "softmax"))


# Convolutions

for _name, _arguments in {
    "valid": {},
    "same": {"padding": "same"},
    "strides_valid": {"strides": 2},
    "strides_same": {"strides": 2, "padding": "same"},
    "dilation_valid": {"dilation_rate": 2},
    "dilation_same": {"dilation_rate": 2, "padding": "same"},
    "no_bias": {"use_bias": False},
    "oblong": {"kernel_size": (3, 1), "padding": "same"},
    "1x1_same_strides": {"kernel_size": 1, "strides": 2, "padding": "same"},
}.items():

    @case(name=f"conv_{_name}")
    def conv(arguments=_arguments):
        arguments = {"kernel_size": 3, **arguments}
        return image(
            L0Conv2D(6, 3, padding="same", activation="relu"),
            L0Conv2D(5, **arguments, activation="tanh"),
            layers.Flatten(),
            layers.Dense(2),
            shape=(7, 7, 3),
        )

    @case(name=f"constants_into_conv_{_name}")
    def constants_into_conv(arguments=_arguments):
        # A gate before BatchNormalization leaves a constant that is not 0.
        arguments = {"kernel_size": 3, **arguments}
        return image(
            layers.Conv2D(6, 3, padding="same"), L0Gate(), layers.BatchNormalization(),
            layers.Conv2D(5, **arguments), layers.GlobalAveragePooling2D(),
            shape=(7, 7, 3),
        )  # fmt: skip


@case
def conv_grouped():
    return image(
        L0Conv2D(6, 3, activation="relu"), layers.Conv2D(4, 3, groups=2),
        L0Conv2D(6, 1, groups=2), layers.Flatten(), layers.Dense(2),
    )  # fmt: skip


@case
def conv_batchnorm_relu_gate():
    return image(
        layers.Conv2D(6, 3, padding="same"), layers.BatchNormalization(), layers.ReLU(),
        L0Gate(), layers.Conv2D(4, 3, padding="same"), layers.GlobalMaxPooling2D(),
    )  # fmt: skip


@case
def lenet():
    return image(
        L0Conv2D(6, 3, activation="relu"), layers.MaxPooling2D(),
        L0Conv2D(6, 2, activation="relu"), layers.MaxPooling2D(1),
        layers.Flatten(), L0Gate(), layers.Dropout(0.3),
        L0Dense(9, "relu"), layers.Dense(4, "softmax"),
        shape=(8, 8, 1),
    )  # fmt: skip


@case(first=True)
def conv_channels_first():
    first = {"data_format": "channels_first"}
    return image(
        L0Conv2D(6, 3, padding="same", activation="relu", **first),
        layers.MaxPooling2D(2, **first),
        layers.BatchNormalization(axis=1),
        L0Conv2D(5, 2, activation="sigmoid", **first),
        layers.AveragePooling2D(2, **first),
        layers.Flatten(**first),
        layers.Dense(2),
        shape=(3, 8, 8),
    )


@case(first=True)
def channels_first_into_dense():
    first = {"data_format": "channels_first"}
    return image(
        L0Conv2D(6, 3, activation="relu", **first), layers.Dense(3),
        layers.GlobalAveragePooling2D(**first), shape=(3, 6, 6),
    )  # fmt: skip


# Pooling

for _rank, _shape in ((1, (8, 6)), (2, (6, 6, 6)), (3, (4, 4, 4, 6))):
    for _kind in ("MaxPooling", "AveragePooling"):

        @case(name=f"{_kind}{_rank}D", narrow=_rank == 3)
        def pooling(kind=f"{_kind}{_rank}D", shape=_shape):
            pool = getattr(layers, kind)
            return chain(
                L0Dense(6, "relu"), pool(2), pool(2, strides=1, padding="same"),
                layers.Flatten(), layers.Dense(2), shape=shape,
            )  # fmt: skip

        @case(name=f"Global{_kind}{_rank}D")
        def global_pooling(kind=f"Global{_kind}{_rank}D", shape=_shape):
            pool = getattr(layers, kind)
            x = keras.Input(shape)
            h = L0Dense(9, "sigmoid")(x)
            kept = layers.Flatten()(pool(keepdims=True)(h))
            return keras.Model(
                x, layers.Dense(2)(layers.Concatenate()([pool()(h), kept]))
            )


@case
def pooling_channels_first():
    first = {"data_format": "channels_first"}
    return chain(
        L0Gate(axis=1), layers.GlobalAveragePooling2D(**first), layers.Dense(2),
        shape=(6, 4, 4),
    )  # fmt: skip


# Shapes


@case
def flatten_channels_first():
    return chain(
        L0Dense(6, "relu"), layers.Flatten(data_format="channels_first"),
        L0Dense(8, "relu"), layers.Dense(2), shape=(3, 2, 5),
    )  # fmt: skip


@case
def flatten_vector():
    return chain(L0Dense(8, "relu"), layers.Flatten(), layers.Dense(2))


@case
def flatten_unknown_size():
    x = keras.Input((None, 4))
    h = L0Dense(6, "relu")(x)
    return keras.Model(x, layers.GlobalMaxPooling1D()(layers.Dense(3)(h)))


@case
def gate_behind_flatten():
    return image(layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), L0Gate(),
                 layers.Dense(3))  # fmt: skip


@case
def reshape_positions():
    return chain(
        L0Dense(6, "relu"), layers.Reshape((-1, 6)), layers.Dense(4),
        layers.Reshape((2, 3, 4)), layers.Dense(2), shape=(2, 3, 5),
    )  # fmt: skip


@case
def reshape_to_vector():
    return chain(L0Dense(6, "relu"), layers.Reshape((24,)), L0Dense(7), layers.Dense(3),
                 shape=(4, 5))  # fmt: skip


@case
def reshape_splits_channels():
    return chain(L0Dense(12, "relu"), layers.Reshape((3, 4)), layers.Dense(2),
                 layers.Reshape((6, 1)), layers.Dense(2))  # fmt: skip


@case
def reshape_to_scalar():
    return chain(L0Dense(6, "relu"), layers.Dense(1), layers.Reshape(()))


@case
def reshape_shared():
    x, y = keras.Input((6,)), keras.Input((6,))
    reshape = layers.Reshape((2, 3))
    a, b = L0Dense(6, "relu")(x), L0Dense(6)(y)
    return keras.Model([x, y], layers.Add()([reshape(a), reshape(b)]))


# BatchNormalization

for _scale in (True, False):
    for _center in (True, False):

        @case(name=f"batchnorm_scale_{_scale}_center_{_center}")
        def batchnorm(scale=_scale, center=_center):
            norm = functools.partial(
                layers.BatchNormalization, scale=scale, center=center, epsilon=0.01
            )
            return chain(
                layers.Dense(9), L0Gate(name="before"), norm(), layers.ReLU(),
                layers.Dense(9), norm(), layers.ReLU(), L0Gate(name="after"),
                L0Dense(9, "relu", use_bias=False), norm(), layers.Dense(3),
            )  # fmt: skip


@case
def batchnorm_behind_an_absorbed_gate():
    # The first normalization absorbs the gate; the second makes constants of 0.
    return chain(
        layers.Dense(9), layers.BatchNormalization(), layers.ReLU(), L0Gate(),
        layers.BatchNormalization(), layers.ReLU(), layers.Dense(3),
    )  # fmt: skip


@case
def batchnorm_other_axis():
    return chain(L0Dense(6, "relu"), layers.BatchNormalization(axis=1),
                 layers.Dense(2), shape=(3, 4))  # fmt: skip


@case
def batchnorm_shared():
    x = keras.Input((6,))
    norm = layers.BatchNormalization()
    h = norm(L0Dense(6, "relu")(x))
    return keras.Model(x, layers.Dense(2)(norm(L0Dense(6, "relu")(h))))


@case
def batchnorm_last():
    return chain(L0Dense(8, "relu"), layers.BatchNormalization())


@case
def batchnorm_first():
    return chain(L0Gate(), layers.BatchNormalization(), layers.Dense(3))


# Activations

BARRIERS = ("softmax", "log_softmax", "sparsemax")
ACTIVATIONS = sorted(
    {
        function.__name__
        for name in dir(keras.activations)
        if callable(function := getattr(keras.activations, name))
        # Keras infers a wrong shape behind glu; threshold needs arguments.
        and name not in ("get", "serialize", "deserialize", "threshold", "glu")
    }
)

for _activation in ACTIVATIONS:

    @case(name=f"activation_{_activation}")
    def activation(name=_activation):
        # Behind a gate, as an argument with a gate behind, and behind a constant.
        function = getattr(keras.activations, name)
        first = [layers.Dense(8), L0Gate(), layers.Activation(function)]
        if name in ("exponential", *BARRIERS):
            return chain(*first, layers.Dense(3))
        return chain(
            *first, L0Dense(8, function), layers.Activation(function), layers.Dense(3)
        )


for _name, _layer in {
    "ReLU": lambda: layers.ReLU(),
    "ReLU_odd": lambda: layers.ReLU(max_value=1.5, negative_slope=0.2, threshold=0.3),
    "ReLU_slope": lambda: layers.ReLU(negative_slope=0.4),
    "ReLU_cap": lambda: layers.ReLU(max_value=0.8),
    "LeakyReLU": lambda: layers.LeakyReLU(),
    "LeakyReLU_steep": lambda: layers.LeakyReLU(negative_slope=1.7),
    "ELU": lambda: layers.ELU(),
    "ELU_odd": lambda: layers.ELU(alpha=0.3),
    "Identity": lambda: layers.Identity(),
    "Dropout": lambda: layers.Dropout(0.4),
    "GaussianDropout": lambda: layers.GaussianDropout(0.4),
    "GaussianNoise": lambda: layers.GaussianNoise(0.4),
    "AlphaDropout": lambda: layers.AlphaDropout(0.4),
    "ActivityRegularization": lambda: layers.ActivityRegularization(0.1),
    "PReLU": lambda: layers.PReLU(alpha_initializer="ones"),
    "LayerNormalization": lambda: layers.LayerNormalization(),
}.items():

    @case(name=f"layer_{_name}")
    def elementwise(make=_layer):
        return chain(
            layers.Dense(8), L0Gate(), make(), layers.BatchNormalization(), make(),
            L0Gate(), layers.Dense(8), L0Gate(), layers.BatchNormalization(), make(),
            layers.Dense(3),
        )  # fmt: skip


@case
def layer_Softmax():
    return chain(layers.Dense(8), L0Gate(), layers.Softmax(), layers.Dense(3))


for _rank in (1, 2, 3):

    @case(name=f"SpatialDropout{_rank}D")
    def spatial_dropout(rank=_rank):
        drop = getattr(layers, f"SpatialDropout{rank}D")
        return chain(L0Dense(6, "relu"), drop(0.5), layers.Dense(2),
                     shape=(*[2] * rank, 4))  # fmt: skip


# Merges


@case
def add_two():
    x = keras.Input((6,))
    a, b = L0Dense(9, "relu")(x), L0Dense(9, "tanh")(x)
    return keras.Model(x, layers.Dense(3)(layers.Add()([a, b])))


@case
def add_three():
    x = keras.Input((6,))
    branches = [L0Dense(9, f)(x) for f in ("relu", "tanh", "sigmoid")]
    return keras.Model(x, layers.Dense(3)(layers.Add()(branches)))


@case
def add_same_tensor():
    x = keras.Input((6,))
    h = L0Dense(9, "relu")(x)
    return keras.Model(x, layers.Dense(3)(layers.Add()([h, h])))


@case
def add_constants():
    x = keras.Input((6,))
    a = layers.BatchNormalization()(L0Dense(9, "relu")(x))
    b = layers.BatchNormalization()(L0Dense(9, "relu")(x))
    return keras.Model(x, layers.Dense(3)(layers.Add()([a, b])))


@case(dead=("b",))
def add_dead_branch():
    x = keras.Input((6,))
    a, b = L0Dense(9, "relu")(x), L0Dense(9, name="b")(L0Dense(5)(x))
    return keras.Model(x, layers.Dense(3)(layers.Add()([a, b])))


@case(dead=("b",))
def add_constant_branch():
    x = keras.Input((6,))
    a = L0Dense(9, "relu")(x)
    b = layers.BatchNormalization()(L0Dense(9, name="b")(x))
    return keras.Model(x, layers.Dense(3)(layers.Add()([a, b])))


@case(dead=("a", "b"), alive=False)
def add_dead_branches():
    x = keras.Input((6,))
    a, b = L0Dense(9, "relu", name="a")(x), L0Dense(9, name="b")(x)
    return keras.Model(x, layers.Dense(3)(layers.Add()([a, b])))


@case
def add_broadcasts():
    x = keras.Input((4, 6))
    a, b = L0Dense(9, "relu")(x), L0Dense(1)(x)
    pooled = layers.GlobalMaxPooling1D(keepdims=True)(a)
    return keras.Model(
        x, [layers.Add()([a, b]), layers.Dense(2)(layers.Add()([a, pooled]))]
    )


@case
def add_ranks():
    x = keras.Input((4, 6))
    a = L0Dense(6, "relu")(x)
    b = L0Dense(6)(layers.GlobalMaxPooling1D()(a))
    return keras.Model(x, layers.Add()([layers.GlobalMaxPooling1D()(a), b]))


@case
def concatenate():
    x = keras.Input((6,))
    a, b = L0Dense(6, "relu")(x), L0Dense(8, "sigmoid")(x)
    return keras.Model(x, layers.Dense(3)(layers.Concatenate()([a, x, b, a])))


@case(dead=("b",))
def concatenate_dead_branch():
    x = keras.Input((6,))
    a, b = L0Dense(6, "relu")(x), L0Dense(8, "relu", name="b")(x)
    return keras.Model(x, layers.Dense(3)(layers.Concatenate()([a, b])))


@case(dead=("a", "b"), alive=False)
def concatenate_dead_branches():
    x = keras.Input((6,))
    a, b = L0Dense(6, "relu", name="a")(x), L0Dense(8, "relu", name="b")(x)
    return keras.Model(x, layers.Dense(3)(layers.Concatenate()([a, b])))


@case
def concatenate_positions():
    x = keras.Input((4, 5))
    a, b = L0Dense(6, "relu")(x), L0Dense(6)(x)
    return keras.Model(x, layers.Dense(3)(layers.Concatenate(axis=1)([a, b])))


@case
def inception():
    x = keras.Input((6, 6, 3))
    a = L0Conv2D(4, 1, activation="relu")(x)
    b = L0Conv2D(4, 3, padding="same", activation="tanh")(a)
    c = layers.MaxPooling2D(3, strides=1, padding="same")(a)
    h = layers.BatchNormalization()(layers.Concatenate()([a, b, c]))
    h = L0Conv2D(5, 3, padding="same")(h)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))


def residual(dead=()):
    x = keras.Input((6, 6, 3))
    h = layers.Conv2D(6, 3, padding="same", name="stem")(x)
    for block in "ab":
        y = L0Conv2D(5, 3, padding="same", activation="relu", name=f"{block}1")(h)
        y = layers.Conv2D(6, 3, padding="same", name=f"{block}2")(y)
        y = layers.BatchNormalization()(y)
        y = L0Gate(name=f"{block}3")(y)
        h = layers.ReLU()(layers.Add()([h, y]))
    h = layers.GlobalAveragePooling2D()(L0Gate(name="top")(h))
    return keras.Model(x, layers.Dense(2)(h))


case(residual)
case(residual, name="residual_dead_inside", dead=("a1",))
case(residual, name="residual_dead_end", dead=("b3",))
case(residual, name="residual_dead_all", dead=("a3", "b1", "b3"))
case(residual, name="residual_dead_top", dead=("top",), alive=False)


# Several inputs and outputs


@case
def two_inputs_two_outputs():
    a, b = keras.Input((4,), name="left"), keras.Input((3, 2), name="right")
    h = layers.Concatenate()([L0Dense(6, "relu")(a), layers.Flatten()(L0Gate()(b))])
    h = L0Dense(8, "relu")(h)
    return keras.Model(
        [a, b], [layers.Dense(2, name="one")(h), L0Dense(5, name="two")(h)]
    )


@case
def dictionaries():
    a, b = keras.Input((4,), name="z_in"), keras.Input((5,), name="a_in")
    h = layers.Add()([L0Dense(8, "relu")(a), L0Dense(8)(b)])
    outputs = {"y": layers.Dense(2)(h), "b": L0Dense(4, name="gated")(h), "h": h}
    return keras.Model({"z_in": a, "a_in": b}, outputs)


@case
def nested_structure():
    a, b = keras.Input((4,)), keras.Input((5,))
    h = layers.Concatenate()([L0Dense(6, "relu")(a), L0Dense(6)(b)])
    return keras.Model([a, {"b": b}], (layers.Dense(1)(h), [L0Gate()(h)]))


@case
def output_inside():
    x = keras.Input((5,))
    h = L0Dense(7, "relu", name="h")(x)
    return keras.Model(x, [h, layers.Dense(3)(L0Gate()(h)), x, h])


@case
def integer_inputs():
    x = keras.Input((4,), dtype="int32")
    h = layers.Flatten()(L0Dense(6, "relu")(layers.Embedding(5, 3)(x)))
    return keras.Model(x, layers.Dense(2)(h))


@case
def fixed_batch():
    x = keras.Input(batch_shape=(48, 4))
    h = L0Dense(6, "relu")(x)
    return keras.Model(x, layers.Dense(2)(h))


# Nested and shared


@case
def nested_model():
    x = keras.Input((5,))
    inner = chain(
        L0Dense(7, "relu", name="one"), layers.Dense(6, name="two"), name="in"
    )
    h = L0Dense(6, "relu", name="one_outside")(x)
    return keras.Model(x, layers.Dense(2)(inner(h)))


@case
def nested_same_names():
    x = keras.Input((5,))
    inner = chain(
        L0Dense(16, "tanh", name="dense"), L0Gate(name="g"), shape=(6,), name="in"
    )
    h = L0Dense(6, "relu", name="dense")(x)
    return keras.Model(x, layers.Dense(2, name="in_dense_1")(inner(h)))


@case
def nested_with_open_sizes():
    """A pretrained network without its top knows no sizes; what calls it does."""
    inner = chain(
        L0Conv2D(6, 3, 2, "same", activation="relu"),
        layers.BatchNormalization(),
        L0Conv2D(5, 2),
        layers.MaxPooling2D(),
        shape=(None, None, 3),
        name="inner",
    )
    x = keras.Input((12, 10, 3))
    return keras.Model(x, layers.Dense(2)(layers.GlobalMaxPooling2D()(inner(x))))


@case
def nested_model_twice():
    x, y = keras.Input((6,)), keras.Input((6,))
    inner = chain(L0Dense(7, "relu"), L0Gate(), layers.Dense(6), name="inner")
    return keras.Model([x, y], layers.Add()([inner(L0Gate()(x)), inner(y)]))


@case
def nested_in_nested():
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    core = chain(
        L0Dense(5, "relu"), layers.BatchNormalization(), shape=(5,), name="core"
    )
    middle = keras.Model({"a": a, "b": b}, [core(a), L0Dense(4)(layers.Add()([a, b]))])
    x = keras.Input((5,))
    one, two = middle({"b": L0Dense(5)(x), "a": x})
    return keras.Model(x, layers.Dense(2)(layers.Concatenate()([one, two])))


@case
def shared_layers():
    x, y = keras.Input((6,)), keras.Input((6,))
    dense, gated = layers.Dense(6, "relu"), L0Dense(7, "tanh")
    outputs = [gated(dense(dense(x))), gated(dense(L0Dense(6)(y)))]
    return keras.Model([x, y], layers.Dense(2)(layers.Concatenate()(outputs)))


@case
def shared_gate():
    x = keras.Input((6,))
    gate = L0Gate()
    a, b = gate(layers.Dense(8, "relu")(x)), gate(layers.Dense(8, "tanh")(x))
    return keras.Model(x, layers.Dense(3)(layers.Concatenate()([a, b])))


@case
def shared_layer_and_its_namesake():
    # A third layer has the name that the second call would get.
    x = keras.Input((6,))
    relu = layers.ReLU(name="relu")
    a, b = relu(L0Dense(6)(x)), relu(L0Dense(6)(x))
    b = layers.ReLU(negative_slope=0.1, name="relu_1")(b)
    return keras.Model(x, layers.Dense(2)(layers.Add()([a, b])))


@case(dead=("b",))
def shared_first_call_dead():
    x = keras.Input((6,))
    relu = layers.ReLU(name="relu")
    a = relu(L0Dense(6, name="c")(x))
    a = L0Gate(name="b")(a)
    b = layers.ReLU(negative_slope=0.1, name="relu_1")(relu(L0Dense(6, name="d")(x)))
    return keras.Model(x, layers.Dense(2)(layers.Add()([a, b])))


# Gates on positions


@case
def gate_on_positions():
    return image(
        L0Conv2D(6, 3, activation="relu"), L0Gate(axis=(1, 2)),
        L0Conv2D(5, 3, padding="same"), layers.Flatten(), layers.Dense(2),
    )  # fmt: skip


@case
def gate_on_pixels():
    return image(L0Gate(axis=(1, 2)), L0Conv2D(5, 3), layers.Flatten(), layers.Dense(2))


@case
def gate_on_everything():
    return image(layers.Conv2D(6, 3), layers.BatchNormalization(), L0Gate(),
                 L0Gate(axis=(1, 2, 3)), layers.Conv2D(5, 3), layers.Flatten(),
                 layers.Dense(2))  # fmt: skip


@case
def gate_on_positions_behind_constants():
    return image(
        layers.Conv2D(6, 3), L0Gate(), layers.BatchNormalization(), L0Gate(axis=1),
        layers.Conv2D(5, 3), layers.Flatten(), layers.Dense(2),
    )  # fmt: skip


@case
def gates_on_positions_last():
    # A unit's scale waits behind the recurrence, for a gate that is an output.
    x = keras.Input((6, 3))
    y = layers.Bidirectional(L0GRU(4, return_sequences=True), merge_mode=None)(x)
    return keras.Model(x, [L0Gate(axis=1)(y[0]), L0Gate(axis=(1, 2))(y[1])])


# Whole-dead layers


@case(dead=("b",), alive=False)
def dead_dense():
    return chain(L0Dense(8, "relu"), L0Dense(7, "sigmoid", name="b"), layers.Dense(3))


@case(dead=("b",), alive=False)
def dead_input_gate():
    return chain(L0Gate(name="b"), L0Dense(7, "relu"), layers.Dense(3))


@case(dead=("b",), alive=False)
def dead_output():
    return chain(L0Dense(8, "relu"), L0Dense(3, "sigmoid", name="b"))


@case(dead=("b",), alive=False)
def dead_conv():
    return image(L0Conv2D(5, 3, name="b"), layers.ReLU(), layers.Conv2D(4, 3),
                 layers.Flatten(), layers.Dense(3))  # fmt: skip


@case(dead=("b",), alive=False)
def dead_before_same_padding():
    # The constant meets a border: what follows varies by position.
    return image(
        layers.Conv2D(5, 3), L0Gate(name="b"), layers.BatchNormalization(),
        layers.Conv2D(4, 3, padding="same"), layers.ReLU(),
        layers.Conv2D(4, 3, padding="same"), layers.Flatten(), layers.Dense(3),
    )  # fmt: skip


# Barriers


@case
def raw_operations():
    x = keras.Input((6,))
    h = ops.relu(L0Dense(8)(x)) * 2.0 + 1.0
    a, b = ops.split(h, 2, axis=-1)
    h = L0Dense(6, "relu")(ops.concatenate([a, ops.tanh(b), h[:, :3]], axis=-1))
    return keras.Model(x, ops.sum(layers.Dense(3)(h), axis=-1, keepdims=True))


@case
def attention():
    x = keras.Input((4, 6))
    h = L0Dense(6, "relu")(x)
    h = layers.MultiHeadAttention(2, 3)(query=h, value=L0Dense(5)(x), key=x)
    return keras.Model(x, layers.Dense(2)(h))


@case
def recurrent():
    x = keras.Input((4, 6))
    h, state = layers.GRU(5, return_sequences=True, return_state=True)(L0Dense(6)(x))
    return keras.Model(x, [L0Dense(4, "relu")(h), layers.Dense(2)(state)])


@case
def depthwise():
    return image(L0Conv2D(5, 3, activation="relu"), layers.DepthwiseConv2D(3),
                 L0Conv2D(4, 1), layers.ZeroPadding2D(), layers.Flatten(),
                 layers.Dense(2))  # fmt: skip


@case
def border_of_another_number():
    # What is closed is 0 inside of the border, and has to be there to get one.
    x = keras.Input((5, 4, 2))
    h = layers.Reshape((1, 40))(L0Gate()(x))
    h = keras.ops.pad(h, [(0, 0), (1, 1), (0, 0)], constant_values=0.5)
    return keras.Model(x, layers.Dense(4)(h))


# Without gates


@case(gated=False)
def plain_chain():
    return image(
        layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(),
        layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.2), layers.Dense(3),
    )  # fmt: skip


@case(gated=False)
def plain_graph():
    x = keras.Input((6,), name="x")
    h = layers.Dense(6, "relu", name="h")(x)
    h = layers.Add(name="sum")([h, x])
    return keras.Model(x, {"y": layers.Dense(2, "softmax", name="y")(h), "h": h})
