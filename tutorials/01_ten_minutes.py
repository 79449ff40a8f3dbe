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
# # A smaller network in ten minutes
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-l0/keras-l0/blob/main/tutorials/01_ten_minutes.ipynb)
#
# Most networks are larger than their task. Here one learns, while it trains, which of
# its filters and units it can do without. We
#
# 1. train an ordinary convolutional network on small images of digits,
# 2. train it again with **gates**, one for each filter and unit,
# 3. **strip** it: take out what the gates have closed, which changes no output,
# 4. write it to a **TFLite** file, and run that file.
#
# You should know how to train a Keras model; nothing about pruning is assumed. It takes
# about two minutes on a laptop, and no GPU.

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

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # TensorFlow writes TFLite files
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # ... and may do so quietly

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_l0

# Automatic tests run this page in a few seconds; then its numbers mean nothing.
SMALL = os.environ.get("KERAS_L0_TUTORIAL_SMALL") == "1"
EPOCHS = 2 if SMALL else 80

# %% [markdown]
# ## The images
#
# scikit-learn brings 1,797 images of handwritten digits, 8 by 8 pixels each. A quarter
# of them is for testing.

# %%
digits = load_digits()
images = (digits.images / 16).astype("float32")[..., None]
x_train, x_test, y_train, y_test = train_test_split(
    images, digits.target, test_size=0.25, random_state=0, stratify=digits.target
)

figure, axes = plt.subplots(1, 10, figsize=(10, 1.4))
for ax, image, label in zip(axes, x_test, y_test, strict=False):
    ax.imshow(image[..., 0], cmap="gray_r")
    ax.set_title(label)
    ax.axis("off")
plt.show()

# %% [markdown]
# ## 1. An ordinary network
#
# This is LeNet-5 with the sizes that pruning papers use: 20 and 50 filters, 500 units.
# We look at the test images once, after the last epoch.

# %%
keras.utils.set_random_seed(0)
dense = keras.Sequential(
    [
        keras.Input((8, 8, 1), name="image"),
        keras.layers.Conv2D(20, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(50, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(500, activation="relu"),
        keras.layers.Dense(10, activation="softmax", name="class"),
    ],
    name="dense",
)


# %%
def train(model, callbacks=()):
    steps = -(-len(x_train) // 64)  # of 64 images each
    model.compile(
        # The learning rate falls to 0 in the end, so that the last epoch is a good one.
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * steps)
        ),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps,  # less waiting between steps
    )
    return model.fit(
        x_train,
        y_train,
        batch_size=64,
        epochs=EPOCHS,
        verbose=0,
        callbacks=list(callbacks),
    )


def accuracy(probabilities):
    return np.mean(probabilities.argmax(axis=-1) == y_test)


train(dense)
dense_says = dense.predict(x_test, batch_size=len(x_test), verbose=0)
print(f"{dense.count_params():,} parameters, accuracy {accuracy(dense_says):.1%}")

# %% [markdown]
# ## 2. The same network with gates
#
# `L0Conv2D` and `L0Dense` take the arguments of the Keras layers that they extend, and
# one more: `l0`, the **price** of a parameter.
#
# Behind each filter sits a gate, a number between 0 and 1 that multiplies the filter's
# output. While the network trains the gate is random, and training learns how likely it
# is to be open. Every open gate costs what its filter's parameters cost, so a filter
# stays only if it lowers the loss by more than its price.
#
# A filter has few parameters and much work to do: it is applied at each of the 8 x 8
# positions of an image (4 x 4 behind the pooling). We multiply its price accordingly,
# so that we pay for work.

# %%
price = 3e-5

keras.utils.set_random_seed(0)
gated = keras.Sequential(
    [
        keras.Input((8, 8, 1), name="image"),
        keras_l0.layers.L0Conv2D(
            20, 3, padding="same", activation="relu", l0=64 * price, name="conv1"
        ),
        keras.layers.MaxPooling2D(),
        keras_l0.layers.L0Conv2D(
            50, 3, padding="same", activation="relu", l0=16 * price, name="conv2"
        ),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras_l0.layers.L0Dense(500, activation="relu", l0=price, name="dense"),
        keras.layers.Dense(10, activation="softmax", name="class"),
    ],
    name="gated",
)

# %% [markdown]
# Training is as before. `Density` adds what would be left after stripping to the
# history (and to the progress bar, were it on): `density` is the share of parameters.

# %%
history = train(gated, [keras_l0.callbacks.Density()]).history

figure, left = plt.subplots(figsize=(6, 3))
left.plot(history["density"], "C0")
left.set_xlabel("epoch")
left.set_ylabel("density", color="C0")
left.set_ylim(0, 1.05)
right = left.twinx()
right.plot(history["accuracy"], "C1")
right.set_ylabel("accuracy in training", color="C1")
right.set_ylim(0, 1.05)
plt.show()

# %% [markdown]
# ### Which filters are left?
#
# Here is what the gates look like after training, sorted by size. A gate that is
# exactly 0 is closed.

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 2.5), layout="constrained")
for ax, name in zip(axes, ["conv1", "conv2", "dense"], strict=True):
    values = keras.ops.convert_to_numpy(gated.get_layer(name).gate.test_gates)
    ax.bar(range(len(values)), np.sort(values)[::-1], width=1)
    ax.set_title(f"{name}: {(values > 0).sum()} of {len(values)} open")
plt.show()

# %% [markdown]
# ### The plan
#
# Before you strip, ask what would happen. The plan says for every layer what is kept,
# and would name the operations that strip cannot look through; this network has none.

# %%
print(keras_l0.plan(gated))

# %% [markdown]
# ## 3. Strip
#
# `strip` returns an ordinary Keras model: built-in layers only, no gates, no closed
# filters. Its outputs are those of the gated model, on every input, up to rounding.

# %%
small = keras_l0.strip(gated)
gated_says = gated.predict(x_test, batch_size=len(x_test), verbose=0)
small_says = small.predict(x_test, batch_size=len(x_test), verbose=0)

print(f"{small.count_params():,} of {dense.count_params():,} parameters")
print(
    f"largest difference in a probability: {np.abs(gated_says - small_says).max():.0e}"
)
print(
    f"accuracy {accuracy(small_says):.1%}, the dense network {accuracy(dense_says):.1%}"
)

# %% [markdown]
# ## 4. TFLite
#
# `to_tflite` writes the file, runs it, and compares it with Keras before it calls it
# done.

# %%
report = keras_l0.to_tflite(small, "digits.tflite", data=x_test[:32])
dense_report = keras_l0.to_tflite(dense, "digits_dense.tflite", data=x_test[:32])
print(report)

# %% [markdown]
# This is how an application runs the file: one image at a time, through the signature.

# %%
from ai_edge_litert.interpreter import Interpreter

runner = Interpreter("digits.tflite").get_signature_runner()
tflite_says = np.concatenate(
    [runner(**{report.inputs[0]: image[None]})[report.outputs[0]] for image in x_test]
)
print(f"accuracy of the file: {accuracy(tflite_says):.1%}")

# %% [markdown]
# And this is how long it takes. The files take turns on the clock, so that whatever
# else the machine does slows both alike.

# %%
timed = keras_l0.benchmark(["digits_dense.tflite", "digits.tflite"])
dense_time, small_time = (file.latency for file in timed.files)
print(f"{'':8}{'bytes':>10}{'MACs':>10}{'time':>10}")
for name, file, time in [
    ("dense", dense_report, dense_time),
    ("stripped", report, small_time),
]:
    print(f"{name:8}{file.bytes:10,}{file.macs:10,}{time.median * 1e6:7.1f} µs")

# %% [markdown]
# ## Now you
#
# - Train both networks with another seed. How far apart are two runs that differ in
#   nothing else? Any difference smaller than that means little, and with 450 test
#   images two of them are half a point.
# - Double the price, or divide it by three. What does the accuracy say?
# - Give the gated layers `gate_options=keras_l0.GateOptions(noise="example")`: gates
#   are then drawn for each image, not for each batch, which is steadier and takes
#   more time.
# - Give only `conv1` a high price: its work falls, but who pays for that?
