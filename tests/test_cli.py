"""The command line: what commands read, write and say. `test_demo.py` has the demo's,
`export/test_commands.py` those of files for devices, `test_page.py` the report's."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

import keras_l0
from keras_l0 import cli
from keras_l0.cli import saying

COMMANDS = ["demo", "plan", "strip", "export", "bench", "report"]


def say(*arguments, **environment):
    # Those who run tests side by side may say how wide a terminal is.
    environment = {"COLUMNS": None, **environment}
    return CliRunner(env=environment).invoke(cli.main, [str(a) for a in arguments])


def refused(result, *words):
    """The one sentence of a command that could not do its work."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line]
    assert line.startswith("Error: ")
    for word in words:
        assert word in line, line
    return line


def gated(name="net"):
    model = keras.Sequential(
        [
            keras.Input((4,), name="features"),
            keras_l0.layers.L0Dense(16, activation="relu", name="hidden"),
            keras.layers.Dense(3, name="top"),
        ],
        name=name,
    )
    keras_l0.gates(model)[0].assign_log_alpha(np.linspace(-9, 9, 16))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A gated model, in a folder that is awkward to name."""
    place = tmp_path_factory.mktemp("models") / "mit Leerzeichen, ünï [cødé]"
    place.mkdir()
    gated("net [bold] <b>é").save(place / "gated.keras")
    return place


@pytest.fixture(scope="module")
def model(folder):
    return folder / "gated.keras"


# Help


def test_commands_are_listed_in_the_order_of_work():
    assert list(cli.main.commands) == COMMANDS
    result = say("--help")
    assert result.exit_code == 0
    places = [result.stdout.rindex(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)
    assert "Exit status" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option_and_has_an_example(name):
    result = say(name, "-h")
    assert result.exit_code == 0
    assert "\\b" not in result.stdout
    for parameter in cli.main.commands[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            assert parameter.opts[0] in result.stdout
    assert "--json" in result.stdout
    if name != "demo":
        assert f"\n    keras-l0 {name} " in result.stdout


@pytest.mark.parametrize("name", ["plan", "strip", "export", "bench", "report"])
def test_no_arguments_are_a_usage_error(name):
    result = say(name)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr and "Missing argument" in result.stderr


@pytest.mark.parametrize(
    "arguments, word",
    [
        ("plan no.keras", "does not exist"),
        ("plan {m} --inputs all", "keep"),
        ("plan {m} --round-to 0", "x>=1"),
        ("plan {m} --unknown", "No such option"),
        ("strip {m}", "-o"),
        ("strip {m} -o x.h5", "must end with .keras"),
        ("strip {m} -o x.keras --budget flops=3", "params, macs or bytes"),
        ("strip {m} -o x.keras --budget params=2.5", "at most 100%"),
        ("strip {m} -o x.keras --budget params=0", "above 0"),
        ("strip {m} -o x.keras --int8", "--budget of bytes"),
        ("strip {m} -o x.keras --budget bytes=1 --int8 --dynamic", "exclude"),
        ("export {m} -o x.tflite --int8 --float16", "exclude each other"),
        ("report {m} --html x.html --data {m}", "go together"),
        ("plan {m} --import a/b.py", "name of a module"),
        ("nonsense", "No such command"),
    ],
)
def test_wrong_arguments_are_usage_errors(model, arguments, word):
    words = [part.format(m=model) for part in arguments.split()]
    result = say(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and word in " ".join(result.stderr.split())


# What is read


def lambda_model(path):
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.Lambda(lambda z: z)(x)))
    model.save(path)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Files of all kinds that are no .keras file."""
    place = tmp_path_factory.mktemp("others")
    small = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    small.save(place / "good.keras")
    content = (place / "good.keras").read_bytes()
    (place / "cut.keras").write_bytes(content[: len(content) // 2])
    (place / "renamed.zip").write_bytes(content)
    (place / "empty.keras").write_bytes(b"")
    (place / "text.keras").write_text("a model")
    (place / "net.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(64))
    (place / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    (place / "saved_model").mkdir()
    with zipfile.ZipFile(place / "photos.keras", "w") as archive:
        archive.writestr("cat.png", "meow")
    with zipfile.ZipFile(place / "broken.keras", "w") as archive:
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    lambda_model(place / "code.keras")
    return place


@pytest.mark.parametrize(
    "name, word",
    [
        ("cut.keras", "cut short"),
        ("renamed.zip", "must end with .keras"),
        ("empty.keras", "empty"),
        ("text.keras", "not a .keras file"),
        ("net.tflite", "is a .tflite file"),
        ("net.h5", "is an HDF5 file"),
        ("saved_model", "is a folder"),
        ("photos.keras", "something else"),
        ("broken.keras", "cannot be loaded"),
        ("code.keras", "add --unsafe"),
    ],
)
def test_files_of_another_kind_are_named(others, name, word):
    refused(say("plan", others / name), word, name)


def test_code_in_a_file_runs_if_asked_to(others):
    result = say("plan", others / "code.keras", "--unsafe")
    assert result.exit_code == 0, result.output


MY_LAYERS = """
import keras
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


def test_layers_of_ones_own_are_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_layers_of_test_cli.py").write_text(MY_LAYERS)
    space = {}
    exec(MY_LAYERS, space)
    keras.Sequential([keras.Input((4,)), space["Twice"]()]).save("own.keras")
    refused(say("plan", "own.keras"), "'Twice'", "--import my_layers")
    try:
        result = say("plan", "own.keras", "--import", "my_layers_of_test_cli")
    finally:
        sys.path.remove(str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "barrier" in result.stdout and "Twice" in result.stdout
    refused(say("plan", "own.keras", "--import", "no_such_module"), "no_such_module")


@keras.saving.register_keras_serializable("test_cli")
class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = keras.layers.Dense(2)

    def call(self, x):
        return self.inner(x)


def test_a_model_without_a_graph_is_refused(tmp_path):
    made = Subclassed()
    made(np.zeros((1, 4)))
    made.save(tmp_path / "subclassed.keras")
    refused(say("plan", tmp_path / "subclassed.keras"), "subclassed model")


# plan


def test_plan_prints_what_the_function_says(model):
    result = say("plan", model)
    assert result.exit_code == 0, result.output
    wanted = str(keras_l0.plan(keras.saving.load_model(model)))
    assert result.stdout == wanted
    assert result.stderr == ""


def test_plan_as_json(model):
    result = say("plan", model, "--json", "--round-to", 4)
    plan = keras_l0.plan(keras.saving.load_model(model), round_to=4)
    told = json.loads(result.stdout)
    assert told["before"] == {"params": plan.before.params, "macs": plan.before.macs}
    assert [row["kept"] for row in told["layers"]] == [row.kept for row in plan.layers]
    assert told["model"] == "net [bold] <b>é"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_tables_fit_the_terminal(model, folder, width):
    for arguments in (
        ("plan", model),
        ("strip", model, "-o", folder / "fits.keras", "--force"),
    ):
        result = say(*arguments, COLUMNS=str(width))
        assert result.exit_code == 0, result.output
        for line in result.stdout.splitlines():
            assert len(line) <= width or "fits.keras" in line
        assert "…" not in result.stdout  # No number loses its end.
        if arguments[0] == "plan":
            text = "".join(result.stdout.split())
            for layer in keras_l0.plan(keras.saving.load_model(model)).layers:
                assert f"{layer.after.params:,}" in text


# strip


def test_strip_writes_a_plain_model(model, tmp_path):
    out = tmp_path / "small.keras"
    result = say("strip", model, "-o", out, "--round-to", 4)
    assert result.exit_code == 0, result.output
    small, big = (keras.saving.load_model(path) for path in (out, model))
    assert small.get_layer("hidden").units == 12 and not keras_l0.gates(small)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    np.testing.assert_allclose(small(x), big(x, training=False), atol=1e-5)
    assert f"{small.count_params():,}" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["small.keras"]


def test_strip_under_a_budget_as_json(model, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((4, 4), "float32"))
    out = tmp_path / "small.keras"
    result = say(
        "strip", model, "-o", out, "--budget", "params=25%", "--budget", "macs=40",
        "--data", tmp_path / "x.npy", "--json",
    )  # fmt: skip
    told = json.loads(result.stdout)
    assert told["params"]["after"] <= 0.25 * told["params"]["before"]
    assert told["macs"]["after"] <= 40
    assert told["params"]["after"] == keras.saving.load_model(out).count_params()
    assert told["bytes"]["after"] == out.stat().st_size


def test_nothing_is_overwritten_unasked(model, tmp_path):
    out = tmp_path / "small.keras"
    out.write_text("precious")
    refused(say("strip", model, "-o", out), "--force", "small.keras")
    assert out.read_text() == "precious"
    page = tmp_path / "page.html"
    page.write_text("precious")
    refused(say("report", model, "--html", page), "--force")
    assert say("report", model, "--html", out, "--force").exit_code == 2
    assert out.read_text() == page.read_text() == "precious"
    assert say("strip", model, "-o", out, "--force").exit_code == 0
    assert zipfile.is_zipfile(out)


def test_a_failure_leaves_what_was_there(model, tmp_path):
    out = tmp_path / "small.keras"
    out.write_text("precious")
    result = say("strip", model, "-o", out, "--force", "--budget", "params=1")
    refused(result, "of the budget must be within reach")
    assert out.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["small.keras"]


def test_places_that_cannot_be_written_to(model, tmp_path):
    refused(say("strip", model, "-o", tmp_path / "no" / "x.keras"), "folder")
    (tmp_path / "folder.keras").mkdir()
    refused(say("strip", model, "-o", tmp_path / "folder.keras"), "not a folder")


def test_warnings_are_notes(tmp_path, folder):
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    plain.save(tmp_path / "plain.keras")
    result = say("strip", tmp_path / "plain.keras", "-o", tmp_path / "same.keras")
    assert result.exit_code == 0
    assert result.stderr.startswith("Note: Nothing was gated")


def test_progress_is_for_terminals_only(model, monkeypatch):
    assert say("plan", model).stderr == ""
    shown = io.StringIO()
    monkeypatch.setattr(
        saying, "stderr", lambda: Console(file=shown, force_terminal=True, width=200)
    )
    result = say("plan", model)
    assert "planning" in shown.getvalue() and "reading" in shown.getvalue()
    assert "planning" not in result.output


@pytest.mark.parametrize("content", [b"", b"1,2,3\n4,5,6", b"PK\x03\x04"])
def test_data_that_is_no_array_is_named(model, tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    result = say(
        "strip", model, "-o", tmp_path / "o.keras", "--data", tmp_path / "x.npy"
    )
    refused(result, "--data", "x.npy")


def test_data_of_another_shape_are_refused(model, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((4, 5), "float32"))
    result = say(
        "strip", model, "-o", tmp_path / "o.keras", "--data", tmp_path / "x.npy"
    )
    refused(result, "--data must", "(n, 4)", "float32(4, 5)")


# As a process


def test_a_real_process_whose_output_nobody_reads(model):
    """As in a pipe into `head`; the file's name has spaces, and no color is wanted."""
    command = [sys.executable, "-m", "keras_l0", "plan", str(model)]
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 1
    assert "Traceback" not in said and "Exception" not in said


def test_words_of_other_packages_are_left_as_they_are():
    command = click.Command("strip", params=[click.Option(["--data"])])
    text = "`data` of another package, inputs=3"
    with click.Context(command):
        try:
            json.loads(1)
        except TypeError as error:
            error.args = (text,)
            assert saying.sentence(error) == text
        assert saying.sentence(text).startswith("--data of")


def test_arguments_of_functions_become_options(model, tmp_path):
    export = ["export", model, "-o", tmp_path / "x.tflite"]
    line = refused(say(*export, "--int8"), "--data must be given for --int8")
    assert line.endswith("Received: no --data")
    with click.Context(cli.export):
        said = saying.sentence("or let them pass with allow=('float',). Nothing")
        assert said == "or let them pass with --allow-float. Nothing"
        said = saying.sentence(
            "Pass `data` that it takes, or `verify=False` if it cannot be run at all."
        )
        assert said == "Pass --test-data that it takes."


def test_the_gated_model_is_not_written_over(model, tmp_path):
    copy = tmp_path / "gated.keras"
    copy.write_bytes(model.read_bytes())
    link = tmp_path / "link.keras"
    link.symlink_to(copy)
    for output in (copy, link):
        result = say("strip", copy, "-o", output, "--force")
        assert result.exit_code == 2 and "-o must name another file" in result.stderr
    assert copy.read_bytes() == model.read_bytes()


def test_a_model_above_its_budget_is_a_note(tmp_path):
    budgeted = keras_l0.with_budget(gated(), keras_l0.Budget(params=0.3))
    for gate in keras_l0.gates(budgeted):
        gate.assign_log_alpha(np.full(16, 9.0))
    budgeted.save(tmp_path / "above.keras")
    strip = ["strip", tmp_path / "above.keras", "-o", tmp_path / "small.keras"]
    result = say(*strip)
    assert result.exit_code == 0
    assert "Note: Model 'net' is above its budget" in result.stderr
    assert "pass --budget to strip" in result.stderr
    result = say(*strip, "--force", "--budget", "params=30%")
    assert result.exit_code == 0 and "Note" not in result.stderr
