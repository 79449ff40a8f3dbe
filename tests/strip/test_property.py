"""Random graphs out of ruled layers, random gates, random weights: never a mismatch.

``--hypothesis-profile=nightly`` tries thousands instead of dozens.
"""

import keras
import numpy as np
from adversary import batch, check, locations, run
from grower import STARTS, Grower
from hypothesis import assume, given, note, reject
from hypothesis import strategies as st

import keras_l0
from keras_l0.analysis.rules import RULES

CLOSED = ("some", "some", "all", "one", "none")


def weigh(model, seed, closed):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name == "moving_variance":
            weight.assign(rng.uniform(0.3, 3, weight.shape))
        elif weight.name != "raw_log_alpha":
            fan_in = np.prod(weight.shape[:-1]) if "kernel" in weight.name else 1
            scale = 1.5 / np.sqrt(max(fan_in, 1))
            weight.assign(scale * rng.normal(size=weight.shape))
    for number, gate in enumerate(keras_l0.gates(model)):
        how = CLOSED[closed[number % len(closed)] % len(CLOSED)]
        values = locations(rng, gate.count)
        if how == "all":
            values[:] = -9
        elif how == "none":
            values[values < -2] = 0.5
        elif how == "one":
            values[:-1], values[-1] = -9, 0.7
        gate.assign_log_alpha(values.reshape(gate.raw.shape))


SMALL = st.integers(0, 19)


def grown(kinds, moves, ends):
    keras.backend.clear_session()
    grower = Grower(kinds)
    for move in moves:
        grower.move(*move)
    note(str(grower.story))
    assume(grower.story)
    return grower.model(ends)


@given(
    kinds=st.sampled_from(STARTS),
    moves=st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 999), st.integers(0, 999)),
        min_size=3, max_size=12,
    ),
    ends=st.lists(SMALL, max_size=2),
    closed=st.lists(SMALL, min_size=1, max_size=6),
    mode=st.sampled_from(["keep", "gather", "narrow"]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_no_graph_is_stripped_wrongly(kinds, moves, ends, closed, mode, seed):
    model = grown(kinds, moves, ends)
    weigh(model, seed, closed)
    try:
        outputs = run(model, batch(model, 8))
    except Exception:
        reject()  # Keras built what it cannot run.
    # A few products of products leave the range of numbers.
    assume(all(np.isfinite(y).all() for y in outputs))
    note(str(keras_l0.plan(model, inputs=mode)))
    check(model, mode)


# Preprocessing, what TensorFlow's CPU kernels compute in float32 only, and what takes
# tensors of more axes: there are models of these. A shared gate comes with its
# switches, on no tensor of its own.
ELSEWHERE = """
L0SharedGate
MaxPooling3D AveragePooling3D AdaptiveMaxPooling3D AdaptiveAveragePooling3D
Discretization ConvLSTM3D
"""


def test_every_ruled_layer_grows():
    keras.backend.clear_session()
    found = set()
    for kind in "irvtc":
        for name in sorted(set(Grower(kind).moves(Grower(kind).inputs[0]))):
            for seed in range(20):
                grower = Grower(kind)
                grower.make(name, grower.inputs[0], seed)
                found |= {type(y._keras_history.operation) for y in grower.tensors}
    ruled = {
        layer.__name__
        for layer, rule in RULES.items()
        if layer.__module__.startswith(("keras.src.layers.", "keras_l0.layers."))
        and rule.reason is None
        and "image_preprocessing" not in layer.__module__
    }
    missing = ruled - {layer.__name__ for layer in found} - set(ELSEWHERE.split())
    assert not missing
