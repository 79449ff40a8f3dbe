"""The HTML report: what is on it, that it is whole in itself, and that it renders."""

import base64
import html
import json
import re
import shutil
import struct
import subprocess
import warnings
import zlib

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

import keras_l0
from keras_l0.analysis.passes import Analysis
from keras_l0.cli import main
from keras_l0.page.features import filters, png
from keras_l0.page.lanes import Lanes

pytest.importorskip("jinja2")

EVIL = "<script>alert(1)<img src=x onerror=alert(2)>&\"'"


def network():
    """Gated pixels, a residual block, a barrier, names that are code."""
    x = keras.Input((8, 8, 3), name="image")
    h = keras_l0.layers.L0Conv2D(6, 3, padding="same", name="first")(x)
    r = layers.Conv2D(6, 3, padding="same", name="inside")(h)
    r = layers.ReLU(name="after")(r)
    h = layers.Add(name="join")([h, r])
    h = layers.LayerNormalization(name="norm")(h)
    h = layers.Flatten(name="flat")(h)
    h = keras_l0.layers.L0Dense(10, activation="relu", name="hidden")(h)
    model = keras.Model(x, layers.Dense(3, name="top")(h), name=EVIL)
    first, hidden = keras_l0.gates(model)
    first.assign_log_alpha([9, -9, 9, 9, 9, 9])
    hidden.assign_log_alpha(np.linspace(-9, 9, 10))
    return model


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    rng = np.random.default_rng(0)
    data = rng.normal(size=(20, 8, 8, 3)).astype("float32")
    answers = keras.ops.convert_to_numpy(model(data, training=False)).argmax(-1)
    labels = np.where(np.arange(20) < 15, answers, (answers + 1) % 3)
    report = keras_l0.html_report(model, path, data=data, labels=labels)
    assert report.path == path and report.bytes == path.stat().st_size
    assert report.rows[-1].accuracy == 0.75
    return path.read_text()


def shown(text):
    """What a reader sees of a page: no tags, no style."""
    text = re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_all_parts_are_there(page, model):
    plan = keras_l0.plan(model)
    text = shown(page)
    for part in ("sizes", "network", "layers", "filters", "barriers", "tied", "notes"):
        assert f'<h2 id="{part}">' in page
    for row in plan.layers:
        assert f"{row.name} {row.kind}" in text
        assert f"{row.kept:,} of {row.units:,}" in text
    for barrier in plan.barriers:
        assert barrier.reason in text
    assert f"{plan.before.params:,} → {plan.after.params:,}" in text
    assert "accuracy 75.0 %" in text
    filters = re.findall(r'alt="filter \d, (\w+)"', page)
    assert filters.count("removed") == 0  # `norm` holds all of them.
    assert "6 of 6 filters stay" in text


def test_filters_of_a_transposed_convolution_are_told_by_its_outputs(tmp_path):
    conv = keras_l0.layers.L0Conv2DTranspose(3, 3, name="up")
    model = keras.Sequential([keras.Input((8, 8, 3)), conv, layers.Conv2D(2, 1)])
    keras_l0.gates(model)[0].assign_log_alpha([9, -9, 9])
    (found,) = [filters(Analysis(model))]
    kernel = keras.ops.convert_to_numpy(conv.kernel)
    levels = 127.5 + 127.5 * kernel / np.abs(kernel).max()
    expected = [png(levels[:, :, i].astype("uint8")) for i in range(3)]
    assert [one.picture for one in found.shown] == expected
    assert [one.kept for one in found.shown] == [True, False, True]


def test_names_are_text(page):
    assert EVIL in shown(page)
    for tag in ("<script", "<img src=x", "onerror=alert(2)>"):
        assert tag not in page


def test_nothing_is_loaded_from_elsewhere(page):
    assert "default-src 'none'" in page
    for address in re.findall(r"<[^>]*\b(?:src|href)=(\S*)", page):
        assert address.startswith('"data:image/png;base64,')
    assert not re.search(r"<(link|script|iframe|object|use|image)\b", page)
    assert "@import" not in page and "url(" not in page


def test_a_stripped_model_beside_the_one_from_before(tmp_path):
    dense = keras.Sequential(
        [
            keras.Input((9,), name="x"),
            layers.Dense(8, activation="relu", name="wide"),
            layers.Dense(4, activation="relu", name="middle"),
            layers.Dense(2, name="top"),
        ],
        name="dense",
    )
    gated = keras_l0.add_gates(dense, l0=0.1)
    first, second = keras_l0.gates(gated)
    first.assign_log_alpha([9] * 3 + [-9] * 5)
    second.assign_log_alpha([9, -9, 9, 9])
    small = keras_l0.strip(gated)
    report = keras_l0.html_report(small, tmp_path / "page.html", before=dense)
    before, after = report.rows
    assert before.params == dense.count_params()
    assert after.params == small.count_params()
    text = shown((tmp_path / "page.html").read_text())
    assert "3 of 8" in text and "3 of 4" in text and "2 of 2" in text
    assert "Dense · 8 → 3" in text
    keras_l0.html_report(dense, tmp_path / "page.html")
    assert "→" not in shown((tmp_path / "page.html").read_text())


def picture(address):
    """The pixels of a picture that the page holds."""
    content = base64.b64decode(address.partition(",")[2])
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, _, kind = struct.unpack(">IIBB", content[16:26])
    start = content.index(b"IDAT") + 4
    (size,) = struct.unpack(">I", content[start - 8 : start - 4])
    lines = zlib.decompress(content[start : start + size])
    channels = {2: 3, 6: 4}[kind]
    rows = np.frombuffer(lines, "uint8").reshape(height, 1 + width * channels)
    return rows[:, 1:].reshape(height, width, channels)


def test_pictures_are_png():
    pixels = np.random.default_rng(0).integers(256, size=(3, 5, 4)).astype("uint8")
    assert (picture(png(pixels)) == pixels).all()
    assert (picture(png(pixels[..., :3])) == pixels[..., :3]).all()


@pytest.mark.parametrize("flat", [False, True])
def test_pixels_that_are_read_are_in_their_places(flat, tmp_path):
    x = keras.Input((20,) if flat else (4, 5, 1), name="pixels_in")
    h = x if flat else layers.Flatten()(x)
    h = keras_l0.layers.L0Gate(name="pixels")(h)
    model = keras.Model(x, layers.Dense(2)(h))
    kept = np.random.default_rng(1).random(20) < 0.5
    keras_l0.gates(model)[0].assign_log_alpha(np.where(kept, 9, -9))
    keras_l0.html_report(model, tmp_path / "page.html", inputs="gather")
    page = (tmp_path / "page.html").read_text()
    assert f"{kept.sum()} of 20 features are read" in shown(page)
    (address,) = re.findall(r'class="map" src="([^"]*)"', page)
    grid = picture(address)[..., 3] == 255
    assert grid.shape == ((4, 5))
    assert (grid.ravel() == kept).all()


def test_no_lane_holds_two_boxes_in_a_row():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sources = [[]] + [
            sorted(set(rng.integers(number, size=rng.integers(1, 4)).tolist()))
            for number in range(1, 30)
        ]
        lanes = Lanes(sources)
        places = list(zip(lanes.depth, lanes.lane, strict=True))
        assert len(set(places)) == len(places)
        for number, reads in enumerate(sources):
            assert all(lanes.depth[i] < lanes.depth[number] for i in reads)


def test_what_does_not_fit_is_refused(model, tmp_path):
    data = np.zeros((2, 8, 8, 3))
    with pytest.raises(ValueError, match="`data` and `labels` must come together"):
        keras_l0.html_report(model, tmp_path / "p.html", data=data)
    with pytest.raises(ValueError, match="`labels` must hold the class of each"):
        keras_l0.html_report(model, tmp_path / "p.html", data=data, labels=[1])
    other = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="alien")])
    with pytest.raises(ValueError, match="`before` must be what `model` was made from"):
        keras_l0.html_report(model, tmp_path / "p.html", before=other)
    (tmp_path / "no.tflite").write_text("no")
    with pytest.raises(ValueError, match="`files` must be .tflite files"):
        keras_l0.html_report(model, tmp_path / "p.html", files=tmp_path / "no.tflite")
    assert [path.name for path in tmp_path.iterdir()] == ["no.tflite"]


@pytest.mark.tensorflow
def test_the_command_measures_files(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), keras_l0.layers.L0Dense(8), layers.Dense(3)]
    )
    model.save(tmp_path / "net.keras")
    data = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    np.save(tmp_path / "x.npy", data)
    np.save(tmp_path / "y.npy", np.arange(12) % 3)
    keras_l0.to_tflite(model, tmp_path / "net.tflite")
    arguments = [
        "report", "net.keras", "--html", "page.html", "--tflite", "net.tflite",
        "--data", "x.npy", "--labels", "y.npy", "--json",
    ]  # fmt: skip
    arguments = [str(tmp_path / a) if "." in a else a for a in arguments]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    *_, stripped, file = json.loads(result.stdout)["rows"]
    assert file["accuracy"] == stripped["accuracy"]
    assert file["bytes"] == (tmp_path / "net.tflite").stat().st_size
    assert file["seconds"] > 0
    page = shown((tmp_path / "page.html").read_text())
    assert f"net.tflite {file['bytes']:,} bytes" in page


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(not BROWSER, reason="takes chromium")
def test_a_browser_renders_it(page, tmp_path):
    (tmp_path / "page.html").write_text(page)
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=390,844",
        f"--screenshot={tmp_path / 'page.png'}", "--dump-dom",
        (tmp_path / "page.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    dom = done.stdout
    if dom:  # Not every version prints it beside a screenshot.
        assert dom.count("<g ") == page.count("<g ")
        assert dom.count('class="fill"') == page.count('class="fill"')
        assert "<script" not in dom


def test_layers_that_have_other_names_before_are_told(tmp_path):
    def stack(*names):
        shape = [keras.Input((9,), name="x")]
        sizes = zip((8, 4, 2), names, strict=True)
        return keras.Sequential([*shape, *(layers.Dense(n, name=m) for n, m in sizes)])

    dense, small = stack("dense", "dense_1", "dense_2"), stack("l0", "l0_1", "dense")
    with pytest.warns(UserWarning, match="`before` has no layers .* 'l0', 'l0_1'"):
        keras_l0.html_report(small, tmp_path / "page.html", before=dense)
    with pytest.raises(TypeError, match="`before` must be a Keras model"):
        keras_l0.html_report(small, tmp_path / "page.html", before=3)
    gated = keras_l0.add_gates(dense, l0=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        keras_l0.html_report(gated, tmp_path / "page.html", before=dense)
        keras_l0.html_report(dense, tmp_path / "page.html", before=gated)
