"""The families of keras.applications with few blocks and narrow layers."""

from keras import applications
from keras.src.applications import (
    convnext,
    densenet,
    efficientnet,
    efficientnet_v2,
    resnet,
)

# What all of them take.
COMMON = {
    "weights": None,
    "input_shape": (32, 32, 3),
    "classes": 3,
    "classifier_activation": None,
}


def residual(stack, preact):
    def stacks(x):
        x = stack(x, 4, 2, stride1=1, name="conv2")
        return stack(x, 6, 2, name="conv3")

    return resnet.ResNet(stacks, preact, use_bias=True, **COMMON)


FAMILIES = {
    "ResNet small": lambda: residual(resnet.stack_residual_blocks_v1, preact=False),
    "ResNetV2 small": lambda: residual(resnet.stack_residual_blocks_v2, preact=True),
    "DenseNet small": lambda: densenet.DenseNet([1, 2, 1, 1], **COMMON),
    "MobileNet small": lambda: applications.MobileNet(
        alpha=0.25, depth_multiplier=2, **COMMON
    ),
    "EfficientNet small": lambda: efficientnet.EfficientNet(
        0.5, 1, 32, blocks_args=efficientnet.DEFAULT_BLOCKS_ARGS[:2], **COMMON
    ),
    "EfficientNetV2 small": lambda: efficientnet_v2.EfficientNetV2(
        0.5,
        0.5,
        32,
        blocks_args=efficientnet_v2.DEFAULT_BLOCKS_ARGS["efficientnetv2-b0"][1:4],
        **COMMON,
    ),
    "ConvNeXt small": lambda: convnext.ConvNeXt(
        [1, 1, 1, 1], [8, 12, 16, 20], **COMMON
    ),
}
