"""strip returns the same function: every rule, every input mode."""

import json
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from adversary import (
    ALLOWED,
    COUNTED,
    PRECISION,
    batch,
    harden,
    macs,
    narrowed,
    policy,
    run,
    variation,
)
from keras import layers
from small_models import CASES, chain, hardened, is_core, operations, spread

import keras_l0
from keras_l0.analysis.rules import RULES
from keras_l0.layers import L0Dense

MODES = ("keep", "gather", "narrow")
GATED = [name for name, facts in CASES.items() if facts.gated]


def assert_equal(
    model, stripped, inputs, other=None, alive=True, allowed=ALLOWED[PRECISION]
):
    outputs = run(model, inputs)
    for old, new in zip(
        outputs, run(stripped, inputs if other is None else other), strict=True
    ):
        assert old.shape == new.shape
        yardstick = variation(old) if alive else np.abs(old).max()
        assert variation(old) >= 1e-2 * np.abs(old).max() or not alive
        assert np.abs(old - new).max() <= allowed * yardstick


def ours(config):
    """What of this package a config mentions."""
    return [
        word
        for word in json.dumps(config, default=str).split('"')
        if "keras_l0" in word
    ]


def input_names(model):
    return [tensor._keras_history.operation.name for tensor in model.inputs]


def state(model):
    """What of a model must not change."""
    return {
        "weights": [np.array(w) for w in model.get_weights()],
        "config": json.dumps(model.get_config(), default=str),
        "calls": [len(o._inbound_nodes) for o in operations(model)],
        "readers": [len(o._outbound_nodes) for o in operations(model)],
        "layers": [layer.name for layer in model.layers],
        "outputs": run(model, batch(model)),
    }


def test_every_rule_has_a_model():
    covered = {
        type(o)
        for name, facts in CASES.items()
        for o in operations(facts.build() if facts.first else hardened(name))
    }
    missing = [
        t.__name__ for t, r in RULES.items() if not r.reason and t not in covered
    ]
    assert not missing, f"no model of the tests contains a {missing}"


# What the input modes do, and what a backend does, does not depend on the rules of the
# other model files.
CORE = [name for name in GATED if is_core(name)]
PAIRS = [
    *(pytest.param(name, "keep", marks=pytest.mark.any_backend) for name in CORE),
    *((name, "keep") for name in GATED if name not in CORE),
    *((name, mode) for mode in MODES[1:] for name in CORE),
]


@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_outputs_are_equal(name, mode):
    model = hardened(name)
    plan = keras_l0.plan(model, inputs=mode)
    stripped = keras_l0.strip(model, inputs=mode)
    inputs = batch(model, seed=1)
    cut = narrowed(model, inputs, plan.kept_inputs) if mode == "narrow" else inputs
    allowed = ALLOWED[CASES[name].precision]
    assert_equal(model, stripped, inputs, cut, CASES[name].alive, allowed)

    assert all(np.isfinite(w).all() for w in stripped.get_weights())
    assert stripped.count_params() == plan.after.params
    deployed = keras_l0.profile(model, inputs=mode).deployed
    assert deployed == plan.after
    if all(type(o) in COUNTED or not getattr(o, "weights", 0) for o in stripped.layers):
        assert deployed.macs == macs(stripped)
    assert not keras_l0.gates(stripped)
    assert not ours(stripped.get_config())


@pytest.mark.parametrize("name", spread(GATED))
def test_interface_is_kept(name):
    model = hardened(name)
    before = state(model)
    stripped = keras_l0.strip(model, verify=False)
    after = state(model)
    np.testing.assert_equal(after, before)

    assert stripped.name == model.name
    assert input_names(stripped) == input_names(model)
    assert [t.shape for t in stripped.inputs] == [t.shape for t in model.inputs]
    assert [t.dtype for t in stripped.inputs] == [t.dtype for t in model.inputs]
    assert [t.shape for t in stripped.outputs] == [t.shape for t in model.outputs]
    if not isinstance(model, keras.Sequential):
        keras.tree.assert_same_structure(stripped.input, model.input)
        keras.tree.assert_same_structure(stripped.output, model.output)
        assert list(stripped.output_names) == list(model.output_names)
    old = {o.name: o for o in operations(model)}
    for layer in stripped.layers:
        if layer.weights and layer.name in old:
            source = old[layer.name]
            # A wrapper that only matters in training gives way to what it wraps.
            assert isinstance(source, (type(layer), keras.layers.Wrapper))
            assert layer.dtype_policy.name == source.dtype_policy.name
            assert layer.trainable == source.trainable
        elif layer.weights:
            # Two layers of one name are told apart by their nested model's name. A
            # gate that stays as a multiplication behind an output takes its name.
            assert "nested" in name or layer.name.endswith("_ungated")


@pytest.mark.parametrize("name", spread(GATED))
def test_float32_is_as_exact_as_the_model(name):
    wide = hardened(name)
    if not CASES[name].alive:
        pytest.skip("its outputs are constants")
    if any(isinstance(o, keras.layers.Lambda) for o in operations(wide)):
        pytest.skip("Keras does not clone a Python function")
    with policy("float32"):
        model = CASES[name].build()
    wide = keras.models.clone_model(wide)
    model.set_weights([w.astype("float32") for w in hardened(name).get_weights()])
    wide.set_weights([w.astype("float64") for w in model.get_weights()])
    stripped = keras_l0.strip(model)
    inputs = keras.tree.map_structure(
        lambda x: x.astype("float32") if x.dtype == "float64" else x, batch(model)
    )
    exact, single, new = (run(m, inputs) for m in (wide, model, stripped))
    for truth, old, stripped_output in zip(exact, single, new, strict=True):
        floor = max(np.abs(old - truth).max(), 2**-23 * np.abs(truth).max())
        assert np.abs(stripped_output - truth).max() <= 10 * floor


@pytest.mark.parametrize("name", [n for n in CASES if not CASES[n].gated])
def test_without_gates_strip_copies(name):
    model = hardened(name)
    with pytest.warns(UserWarning, match="Nothing was gated"):
        copy = keras_l0.strip(model)
    assert copy is not model
    assert [layer.name for layer in copy.layers if layer.name != "x"] == [
        layer.name for layer in model.layers if layer.name != "x"
    ]
    assert copy.count_params() == model.count_params()
    for old, new in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert_equal(model, copy, batch(model))
    assert "Nothing is gated" in str(keras_l0.plan(model))


def test_gated_models_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        keras_l0.strip(hardened("dense_chain"))


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("case", ["lenet", "residual", "gate_on_positions"])
def test_mixed_precision(case, name):
    with policy(name):
        model = CASES[case].build()
    harden(model)
    with warnings.catch_warnings():
        # Compared in half precision, nothing would be seen.
        warnings.simplefilter("error", UserWarning)
        stripped = keras_l0.strip(model)
    old = {layer.name: layer for layer in model.layers}
    for layer in stripped.layers:
        if layer.weights:
            assert layer.dtype_policy.name == name == old[layer.name].dtype_policy.name
            assert all(w.dtype == "float32" for w in layer.weights)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", ["lenet", "residual", "dense_chain"])
def test_weights_in_half_precision(case, name):
    with policy(name):
        model = CASES[case].build()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # What is folded into weights is rounded once more.
        stripped = keras_l0.strip(harden(model))
    assert {w.dtype for w in stripped.weights} == {name}


def test_trainable_flags_and_policies_stay():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras_l0.layers.L0Dense(6, "relu", trainable=False, name="frozen"),
            keras_l0.layers.L0Dense(6, "relu", dtype="float32", name="narrow"),
            layers.BatchNormalization(trainable=False, name="norm"),
            layers.Dense(2, name="top"),
        ]
    )
    stripped = keras_l0.strip(harden(model))
    assert [stripped.get_layer(n).trainable for n in ("frozen", "norm", "top")] == [
        False, False, True,
    ]  # fmt: skip
    assert stripped.get_layer("narrow").compute_dtype == "float32"
    assert stripped.get_layer("top").compute_dtype == "float64"


def test_it_trains_further():
    for name in ("lenet", "residual", "dictionaries"):
        assert_trains(keras_l0.strip(hardened(name)))


def assert_trains(stripped):
    x = batch(stripped)
    y = keras.tree.map_structure(
        lambda t: np.zeros((48, *t.shape[1:])), stripped.output
    )
    stripped.compile("sgd", "mse")
    before = [np.array(w) for w in stripped.get_weights()]
    stripped.fit(x, y, batch_size=16, epochs=1, verbose=0)
    assert any(
        (old != new).any()
        for old, new in zip(before, stripped.get_weights(), strict=True)
    )


def test_a_waiting_scale_takes_no_name_that_the_model_holds():
    model = harden(
        chain(
            L0Dense(6, "sigmoid", name="a"),
            layers.LayerNormalization(name="multiply"),
            layers.Dense(4, name="rescaling"),
            layers.Dense(3, name="a_scale"),
        )
    )
    # As in a new process that has loaded the model: Keras gives these names again.
    keras.backend.clear_session()
    assert_equal(model, keras_l0.strip(model), batch(model))


LOAD = """
import sys
sys.modules["keras_l0"] = None  # not importable
import keras, numpy
for path in sys.argv[1:]:
    model = keras.models.load_model(path + ".keras")
    data = numpy.load(path + ".npz")
    inputs = [data[f"x{i}"] for i in range(len(model.inputs))]
    inputs = keras.tree.pack_sequence_as(model.input, inputs)
    outputs = keras.tree.flatten(model(inputs, training=False))
    for i, y in enumerate(outputs):
        expected = data[f"y{i}"]
        error = abs(keras.ops.convert_to_numpy(y) - expected).max()
        assert error <= 1e-9 * abs(expected).max(), (path, i, error)
print("all equal")
"""


def test_saved_models_load_without_this_package(tmp_path):
    cases = [
        "lenet", "residual", "dictionaries", "gate_on_positions", "raw_operations",
        "nested_model_twice", "gated_outputs", "folded_without_bias",
    ]  # fmt: skip
    assert_loads_alone(cases, tmp_path)


def assert_loads_alone(cases, tmp_path):
    """Stripped models of these cases load and run where this package is not."""
    paths = []
    for name in cases:
        stripped = keras_l0.strip(hardened(name), inputs="gather")
        inputs = batch(stripped)
        path = str(tmp_path / name)
        stripped.save(path + ".keras")
        flat = keras.tree.flatten(inputs)
        arrays = {f"x{i}": x for i, x in enumerate(flat)}
        arrays |= {f"y{i}": y for i, y in enumerate(run(stripped, inputs))}
        np.savez(path + ".npz", **arrays)
        paths.append(path)
    result = subprocess.run(
        [sys.executable, "-c", LOAD, *paths],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )  # fmt: skip
    assert result.stdout.strip() == "all equal", result.stderr
