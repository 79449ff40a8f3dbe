"""The families of keras.applications, small: what `benchmarks/strip_zoo.py` proves."""

import importlib
import pathlib

import pytest
from families import FAMILIES

import keras_l0
from keras_l0.analysis.tracing import trace

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


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
    record = zoo.prove(FAMILIES["ResNet small"], seed=2)
    assert not record["failures"]


def test_reach_beside_the_peer(zoo):
    # Of the peer's sections, Conv2D to Conv2D or Dense, depthwise layers leave few.
    model = zoo.build("MobileNetV2 alpha=0.35")
    assert keras_l0.plan(model).reachable >= 0.95
    assert 0 < zoo.reachable_share(trace(model)) < 0.5


def test_cost_is_the_size_of_what_strip_makes(zoo):
    record = zoo.corners(FAMILIES["ResNet small"], seed=0, count=9)
    assert not record["failures"]
