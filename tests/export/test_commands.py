"""`keras-l0 export` and `keras-l0 bench`."""

import io
import json
import os
import sys

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from networks import normal, small
from rich.console import Console

from keras_l0.cli import main
from keras_l0.cli.shipping import _side_by_side
from keras_l0.export import Benchmark, FileBenchmark, Latency
from keras_l0.layers import L0Dense

pytestmark = pytest.mark.tensorflow


def keras_l0(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def saved(tmp_path):
    small().save(tmp_path / "net.keras")
    return tmp_path / "net.keras"


def test_export_and_bench(tmp_path, saved):
    files = [tmp_path / "float.tflite", tmp_path / "int8.tflite"]
    done = keras_l0("export", saved, "-o", files[0])
    assert done.exit_code == 0 and "1 FULLY_CONNECTED" in done.output
    np.savez(tmp_path / "data.npz", x=normal(30, 4))
    np.save(tmp_path / "data.npy", normal(30, 4))
    for data in ("data.npz", "data.npy"):
        done = keras_l0(
            "export", saved, "-o", files[1], "--int8", "--force",
            "--data", tmp_path / data, "--target", "edgetpu",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert "edgetpu: 100%" in done.output
    done = keras_l0("bench", *files, "--runs", 3)
    assert done.exit_code == 0 and "3 runs in turns" in done.output
    for width in (40, 70, 120):
        row = _side_by_side(benchmark_of(files), width)
        console = Console(width=width, file=io.StringIO())
        console.print(row)
        text = console.file.getvalue()
        assert "1,234,567" in text and max(map(len, text.splitlines())) <= width
    done = keras_l0("bench", *files, "--runs", 3, "--json")
    told = json.loads(done.stdout)
    assert [row["path"] for row in told["files"]] == list(map(str, files))
    assert told["files"][0]["latency"]["median"] > 0


def benchmark_of(files):
    rows = [
        FileBenchmark(path, 1234567, 123456, Latency(1, 2), 1.0, (0.9, 1.1), 10**8)
        for path in files
    ]
    return Benchmark(tuple(rows), 3, 1)


def test_export_with_labels_as_json(tmp_path, saved):
    out = tmp_path / "x y.tflite"
    np.save(tmp_path / "x.npy", normal(30, 4))
    np.save(tmp_path / "y.npy", np.arange(30) % 3)
    done = keras_l0(
        "export", saved, "-o", out, "--test-data", tmp_path / "x.npy",
        "--labels", tmp_path / "y.npy", "--c-array", tmp_path / "x.cc", "--json",
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["bytes"] == out.stat().st_size and told["path"] == str(out)
    assert told["accuracy"] == told["keras_accuracy"]
    for files in ([out], [tmp_path / "new.tflite", "--c-array", tmp_path / "x.cc"]):
        done = keras_l0("export", saved, "-o", *files)
        assert done.exit_code == 1 and "--force" in done.stderr
    assert not (tmp_path / "new.tflite").exists()
    done = keras_l0("bench", saved)
    assert done.exit_code == 1 and "keras-l0 export" in done.stderr


def test_export_without_zeros(tmp_path):
    layer = L0Dense(16, granularity=(1, 4))
    model = keras.Sequential([keras.Input((64,)), layer])
    closed = np.random.default_rng(0).random(layer.gate.log_alpha.shape) < 0.9
    layer.gate.assign_log_alpha(np.where(closed, -9.0, 9.0))
    model.save(tmp_path / "net.keras")
    sizes = []
    for options in ([], ["--sparse"]):
        out = tmp_path / f"net{len(options)}.tflite"
        done = keras_l0("export", tmp_path / "net.keras", "-o", out, *options)
        assert done.exit_code == 0, done.output
        sizes.append(out.stat().st_size)
    assert sizes[1] < sizes[0] - 2000


def test_a_traceback_for_reports(tmp_path, saved, monkeypatch):
    def broken(*args, **kwargs):
        raise TypeError("not meant to be read")

    monkeypatch.setattr("keras_l0.to_tflite", broken)
    arguments = "export", saved, "-o", tmp_path / "out.tflite"
    assert keras_l0(*arguments).exception.code == 1
    monkeypatch.setenv("KERAS_L0_DEBUG", "1")
    assert isinstance(keras_l0(*arguments).exception, TypeError)
    monkeypatch.setattr("keras.saving.load_model", broken)
    assert isinstance(keras_l0(*arguments).exception, TypeError)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--min-top1", "0.9"], "--min-top1 is for quantized files"),
        (["--allow-float", "--dynamic"], "--allow-float is for --int8 files"),
        (["-o", "precious.keras", "--force"], "-o must end with .tflite"),
        (["-o", os.devnull], "-o must end with .tflite"),
    ],
)
def test_what_is_not_meant_is_a_usage_error(tmp_path, saved, options, message):
    done = keras_l0("export", saved, "-o", tmp_path / "net.tflite", *options)
    assert done.exit_code == 2 and message in done.output


def test_a_file_that_is_cut_short_is_named(tmp_path, saved):
    whole = tmp_path / "whole.tflite"
    assert keras_l0("export", saved, "-o", whole).exit_code == 0
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(whole.read_bytes()[:300])
    done = keras_l0("bench", whole, cut)
    assert done.exit_code == 1 and "cut.tflite is damaged or cut short" in done.stderr


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "x.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(64))
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    done = keras_l0("bench", tmp_path / "x.tflite")
    assert done.exit_code == 1 and 'pip install "keras-l0[litert]"' in done.stderr


@pytest.mark.parametrize(
    "options, message",
    [
        (["--int8"], "--data must be given for --int8"),
        (["--labels", "y.npy"], "--labels must hold the class of each example in --te"),
        (["--target", "tpu"], "--target must be one of"),
        (["--target", "edgetpu"], "--target must be None or 'micro' without --int8"),
        (["--c-array", "no/x.cc"], "--c-array must lie in a folder that exists"),
        (["--sparse", "--float16"], "Received: --sparse, --float16"),
        (["-o", "no/x.tflite"], "-o must lie in a folder that exists"),
    ],
)
def test_errors_are_one_message(tmp_path, saved, options, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("y.npy", np.zeros(3, int))
    done = keras_l0("export", saved, "-o", tmp_path / "net.tflite", *options)
    assert done.exit_code == 1 and message in done.output
    assert "Traceback" not in done.output
    (tmp_path / "no.tflite").write_text("")
    done = keras_l0("bench", tmp_path / "no.tflite")
    assert done.exit_code == 1 and "Traceback" not in done.output
