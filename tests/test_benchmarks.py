"""The benchmark scripts run from end to end on next to nothing."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

import keras_l0

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Lets benchmarks be imported by their bare names, as they import each other."""
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Runs a benchmark on next to nothing; its records and its page.

    What has been run is not run again.
    """

    def measure(name, *arguments):
        script = importlib.import_module(name)
        output = tmp_path / "results.json"
        arguments = ["--tiny", *arguments, "--output", str(output)]
        script.main(arguments)
        records = json.loads(output.read_text())
        with monkeypatch.context() as patch:
            patch.setattr(script, "run", None)
            script.main(arguments)
        assert json.loads(output.read_text()) == records
        return records, output.with_suffix(".md").read_text()

    return measure


@pytest.mark.tensorflow
def test_mnist(measured, capsys, tmp_path):
    # Gates that start at the edge: some close in the few steps that are made.
    edge = ("--set", "open_probability=0.32")
    runs, page = measured("mnist", "--seeds", "0", "--threads", "0", *edge)
    assert [run["network"] for run in runs] == ["lenet-300-100", "lenet-5"]
    for run in runs:
        assert run["params_gather"] <= run["params_keep"] < run["params_dense"]
        assert run["params_gather"] == run["params_gather_profile"]
        assert run["error"] == run["error_gated"]
        assert run["tflite_difference"] < 1e-4
        assert f"{run['params_gather']:,}" in page
    assert "lenet-5, seed 0: already in results.json" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        importlib.import_module("mnist").main(
            ["--data", str(tmp_path / "nowhere.npz"), "--tiny"]
        )
    assert "nowhere.npz" in capsys.readouterr().err


@pytest.mark.tensorflow
def test_transfer(measured):
    few = ("--networks", "lenet_300_100", "gru", "--datasets", "mnist", "--seeds", "0")
    runs, page = measured("transfer", "--threads", "0", *few)
    assert [run["network"] for run in runs] == ["lenet_300_100", "gru"]
    for run in runs:
        assert run["params"] <= run["params_dense"] and run["reached"] > 0.9
    assert "gru" in page


@pytest.mark.tensorflow
def test_networks_of_the_benchmarks_can_be_gated():
    models = importlib.import_module("models")
    for name, build in models.NETWORKS.items():
        model = build()
        assert model.name == name and model.output_shape == (None, 10)
        assert keras_l0.plan_gates(model).reached > 0.85


@pytest.mark.tensorflow
def test_identity_of_one_model(tmp_path):
    identity = importlib.import_module("identity")
    record = identity.convert("MobileNetV3Small")
    assert not record["failures"] and record["shared"] > 0
    output = tmp_path / "results.json"
    output.write_text(json.dumps([record]))
    arguments = ["--models", "MobileNetV3Small", "--output", str(output)]
    assert identity.main(arguments) == 0  # it is there already
    assert "MobileNetV3Small" in output.with_suffix(".md").read_text()


@pytest.mark.tensorflow
def test_deploy_measures_files_and_keeps_networks(tmp_path, monkeypatch):
    deploy = importlib.import_module("deploy")
    # The other networks, and those of other packages, take longer than a test may.
    monkeypatch.setattr(deploy, "VARIANTS", {"dense": None, "ours": "keep"})
    monkeypatch.setattr(deploy, "WIDE", (4, 8))
    monkeypatch.setattr(deploy, "SHARES", (0.5,))
    models, output = tmp_path / "models", tmp_path / "results.json"
    arguments = ["--tiny", "--network", "lenet-300-100", "--models", str(models)]
    arguments += ["--threads", "0", "--output", str(output)]

    deploy.main(arguments)

    dense, ours = json.loads(output.read_text())["records"]
    assert (dense["params"], dense["macs"]) == (266_610, 266_200)
    assert ours["variant"] == "ours" and ours["params"] <= dense["params"]
    for record in (dense, ours):
        assert record["int8"]["bytes"] < record["float32"]["bytes"] / 3
        assert record["int8"]["top1"] > 0.9
    page = output.with_suffix(".md").read_text()
    assert "## lenet-300-100" in page and "266,610" in page
    whole, half = json.loads(output.read_text())["scaling"]
    assert whole["ratio"] == 1 and half["macs"] < whole["macs"] / 2
    assert "| 50% |" in page
    assert len(list(models.glob("*.keras"))) == 2

    monkeypatch.setattr(deploy.mnist, "train", None)
    deploy.main(arguments)


@pytest.mark.tensorflow
def test_budgets(measured):
    few = ("--network", "lenet-300-100", "--measure", "params", "--threads", "0")
    (run,), page = measured("budget", *few, "--target", "0.3")
    assert run["stripped"] <= 0.3 and 0 <= run["error_stripped"] <= 100
    assert "| lenet-300-100 | 2 | 0 | test | params 30% |" in page
    (_, hand, same), page = measured("budget", *few, "--by-hand", "1e-5")
    assert hand["measure"] == "l0" and same["target"] == round(hand["deployed"], 4)
    assert "strengths chosen by hand" in page
    budget = importlib.import_module("budget")
    assert budget.build("residual", keras_l0.Budget(macs=0.5)).budgets


@pytest.mark.tensorflow
def test_what_peers_are_asked_for_is_within_reach():
    peers = importlib.import_module("peers")
    for network, build in peers.NETWORKS.items():
        budget = keras_l0.Budget(macs=peers.SHARES.get(network, peers.SHARE))
        assert keras_l0.add_gates(build(), budget=budget).budgets


@pytest.mark.tensorflow
def test_peers_come_to_the_same_size(measured):
    few = ("--networks", "lenet_300_100", "--datasets", "mnist", "--seeds", "0")
    few += ("--threads", "0")
    ways = ["gates", "gates_both", "gates_tuned", "norm", "random", "narrow"]
    runs, page = measured("peers", "--share", "0.25", *few, "--methods", *ways)
    assert [run["method"] for run in runs] == ways
    for run in runs:
        assert 0.2 * run["macs_dense"] < run["macs"] <= 0.25 * run["macs_dense"]
        assert run["not_zero"] <= run["params"] < run["params_dense"]
    assert "| lenet_300_100 | mnist | 600 | 1 | 25% |" in page


@pytest.mark.tensorflow
def test_the_peer_tfmot_sets_weights_to_zero(measured):
    pytest.importorskip("tensorflow_model_optimization", reason="an extra")
    few = ("--networks", "lenet_300_100", "--datasets", "mnist", "--seeds", "0")
    few += ("--threads", "0")
    (run,), _ = measured("peers", *few, "--methods", "tfmot", "--share", "0.5")
    assert run["params"] == run["params_dense"] and run["macs"] == run["macs_dense"]
    assert run["not_zero"] < 0.55 * run["params"]


@pytest.mark.tensorflow
@pytest.mark.parametrize("network", ["lenet-300-100", "lenet-5"])
def test_both_tracks_of_the_paper(measured, tmp_path, network):
    few = ("--network", network, "--scales", "1", "--seeds", "0", "--threads", "0")
    runs, page = measured("paper", *few)
    assert [run["track"] for run in runs] == ["plain", "practice"]
    plain, practice = runs
    assert plain["error"] == plain["error_stripped"]
    for run in runs:
        assert 0 < run["params"] <= run["params_keep"]
        for name, limit in run["budget"].items():
            assert run[name] <= limit
    budget = {"lenet-300-100": "9,700 params", "lenet-5": "2,800 params, 153,000 macs"}
    assert f"| {network} | practice | {budget[network]} | 1 |" in page
    assert (tmp_path / "results.png").stat().st_size > 1000


def test_images_of_the_paper_are_shifted_with_their_targets():
    paper = importlib.import_module("paper")
    x = np.zeros((50, 28, 28, 1), "float32")
    x[np.arange(50), 10, 10] = np.arange(1, 51)[:, None]
    targets = np.eye(50, dtype="float32")
    images = paper.Images(x, targets, 2, False, 16, seed=0)
    assert len(images) == 4
    places = set()
    for _ in range(2):
        parts = [images[n] for n in range(4)]
        batch, wanted = (np.concatenate(part) for part in zip(*parts, strict=True))
        numbers, rows, columns, _ = batch.nonzero()
        assert sorted(batch.max((1, 2, 3))) == list(range(1, 51))
        np.testing.assert_array_equal(wanted.argmax(1) + 1, batch.max((1, 2, 3)))
        places |= set(zip(rows.tolist(), columns.tolist(), strict=True))
        images.on_epoch_end()
    assert {row for row, _ in places} == {8, 9, 10, 11, 12}
    still = paper.Images(x, targets, 0, True, 50, seed=0)[0][0]
    assert still.shape == (50, 784) and (still.nonzero()[1] == 10 * 28 + 10).all()


def test_published_sizes_are_those_of_the_networks():
    table = importlib.import_module("paper_table")
    assert table.count("lenet-300-100", (784, 300, 100)) == 266_610
    assert table.count("lenet-5", (20, 50, 800, 500)) == 431_080
    assert table.count("lenet-5", (8, 13, 88, 13)) == 4_118


def test_peers_get_the_time_that_gates_took(monkeypatch):
    peers = importlib.import_module("peers")
    clock = [0.0]
    monkeypatch.setattr("runs.time.process_time", lambda: clock[0])

    def fit(x, y, epochs):
        clock[0] += 5.0 + (2.0 + 0.01 * len(x)) * epochs  # seconds

    x = np.zeros((8_000, 1))
    # 82 seconds an epoch: five minutes hold three and a half.
    assert peers.epochs_in(5.0, fit, x, x) == 4
    assert peers.epochs_in(0.1, fit, x, x) == 1


@pytest.mark.tensorflow
def test_units_of_every_network_can_be_ranked():
    models, ranking = map(importlib.import_module, ("models", "ranking"))
    for build in models.NETWORKS.values():
        model = build()
        closed = ranking.close_lowest(model, ranking.norms, 0.4)
        sizes = keras_l0.profile(closed)
        assert 0.3 < sizes.deployed.macs / sizes.dense.macs <= 0.4


@pytest.mark.tensorflow
def test_pages_are_those_of_the_results(tmp_path):
    results = importlib.import_module("results")
    found = sorted(BENCHMARKS.glob("results-*.json"))
    assert [f"results-{name}.json" for name in results.PAGES] == [p.name for p in found]
    for path in found:
        (tmp_path / path.name).write_text(path.read_text())
    results.main(["--folder", str(tmp_path)])
    for page in tmp_path.glob("*.md"):
        there = (BENCHMARKS / page.name).read_text()
        assert page.read_text() == there, "python benchmarks/results.py writes it"
    assert (tmp_path / "results-paper.png").stat().st_size > 1000


@pytest.mark.tensorflow
def test_what_cannot_be_used_is_refused_before_anything_runs(tmp_path, capsys):
    overhead = importlib.import_module("overhead")
    broken, other = tmp_path / "broken.json", tmp_path / "other.json"
    broken.write_text('[{"network"')
    other.write_text("{}")
    for output, message in (
        (broken, "broken.json' must be a JSON file"),
        (other, "other.json' must hold a list of records. Received: a dict"),
        (tmp_path / "missing" / "results.json", "must lie in a folder that is there"),
    ):
        with pytest.raises(SystemExit):
            overhead.main(["--output", str(output)])
        assert message in capsys.readouterr().err


@pytest.mark.tensorflow
def test_what_is_tiny_leaves_published_results_alone(capsys):
    parser = importlib.import_module("runs").options("", "results-mnist", "few images")
    args = parser.parse_args(["--tiny"])
    assert args.output.name == "results-mnist.json"
    assert args.output.parent != BENCHMARKS
    assert str(args.output) in capsys.readouterr().out
    assert parser.parse_args([]).output.parent == BENCHMARKS


@pytest.mark.tensorflow
def test_latencies_are_predicted_and_measured(measured, tmp_path):
    few = ("--network", "lenet-5", "--threads", "0", "--models", str(tmp_path / "m"))
    (record,), page = measured("latency_budget", *few)
    dense, by_latency, _, by_macs, _ = record["rows"]
    variants = [row["variant"] for row in (dense, by_latency, by_macs)]
    assert variants == ["dense", "latency 50%", "macs 50%"]
    assert by_latency["predicted"] <= 0.5 * dense["predicted"]
    assert by_macs["macs"] <= 0.5 * dense["macs"]
    assert "## lenet-5" in page and "| latency 50% |" in page


@pytest.mark.tensorflow
def test_compaction(measured):
    runs, page = measured("compaction", "--network", "lenet-300-100", "--threads", "0")
    assert [run["compaction"] for run in runs] == [False, True]
    for run in runs:
        assert len(run["each_epoch"]) == 4 and 0 <= run["error"] <= 100
    assert "| lenet-300-100 | 60,000 | 4 | 1 |" in page and "| yes |" in page


@pytest.mark.tensorflow
def test_overhead_is_measured_for_all_forms(tmp_path):
    overhead = importlib.import_module("overhead")
    output = tmp_path / "results.json"
    arguments = ["--tiny", "--threads", "0", "--networks", "lenet-300-100"]
    overhead.main([*arguments, "--output", str(output)])
    (record,) = json.loads(output.read_text())
    assert set(record["ms"]) == {"plain", "dropout", "gated", "budget"}
    assert all(len(rounds) == 1 for rounds in record["ms"].values())
    table = output.with_suffix(".md").read_text()
    assert table.count("| tensorflow | lenet-300-100 | 256 |") == 3


@pytest.mark.tensorflow
def test_wide_resnet(measured):
    # Gates that start at the edge, and so many steps that some close.
    edge = ("--set", "drop_rate=0.9", "--l0", "1")
    (run,), page = measured("wide_resnet", *edge, "--verbose", "0")
    assert run["params"] < run["params_dense"] == 78_042
    assert run["error"] == run["error_gated"]
    assert len(run["history"]["macs_expected"]) == 1
    assert run["tflite_difference"] < 1e-4
    assert "| digits | WRN-10-1 | 1.0 |" in page


@pytest.mark.tensorflow
def test_an_interrupted_wide_resnet_goes_on(measured, tmp_path, monkeypatch):
    class Stops(importlib.import_module("wide_resnet").Macs):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    kept = tmp_path / "kept"
    asked = [
        "wide_resnet",
        "--set",
        "epochs=3",
        "--verbose",
        "0",
        "--backup",
        str(kept),
    ]
    with monkeypatch.context() as patch:
        patch.setattr("wide_resnet.Macs", Stops)
        with pytest.raises(KeyboardInterrupt):
            measured(*asked)
    with monkeypatch.context() as patch:
        patch.setattr(keras_l0, "strip", None)
        with pytest.raises(TypeError):
            measured(*asked)
    assert [f.name for f in kept.rglob("trained*")] == ["trained.weights.h5"]
    # Neither is it trained again, nor is any epoch missing.
    monkeypatch.setattr("keras.Model.fit", None)
    monkeypatch.setattr("wide_resnet.find_spec", lambda name: None)
    (run,), page = measured(*asked)
    assert len(run["history"]["macs_expected"]) == 3
    assert run["cpu_minutes"] == pytest.approx(sum(run["history"]["cpu_minutes"]))
    assert run["tflite_bytes"] is None and "| - | - |" in page


def test_the_wide_resnet_is_the_one_of_the_paper():
    wide = importlib.import_module("wide_resnet")
    model = wide.network((32, 32, 3), 10, 28, 10, lambda x, conv: x)
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert trained == 36_479_194  # as published
    x, y = np.arange(2.0 * 8 * 8).reshape(2, 8, 8, 1), np.arange(2)
    images, labels = wide.Batches(x, y, 2, augment=True)[0]
    assert images.shape == x.shape and set(labels) == {0, 1}
    for image, label in zip(images, labels, strict=True):
        assert set(image.ravel()) <= {0.0, *x[label].ravel()}


def test_no_two_scripts_go_by_one_name():
    """They are imported by their bare names: one would be taken for the other."""
    folders = [
        BENCHMARKS,
        *{path.parent for path in Path(__file__).parent.rglob("*.py")},
    ]
    names = [path.stem for folder in folders for path in folder.glob("*.py")]
    twice = {name for name in names if names.count(name) > 1} - {"conftest"}
    assert not twice
