"""add_gates on every model that strip is tested on: neutral, and exact to strip."""

import keras
import numpy as np
import pytest
from adversary import batch, check, harden, policy, run
from small_models import CASES, spread

import keras_l0
from keras_l0.analysis.passes import Analysis

EXACT = {"float64": 1e-12, "float32": 1e-5}
# Where one unit saves more or less than its price.
UNTRUE = {
    "inception": "a concatenation is normalized for a convolution that pads",
    "densenet": "a convolution without a bias gains one, for what is constant",
    "raw_operations": "a unit that stays when all others close is free",
    "raw_splits": "a unit that stays when all others close is free",
    "move_split": "a unit that stays when all others close is free",
    "norm_prelu_positions": "a unit that stays when all others close is free",
}


def plain(name):
    """A case's model without its gates, under adversarial weights."""
    facts = CASES[name]
    if facts.first and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolutions on the CPU")
    model = facts.build()
    if facts.gated:
        model = keras_l0.strip(model, verify=False)
    return harden(model, alive=False)


@pytest.mark.parametrize("name", spread(CASES))
def test_gates_are_neutral_when_open_and_strip_is_exact_when_they_close(name):
    precision = CASES[name].precision
    with policy(precision):
        model = plain(name)
        before = [w.copy() for w in model.get_weights()]
        gated = keras_l0.add_gates(model, l0=1e-3)
        inputs = batch(model)
        for old, new in zip(run(model, inputs), run(gated, inputs), strict=True):
            np.testing.assert_allclose(new, old, rtol=EXACT[precision], atol=1e-12)
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(new, old)
        if not isinstance(model, keras.Sequential):
            assert gated.output_names == model.output_names
        if name not in UNTRUE:
            assert_prices_are_true(gated)
        harden(gated, alive=False)
        check(gated, allowed=1e-9 if precision == "float64" else 1e-4)


def assert_prices_are_true(gated):
    """Of two gates, one unit saves what it is charged for, the others being open."""
    analysis = Analysis(gated)
    whole = float(analysis.all_open().total.params)
    for number in {0, len(analysis.gates) - 1} if analysis.gates else ():
        gate, open_ = analysis.gates[number], analysis.ones()
        unit = gate.count // 2
        open_[number][unit] = 0.0
        saved = whole - float(analysis.evaluate(open_).total.params)
        assert saved == pytest.approx(np.broadcast_to(gate.cost, gate.count)[unit])
