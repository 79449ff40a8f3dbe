"""A recurrence under a mask that is drawn elsewhere, one for several places."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_l0.layers.gated import replaced
from keras_l0.layers.shared import chosen_gates, require_gate_each, validated_indices

_PLAIN = (keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU)


@keras.saving.register_keras_serializable(package="keras_l0")
class L0RecurrentSwitch(keras.layers.Wrapper):
    """A recurrent layer whose units are gated inside, by an `L0SharedGate`.

    What `L0Switch` is to a tensor: the units of a recurrence that are added to other
    channels, or handed on as states to another recurrence, go together with these, so
    they need one mask. Both directions of a Bidirectional follow it.

    Args:
        layer: `keras.layers.SimpleRNN`, `LSTM`, `GRU`, or a `Bidirectional` of two of
            them, the outputs of which are concatenated or apart.
        indices: For each unit the number of its gate; None if gates and units are in
            the same order.
        **kwargs: `name`, `dtype`, `trainable` as for every Keras layer.

    Call arguments:
        sequences: What the layer takes.
        gates: The output of an `L0SharedGate`, without noise per example.
        initial_state: As the layer takes it.
        mask: As the layer takes it.
        training: Passed on to the layer.

    Output shape:
        That of the layer. States that it returns are gated as its output is.

    Raises:
        TypeError: If ``layer`` is another one, or ``indices`` of the wrong type.
        ValueError: If there is not one gate for each unit, or gates for each example.

    Example:
        >>> import keras, keras_l0
        >>> from keras_l0.layers import L0RecurrentSwitch, L0SharedGate, L0Switch
        >>> x = keras.Input((6, 4))
        >>> z = L0SharedGate(3, l0=1e-4)(x)
        >>> h = L0Switch()(keras.layers.Dense(3)(x), z)
        >>> gru = L0RecurrentSwitch(keras.layers.GRU(3, return_sequences=True))
        >>> y = keras.layers.Dense(2)(keras.layers.Add()([h, gru(h, z)]))
        >>> model = keras.Model(x, y)
        >>> keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, 9.0])
        >>> keras_l0.strip(model).layers[2].units
        2
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        indices: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        inner = _directions(layer)
        if not inner or not all(type(one) in _PLAIN for one in inner):
            raise TypeError(
                f"`layer` of {self.name!r} must be a SimpleRNN, an LSTM, a GRU or a "
                f"Bidirectional of these. Received: {layer!r}"
            )
        if getattr(layer, "merge_mode", None) not in (None, "concat"):
            raise ValueError(
                f"`layer` of {self.name!r} must keep both directions apart, with "
                f"merge_mode 'concat' or None. Received: {layer.merge_mode!r}"
            )
        self.indices = validated_indices(indices)
        self.supports_masking = True

    @property
    def units(self) -> int:
        """Units of the recurrence, of each direction if there are two."""
        return _directions(self.layer)[0].units

    def build(
        self, sequences_shape: Any, gates_shape: Any, initial_state_shape: Any = None
    ) -> None:
        if gates_shape[0] != 1:
            raise ValueError(
                f"`gates` of {self.name!r} must be drawn once per batch: they multiply "
                "the recurrent kernel, which all examples share. "
                f"Received: gates of shape {tuple(gates_shape)}"
            )
        require_gate_each(self, self.units, gates_shape[-1])
        if not self.layer.built:
            self.layer.build(sequences_shape)
        self.built = True

    def call(
        self,
        sequences: Any,
        gates: Any,
        initial_state: Any = None,
        mask: Any = None,
        sequences_mask: Any = None,
        training: bool | None = False,
    ) -> Any:
        if mask is None and initial_state is None:
            # Keras passes it on by the name of the first of two tensors.
            mask = sequences_mask
        z = chosen_gates(gates, self.indices)[0]
        with contextlib.ExitStack() as stack:
            for one in _directions(self.layer):
                kernel = ops.cast(one.cell.recurrent_kernel, one.compute_dtype)
                rows = ops.cast(z, kernel.dtype)[:, None]
                stack.enter_context(
                    replaced(one.cell, "recurrent_kernel", kernel * rows)
                )
            outputs = self.layer(
                sequences, initial_state=initial_state, mask=mask, training=training
            )

        def gated(y: Any) -> Any:
            times = y.shape[-1] // self.units
            return y * ops.cast(ops.tile(z, [times]), y.dtype)

        return keras.tree.map_structure(gated, outputs)

    def compute_output_spec(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(sequences)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return self.layer.compute_mask(inputs, previous_mask)

    def reset_state(self) -> None:
        """Makes a stateful recurrence start anew."""
        self.layer.reset_state()

    # Keras has it by both names.
    reset_states = reset_state

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "indices": self.indices}


def _directions(layer: Any) -> list[Any]:
    """The recurrent layers in one: itself, or both directions."""
    if type(layer) is keras.layers.Bidirectional:
        return [layer.forward_layer, layer.backward_layer]
    return [layer]
