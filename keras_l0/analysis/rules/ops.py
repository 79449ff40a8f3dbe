"""Rules of raw operations (``keras.ops`` in a functional graph), and barriers."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from keras_l0.analysis.arrays import float64
from keras_l0.analysis.facts import Atoms, Channels
from keras_l0.analysis.rules.arithmetic import (
    ExtremeRule,
    ProductRule,
    QuotientRule,
    SubtractRule,
    SumRule,
)
from keras_l0.analysis.rules.base import Barrier, Rule
from keras_l0.analysis.rules.elementwise import ElementwiseRule
from keras_l0.analysis.rules.merge import ConcatenateRule, StackRule
from keras_l0.analysis.rules.moves import (
    BroadcastRule,
    ExpandDimsRule,
    FlipRule,
    GetItemRule,
    OrderRule,
    PadRule,
    RepeatRule,
    RollRule,
    SqueezeRule,
    TakeRule,
    TileRule,
)
from keras_l0.analysis.rules.operands import ArithmeticRule, PartialRule
from keras_l0.analysis.rules.pooling import PoolingRule
from keras_l0.analysis.rules.reduction import (
    AlongRule,
    ReductionRule,
    SegmentRule,
    SpreadRule,
    SumOverRule,
)
from keras_l0.analysis.rules.registry import register_barrier, register_strip_rule
from keras_l0.analysis.rules.shape import ReshapeRule
from keras_l0.analysis.rules.spatial import (
    PaddingRule,
    ResizingRule,
    SpatialRule,
    WarpingRule,
)
from keras_l0.analysis.rules.splits import SplitRule, UnstackRule


class UnaryRule(ElementwiseRule):
    """A function of one tensor, element by element."""

    def function(self, values: np.ndarray) -> np.ndarray:
        dtype = self.node.inputs[0].dtype
        if not keras.backend.is_float_dtype(dtype):
            values = np.nan_to_num(values).astype(dtype)
        result = self.node.call(self.layer, [ops.convert_to_tensor(values)])
        return float64(result)


class ClipRule(UnaryRule):
    """Numbers between two bounds, the same for all elements."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        if np.size(self.layer.x_min) > 1 or np.size(self.layer.x_max) > 1:
            raise Barrier("its bounds differ by element")
        return super().connect(atoms)


class HomogeneousRule(UnaryRule):
    """``f(s * x) == s * f(x)`` for every s > 0."""

    @property
    def passes_scale(self) -> bool:
        config = self.layer.get_config()
        return config.get("max_value") is None and not config.get("threshold")


class PartialUnaryRule(UnaryRule):
    """A function that is not finite everywhere."""

    total = False


class CastRule(UnaryRule):
    """Another dtype; a scale may wait behind it if floats stay floats."""

    @property
    def passes_scale(self) -> bool:
        tensors = (*self.node.inputs, *self.node.outputs)
        return all(keras.backend.is_float_dtype(t.dtype) for t in tensors)


# By the names of their classes: which of them there are depends on the Keras installed.
_RULES: dict[type[Rule], str] = {
    HomogeneousRule: "Absolute Copy Fabs LeakyRelu Negative ReLU Relu StopGradient",
    ClipRule: "Clip",
    CastRule: "Array Cast ConvertToTensor",
    PartialUnaryRule: (
        "Arccos Arccosh Arcsin Arctanh Cbrt Erfinv Log Log10 Log1p Log2 Reciprocal "
        "Rsqrt Sqrt Tan"
    ),
    UnaryRule: (
        "Angle Arcsinh Arctan BitwiseInvert BitwiseNot Ceil Celu Conjugate Cos "
        "Cosh Deg2rad Digitize Elu Erf Erfc Exp Exp2 Expm1 Floor FullLike Gelu "
        "HardShrink HardSigmoid HardSilu HardTanh I0 Imag IsIn Isfinite Isinf Isnan "
        "Isneginf Isposinf Isreal LogSigmoid LogicalNot NanToNum OnesLike Rad2deg "
        "Real Relu6 Round SaturateCast Selu Sigmoid Sign Silu Sin Sinc Sinh "
        "SoftShrink Softplus Softsign SparsePlus SparseSigmoid Square Squareplus Tanh "
        "TanhShrink Threshold Trunc ZerosLike"
    ),
    SumRule: "Add",
    SubtractRule: "Subtract",
    ProductRule: "Multiply",
    QuotientRule: "Divide TrueDivide",
    ExtremeRule: "Maximum Minimum",
    PartialRule: (
        "BinaryCrossentropy DivideNoNan FloorDivide Fmod Ldexp Mod Nextafter Power"
    ),
    ArithmeticRule: (
        "BitwiseAnd BitwiseLeftShift BitwiseOr BitwiseRightShift BitwiseXor Equal Fmax "
        "Fmin Gcd Greater GreaterEqual Heaviside Hypot Isclose Lcm LeftShift Less "
        "LessEqual LogicalAnd LogicalOr LogicalXor Logaddexp Logaddexp2 NotEqual "
        "RightShift Select Where"
    ),
    ReductionRule: "Amax Amin Max Mean Min",
    SumOverRule: "Sum",
    SpreadRule: "Std Var",
    SegmentRule: "SegmentMax SegmentMin SegmentProd SegmentSum",
    AlongRule: (
        "All Any CountNonzero Cumprod Cumsum Diff Logsumexp Median Nancumprod "
        "Nancumsum Nanmax Nanmean Nanmedian Nanmin Nanprod Nanstd Nansum Nanvar Norm "
        "Prod Ptp Sort Trapezoid"
    ),
    ConcatenateRule: "Concatenate Dstack Hstack Vstack",
    StackRule: "Stack",
    ReshapeRule: "Reshape",
    OrderRule: "Moveaxis Swapaxes Transpose",
    ExpandDimsRule: "ExpandDims",
    SqueezeRule: "Squeeze",
    GetItemRule: "GetItem",
    TakeRule: "Take",
    FlipRule: "Flip Fliplr Flipud",
    RollRule: "Roll",
    RepeatRule: "Repeat",
    TileRule: "Tile",
    BroadcastRule: "BroadcastTo",
    SplitRule: "ArraySplit Dsplit Hsplit Split Vsplit",
    UnstackRule: "Unstack",
    PadRule: "Pad",
    SpatialRule: "CropImages",
    PaddingRule: "PadImages",
    PoolingRule: "AveragePool MaxPool",
    ResizingRule: "Resize",
    WarpingRule: "AffineTransform ElasticTransform GaussianBlur PerspectiveTransform",
}
_BARRIERS: dict[str, str] = {
    "it normalizes over all channels": (
        "BatchNorm LayerNorm LogSoftmax Normalize RMSNorm Softmax Sparsemax"
    ),
    "it gates one half of the channels by the other": "Glu",
    "it sums products over an axis": (
        "CDist Conv ConvTranspose Correlate Corrcoef Cross DepthwiseConv Dot "
        "DotProductAttention Einsum Inner Kron Matmul Outer SeparableConv Tensordot "
        "Vdot"
    ),
    "it counts, orders or compares all channels at once": (
        "AllClose Argpartition Argsort Bincount Histogram InTopK SearchSorted Size "
        "TopK Unique Nonzero"
    ),
    "it tells -0.0, which a closed gate may make, from 0.0": (
        "Arctan2 Argmax Argmin Nanargmax Nanargmin Signbit"
    ),
    "it takes a mean, a loss or quantiles of all channels": (
        "Average CTCDecode CTCLoss CategoricalCrossentropy Moments Nanpercentile "
        "Nanquantile PSNR Percentile Quantile SSIM SparseCategoricalCrossentropy"
    ),
    "it mixes the three colours": "HSVToRGB RGBToGrayscale RGBToHSV",
    "it moves elements between positions and channels": (
        "DepthToSpace ExtractPatches ExtractSequences Fold MapCoordinates Rearrange "
        "Rot90 ScaleAndTranslate SpaceToDepth Unfold"
    ),
    "it takes or places elements by their numbers": (
        "MultiHot OneHot Scatter ScatterUpdate Slice SliceUpdate TakeAlongAxis "
        "UnravelIndex"
    ),
    "it joins or splits along a fixed axis, or makes a new one": (
        "Append Geomspace Linspace Logspace Meshgrid SobelEdges Vander"
    ),
    "it merges the batch with other axes": "Ravel",
    "it reads or makes diagonals": "Diag Diagflat Diagonal Trace Tril Triu",
    "it transforms whole sequences": ("FFT FFT2 IFFT2 IRFFT ISTFT RFFT STFT"),
    "it reads the bits, or pairs of channels as complex numbers": (
        "Polar View ViewAsComplex ViewAsReal"
    ),
    "it computes with whole matrices": (
        "Cholesky CholeskyInverse Det Eig Eigh Inv Logdet Lstsq LuFactor MatrixRank "
        "Pinv Qr SVD Slogdet Solve SolveTriangular"
    ),
    "it runs a function of its own": (
        "AssociativeScan Cond ForiLoop JVP Map Scan Switch VectorizedMap WhileLoop"
    ),
}


def _subclasses(kind: type) -> Iterator[type]:
    subclass: type
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


OPERATIONS = {
    kind.__name__: kind
    for kind in _subclasses(keras.Operation)
    if kind.__module__.startswith(("keras.src.ops.", "keras.src.activations."))
}


def _named(names: str) -> list[type]:
    """The operations of these names that this Keras has."""
    return [OPERATIONS[name] for name in names.split() if name in OPERATIONS]


for _rule, _names in _RULES.items():
    register_strip_rule(*_named(_names))(_rule)
for _reason, _names in _BARRIERS.items():
    register_barrier(_reason, *_named(_names))
