"""Grows random graphs out of all layers that have a rule."""

import math
import random

import keras
from keras import layers
from moves_functions import FunctionMoves
from moves_positions import PositionMoves
from moves_shapes import ShapeMoves

import keras_l0
from keras_l0.layers import L0Dense, L0Gate, L0RecurrentSwitch, L0SharedGate, L0Switch
from keras_l0.layers.granular import Granular

FUNCTIONS = (
    None, None, "relu", "relu", "sigmoid", "leaky_relu", "softplus", "tanh", "elu",
    "gelu", "silu", "hard_sigmoid", "relu6", "softmax",
)  # fmt: skip
# Graphs start from: images, rows, vectors, tokens, volumes.
STARTS = ("i", "i", "r", "r", "v", "t", "c", "iv", "rv", "rt", "ir")
# No tensor has more elements per example.
LARGEST = 700


class Grower(PositionMoves, FunctionMoves, ShapeMoves):
    """Grows a graph: each move puts one layer on one of the tensors made so far.

    A move is named after the layers that it makes, and takes a tensor and a source of
    random choices. What Keras itself refuses to build is not made.
    """

    def __init__(self, kinds="irvt"):
        starts = {
            "i": lambda: keras.Input((5, 4, 2)),
            "r": lambda: keras.Input((6, 3)),
            "v": lambda: keras.Input((4,)),
            "t": lambda: keras.Input((4,), dtype="int32"),
            "c": lambda: keras.Input((3, 3, 3, 3)),
        }
        self.inputs = [starts[kind]() for kind in kinds]
        self.tensors = list(self.inputs)
        self.calls = {}
        self.story = []

    def move(self, pick, kind, seed):
        """Makes a move, if there is one; says which."""
        # Mostly deeper, sometimes another branch.
        back = (0, 0, 0, 0, 1, 1, 2, 4)[pick % 8]
        x = self.tensors[-1 - back % len(self.tensors)]
        names = self.moves(x)
        return self.make(names[kind % len(names)], x, seed)

    def moves(self, x):
        if "int" in x.dtype:
            return self.on_tokens
        by_rank = {2: self.on_vectors, 3: self.on_rows, 4: self.on_images}
        return by_rank.get(len(x.shape), self.on_volumes)

    def make(self, name, x, seed):
        try:
            made = getattr(self, name)(x, random.Random(seed))
        except (LookupError, ValueError, TypeError, AttributeError):
            return None  # Nothing to merge with, or no such layer on such a tensor.
        made = made if isinstance(made, (list, tuple)) else [made]
        made = [y for y in made if len(y.shape) > 1 and None not in y.shape[1:]]
        made = [y for y in made if 0 < math.prod(y.shape[1:]) <= LARGEST]
        self.story.append((name, seed, tuple(x.shape), [tuple(y.shape) for y in made]))
        self.tensors += made
        return name

    def model(self, ends):
        """The model with the last tensor and some others as outputs."""
        last = [t for t in self.tensors if "int" not in t.dtype][-1:]
        outputs = {id(t): t for t in last}
        for end in ends:
            tensor = self.tensors[-1 - end % len(self.tensors)]
            outputs[id(tensor)] = tensor
        return keras.Model(self.inputs, list(outputs.values()))

    everywhere = (
        "dense", "dense", "gated_dense", "gated_dense", "gate", "gate", "gate", "odd",
        "odd", "odd", "batchnorm", "normalized", "activation", "advanced", "merge",
        "merge", "merge", "broadcast", "binary", "constant", "unary", "concatenate",
        "concatenate", "shared", "shared_gate", "nested", "noise", "scaled", "flatten",
        "reshape", "raw_moves", "raw_join", "spectral", "barrier", "switched",
    )  # fmt: skip
    on_vectors = everywhere + ("repeat_vector", "dot", "as_sequence")
    on_positions = (
        "gate_positions", "convolution", "convolution", "convolution", "depthwise",
        "separable", "transposed", "pool", "adaptive_pool", "global_pool", "crop",
        "pad", "upsample",
        "reduce", "reduce", "time_distributed", "permute", "normalize_positions",
        "join_positions", "einsum", "raw_positions",
    )  # fmt: skip
    on_rows = everywhere + on_positions + (
        "recurrent", "recurrent", "cell", "bidirectional", "attention", "attention",
        "grouped_attention", "unprojected", "dot", "causal", "last_step",
        "switched_recurrent",
    )  # fmt: skip
    on_images = everywhere + on_positions + (
        "gated_conv", "gated_conv", "grouped", "squeeze_excite", "channels_first",
        "rows", "conv_recurrent",
    )  # fmt: skip
    on_volumes = everywhere + on_positions + ("rows", "conv_recurrent")
    on_tokens = ("embedding",) * 5 + ("reversible",)

    # Units

    def twin(self, kind, r):
        """A kind of layer, or its gated twin."""
        gated = getattr(keras_l0.layers, f"L0{kind.__name__}", kind)
        return gated if r.random() < 0.4 else kind

    def grain(self, kind, r, groups=1):
        """What the gates of a layer switch, if it is one that offers a choice."""
        choices = ("units",) * 3 + ("inputs", "weights", (1, 2), (2, 2))
        if issubclass(kind, Granular) and groups == 1:
            return {"granularity": r.choice(choices)}
        return {}

    def function(self, r):
        return r.choice(FUNCTIONS)

    def dense(self, x, r, kind=layers.Dense):
        bias = r.random() < 0.6
        grain = self.grain(kind, r)
        return kind(r.randint(1, 5), self.function(r), use_bias=bias, **grain)(x)

    def gated_dense(self, x, r):
        return self.dense(x, r, L0Dense)

    def gate(self, x, r):
        return L0Gate()(x)

    def odd(self, x, r):
        # What the gate closes rests at a value other than 0.
        h = layers.BatchNormalization(epsilon=0.01)(L0Gate()(x))
        return layers.Activation(self.function(r))(h) if r.random() < 0.5 else h

    def gate_positions(self, x, r):
        rank = len(x.shape)
        return L0Gate(axis=r.choice([1, tuple(range(1, rank)), (1, rank - 1)]))(x)

    def once(self, kind, x, make):
        key = (kind, x.shape[1:])
        if key not in self.calls:
            self.calls[key] = make()
        return self.calls[key](x)

    def shared_gate(self, x, r):
        return self.once("gate", x, L0Gate)

    def switched(self, x, r):
        # The channels here and there mixed up.
        units = x.shape[-1]
        mixed = [r.randrange(units) for _ in range(units)]
        indices = mixed if r.random() < 0.3 else None
        return L0Switch(indices=indices)(x, self.mask(units))

    def mask(self, units):
        """One for every place of as many channels."""
        if ("mask", units) not in self.calls:
            self.calls["mask", units] = L0SharedGate(units)(self.inputs[0])
        return self.calls["mask", units]

    def switched_recurrent(self, x, r):
        units = r.choice([x.shape[-1], r.randint(1, 4)])
        kind = r.choice([layers.SimpleRNN, layers.LSTM, layers.GRU])
        cells = kind(units, return_sequences=r.random() < 0.7)
        cells = layers.Bidirectional(cells) if r.random() < 0.3 else cells
        mixed = [r.randrange(units) for _ in range(units)]
        indices = mixed if r.random() < 0.3 else None
        return L0RecurrentSwitch(cells, indices)(x, self.mask(units))

    def shared(self, x, r):
        width, function = x.shape[-1], self.function(r)
        kinds = {
            "dense": lambda: layers.Dense(width, function),
            "gated": lambda: L0Dense(width, function),
            "norm": lambda: layers.BatchNormalization(epsilon=0.01),
            "relu": lambda: layers.ReLU(),
            "conv": lambda: self.kind("Conv", x)(width, 2, padding="same"),
            "deep": lambda: self.kind("DepthwiseConv", x)(2, padding="same"),
            "gru": lambda: layers.GRU(width, return_sequences=True),
            "rms": lambda: layers.RMSNormalization(epsilon=0.1),
        }
        kind = r.choice(list(kinds))
        return self.once(kind, x, kinds[kind])

    def nested(self, x, r):
        def make():
            inner = keras.Input(x.shape[1:])
            h = self.dense(inner, r, r.choice([layers.Dense, L0Dense]))
            h = layers.Dense(x.shape[-1], self.function(r))(h)
            return keras.Model(inner, layers.Add()([inner, h]))

        return self.once("model", x, make) if r.random() < 0.6 else make()(x)

    def einsum(self, x, r):
        t, c = x.shape[1], x.shape[-1]
        choices = (
            ("...x,xy->...y", r.randint(1, 5), "y"),
            ("...x,yx->...y", r.randint(1, 5), "y"),
            ("abc,cde->abde", (t, 2, r.randint(1, 4)), r.choice(["e", "de", "d"])),
            ("abc,bcd->abd", (t, r.randint(1, 4)), "bd"),
            ("abc,bd->adc", (r.randint(1, 4), c), "d"),
            ("abc,c->abc", (t, c), "c"),
            ("abc,bcd->ad", r.randint(1, 4), "d"),
            ("abcd,de->abce", (*x.shape[1:3], r.randint(1, 4)), "e"),
        )
        # Keras finds out only when it is called.
        fits = {"...x": 0, "abc": 3, "abcd": 4}
        choices = [
            choice
            for choice in choices
            if fits[choice[0].split(",")[0]] in (0, len(x.shape))
        ]
        equation, shape, axes = r.choice(choices)
        bias = axes if r.random() < 0.6 else None
        kind = self.twin(layers.EinsumDense, r)
        grain = self.grain(kind, r)
        return kind(equation, shape, self.function(r), bias, **grain)(x)

    def spectral(self, x, r):
        inner = layers.Dense(r.randint(1, 4), self.function(r))
        return layers.SpectralNormalization(inner)(x)
