"""The command line, and the demo from its arguments to its files."""

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import keras_l0
from keras_l0 import cli
from keras_l0 import demo as demo_package
from keras_l0.demo import data, pipeline
from keras_l0.demo.networks import NETWORKS
from keras_l0.export import ExportError

MODELS = ("dense", "gated", "stripped")
FILES = {f"{name}.keras" for name in MODELS}
FILES |= {"dense.tflite", "stripped.tflite", "kept.png", "results.json"}


def demo(*arguments):
    return CliRunner().invoke(cli.main, ["demo", *map(str, arguments)])


def sentence(result):
    """The one sentence that a failed command says."""
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ") and lines[0].endswith(".")
    return lines[0]


def own_images(*shape):
    """Images of nothing, in two classes."""
    x = np.random.default_rng(0).integers(256, size=(64, *shape)).astype("uint8")
    y = np.arange(64) % 2
    return {"x_train": x, "y_train": y, "x_test": x, "y_test": y}


def do_not_train(monkeypatch):
    """Closes some gates instead, and believes that accuracies are fine."""

    def train(model, *args):
        for gate in keras_l0.gates(model):
            gate.assign_log_alpha(np.linspace(-9, 9, gate.count))

    monkeypatch.setattr(pipeline, "train", train)
    monkeypatch.setattr(pipeline, "accuracy", lambda *args: 1.0)


# The command line


def test_module_runs_as_command():
    command = [sys.executable, "-m", "keras_l0", "--version"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout == f"keras-l0 {keras_l0.__version__}\n"


def test_help_lists_commands():
    result = CliRunner().invoke(cli.main, ["-h"])
    assert result.exit_code == 0
    assert "\n      keras-l0 demo\n" in result.output
    assert "\\b" not in result.output + demo("--help").output


def test_demo_help_names_every_option_network_and_file():
    result = demo("--help")
    assert result.exit_code == 0
    for option in cli.demo.params:
        assert option.opts[0] in result.output
        assert option.help
    for word in {*FILES, *NETWORKS}:
        assert word in result.output
    assert set(cli.demo.params[0].type.choices) == set(NETWORKS)


@pytest.mark.parametrize(
    "arguments",
    [
        "--network vgg",
        "--dataset cifar",
        "--epochs 0",
        "--epochs many",
        "--l0 -1",
        "--l0 nan",
        "--l0 inf",
        "--seed -1",
        "--dataset digits --data x.npz",
        "--unknown",
        "extra",
    ],
)
def test_wrong_arguments_are_refused(arguments):
    result = demo(*arguments.split())
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert "Error: " in result.stderr


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert "KERAS_BACKEND" in sentence(demo())


# The whole demo


@pytest.fixture(scope="module", params=["conv", "mlp"])
def finished(request, tmp_path_factory):
    """The demo in short, once with training and once on images of one's own."""
    folder = tmp_path_factory.mktemp("demo")
    output = folder / "new" / "folder"
    arguments = ["--network", request.param, "--output", output, "--epochs"]
    if request.param == "conv":
        return demo(*arguments, 4), output
    np.savez(folder / "own.npz", **own_images(8, 9, 3))
    with pytest.MonkeyPatch.context() as monkeypatch:
        do_not_train(monkeypatch)
        return demo(*arguments, 1, "--data", folder / "own.npz"), output


@pytest.mark.tensorflow
def test_demo_prints_its_table(finished):
    result, output = finished
    assert result.exit_code == 0, result.output
    for text in ("parameters", "MACs per image", "TFLite: bytes", "accuracy"):
        assert text in result.stdout
    assert str(output) in result.stdout.replace("\n", "")


@pytest.mark.tensorflow
def test_demo_writes_files_that_can_be_read(finished):
    result, output = finished
    assert {path.name for path in output.iterdir()} == FILES
    numbers = json.loads((output / "results.json").read_text())
    for name in MODELS:
        model = keras.saving.load_model(output / f"{name}.keras")
        assert model.count_params() == numbers[name]["params"]
        assert 0 <= numbers[name]["accuracy"] <= 1
    for name in ("dense", "stripped"):
        content = (output / f"{name}.tflite").read_bytes()
        assert content[4:8] == b"TFL3"
        assert len(content) == numbers[name]["tflite"]["bytes"]
        assert numbers[name]["tflite"]["seconds"] > 0
    assert numbers["gated"]["tflite"] is None
    assert (output / "kept.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.tensorflow
def test_stripped_file_holds_nothing_of_ours(finished):
    _, output = finished
    with zipfile.ZipFile(output / "stripped.keras") as file:
        assert b"keras_l0" not in file.read("config.json")


# What can go wrong on the way


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    """Arguments of a demo that leaves out the training."""
    np.savez(tmp_path / "own.npz", **own_images(8, 8))
    do_not_train(monkeypatch)
    network = ("--network", "mlp", "--epochs", 1)
    return (*network, "--data", tmp_path / "own.npz", "--output", tmp_path / "out")


@pytest.mark.tensorflow
def test_collapsed_accuracy_fails(untrained, monkeypatch):
    accuracies = iter([0.98, 0.5])
    monkeypatch.setattr(pipeline, "accuracy", lambda *args: next(accuracies))
    said = sentence(demo(*untrained))
    assert "Accuracy collapsed: 98.0% without gates, 50.0% with gates" in said
    assert "lower --l0" in said


@pytest.mark.tensorflow
def test_stripped_model_that_disagrees_fails(untrained, monkeypatch):
    def wrong_strip(model, **kwargs):
        stripped = keras_l0.strip(model, **kwargs)
        stripped.weights[-1].assign([0.1, -0.1])
        return stripped

    monkeypatch.setattr(pipeline, "strip", wrong_strip)
    said = sentence(demo(*untrained))
    assert "The stripped model disagrees with the gated one" in said


@pytest.mark.tensorflow
def test_stripped_model_of_another_size_fails(untrained, monkeypatch):
    monkeypatch.setattr(
        pipeline, "strip", lambda model, **kwargs: keras_l0.strip(model, "keep")
    )
    assert "`profile` promised" in sentence(demo(*untrained))


@pytest.mark.tensorflow
def test_stripped_model_with_gates_fails(untrained, monkeypatch):
    monkeypatch.setattr(pipeline, "strip", lambda model, **kwargs: model)
    assert "still has gates" in sentence(demo(*untrained))


@pytest.mark.tensorflow
def test_file_that_disagrees_fails(untrained, monkeypatch):
    right = pipeline.answers
    monkeypatch.setattr(pipeline, "answers", lambda *args: right(*args)[:, ::-1])
    assert "TFLite file disagrees with Keras" in sentence(demo(*untrained))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("step", "error", "said"),
    [
        ("strip", RuntimeError, "The gated model could not be stripped: no."),
        ("to_tflite", ExportError, "The dense model's TFLite file: no."),
        ("to_tflite", OSError, "The dense model's TFLite file: no."),
    ],
)
def test_step_that_refuses_fails(step, error, said, untrained, monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise error("no.")

    monkeypatch.setattr(pipeline, step, refuse)
    assert said in sentence(demo(*untrained))
    # So the same command can be given again.
    assert not list((tmp_path / "out").iterdir())


def test_nan_is_a_difference():
    assert pipeline._difference(np.array([np.nan]), np.zeros(1)) > 1


@pytest.mark.tensorflow
@pytest.mark.parametrize("module", ["matplotlib", "sklearn.datasets", "ai_edge_litert"])
def test_missing_module_names_the_extra(module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    said = sentence(demo("--output", tmp_path / "out"))
    assert module.partition(".")[0] in said
    assert 'pip install "keras-l0[' in said
    assert not (tmp_path / "out").exists()


@pytest.mark.tensorflow
def test_output_that_is_a_file_fails(untrained, tmp_path):
    (tmp_path / "out").write_text("here already")
    assert "--output" in sentence(demo(*untrained))


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "dense.keras").write_text("precious")
    assert "--force" in sentence(demo("--output", tmp_path))
    (tmp_path / "results.json").write_text("[1, 2]")
    assert "dense.keras" in sentence(demo("--output", tmp_path))
    assert (tmp_path / "dense.keras").read_text() == "precious"


@pytest.mark.tensorflow
def test_demo_runs_again_as_json(untrained, tmp_path):
    for _ in range(2):
        result = demo(*untrained, "--json")
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout)
        assert told == json.loads((tmp_path / "out" / "results.json").read_text())


# The images


def test_mnist_without_network(monkeypatch):
    def offline():
        raise Exception("URL fetch failure on\n https://host: None -- unreachable")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", offline)
    with pytest.raises(data.DemoError, match="--dataset digits.*--data"):
        data.load("mnist")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x_test": None}, "no array named x_test"),
        ({"x_train": np.ones((64, 64))}, "shape"),
        ({"x_train": np.ones((64, 4, 4))}, "8 x 8"),
        ({"x_train": np.full((64, 8, 8), np.nan)}, "finite"),
        ({"x_train": np.zeros((64, 8, 8))}, "all zero"),
        ({"x_test": np.ones((64, 9, 9))}, r"\(9, 9\) in x_test"),
        ({"x_test": np.ones((0, 8, 8)), "y_test": np.ones(0, int)}, "no images"),
        ({"y_train": np.zeros(64)}, "integer"),
        ({"y_train": np.zeros(3, int)}, "64 images"),
        ({"y_train": np.full(64, -1)}, "from 0"),
        ({"y_train": np.zeros(64, int)}, "two classes"),
        ({"y_test": np.full(64, 7)}, "every class that y_test holds"),
        ({"y_train": np.arange(64) * 10**7}, "only 64 images"),
    ],
    ids=str,
)
def test_bad_arrays_are_named(change, said, tmp_path):
    arrays = {**own_images(8, 8), **change}
    np.savez(tmp_path / "x.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(data.DemoError, match=said):
        data.load("digits", tmp_path / "x.npz")


def test_a_copy_of_mnist_may_be_anywhere(tmp_path, monkeypatch):
    np.savez(tmp_path / "copy.npz", **own_images(8, 8))
    asked = []
    monkeypatch.setattr(demo_package, "run", lambda settings, _: asked.append(settings))
    monkeypatch.setattr(demo_package, "show", lambda *_: None)
    result = demo("--dataset", "mnist", "--data", tmp_path / "copy.npz")
    assert result.exit_code == 0, result.output
    assert data.load(asked[0].dataset, asked[0].data).name == "copy.npz"


@pytest.mark.parametrize("content", [None, b"", b"text", b"npy", b"objects"])
def test_file_that_is_no_npz_is_named(content, tmp_path):
    path = tmp_path / "own.npz"
    if content == b"npy":
        with open(path, "wb") as file:
            np.save(file, np.ones(3))
    elif content == b"objects":
        np.savez(path, **{**own_images(8, 8), "x_test": np.array([{}], dtype=object)})
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(data.DemoError, match="--data"):
        data.load("digits", path)
