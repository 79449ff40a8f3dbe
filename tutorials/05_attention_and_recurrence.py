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
# # Attention heads and recurrent units
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-l0/keras-l0/blob/main/tutorials/05_attention_and_recurrence.ipynb)
#
# A gate on a filter is easy to picture. What is the unit of an attention layer, or of
# an LSTM? Here we
#
# 1. gate the **units of an LSTM**, inside of the loop, and see why it has to be there,
# 2. gate the **heads of attention**, and what stands between them in a transformer
#    block,
# 3. strip both.
#
# [The first tutorial](01_ten_minutes.ipynb) explains gates. You should have met an LSTM
# and attention before. It takes about three minutes on a laptop, and no GPU.

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
EPOCHS = 1 if SMALL else 40

# %% [markdown]
# ## The sequences
#
# An image of a digit, read row by row from top to bottom, is a sequence: 8 steps of 8
# numbers. scikit-learn brings 1,797 of them.

# %%
digits = load_digits()
x_train, x_test, y_train, y_test = train_test_split(
    (digits.images / 16).astype("float32"),
    digits.target,
    test_size=0.25,
    random_state=0,
    stratify=digits.target,
)

figure, axes = plt.subplots(1, 9, figsize=(10, 1.3))
axes[0].imshow(x_test[0], cmap="gray_r")
axes[0].set_title(f"a {y_test[0]}")
for step, (ax, row) in enumerate(zip(axes[1:], x_test[0], strict=True)):
    ax.bar(range(8), row, color="0.3")
    ax.set_ylim(0, 1)
    ax.set_title(f"step {step}")
for ax in axes:
    ax.axis("off")
plt.show()


# %%
def train(model, epochs=EPOCHS):
    steps = -(-len(x_train) // 64)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(3e-3, epochs * steps)
        ),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps,
    )
    model.fit(x_train, y_train, batch_size=64, epochs=epochs, verbose=0)


def compare(dense, small):
    print(f"{'':10}{'parameters':>12}{'MACs':>10}{'accuracy':>10}")
    for name, model in (("dense", dense), ("stripped", small)):
        size = keras_l0.profile(model).dense
        right = np.mean(np.argmax(model(x_test), axis=-1) == y_test)
        print(f"{name:10}{size.params:12,}{size.macs:10,}{right:10.1%}")


# %% [markdown]
# ## 1. An LSTM
#
# An LSTM of 64 units carries a state of 64 numbers from step to step. At each step
# every unit reads the new input **and the states of all units**. So a unit has four
# kinds of weights: its own columns, which read the input and the states, its biases,
# and a row with which every other unit reads it.
#
# Now suppose that you put a gate *behind* the LSTM, as behind a Dense layer. If it
# closes, the next layer does not see the unit any more. But the other units still do,
# at the next step. The unit cannot leave.

# %%
keras.utils.set_random_seed(0)
inputs = keras.Input((8, 8), name="rows")
lstm = keras.layers.LSTM(64, name="lstm")(inputs)
outer = keras_l0.layers.L0Gate(name="outer")
outputs = keras.layers.Dense(10, name="class")(outer(lstm))
behind = keras.Model(inputs, outputs, name="behind")
outer.assign_log_alpha([9.0] * 32 + [-9.0] * 32)  # half of them closed
print(keras_l0.plan(behind))

# %% [markdown]
# `lstm` keeps its 64 units, although half of them are read by nothing but the LSTM
# itself. `L0LSTM` has its gates **inside**: a gate multiplies the state wherever that
# is read, by the next layer and by the loop. A closed unit is then read by nobody.
#
# The gates are drawn once for a sequence, and not at every step: a unit is there, or it
# is not.

# %%
keras.utils.set_random_seed(0)
dense = keras.Sequential(
    [
        keras.Input((8, 8), name="rows"),
        keras.layers.LSTM(64, name="lstm"),
        keras.layers.Dense(10, activation="softmax", name="class"),
    ],
    name="dense_lstm",
)
train(dense)

# %% [markdown]
# `add_gates` makes an `L0LSTM` of it. (In a network that you write yourself,
# `keras_l0.layers.L0LSTM(64, l0=...)` takes the place of `LSTM(64)`.) We ask for a
# third of the parameters.

# %%
budget = keras_l0.Budget(params=0.33)
gated = keras_l0.add_gates(dense, budget=budget, seed=0)
train(gated)
print(keras_l0.plan(gated))

# %%
small_lstm = keras_l0.strip(gated, budget=budget)
compare(dense, small_lstm)

# %% [markdown]
# A third of the parameters is more than *half* of the units: most of the weights are
# between unit and unit. When this page was written, the accuracy was 95.3 % before and
# 96.0 % after: the stripped network has trained twice as long, and a third was enough.
#
# This is the recurrent kernel, before and after: who reads whom. White is 0. On the
# left nobody reads closed units, though they still read others, for nothing.


# %%
def recurrent(model):
    kernel = model.get_layer("lstm").cell.recurrent_kernel.numpy()
    return np.abs(kernel.reshape(len(kernel), 4, -1)).sum(axis=1)


z = keras.ops.convert_to_numpy(gated.get_layer("lstm").gate.test_gates)
figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
for ax, image, title in (
    (axes[0], recurrent(gated) * z[:, None], "gated: closed units are not read"),
    (axes[1], recurrent(small_lstm), "stripped"),
):
    ax.imshow(image, cmap="gray_r")
    ax.set_title(f"{title}\n{image.shape[0]} units", size=9)
    ax.set_ylabel("this unit")
    ax.set_xlabel("... is read by that one")
plt.show()

# %% [markdown]
# `L0GRU` and `L0SimpleRNN` are made likewise, and `Bidirectional` may be around them.

# %% [markdown]
# ## 2. A transformer block
#
# What are the units here?
#
# - **A head** has its own queries, keys and values, and its rows of the output
#   projection. It can go as a whole. `L0MultiHeadAttention` has a gate for each head.
# - **The units between the two Dense layers** of the block are as those of any network.
# - **The width of the stream**, 32 numbers for each row here, has to stay: the
#   additions tie all blocks together, and LayerNormalization takes a mean over all 32.
#   For strip it is a barrier.
#
# The block is written with plain Keras layers, trained, and then gated by `add_gates`:
# what you would do with a model that you have.


# %%
def waves(steps, width):
    """Sines and cosines of the position, as in the first transformer."""
    angles = np.arange(steps)[:, None] / 100 ** (np.arange(0, width, 2) / width)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype("float32")


def transformer(width=32, heads=8, blocks=2):
    inputs = keras.Input((8, 8), name="rows")
    x = keras.layers.Dense(width, name="embed")(inputs)
    x = x + waves(8, width)  # so that attention can tell one row from another
    for i in range(blocks):
        y = keras.layers.LayerNormalization(name=f"norm{i}a")(x)
        y = keras.layers.MultiHeadAttention(heads, 8, name=f"attention{i}")(y, y)
        x = x + y
        y = keras.layers.LayerNormalization(name=f"norm{i}b")(x)
        y = keras.layers.Dense(128, activation="gelu", name=f"expand{i}")(y)
        x = x + keras.layers.Dense(width, name=f"contract{i}")(y)
    x = keras.layers.GlobalAveragePooling1D()(x)
    outputs = keras.layers.Dense(10, activation="softmax", name="class")(x)
    return keras.Model(inputs, outputs, name="transformer")


keras.utils.set_random_seed(0)
dense = transformer(blocks=1 if SMALL else 2)
train(dense)
print(keras_l0.plan_gates(dense))

# %% [markdown]
# A head costs over a thousand parameters, an inner unit 65. So a budget in MACs lets
# training weigh the ones against the others. We ask for a third of the work.

# %%
budget = keras_l0.Budget(macs=0.33)
gated = keras_l0.add_gates(dense, budget=budget, seed=0)
train(gated)
small_transformer = keras_l0.strip(gated, budget=budget)
print(keras_l0.plan(gated))

# %%
compare(dense, small_transformer)

# %%
kept = {
    row.name: (row.kept, row.units)
    for row in keras_l0.plan(gated).layers
    if row.name.startswith(("attention", "expand")) and row.kind != "L0Gate"
}
figure, axes = plt.subplots(1, 2, figsize=(8, 2.5), layout="constrained")
for ax, what, units in zip(
    axes, ("attention", "expand"), ("heads", "inner units"), strict=True
):
    names = [name for name in kept if name.startswith(what)]
    ax.barh(names, [kept[name][1] for name in names], color="0.9", label="before")
    ax.barh(names, [kept[name][0] for name in names], label="kept")
    ax.set_title(units)
axes[0].legend()
plt.show()

# %% [markdown]
# In our run the first block kept most of its heads, and the second one two of eight.
# Training weighs them against inner units, for the whole model at once. Of the accuracy
# 0.9 points went with two thirds of the work, 4 of 450 images.
#
# ### What the heads look at
#
# One image, and the heads that are left in the first block: how much each row (from top
# to bottom) looks at each other row. The stripped layer is Keras' `MultiHeadAttention`
# with fewer heads, so you ask it as you would ask any.

# %%
attention = small_transformer.get_layer("attention0")
probe = keras.Model(small_transformer.input, attention.input[0])
stream = probe(x_test[:1])
_, scores = attention(stream, stream, return_attention_scores=True)
scores = np.array(scores)[0]
figure, axes = plt.subplots(1, 1 + len(scores), figsize=(2 * (1 + len(scores)), 2.2))
axes[0].imshow(x_test[0], cmap="gray_r")
axes[0].set_title("image", size=9)
for number, (ax, score) in enumerate(zip(axes[1:], scores, strict=True)):
    ax.imshow(score, vmin=0, vmax=1, cmap="viridis")
    ax.set_title(f"head {number}", size=9)
for ax in axes:
    ax.set_xticks([])
    ax.set_yticks([])
plt.show()

# %% [markdown]
# ## Ship them
#
# The files run with built-in operations. A loop needs a fixed batch, which is 1 unless
# you say otherwise.

# %%
for name, model in (("lstm", small_lstm), ("transformer", small_transformer)):
    report = keras_l0.to_tflite(model, f"{name}.tflite", data=x_test[:16])
    print(f"{name}: {report.bytes:,} bytes, {report.max_difference:.0e} from Keras")

# %% [markdown]
# ## Now you
#
# - Give the heads' *dimensions* gates as well: `keras_l0.layers.L0MultiHeadAttention(8,
#   8, gate_dims=True, l0=...)`.
# - Heads that share keys and values (grouped-query attention) go by groups:
#   `L0GroupQueryAttention`.
# - Put a second LSTM on top of the first (`return_sequences=True`). What does the plan
#   say of the first one's units now?
