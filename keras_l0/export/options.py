"""What the converter is asked for."""

from __future__ import annotations

import dataclasses

from keras_l0.arguments import check_field, require_integer, require_one_of
from keras_l0.budget import WEIGHT_BYTES

QUANTIZATIONS = tuple(WEIGHT_BYTES)
IO_DTYPES = ("float32", "int8", "uint8")
ALLOWED = ("float", "flex")
ETHOS_U = (
    "ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256",
    "ethos-u65-256", "ethos-u65-512",
    "ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024",
    "ethos-u85-2048",
)  # fmt: skip
TARGETS = (None, "edgetpu", "micro", "ethos-u", *ETHOS_U)


@dataclasses.dataclass(frozen=True)
class Options:
    """How a model becomes a file.

    Attributes:
        quantization: One of `QUANTIZATIONS`.
        io_dtype: Of a fully quantized file, the dtype of what is float in Keras' inputs
            and outputs. Default: ``"int8"`` for a target, else ``"float32"``.
        batch_size: Examples per inference; None leaves it open.
        allow: What is tolerated in the file, of `ALLOWED`.
        target: One of `TARGETS`, what the file is to run on.
        sparse: Whether weights that are mostly 0 are stored without the zeros.
    """

    quantization: str | None = None
    io_dtype: str | None = None
    batch_size: int | None = 1
    allow: tuple[str, ...] = ()
    target: str | None = None
    sparse: bool = False

    def __post_init__(self) -> None:
        if self.io_dtype is None:
            default = "int8" if self.int8 and self.target else "float32"
            object.__setattr__(self, "io_dtype", default)
        for name, value, known in (
            ("quantization", self.quantization, QUANTIZATIONS),
            ("io_dtype", self.io_dtype, IO_DTYPES),
            ("target", self.target, TARGETS),
        ):
            require_one_of(name, value, known)
        if not self.int8 and self.io_dtype != "float32":
            raise ValueError(
                "`io_dtype` must be 'float32' without quantization='int8': other files "
                f"compute in float32. Received: io_dtype={self.io_dtype!r}, "
                f"quantization={self.quantization!r}"
            )
        if self.batch_size is not None:
            what = "None for any number of examples per inference, or an integer"
            check_field(self, "batch_size", require_integer, 1, what)
        if not isinstance(self.sparse, bool):
            raise TypeError(
                f"`sparse` must be True or False. Received: sparse={self.sparse!r}"
            )
        if not isinstance(self.allow, (tuple, list, set)) or any(
            item not in ALLOWED for item in self.allow
        ):
            raise ValueError(
                f"`allow` must be a tuple of {' or '.join(map(repr, ALLOWED))}. "
                f"Received: allow={self.allow!r}"
            )
        object.__setattr__(self, "allow", tuple(self.allow))  # a child reads JSON
        if self.sparse and (self.quantization or self.target):
            # With 8 bits XNNPACK fails to load them, with float16 they answer NaN or
            # crash, and TFLite Micro does not read them.
            raise ValueError(
                "`sparse` must be False for quantized files and for targets: such "
                "files do not run, or answer NaN. Received: sparse=True, "
                f"quantization={self.quantization!r}, target={self.target!r}"
            )
        if self.target is not None and self.batch_size is None:
            raise ValueError(
                f"`batch_size` must be a number for target={self.target!r}, which "
                "takes files of a fixed batch. Received: batch_size=None"
            )
        if self.target not in (None, "micro") and not self.int8:
            raise ValueError(
                "`target` must be None or 'micro' without quantization='int8'. "
                f"Received: target={self.target!r}, quantization={self.quantization!r}"
            )

    @property
    def int8(self) -> bool:
        """Whether all that the file computes is to be in 8 bits."""
        return self.quantization == "int8"
