"""Gates of the embedding that is called in both directions."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_l0
from keras_l0 import GateOptions

pytestmark = pytest.mark.skipif(
    not hasattr(keras.layers, "ReversibleEmbedding"),
    reason="this Keras has no ReversibleEmbedding",
)
INDICES = np.array([[1, 4, 2], [3, 3, 0]])


def values(tensor):
    return ops.convert_to_numpy(tensor)


def built(**kwargs):
    layer = keras_l0.layers.L0ReversibleEmbedding(5, 6, **kwargs)
    layer.build((None, 3))
    rng = np.random.default_rng(0)
    for weight in layer.switched_weights():
        weight.assign(rng.normal(size=weight.shape))
    return layer


def in_reverse(layer):
    if layer.tie_weights:
        return values(layer.embeddings).T
    return values(layer.reverse_embeddings)


@pytest.mark.parametrize("noise", ["batch", "example"])
@pytest.mark.parametrize("tied", [True, False])
def test_one_draw_serves_both_directions(tied, noise):
    layer = built(tie_weights=tied, gate_options=GateOptions(0.5, noise))
    table = values(layer.embeddings)[INDICES]
    found = []
    for _ in range(2):
        z = values(layer(INDICES, training=True)) / table
        h = np.random.default_rng(1).normal(size=table.shape).astype("float32")
        logits = values(layer(h, reverse=True, training=True))
        np.testing.assert_allclose(logits, (h * z) @ in_reverse(layer), atol=1e-4)
        found.append(z)
    assert (found[0] != found[1]).any()
    assert (np.ptp(found[0], axis=0) > 1e-3).any() == (noise == "example")


@pytest.mark.parametrize("tied", [True, False])
def test_gates_at_test_time(tied):
    layer = built(tie_weights=tied)
    plain = keras.layers.ReversibleEmbedding(5, 6, tie_weights=tied)
    plain.build((None, 3))
    plain.set_weights([values(w) for w in layer.switched_weights()])
    h = np.random.default_rng(1).normal(size=(2, 3, 6)).astype("float32")
    for training in (None, False, True):
        if training:
            layer.gate.assign_log_alpha(1e6)
        np.testing.assert_array_equal(
            values(layer(INDICES, training=training)), values(plain(INDICES))
        )
        np.testing.assert_array_equal(
            values(layer(h, reverse=True, training=training)),
            values(plain(h, reverse=True)),
        )
    layer.gate.assign_log_alpha([-9.0, 0.4, 9.0, -9.0, 0.0, 9.0])
    z = values(layer.gate.test_gates)
    np.testing.assert_allclose(
        values(layer(INDICES)), values(plain(INDICES)) * z, rtol=1e-5
    )
    np.testing.assert_allclose(
        values(layer(h, reverse=True)), values(plain(h * z, reverse=True)), rtol=1e-4
    )
    assert layer.gate.cost == (5 if tied else 10)


@pytest.mark.parametrize("jit", [False, True])
def test_trains_saves_loads_and_strips(jit, tmp_path):
    if jit and keras.backend.backend() == "torch":
        pytest.skip("torch.compile needs a C++ compiler")
    x = keras.Input((3,), dtype="int32")
    layer = built(l0=1e-3, mask_zero=True)
    h = layer(x)
    h = keras.layers.Add()([h, keras.layers.Dense(6, "tanh")(h)])
    model = keras.Model(x, layer(h, reverse=True))
    model.compile("adam", "mse", jit_compile=jit)
    before = values(layer.gate.log_alpha)
    model.fit(INDICES, np.zeros((2, 3, 5)), epochs=2, verbose=0)
    assert (values(layer.gate.log_alpha) != before).all()
    assert len(model.losses) == 1
    layer.gate.assign_log_alpha([-9.0, 0.4, 9.0, -9.0, 0.0, 9.0])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = values(model(INDICES))
    np.testing.assert_array_equal(values(loaded(INDICES)), expected)
    small = keras_l0.strip(model)
    np.testing.assert_allclose(values(small(INDICES)), expected, atol=1e-5)
