"""The networks that the benchmarks prune: plain Keras, logits, images of 28 x 28."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

SHAPE = (28, 28, 1)
CLASSES = 10


def lenet_300_100() -> keras.Model:
    """LeNet-300-100: two dense layers."""
    return keras.Sequential(
        [
            keras.Input(SHAPE, name="image"),
            layers.Flatten(),
            layers.Dense(300, activation="relu", name="dense1"),
            layers.Dense(100, activation="relu", name="dense2"),
            layers.Dense(CLASSES, name="logits"),
        ],
        name="lenet_300_100",
    )


def lenet_5() -> keras.Model:
    """LeNet-5-Caffe: two convolutions, two dense layers."""
    return keras.Sequential(
        [
            keras.Input(SHAPE, name="image"),
            layers.Conv2D(20, 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(50, 5, activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(500, activation="relu", name="dense"),
            layers.Dense(CLASSES, name="logits"),
        ],
        name="lenet_5",
    )


def _normalized(x: Any, filters: int, size: int, name: str, strides: int = 1) -> Any:
    x = layers.Conv2D(
        filters, size, strides, "same", use_bias=False, name=f"{name}_conv"
    )(x)
    return layers.BatchNormalization(name=f"{name}_norm")(x)


def resnet_20() -> keras.Model:
    """As ResNet-20 for CIFAR-10, 3 x 3 blocks, behind a strided stem."""
    x = image = keras.Input(SHAPE, name="image")
    x = layers.ReLU(name="stem_relu")(_normalized(x, 16, 3, "stem", 2))
    for stage, filters in enumerate((16, 32, 64), 1):
        for block in range(1, 4):
            name = f"stage{stage}_block{block}"
            strides = 2 if stage > 1 and block == 1 else 1
            h = _normalized(x, filters, 3, f"{name}_a", strides)
            h = layers.ReLU(name=f"{name}_relu")(h)
            h = _normalized(h, filters, 3, f"{name}_b")
            if strides > 1:
                x = _normalized(x, filters, 1, f"{name}_skip", strides)
            x = layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, h]))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, layers.Dense(CLASSES, name="logits")(x), name="resnet_20")


def mobilenet_v2() -> keras.Model:
    """As MobileNetV2: inverted residuals, a strided stem, depthwise convolutions."""
    x = image = keras.Input(SHAPE, name="image")
    x = layers.ReLU(6.0, name="stem_relu")(_normalized(x, 16, 3, "stem", 2))
    for number, (filters, strides) in enumerate(
        ((16, 1), (24, 2), (24, 1), (40, 2), (40, 1), (40, 1)), 1
    ):
        name = f"block{number}"
        channels = x.shape[-1]
        h = _normalized(x, 4 * channels, 1, f"{name}_expand")
        h = layers.ReLU(6.0, name=f"{name}_expand_relu")(h)
        h = layers.DepthwiseConv2D(
            3, strides, "same", use_bias=False, name=f"{name}_depthwise"
        )(h)
        h = layers.BatchNormalization(name=f"{name}_depthwise_norm")(h)
        h = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(h)
        h = _normalized(h, filters, 1, f"{name}_project")
        same = strides == 1 and channels == filters
        x = layers.Add(name=f"{name}_add")([x, h]) if same else h
    x = layers.ReLU(6.0, name="head_relu")(_normalized(x, 160, 1, "head"))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    logits = layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(image, logits, name="mobilenet_v2")


def vit_4() -> keras.Model:
    """A vision transformer of 4 blocks on 16 patches of 7 x 7 pixels."""
    width, heads = 64, 4
    x = image = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(width, 7, 7, name="patches")(x)
    x = layers.Reshape((16, width), name="tokens")(x)
    x = _Positions(name="positions")(x)
    for block in range(1, 5):
        name = f"block{block}"
        h = layers.LayerNormalization(name=f"{name}_norm1")(x)
        h = layers.MultiHeadAttention(heads, width // heads, name=f"{name}_heads")(h, h)
        x = layers.Add(name=f"{name}_add1")([x, h])
        h = layers.LayerNormalization(name=f"{name}_norm2")(x)
        h = layers.Dense(4 * width, activation="gelu", name=f"{name}_wide")(h)
        h = layers.Dense(width, name=f"{name}_narrow")(h)
        x = layers.Add(name=f"{name}_add2")([x, h])
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(image, layers.Dense(CLASSES, name="logits")(x), name="vit_4")


@keras.saving.register_keras_serializable(package="keras_l0_benchmarks")
class _Positions(keras.layers.Layer):
    """Adds a learned vector to each position."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.embedding = self.add_weight(
            shape=input_shape[1:],
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )

    def call(self, inputs: Any) -> Any:
        return inputs + self.embedding


def gru() -> keras.Model:
    """A recurrent classifier of the image's rows."""
    return keras.Sequential(
        [
            keras.Input(SHAPE, name="image"),
            layers.Reshape((28, 28), name="rows"),
            layers.GRU(128, name="gru"),
            layers.Dense(CLASSES, name="logits"),
        ],
        name="gru",
    )


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    function.__name__: function
    for function in (lenet_300_100, lenet_5, resnet_20, mobilenet_v2, vit_4, gru)
}
