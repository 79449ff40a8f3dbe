"""Inputs that are not just arrays of floats: sparse, ragged, text, masks, states."""

import keras
import numpy as np
import pytest
from adversary import batch, harden, policy, run
from keras import layers

import keras_l0
from keras_l0.layers import L0Dense, L0Gate


def half_closed(model):
    for gate in keras_l0.gates(model):
        values = np.where(np.arange(gate.count) % 2, 0.8, -9.0)
        gate.assign_log_alpha(values.reshape(gate.raw.shape))
    return model


def assert_same(model, stripped, *inputs):
    for x in inputs:
        old, new = (np.asarray(m(x, training=False)) for m in (model, stripped))
        np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-9)


def test_sparse_inputs():
    import tensorflow as tf

    x = keras.Input((8,), sparse=True)
    model = half_closed(keras.Model(x, layers.Dense(2)(L0Dense(6, "relu")(x))))
    stripped = keras_l0.strip(model)
    assert stripped.inputs[0].sparse and stripped.layers[1].units == 3
    data = np.eye(8)[:5]
    assert_same(model, stripped, data, tf.sparse.from_dense(data))


def test_ragged_inputs():
    import tensorflow as tf

    x = keras.Input((None,), ragged=True, dtype="int32")
    if not getattr(x, "ragged", False):
        pytest.skip("this Keras has no ragged inputs")
    h = L0Gate()(layers.Embedding(9, 6)(x))
    model = half_closed(keras.Model(x, layers.Dense(2)(h)))
    stripped = keras_l0.strip(model)
    assert stripped.inputs[0].ragged and stripped.layers[1].output_dim == 3
    assert_same(model, stripped, np.ones((3, 4), "int32"))
    data = tf.ragged.constant([[1, 2, 3], [4], [5, 8]], dtype="int32")
    try:
        old = model(data)
    except Exception as error:
        pytest.skip(f"Keras' own fails: {error}")
    np.testing.assert_allclose(stripped(data).values, old.values, atol=1e-9)


def text():
    x = keras.Input((), dtype="string")
    words = layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=4)(x)
    h = L0Gate()(layers.Embedding(5, 6)(words))
    return half_closed(keras.Model(x, layers.Dense(2)(h)))


@pytest.mark.parametrize("data", [None, np.array(["a b", "c", ""])])
def test_text(data):
    import tensorflow as tf

    model = text()
    stripped = keras_l0.strip(model, data=data)
    assert_same(model, stripped, tf.constant(["a b", "b b a", "x"]))


def test_numbers_are_no_text():
    with pytest.raises(ValueError, match="`data` must hold one array per input"):
        keras_l0.strip(text(), data=np.zeros(3))


def masked_inside(merge, dead=False):
    """The mask of an embedding enters a nested model, which was made without one."""
    i, j = keras.Input((4, 6)), keras.Input((4, 6))
    inner = keras.Model([i, j], merge([i, j]), name="inner")
    x, y = (keras.Input((4,), dtype="int32") for _ in range(2))
    a = L0Gate(name="a")(layers.Embedding(5, 6, mask_zero=True)(x))
    b = L0Gate(name="b")(layers.Embedding(5, 6, mask_zero=True)(y))
    h = layers.LSTM(3)(inner([a, b]))
    model = keras.Model([x, y], layers.Dense(2)(h))
    return harden(model, dead=("a",) if dead else (), alive=False)


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize(
    "merge",
    [layers.Maximum(), layers.Add(), layers.Concatenate(), layers.Average()],
    ids=lambda layer: type(layer).__name__,
)
def test_masks_enter_nested_models(merge, dead):
    model = masked_inside(type(merge)(), dead)
    stripped = keras_l0.strip(model)
    ids = np.array([[1, 2, 0, 0], [3, 0, 4, 1], [0, 0, 0, 2], [1, 1, 1, 1]])
    data = [ids, ids[::-1].copy()]
    for old, new in zip(run(model, data), run(stripped, data), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", ["SimpleRNN", "GRU", "LSTM"])
def test_a_stateful_layer_is_compared_from_zeros(cell):
    x = keras.Input((5, 6), batch_size=3)
    h = getattr(layers, cell)(4, stateful=True)(L0Dense(6, "relu")(x))
    model = half_closed(keras.Model(x, layers.Dense(2)(h)))
    ones = np.ones((3, 5, 6))
    first = np.asarray(model(ones))
    held = [np.array(s) for s in keras.tree.flatten(model.layers[2].states)]
    stripped = keras_l0.strip(model)
    after = [np.array(s) for s in keras.tree.flatten(model.layers[2].states)]
    np.testing.assert_equal(after, held)
    model.layers[2].reset_state()
    assert_same(model, stripped, ones, 2 * ones)
    assert np.abs(np.asarray(model(ones)) - first).max() > 1e-6
    with pytest.raises(ValueError, match="in batches of 3"):
        keras_l0.strip(model, data=np.ones((4, 5, 6)))
    keras_l0.strip(model, data=np.ones((6, 5, 6)))


def test_a_model_that_cannot_run_here():
    with policy("float64"):
        x = keras.Input((4, 4, 4, 3))
        h = layers.MaxPooling3D()(L0Dense(6, "relu")(x))
        model = half_closed(keras.Model(x, layers.Dense(2)(h), name="cube"))
    try:
        model(np.zeros((1, 4, 4, 4, 3)))
    except Exception:
        with pytest.raises(RuntimeError, match="(?s)'cube' could not.*`verify=F"):
            keras_l0.strip(model)
    else:
        pytest.skip("this backend runs it")
    assert keras_l0.strip(model, verify=False).layers[1].units == 3


def test_closed_outputs_become_constants():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, "relu"), L0Dense(4, "sigmoid")]
    )
    (gate,) = keras_l0.gates(model)
    gate.assign_log_alpha([9.0, -9.0, 0.5, -9.0])
    stripped = keras_l0.strip(model)
    assert stripped.output_shape == (None, 4)
    x = batch(model)
    assert (np.asarray(stripped(x))[:, [1, 3]] == 0).all()
    assert_same(model, stripped, x)


def test_a_model_of_closed_outputs_only():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, "relu"), L0Dense(4, "sigmoid")]
    )
    keras_l0.gates(model)[0].assign_log_alpha(np.full(4, -9.0))
    stripped = keras_l0.strip(model)
    assert_same(model, stripped, batch(model))
    (note,) = keras_l0.plan(model).notes
    assert "no longer depends on any input" in note
