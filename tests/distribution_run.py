"""Trains a network on one device and on several: ``distribution_run.py ENGINE OUT``.

Devices have to be chosen before a backend starts, so `test_distribution.py` runs this
in processes of its own. Losses, weights and what each device holds are written to OUT.
Further arguments say what process of how many this is: ``ADDRESS NUMBER``.
"""

import json
import os
import sys
from pathlib import Path

ENGINE, FOLDER, *PROCESS = sys.argv[1:]
DEVICES = {"mirrored": 2, "workers": 1, "data": 4, "model": 4, "processes": 1}[ENGINE]
TENSORFLOW = ENGINE in ("mirrored", "workers")
os.environ["KERAS_BACKEND"] = "tensorflow" if TENSORFLOW else "jax"
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count={DEVICES} "
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

if ENGINE == "workers":
    cluster = {"worker": PROCESS[0].split(",")}
    task = {"type": "worker", "index": int(PROCESS[1])}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})

import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_l0  # noqa: E402
from keras_l0.layers import L0Dense  # noqa: E402
from keras_l0.regularizers import L0  # noqa: E402

OUT = Path(FOLDER)
BATCH, EPOCHS = 16, 2
SHARDS, NUMBER = (2, int(PROCESS[1])) if PROCESS else (1, 0)


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6)).astype("float32")
    return x, x[:, :2] ** 2


def network(kind):
    """Gates under a rising strength and decay, under a budget, or drawn per example."""
    keras.utils.set_random_seed(5)
    noise = "example" if kind == "example" else "batch"
    options = keras_l0.GateOptions(open_probability=0.8, noise=noise)
    l0 = L0(keras_l0.schedules.Linear(0.01, steps=3), l2=0.01)
    if kind == "budget":
        l0 = 0.0
    hidden = L0Dense(16, activation="relu", l0=l0, gate_options=options, name="hidden")
    model = keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(2)])
    if kind == "budget":
        budget = keras_l0.Budget(params=0.4, ramp_steps=4)
        model = keras_l0.with_budget(model, budget)
    model.compile(optimizer(0.1), "mse", jit_compile=not TENSORFLOW)
    return model


def optimizer(rate):
    return keras.optimizers.SGD(rate, momentum=0.9)


class Watch(keras.callbacks.Callback):
    """The loss so far and the state of the budget, after each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        state = getattr(self.model, "budgets", ()) and self.model.state
        values = [keras.ops.convert_to_numpy(s).tolist() for s in state]
        self.seen.append([float(logs["loss"]), values])


def trained(kind, shards=1):
    model, watch = network(kind), Watch()
    # Each process is handed its part of each batch.
    x, y = (
        a.reshape(-1, shards, BATCH // shards, a.shape[-1])[:, NUMBER % shards]
        for a in data()
    )
    x, y = (a.reshape(-1, a.shape[-1]) for a in (x, y))
    model.fit(
        x, y, BATCH // shards, EPOCHS, verbose=0, shuffle=False,
        callbacks=[watch, keras_l0.callbacks.Density()],
    )  # fmt: skip
    return model, watch.seen


def record(model, seen):
    variables = [*model.weights, keras_l0.gates(model)[0].seed_generator.state]
    arrays = [keras.ops.convert_to_numpy(v).tolist() for v in variables]
    return {"seen": seen, "weights": arrays}


def engine():
    """The scope to train in."""
    if TENSORFLOW:
        import tensorflow as tf

        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
    if ENGINE == "model":
        mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"))
        layouts = keras.distribution.LayoutMap(mesh)
        layouts[".*hidden/kernel"] = (None, "model")
        layouts[".*hidden/(bias|gate/raw_log_alpha)"] = ("model",)
        return keras.distribution.ModelParallel(
            layout_map=layouts, batch_dim_name="batch"
        ).scope()
    return keras.distribution.DataParallel(auto_shard_dataset=not PROCESS).scope()


def held(model):
    """Of each weight, what each device holds."""
    values = [v.value for v in model.weights]
    if TENSORFLOW:
        parts = [value.values for value in values]
    else:
        parts = [[s.data for s in value.addressable_shards] for value in values]
    return [[np.asarray(part).tolist() for part in each] for each in parts]


def afterwards(model):
    """What is done with a trained network: saved, stripped, and trained on."""
    if PROCESS:
        try:
            keras_l0.strip(model)
        except ValueError as error:
            (OUT / f"refused{NUMBER}.txt").write_text(str(error))
        keras.distribution.set_distribution(None)
        if NUMBER:
            return
    model.save(OUT / "model.keras")
    small = keras_l0.strip(model)
    x, y = data()
    np.save(OUT / "outputs.npy", keras.ops.convert_to_numpy(small(x)))
    if not PROCESS:
        small.compile(optimizer(0.01), "mse", jit_compile=not TENSORFLOW)
        small.fit(x, y, BATCH, verbose=0)


def workers():
    """What Keras says of a model without gates."""
    import tensorflow as tf

    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
        model.compile("sgd", "mse", jit_compile=False)
    try:
        model.fit(*data(), verbose=0)
    except ValueError as error:
        (OUT / f"result{NUMBER}.json").write_text(json.dumps(str(error)))


def main():
    if ENGINE == "workers":
        workers()
        return
    if TENSORFLOW:
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * DEVICES
        tf.config.set_logical_device_configuration(cpu, parts)
    elif PROCESS:
        import jax

        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(PROCESS[0], SHARDS, NUMBER)
    result = {}
    examples = ("example",) if ENGINE in ("mirrored", "data") else ()
    for kind in ("strength", *examples, "budget"):
        runs = result[kind] = {}
        if NUMBER == 0:
            runs["one"] = record(*trained(kind))
        with engine():
            model, seen = trained(kind, SHARDS)
            runs["many"] = record(model, seen)
            runs["held"] = held(model)
            if kind == "budget":
                afterwards(model)
    (OUT / f"result{NUMBER}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
