"""Moves of a `Grower`: convolutions, pooling, recurrence and attention."""

from keras import layers

from keras_l0.layers import L0Conv2D, L0Dense, L0Gate, L0GroupQueryAttention


class PositionMoves:
    """Layers that look at several positions, or make them."""

    def kind(self, name, x):
        found = getattr(layers, f"{name}{len(x.shape) - 2}D", None)
        if found is None:
            raise LookupError
        return found

    def window(self, x, r, most=3):
        size = tuple(min(r.randint(1, most), n) for n in x.shape[1:-1])
        options = {"padding": r.choice(["valid", "same"])}
        if r.random() < 0.3:
            options["strides"] = 2
        elif r.random() < 0.3 and len(size) < 3:
            options["dilation_rate"] = 2
        options["use_bias"] = r.random() < 0.6
        return size, {**options, "activation": self.function(r)}

    def convolution(self, x, r):
        size, options = self.window(x, r)
        kind = self.twin(self.kind("Conv", x), r)
        return kind(r.randint(1, 5), size, **options, **self.grain(kind, r))(x)

    def gated_conv(self, x, r):
        size, options = self.window(x, r)
        groups = r.choice([n for n in (1, 1, 2, 3) if x.shape[-1] % n == 0])
        filters = groups * r.randint(1, 3)
        grain = self.grain(L0Conv2D, r, groups)
        return L0Conv2D(filters, size, groups=groups, **options, **grain)(x)

    def grouped(self, x, r):
        size, options = self.window(x, r)
        groups = r.choice([n for n in (2, 3, 4) if x.shape[-1] % n == 0])
        filters = groups * r.randint(1, 3)
        return self.kind("Conv", x)(filters, size, groups=groups, **options)(x)

    def causal(self, x, r):
        return layers.Conv1D(
            r.randint(1, 5), 2, padding="causal", dilation_rate=r.randint(1, 2),
            activation=self.function(r),
        )(x)  # fmt: skip

    def depthwise(self, x, r):
        size, options = self.window(x, r)
        kind = self.twin(self.kind("DepthwiseConv", x), r)
        # TensorFlow wants equal strides, and one size for one dimension.
        size = size[0] if len(size) == 1 else size
        return kind(size, depth_multiplier=r.choice([1, 1, 2]), **options)(x)

    def separable(self, x, r):
        size, options = self.window(x, r)
        kind = self.twin(self.kind("SeparableConv", x), r)
        size = size[0] if len(size) == 1 else size
        twice = r.choice([1, 2])
        return kind(r.randint(1, 4), size, depth_multiplier=twice, **options)(x)

    def transposed(self, x, r):
        options = {"padding": r.choice(["valid", "same"]), "strides": r.choice([1, 2])}
        if options["strides"] == 2 and r.random() < 0.3:
            options["output_padding"] = 1
        options["activation"] = self.function(r)
        kind = self.kind("Conv", x).__name__ + "Transpose"
        bias = r.random() < 0.6
        kind = self.twin(getattr(layers, kind), r)
        options |= self.grain(kind, r)
        return kind(r.randint(1, 4), r.randint(1, 3), use_bias=bias, **options)(x)

    def pool(self, x, r):
        if len(x.shape) == 5:
            raise LookupError  # TensorFlow's CPU kernels compute it in float32 only.
        kind = self.kind(r.choice(["MaxPooling", "AveragePooling"]), x)
        size = r.randint(1, min(3, *x.shape[1:-1]))
        return kind(size, r.randint(1, 2), r.choice(["valid", "same"]))(x)

    def adaptive_pool(self, x, r):
        if len(x.shape) == 5:
            raise LookupError
        name = r.choice(["AdaptiveMaxPooling", "AdaptiveAveragePooling"])
        size = r.randint(1, 2)
        # Keras asks TensorFlow for a window of one position more than it needs. One
        # that is longer than the input ends the process.
        if any(-(-n // size) + 1 > n for n in x.shape[1:-1]):
            name = "AdaptiveAveragePooling"
        return self.kind(name, x)(size)(x)

    def global_pool(self, x, r):
        kind = self.kind(r.choice(["GlobalMaxPooling", "GlobalAveragePooling"]), x)
        return kind(keepdims=r.random() < 0.5)(x)

    def crop(self, x, r):
        return self.kind("Cropping", x)(1)(x)

    def pad(self, x, r):
        return self.kind("ZeroPadding", x)(1)(x)

    def upsample(self, x, r):
        return self.kind("UpSampling", x)(2)(x)

    def channels_first(self, x, r):
        first = {"data_format": "channels_first"}
        return r.choice(
            [
                lambda: layers.GlobalAveragePooling2D(**first)(L0Gate(axis=1)(x)),
                lambda: layers.BatchNormalization(axis=1)(L0Gate(axis=1)(x)),
                lambda: layers.Flatten(**first)(x),
                lambda: layers.ZeroPadding2D(1, **first)(x),
                lambda: layers.Cropping2D(((1, 0), (0, 1)), **first)(x),
            ]
        )()

    def normalize_positions(self, x, r):
        return r.choice([layers.BatchNormalization, layers.LayerNormalization])(axis=1)(
            x
        )

    def squeeze_excite(self, x, r):
        c = x.shape[-1]
        s = layers.GlobalAveragePooling2D(keepdims=True)(x)
        s = L0Conv2D(3, 1, activation="relu")(s)
        s = layers.Conv2D(c, 1, activation=r.choice(["sigmoid", "hard_sigmoid"]))(s)
        return layers.Multiply()(r.choice([[x, s], [s, x]]))

    def time_distributed(self, x, r):
        inner = r.choice(
            [
                lambda: layers.Dense(r.randint(1, 4), self.function(r)),
                lambda: L0Dense(r.randint(1, 4), self.function(r)),
                lambda: layers.BatchNormalization(),
                lambda: layers.Activation(self.function(r)),
                lambda: layers.Conv1D(3, 2, padding="same"),
                lambda: layers.Flatten(),
                lambda: layers.GRU(3),
            ]
        )
        return layers.TimeDistributed(inner())(x)

    def recurrent_layer(self, r, units):
        kind = r.choice([layers.SimpleRNN, layers.LSTM, layers.GRU])
        options = {"reset_after": r.random() < 0.5} if kind is layers.GRU else {}
        return self.twin(kind, r)(
            units, use_bias=r.random() < 0.7, return_sequences=r.random() < 0.6,
            go_backwards=r.random() < 0.2, **options,
        )  # fmt: skip

    def recurrent(self, x, r):
        layer = self.recurrent_layer(r, r.randint(1, 4))
        states = [t for t in self.tensors if t.shape == (None, layer.units)]
        states = [t for t in states if "int" not in t.dtype]
        options = {}
        if states and r.random() < 0.6:
            count = 2 if isinstance(layer, layers.LSTM) else 1
            options["initial_state"] = [r.choice(states) for _ in range(count)]
        layer.return_state = r.random() < 0.3
        return layer(x, **options)

    def cell(self, x, r):
        kind = r.choice([layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell])
        return layers.RNN(kind(r.randint(1, 4)), return_sequences=r.random() < 0.6)(x)

    def conv_recurrent(self, x, r):
        kind = layers.ConvLSTM1D if len(x.shape) == 4 else layers.ConvLSTM2D
        return kind(
            r.randint(1, 3), r.randint(1, 2), padding=r.choice(["valid", "same"]),
            use_bias=r.random() < 0.7, return_sequences=r.random() < 0.6,
        )(x)  # fmt: skip

    def bidirectional(self, x, r):
        merge = r.choice(["concat", "sum", "mul", "ave", None])
        inner = self.recurrent_layer(r, r.randint(1, 3))
        inner.go_backwards = False
        if hasattr(inner, "gates"):
            merge = r.choice(["concat", None])  # a unit of the others is of both
        return layers.Bidirectional(inner, merge_mode=merge)(x)

    def rows_like(self, x, r):
        found = [t for t in self.tensors if len(t.shape) == 3 and "int" not in t.dtype]
        return r.choice([x, x, *found])

    def dims(self, kind, r):
        return {"gate_dims": r.random() < 0.4} if hasattr(kind, "dim_roles") else {}

    def attention(self, x, r):
        value = self.rows_like(x, r)
        key = value if r.random() < 0.7 else self.rows_like(x, r)
        key = key if key.shape[1] == value.shape[1] else value
        kind = self.twin(layers.MultiHeadAttention, r)
        layer = kind(
            r.randint(1, 2), r.randint(1, 3), value_dim=r.choice([None, 2]),
            use_bias=r.random() < 0.6, output_shape=r.choice([None, None, 4]),
            **self.dims(kind, r),
        )  # fmt: skip
        return layer(
            x, value, key, use_causal_mask=r.random() < 0.3,
            return_attention_scores=r.random() < 0.2,
        )  # fmt: skip

    def grouped_attention(self, x, r):
        kind = r.choice([layers.GroupQueryAttention, L0GroupQueryAttention])
        layer = kind(2, 4, 2, use_bias=r.random() < 0.6, **self.dims(kind, r))
        return layer(x, self.rows_like(x, r), use_causal_mask=r.random() < 0.3)

    def unprojected(self, x, r):
        kind = r.choice([layers.Attention, layers.AdditiveAttention])
        value = self.rows_like(x, r)
        return kind()([x, value if value.shape[-1] == x.shape[-1] else x])

    def last_step(self, x, r):
        return r.choice([x[:, -1], x[:, 0, :], x[:, ::2], x[:, None, 1]])

    def embedding(self, x, r):
        masked = r.random() < 0.4
        kind = self.twin(layers.Embedding, r)
        return kind(4, r.randint(2, 6), mask_zero=masked)(x)

    def reversible(self, x, r):
        kind = self.twin(layers.ReversibleEmbedding, r)
        embed = kind(4, 5, tie_weights=r.random() < 0.5)
        h = L0Gate()(embed(x))
        h = layers.BatchNormalization(epsilon=0.01)(h) if r.random() < 0.5 else h
        h = layers.Add()([h, layers.Dense(5)(L0Dense(4, "relu")(h))])
        return [h, embed(h, reverse=True)]
