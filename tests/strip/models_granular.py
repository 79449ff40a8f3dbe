"""Models whose gates switch inputs, single weights or blocks of them."""

import keras
from keras import layers
from small_models import case

from keras_l0.layers import (
    L0Conv1D,
    L0Conv1DTranspose,
    L0Conv2D,
    L0Dense,
    L0EinsumDense,
    L0Gate,
)

GRAINS = {"inputs": "inputs", "weights": "weights", "blocks": (1, 4), "squares": (2, 2)}

for _name, _grain in GRAINS.items():

    @case(name=f"{_name}_dense")
    def dense(grain=_grain):
        x = keras.Input((6,))
        h = L0Dense(7, "relu", granularity=grain)(x)
        h = L0Dense(5, "sigmoid", use_bias=False, granularity=grain)(h)
        return keras.Model(x, layers.Dense(2)(h))

    @case(name=f"{_name}_across")
    def across(grain=_grain):
        # The channels of its input lie elsewhere.
        x = keras.Input((6, 4))
        h = layers.Permute((2, 1))(L0Gate()(layers.Dense(1)(x)))
        h = L0Dense(5, "relu", False, granularity=grain)(h)
        return keras.Model(x, layers.Dense(2)(h))

    @case(name=f"{_name}_output")
    def output(grain=_grain):
        x = keras.Input((6,))
        h = layers.Dense(5, "relu")(x)
        return keras.Model(x, L0Dense(3, "softmax", granularity=grain)(h))

    @case(name=f"{_name}_conv")
    def conv(grain=_grain):
        x = keras.Input((6, 5, 3))
        h = L0Conv2D(6, 3, activation="relu", padding="same", granularity=grain)(x)
        h = layers.BatchNormalization()(L0Gate()(h))
        h = L0Conv2D(5, (2, 3), padding="same", granularity=grain)(h)
        return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))

    @case(name=f"{_name}_padded")
    def padded(grain=_grain):
        # Units without an open weight meet padding.
        x = keras.Input((6, 5, 4))
        h = L0Conv2D(8, 3, activation="relu", padding="same", granularity=grain)(x)
        h = L0Conv2D(4, 3, activation="sigmoid", padding="same", granularity=grain)(h)
        h = layers.Conv2D(3, 3, padding="same")(h)
        return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(h)))

    @case(name=f"{_name}_transposed")
    def transposed(grain=_grain):
        x = keras.Input((6, 4))
        h = L0Conv1DTranspose(5, 3, activation="sigmoid", granularity=grain)(x)
        h = L0Conv1DTranspose(4, 3, strides=2, padding="same", granularity=grain)(h)
        return keras.Model(x, layers.Dense(2)(layers.GlobalMaxPooling1D()(h)))

    @case(name=f"{_name}_einsum")
    def einsum(grain=_grain):
        x = keras.Input((4, 3))
        h = L0Dense(6, "relu")(x)
        h = L0EinsumDense(
            "abc,cde->abde",
            (4, 2, 5),
            bias_axes="de",
            activation="tanh",
            granularity=grain,
        )(h)
        h = layers.Dense(3)(layers.Flatten()(h))
        h = L0EinsumDense("ab,cb->ac", 2, granularity=grain)(h)
        return keras.Model(x, h)

    @case(name=f"{_name}_fork")
    def fork(grain=_grain):
        # Others read the same channels, and the same sums.
        x = keras.Input((6,))
        h = layers.Dense(6, "relu")(x)
        a = L0Dense(5, "relu", granularity=grain)(h)
        b = L0Dense(5, "relu", granularity=grain)(h)
        return keras.Model(x, layers.Dense(2)(layers.Add()([a, b])))

    @case(name=f"{_name}_shared")
    def shared(grain=_grain):
        x, y = keras.Input((4,)), keras.Input((4,))
        layer = L0Dense(4, "relu", granularity=grain)
        h = layers.Add()([layer(x), layer(L0Dense(4)(y))])
        return keras.Model([x, y], layers.Dense(2)(h))

    @case(name=f"{_name}_dead", dead=("a",), alive=False)
    def dead(grain=_grain):
        x = keras.Input((5, 3))
        h = layers.Conv1D(4, 2, activation="relu")(x)
        h = L0Conv1D(4, 2, activation="sigmoid", name="a", granularity=grain)(h)
        return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))

    @case(name=f"{_name}_nested")
    def nested(grain=_grain):
        inner = keras.Sequential(
            [keras.Input((4,)), L0Dense(3, "relu", granularity=grain, name="a")]
        )
        x = keras.Input((4,))
        return keras.Model(x, layers.Dense(2)(inner(L0Dense(4, name="a")(x))))


@case
def weights_time_distributed():
    x = keras.Input((3, 4))
    h = layers.TimeDistributed(L0Dense(5, "relu", granularity="weights"))(x)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))


@case
def weights_of_an_equation_without_units():
    x = keras.Input((4, 3))
    h = L0EinsumDense("abc,bc->abc", (4, 3), granularity="weights")(x)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))
