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
# # Prune a model that you have
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-l0/keras-l0/blob/main/tutorials/02_a_model_you_have.ipynb)
#
# Few people train from scratch. They take a network that somebody has trained on a lot
# of data, and train it on for a task of their own: transfer learning. Your task is
# often the easier one, and then much of the network is not needed. Here we
#
# 1. train a network on the digits 0 to 4, and then act as if we had got it from
#    somewhere,
# 2. fine-tune it on 1,000 images of the digits 5 to 9,
# 3. add **gates** to it with `add_gates`, and ask for a **quarter of the work**,
# 4. **strip** it, and compare it with a network of the same size that had no
#    pretraining.
#
# [The first tutorial](01_ten_minutes.ipynb) explains gates. This one takes about five
# minutes on a laptop, and no GPU.

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

import keras_l0

# Automatic tests run this page in a few seconds; then its numbers mean nothing.
SMALL = os.environ.get("KERAS_L0_TUTORIAL_SMALL") == "1"

# %% [markdown]
# ## The images
#
# MNIST: 28 by 28 pixels. Keras downloads it; `KERAS_L0_MNIST=/path/to/mnist.npz` in the
# environment spares you that. (Automatic tests take the 8 by 8 pixels of scikit-learn's
# digits, which need no download.)


# %%
def load_digits():
    if SMALL:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = x.reshape(-1, 8, 8) * 255 / 16
        return (x[:1200], y[:1200]), (x[1200:], y[1200:])
    if path := os.environ.get("KERAS_L0_MNIST"):
        with np.load(path) as file:
            return tuple((file[f"x_{part}"], file[f"y_{part}"]) for part in PARTS)
    return keras.datasets.mnist.load_data()


PARTS = ("train", "test")
data = {}
for part, (x, y) in zip(PARTS, load_digits(), strict=True):
    x = (x / 255).astype("float32")[..., None]
    data["old", part] = x[y < 5], y[y < 5]
    data["new", part] = x[y >= 5], y[y >= 5] - 5

# Of the new task we have few examples.
x_train, y_train = (array[:1000] for array in data["new", "train"])
x_test, y_test = data["new", "test"]
print(f"{len(x_train)} images to train on, {len(x_test)} to test on")

figure, axes = plt.subplots(2, 10, figsize=(10, 2.4))
for row, task in zip(axes, ("old", "new"), strict=True):
    for ax, image in zip(row, data[task, "train"][0], strict=False):
        ax.imshow(image[..., 0], cmap="gray_r")
        ax.axis("off")
    row[0].set_title(f"{task} task", loc="left")
plt.show()

# %% [markdown]
# ## 1. The model that you have
#
# This one is a small residual network, the kind with additions. In real life you would
# write
#
# ```python
# base = keras.applications.MobileNetV2(
#     weights="imagenet", include_top=False, pooling="avg", input_shape=(96, 96, 3)
# )
# outputs = keras.layers.Dense(classes, name="new_class")(base.output)
# model = keras.Model(base.input, outputs)
# ```
#
# and load images of your own. `add_gates` takes either: any Sequential or functional
# Keras model, and all the builders of `keras.applications` are among its tests.


# %%
def network(classes, width=16):
    def conv(x, filters, strides=1):
        x = keras.layers.Conv2D(
            filters, 3, strides=strides, padding="same", use_bias=False
        )(x)
        return keras.layers.BatchNormalization(momentum=0.9)(x)

    def relu(x):
        return keras.layers.Activation("relu")(x)

    def block(x, filters, strides=1):
        shortcut = conv(x, filters, strides) if strides > 1 else x
        x = conv(relu(conv(x, filters, strides)), filters)
        return relu(keras.layers.Add()([x, shortcut]))

    inputs = keras.Input(x_train.shape[1:], name="image")
    x = relu(conv(inputs, width, 2))
    x = block(block(x, width), 2 * width, 2)
    x = block(x, 4 * width, 2)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    outputs = keras.layers.Dense(classes, name="old_class")(x)
    return keras.Model(inputs, outputs, name="pretrained")


def train(model, x, y, epochs, rate, callbacks=()):
    epochs = 1 if SMALL else epochs
    steps = -(-len(x) // 50)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(rate, epochs * steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=min(20, steps),
    )
    return model.fit(
        x, y, batch_size=50, epochs=epochs, verbose=0, callbacks=list(callbacks)
    )


def accuracy(model, x, y):
    parts = [model(x[i : i + 500], training=False) for i in range(0, len(x), 500)]
    return np.mean(np.concatenate(parts).argmax(axis=-1) == y)


keras.utils.set_random_seed(0)
pretrained = network(5)
train(pretrained, *data["old", "train"], epochs=3, rate=2e-3)
before = accuracy(pretrained, *data["old", "test"])
print(f"digits 0 to 4: {before:.1%}, {pretrained.count_params():,} parameters")

# %% [markdown]
# ## 2. Fine-tune it, as ever
#
# A new layer on top, for the new classes. The rest keeps what it has learned.

# %%
features = pretrained.get_layer("features").output
outputs = keras.layers.Dense(5, name="new_class")(features)
tuned = keras.Model(pretrained.input, outputs, name="tuned")
train(tuned, x_train, y_train, epochs=20, rate=1e-3)
tuned_accuracy = accuracy(tuned, x_test, y_test)
print(f"digits 5 to 9: {tuned_accuracy:.1%}")

# %% [markdown]
# ## 3. Where can gates go?
#
# Ask before you do it. `plan_gates` lists groups of units. Behind an addition, channel
# 2 of the sum is channel 2 of both branches, so filters that meet there can only go
# together: they are one group with one set of gates. The last two columns say what the
# removal of one unit saves in the whole model.

# %%
print(keras_l0.plan_gates(tuned))

# %% [markdown]
# And a network of `keras.applications`? Its weights do not matter for this question.
# (Automatic tests leave this out, for time.)

# %%
if not SMALL:
    mobilenet = keras.applications.MobileNetV2(
        weights=None, include_top=False, pooling="avg", input_shape=(96, 96, 3)
    )
    where = keras_l0.plan_gates(mobilenet)
    print(f"MobileNetV2: {len(where.groups)} groups of units")
    print(f"gates reach {where.reached:.1%} of the kernels")

# %% [markdown]
# ## 4. Gates under a budget
#
# `add_gates` returns a copy with gates. The weights are the same, and so are the
# outputs: gates start open.
#
# How many gates should close? You need not know a price. Say how much **work** the
# stripped model may do, as a share: multiplications with their additions, MACs, which
# are what a phone spends its time on. Training finds the price. Over its first half the
# limit comes down slowly from 100 %.

# %%
budget = keras_l0.Budget(macs=0.25)
gated = keras_l0.add_gates(tuned, budget=budget, seed=0)

difference = np.abs(gated(x_test[:100]) - tuned(x_test[:100])).max()
print(f"open gates change the outputs by {difference:.0e}")

history = train(
    gated, x_train, y_train, 60, 2e-3, [keras_l0.callbacks.Density()]
).history

# %%
figure, left = plt.subplots(figsize=(6, 3))
work = keras_l0.profile(gated).dense.macs
left.plot(np.array(history["macs"]) / work, "C0")
left.axhline(0.25, color="C0", linestyle=":")
left.set_xlabel("epoch")
left.set_ylabel("share of the MACs", color="C0")
left.set_ylim(0, 1.05)
right = left.twinx()
right.plot(history["accuracy"], "C1")
right.set_ylabel("accuracy in training", color="C1")
right.set_ylim(0, 1.05)
plt.show()

# %% [markdown]
# ### BatchNormalization
#
# In training its statistics follow activations under random gates. Under a budget gates
# are fixed numbers for the last quarter of the epochs, as they will be from now on, so
# the statistics should fit. `calibrate` measures them anew, on training images. It
# takes a second, and without a budget you should always do it.

# %%
print(f"before calibrate: {accuracy(gated, x_test, y_test):.1%}")
keras_l0.calibrate(gated, x_train)
print(f"after calibrate:  {accuracy(gated, x_test, y_test):.1%}")

# %% [markdown]
# ## 5. Strip
#
# For its last quarter `fit` closed what was still over the limit.
# `strip(model, budget=...)` holds it in any case: if the model is above, it closes the
# gates that are worth least for what they save. What comes back is an ordinary Keras
# model.

# %%
small = keras_l0.strip(gated, budget=budget)

# %% [markdown]
# Which filters are left? Those that meet in additions are dear to the network: they
# carry what all later layers read. Inside of the blocks it is content with a few.

# %%
convs = [layer for layer in small.layers if isinstance(layer, keras.layers.Conv2D)]
names = [layer.name for layer in convs]
units = np.array([[tuned.get_layer(x.name).filters, x.filters] for x in convs])
figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.bar(names, units[:, 0], color="0.9", label="before")
ax.bar(names, units[:, 1], label="kept")
ax.set_ylabel("filters")
ax.tick_params(axis="x", rotation=60)
ax.legend()
plt.show()

# %% [markdown]
# ## Was it worth it?
#
# Two controls. The tuned network is larger; what did the pruning cost? And a network
# with the very sizes of the stripped one, trained on the same 1,000 images from a
# random start, for as many epochs as the others took together: was the pretraining of
# use, or would any small network have done?

# %%
keras.utils.set_random_seed(0)
scratch = keras.models.clone_model(small)  # the same layers, with new weights
train(scratch, x_train, y_train, epochs=80, rate=2e-3)

rows = [
    ("pretrained and tuned", tuned),
    ("... pruned to 25 %", small),
    ("of that size, from scratch", scratch),
]
print(f"{'':28}{'parameters':>12}{'MACs':>12}{'accuracy':>10}")
for name, model in rows:
    right = accuracy(model, x_test, y_test)
    macs = keras_l0.profile(model).dense.macs
    print(f"{name:28}{model.count_params():12,}{macs:12,}{right:10.1%}")

# %% [markdown]
# When this page was written, pruning had cost 1.4 points, and the network from scratch
# was 3.3 points behind the pruned one: 97.9 %, 96.5 % and 93.2 %. These are single
# runs; another seed may move each by half a point.
#
# ## Save it
#
# The stripped model is a plain Keras model, so it saves and loads like one, without
# keras-l0. The gated one saves as well, gates and budget included, if you want to train
# on later. `keras_l0.to_tflite(small, "small.tflite")` writes the file for a phone; see
# [the first tutorial](01_ten_minutes.ipynb).

# %%
small.save("small.keras")
loaded = keras.models.load_model("small.keras")
print(f"loaded: {accuracy(loaded, x_test, y_test):.1%}")

# %% [markdown]
# ## Now you
#
# - Ask for a tenth of the work. How much do the two small networks differ then?
# - `Budget(params=0.25)` limits the parameters instead of the work. Which layers
#   go now?
# - `add_gates(..., skip="conv2d")` keeps all filters of the first layer.
# - Train the stripped model for a few more epochs, as any Keras model.
