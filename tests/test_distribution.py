"""Several devices train what one device trains, and what they train can be shipped."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_l0

SCRIPT = Path(__file__).with_name("distribution_run.py")
on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="runs on JAX")


def run(engine, folder, *processes):
    """What the processes that train have written."""
    arguments = processes or [[]]
    paths = [str(SCRIPT.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), engine, str(folder), *each],
            env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for each in arguments
    ]  # fmt: skip
    said = [process.communicate(timeout=600)[0] for process in started]
    assert not any(process.returncode for process in started), "\n\n".join(said)
    return [
        json.loads((folder / f"result{number}.json").read_text())
        for number in range(len(started))
    ]


def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def require_same(one, many):
    """Losses, the budget's state and weights, the seeds of the noise among them."""
    assert len(one["seen"]) == len(many["seen"]) == 8
    for (loss, state), (expected, wanted) in zip(
        many["seen"], one["seen"], strict=True
    ):
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        for a, b in zip(state, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(many["weights"], one["weights"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def require_whole(held, devices):
    """Each device holds the same weights, to the bit."""
    for parts in held:
        assert len(parts) == devices
        for part in parts[1:]:
            np.testing.assert_array_equal(part, parts[0])


def require_shipped(folder):
    """What was saved among several devices is loaded, stripped and exported on one."""
    model = keras.models.load_model(folder / "model.keras")
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    small = keras_l0.strip(model, data=x)
    assert small.count_params() < 146
    outputs = keras.ops.convert_to_numpy(small(x))
    np.testing.assert_allclose(outputs, np.load(folder / "outputs.npy"), atol=1e-5)
    report = keras_l0.to_tflite(model, folder / "model.tflite", data=x)
    assert report.max_difference < 1e-4


@pytest.mark.tensorflow
def test_mirrored_replicas_train_what_one_device_trains(tmp_path):
    (result,) = run("mirrored", tmp_path)
    for kind in ("strength", "budget"):
        require_same(result[kind]["one"], result[kind]["many"])
        require_whole(result[kind]["held"], 2)
    # The k-th examples of all replicas share a draw there: another, as good as it.
    require_whole(result["example"]["held"], 2)
    one, many = (result["example"][key]["seen"][0][0] for key in ("one", "many"))
    assert one != pytest.approx(many, rel=1e-4) and one == pytest.approx(many, rel=0.2)
    steps = [state[1][0] for _, state in result["budget"]["many"]["seen"]]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
    require_shipped(tmp_path)


@on_jax
@pytest.mark.parametrize("engine", ["data", "model"])
def test_devices_of_one_process_train_what_one_trains(engine, tmp_path):
    (result,) = run(engine, tmp_path)
    assert len(result) == (3 if engine == "data" else 2)
    for runs in result.values():
        require_same(runs["one"], runs["many"])
        if engine == "data":
            require_whole(runs["held"], 4)
    kernel, bias, gates = result["strength"]["held"][:3]
    halves = {len(kernel[0][0]), len(bias[0]), len(gates[0])}
    assert halves == {8 if engine == "model" else 16}
    if engine == "data":
        require_shipped(tmp_path)


@on_jax
def test_two_processes_train_what_one_trains(tmp_path):
    where = address()
    first, second = run("processes", tmp_path, [where, "0"], [where, "1"])
    for kind in ("strength", "budget"):
        require_same(first[kind]["one"], first[kind]["many"])
        assert first[kind]["many"] == second[kind]["many"]
    for number in (0, 1):
        refused = (tmp_path / f"refused{number}.txt").read_text()
        assert "over 2 processes" in refused and "set_distribution(None)" in refused
    require_shipped(tmp_path)


@pytest.mark.thorough
@pytest.mark.tensorflow
def test_keras_cannot_fit_any_model_on_several_workers(tmp_path):
    """If this fails, Keras can: say so in docs/cluster.md."""
    workers = address(), address()
    said = run("workers", tmp_path, *([",".join(workers), n] for n in ("0", "1")))
    assert all("PerReplica" in error for error in said)
