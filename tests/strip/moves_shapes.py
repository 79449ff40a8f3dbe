"""Moves of a `Grower`: other shapes."""

import math

from keras import layers, ops


class ShapeMoves:
    """Layers and operations that only move elements, or reduce them."""

    def flatten(self, x, r):
        return layers.Flatten()(x)

    def rows(self, x, r):
        return layers.Reshape((-1, x.shape[-1]))(x)

    def reshape(self, x, r):
        size, c = math.prod(x.shape[1:]), x.shape[-1]
        shapes = [(-1, c), (1, -1), (size,), (*x.shape[1:], 1), (1, *x.shape[1:])]
        shapes += [(-1, 2)] if size % 2 == 0 else []
        shapes += [(2, 3, -1)] if size % 6 == 0 else []
        shape = r.choice(shapes)
        if r.random() < 0.5:
            return layers.Reshape(shape)(x)
        spelled = [size // -math.prod(shape) if n == -1 else n for n in shape]
        return ops.reshape(x, (-1, *spelled))

    def as_sequence(self, x, r):
        return layers.Reshape((r.choice([1, x.shape[-1]]), -1))(x)

    def repeat_vector(self, x, r):
        return layers.RepeatVector(r.randint(2, 3))(x)

    def permute(self, x, r):
        order = list(range(1, len(x.shape)))
        r.shuffle(order)
        if r.random() < 0.5:
            return layers.Permute(order)(x)
        return ops.transpose(x, (0, *order))

    def raw_moves(self, x, r):
        c = x.shape[-1]
        return r.choice(
            [
                lambda: x[..., 1:],
                lambda: x[..., ::-1],
                lambda: ops.take(x, [c - 1, 0], axis=-1),
                lambda: ops.flip(x, axis=-1),
                lambda: ops.roll(x, 1, axis=-1),
                lambda: ops.repeat(x, 2, axis=-1),
                lambda: ops.tile(x, (*[1] * (len(x.shape) - 1), 2)),
                lambda: ops.split(x, 2, axis=-1),
                lambda: ops.split(x, [1], axis=-1),
                lambda: ops.squeeze(ops.expand_dims(x, 1), 1),
                lambda: ops.expand_dims(x, 1),
            ]
        )()

    def raw_positions(self, x, r):
        widths = [(0, 0), (1, 1), *[(0, 0)] * (len(x.shape) - 2)]
        return r.choice(
            [
                lambda: x[:, 1:],
                lambda: x[:, -1],
                lambda: ops.take(x, [0, 1, 0], axis=1),
                lambda: ops.flip(x, axis=1),
                lambda: ops.roll(x, 1, axis=1),
                lambda: ops.repeat(x, 2, axis=1),
                lambda: ops.split(x, 2, axis=1),
                lambda: ops.swapaxes(x, 1, 2),
                lambda: ops.moveaxis(x, 1, -1),
                lambda: ops.pad(x, widths),
                lambda: ops.pad(x, widths, constant_values=0.3),
                lambda: ops.pad(x, widths, mode="reflect"),
            ]
        )()

    def raw_join(self, x, r):
        y = r.choice(self.floats(lambda t: t.shape == x.shape))
        axis = r.choice([-1, 1])
        return r.choice([ops.concatenate, ops.stack])([x, y], axis=axis)

    def reduce(self, x, r):
        name = r.choice(["mean", "max", "sum", "min", "std", "var", "amax", "amin"])
        rank = len(x.shape)
        axis = r.choice([1, 1, tuple(range(1, rank - 1)), -1])
        if name in ("std", "var"):
            axis = r.choice([1, -1])
        return getattr(ops, name)(x, axis=axis, keepdims=r.random() < 0.5)
