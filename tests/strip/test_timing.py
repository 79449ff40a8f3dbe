"""The estimated time of a gated model is that of the stripped one, for every rule."""

import zlib

import numpy as np
import pytest
from small_models import CASES

import keras_l0

# Of all, which pass as well, as many as take a few seconds.
GATED = [name for name, facts in CASES.items() if facts.gated][::80]


def microseconds(shape, n_in, n_out):
    a, b, c = np.random.default_rng(zlib.crc32(repr(shape).encode())).uniform(1, 9, 3)
    return a * n_in + b * n_out + c * n_in * n_out


@pytest.mark.parametrize("name", GATED)
def test_corners_are_what_the_stripped_model_takes(name):
    model = CASES[name].build()
    shares = np.linspace(0.05, 1, 20)
    try:
        table = keras_l0.LatencyTable.of(model, microseconds, shares=shares)
    except ValueError as error:
        assert "has no such shape" in str(error) or "known sizes" in str(error)
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    for gate in keras_l0.gates(model):
        is_open = rng.uniform(size=tuple(gate.log_alpha.shape)) < 0.5
        gate.assign_log_alpha(np.where(is_open, 9.0, -9.0))
    stripped = keras_l0.strip(model, verify=False)
    assert table.estimate(model) == pytest.approx(table.estimate(stripped), rel=1e-9)
