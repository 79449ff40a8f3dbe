"""The recorded program computes what the passes of the analysis compute."""

import keras
import numpy as np
import pytest
from small_models import CASES

import keras_l0
from keras_l0 import HardConcrete
from keras_l0.analysis.cost import Cost

# Of all, which pass as well, as many as take a minute.
GATED = [name for name, facts in CASES.items() if facts.gated][::8]


@pytest.mark.parametrize("name", GATED)
def test_program_is_the_analysis(name):
    model = CASES[name].build()
    for mode in ("keep", "gather", "narrow"):
        require_equal(Cost(model, mode))


def require_equal(cost):
    rng = np.random.default_rng(0)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        openness = [(rng.uniform(size=n) < share) * 1.0 for n in cost.counts]
        passes = cost.analysis.evaluate(openness).total
        assert tuple(cost(openness)) == pytest.approx(tuple(passes), rel=1e-12)
    assert len(cost.program.steps) < 60 * len(cost.analysis.steps)


@pytest.mark.parametrize("name", GATED)
def test_gradient_is_that_of_finite_differences(name):
    cost = Cost(CASES[name].build())
    rng = np.random.default_rng(1)
    at = rng.uniform(0.1, 0.9, sum(cost.counts))
    ends = np.cumsum(cost.counts)[:-1]
    some = rng.permutation(len(at))[:12]
    for which, measure in enumerate(("params", "macs")):
        value = float(getattr(cost(at), measure))
        found = np.concatenate(
            cost.program.gradient(np.split(at, ends), np.eye(2)[which])
        )
        for i in some:
            step = np.zeros(len(at))
            step[i] = 1e-6
            two = [float(getattr(cost(at + s), measure)) for s in (step, -step)]
            expected = (two[0] - two[1]) / 2e-6
            assert found[i] == pytest.approx(expected, rel=1e-4, abs=1e-7 * value)


def test_gradient_at_corners_is_finite():
    cost = Cost(CASES[GATED[0]].build())
    for openness in (np.ones(sum(cost.counts)), np.zeros(sum(cost.counts))):
        parts = np.split(openness, np.cumsum(cost.counts)[:-1])
        slopes = cost.program.gradient(parts, np.ones(2))
        assert all(np.isfinite(s).all() for s in slopes)


# A channel beside all others is tied to each of them; a block of weights counts as one
# event for each input that it reads.
LEFT = ("wide_and_narrow", "blocks_shared")
SHARED = [name for name in CASES if not any(map(name.__contains__, LEFT))][::6]


@pytest.mark.parametrize("name", SHARED)
def test_gradient_with_all_open_is_what_a_unit_costs(name):
    # However many branches and multiplications share its gate.
    model = CASES[name].build()
    if not CASES[name].gated:
        model = keras_l0.add_gates(model)
    cost = Cost(model)
    nearly = [np.full(n, 1 - 1e-9) for n in cost.counts]
    ones = [np.ones(n) for n in cost.counts]
    for which, measure in enumerate(("params", "macs")):
        whole = float(getattr(cost(ones), measure))
        slopes = cost.program.gradient(nearly, np.eye(2)[which])
        for number, found in enumerate(slopes):
            for unit in {0, len(found) // 2, len(found) - 1}:
                closed = [z.copy() for z in ones]
                closed[number][unit] = 0.0
                saved = whole - float(getattr(cost(closed), measure))
                if not saved or len(found) == 1:
                    # Another gate keeps the same unit; of the last a place is held.
                    continue
                # Of a kernel of units by units, its own weight is counted twice.
                assert 0.999 * saved <= found[unit] <= 1.1 * saved


def stream(channels):
    """A residual stream of so many channels, through three blocks."""
    image = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(channels, 3, padding="same", activation="relu")(image)
    for _ in range(3):
        h = keras.layers.Conv2D(6, 3, padding="same", activation="relu")(x)
        h = keras.layers.Conv2D(channels, 3, padding="same")(h)
        x = keras.layers.ReLU()(keras.layers.Add()([x, h]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(2)(x))


def test_a_gate_that_branches_share_is_one_event():
    model = keras_l0.add_gates(stream(8))
    shared, *inner = sorted(keras_l0.gates(model), key=lambda gate: -gate.count)
    for gate in inner:
        gate.assign_log_alpha(20.0)  # surely open
    shared.assign_log_alpha(HardConcrete().log_alpha(0.9))
    # The size is linear in how many channels the stream has.
    full = stream(8).count_params()
    each = (full - stream(4).count_params()) / 4
    expected = full - 0.1 * 8 * each
    assert keras_l0.profile(model).expected.params == pytest.approx(expected, rel=1e-3)
