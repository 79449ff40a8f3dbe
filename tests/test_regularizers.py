import fractions
import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_l0 import HardConcrete
from keras_l0.layers import L0Conv2D, L0Dense, L0Gate
from keras_l0.regularizers import L0


def prob_open(log_alpha, beta=2 / 3, gamma=-0.1, zeta=1.1):
    at = np.asarray(log_alpha, "float64") - beta * math.log(-gamma / zeta)
    return 1 / (1 + np.exp(-at))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_is_strength_times_expected_number_of_parameters(shape):
    log_alpha = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected = 0.25 * 7 * prob_open(log_alpha).sum()
    assert float(L0(0.25)(log_alpha, cost=7.0)) == pytest.approx(expected, rel=1e-5)


def test_cost_per_gate_and_other_constants():
    log_alpha, cost = np.float32([-2, 0, 3]), np.float32([1, 10, 100])
    hc = HardConcrete(beta=0.4, gamma=-0.3, zeta=1.2)
    expected = 0.5 * (cost * prob_open(log_alpha, 0.4, -0.3, 1.2)).sum()
    assert float(L0(0.5)(log_alpha, hc, cost)) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_falls_as_gates_close(gradient):
    log_alpha = keras.Variable(np.float32([-3, -1, 0, 2]))
    slope = gradient(lambda: L0(2.0)(log_alpha), log_alpha)
    step, at = 1e-6, np.float64([-3, -1, 0, 2])
    expected = 2 * (prob_open(at + step) - prob_open(at - step)) / (2 * step)
    np.testing.assert_allclose(slope, expected, rtol=1e-3)
    assert (slope > 0).all()


SQUARES = np.float32([1.5, 0.25, 4.0, 0.0])


def test_the_expected_l2_norm():
    log_alpha = np.float32([-2, 0, 3, 1])
    p = prob_open(log_alpha)
    expected = 0.5 * 7 * p.sum() + 0.25 * (p * SQUARES).sum()
    found = L0(0.5, l2=0.25)(log_alpha, cost=7.0, squares=SQUARES)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    # Where every gate is open, it is Keras' own.
    weights = np.float32([[1, -2], [0.5, 3]])
    open_ = L0(l2=0.25)(np.full(2, 99.0), squares=(weights**2).sum(axis=0))
    assert float(open_) == pytest.approx(float(keras.regularizers.L2(0.25)(weights)))


def test_large_weights_close_their_gates_and_closed_gates_do_not_decay(gradient):
    start = np.float32([-2, 0, 3, 1])
    log_alpha, squares = keras.Variable(start), keras.Variable(SQUARES)

    def total():
        return L0(l2=2.0)(log_alpha, squares=squares)

    slope = gradient(total, log_alpha)
    at, step = start.astype("float64"), 1e-6
    finite = (prob_open(at + step) - prob_open(at - step)) / (2 * step)
    np.testing.assert_allclose(slope, 2 * SQUARES * finite, rtol=1e-3)
    np.testing.assert_allclose(gradient(total, squares), 2 * prob_open(at), rtol=1e-5)


def test_no_floor_under_the_penalty():
    # Clamping log_alpha at log .01 would leave .047 of every parameter.
    assert float(L0(1.0)(np.full(1000, -15.0, "float32"))) < 0.01


def test_information_criteria():
    assert L0.aic(60_000).l0 == 1 / 60_000
    assert L0.bic(60_000).l0 == pytest.approx(math.log(60_000) / 120_000)
    assert L0.bic(np.int64(8)).l0 == pytest.approx(math.log(8) / 16)
    assert L0.aic(1).l0 == 1.0 and L0.bic(1).l0 == 0.0


@pytest.mark.parametrize("criterion", [L0.aic, L0.bic])
@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-5, ValueError), (True, TypeError), (1e4, TypeError),
     ("60000", TypeError), (None, TypeError), (math.nan, TypeError)],
)  # fmt: skip
def test_sample_counts_are_checked(criterion, n, error):
    with pytest.raises(error, match="`n_samples` must be .*Received: n_samples="):
        criterion(n)


WRONG = [
    (math.nan, ValueError, "nan"), (-1e-9, ValueError, "-1e-09"),
    (math.inf, ValueError, "inf"), (-math.inf, ValueError, "-inf"),
    (np.float32("nan"), ValueError, "nan"), (10**400, ValueError, "inf"),
    (True, TypeError, "True of type bool"), (np.True_, TypeError, "of type bool"),
    ("0.1", TypeError, "'0.1' of type str"), ([0.1], TypeError, "of type list"),
    (np.ones(2), TypeError, "of type ndarray"), (1j, TypeError, "of type complex"),
    (np.array(0.1), TypeError, "of type ndarray"),
]  # fmt: skip


@pytest.mark.parametrize(
    "made",
    [
        lambda l0: L0(l0),
        lambda l0: L0(l0=l0),
        lambda l0: L0.get(l0),
        lambda l0: L0Gate(l0=l0),
        lambda l0: L0Dense(3, l0=l0),
        lambda l0: L0Conv2D(3, 3, l0=l0),
    ],
    ids=["L0", "keyword", "get", "L0Gate", "L0Dense", "L0Conv2D"],
)
@pytest.mark.parametrize(("l0", "error", "came"), WRONG, ids=lambda v: repr(v)[:20])
def test_strengths_are_checked(made, l0, error, came):
    with pytest.raises(error, match="`l0` must be .*Received: l0=") as caught:
        made(l0)
    assert came in str(caught.value)


def test_a_missing_strength_is_an_error():
    with pytest.raises(TypeError, match="`l0`"):
        L0(None)


@pytest.mark.parametrize(
    "l0", [0, 1, 0.5, np.float32(0.5), np.float64(0.5), np.int64(2),
           fractions.Fraction(1, 2)],
)  # fmt: skip
def test_strengths_of_any_real_type(l0):
    assert L0(l0).l0 == float(l0)
    assert type(L0(l0).l0) is float
    assert L0Dense(3, l0=l0).gate.regularizer.l0 == float(l0)


def test_get():
    penalty = L0(0.3)
    assert L0.get(penalty) is penalty
    assert L0.get(None).l0 == 0.0
    assert L0.get(0.3).l0 == 0.3
    assert L0.get(keras.saving.serialize_keras_object(penalty)).l0 == 0.3


@pytest.mark.parametrize("other", [keras.regularizers.L2(0.1), "l2"])
def test_get_refuses_other_regularizers(other):
    with pytest.raises(TypeError, match="`l0` must be"):
        L0.get(other)
    if not isinstance(other, str):
        with pytest.raises(TypeError, match="`l0` must be"):
            L0.get(keras.saving.serialize_keras_object(other))


@pytest.mark.parametrize(("l2", "error", "came"), WRONG, ids=lambda v: repr(v)[:20])
def test_strengths_of_decay_are_checked(l2, error, came):
    with pytest.raises(error, match="`l2` must be .*Received: l2=") as caught:
        L0(0.1, l2=l2)
    assert came in str(caught.value)


def test_a_gate_that_knows_no_weights_cannot_let_them_decay():
    with pytest.raises(ValueError, match="`l0` of gate .* must have l2=0.*Received"):
        L0Gate(l0=L0(0.1, l2=0.1)).build((None, 3))


def test_serialization():
    assert L0.from_config(L0(0.5, 0.25).get_config()).l2 == 0.25
    penalty = L0(0.125)
    assert L0.from_config(penalty.get_config()).l0 == 0.125
    config = keras.saving.serialize_keras_object(penalty)
    assert config["registered_name"] == "keras_l0>L0"
    assert keras.saving.deserialize_keras_object(config).l0 == 0.125
    assert keras.regularizers.get(config).l0 == 0.125


def test_works_as_a_regularizer_of_keras():
    # On log_alpha itself, as Keras calls it: one argument.
    total = ops.convert_to_numpy(L0(2.0)(np.zeros((4, 2), "float32")))
    assert total == pytest.approx(2 * 8 * prob_open(0.0), rel=1e-5)
