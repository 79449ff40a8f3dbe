"""For every named barrier a call that shows why it must be one.

Each takes a tensor of shape (8, 6, 6), or of the shape in `SHAPES`, whose last axis
holds the channels.
"""

import keras
import numpy as np
from keras import layers, ops

EXAMPLES = 8
SHAPES = {
    name: shape
    for names, shape in {
        "DepthToSpace SpaceToDepth": (4, 4, 8),
        "HSVToRGB RGBToGrayscale RGBToHSV RandomColorDegeneration "
        "RandomColorJitter RandomGrayscale RandomHue RandomSaturation": (4, 4, 3),
        "Conv ConvTranspose DepthwiseConv SeparableConv ExtractPatches "
        "ScaleAndTranslate SobelEdges": (4, 4, 6),
        "SSIM": (16, 16, 6),
        "Fold": (8, 6),
        "Unfold": (3, 4, 4),
        "Cross": (4, 3),
        "LSTMCell GRUCell SimpleRNNCell StackedRNNCells CategoryEncoding Hashing "
        "HashedCrossing IntegerLookup InTopK Diag Corrcoef Meshgrid Outer Vander "
        "SparseCategoricalCrossentropy": (6,),
        "STFTSpectrogram": (64, 3),
        "MelSpectrogram": (64,),
    }.items()
    for name in names.split()
}
# Gates make numbers, and not every framework is there.
UNTESTABLE = {
    "StringLookup": "no gate makes text",
    "TextVectorization": "no gate makes text",
    "FlaxLayer": "it needs Flax",
    "TorchModuleWrapper": "it runs on Torch only",
    "TFSMLayer": "Keras makes none anew unless it is told that this is safe",
    "RandAugment": "Keras' own fails in float64",
    "Geomspace": "Keras' own fails along the channels on TensorFlow",
}


def _draw(*shape):
    return np.random.default_rng(0).normal(size=shape)


def _made(make):
    """A layer that is made at the first call, under the policy of the test."""
    kept = []

    def layer():
        if not kept:
            kept.append(make())
        return kept[0]

    return layer


def _layer(make):
    layer = _made(make)
    return lambda x: layer()(x)


def _cell(make, states):
    layer = _made(make)
    return lambda x: layer()(x, [x] * states)


def _colours(name, *args):
    """As in training, if not in a model; seeded, so that every call does the same."""
    return lambda x: getattr(layers, name)(*args, seed=0, dtype="float32")(
        ops.abs(x) * 40, training=None if keras.utils.is_keras_tensor(x) else True
    )


def _whole(x):
    return ops.cast(ops.abs(x) * 3, "int32")


def _square(x):
    return x + 9 * np.eye(6)


@keras.saving.register_keras_serializable("tests")
def _softmax_of_jax(params, inputs):
    import jax

    return jax.nn.softmax(inputs)


@keras.saving.register_keras_serializable("tests")
def _no_weights(rng, inputs):
    return {}


def _jax_layer(x):
    import jax  # noqa: F401  (the reason to skip where it is missing)

    return layers.JaxLayer(_softmax_of_jax, init_fn=_no_weights)(x)


LAYERS = {
    "Softmax": layers.Softmax(),
    "LayerNormalization": _layer(layers.LayerNormalization),
    "Masking": lambda x: ops.sum(layers.LSTM(2)(layers.Masking()(x))),
    "Lambda": layers.Lambda(lambda x: x[..., ::-1]),
    "CategoryEncoding": lambda x: layers.CategoryEncoding(9, "multi_hot")(
        ops.minimum(_whole(x), 8)
    ),
    "HashedCrossing": lambda x: layers.HashedCrossing(9, output_mode="one_hot")(
        ops.split(_whole(ops.matmul(x, _draw(6, 2))), 2, axis=-1)
    ),
    "Hashing": lambda x: layers.Hashing(9, output_mode="multi_hot")(_whole(x)),
    "IntegerLookup": lambda x: layers.IntegerLookup(
        vocabulary=[0, 1, 2], output_mode="multi_hot"
    )(_whole(x)),
    "JaxLayer": _jax_layer,
    "MelSpectrogram": lambda x: layers.MelSpectrogram(
        16, 8, num_mel_bins=4, sampling_rate=100, max_freq=50, dtype="float32"
    )(x),
    "STFTSpectrogram": lambda x: layers.STFTSpectrogram(
        frame_length=16, frame_step=8, fft_length=16
    )(x),
    "Pipeline": lambda x: layers.Pipeline([layers.Softmax()])(x),
    "RandomColorDegeneration": _colours("RandomColorDegeneration", (0.5, 0.5)),
    "RandomColorJitter": _colours(
        "RandomColorJitter", (0, 255), None, None, (0.9, 0.9)
    ),
    "RandomGrayscale": _colours("RandomGrayscale", 1.0),
    "RandomHue": _colours("RandomHue", (0.5, 0.5)),
    "RandomSaturation": _colours("RandomSaturation", (0.9, 0.9)),
    "LSTMCell": _cell(lambda: layers.LSTMCell(6), 2),
    "GRUCell": _cell(lambda: layers.GRUCell(6), 1),
    "SimpleRNNCell": _cell(lambda: layers.SimpleRNNCell(6), 1),
    "StackedRNNCells": _cell(
        lambda: layers.StackedRNNCells([layers.SimpleRNNCell(6) for _ in range(2)]), 2
    ),
}

MIXING = {
    "BatchNorm": lambda x: ops.batch_normalization(x, np.ones(6), np.ones(6), -1),
    "LayerNorm": lambda x: ops.layer_normalization(x),
    "LogSoftmax": lambda x: ops.log_softmax(x),
    "Normalize": lambda x: ops.normalize(x + 1.0),
    "RMSNorm": lambda x: ops.rms_normalization(x),
    "Softmax": lambda x: ops.softmax(x),
    "Sparsemax": lambda x: ops.sparsemax(x),
    "Glu": lambda x: ops.glu(x),
    "CDist": lambda x: ops.cdist(x, x + 1.0),
    "Conv": lambda x: ops.conv(x, _draw(2, 2, 6, 6), padding="same"),
    "ConvTranspose": lambda x: ops.conv_transpose(
        x, ops.convert_to_tensor(_draw(2, 2, 6, 6)), 1, "same"
    ),
    "DepthwiseConv": lambda x: ops.depthwise_conv(x, _draw(2, 2, 6, 1)),
    "SeparableConv": lambda x: ops.separable_conv(
        x, _draw(2, 2, 6, 1), _draw(1, 1, 6, 6)
    ),
    "Correlate": lambda x: ops.correlate(ops.ravel(x), np.ones(3)),
    "Corrcoef": lambda x: ops.corrcoef(ops.transpose(x)),
    "Cross": lambda x: ops.cross(x, np.ones(3)),
    "Dot": lambda x: ops.dot(x, _draw(6, 6)),
    "DotProductAttention": lambda x: ops.dot_product_attention(
        *[ops.expand_dims(x, 2)] * 3
    ),
    "Einsum": lambda x: ops.einsum("btc,bsc->bts", x, x),
    "Inner": lambda x: ops.inner(x, _draw(6, 6)),
    "Kron": lambda x: ops.kron(ops.mean(x, axis=0), np.ones((2, 2))),
    "Matmul": lambda x: ops.matmul(x, _draw(6, 6)),
    "Outer": lambda x: ops.outer(x, np.ones(3)),
    "Tensordot": lambda x: ops.tensordot(x, _draw(6, 6), axes=1),
    "Vdot": lambda x: ops.vdot(x + 1.0, x + 1.0),
}
COUNTING = {
    "AllClose": lambda x: ops.allclose(ops.sign(x) ** 2, ops.ones_like(x)),
    "Argpartition": lambda x: ops.argpartition(x, 2),
    "Argsort": lambda x: ops.argsort(x),
    "Bincount": lambda x: ops.bincount(_whole(ops.ravel(x)), minlength=9),
    "Histogram": lambda x: ops.histogram(ops.ravel(x), bins=3, range=(-1, 1))[0],
    "InTopK": lambda x: ops.in_top_k(np.full(8, 5), ops.cast(x, "float32"), k=2),
    "Nonzero": lambda x: ops.nonzero(x)[-1],
    "SearchSorted": lambda x: ops.searchsorted(ops.sort(x[0, 0]), np.ones(3)),
    "Size": lambda x: ops.cast(ops.size(x), "float64"),
    "TopK": lambda x: ops.top_k(x, 2)[1],
    "Unique": lambda x: ops.unique(ops.ravel(x)),
    "Arctan2": lambda x: ops.arctan2(x, -1.0),
    "Argmax": lambda x: ops.argmax(x, axis=-1),
    "Argmin": lambda x: ops.argmin(x, axis=-1),
    "Nanargmax": lambda x: ops.nanargmax(x, axis=-1),
    "Nanargmin": lambda x: ops.nanargmin(x, axis=-1),
    "Signbit": lambda x: ops.signbit(x),
    "Average": lambda x: ops.average(x, axis=-1),
    "CTCDecode": lambda x: ops.ctc_decode(x, np.full(8, 6, "int32"))[1],
    "CTCLoss": lambda x: ops.ctc_loss(
        np.ones((8, 2), "int32"), x, np.full(8, 2, "int32"), np.full(8, 6, "int32")
    ),
    "CategoricalCrossentropy": lambda x: ops.categorical_crossentropy(
        ops.one_hot(np.ones((8, 6), "int32"), 6), x, from_logits=True
    ),
    "SparseCategoricalCrossentropy": lambda x: ops.sparse_categorical_crossentropy(
        np.ones(8, "int32"), x, from_logits=True
    ),
    "Moments": lambda x: ops.moments(x, axes=[-1])[0],
    "Nanpercentile": lambda x: ops.nanpercentile(x, 40, axis=-1),
    "Nanquantile": lambda x: ops.nanquantile(x, 0.4, axis=-1),
    "Percentile": lambda x: ops.percentile(x, 40, axis=-1),
    "Quantile": lambda x: ops.quantile(x, 0.4, axis=-1),
    "PSNR": lambda x: ops.psnr(x, 2.0 * x + 1.0, 1.0),
    "SSIM": lambda x: ops.image.ssim(x, x + 0.1 * x[:, ::-1]),
    "HSVToRGB": lambda x: ops.image.hsv_to_rgb(ops.sigmoid(x)),
    "RGBToGrayscale": lambda x: ops.image.rgb_to_grayscale(x),
    "RGBToHSV": lambda x: ops.image.rgb_to_hsv(ops.sigmoid(x)),
}
MOVING = {
    "DepthToSpace": lambda x: ops.depth_to_space(x, 2),
    "SpaceToDepth": lambda x: ops.space_to_depth(x, 2),
    "ExtractPatches": lambda x: ops.image.extract_patches(x, 2),
    "ExtractSequences": lambda x: ops.extract_sequences(x, 3, 2),
    "Fold": lambda x: ops.fold(x, (3, 4), 2),
    "Unfold": lambda x: ops.unfold(x, 2),
    "MapCoordinates": lambda x: ops.image.map_coordinates(
        x, np.mgrid[:8, :6, :6][..., ::-1].astype("float64"), order=1
    ),
    "Rearrange": lambda x: ops.rearrange(x, "b t (g c) -> b (t g) c", g=2),
    "Rot90": lambda x: ops.rot90(x, axes=(1, 2)),
    "ScaleAndTranslate": lambda x: ops.image.scale_and_translate(
        x, (8, 4, 4, 3), np.array([0.5]), np.array([0.2]), (3,), "linear"
    ),
    "MultiHot": lambda x: ops.multi_hot(ops.minimum(_whole(x), 8), 9),
    "OneHot": lambda x: ops.one_hot(ops.minimum(_whole(x), 8), 9),
    "Scatter": lambda x: ops.scatter(np.arange(8)[:, None], x, (9, 6, 6)),
    "ScatterUpdate": lambda x: ops.scatter_update(
        x, np.array([[0, 0, 5]]), np.array([1.0])
    ),
    "Slice": lambda x: ops.slice(x, (0, 0, 1), (8, 6, 3)),
    "SliceUpdate": lambda x: ops.slice_update(x, (0, 0, 0), np.ones((8, 6, 2))),
    "TakeAlongAxis": lambda x: ops.take_along_axis(x, np.full((8, 6, 2), 5), axis=-1),
    "UnravelIndex": lambda x: ops.unravel_index(_whole(ops.ravel(x)), (10, 10))[0],
    "Append": lambda x: ops.append(x, np.ones((8, 6, 2)), axis=-1),
    "Linspace": lambda x: ops.linspace(x, 1.0, 3, axis=-1),
    "Logspace": lambda x: ops.logspace(x, 1.0, 3, axis=-1),
    "Meshgrid": lambda x: ops.meshgrid(x[0], x[0])[0],
    "SobelEdges": lambda x: ops.image.sobel_edges(x),
    "Vander": lambda x: ops.vander(x[0], 3),
    "Ravel": lambda x: ops.ravel(x),
    "Diag": lambda x: ops.diag(x[0]),
    "Diagflat": lambda x: ops.diagflat(x),
    "Diagonal": lambda x: ops.diagonal(x, axis1=1, axis2=2),
    "Trace": lambda x: ops.trace(x, axis1=1, axis2=2),
    "Tril": lambda x: ops.tril(x),
    "Triu": lambda x: ops.triu(x),
}
WHOLE = {
    "FFT": lambda x: ops.fft((x, ops.zeros_like(x)))[0],
    "FFT2": lambda x: ops.fft2((x, ops.zeros_like(x)))[0],
    "IFFT2": lambda x: ops.ifft2((x, ops.zeros_like(x)))[0],
    "RFFT": lambda x: ops.rfft(x)[0],
    "IRFFT": lambda x: ops.irfft((x, ops.zeros_like(x))),
    "STFT": lambda x: ops.stft(ops.reshape(x, (8, 36)), 8, 4, 8)[0],
    "ISTFT": lambda x: ops.istft((x, ops.zeros_like(x)), 10, 4, 10),
    "Polar": lambda x: ops.real(ops.polar(x[..., ::-1], x)),
    "View": lambda x: ops.view(ops.round(4 * x), "int16"),
    "ViewAsComplex": lambda x: ops.real(
        ops.view_as_complex(ops.reshape(ops.cast(x, "float32"), (8, 6, 3, 2)))
    ),
    "ViewAsReal": lambda x: ops.view_as_real(ops.cast(x, "complex128")),
    "Cholesky": lambda x: ops.cholesky(_square(x)),
    "CholeskyInverse": lambda x: ops.cholesky_inverse(ops.tril(_square(x))),
    "Det": lambda x: ops.det(_square(x)),
    "Eig": lambda x: ops.sum(ops.abs(ops.eig(_square(x))[0]), axis=-1),
    "Eigh": lambda x: ops.eigh(_square(x))[0],
    "Inv": lambda x: ops.inv(_square(x)),
    "Logdet": lambda x: ops.logdet(_square(x)),
    "Lstsq": lambda x: ops.lstsq(ops.mean(_square(x), axis=0), np.ones(6)),
    "LuFactor": lambda x: ops.lu_factor(_square(x)[0])[0],
    "MatrixRank": lambda x: ops.linalg.matrix_rank(_square(x)),
    "Pinv": lambda x: ops.pinv(_square(x)),
    "Qr": lambda x: ops.qr(_square(x))[1],
    "SVD": lambda x: ops.svd(_square(x), compute_uv=False),
    "Slogdet": lambda x: ops.slogdet(_square(x))[1],
    "Solve": lambda x: ops.solve(_square(x), np.ones((8, 6, 1))),
    "SolveTriangular": lambda x: ops.solve_triangular(
        _square(x), np.ones((8, 6, 1)), lower=True
    ),
    "AssociativeScan": lambda x: ops.associative_scan(
        lambda a, b: a * b + 1.0, x, axis=-1
    ),
    "Cond": lambda x: ops.cond(
        ops.all(x != 0.0), lambda: ops.ones(3), lambda: ops.zeros(3)
    ),
    "ForiLoop": lambda x: ops.fori_loop(0, 2, lambda i, y: ops.softmax(y), x),
    "Map": lambda x: ops.map(ops.softmax, x),
    "Scan": lambda x: ops.scan(lambda c, y: (c + y, ops.softmax(c)), x[0], x)[1],
    "Switch": lambda x: ops.switch(1, [ops.sort, ops.softmax], x),
    "VectorizedMap": lambda x: ops.vectorized_map(ops.softmax, x),
    "WhileLoop": lambda x: ops.while_loop(
        lambda y: ops.sum(y) < 60.0, lambda y: (ops.softmax(y) + 2.0,), (x,)
    )[0],
    "JVP": lambda x: ops.jvp(ops.softmax, (x,), (x,))[1],
}
OPERATIONS = MIXING | COUNTING | MOVING | WHOLE


def call_of(kind):
    """The example of a barrier; None if there is none."""
    known = LAYERS if issubclass(kind, keras.Layer) else OPERATIONS
    return known.get(kind.__name__)
