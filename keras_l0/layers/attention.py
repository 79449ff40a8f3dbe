"""Gated attention: its heads have gates, in front of the output projection."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_l0.layers.gate import L0Gate
from keras_l0.layers.gated import Gated

# To a type checker the mixin is what it is mixed into.
if TYPE_CHECKING:
    _Base = Gated
else:
    _Base = object


_DIMS = """\
Whether dimensions of heads have gates as well, each for all heads at once, so
        that `keras_l0.strip` makes heads smaller. A weight that two gates switch is
        charged by both; a `regularizers.L0` with ``l2`` decays weights by their heads'
        gates only."""


class _GatedHeads(_Base):
    """Mixin: the gates are inside of the layer, between attention and projection.

    Gates on dimensions multiply the queries (for query and key, whose dimensions meet
    in a product) and what attention makes of the values.
    """

    gate_arguments = {"gate_dims": (False, bool, _DIMS)}
    # Roles whose last axes one gate switches, by the gate's name.
    dim_roles: dict[str, tuple[str, ...]]

    def __init__(self, *args: Any, gate_dims: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(gate_dims, bool):
            raise TypeError(
                f"`gate_dims` of {self.name!r} must be True or False. "
                f"Received: gate_dims={gate_dims!r}"
            )
        self.gate_dims = gate_dims
        # Of values, and of queries and keys: the same gate, if they are one size.
        self.dim_gates = [self._dim_gate(name) for name in self.dim_roles if gate_dims]

    def _dim_gate(self, name: str) -> L0Gate:
        l0 = self.gate.regularizer.l0
        options, dtype = self.gate.options, self.dtype_policy
        trainable = self.gate.trainable
        return L0Gate(
            -1, l0, options=options, dtype=dtype, trainable=trainable, name=name
        )

    @property
    def gates(self) -> list[L0Gate]:
        return [self.gate, *self.dim_gates]

    @property
    def head_shape(self) -> tuple[int, ...]:
        """The sizes of heads and their features as the gate takes them; gates first."""
        raise NotImplementedError

    @property
    def gates_outputs(self) -> bool:
        return False

    @property
    def gated_axis(self) -> int:
        return -len(self.head_shape)

    def build(  # type: ignore[override]
        self, query_shape: Any, value_shape: Any, key_shape: Any = None
    ) -> None:
        super(Gated, self).build(query_shape, value_shape, key_shape)
        if not self.gate.built:
            switched = sum(math.prod(w.shape) for w in self.switched_weights())
            self.gate.build((*query_shape[:-1], *self.head_shape))
            self.charge(switched / self.gate.count)
        for gate, roles in zip(self.dim_gates, self.dim_roles.values(), strict=False):
            if not gate.built:
                self._build_dims(gate, roles)

    def _build_dims(self, gate: L0Gate, roles: tuple[str, ...]) -> None:
        projections = {
            "query": self._query_dense,
            "key": self._key_dense,
            "value": self._value_dense,
            "gate": getattr(self, "_gate_dense", None),
            "output": self._output_dense,
        }
        bias = self._output_dense.bias
        weights = [
            weight
            for role in roles
            for weight in getattr(projections[role], "weights", ())
            if weight is not bias
        ]
        dims = (
            self.head_shape[-1]
            if "value" in roles
            else self._key_dense.kernel.shape[-1]
        )
        gate.build((None, dims))
        gate.cost = sum(math.prod(w.shape) for w in weights) / dims

    def switched_weights(self) -> list[Any]:
        # The output's bias is there whichever heads are.
        bias = self._output_dense.bias
        return [w for w in super().switched_weights() if w is not bias]

    def by_unit(self, weight: Any) -> Any:
        axis = 0 if weight is self._output_dense.kernel else len(weight.shape) - 2
        shape = weight.shape
        shape = (*shape[:axis], self.head_shape[0], -1, *shape[axis + 1 :])
        return super().by_unit(ops.moveaxis(ops.reshape(weight, shape), axis, -1))

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: bool | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        plain = super()._compute_attention
        if self.dim_gates:
            query = query * self.dim_gates[-1].values(ops.shape(query), training)

        def attend(query: Any, key: Any, value: Any) -> list[Any]:
            results = plain(
                query, key, value, attention_mask, training, *args, **kwargs
            )
            return [tensor for tensor in results if tensor is not None]

        # Between the projections, which rematerialize on their own. What is drawn, as
        # for dropout, would be drawn once more.
        if training and self._dropout_layer.rate:
            output, *scores = attend(query, key, value)
        else:
            output, *scores = self.rematerialized(attend, query, key, value, inputs=3)
        if self.dim_gates:
            # Drawn for the queries already, if it is the same gate.
            gate, again = self.dim_gates[0], len(self.dim_gates) == 1
            output = output * gate.values(ops.shape(output), training, again)
        shape = ops.shape(output)
        heads = ops.reshape(output, (*shape[:-2], *self.head_shape))
        output = ops.reshape(self.gate.call(heads, training), shape)
        return output, scores[0] if scores else None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gate_dims": self.gate_dims}


@keras.saving.register_keras_serializable(package="keras_l0")
class L0MultiHeadAttention(_GatedHeads, Gated, keras.layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` with one gate per head.

    A gate multiplies what its head hands to the output projection. One head switches
    its part of all projections; the output's bias belongs to none. ``gate_dims`` adds a
    gate per dimension of the values, and one per dimension of queries and keys.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0MultiHeadAttention(4, 2, l0=1e-5)
        >>> x = keras.ops.ones((2, 5, 3))
        >>> tuple(layer(x, x).shape)
        (2, 5, 3)
        >>> layer.gate.cost  # 3 * (3 * 2 + 2) into the head, and 2 * 3 out of it
        30.0
    """

    call = keras.layers.MultiHeadAttention.call
    dim_roles = {
        "value_gate": ("value", "gate", "output"),
        "key_gate": ("query", "key"),
    }

    @property
    def head_shape(self) -> tuple[int, ...]:
        return self.num_heads, self.value_dim


@keras.saving.register_keras_serializable(package="keras_l0")
class L0GroupQueryAttention(_GatedHeads, Gated, keras.layers.GroupQueryAttention):
    """`keras.layers.GroupQueryAttention` with one gate per key/value head.

    A gate multiplies what the query heads of its group hand to the output projection:
    they share a key/value head, and go together. One group switches its part of all
    projections; the output's bias belongs to none. ``gate_dims`` adds a gate per
    dimension of heads, for queries, keys and values at once: all are of one size.

    Example:
        >>> import keras, keras_l0
        >>> layer = keras_l0.layers.L0GroupQueryAttention(
        ...     head_dim=2, num_query_heads=4, num_key_value_heads=2, l0=1e-5)
        >>> x = keras.ops.ones((2, 5, 3))
        >>> tuple(layer(x, x).shape)
        (2, 5, 3)
        >>> layer.gate.count, layer.gate.cost
        (2, 44.0)
    """

    call = keras.layers.GroupQueryAttention.call
    # Keras has one size for the heads of queries, keys and values.
    dim_roles = {"dim_gate": ("query", "key", "value", "gate", "output")}

    @property
    def head_shape(self) -> tuple[int, ...]:
        return self.num_key_value_heads, self.num_repeats, self.head_dim
