"""Weight decay and gates."""

import keras
import numpy as np
import pytest

import keras_l0
from keras_l0.layers import L0Dense


def trained(optimizer, dtype=None):
    """A closed and an open gate, and a kernel, after steps without any gradient."""
    layer = L0Dense(2, dtype=dtype, kernel_initializer="ones", bias_initializer="ones")
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.gate.assign_log_alpha([-3.0, 3.0])
    model.compile(optimizer, lambda y_true, y_pred: 0.0 * y_pred)
    model.fit(np.ones((8, 3)), np.ones((8, 2)), batch_size=2, verbose=0)
    weights = layer.gate.log_alpha, layer.kernel, layer.bias
    return [keras.ops.convert_to_numpy(w) for w in weights]


def decaying():
    return keras.optimizers.AdamW(0.5, weight_decay=0.1)


def test_adamw_moves_gates_towards_the_middle():
    log_alpha, kernel, _ = trained(decaying())
    assert -3 < log_alpha[0] < -2 and 2 < log_alpha[1] < 3
    assert (kernel < 1).all()


@pytest.mark.parametrize("dtype", [None, "mixed_float16"])
@pytest.mark.parametrize("scaled", [False, True])
def test_gates_excluded_from_weight_decay_stay(scaled, dtype):
    optimizer = decaying()
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    assert keras_l0.exclude_from_weight_decay(optimizer) is optimizer
    log_alpha, kernel, bias = trained(optimizer, dtype)
    np.testing.assert_array_equal(log_alpha, np.float32([-3, 3]))
    assert (kernel < 1).all() and (bias < 1).all()


def test_what_else_is_excluded():
    optimizer = keras_l0.exclude_from_weight_decay(decaying(), var_names=["bias"])
    log_alpha, kernel, bias = trained(optimizer)
    assert (log_alpha == [-3, 3]).all() and (bias == 1).all() and (kernel < 1).all()
    one = keras.Variable(np.ones(3), name="one")
    other = keras.Variable(np.ones(3), name="other")
    optimizer = keras_l0.exclude_from_weight_decay(decaying(), var_list=[one])
    optimizer.apply([np.zeros(3), np.zeros(3)], [one, other])
    assert (keras.ops.convert_to_numpy(one) == 1).all()
    assert (keras.ops.convert_to_numpy(other) < 1).all()


def test_one_name_is_one_name():
    optimizer = keras_l0.exclude_from_weight_decay(decaying(), var_names="bias")
    log_alpha, kernel, bias = trained(optimizer)
    assert (log_alpha == [-3, 3]).all() and (bias == 1).all() and (kernel < 1).all()


def test_exclusions_are_checked():
    with pytest.raises(TypeError, match="`var_names` must be.*Received: var_names="):
        keras_l0.exclude_from_weight_decay(decaying(), var_names=[3])
    with pytest.raises(TypeError, match="`optimizer` must be .*Received: 'adamw'"):
        keras_l0.exclude_from_weight_decay("adamw")
    optimizer = decaying()
    optimizer.build([])
    with pytest.raises(ValueError, match="`optimizer` must not be built.*Received"):
        keras_l0.exclude_from_weight_decay(optimizer)
