import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_l0 import HardConcrete

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, "float64")))


def sampled(log_alpha, u):
    """Eq. 10-11 of the paper, written down once more."""
    s = sigmoid((np.log(u) - np.log(1 - u) + log_alpha) / BETA)
    return np.clip(s * (ZETA - GAMMA) + GAMMA, 0, 1)


def of_drop_rate(rate):
    return math.log((1 - rate) / rate)


def values(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize(
    ("drop_rate", "prob_open", "test_gate"),
    [(0.5, 0.832, 0.50), (0.3, 0.920, 0.74), (0.2, 0.952, 0.86), (0.05, 0.989, 1.0)],
)
def test_initial_drop_rates_of_the_paper(drop_rate, prob_open, test_gate):
    hc, log_alpha = HardConcrete(), of_drop_rate(drop_rate)
    assert float(hc.prob_open(log_alpha)) == pytest.approx(prob_open, abs=5e-4)
    assert float(hc.deterministic(log_alpha)) == pytest.approx(test_gate, abs=5e-3)


def test_the_test_gate_is_exactly_one_from_a_drop_rate_of_about_five_percent():
    hc = HardConcrete()
    assert float(hc.deterministic(of_drop_rate(0.05))) == 1.0
    assert float(hc.deterministic(hc.log_alpha(0.983))) == 1.0
    assert float(hc.deterministic(of_drop_rate(0.1))) < 1.0


def test_where_gates_reach_zero():
    hc = HardConcrete()
    # At test time: log_alpha <= -2.398, which is P <= .310 ...
    assert float(hc.deterministic(-2.398)) == 0.0
    assert float(hc.deterministic(-2.39)) > 0.0
    assert float(hc.prob_open(math.log(0.1 / 1.1))) == pytest.approx(0.310, abs=5e-4)
    # ... in training the median draw already at P = .5.
    half = hc.log_alpha(0.5)
    assert float(hc.sample(half - 0.01, 0.5)) == 0.0
    assert float(hc.sample(half + 0.01, 0.5)) > 0.0


@pytest.mark.parametrize("beta", [2 / 3, 0.3, 1.5])
def test_the_median_is_that_of_the_draws(beta):
    hc, rng = HardConcrete(beta=beta), np.random.default_rng(0)
    log_alpha = np.linspace(-4, 4, 17)
    draws = values(hc.sample(log_alpha, rng.uniform(size=(20_000, 1))))
    median = values(hc.median(log_alpha))
    np.testing.assert_allclose(median, np.median(draws, axis=0), atol=0.03)
    np.testing.assert_allclose(median, values(hc.sample(log_alpha, 0.5)), atol=1e-6)
    half = hc.log_alpha(0.5)
    assert float(hc.median(half - 0.01)) == 0.0 < float(hc.median(half + 0.01))


def test_as_many_are_open_as_are_expected_to_be():
    hc, rng = HardConcrete(), np.random.default_rng(0)
    for shift in (-4, -2.5, -1.6, 0, 3):
        log_alpha = rng.normal(shift, 1.0, (5, 8)).astype("float32")
        gates, p = values(hc.size_matched(log_alpha)), values(hc.prob_open(log_alpha))
        count = round(p.sum())
        assert (gates > 0).sum() == count
        assert set(np.flatnonzero(gates)) == set(np.argsort(-p.ravel())[:count])
        assert gates.shape == (5, 8)
        # What is open has the median of its draws that are not 0.
        draws = values(hc.sample(log_alpha, rng.uniform(size=(20_000, 1, 1))))
        with np.errstate(invalid="ignore"):
            median = np.nanmedian(np.where(draws > 0, draws, np.nan), axis=0)
        np.testing.assert_allclose(gates[gates > 0], median[gates > 0], atol=0.05)
    # Equal ones are told apart, and a number may be wanted in any case.
    for least, kept in ((0, 5), (7, 7)):
        gates = values(hc.size_matched(np.full(10, hc.log_alpha(0.5)), least))
        assert (gates > 0).sum() == kept
    assert (values(hc.size_matched(np.full(9, 20.0))) == 1).all()


def test_no_floor_and_no_ceiling_under_the_open_probability():
    hc = HardConcrete()
    # A clamp of log_alpha to [log .01, log 100] would stop at .047 and at .998.
    assert float(hc.prob_open(-20.0)) < 1e-6
    assert float(hc.prob_open(20.0)) == 1.0


def test_sample_is_the_formula():
    rng = np.random.default_rng(0)
    log_alpha = rng.normal(scale=3, size=(50, 1)).astype("float32")
    u = rng.uniform(0.001, 0.999, size=(50, 40)).astype("float32")
    z = values(HardConcrete().sample(log_alpha, u))
    np.testing.assert_allclose(z, sampled(log_alpha, u.astype("float64")), atol=2e-6)
    assert (z == 0).any() and (z == 1).any() and ((z > 0) & (z < 1)).any()


def test_sampled_frequencies_agree_with_prob_open():
    hc = HardConcrete()
    log_alpha = np.float32([-3, -1.5986, 0, 2])
    u = np.random.default_rng(0).uniform(size=(200_000, 1)).astype("float32")
    z = values(hc.sample(log_alpha, u))
    p = sigmoid(log_alpha + BETA * math.log(11))
    np.testing.assert_allclose(values(hc.prob_open(log_alpha)), p, rtol=1e-5)
    # Five standard errors of the frequency.
    within = 5 * np.sqrt(p * (1 - p) / len(u))
    assert (abs((z != 0).mean(axis=0) - p) < within).all()
    # Equal to 1 with the probability that the symmetric formula gives.
    at_one = sigmoid(log_alpha - BETA * math.log(11))
    assert (abs((z == 1).mean(axis=0) - at_one) < 5 * within).all()


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_extreme_noise_is_finite(noise, gradient):
    log_alpha = keras.Variable([-30.0, 0.0, 30.0])
    hc = HardConcrete()
    assert np.isfinite(values(hc.sample(log_alpha, noise))).all()
    slope = gradient(lambda: ops.sum(hc.sample(log_alpha, noise)), log_alpha)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("prob_open", [1e-6, 0.31, 0.5, 0.832, 0.99, 1 - 1e-6])
@pytest.mark.parametrize("constants", [{}, {"beta": 0.3, "gamma": -0.4, "zeta": 1.7}])
def test_log_alpha_inverts_prob_open(prob_open, constants):
    hc = HardConcrete(**constants)
    location = hc.log_alpha(prob_open)
    beta, gamma, zeta = hc.beta, hc.gamma, hc.zeta
    assert sigmoid(location - beta * math.log(-gamma / zeta)) == pytest.approx(
        prob_open, rel=1e-9
    )
    assert float(hc.prob_open(location)) == pytest.approx(prob_open, rel=1e-5)


def test_beta_plays_no_part_in_the_test_gate():
    log_alpha = np.linspace(-4, 4, 9).astype("float32")
    expected = np.clip(sigmoid(log_alpha) * 1.2 - 0.1, 0, 1)
    for beta in (0.1, 2 / 3, 5.0):
        z = values(HardConcrete(beta=beta).deterministic(log_alpha))
        np.testing.assert_allclose(z, expected, atol=1e-6)


def test_gradient_of_a_draw_against_finite_differences(gradient):
    rng = np.random.default_rng(1)
    start = rng.normal(scale=2, size=30).astype("float32")
    u = rng.uniform(0.01, 0.99, size=30).astype("float32")
    weights = rng.normal(size=30).astype("float32")
    log_alpha = keras.Variable(start)
    hc = HardConcrete()
    w = ops.convert_to_tensor(weights)
    found = gradient(lambda: ops.sum(w * hc.sample(log_alpha, u)), log_alpha)
    step, exact, u = 1e-6, start.astype("float64"), u.astype("float64")
    slopes = (sampled(exact + step, u) - sampled(exact - step, u)) / (2 * step)
    np.testing.assert_allclose(found, weights * slopes, atol=1e-4)
    assert (found == 0).any() and (found != 0).any()


def test_gradient_of_prob_open_against_finite_differences(gradient):
    start = np.linspace(-6, 6, 13).astype("float32")
    log_alpha = keras.Variable(start)
    hc = HardConcrete()
    found = gradient(lambda: ops.sum(hc.prob_open(log_alpha)), log_alpha)
    at = start.astype("float64") + BETA * math.log(11)
    slopes = (sigmoid(at + 1e-6) - sigmoid(at - 1e-6)) / 2e-6
    np.testing.assert_allclose(found, slopes, rtol=1e-3, atol=1e-6)
    assert (found > 0).all()


@pytest.mark.parametrize(
    "of",
    [list, tuple, np.array, lambda x: np.array(x, "float32"), ops.convert_to_tensor],
)
def test_what_log_alpha_may_be(of):
    hc, integers = HardConcrete(), of([0, 1])
    for given in (of([0.0, 1.0]), integers):
        p = values(hc.prob_open(given))
        np.testing.assert_allclose(p, sigmoid(np.array([0, 1]) + 1.5986), rtol=1e-4)
        z = values(hc.deterministic(given))
        np.testing.assert_allclose(z, sigmoid([0, 1]) * 1.2 - 0.1, rtol=1e-4)
        draw = values(hc.sample(given, of([0.5, 0.25])))
        expected = sampled(np.array([0, 1]), np.array([0.5, 0.25]))
        np.testing.assert_allclose(draw, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["beta", "gamma", "zeta"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (math.nan, ValueError), (math.inf, ValueError), (-math.inf, ValueError),
        (0, ValueError), ("1", TypeError), (None, TypeError), (True, TypeError),
        ([1.0], TypeError), (1j, TypeError), (np.ones(2), TypeError),
    ],
)  # fmt: skip
def test_constants_are_checked(name, value, error):
    with pytest.raises(error, match=f"`{name}` must be .*Received: {name}="):
        HardConcrete(**{name: value})


@pytest.mark.parametrize(
    "wrong", [{"beta": -1.0}, {"gamma": 0.1}, {"zeta": 1.0}, {"zeta": 0.5}]
)
def test_constants_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}` must be a finite number"):
        HardConcrete(**wrong)


@pytest.mark.parametrize("prob_open", [0, 1, -0.1, 1.1, math.nan])
def test_prob_open_of_log_alpha_is_checked(prob_open):
    with pytest.raises(ValueError, match="`prob_open`.*between 0 and 1.*Received"):
        HardConcrete().log_alpha(prob_open)


def test_prob_open_of_the_wrong_type():
    with pytest.raises(TypeError, match="`prob_open`.*Received: .*str"):
        HardConcrete().log_alpha("half")


def test_serialization():
    hc = HardConcrete(beta=0.5, gamma=-0.2, zeta=1.3)
    assert HardConcrete.from_config(hc.get_config()) == hc
    config = keras.saving.serialize_keras_object(hc)
    assert config["registered_name"] == "keras_l0>HardConcrete"
    assert keras.saving.deserialize_keras_object(config) == hc
    assert hc != HardConcrete()
