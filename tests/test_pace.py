"""Under a budget gates learn as fast as the limit comes down, however long it takes."""

import keras
import numpy as np
import pytest

import keras_l0
from keras_l0 import Budget, with_budget
from keras_l0.budget import course
from keras_l0.layers import L0Gate

NEEDED = [0, 3, 4, 9, 13]
BATCH = 16
# How much faster than the weights gates learn, as `GateOptions` has it.
TIMES = 16


def data(steps):
    """Sixteen inputs, of which five matter."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps * BATCH, 16)).astype("float32")
    return x, x[:, NEEDED] @ rng.normal(2, 0.3, (len(NEEDED), 2)).astype("float32")


def network(optimizer):
    """A network that knows what to do, but for some noise, under a budget."""
    x, y = data(40)
    model = keras.Sequential(
        [keras.Input((16,)), L0Gate(cost=2), keras.layers.Dense(2)]
    )
    weights, *_ = np.linalg.lstsq(x, y, rcond=None)
    noise = np.random.default_rng(1).normal(0, 0.1, weights.shape)
    model.layers[-1].kernel.assign(weights + noise)
    # Five inputs are twelve of 34 parameters.
    model = with_budget(model, Budget(params=0.36, inputs="gather"))
    model.compile(optimizer, "mse")
    return model


class Steps(keras.callbacks.Callback):
    """How far gates and weights go in each step, at most."""

    def values(self):
        (gate,) = keras_l0.gates(self.model)
        both = gate.log_alpha, self.model.layers[-1].kernel
        return [np.array(keras.ops.convert_to_numpy(value)) for value in both]

    def on_train_begin(self, logs=None):
        self.gates, self.weights = [], []
        self.before = self.values()

    def on_train_batch_end(self, batch, logs=None):
        after = self.values()
        for seen, old, new in zip(
            (self.gates, self.weights), self.before, after, strict=True
        ):
            seen.append(np.abs(new - old).max())
        self.before = after


def steps(model, count, epochs=4):
    """What each of so many steps moves."""
    seen = Steps()
    model.fit(*data(count // epochs), BATCH, epochs, verbose=0, callbacks=[seen])
    return seen


def pace(gates, rate):
    """How many times as far as they were told gates go in the first steps of Adam.

    The first that has a gradient is as large as the learning rate; the second, three
    quarters of it.
    """
    return 2 ** round(np.log2(np.max(gates[:2]) / (TIMES * rate)))


@pytest.mark.parametrize("rate", [1e-5, 1e-3, 1e-2])
def test_what_matters_stays_however_small_the_learning_rate(rate):
    model = network(keras.optimizers.Adam(rate))
    steps(model, 160)
    (gate,) = keras_l0.gates(model)
    kept = np.flatnonzero(keras.ops.convert_to_numpy(gate.test_gates) > 0)
    assert kept.tolist() == NEEDED


@pytest.mark.parametrize(
    "exponent, count, expected",
    # 32 within half of the steps, but no more than .25 in each.
    [(-4, 160, 1), (-7, 80, 2), (-7, 512, 1), (-9, 160, 8), (-9, 1024, 2)],
)
def test_a_pace_is_a_power_of_two_and_bounded(exponent, count, expected):
    rate = 2.0**exponent
    seen = steps(network(keras.optimizers.Adam(rate)), count)
    assert pace(seen.gates, rate) == expected


@pytest.mark.parametrize("name", ["Adam", "AdamW", "Adamax", "RMSprop"])
def test_few_steps_are_larger_for_gates_only(name):
    rate = 2.0**-14
    seen = steps(network(getattr(keras.optimizers, name)(rate)), 80)
    assert np.median(seen.gates[10:40]) > 4 * TIMES * rate
    assert np.median(seen.weights[10:]) < 2 * rate


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adadelta", "Lion", "Nadam"])
def test_optimizers_whose_steps_are_not_the_learning_rate_are_left_alone(
    name, monkeypatch
):
    moved = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        seen = steps(network(getattr(keras.optimizers, name)(1e-5)), 20)
        moved.append([seen.gates[:8], seen.weights])
        # And once more, without.
        monkeypatch.setattr(course, "paces", lambda *_: {})
    np.testing.assert_array_equal(moved[0][0], moved[1][0])
    np.testing.assert_array_equal(moved[0][1], moved[1][1])


def test_it_goes_by_what_a_schedule_will_do():
    # Half as much on average while the limit comes down.
    falling = keras.optimizers.schedules.PolynomialDecay(2.0**-9, 80, 0.0)
    model = network(keras.optimizers.Adam(falling))
    seen = steps(model, 160)
    assert {found.times for found in model._paces.values()} == {16}
    # At first 16 times as far would be farther than a step may go.
    assert pace(seen.gates, 2.0**-9) == 8


def test_steps_that_are_accumulated_are_fewer_and_may_be_as_large():
    optimizer = keras.optimizers.Adam(2.0**-7, gradient_accumulation_steps=2)
    seen = steps(network(optimizer), 512)
    assert seen.gates[0] == seen.gates[2] == 0
    assert pace(seen.gates[1::2], 2.0**-7) == 2


def test_an_optimizer_that_scales_the_loss_tells_the_one_inside():
    inner = keras.optimizers.Adam(2.0**-9)
    scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0)
    assert pace(steps(network(scaled), 160).gates, 2.0**-9) == 8


def test_each_training_has_its_own_pace():
    model = network(keras.optimizers.Adam(2.0**-7))
    (gate,) = keras_l0.gates(model)
    strides = []
    for count in (80, 512, 80):
        gate.assign_log_alpha(3.0)
        strides.append(np.median(steps(model, count).gates[1:20]))
    assert strides[0] > 1.5 * strides[1] and strides[2] > 1.5 * strides[1]


def test_after_a_training_that_failed_the_optimizer_is_what_it_was():
    def fail(epoch, logs):
        raise InterruptedError

    optimizer = keras.optimizers.Adam(2.0**-9)
    model = network(optimizer)
    broken = keras.callbacks.LambdaCallback(on_epoch_end=fail)
    with pytest.raises(InterruptedError):
        model.fit(*data(10), BATCH, epochs=4, verbose=0, callbacks=[broken])
    model.compile(optimizer, "mse")
    seen = Steps()
    seen.set_model(model)
    seen.on_train_begin()
    for batch in range(4):
        model.train_on_batch(*data(1))
        seen.on_train_batch_end(batch)
    assert np.max(seen.gates) < 4 * TIMES * 2.0**-9


def of_unknown_length():
    """Forty batches, of which nobody knows how many they are."""
    tf = pytest.importorskip("tensorflow")
    x, y = data(40)

    def batches():
        for at in range(0, len(x), BATCH):
            yield x[at : at + BATCH], y[at : at + BATCH]

    types = tf.TensorSpec((BATCH, 16)), tf.TensorSpec((BATCH, 2))
    return tf.data.Dataset.from_generator(batches, output_signature=types)


def test_a_number_of_steps_that_is_not_known_at_first():
    batches = of_unknown_length()
    model, seen = network(keras.optimizers.Adam(2.0**-9)), Steps()
    model.fit(batches, epochs=4, verbose=0, callbacks=[seen])
    assert len(seen.gates) == 160
    assert pace(seen.gates, 2.0**-9) == 1 and pace(seen.gates[40:], 2.0**-9) > 4


def test_a_schedule_is_asked_for_whole_steps():
    class Table(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            assert "int" in keras.backend.standardize_dtype(step.dtype)
            return keras.ops.take(np.full(1000, 2.0**-9, "float32"), step)

    assert pace(steps(network(keras.optimizers.Adam(Table())), 160).gates, 2.0**-9) == 8


def test_a_schedule_counts_steps_that_are_accumulated():
    class Rising(keras.optimizers.schedules.LearningRateSchedule):
        def __init__(self, over):
            self.over = over

        def __call__(self, step):
            step = keras.ops.cast(step, "float32")
            return 2.0**-9 * keras.ops.minimum(1.0, step / self.over)

    found = []
    for times in (1, 4):
        optimizer = keras.optimizers.Adam(
            Rising(80 * times), gradient_accumulation_steps=times if times > 1 else None
        )
        model = network(optimizer)
        steps(model, 160 * times)
        found.append({pace.times for pace in model._paces.values()})
    assert found[0] == found[1] != set()


def test_a_callback_that_raises_the_learning_rate_makes_no_jumps():
    model, seen = network(keras.optimizers.Adam(1e-6)), Steps()
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3)
    model.fit(*data(20), BATCH, 8, verbose=0, callbacks=[rate, seen])
    assert np.max(seen.gates[:100]) < 1


def test_momentum_is_fast_enough():
    optimizer = keras.optimizers.RMSprop(1e-4, momentum=0.9)
    model = network(optimizer)
    steps(model, 160)
    assert not model._paces


def test_a_model_that_is_not_compiled_says_so():
    model = keras.Sequential(
        [keras.Input((16,)), L0Gate(cost=2), keras.layers.Dense(2)]
    )
    model = with_budget(model, Budget(params=0.36, inputs="gather"))
    with pytest.raises(ValueError, match="compile"):
        model.fit(*data(2), BATCH, verbose=0)


def test_an_infinite_learning_rate_diverges_as_ever():
    with pytest.raises(ValueError, match="diverged"):
        steps(network(keras.optimizers.Adam(float("inf"))), 40)


def test_a_training_that_is_resumed_keeps_its_pace(tmp_path):
    batches = of_unknown_length()

    def train(*callbacks):
        model = network(keras.optimizers.Adam(2.0**-9))
        backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        model.fit(batches, epochs=4, verbose=0, callbacks=[backup, *callbacks])
        return {found.times for found in model._paces.values()}

    def fail(epoch, logs=None):
        if epoch == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(keras.callbacks.LambdaCallback(on_epoch_begin=fail))
    assert train() == {8}
