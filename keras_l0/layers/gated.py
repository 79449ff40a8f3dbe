"""What every gated layer shares: the Keras layer it extends, and one gate behind it."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_l0.layers.gate import L0Gate
from keras_l0.layers.options import GateOptions
from keras_l0.regularizers import Strength

# What the docstring of each gated layer says in front of its example.
_COMMON = """\
Takes every argument of `keras.layers.{name}`, and:

Args:
    l0: Strength of the penalty per parameter: a float >= 0, a schedule of
        `keras_l0.schedules`, or a `regularizers.L0`.
    gate_options: `GateOptions`.{arguments}

Call arguments:
    inputs: What `keras.layers.{name}` takes.
    training: Whether to draw the gates (True) or to use their test-time values.

Output shape:
    That of `keras.layers.{name}`.

Raises:
    TypeError: If an argument is of the wrong type.
    ValueError: If one is out of range, or does not go with the others, or ``dtype`` is
        a quantized policy.

Example:"""

# To a type checker the mixin is what it is mixed into.
if TYPE_CHECKING:
    from keras.layers import Layer as _Layer
else:
    _Layer = object


class Gated(_Layer):
    """Mixin: a Keras layer whose output units (after its activation) are gated.

    A gated layer is declared as ``class L0X(Gated, keras.layers.X)``. Its docstring
    says what one unit is and switches, and counts one example; what all gated layers
    have in common is put in front of the example. It takes every argument of
    ``keras.layers.X`` and two more:

    Args:
        l0: Strength of the penalty per parameter: a float >= 0, a schedule of
            `keras_l0.schedules`, or a `regularizers.L0`. One unit
            switches the weights that produce it, its bias included.
        gate_options: `GateOptions`.
    """

    plain_class: type[keras.layers.Layer]
    # What a gate is charged for instead of the weights of its own that it switches: a
    # number, or one number per gate. It is saved with the layer.
    price: float | list[float] | None = None
    # Further arguments, by name: default, type, and what the docstring says of them.
    gate_arguments: dict[str, tuple[Any, Any, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.plain_class = cls.__mro__[cls.__mro__.index(Gated) + 1]
        if cls.plain_class is object:  # a mixin, to be mixed into a layer
            return
        if cls.__doc__ and cls.__module__.startswith(__package__):
            cls.__doc__ = _completed(cls)
        # The layer's own arguments first, as Keras spells them in this version.
        signature = inspect.signature(cls.plain_class)
        extra = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint
            )
            for name, (default, hint, _) in {
                "l0": (0.0, Strength, ""),
                "gate_options": (None, GateOptions | None, ""),
                **cls.gate_arguments,
            }.items()
        ]
        own = list(signature.parameters.values())
        last = [p for p in own if p.kind is p.VAR_KEYWORD]
        own = [p for p in own if p.kind is not p.VAR_KEYWORD]
        cls.__signature__ = signature.replace(parameters=own + extra + last)

    def __init__(
        self,
        *args: Any,
        l0: Strength = 0.0,
        gate_options: GateOptions | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if self.dtype_policy.quantization_mode is not None:
            raise ValueError(
                f"`dtype` of {self.name!r} must not be a quantized policy: strip the "
                f"model and quantize the result. Received: {self.dtype_policy!r}"
            )
        self.gate = L0Gate(
            axis=self.gated_axis,
            l0=l0,
            options=GateOptions.get(gate_options),
            dtype=self.dtype_policy,
            trainable=self.trainable,
            name="gate",
        )
        self.gate.squares = self.squares

    @property
    def gated_axis(self) -> int | tuple[int, ...]:
        """The axis of `gated_shape` that holds the units."""
        return self.channel_axis

    @property
    def channel_axis(self) -> int:
        """The axis that holds the channels, of the inputs as of the outputs."""
        if getattr(self, "data_format", None) == "channels_first":
            return 1
        return -1

    @property
    def gates(self) -> list[L0Gate]:
        """The layer's gates."""
        return [self.gate]

    @property
    def gates_outputs(self) -> bool:
        """Whether the gate multiplies what the plain layer returns."""
        return True

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if not self.gate.built:
            shape = self.gated_shape(input_shape)
            switched = sum(math.prod(w.shape) for w in self.switched_weights())
            self.gate.build(shape)
            self.charge(switched / self.gate.count)

    def require_one_draw(self, kernel: str) -> None:
        """Raises unless all examples of a batch share the gates: they share a kernel.

        Args:
            kernel: What the gates multiply, for the message.
        """
        noise = self.gate.options.noise
        if noise != "batch":
            raise ValueError(
                f"`gate_options` of {self.name!r} must have noise='batch': the gates "
                f"multiply the {kernel}, which all examples share. "
                f"Received: noise={noise!r}"
            )

    def charge(self, cost: Any) -> None:
        """Sets what a gate is charged for, unless `price` has set it."""
        self.gate.cost = cost if self.price is None else self.price

    def switched_weights(self) -> list[Any]:
        """The layer's weights of which each unit has an equal part."""
        own = {id(w) for gate in self.gates for w in gate.weights}
        # LoRA's factors are merged into the kernel before anything is shipped.
        return [
            w
            for w in self.weights
            if id(w) not in own and not w.name.startswith("lora_")
        ]

    def by_unit(self, weight: Any) -> Any:
        """One of `switched_weights`, of shape (parts, units)."""
        return ops.reshape(weight, (-1, self.gate.count))

    def squares(self) -> Any:
        """For each unit the sum of the squared weights that it switches."""
        dtype = self.gate.raw.dtype
        parts = [ops.cast(self.by_unit(w), dtype) for w in self.switched_weights()]
        return sum(ops.sum(ops.square(part), axis=0) for part in parts)

    def gated_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The shape of what the gate multiplies."""
        return self.compute_output_shape(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        # What a layer does around its `call` has been done for this one.
        return self.gate.call(self.rematerialized(super().call, inputs), training)

    def rematerialized(self, plain: Any, *args: Any, inputs: int = 1) -> Any:
        """What ``plain`` makes of tensors, computed once more for the gradient.

        Only if the layer was made in a `keras.RematScope`.

        Args:
            plain: The function.
            *args: The tensors.
            inputs: How many of them are like the layer's inputs: Keras measures them.
        """
        if self._remat_mode is not None:
            plain = super().rematerialized_call(plain, *args[:inputs])
        return plain(*args)

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        # `call` rematerializes the plain layer only: see the gate.
        return layer_call

    def get_config(self) -> dict[str, Any]:
        return {
            **self.plain_config(),
            "l0": keras.saving.serialize_keras_object(self.gate.regularizer),
            "gate_options": keras.saving.serialize_keras_object(self.gate.options),
            "gates_trainable": [gate.trainable for gate in self.gates],
            **({} if self.price is None else {"gate_price": self.price}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        trainable = config.pop("gates_trainable", [])
        price = config.pop("gate_price", None)
        layer = super().from_config(config)
        layer.price = price
        for gate, one in zip(layer.gates, trainable, strict=False):
            gate.trainable = one
        return layer

    def plain_config(self) -> dict[str, Any]:
        """The config of the same layer without its gate."""
        return super().get_config()


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Lets a layer compute with another value of an attribute, past its tracker."""
    before = owner.__dict__[name]
    owner.__dict__[name] = value
    try:
        yield
    finally:
        owner.__dict__[name] = before


def _completed(cls: type[Gated]) -> str:
    """The docstring of a gated layer with the part that is the same for all."""
    arguments = "".join(
        f"\n    {n}: {text}" for n, (*_, text) in cls.gate_arguments.items()
    )
    common = _COMMON.format(name=cls.plain_class.__name__, arguments=arguments)
    return inspect.cleandoc(cls.__doc__ or "").replace("Example:", common, 1) + "\n"
