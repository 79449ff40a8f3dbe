"""What other processes are needed for, and what may happen to this one."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.tensorflow

ON_JAX = """
import keras, numpy as np
import keras_l0
model = keras.Sequential([
    keras.Input((6, 6, 1), name="image"),
    keras_l0.layers.L0Conv2D(4, 3, activation="relu"),
    keras.layers.Flatten(), keras.layers.Dense(3, name="class")])
keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, 9.0, -9.0])
images = np.random.default_rng(0).normal(size=(20, 6, 6, 1))
print(keras_l0.to_tflite(model, "net.tflite", "int8", images, io_dtype="int8"))
import importlib.util
importlib.util.find_spec = lambda name: None
try:
    keras_l0.to_tflite(model, "other.tflite")
except ImportError as error:
    print(error)
"""

KILLED = """
import os, signal, keras
from keras_l0.export import to_tflite
os.replace = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
to_tflite(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), "net.tflite")
"""


def python(code, folder, **environment):
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_on_another_backend_a_tensorflow_process_converts(tmp_path):
    pytest.importorskip("jax")
    done = python(ON_JAX, tmp_path, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == ["net.tflite"]
    assert "1 CONV_2D, 1 FULLY_CONNECTED" in done.stdout
    assert "image -> class" in done.stdout
    assert "not installed" in done.stdout and "keras-l0[tensorflow]" in done.stdout


def test_a_killed_export_leaves_the_earlier_file(tmp_path):
    (tmp_path / "net.tflite").write_bytes(b"earlier")
    done = python(KILLED, tmp_path)
    assert done.returncode == -9
    assert (tmp_path / "net.tflite").read_bytes() == b"earlier"
