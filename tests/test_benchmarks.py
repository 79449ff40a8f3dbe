"""The benchmark scripts run from end to end on next to nothing."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.tensorflow
def test_mnist_runs_and_does_not_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    mnist = importlib.import_module("mnist")
    output = tmp_path / "results.json"
    arguments = ["--tiny", "--seeds", "0", "--threads", "0", "--output", str(output)]
    # Gates that start at the edge: some close in the few steps that are made.
    arguments += ["--set", "open_probability=0.32"]

    mnist.main(arguments)

    runs = json.loads(output.read_text())
    assert [run["network"] for run in runs] == ["lenet-300-100", "lenet-5"]
    for run in runs:
        assert run["params_gather"] <= run["params_keep"] < run["params_dense"]
        assert run["params_gather"] == run["params_gather_profile"]
        assert run["error"] == run["error_gated"]
        assert run["tflite_difference"] < 1e-4
    table = output.with_suffix(".md").read_text()
    assert all(f"{run['params_gather']:,}" in table for run in runs)

    monkeypatch.setattr(mnist, "run", None)
    mnist.main(arguments)
    assert json.loads(output.read_text()) == runs
    assert "lenet-5, seed 0: already in results.json" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        mnist.main([*arguments, "--data", str(tmp_path / "nowhere.npz")])
    assert "nowhere.npz" in capsys.readouterr().err
