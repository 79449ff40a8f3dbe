"""Random graphs out of ruled layers, random gates, random weights: never a mismatch.

``HYPOTHESIS_PROFILE=nightly`` tries thousands instead of a hundred and a half.
"""

import os

import keras
import numpy as np
from adversary import check, locations
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from keras import layers

import keras_l0
from keras_l0.layers import L0Conv2D, L0Dense, L0Gate

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
PROFILE = settings(
    max_examples=5000 if NIGHTLY else 150,
    derandomize=not NIGHTLY,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

FUNCTIONS = (None, "relu", "sigmoid", "leaky_relu", "softplus", "tanh", "softmax")
CLOSED = ("some", "some", "all", "one", "none")


class Grower:
    """Grows a graph: each move puts one layer on one of the tensors made so far."""

    def __init__(self):
        self.inputs = [keras.Input((4, 4, 2)), keras.Input((3,))]
        self.tensors = list(self.inputs)
        self.calls = {}
        self.story = []

    def move(self, pick, kind, a, b):
        x = self.tensors[-1 - pick % len(self.tensors)]
        moves = {2: self.on_vectors, 3: self.on_rows, 4: self.on_images}[len(x.shape)]
        name = moves[kind % len(moves)]
        try:
            made = getattr(self, name)(x, a, b)
        except LookupError:
            return  # Nothing to merge with.
        self.story.append((name, a, b, tuple(x.shape), tuple(made.shape)))
        self.tensors.append(made)

    everywhere = (
        "dense", "gated_dense", "gate", "gate", "batchnorm", "activation", "add",
        "concatenate", "shared", "leaky", "dropout", "flatten", "gate_twice",
    )  # fmt: skip
    on_vectors = everywhere + ("reshape",)
    on_rows = everywhere + ("pool_rows", "gate_positions", "flat_rows")
    on_images = everywhere + (
        "conv", "gated_conv", "pool", "global_pool", "gate_positions", "rows",
        "conv", "gated_conv",
    )  # fmt: skip

    def function(self, a):
        return FUNCTIONS[a % len(FUNCTIONS)]

    def dense(self, x, a, b):
        return layers.Dense(1 + b % 4, self.function(a), use_bias=a % 2 == 0)(x)

    def gated_dense(self, x, a, b):
        return L0Dense(1 + b % 4, self.function(a), use_bias=a % 2 == 0)(x)

    def conv(self, x, a, b, kind=layers.Conv2D):
        size = min(1 + b % 3, x.shape[1])
        return kind(
            1 + a % 4, size, activation=self.function(b), use_bias=a % 2 == 0,
            padding="valid" if b % 2 else "same", strides=1 + (a % 3 == 2),
        )(x)  # fmt: skip

    def gated_conv(self, x, a, b):
        return self.conv(x, a, b, L0Conv2D)

    def gate(self, x, a, b):
        return L0Gate()(x)

    def gate_twice(self, x, a, b):
        return self.once("gate", x, L0Gate)

    def gate_positions(self, x, a, b):
        return L0Gate(axis=1 if a % 2 else tuple(range(1, len(x.shape))))(x)

    def batchnorm(self, x, a, b):
        return layers.BatchNormalization(scale=a % 3 > 0, center=b % 3 > 0)(x)

    def activation(self, x, a, b):
        return layers.Activation(self.function(a))(x)

    def leaky(self, x, a, b):
        return layers.ReLU(
            max_value=1.5 if a % 2 else None,
            negative_slope=b % 3 / 5,
            threshold=a % 3 / 3,
        )(x)

    def dropout(self, x, a, b):
        return layers.Dropout(0.5)(x)

    def add(self, x, a, b):
        alike = [t for t in self.tensors if t.shape == x.shape]
        others = [alike[a % len(alike)], alike[b % len(alike)]][: 1 + a % 2]
        return layers.Add()([x, *others])

    def concatenate(self, x, a, b):
        alike = [t for t in self.tensors if t.shape[:-1] == x.shape[:-1]]
        return layers.Concatenate()([x, alike[a % len(alike)], alike[b % len(alike)]])

    def once(self, kind, x, make):
        key = (kind, x.shape[1:])
        if key not in self.calls:
            self.calls[key] = make()
        return self.calls[key](x)

    def shared(self, x, a, b):
        return self.once("dense", x, lambda: L0Dense(x.shape[-1], self.function(a)))

    def flatten(self, x, a, b):
        return layers.Flatten()(x)

    def reshape(self, x, a, b):
        size = x.shape[-1]
        return layers.Reshape((1, size) if a % 2 or size % 2 else (2, size // 2))(x)

    def flat_rows(self, x, a, b):
        return layers.Reshape((-1,))(x)

    def rows(self, x, a, b):
        return layers.Reshape((-1, x.shape[-1]))(x)

    def pool(self, x, a, b):
        kind = layers.MaxPooling2D if a % 2 else layers.AveragePooling2D
        return kind(min(2, x.shape[1]), 1 + b % 2, "same" if b % 3 else "valid")(x)

    def pool_rows(self, x, a, b):
        kind = (
            layers.MaxPooling1D, layers.AveragePooling1D,
            layers.GlobalMaxPooling1D, layers.GlobalAveragePooling1D,
        )[a % 4]  # fmt: skip
        return kind()(x) if a % 4 > 1 else kind(min(2, x.shape[1]))(x)

    def global_pool(self, x, a, b):
        kind = layers.GlobalMaxPooling2D if a % 2 else layers.GlobalAveragePooling2D
        return kind(keepdims=b % 2 == 0)(x)

    def model(self, ends):
        outputs = {0: self.tensors[-1]}
        for end in ends:
            position = end % len(self.tensors)
            outputs[position] = self.tensors[-1 - position]
        return keras.Model(self.inputs, list(outputs.values()))


def weigh(model, seed, closed):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name == "moving_variance":
            weight.assign(rng.uniform(0.3, 3, weight.shape))
        elif weight.name != "raw_log_alpha":
            weight.assign(rng.normal(size=weight.shape))
    for number, gate in enumerate(keras_l0.gates(model)):
        how = CLOSED[closed[number % len(closed)] % len(CLOSED)]
        values = locations(rng, gate.count)
        if how == "all":
            values[:] = -9
        elif how == "none":
            values[values < -2] = 0.5
        elif how == "one":
            values[:-1], values[-1] = -9, 0.7
        gate.assign_log_alpha(values.reshape(gate.raw.shape))


SMALL = st.integers(0, 19)


@PROFILE
@given(
    moves=st.lists(st.tuples(SMALL, SMALL, SMALL, SMALL), min_size=2, max_size=9),
    ends=st.lists(SMALL, max_size=2),
    closed=st.lists(SMALL, min_size=1, max_size=6),
    mode=st.sampled_from(["keep", "gather", "narrow"]),
    seed=st.integers(0, 99),
)
def test_no_graph_is_stripped_wrongly(moves, ends, closed, mode, seed):
    keras.backend.clear_session()
    grower = Grower()
    for move in moves:
        grower.move(*move)
    note(str(grower.story))
    model = grower.model(ends)
    weigh(model, seed, closed)
    note(str(keras_l0.plan(model, inputs=mode)))
    check(model, mode)
