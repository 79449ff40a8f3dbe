"""The table of `summary`, and the pictures."""

import keras
import numpy as np
import pytest

import keras_l0
from keras_l0.layers import L0Dense, L0Gate


def network():
    model = keras.Sequential(
        [
            keras.Input((16,)),
            L0Gate(name="pixels"),
            L0Dense(8, activation="relu", name="hidden"),
            keras.layers.Dense(2, name="logits"),
        ],
        name="net",
    )
    keras_l0.gates(model)[1].assign_log_alpha(np.linspace(-5, 5, 8))
    return model


def test_summary_says_what_profile_says(capsys):
    model = network()
    profile = keras_l0.profile(model)
    keras_l0.summary(model)
    text = capsys.readouterr().out
    for layer in profile.layers:
        (line,) = [x for x in text.splitlines() if f"{layer.name} (" in x]
        cells = [cell.strip() for cell in line.split("\u2502")[1:-1]]
        assert cells[1] == f"{layer.kept} / {layer.units}"
        assert cells[2:] == [
            f"{size:,}"
            for name in ("params", "macs")
            for size in (
                getattr(layer.dense, name),
                round(getattr(layer.expected, name)),
                getattr(layer.deployed, name),
            )
        ]
    share = profile.deployed.params / profile.dense.params
    assert f"Deployed: {share:.1%} of the parameters" in text
    expected = profile.expected.params / profile.dense.params
    assert f"Expected: {expected:.1%} of the parameters" in text
    difference = share - expected
    assert f"Deployed minus expected: {difference:+.1%} of the parameters" in text
    assert profile.difference.params == pytest.approx(difference)
    lines = []
    keras_l0.summary(model, print_fn=lines.append)
    assert lines[0] + "\n" == text


def test_summary_of_a_model_without_gates_or_weights(capsys):
    keras_l0.summary(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]))
    assert "Deployed: nothing." in capsys.readouterr().out


def test_size_matched_gates_deploy_what_is_expected():
    differences = {}
    for estimator in ("deterministic", "size_matched"):
        options = keras_l0.GateOptions(estimator=estimator)
        layer = L0Dense(100, use_bias=False, gate_options=options)
        model = keras.Sequential([keras.Input((16,)), layer, keras.layers.Dense(2)])
        layer.gate.assign_log_alpha(np.linspace(-3, -1.9, 100))
        differences[estimator] = keras_l0.profile(model).layers[0].difference.params
    assert abs(differences["size_matched"]) <= 0.005
    assert differences["deterministic"] > 0.1


def test_a_picture_of_gates(tmp_path):
    pytest.importorskip("matplotlib")
    figure = keras_l0.plot_gates(network(), shapes={"pixels": (4, 4)})
    titles = [axes.get_title() for axes in figure.axes]
    for title, end in zip(titles, ("pixels: 16 of 16", "gate: 6 of 8"), strict=True):
        assert title.endswith(end)
    assert figure.axes[0].images[0].get_array().shape == (4, 4)
    assert len(figure.axes[1].lines[0].get_ydata()) == 8
    figure.savefig(tmp_path / "gates.png")
    with pytest.raises(ValueError, match="pixels' a shape of 16 gates.*\\(5, 5\\)"):
        keras_l0.plot_gates(network(), shapes={"pixels": (5, 5)})
    with pytest.raises(ValueError, match="`shapes` must go by .*Received: 'pixel'"):
        keras_l0.plot_gates(network(), shapes={"pixel": (4, 4)})
    for wrong in ((-4, -4), (0, 4), ()):
        with pytest.raises(ValueError, match="`shapes` must give 'net/pixels' a shape"):
            keras_l0.plot_gates(network(), shapes={"pixels": wrong})
    for wrong in ({"pixels": "x"}, {"pixels": (4.0, 4)}, {"pixels": None}, [4]):
        with pytest.raises(TypeError, match="`shapes` must"):
            keras_l0.plot_gates(network(), shapes=wrong)
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="plain")
    with pytest.raises(ValueError, match="must have gates. Received: 'plain'"):
        keras_l0.plot_gates(plain)


def test_a_picture_of_a_history(tmp_path):
    pytest.importorskip("matplotlib")
    logs = {"loss": [2.0, 1.0], "accuracy": [0.5, 0.6], "density": [1.0, 0.4],
            "params": [10, 4]}  # fmt: skip
    figure = keras_l0.plot_history(logs)
    drawn = [list(axes.lines[0].get_ydata()) for axes in figure.axes]
    assert drawn == [[0.5, 0.6], [1.0, 0.4]]
    figure = keras_l0.plot_history(logs, size="params", metric="loss")
    drawn = [list(axes.lines[0].get_ydata()) for axes in figure.axes]
    assert drawn == [[2.0, 1.0], [10, 4]]
    with pytest.raises(ValueError, match="`size` must be in the history.*Density"):
        keras_l0.plot_history({"loss": [1.0]})
    with pytest.raises(ValueError, match="one value per epoch.*2 of 'loss' and 1 of"):
        keras_l0.plot_history({"loss": [2.0, 1.0], "density": [1.0]})
    for wrong in (None, "history"):
        with pytest.raises(TypeError, match="`history` must be what `fit` returned"):
            keras_l0.plot_history(wrong)


def test_bad_options_of_summary():
    for wrong in ("a", 1.5):
        with pytest.raises(TypeError, match="`line_length` must be an integer"):
            keras_l0.summary(network(), line_length=wrong)
    with pytest.raises(TypeError, match="`print_fn` must be a function"):
        keras_l0.summary(network(), print_fn=3)
