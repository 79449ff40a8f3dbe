"""Moves of a `Grower`: normalizations, functions and merges."""

import numpy as np
from keras import layers, ops

UNARY = (
    "relu tanh sigmoid abs negative square sin cos erf softplus log_sigmoid silu gelu "
    "relu6 hard_silu arctan expm1 leaky_relu"
).split()
MERGES = ("Add", "Add", "Subtract", "Average", "Multiply", "Maximum", "Minimum")


class FunctionMoves:
    """Layers without kernels that leave positions where they are."""

    def batchnorm(self, x, r):
        scale, center = r.random() < 0.7, r.random() < 0.7
        return layers.BatchNormalization(scale=scale, center=center, epsilon=0.01)(x)

    def normalized(self, x, r):
        c = x.shape[-1]
        numbers = [0.1 * i + 0.3 for i in range(c)]
        groups = r.choice([n for n in range(1, c + 1) if c % n == 0])
        layer = r.choice(
            [
                lambda: layers.LayerNormalization(epsilon=0.1),
                lambda: layers.RMSNormalization(epsilon=0.1),
                lambda: layers.RMSNormalization(epsilon=0.1),
                lambda: layers.GroupNormalization(groups, epsilon=0.1),
                lambda: layers.GroupNormalization(groups, epsilon=0.1, scale=False),
                lambda: layers.UnitNormalization(),
                lambda: layers.Normalization(mean=numbers, variance=numbers),
                lambda: layers.Normalization(mean=0.3, variance=2.0, axis=None),
            ]
        )
        return layer()(x)

    def activation(self, x, r):
        return layers.Activation(self.function(r))(x)

    def advanced(self, x, r):
        every = list(range(1, len(x.shape) - 1))
        layer = r.choice(
            [
                lambda: layers.ReLU(r.choice([None, 1.5]), r.choice([0, 0.3]),
                                    r.choice([0, 0.4])),
                lambda: layers.LeakyReLU(r.choice([0.2, 1.7])),
                lambda: layers.ELU(r.choice([0.3, 1.0])),
                lambda: layers.PReLU(shared_axes=r.choice([None, every or None])),
                lambda: layers.Softmax(),
            ]
        )  # fmt: skip
        return layer()(x)

    def noise(self, x, r):
        if r.random() < 0.3:
            plain = [layers.Identity(), layers.ActivityRegularization(0.1)]
            return r.choice(plain)(x)
        kinds = [layers.Dropout, layers.GaussianDropout, layers.AlphaDropout]
        kinds.append(layers.GaussianNoise)
        if len(x.shape) > 2:
            kinds.append(self.kind("SpatialDropout", x))
        return r.choice(kinds)(0.3)(x)

    def scaled(self, x, r):
        row = [0.3 * i - 0.5 for i in range(x.shape[-1])]
        return r.choice(
            [
                lambda: layers.Rescaling(0.3, r.choice([0.0, 0.2])),
                lambda: layers.Rescaling(row, row[::-1]),
                lambda: layers.Masking(),
            ]
        )()(x)

    def barrier(self, x, r):
        return r.choice(
            [
                lambda: layers.Lambda(lambda h: h[..., ::-1] * 2.0)(x),
                lambda: ops.softmax(x),
                lambda: ops.cumsum(x, axis=-1),
                lambda: ops.einsum("a...b,a...b->a...", x, x)[:, None],
                lambda: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
            ]
        )()

    def floats(self, check):
        return [t for t in self.tensors if "int" not in t.dtype and check(t)]

    def merge(self, x, r):
        alike = self.floats(lambda t: t.shape == x.shape)
        others = [r.choice([t for t in alike if t is not x] or alike) for _ in "ab"]
        name = r.choice(MERGES)
        inputs = [x, *others[: 1 if name == "Subtract" or r.random() < 0.7 else 2]]
        r.shuffle(inputs)
        return getattr(layers, name)()(inputs)

    def broadcast(self, x, r):
        def fits(t):
            pairs = zip(t.shape[1:], x.shape[1:], strict=False)
            same = len(t.shape) == len(x.shape)
            return same and t.shape != x.shape and all(a in (1, b) for a, b in pairs)

        single = len(x.shape) == 2 or r.random() < 0.5
        made = layers.Dense(1)(x) if single else ops.mean(x, axis=1, keepdims=True)
        other = r.choice([made, *self.floats(fits)])
        pair = r.choice([[x, other], [other, x]])
        return getattr(layers, r.choice(MERGES))()(pair)

    def binary(self, x, r):
        y = r.choice(self.floats(lambda t: t.shape == x.shape))
        return r.choice(
            [
                lambda: x + y, lambda: x - y, lambda: x * y, lambda: ops.maximum(x, y),
                lambda: ops.minimum(x, y), lambda: x / (ops.abs(y) + 1.0),
                lambda: ops.where(x > 0.1, x, y), lambda: ops.logaddexp(x, y),
            ]
        )()  # fmt: skip

    def constant(self, x, r):
        numbers = np.random.default_rng(r.randint(0, 99))
        row = numbers.normal(size=x.shape[-1]) * numbers.integers(0, 2, x.shape[-1])
        table = numbers.normal(size=x.shape[1:])
        return r.choice(
            [
                lambda: x + row, lambda: x * row, lambda: row - x, lambda: x + table,
                lambda: x * table, lambda: 2.0 * x + 1.0, lambda: 1.0 - x,
                lambda: ops.maximum(x, 0.2), lambda: ops.minimum(x, row),
                lambda: x / 3.0, lambda: ops.clip(x, -0.4, 0.5), lambda: x**2,
            ]
        )()  # fmt: skip

    def unary(self, x, r):
        return getattr(ops, r.choice(UNARY))(x)

    def concatenate(self, x, r):
        alike = self.floats(lambda t: t.shape[:-1] == x.shape[:-1])
        return layers.Concatenate()([x, *(r.choice(alike) for _ in "ab")])

    def join_positions(self, x, r):
        alike = self.floats(
            lambda t: len(t.shape) == len(x.shape) and t.shape[2:] == x.shape[2:]
        )
        return layers.Concatenate(axis=1)([x, r.choice(alike)])

    def dot(self, x, r):
        alike = self.floats(
            lambda t: len(t.shape) == len(x.shape) and t.shape[-1] == x.shape[-1]
        )
        axis = r.choice([-1, -1, 1]) if len(x.shape) > 2 else -1
        return layers.Dot(axis, normalize=r.random() < 0.4)([x, r.choice(alike)])
