"""`keras-l0 export` and `keras-l0 bench`."""

import numpy as np
import pytest
from click.testing import CliRunner
from networks import normal, small

from keras_l0.cli import main

pytestmark = pytest.mark.tensorflow


def keras_l0(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def saved(tmp_path):
    small().save(tmp_path / "net.keras")
    return tmp_path / "net.keras"


def test_export_and_bench(tmp_path, saved):
    files = [tmp_path / "float.tflite", tmp_path / "int8.tflite"]
    done = keras_l0("export", saved, files[0])
    assert done.exit_code == 0 and "1 FULLY_CONNECTED" in done.output
    np.savez(tmp_path / "data.npz", x=normal(30, 4))
    np.save(tmp_path / "data.npy", normal(30, 4))
    for data in ("data.npz", "data.npy"):
        done = keras_l0(
            "export", saved, files[1], "--quantization", "int8",
            "--representative-data", tmp_path / data, "--target", "edgetpu",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert "edgetpu: 100%" in done.output
    done = keras_l0("bench", *files, "--runs", 3)
    assert done.exit_code == 0 and "3 runs in turns" in done.output


@pytest.mark.parametrize(
    "options, message",
    [
        (["--quantization", "int8"], "takes `representative_data`"),
        (["--target", "tpu"], "`target` must be one of"),
    ],
)
def test_errors_are_one_message(tmp_path, saved, options, message):
    done = keras_l0("export", saved, tmp_path / "net.tflite", *options)
    assert done.exit_code == 1 and message in done.output
    assert "Traceback" not in done.output
    (tmp_path / "no.tflite").write_text("")
    done = keras_l0("bench", tmp_path / "no.tflite")
    assert done.exit_code == 1 and "Traceback" not in done.output
