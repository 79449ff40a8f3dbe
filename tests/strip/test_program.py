"""The recorded program computes what the passes of the analysis compute."""

import numpy as np
import pytest
from small_models import CASES

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
    for number in range(4):
        openness = [rng.uniform(size=n) for n in cost.counts]
        if number:
            openness = [(z < number / 4).astype("float64") for z in openness]
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


def test_gradient_at_corners_is_what_a_unit_costs():
    cost = Cost(CASES[GATED[0]].build())
    for openness in (np.ones(sum(cost.counts)), np.zeros(sum(cost.counts))):
        parts = np.split(openness, np.cumsum(cost.counts)[:-1])
        slopes = cost.program.gradient(parts, np.ones(2))
        assert all(np.isfinite(s).all() for s in slopes)
