"""Latency tables: what is written to be timed, and what is made of the times."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_l0
from keras_l0 import LatencyTable, measure_latency

pytestmark = pytest.mark.tensorflow


def network():
    x = keras.Input((6, 6, 2))
    h = layers.Conv2D(4, 3, activation="relu")(x)
    h = layers.Add()([h, layers.DepthwiseConv2D(3, padding="same")(h)])
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(h)))


def shapes(path):
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    ends = (interpreter.get_input_details(), interpreter.get_output_details())
    return [[tuple(t["shape"][1:]) for t in side] for side in ends]


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_files_are_the_layers_and_their_times_are_entries(quantization):
    calls = []

    def stopwatch(paths):
        calls.append([shapes(path) for path in paths])
        return [7.0] if len(calls) == 1 else [8.0 + n for n in range(len(paths))]

    model = network()
    table = measure_latency(model, quantization, shares=(1.0,), timer=stopwatch)
    (overhead, conv, depthwise, added, pooled, dense) = calls
    assert overhead == [[[(1,)], [(1,)]]]
    # Two channels of an image stay; of the filters, one and all four are measured.
    assert conv == [[[(6, 6, 2)], [(4, 4, n)]] for n in (1, 4)]
    assert depthwise == [[[(4, 4, n)], [(4, 4, n)]] for n in (1, 4)]
    assert added == [[[(4, 4, n)] * 2, [(4, 4, n)]] for n in (1, 4)]
    assert pooled == [[[(4, 4, n)], [(n,)]] for n in (1, 4)]
    assert dense == [[[(n,)], [(3,)]] for n in (1, 4)]
    assert (table.overhead, table.quantization, table.threads) == (7.0, quantization, 1)
    assert table.device == "stopwatch" and "keras" in table.versions
    assert [e.microseconds for e in table.entries][0] == ((8.0, 9.0),)
    assert table.estimate(model) == 7.0 + 5 * 2.0


def test_this_machine_measures(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    table = measure_latency(model, shares=(1.0,))
    (entry,) = table.entries
    assert (entry.inputs, entry.outputs) == ((4,), (2,))
    assert table.overhead > 0 and entry.microseconds[0][0] > 0 and table.device
    table.save(tmp_path / "here.json")
    assert LatencyTable.load(tmp_path / "here.json") == table


def test_another_backend_has_the_files_written_by_tensorflow():
    code = (
        "import keras, keras_l0\n"
        "m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])\n"
        "sizes = lambda paths: [float(p.stat().st_size > 500) for p in paths]\n"
        "table = keras_l0.measure_latency(m, shares=(1.0,), timer=sizes)\n"
        "print(table.overhead, table.entries[0].microseconds)"
    )
    environment = {"KERAS_BACKEND": "jax", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=environment)  # fmt: skip
    assert done.stdout.strip() == "1.0 ((1.0,),)", done.stderr


@pytest.mark.parametrize(
    "options, message",
    [
        ({"quantization": "int4"}, "`quantization` must be one of"),
        ({"shares": (0.0,)}, "`shares` must be shares"),
        ({"threads": 0}, "`threads` must be an integer >= 1"),
        ({"inputs": "drop"}, "`inputs` must be one of"),
        ({"timer": lambda paths: []}, "`timer` must return the microseconds"),
        ({"timer": lambda paths: [np.nan] * len(paths)}, "`timer` must return"),
    ],
)
def test_what_it_refuses(options, message):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match=message):
        measure_latency(model, **options)
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        keras_l0.measure_latency("model")
