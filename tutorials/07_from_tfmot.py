# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Coming from TFMOT
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-l0/keras-l0/blob/main/tutorials/07_from_tfmot.ipynb)
#
# You have pruned with `tensorflow_model_optimization` (TFMOT), and your models are in
# Keras 3 now, where it refuses them. This page goes through its pruning calls, one by
# one, and shows what you write instead. The calls of TFMOT are printed, those of
# keras-l0 run.
#
# **The one difference that matters.** TFMOT sets single *weights* to zero, those of
# small magnitude. The layer keeps its shape, so the file keeps its size until it is
# zipped, and most devices multiply by the zeros as fast, or as slowly, as by other
# numbers. keras-l0 closes whole *units*: neurons, filters, heads. `strip` then makes
# the layers smaller, and with them the file and the work.
#
# That is harder to ask of a network. 90 % zeros are common; 90 % fewer units are not.
# So do not carry the sparsity over. Say what you want: a share of the work, or of the
# size.
#
# It takes about a minute on a laptop.

# %% [markdown]
# ## The table
#
# In TFMOT, `prune` is `tfmot.sparsity.keras`.
#
# | TFMOT | keras-l0 | section |
# |---|---|---|
# | `prune.prune_low_magnitude(model)` | `keras_l0.add_gates(model, ...)` | 1 |
# | `pruning_schedule=prune.PolynomialDecay(0, .9, begin, end)` | `budget=keras_l0.Budget(macs=.25, ramp_steps=end)` | 1 |
# | `pruning_schedule=prune.ConstantSparsity(.9, begin)` | `budget=keras_l0.Budget(macs=.25, ramp_steps=0)` | 1 |
# | `clone_model(..., clone_function=...)` to prune some layers | `add_gates(..., layers="conv*")`, `skip=` | 2 |
# | `prune_low_magnitude(layer)` inside a model that you write | `keras_l0.layers.L0Dense(...)` and the like | 2 |
# | `callbacks=[prune.UpdatePruningStep()]`, required | nothing | 3 |
# | `prune.PruningSummaries(log_dir)` | `keras_l0.callbacks.TensorBoard(log_dir)`, `callbacks.Density()` | 3 |
# | `with prune.prune_scope(): load_model(...)` | `keras.models.load_model(...)` | 4 |
# | `prune.strip_pruning(model)` | `keras_l0.strip(model)` | 5 |
# | `TFLiteConverter...`, then `gzip` | `keras_l0.to_tflite(model, path)` | 6 |
# | `block_size=(4, 1)` | `L0Dense(..., granularity=(1, 4))` | 7 |
# | `sparsity_m_by_n=(2, 4)` | none | 7 |
# | `prune.PrunableLayer` for your own layer | `keras_l0.register_strip_rule` | [tutorial 6](06_your_own_layer.ipynb) |
# | `prune.PruningPolicy` | `skip=`, and `print(keras_l0.plan_gates(model))` | 2 |
# | `tfmot.quantization.keras.quantize_model(model)` | `keras_l0.quantize_aware(small)` | [tutorial 3](03_edge_tpu.ipynb) |
# | weight clustering | none | |

# %% [markdown]
# ## Install
#
# Only needed on Colab, which has TensorFlow already. Elsewhere, in a checkout of
# keras-l0: `pip install ".[tensorflow,demo]"`.

# %%
import subprocess
import sys

if "google.colab" in sys.modules:
    url = "git+https://github.com/keras-l0/keras-l0"
    package = f"keras-l0[litert,demo] @ {url}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_l0

# Automatic tests run this page in a few seconds; then its numbers mean nothing.
SMALL = os.environ.get("KERAS_L0_TUTORIAL_SMALL") == "1"
EPOCHS = 2 if SMALL else 60

digits = load_digits()
images = (digits.images / 16).astype("float32")[..., None]
x_train, x_test, y_train, y_test = train_test_split(
    images, digits.target, test_size=0.25, random_state=0, stratify=digits.target
)
STEPS = -(-len(x_train) // 64)  # of an epoch

# %% [markdown]
# ## The model
#
# Trained already, as in TFMOT's own guide.

# %%
keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1), name="image"),
        keras.layers.Conv2D(20, 3, padding="same", activation="relu", name="conv1"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(50, 3, padding="same", activation="relu", name="conv2"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(500, activation="relu", name="hidden"),
        keras.layers.Dense(10, activation="softmax", name="class"),
    ],
    name="dense",
)


def train(model, epochs, rate=3e-3, callbacks=()):
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(rate, epochs * STEPS)
        ),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=STEPS,
    )
    return model.fit(x_train, y_train, 64, epochs, verbose=0, callbacks=list(callbacks))


def accuracy(model):
    return np.mean(np.argmax(model(x_test), axis=-1) == y_test)


train(model, EPOCHS)
print(f"{model.count_params():,} parameters, accuracy {accuracy(model):.1%}")

# %% [markdown]
# ## 1. Wrap the model
#
# ```python
# # TFMOT
# schedule = prune.PolynomialDecay(
#     initial_sparsity=0.0, final_sparsity=0.9, begin_step=0, end_step=end
# )
# pruned = prune.prune_low_magnitude(model, pruning_schedule=schedule)
# ```
#
# Here the schedule is part of the budget. The limit comes down along a cubic curve, as
# in `PolynomialDecay`, over `ramp_steps`: the first half of `fit`, if you do not say.
# There is no `begin_step`, and no `frequency`: gates learn in every step.

# %%
budget = keras_l0.Budget(macs=0.25)
gated = keras_l0.add_gates(model, budget=budget, seed=0)
print(f"{len(keras_l0.gates(gated))} layers with gates")

# %% [markdown]
# `gated` is a copy with the same weights, layer names and outputs. If you would rather
# name a price of a parameter than a size, write `add_gates(model, l0=1e-4)`;
# `l0=keras_l0.schedules.Cubic(1e-4, steps=1000, delay=200)` lets it rise, which comes
# near to a `PolynomialDecay` with a `begin_step` of 200.

# %% [markdown]
# ## 2. Some layers only
#
# ```python
# # TFMOT
# def apply(layer):
#     if isinstance(layer, tf.keras.layers.Dense):
#         return prune.prune_low_magnitude(layer)
#     return layer
#
# pruned = tf.keras.models.clone_model(model, clone_function=apply)
# ```
#
# Layers are chosen by name, by a pattern, by class or by a function. `plan_gates` says
# what would get gates, and what would not and why, before you do it.

# %%
print(keras_l0.plan_gates(model, layers=keras.layers.Dense))

# %% [markdown]
# Of a model that you write yourself, take the gated layers:
# `keras_l0.layers.L0Dense(500, activation="relu", l0=1e-4)` in place of
# `prune_low_magnitude(Dense(500, activation="relu"))`, as in [the first
# tutorial](01_ten_minutes.ipynb).

# %% [markdown]
# ## 3. Train
#
# ```python
# # TFMOT
# callbacks = [prune.UpdatePruningStep(), prune.PruningSummaries(log_dir)]
# pruned.fit(x, y, callbacks=callbacks)
# ```
#
# No callback is required. `Density` shows how much would be left after `strip`;
# `keras_l0.callbacks.TensorBoard(log_dir)` is Keras' with gates.

# %%
history = train(gated, EPOCHS, callbacks=[keras_l0.callbacks.Density()]).history

figure, ax = plt.subplots(figsize=(6, 3))
ax.plot(np.array(history["macs"]) / keras_l0.profile(gated).dense.macs, label="MACs")
ax.plot(history["density"], label="parameters")
ax.axhline(0.25, color="0.5", linestyle=":")
ax.set_xlabel("epoch")
ax.set_ylabel("share that is left")
ax.set_ylim(0, 1.05)
ax.legend()
plt.show()

# %% [markdown]
# ## 4. Save and go on
#
# ```python
# # TFMOT
# with prune.prune_scope():
#     pruned = tf.keras.models.load_model("pruned.h5")
# ```
#
# Import keras_l0, and Keras knows its layers. Nothing else is needed. Budget, gates and
# the state of both are in the file.

# %%
gated.save("gated.keras")
gated = keras.models.load_model("gated.keras")

# %% [markdown]
# ## 5. Strip
#
# ```python
# # TFMOT
# final = prune.strip_pruning(pruned)   # as many parameters as before
# ```
#
# The name is the same, what it does is not. Ours takes units out. `budget=` holds the
# limit exactly, where training ended a little above it.

# %%
small = keras_l0.strip(gated, budget=budget)
print(f"{model.count_params():,} -> {small.count_params():,} parameters")
print(f"accuracy {accuracy(model):.1%} -> {accuracy(small):.1%}")

# %% [markdown]
# ## 6. Convert
#
# ```python
# # TFMOT
# converter = tf.lite.TFLiteConverter.from_keras_model(final)
# Path("pruned.tflite").write_bytes(converter.convert())
# # ... and gzip, to see that anything was gained
# ```
#
# To see what this is about, here is a stand-in for the other side: of the dense network
# the smallest 90 % of each kernel are set to zero, which is what a model is after
# `strip_pruning`. (It was not trained with these zeros, so it is good for bytes and for
# time, not for accuracy.)

# %%
sparse = keras.models.clone_model(model)
sparse.set_weights(
    [
        np.where(abs(w) < np.quantile(abs(w), 0.9), 0, w) if w.ndim > 1 else w
        for w in model.get_weights()
    ]
)

files = {"dense": model, "90 % zeros": sparse, "stripped": small}
paths = [f"{name.replace(' % ', '_')}.tflite" for name in files]
reports = [
    keras_l0.to_tflite(net, path, data=x_test[:32])
    for net, path in zip(files.values(), paths, strict=True)
]

# %% [markdown]
# The three files take turns on the clock, so that whatever else the machine does slows
# all alike.

# %%
times = [file.latency for file in keras_l0.benchmark(paths).files]
print(f"{'':12}{'bytes':>10}{'gzipped':>10}{'MACs':>10}{'time':>10}")
for name, report, time in zip(files, reports, times, strict=True):
    line = f"{name:12}{report.bytes:10,}{report.gzip_bytes:10,}{report.macs:10,}"
    print(f"{line}{time.median * 1e6:7.1f} µs")

# %% [markdown]
# The zeros help `gzip`, and only `gzip`: zipped, the file with zeros is the smallest of
# the three. On the device it is unpacked, and its zeros are stored and multiplied. The
# stripped network is smaller as it is, and has less to compute. In our run it had a
# quarter of the bytes and took less than half of the time, for 0.9 points of accuracy.
# That is four of 450 images.

# %% [markdown]
# ## 7. Blocks, and single weights
#
# ```python
# # TFMOT
# prune.prune_low_magnitude(model, block_size=(4, 1), block_pooling_type="AVG")
# ```
#
# Gates on blocks, or on single weights, are there as well. Then you get what TFMOT
# gives: zeros in a kernel of the same shape, but for units and inputs of which nothing
# is left. TFMOT counts along the kernel, inputs first; ours says units first. Both of
# these are one unit by four inputs.

# %%
fine = keras.Sequential(
    [
        keras.Input((64,)),
        keras_l0.layers.L0Dense(32, granularity=(1, 4), l0=1e-4, name="blocks"),
        keras_l0.layers.L0Dense(16, granularity="weights", l0=1e-4, name="weights"),
        keras.layers.Dense(10),
    ]
)
for gate in keras_l0.gates(fine):
    print(f"{gate.path}: {gate.count} gates")

# %% [markdown]
# `sparsity_m_by_n=(2, 4)`, two zeros in every four weights for NVIDIA's tensor cores,
# has no counterpart here.

# %% [markdown]
# ## 8. Start again?
#
# A network that TFMOT has pruned can be the start. Its zeros are weights like others,
# and `add_gates` takes what `strip_pruning` returned, once it is a Keras 3 model: build
# the network in Keras 3, and copy the weights with `set_weights`.
#
# ## Now you
#
# - Put `Budget(params=0.1)` in place of the MACs. Which layers get smaller now?
# - Train the network with the zeros for a few epochs more, and look at its zeros then.
#   This is what `UpdatePruningStep` is needed for.
# - [Questions](https://github.com/keras-l0/keras-l0/blob/main/docs/faq.md) has what
#   users of pruning tools ask most: no smaller, no faster, accuracy gone.
