"""Edge TPU, TFLite Micro and Ethos-U: what they say of files."""

import os
import re
import stat

import keras
import numpy as np
import pytest
from keras import layers
from networks import awkward, conv_net, normal, small, two_by_two

from keras_l0.export import ExportError, to_tflite
from keras_l0.export.flatbuffer import read_ops
from keras_l0.export.targets import place

pytestmark = pytest.mark.tensorflow
IMAGES = (40, 16, 16, 2)


def image(*members, shape=(8, 8, 4)):
    members = [member() if isinstance(member, type) else member for member in members]
    return awkward(keras.Sequential([keras.Input(shape, name="x"), *members]))


def export(tmp_path, model, target, **options):
    shape = model.inputs[0].shape[1:]
    return to_tflite(
        model, tmp_path / "net.tflite", "int8", normal(30, *shape),
        target=target, **options,
    )  # fmt: skip


# Edge TPU


def test_a_conv_net_is_mapped_whole(tmp_path):
    report = export(tmp_path, conv_net(), "edgetpu")
    assert report.target.mapped == 1
    assert len(report.target.placements) == sum(report.ops.values())
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(report.ops)  # 8-bit at its borders
    assert "edgetpu: 100% of 8 operations mapped" in str(report)


def residual():
    x = keras.Input((8, 8, 3))
    h = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    y = layers.SeparableConv2D(8, 3, padding="same", activation="relu6")(h)
    h = layers.Concatenate()([layers.Add()([h, y]), h])
    h = layers.UpSampling2D(interpolation="bilinear")(h)
    h = layers.Conv2DTranspose(6, 2, strides=2)(h)
    h = layers.AveragePooling2D(2)(h)
    squeeze = layers.GlobalAveragePooling2D(keepdims=True)(h)
    h = layers.Multiply()([h, layers.Conv2D(6, 1, activation="sigmoid")(squeeze)])
    h = layers.PReLU("ones", shared_axes=[1, 2])(h)
    h = layers.GlobalMaxPooling2D()(layers.ZeroPadding2D()(h))
    return awkward(keras.Model(x, layers.Dense(3, activation="softmax")(h)))


def test_what_vision_networks_are_made_of_is_mapped(tmp_path):
    assert export(tmp_path, residual(), "edgetpu").target.mapped == 1


TAIL = (layers.GlobalAveragePooling2D, lambda: layers.Dense(3))
REFUSED = {
    "gelu": (
        [layers.Conv2D(4, 3, activation="gelu", name="odd")],
        r"GELU \(layer 'odd'\).*no such operation",
    ),
    "leaky": ([layers.LeakyReLU(name="odd")], r"LEAKY_RELU \(layer 'odd'\)"),
    "many": (
        [layers.Reshape((2, 4, 8, 4), name="odd")],
        r"three innermost dimensions.*\(1, 2, 4, 8, 4\)",
    ),
    "slopes": (
        [layers.PReLU("ones", name="odd")],
        r"PRELU \(layer 'odd'\).*shared_axes=\[1, 2\]",
    ),
    "positions": (
        [layers.Reshape((64, 4)), layers.Dense(3, name="odd")],
        r"FULLY_CONNECTED \(layer 'odd'\).*one vector",
    ),
    "strides": (
        [layers.Lambda(lambda x: x[:, ::2], name="odd")],
        r"STRIDED_SLICE \(layer 'odd'\).*strides must be 1",
    ),
    "softmax": (
        [layers.Softmax(name="odd")],
        r"SOFTMAX \(layer 'odd'\).*one vector",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_first_operation_left_to_the_cpu_is_named(tmp_path, name):
    stack, message = REFUSED[name]
    with pytest.raises(ExportError, match=f"target='edgetpu' leaves {message}" if (
        name != "many"
    ) else message):  # fmt: skip
        export(tmp_path, image(layers.Conv2D(4, 1), *stack), "edgetpu")
    assert not list(tmp_path.iterdir())


def test_what_comes_after_it_runs_on_the_cpu_too(tmp_path):
    model = image(
        layers.Conv2D(4, 3, name="before"), layers.LeakyReLU(name="odd"),
        layers.Conv2D(4, 3, name="after"),
    )  # fmt: skip
    export(tmp_path, model, None, io_dtype="int8")
    content = (tmp_path / "net.tflite").read_bytes()
    names = [layer.name for layer in model.layers]
    first, odd, after = place(read_ops(content, names))
    assert first.reason is None
    assert odd.op.layers == ("odd",) and "no such operation" in odd.reason
    assert after.reason == "it comes after LEAKY_RELU (layer 'odd')"


def test_float_files_have_float_borders_which_are_named(tmp_path):
    with pytest.raises(ExportError, match="QUANTIZE.*8-bit tensors.*FLOAT32"):
        export(tmp_path, conv_net(), "edgetpu", io_dtype="float32")


def test_layers_are_told_apart_by_their_numbers(tmp_path):
    x = keras.Input((4,), name="x")
    h = layers.Dense(5, activation="relu", name="dense")(x)
    h = layers.Dense(6, activation="relu", name="dense_1")(h)
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(7, activation="relu", name="dense_2")],
        name="inner",
    )
    model = awkward(keras.Model(x, layers.Dense(3, name="dense_1_2")(inner(h))))
    to_tflite(model, tmp_path / "net.tflite")
    ops = read_ops(
        (tmp_path / "net.tflite").read_bytes(),
        [layer.name for layer in model._flatten_layers(include_self=False)],
        {"dense_1_2": "dense_1_2"},
    )
    names = ["dense", "dense_1", "dense_2", "dense_1_2"]
    assert [op.layers for op in ops] == [(name,) for name in names]


COMPILER = """#!/bin/sh
cat > /dev/null
echo "Edge TPU Compiler version 16.0"; echo "$@"; ls; exit {status}
"""


@pytest.mark.parametrize("status", [0, 1])
def test_googles_compiler_is_run_if_it_is_there(tmp_path, monkeypatch, status):
    program = tmp_path / "bin" / "edgetpu_compiler"
    program.parent.mkdir()
    program.write_text(COMPILER.format(status=status))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    if status:
        with pytest.raises(ExportError, match="edgetpu_compiler refused.*version 16"):
            export(tmp_path, small(), "edgetpu")
    else:
        report = export(tmp_path, small(), "edgetpu")
        assert "version 16.0" in report.target.compiler
        assert "model.tflite" in str(report)


# TFLite Micro


def test_micro_runs_the_file_and_reports_its_arena(tmp_path):
    pytest.importorskip("tflite_micro", reason="pip install keras-l0[micro]")
    report = export(tmp_path, conv_net(), "micro")
    assert 1_000 < report.target.figures["arena_bytes"] < 20_000
    assert re.search(r"micro:\n +arena bytes: \d+", str(report))


def test_micro_knows_names_and_float_files(tmp_path):
    pytest.importorskip("tflite_micro", reason="pip install keras-l0[micro]")
    data = {"right": normal(30, 3), "left": normal(30, 4)}
    report = to_tflite(
        two_by_two("dict"), tmp_path / "net.tflite", data=data, target="micro"
    )
    assert report.target.figures["arena_bytes"] > 0


def test_micro_names_the_operation_that_it_does_not_have(tmp_path):
    pytest.importorskip("tflite_micro", reason="pip install keras-l0[micro]")
    x = keras.Input((9,))
    model = awkward(keras.Model(x, keras.ops.top_k(layers.Dense(8)(x), 2)[0]))
    with pytest.raises(ExportError, match="TFLite Micro does not run.*'TOPK_V2'"):
        export(tmp_path, model, "micro")
    assert not list(tmp_path.iterdir())


def test_micro_compares(tmp_path, monkeypatch):
    pytest.importorskip("tflite_micro", reason="pip install keras-l0[micro]")
    from keras_l0.export import micro

    run = micro.run

    def wrong(*arguments):
        (outputs,), arena = run(*arguments)
        return [outputs + np.ptp(outputs)], arena

    monkeypatch.setattr(micro, "run", wrong)
    with pytest.raises(ExportError, match="'y' of the quantized model differs"):
        export(tmp_path, small(), "micro")


# Ethos-U


def test_vela_estimates(tmp_path):
    pytest.importorskip("ethosu", reason="pip install keras-l0[ethos-u]")
    report = export(tmp_path, conv_net(), "ethos-u").target
    assert report.target == "ethos-u55-128" and report.mapped == 1
    assert report.figures["inferences_per_second"] > 1_000
    assert report.figures["sram_bytes"] > 0 and report.figures["flash_bytes"] > 0
    larger = export(tmp_path, conv_net(), "ethos-u55-256").target
    assert larger.figures["cycles"] < report.figures["cycles"]


def test_vela_says_what_stays_on_the_cpu(tmp_path):
    pytest.importorskip("ethosu", reason="pip install keras-l0[ethos-u]")
    x = keras.Input((9,))
    h = keras.ops.take(layers.Dense(8, activation="relu")(x), [1, 5, 2, 0], axis=1)
    model = awkward(keras.Model(x, layers.Dense(3)(h)))
    report = export(tmp_path, model, "ethos-u").target
    cpu = {p.op.name: p.reason for p in report.placements if p.reason}
    assert set(cpu) == {"GATHER"} and "Unsupported" in cpu["GATHER"]
    assert f"{2 / 3:.0%} of 3 operations mapped" in str(report)


# All


@pytest.mark.parametrize(
    "target, module, extra",
    [("micro", "tflite_micro", "micro"), ("ethos-u", "ethosu", "ethos-u")],
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path, monkeypatch, target, module, extra
):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    with pytest.raises(ImportError, match=rf"not installed.*keras-l0\[{extra}\]"):
        export(tmp_path, small(), target)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target": "tpu"}, "`target` must be one of.*Received: target='tpu'"),
        ({"target": "edgetpu"}, "`target` must be .* without quantization='int8'"),
        ({"target": "ethos-u85-256"}, "must be .* without quantization='int8'"),
        ({"target": "micro", "batch_size": None}, "`batch_size` must be a number"),
        (
            {"target": "edgetpu", "quantization": "int8", "inputs": "gather",
             "representative_data": normal(3, 4)},
            "has no GATHER. Received: inputs='gather'",
        ),
        ({"c_array": "net.txt"}, "`c_array` must end in .cc.*'net.txt'"),
        ({"c_array": "a\0.cc"}, r"`c_array` must be.*Received: c_array='a\\x00.cc'"),
    ],
)  # fmt: skip
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        to_tflite(small(), tmp_path / "net.tflite", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["net.cc", "net.h"])
def test_c_sources_do_not_take_the_place_of_the_file(tmp_path, name):
    with pytest.raises(ValueError, match="must be other files than `path`"):
        to_tflite(small(), tmp_path / name, c_array=tmp_path / "net.cc")
    assert not list(tmp_path.iterdir())


def test_c_sources_have_no_name_that_c_keeps(tmp_path):
    to_tflite(small(), tmp_path / "float.tflite", c_array=tmp_path / "float.cc")
    assert "char model_float[]" in (tmp_path / "float.cc").read_text()


def test_c_sources(tmp_path):
    path = tmp_path / "net.tflite"
    to_tflite(small(), path, c_array=tmp_path / "2-net.cc")
    source, header = ((tmp_path / f"2-net.{end}").read_text() for end in ("cc", "h"))
    found = bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", source))
    assert found == path.read_bytes()
    assert '#include "2-net.h"' in source and "alignas(16)" in source
    assert f"model_2_net_size = {len(found)};" in source
    assert "extern const unsigned char model_2_net[];" in header
