"""The families of keras.applications, small: what `benchmarks/strip_zoo.py` proves."""

import importlib
import pathlib

import pytest
from keras import applications
from keras.src.applications import (
    convnext,
    densenet,
    efficientnet,
    efficientnet_v2,
    resnet,
)

import keras_l0
from keras_l0.analysis.graph import trace

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
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
    "ResNet": lambda: residual(resnet.stack_residual_blocks_v1, preact=False),
    "ResNetV2": lambda: residual(resnet.stack_residual_blocks_v2, preact=True),
    "DenseNet": lambda: densenet.DenseNet([1, 2, 1, 1], **COMMON),
    "MobileNet": lambda: applications.MobileNet(
        alpha=0.25, depth_multiplier=2, **COMMON
    ),
    "EfficientNet": lambda: efficientnet.EfficientNet(
        0.5, 1, 32, blocks_args=efficientnet.DEFAULT_BLOCKS_ARGS[:2], **COMMON
    ),
    "EfficientNetV2": lambda: efficientnet_v2.EfficientNetV2(
        0.5,
        0.5,
        32,
        blocks_args=efficientnet_v2.DEFAULT_BLOCKS_ARGS["efficientnetv2-b0"][1:4],
        **COMMON,
    ),
    "ConvNeXt": lambda: convnext.ConvNeXt([1, 1, 1, 1], [8, 12, 16, 20], **COMMON),
}


@pytest.fixture
def zoo(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("strip_zoo_runs")


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_stripped_exactly(family, zoo):
    record = zoo.prove(FAMILIES[family], seed=1)
    assert not record["failures"]
    assert record["params_stripped"] < record["params"]


def test_gates_that_are_not_shared_keep_streams(zoo):
    record = zoo.prove(FAMILIES["ResNet"], seed=2)
    assert not record["failures"]


def test_reach_beside_the_peer(zoo):
    # Of the peer's sections, Conv2D to Conv2D or Dense, depthwise layers leave few.
    model = zoo.build("MobileNetV2 alpha=0.35")
    assert keras_l0.plan(model).reachable >= 0.95
    assert 0 < zoo.reachable_share(trace(model)) < 0.5


def test_cost_is_the_size_of_what_strip_makes(zoo):
    record = zoo.corners("MobileNet alpha=0.25", seed=0, count=3)
    assert not record["failures"]
