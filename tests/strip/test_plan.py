"""The plan: what strip will do, readable by people and by programs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_l0
from keras_l0.layers import L0Dense, L0Gate


def model():
    x = keras.Input((6,), name="features")
    h = L0Gate(name="pick")(x)
    h = L0Dense(5, "relu", name="one")(h)
    h = layers.LayerNormalization(name="norm")(h)
    h = L0Dense(4, "relu", name="two")(h)
    built = keras.Model(x, layers.Dense(2, name="top")(h), name="small")
    pick, one, two = keras_l0.gates(built)
    pick.assign_log_alpha([9, -9, 9, 9, -9, -9])
    one.assign_log_alpha([9, -9, 9, 9, 9])
    two.assign_log_alpha([-9, 9, 9, -9])
    return built


def test_the_data_tell_what_is_kept():
    plan = keras_l0.plan(model())
    assert plan.model == "small"
    rows = {row.name: (row.kind, row.units, row.kept) for row in plan.layers}
    assert rows["two"] == ("L0Dense", 4, 2)
    assert rows["one"] == ("L0Dense", 5, 5)  # all of it is normalized
    assert rows["top"] == ("Dense", 2, 2)
    assert rows["pick"][0] == "L0Gate"
    assert plan.before == (
        6 * 5 + 5 + 10 + 5 * 4 + 4 + 4 * 2 + 2,
        6 * 5 + 5 * 4 + 4 * 2,
    )
    assert plan.after.params == keras_l0.strip(model()).count_params()
    (barrier,) = plan.barriers
    assert (barrier.name, barrier.kind) == ("norm", "LayerNormalization")
    assert barrier.reason


@pytest.mark.parametrize(
    "mode, kept", [("keep", range(6)), ("gather", [0, 2, 3]), ("narrow", [0, 2, 3])]
)
def test_the_data_tell_which_features_are_read(mode, kept):
    plan = keras_l0.plan(model(), inputs=mode)
    assert plan.inputs == mode
    (indices,) = plan.kept_inputs.values()
    assert list(indices) == list(kept)
    stripped = keras_l0.strip(model(), inputs=mode)
    width = len(kept) if mode == "narrow" else 6
    assert stripped.input_shape == (None, width)
    assert stripped.count_params() == plan.after.params


def test_print_shows_the_whole_story():
    plan = keras_l0.plan(model(), inputs="gather")
    text = str(plan)
    for row in plan.layers:
        (line,) = [t for t in text.splitlines() if t.split()[:1] == [row.name]]
        words = line.split()
        assert words[1:4] == [row.kind, str(row.units), str(row.kept)]
        assert words[4:6] == [f"{row.before.params:,}", f"{row.after.params:,}"]
    (total,) = [t for t in text.splitlines() if t.split()[:1] == ["total"]]
    assert str(plan.before.params) in total and str(plan.after.params) in total
    assert "gather" in text and "3 features: 0, 2-3" in text
    assert "'norm' (LayerNormalization)" in text
    assert plan.barriers[0].reason in " ".join(text.split())


def test_a_long_name_is_printed_whole():
    name = "a_name_that_is_much_longer_than_a_column_of_a_table_would_like_it_to_be"
    layer = L0Dense(3, name=name)
    plan = keras_l0.plan(keras.Sequential([keras.Input((2,)), layer]))
    text = str(plan)
    first = "".join(line[:30].split()[0] for line in text.splitlines() if "a_" in line)
    assert first.startswith("a_name")
    assert plan.layers[0].name == name


def test_repr_is_one_short_line():
    text = repr(keras_l0.plan(model()))
    assert text.startswith("<StripPlan of 'small': ") and "1 barriers" in text
    assert "\n" not in text and len(text) < 120


def test_a_dead_output_is_pointed_out():
    dead = model()
    keras_l0.gates(dead)[2].assign_log_alpha(-9.0)
    text = str(keras_l0.plan(dead))
    assert "Output 'top' no longer depends on any input" in " ".join(text.split())


def test_planning_changes_nothing():
    source = model()
    calls = [len(layer._inbound_nodes) for layer in source.layers]
    before = source.get_config()
    keras_l0.plan(source)
    assert source.get_config() == before
    assert [len(layer._inbound_nodes) for layer in source.layers] == calls


def test_barriers_of_one_kind_that_hold_nothing_back_share_a_sentence():
    x = inputs = keras.Input((4,))
    for name in ("a", "b"):
        x = keras.layers.Dense(3, name=f"dense_{name}")(x)
        x = keras.layers.LayerNormalization(name=f"norm_{name}")(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    text = " ".join(str(keras_l0.plan(model)).split())
    assert text.count("over all channels") == 1
    assert "barriers 'norm_a', 'norm_b' (LayerNormalization): its mean" in text


def test_a_nested_model_is_as_large_as_what_it_is_called_on():
    """Keras has recorded the shapes of its own, open `Input`."""

    def outer(shape):
        i = keras.Input(shape)
        h = layers.Conv2D(8, 3, strides=2, padding="same")(i)
        h = ops.relu(layers.BatchNormalization()(h))
        inner = keras.Model(i, layers.Conv2D(16, 3)(h), name="inner")
        x = keras.Input((16, 12, 3))
        h = layers.GlobalAveragePooling2D()(inner(x))
        return keras.Model(x, layers.Dense(4)(h))

    macs = 8 * 6 * 27 * 8 + 6 * 4 * 72 * 16 + 16 * 4
    for shape in ((None, None, 3), (16, 12, 3)):
        found = keras_l0.plan(outer(shape))
        assert found.before.macs == macs
        assert not any("one position" in note for note in found.notes)


def test_open_sizes_are_noted():
    model = keras.Sequential([keras.Input((None, 4), name="words"), layers.Dense(3)])
    (note,) = [n for n in keras_l0.plan(model).notes if "one position" in n]
    assert "'words'" in note


class Narrow(layers.Layer):
    """A layer whose shapes are told by a function that knows no other arguments."""

    def call(self, x, training=None, mask=None):
        return ops.relu(x)

    def compute_output_shape(self, input_shape):
        return input_shape


def test_an_own_layer_in_a_nested_model_is_as_large_as_what_it_is_called_on():
    i = keras.Input((None, 4))
    h = Narrow()(layers.Masking()(i), training=False)
    inner = keras.Model(i, layers.Dense(3)(h), name="inner")
    x = keras.Input((6, 4))
    found = keras_l0.plan(keras.Model(x, layers.Flatten()(inner(x))))
    assert found.before.macs == 6 * 12


def of_pixels(granularity="inputs"):
    return keras.Sequential(
        [
            keras.Input((6, 1)),
            keras.layers.Flatten(),
            L0Dense(5, activation="relu", granularity=granularity, name="wide"),
            keras.layers.Dense(2),
        ]
    )


def test_closed_gates_of_inputs_that_stay_are_told():
    model = of_pixels()
    keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, -9.0, 9.0, -9.0, -9.0])
    plan = keras_l0.plan(model)
    gate = next(row for row in plan.layers if row.kind == "L0Gate")
    assert (gate.units, gate.kept, gate.note) == (6, 6, "2 of 6 gates open")
    left = keras_l0.strip(model, "gather").count_params()
    assert f"inputs='gather' would leave {left} parameters" in plan.notes[-1]
    for mode in ("gather", "narrow"):
        assert not any("would leave" in n for n in keras_l0.plan(model, mode).notes)
    keras_l0.gates(model)[0].assign_log_alpha(6 * [9.0])
    plan = keras_l0.plan(model)
    assert not plan.notes and not any(row.note for row in plan.layers)


@pytest.mark.parametrize("granularity, gates", [("weights", 30), ((1, 3), 10)])
def test_units_are_units_also_where_gates_switch_weights(granularity, gates):
    model = of_pixels(granularity)
    (gate,) = keras_l0.gates(model)
    closed = np.full(gate.raw.shape, 9.0)
    closed[:, 1:3] = -9.0
    gate.assign_log_alpha(closed)
    (row, _) = keras_l0.plan(model).layers
    open_ = int((closed > 0).sum())
    assert (row.units, row.kept) == (5, 3)
    assert row.note == f"{open_} of {gates} gates open"
    (layer, _) = keras_l0.profile(model).layers
    assert (layer.units, layer.kept) == (5, 3)
    assert keras_l0.strip(model).get_layer("wide").units == 3


def test_tables_of_embeddings_are_within_reach():
    model = keras.Sequential(
        [
            keras.Input((7,)),
            keras.layers.Embedding(50, 16),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(4),
        ]
    )
    assert keras_l0.plan(model).reachable == 15 / 16
    assert keras_l0.plan_gates(model).reached == 15 / 16
