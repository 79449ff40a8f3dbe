"""Quantization-aware training, by tensorflow-model-optimization and tf_keras."""

from __future__ import annotations

import os
import re
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.graph import require_finite, require_graph
from keras_l0.analysis.rounding import Disagreement, agree
from keras_l0.export.c_array import check_c_path
from keras_l0.export.convert import convert, freeze
from keras_l0.export.deliver import Delivery
from keras_l0.export.options import Options
from keras_l0.export.prepare import (
    check_packages,
    class_indices,
    comparison_batch,
    plain_form,
)
from keras_l0.export.report import ExportReport
from keras_l0.export.signature import Signature
from keras_l0.export.silence import silence
from keras_l0.export.tf_keras_twin import Twin, build_twin
from keras_l0.export.verify import Limits
from keras_l0.files import check_destination
from keras_l0.layers import find_gates
from keras_l0.packages import required


class QuantizeAware:
    """A network that trains under the rounding of 8 bits, made by `quantize_aware`.

    The example is there.

    Attributes:
        model: The tf_keras model that tensorflow-model-optimization wrapped.
    """

    def __init__(self, plain: keras.Model, twin: Twin, model: Any) -> None:
        self._plain = plain
        self._twin = twin
        self.model = model

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As in Keras; optimizers, losses and metrics by name, or those of tf_keras."""
        for value in keras.tree.flatten([args, kwargs]):
            if type(value).__module__.startswith("keras."):
                raise TypeError(
                    "Quantization-aware training runs in tf_keras: give names, or "
                    f"objects of tf_keras. Received: {value!r} of Keras 3"
                )
        self.model.compile(*args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As in Keras. Training also measures the ranges: a file takes some of it."""
        return self.model.fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As in Keras, with the rounding."""
        return self.model.evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As in Keras, with the rounding."""
        return self.model.predict(*args, **kwargs)

    def to_keras(self) -> keras.Model:
        """The network with the trained weights, back in Keras 3, without rounding."""
        model = keras.models.clone_model(self._plain)
        found = {
            variable.name: variable.numpy()
            for layer in self.model.layers
            for variable in layer.weights
        }
        self._twin.return_weights(model, found)
        return model

    def to_tflite(
        self,
        path: str | os.PathLike[str],
        *,
        data: Any = None,
        labels: Any = None,
        verify: bool = True,
        max_error: float = 0.5,
        min_top1: float = 0.0,
        io_dtype: str | None = None,
        target: str | None = None,
        c_array: str | os.PathLike[str] | None = None,
    ) -> ExportReport:
        """Writes a file of 8 bits throughout, which takes no representative data.

        It is compared with what this network answers under rounding. Its batch is 1.

        Args:
            path: The file to write.
            data: As in `keras_l0.to_tflite`, like all that follow.
            labels: The class of each example of ``data``.
            verify: Whether to compare the file with this network.
            max_error: The largest error that is allowed.
            min_top1: The smallest share of equal answers that is allowed.
            io_dtype: The dtype of inputs and outputs.
            target: What the file is to run on.
            c_array: A C++ source to write beside it.

        Returns:
            An `ExportReport`.

        Raises:
            ValueError, OSError, ExportError: As `keras_l0.to_tflite`.
        """
        destination = check_destination(path)
        limits = Limits(max_error, min_top1)
        options = Options("int8", io_dtype, target=target)
        c_path = None if c_array is None else check_c_path(c_array, destination)
        signature = Signature.of(self._plain)
        batch = comparison_batch(self._plain, data, signature.inputs)
        frozen = freeze(self.model, signature, options.batch_size)
        return Delivery(
            path=destination,
            c_path=c_path,
            model=self._plain,
            signature=signature,
            options=options,
            batch=batch,
            classes=class_indices(self._plain, data, labels, len(batch[0])),
            expected=self._outputs,
            verify=verify,
            limits=limits,
        ).deliver(convert(frozen, signature, options, None))

    def _outputs(self, batch: list[np.ndarray]) -> list[np.ndarray]:
        return _predict(self.model, batch)


def quantize_aware(model: keras.Model) -> QuantizeAware:
    """A network that can be trained to live with 8 bits.

    It is rebuilt in tf_keras layer by layer with its weights, and wrapped by
    tensorflow-model-optimization, which rounds weights and activations in training as
    an 8-bit file does. Compile it, fit it for a few epochs at a low learning rate, and
    export it.

    Args:
        model: A plain float model: strip it first. It is left as it is.

    Returns:
        A `QuantizeAware`, with ``compile``, ``fit``, ``evaluate``, ``predict``,
        ``to_tflite`` and ``to_keras``.

    Raises:
        ImportError: If the extra ``tfmot`` is not installed.
        TypeError: If ``model`` is not a Keras model.
        ValueError: If it has gates, no readable graph, or a layer that cannot be
            quantized, which is named.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> network = keras_l0.quantize_aware(model)  # doctest: +SKIP
        >>> network.compile("adam", "mse")  # doctest: +SKIP
        >>> _ = network.fit(x, y)  # doctest: +SKIP
        >>> print(network.to_tflite("small.tflite"))  # doctest: +SKIP
    """
    require_graph(model)
    if find_gates(model):
        raise ValueError(
            "`model` must be without gates: pass keras_l0.strip(model). "
            f"Received: {model.name!r} with gates"
        )
    require_finite(model)
    check_packages()
    tfmot = _tfmot()
    plain, _ = plain_form(model, "keep", Options())
    twin = build_twin(plain)
    _require_equal(plain, twin)
    with silence():
        try:
            wrapped = tfmot.quantization.keras.quantize_model(twin.model)
        except (RuntimeError, ValueError) as error:
            found = re.search(r"Layer (\S+?):<class '.*?(\w+)'> is not", str(error))
            what = f"{found[1]!r} ({found[2]})" if found else str(error)
            raise ValueError(
                "tensorflow-model-optimization cannot quantize the layer "
                f"{what} of model {model.name!r} where it stands. Replace it, or "
                "quantize after training: to_tflite(model, path, 'int8', data)."
            ) from error
    return QuantizeAware(plain, twin, wrapped)


def _tfmot() -> Any:
    what = "Quantization-aware training"
    with silence():
        required("tf_keras", what, "tfmot")
        return required("tensorflow_model_optimization", what, "tfmot")


def _predict(model: Any, batch: list[np.ndarray]) -> list[np.ndarray]:
    packed = keras.tree.pack_sequence_as(model.input, batch)
    with silence():
        return keras.tree.flatten(model.predict(packed, verbose=0))


def _require_equal(plain: keras.Model, twin: Twin) -> None:
    batch = comparison_batch(plain)
    try:
        agree(plain, batch, _predict(twin.model, batch), plain.output_names, "its twin")
    except Disagreement as error:
        raise ValueError(
            f"Model {plain.name!r} is another function in tf_keras: {error}"
        ) from error
