"""Latency as a cost: tables, budgets that go by them, and what they refuse."""

import json
import zlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_l0
from keras_l0 import Budget, LatencyTable, add_gates, strip, with_budget
from keras_l0.analysis.cost import Cost
from keras_l0.analysis.grids import Grid, interpolate
from keras_l0.analysis.program import Program
from keras_l0.analysis.symbols import Tape
from keras_l0.budget.constraints import Constraints
from keras_l0.layers import L0Dense


def microseconds(shape, n_in, n_out):
    """A formula with numbers of its own for each shape, not linear in the counts."""
    rng = np.random.default_rng(zlib.crc32(repr(shape).encode()))
    a, b, c = rng.uniform(0.1, 1, 3)
    return 1 + a * n_in + b * n_out**1.5 + c * n_in * n_out


def table_of(model, shares=(0.25, 0.5, 1.0), **options):
    return LatencyTable.of(model, microseconds, shares=shares, overhead=2.0, **options)


def network(name="net"):
    stack = [
        keras.Input((10,)),
        L0Dense(40, activation="relu"),
        L0Dense(40, activation="gelu"),
        layers.Dense(2),
    ]
    return keras.Sequential(stack, name=name)


def branches():
    """Every kind of call that is measured."""
    x = keras.Input((8, 8, 3))
    h = layers.Conv2D(8, 3, padding="same")(x)
    h = layers.ReLU()(layers.BatchNormalization()(h))
    a = layers.DepthwiseConv2D(3, padding="same", activation="relu")(h)
    b = layers.SeparableConv2D(8, 3, padding="same", activation="sigmoid")(h)
    h = layers.Add()([h, a, b])
    gate = layers.Dense(8, "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(h))
    h = layers.Multiply()([h, gate]) + h
    h = layers.UpSampling2D()(layers.MaxPooling2D()(layers.LeakyReLU()(h)))
    h = layers.Conv2DTranspose(6, 2, strides=2)(layers.ZeroPadding2D()(h))
    return keras.Model(x, layers.Dense(4)(layers.Flatten()(h)), name="branches")


def close(model, share, seed=0):
    rng = np.random.default_rng(seed)
    for gate in keras_l0.gates(model):
        closed = rng.uniform(size=tuple(gate.log_alpha.shape)) < share
        gate.assign_log_alpha(np.where(closed, -9.0, 9.0))


# Grids.


def test_grid_of_known_values():
    grid = Grid((1, 3, 7), (2, 4), ((1.0, 2.0), (5.0, 4.0), (6.0, 9.0)))
    for i, n in enumerate(grid.inputs):
        for j, m in enumerate(grid.outputs):
            at = np.array([n], "float64"), np.array([m], "float64")
            assert grid.value(*at)[0] == pytest.approx(grid.values[i][j], rel=1e-12)
    assert interpolate(grid, np.float64(5), np.float64(3)) == pytest.approx(6.0)
    # Outside it is what it is at the border.
    assert interpolate(grid, np.float64(0), np.float64(9)) == pytest.approx(2.0)
    rising = Grid.rising((1, 2, 3), (1, 2), [[5.0, 1.0], [2.0, 3.0], [2.0, 4.0]])
    assert rising.values == ((1.0, 1.0), (2.0, 3.0), (2.0, 4.0))


def test_grid_slopes_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    grid = Grid((1, 4, 6), (1, 2, 9), tuple(map(tuple, rng.uniform(size=(3, 3)))))
    tape = Tape([3, 5])
    x, y = (z.unknown for z in tape.inputs)
    counts = [3.0 * x[0] + x[1] + x[2], y[0] + 4.0 * y[1]]
    program = Program(tape, [interpolate(grid, *counts)])
    for _ in range(20):
        at = [rng.uniform(0, 2, n) for n in (3, 5)]
        found = program.gradient(at, [np.float64(1.0)])
        for k in range(2):
            for i in range(len(at[k])):
                up, down = ([z.copy() for z in at] for _ in range(2))
                up[k][i] += 1e-6
                down[k][i] -= 1e-6
                slope = (program(up)[0] - program(down)[0]) / 2e-6
                assert found[k][i] == pytest.approx(slope, abs=1e-6)


def test_grid_slopes_at_full_width_are_those_of_fewer_channels():
    grid = Grid((1, 4), (1, 2), ((1.0, 2.0), (4.0, 8.0)))
    down, across = grid.slopes(np.array([4.0]), np.array([2.0]))
    assert down[0] == pytest.approx(2.0) and across[0] == pytest.approx(4.0)


def test_grids_of_tensors_are_those_of_arrays():
    grid = Grid((1, 4, 6), (1, 2), ((1.0, 2.0), (4.0, 8.0), (5.0, 9.0)))
    x, y = np.array([2.5], "float32"), np.array([1.25], "float32")
    tensors = [keras.ops.convert_to_tensor(z) for z in (x, y)]
    found = [grid.value(*tensors), *grid.slopes(*tensors)]
    expected = [grid.value(x, y), *grid.slopes(x, y)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(one), other, rtol=1e-6)
    one = Grid((3,), (1,), ((2.0,),))
    assert float(interpolate(one, tensors[0][0], None)) == 2.0


# Tables.


def test_a_table_is_a_file(tmp_path):
    table = table_of(branches(), device="a phone", versions={"keras": "3"})
    path = tmp_path / "phone.json"
    table.save(path)
    assert LatencyTable.load(path) == table
    assert sorted(tmp_path.iterdir()) == [path]
    held = json.loads(path.read_text())
    assert held["device"] == "a phone" and held["overhead"] == 2.0
    entry = next(e for e in held["entries"] if e["layer"] == "Conv2DTranspose")
    assert entry["options"]["kernel_size"] == [2, 2] and entry["units"] == "filters"
    assert len(entry["microseconds"]) == len(entry["inputs"])
    config = keras.saving.serialize_keras_object(table)
    assert (
        keras.saving.deserialize_keras_object(json.loads(json.dumps(config))) == table
    )
    assert (
        repr(table) == f"LatencyTable({len(table.entries)} shapes, float32 on a phone)"
    )


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '{"format": "other"}', '{"format": "keras_l0.LatencyTable 1"}'],
)
def test_a_file_that_is_none(text, tmp_path):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="`path` must be a file that.*table.json"):
        LatencyTable.load(path)
    with pytest.raises(FileNotFoundError):
        LatencyTable.load(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"inputs": [3, 2, 1]}, "`inputs` must be numbers of channels"),
        ({"outputs": []}, "`outputs` must be numbers of channels"),
        ({"microseconds": [[1.0]]}, "`microseconds` must be .* rows of"),
        ({"microseconds": [[-1.0] * 4] * 4}, "`microseconds` must be .* rows of"),
    ],
)
def test_an_entry_that_is_none(change, message, tmp_path):
    path = tmp_path / "table.json"
    table_of(network()).save(path)
    held = json.loads(path.read_text())
    held["entries"][0] |= change
    path.write_text(json.dumps(held))
    with pytest.raises(ValueError, match=f"`path` must be .*{message}"):
        LatencyTable.load(path)


def test_shapes_of_one_kind_share_an_entry():
    table = table_of(network(), shares=(0.5, 1.0))
    plain, gelu = table.entries
    assert (plain.shape.layer, plain.shape.options) == ("Dense", ())
    assert gelu.shape.options == (("activation", "gelu"),)
    assert (plain.inputs, plain.outputs) == ((1, 10, 40), (1, 2, 16, 17, 40))
    with pytest.raises(ValueError, match=r"`shares` must be shares.*\(0, 1\]"):
        table_of(network(), shares=(0.5, 2.0))
    for wrong in (0.5, "0.5", None):
        with pytest.raises(TypeError, match="`shares` must be a sequence of shares"):
            table_of(network(), shares=wrong)
    with pytest.raises(TypeError, match="`microseconds` must be a function"):
        LatencyTable.of(network(), 3)
    with pytest.raises(ValueError, match="`overhead` must be a finite number >= 0"):
        LatencyTable.of(network(), microseconds, overhead=-5.0)


def test_the_estimate_is_the_sum_of_the_entries():
    def at(shape, n_in, n_out):
        (entry,) = (e for e in table.entries if str(e.shape) == shape)
        row, column = entry.inputs.index(n_in), entry.outputs.index(n_out)
        return entry.microseconds[row][column] - table.overhead

    model = network()
    table = LatencyTable.of(model, lambda s, i, o: 5.0 + i * o, overhead=2.0)
    parts = [at("Dense()", 10, 40), at("Dense(activation='gelu')", 40, 40)]
    expected = 2.0 + sum(parts) + at("Dense()", 40, 2)
    assert table.estimate(model) == pytest.approx(expected, rel=1e-12)


# The estimate under gates is that of the stripped model.


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_corners_are_what_the_stripped_model_takes(share):
    model = add_gates(branches())
    table = table_of(model)
    shapes = {entry.shape.layer for entry in table.entries}
    assert shapes >= {
        "Add", "Conv2D", "Conv2DTranspose", "Dense", "DepthwiseConv2D", "LeakyReLU",
        "GlobalAveragePooling2D", "MaxPooling2D", "Multiply", "SeparableConv2D",
        "UpSampling2D", "ZeroPadding2D",
    }  # fmt: skip
    close(model, share)
    stripped = strip(model)
    expected = table.estimate(stripped)
    assert table.estimate(model) == pytest.approx(expected, rel=1e-9)
    assert share == 0.0 or expected < table.estimate(branches())
    # The program that training runs says the same.
    constraints = Constraints(model, [Budget(latency=0.5, table=table)])
    openness = constraints.each[0].analysis.test_open()
    (found,) = constraints.program(openness)
    assert constraints.each[0].amount(float(found)) == pytest.approx(expected, rel=1e-9)


def test_groups_go_as_a_whole():
    x = keras.Input((6, 6, 8))
    h = keras_l0.layers.L0Gate()(layers.Conv2D(8, 1, name="front")(x))
    h = layers.Conv2D(12, 3, groups=4)(h)
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))
    table = table_of(model)
    entry = table.entries[1]
    assert (entry.shape.group, entry.inputs, entry.outputs) == ((2, 3), (2, 4, 8), (1,))
    assert entry.shape.config(4, 1)["groups"] == 2
    assert entry.shape.config(4, 1)["filters"] == 6
    keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, -9.0, -9.0, 9.0, 9.0, -9, -9])
    assert table.estimate(model) == pytest.approx(table.estimate(strip(model)))


def test_slopes_of_the_estimate_are_those_of_finite_differences():
    model = add_gates(branches())
    budgets = [Budget(latency=0.5, table=table_of(model)), Budget(macs=0.5)]
    constraints = Constraints(model, budgets)
    program, weights = constraints.program, [np.float64(1.0), np.float64(0.0)]
    rng = np.random.default_rng(1)
    at = [rng.uniform(0.5, 0.95, gate.count) for gate in constraints.gates]
    found = program.gradient(at, weights)
    for k in range(len(at)):
        i = int(rng.integers(len(at[k])))
        up, down = ([z.copy() for z in at] for _ in range(2))
        up[k][i] += 1e-6
        down[k][i] -= 1e-6
        slope = (program(up)[0] - program(down)[0]) / 2e-6
        assert found[k][i] == pytest.approx(slope, rel=1e-3, abs=1e-6)
    assert Cost(model)(at).macs > 0


@pytest.mark.parametrize("mode", ["gather", "narrow"])
def test_features_that_leave(mode):
    model = keras.Sequential([keras.Input((9,)), keras_l0.layers.L0Gate(), L0Dense(4),
                              layers.Dense(2)])  # fmt: skip
    table = table_of(model, inputs=mode)
    close(model, 0.4)
    stripped = strip(model, mode)
    assert table.estimate(model, mode) == pytest.approx(table.estimate(stripped))
    assert table.estimate(model, mode) < table.estimate(model)


# What budgets refuse.


@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, 1.5, float("nan")])
def test_amounts_out_of_range(value):
    with pytest.raises(ValueError, match="`latency`.*Received: latency="):
        Budget(latency=value, table=table_of(network()))


def test_other_options():
    table = table_of(network())
    with pytest.raises(TypeError, match="`table` must be a `keras_l0.LatencyTable`"):
        Budget(latency=0.5, table="phone.json")
    for options in ({"latency": 0.5}, {"params": 0.5, "table": table}):
        with pytest.raises(ValueError, match="`latency` and `table` .* together"):
            Budget(**options)
    with pytest.raises(ValueError, match="`quantization` must be that of `table`"):
        Budget(latency=0.5, bytes=9000, quantization="int8", table=table)
    with pytest.raises(TypeError, match="`latency` must be"):
        Budget(latency="0.5", table=table)
    assert Budget(latency=350, table=table).limits == {"latency": 350}


def test_config_round_trip():
    budget = Budget(latency=0.5, macs=0.9, table=table_of(network()), layers=["a"])
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(budget)))
    assert keras.saving.deserialize_keras_object(config) == budget


@pytest.mark.parametrize(
    "lacking, said",
    [
        ({"units": 80}, r"Dense\(\), 10 input channels, 1 to 80 units"),
        ({"activation": "tanh"}, r"Dense\(activation='tanh'\), 10 input channels"),
    ],
)
def test_a_table_that_lacks_a_shape(lacking, said):
    options = {"units": 40, "activation": "relu"} | lacking
    stack = [keras.Input((10,)), L0Dense(**options, name="wide"), layers.Dense(2)]
    model = keras.Sequential(stack, name="other")
    budget = Budget(latency=0.5, table=table_of(network()))
    for refuse in (lambda: with_budget(model, budget), lambda: strip(model, "keep",
                   budget=budget), lambda: budget.table.estimate(model)):  # fmt: skip
        with pytest.raises(ValueError, match=f"'other'.*lacks 'wide': {said}") as error:
            refuse()
        assert "keras_l0.measure_latency(model" in str(error.value)


def test_a_table_of_fixed_inputs_lacks_fewer():
    stack = [keras.Input((9,)), keras_l0.layers.L0Gate(), L0Dense(4, "gelu")]
    model = keras.Sequential([*stack, layers.Dense(2)])
    with pytest.raises(ValueError, match="1 to 9 input channels.*inputs='gather'"):
        with_budget(model, Budget(latency=0.5, table=table_of(model), inputs="gather"))


def test_layers_that_have_no_shape():
    x = keras.Input((5, 3))
    h = L0Dense(4)(layers.GRU(6, return_sequences=True, name="memory")(x))
    model = keras.Model(x, layers.Dense(2, name="last")(h))
    with pytest.raises(ValueError, match="'memory' .GRU.*other `layers`"):
        table_of(model)
    with pytest.raises(ValueError, match="inputs of known sizes.*on None"):
        table_of(keras.Sequential([keras.Input((None, 3)), layers.Dense(2)]))


def test_unreachable_says_the_floor():
    model = network()
    table = table_of(model)
    with pytest.raises(ValueError) as error:
        with_budget(model, Budget(latency=3, table=table))
    assert "microseconds, by estimate," in str(error.value)
    assert "Received: latency=3" in str(error.value)
    with_budget(model, Budget(latency=0.2, table=table))


def test_some_layers_without_the_overhead_of_a_call():
    model = network()
    table = table_of(model)
    names = tuple(layer.name for layer in model.layers)
    (whole,) = Constraints(model, [Budget(latency=0.5, table=table)]).each
    (some,) = Constraints(model, [Budget(latency=0.5, table=table, layers=names)]).each
    assert whole.amount(1.0) == pytest.approx(some.amount(1.0) + 2.0)
    assert some.limit == 0.5 > whole.limit


# Training, files, strip.


def data(size=512, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 10)).astype("float32")
    return x, np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 0]], 1).astype("float32")


def train(model, epochs=24, **options):
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model.fit(*data(), batch_size=64, epochs=epochs, verbose=0, **options)


def test_training_keeps_the_budget_through_files_and_clones(tmp_path):
    source = network()
    table = table_of(source)
    full = table.estimate(source)
    model = with_budget(source, [Budget(latency=0.4, table=table), Budget(params=0.9)])
    clone = keras.models.clone_model(model)
    assert clone.budgets == model.budgets
    shown = train(model, callbacks=[keras_l0.callbacks.Density()]).history["latency"]
    assert table.estimate(model) == pytest.approx(shown[-1], abs=0.5)
    assert table.estimate(strip(model)) == pytest.approx(0.4 * full, rel=0.12)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.budgets == model.budgets and loaded.multipliers == model.multipliers
    assert table.estimate(loaded) == table.estimate(model)
    loaded.compile(keras.optimizers.Adam(0.01), "mse")
    assert np.isfinite(loaded.fit(*data(), epochs=1, verbose=0).history["loss"][-1])


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("limit", [0.3, 400])
def test_strip_closes_until_the_estimate_fits(limit, round_to):
    model = network()
    rng = np.random.default_rng(0)
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(rng.normal(2, 2, gate.count))
    table = table_of(model)
    budget = Budget(latency=limit, table=table)
    stripped = strip(model, budget=budget, round_to=round_to)
    allowed = limit * table.estimate(with_open(model)) if limit < 1 else limit
    assert 0.6 * allowed < table.estimate(stripped) <= allowed
    assert all(layer.units % round_to == 0 for layer in stripped.layers[1:3])


def with_open(model):
    copy = keras.models.clone_model(model)
    for gate in keras_l0.gates(copy):
        gate.assign_log_alpha(9.0)
    return copy
