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
# # Eight bits, for the Edge TPU
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-l0/keras-l0/blob/main/tutorials/03_edge_tpu.ipynb)
#
# Google's Edge TPU computes with integers of 8 bits, and with nothing else. So do many
# microcontrollers and phone accelerators. And any device loads a file four times as
# small. Here we
#
# 1. prune a network to a fifth of its work,
# 2. write it in **8 bits** (`int8`), and look at what is rounded and how much that
#    costs,
# 3. see what the **data for calibration** are for, by taking the wrong ones,
# 4. check the file for the **Edge TPU**, without having one, and see one refused,
# 5. train the network to live with 8 bits: **quantization-aware training**.
#
# [The first tutorial](01_ten_minutes.ipynb) explains gates. This one takes about three
# minutes on a laptop, and no TPU.

# %% [markdown]
# ## Install
#
# Only needed on Colab, which has TensorFlow already. Elsewhere, in a checkout of
# keras-l0: `pip install ".[tensorflow,demo]"`. Part 5 takes the extra `tfmot` as well,
# in an environment of its own: `pip install ".[tensorflow,demo,tfmot]"`. Without it the
# page runs, and part 5 says what is missing.

# %%
import subprocess
import sys

if "google.colab" in sys.modules:
    url = "git+https://github.com/keras-l0/keras-l0"
    package = f"keras-l0[litert,demo,tfmot] @ {url}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # TensorFlow writes TFLite files
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
# A third of MNIST, to be quick. Keras downloads it; `KERAS_L0_MNIST=/path/to/mnist.npz`
# in the environment spares you that. (Automatic tests take the 8 by 8 pixels of
# scikit-learn's digits.)


# %%
def load():
    if SMALL:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = x.reshape(-1, 8, 8) * 255 / 16
        return (x[:1200], y[:1200]), (x[1200:], y[1200:])
    if path := os.environ.get("KERAS_L0_MNIST"):
        with np.load(path) as file:
            return [
                (file[f"x_{part}"], file[f"y_{part}"]) for part in ("train", "test")
            ]
    return keras.datasets.mnist.load_data()


(x_train, y_train), (x_test, y_test) = load()
x_train, y_train = x_train[:20_000], y_train[:20_000]
x_train, x_test = ((x / 255).astype("float32")[..., None] for x in (x_train, x_test))

# %% [markdown]
# ## 1. A pruned network
#
# First prune, then quantize: gates need numbers that can change a little.

# %%
keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input(x_train.shape[1:], name="image"),
        keras.layers.Conv2D(24, 3, strides=2, activation="relu", name="conv1"),
        keras.layers.Conv2D(48, 3, strides=2, activation="relu", name="conv2"),
        keras.layers.Flatten(name="flat"),
        keras.layers.Dense(128, activation="relu", name="hidden"),
        keras.layers.Dense(10, name="class"),
    ],
    name="digits",
)


def train(model, epochs, rate=2e-3):
    epochs = 1 if SMALL else epochs
    steps = -(-len(x_train) // 128)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(rate, epochs * steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=min(20, steps),
    )
    model.fit(x_train, y_train, batch_size=128, epochs=epochs, verbose=0)


train(model, 3)
budget = keras_l0.Budget(macs=0.2)
gated = keras_l0.add_gates(model, budget=budget, seed=0)
train(gated, 8)
small = keras_l0.strip(gated, budget=budget)
before, after = (keras_l0.profile(m).dense for m in (model, small))
print(f"{before.params:,} -> {after.params:,} parameters")
print(f"{before.macs:,} -> {after.macs:,} MACs")

# %% [markdown]
# ## 2. Eight bits
#
# 8 bits are 256 numbers. An 8-bit file has a *scale* for every filter: the step from
# one of these numbers to the next. Each weight becomes the nearest multiple of it. Here
# is what that does to the weights of one filter. On the left the two can hardly be told
# apart.

# %%
weights = np.sort(small.get_layer("conv2").get_weights()[0][..., 0].ravel())
scale = np.abs(weights).max() / 127
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
axes[0].plot(weights, ".", label="float32")
axes[0].plot(np.round(weights / scale) * scale, linewidth=0.8, label="8 bits")
axes[0].set_title("weights of a filter, in order")
axes[0].legend()
axes[1].plot(weights, (np.round(weights / scale) - weights / scale), ".")
axes[1].set_title("what the rounding changes, in steps")
axes[1].set_xlabel("weight")
plt.show()

# %% [markdown]
# The numbers that *flow* through the network are rounded, too. Their scales are not in
# the model: they depend on what the network sees. So `"int8"` takes
# `representative_data`, a few hundred ordinary inputs, and measures the largest and the
# smallest number at every place. Training images are fine. Labels are not needed.
#
# With `labels`, the report says how many the file gets right; `labels` and `data` are
# for measuring, here on the test images.

# %%
representative = x_train[:: len(x_train) // 300]
reports = {}
for name, net in (("dense", model), ("pruned", small)):
    for quantization in (None, "int8"):
        key = f"{name}, {quantization or 'float32'}"
        path = f"{key.replace(', ', '_')}.tflite"
        reports[key] = keras_l0.to_tflite(
            net,
            path,
            quantization,
            representative if quantization else None,
            data=x_test,
            labels=y_test,
        )
print(reports["pruned, int8"])


# %%
def table(reports):
    print(f"{'':18}{'bytes':>10}{'accuracy':>10}")
    for name, report in reports.items():
        print(f"{name:18}{report.bytes:10,}{report.accuracy:10.2%}")


table(reports)

# %% [markdown]
# Pruning and rounding multiply: fewer numbers, and each of them a quarter of the size.
# In our run the file went from 935,760 bytes to 71,552, a thirteenth. (The pruned
# network is no worse than the dense one, 98.2 % after 97.8 %: it has trained for
# longer.)
#
# The error in the report is the difference from Keras, as a share of how far the output
# itself varies. In 8 bits some per cent are normal. `to_tflite` raises an error above
# `max_error=0.5`, so that a file which computes something else never leaves the house.
#
# ## 3. The wrong data
#
# What if the calibration has not seen what the device will see? Suppose that somebody
# calibrates on images that are much too dark. Every number that is larger than any in
# the calibration is cut off.

# %%
dark = keras_l0.to_tflite(
    small,
    "dark.tflite",
    "int8",
    representative * 0.1,
    data=x_test,
    labels=y_test,
    max_error=10.0,  # write it all the same
)
print(f"calibrated on images:      {reports['pruned, int8'].accuracy:.2%}")
print(f"calibrated on dark images: {dark.accuracy:.2%}")

# %% [markdown]
# In our run that was 98.2 % against 84.8 %. So take data as they come from the camera,
# preprocessed as the application will do it. A few hundred are enough, but all kinds of
# them should be among these.
#
# ## 4. The Edge TPU
#
# The Edge TPU runs a file from its start until it meets an operation that it does not
# know. From there on, **everything** is left to the CPU. `target="edgetpu"` goes
# through the operations of the file by Google's list, and refuses the first one that
# would not run, by the name of the layer. Inputs and outputs are 8-bit numbers then.

# %%
tpu = keras_l0.to_tflite(
    small, "edge.tflite", "int8", representative, target="edgetpu", data=x_test
)
print(tpu)

# %% [markdown]
# On a machine with [Google's compiler](https://coral.ai/docs/edgetpu/compiler/),
# `edgetpu_compiler` runs as well; otherwise the command for it is `edgetpu_compiler
# edge.tflite`.
#
# And here is a network that it would not run: LeakyReLU is not on the list.

# %%
leaky = keras.Sequential(
    [
        keras.Input(x_train.shape[1:]),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.LeakyReLU(name="my_activation"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10),
    ],
    name="leaky",
)
try:
    keras_l0.to_tflite(leaky, "no.tflite", "int8", representative, target="edgetpu")
except keras_l0.ExportError as error:
    print(error)

# %% [markdown]
# ### In the application
#
# The file takes and returns 8-bit numbers. Each tensor says how to come from and to
# real ones: value = scale * (number - zero point).

# %%
from ai_edge_litert.interpreter import Interpreter

runner = Interpreter("edge.tflite").get_signature_runner()
taken = runner.get_input_details()[tpu.inputs[0]]
(name,) = tpu.outputs


def classify(image):
    scale, zero = taken["quantization"]
    number = np.clip(np.round(image / scale) + zero, -128, 127).astype(taken["dtype"])
    return runner(**{tpu.inputs[0]: number[None]})[name].argmax()


some = [
    classify(image) == label for image, label in zip(x_test[:500], y_test, strict=False)
]
print(f"right: {np.mean(some):.1%} of {len(some)} images")

# %% [markdown]
# ## 5. Quantization-aware training
#
# So far the network learned with exact numbers, and was rounded afterwards. Small
# networks have little to spare, and some lose accuracy by it: those with few channels,
# and those whose numbers are spread widely. Then let the network *train* with the
# rounding. In the forward pass weights and activations are rounded as the file will
# round them; in the backward pass the rounding is ignored. So weights move to where
# rounding hurts less. The ranges are learned on the way, so that no calibration is
# needed.
#
# `keras_l0.quantize_aware` hands the stripped network to
# `tensorflow-model-optimization` for that. It is not installed everywhere (extra
# `tfmot`), since it brings another Keras, `tf_keras`, along. Two epochs at a low
# learning rate are usual.

# %%
try:
    network = keras_l0.quantize_aware(small)
except ImportError as error:
    network = None
    print(error)
    print("Without it the file of part 2 is what you have: 8 bits after training.")

# %%
if network is not None:
    import tf_keras

    network.compile(
        tf_keras.optimizers.Adam(3e-4),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    network.fit(x_train, y_train, batch_size=128, epochs=1 if SMALL else 2, verbose=0)
    reports["pruned, aware"] = network.to_tflite(
        "aware.tflite", data=x_test, labels=y_test
    )
table(reports)

# %% [markdown]
# When this page was written, the pruned network had 98.22 % in float32, 98.24 % in 8
# bits after training, and 98.22 % in 8 bits with training for them. So here it was not
# needed: rounding cost nothing in the first place, and two in 10,000 images are chance.
# That is how it usually is with small convolutional networks. Measure first; train for
# 8 bits if the second row of a network is clearly worse than its first.
#
# ## Now you
#
# - Prune harder: `Budget(macs=0.05)`. Does rounding cost more now?
# - `target="micro"` runs the file in TFLite Micro and says how much memory it takes;
#   `target="ethos-u"` asks Arm's compiler how fast its NPU would be.
#   [Ship](https://github.com/keras-l0/keras-l0/blob/main/docs/shipping.md) has all
#   targets.
# - `keras_l0.benchmark([...])` times files side by side on this machine.
