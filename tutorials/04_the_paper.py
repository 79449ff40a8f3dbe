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
# # The paper, in pictures
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-l0/keras-l0/blob/main/tutorials/04_the_paper.ipynb)
#
# The gates of keras-l0 come from [Louizos, Welling and Kingma
# (2017)](https://arxiv.org/abs/1712.01312), *Learning Sparse Neural Networks through L0
# Regularization*. You can prune without reading it. If you want to know what happens
# inside of a gate, and why, this page shows it:
#
# 1. why closing a unit is hard to learn, and the trick that makes it possible,
# 2. the gate itself, to play with,
# 3. how a gate decides: use against price,
# 4. what a parameter should cost: AIC, BIC, and the paper's choice,
# 5. the paper's experiment: LeNet-300-100 on MNIST.
#
# It takes about five minutes on a laptop, most of them for the last part.

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

# Automatic tests run this page in a few seconds; then part 5 means nothing.
SMALL = os.environ.get("KERAS_L0_TUTORIAL_SMALL") == "1"

# %% [markdown]
# ## 1. A coin cannot be trained
#
# We want as few units as possible, so the honest penalty is the **number** of units
# that are not zero: the "L0 norm". A number of things has no slope. Make a weight a
# little smaller, and there are as many weights as before. So gradient descent does not
# know where to go, and people take other penalties: L1 and L2 pull on *all* weights,
# those that are needed as well.
#
# First idea: let chance decide. A unit is there with probability p, and p is what we
# train. Now there is a slope: the *expected* number of units is the sum of all p. But
# the coin itself, heads or tails, still has none.
#
# Second idea: a smooth coin. Take a uniform random number u, and compute
#
#     s = sigmoid((log(u) - log(1 - u) + log_alpha) / beta)
#
# For a given u this is a smooth function of `log_alpha`, so that gradients pass. The
# smaller beta is, the nearer it is to a coin; the paper takes 2/3. But it is never
# quite 0, and a unit that is multiplied by .001 cannot be removed.
#
# Third idea: **stretch** s a little, from (0, 1) to (-.1, 1.1), and **clip** what
# sticks out. What was below 0 is now *exactly* 0, what was above 1 exactly 1, and
# between them there is a slope. This is the *hard concrete* distribution.

# %%
hc = keras_l0.HardConcrete()  # with the paper's beta, gamma and zeta
print(hc)


def sample(log_alpha, u):
    """A gate for each u."""
    return np.array(hc.sample(np.float32(log_alpha), u.astype("float32")))


u = np.linspace(0.0005, 0.9995, 1000)
logits = (np.log(u) - np.log(1 - u)) / hc.beta  # for a log_alpha of 0
smooth = 1 / (1 + np.exp(-logits))
stretched = smooth * (hc.zeta - hc.gamma) + hc.gamma

figure, axes = plt.subplots(1, 3, figsize=(10, 2.6), sharey=True, layout="constrained")
for ax, values, title in zip(
    axes,
    (smooth, stretched, sample(0, u)),
    ("a smooth coin", "stretched", "clipped: the gate"),
    strict=True,
):
    ax.plot(u, values)
    ax.axhline(0, color="0.7", linewidth=0.8)
    ax.axhline(1, color="0.7", linewidth=0.8)
    ax.set_title(title)
    ax.set_xlabel("random number u")
plt.show()

# %% [markdown]
# ## 2. The gate
#
# One number is trained for each gate, `log_alpha`. Below, each picture is the gate for
# another one. The bars at 0 and at 1 are the shares of draws that are *exactly* closed
# and *exactly* open; the line between them is how the rest is spread.


# %%
def draw_gate(ax, log_alpha):
    z = sample(log_alpha, u)
    between = z[(z > 0) & (z < 1)]
    ax.bar([0, 1], [np.mean(z == 0), np.mean(z == 1)], width=0.06)
    counts, edges = np.histogram(between, bins=20, range=(0, 1))
    ax.step(edges[:-1], counts / len(z), where="post", color="C1")
    test = float(hc.deterministic(np.float32(log_alpha)))
    ax.plot(test, 0, "k^", clip_on=False, markersize=9)
    ax.set_ylim(0, 1)
    ax.set_xlim(-0.06, 1.06)
    open_ = float(hc.prob_open(np.float32(log_alpha)))
    ax.set_title(f"log_alpha {log_alpha:+.1f}: P(open) = {open_:.2f}", size=9)


figure, axes = plt.subplots(2, 3, figsize=(10, 4.4), sharey=True, layout="constrained")
for ax, log_alpha in zip(axes.flat, (-5, -2.5, -1.6, 0, 2, 5), strict=True):
    draw_gate(ax, log_alpha)
plt.show()

# %% [markdown]
# The black triangle is the gate **after** training. Then nothing is random any more:
# the gate is one number, the paper's equation 13. Where it is 0 the unit can go.
#
# If ipywidgets is installed, as on Colab, here is the gate with a slider.

# %%
try:
    import ipywidgets
except ImportError:
    print("pip install ipywidgets, for a slider")
else:

    def show(log_alpha=0.0):
        figure, ax = plt.subplots(figsize=(5, 3))
        draw_gate(ax, log_alpha)
        plt.show()

    ipywidgets.interact(show, log_alpha=(-6.0, 6.0, 0.1))

# %% [markdown]
# P(open), and the gate after training, as functions of `log_alpha`:

# %%
log_alpha = np.linspace(-6, 6, 200).astype("float32")
figure, ax = plt.subplots(figsize=(6, 3))
ax.plot(log_alpha, hc.prob_open(log_alpha), label="P(open) in training")
ax.plot(log_alpha, hc.deterministic(log_alpha), label="the gate after training")
closes = np.log(-hc.gamma / hc.zeta)  # where the second one reaches 0
ax.axvline(closes, color="0.7", linestyle=":")
ax.set_xlabel("log_alpha")
ax.legend()
plt.show()
print(f"closed after training for log_alpha <= {closes:.3f},")
print(f"where P(open) is {float(hc.prob_open(np.float32(closes))):.3f}")

# %% [markdown]
# The two curves cross zero at different places: a gate that is open in 31 % of all
# draws is closed for good after training. So the expected size in training, and the
# size that you ship, are two numbers. keras-l0 never mixes them up, and shows the
# second one in training.
#
# The paper names a starting point by its *drop rate*. This is where such gates start:

# %%
print("drop rate   P(open)   gate after training")
for rate in (0.5, 0.3, 0.2, 0.05):
    start = np.float32(np.log(1 - rate) - np.log(rate))
    p, z = float(hc.prob_open(start)), float(hc.deterministic(start))
    print(f"{rate:9.2f}{p:10.3f}{z:12.2f}")

# %% [markdown]
# ## 3. How a gate decides
#
# Every gate adds its price times P(open) to the loss. Say that a unit lowers the loss
# by `use` while it is there, and that a gate of z gives away `(1 - z) ** 2` of that.
# What log_alpha is best? The picture shows price and lost use together, for units of
# different use and a price of 1. Training walks downhill.

# %%
figure, ax = plt.subplots(figsize=(6, 3.2))
spread = np.linspace(0.0005, 0.9995, 400)[:, None]
draws = sample(log_alpha, spread)  # one row for each u
for use in (0.3, 0.8, 1.2, 3.0):
    total = hc.prob_open(log_alpha) + use * np.mean((1 - draws) ** 2, axis=0)
    ax.plot(log_alpha, total, label=f"use {use}")
ax.set_xlabel("log_alpha")
ax.set_ylabel("price + lost use")
ax.legend()
plt.show()

# %% [markdown]
# A use of 0.3 is well below the price: from everywhere it goes downhill to the left,
# and the gate closes. A use of 3 is well above it: the gate opens. For those near the
# price there is a hill in the middle, and the gate stays on the side where it is. Gates
# start open. So a unit leaves if it is worth *clearly* less than it costs.
#
# Nothing pulls on the weights of a unit that stays, as L1 would. And the curves are
# flat at both ends: a gate that is firmly open or closed hardly moves. This is why
# gates get a larger learning rate than weights in keras-l0 (16 times, by default).
#
# ## 4. What should a parameter cost?
#
# Statisticians have asked that for fifty years, in another form: of two models, which
# one is better, if one has more parameters and a better fit? For N examples, whose mean
# loss (negative log likelihood) is L, and k parameters:
#
# - **AIC**, Akaike's criterion, prefers the smaller `N * L + k`,
# - **BIC**, the Bayesian one, the smaller `N * L + k * log(N) / 2`.
#
# Divide by N, for Keras' losses are means, and you have prices of one parameter. The
# paper's own choice in its experiments, λ = 0.1 for a network, is a tenth of AIC.

# %%
N = 60_000
prices = {
    "paper": 0.1 / N,
    "AIC": keras_l0.regularizers.L0.aic(N).l0,
    "BIC": keras_l0.regularizers.L0.bic(N).l0,
}
for name, value in prices.items():
    print(f"{name:6} l0 = {float(value):.2e}")

# %% [markdown]
# Such a price is a good start, and no more. The criteria were made for models with few
# parameters and one best fit, and a network is neither. And a gate pays for all
# parameters that it switches.
#
# ## 5. LeNet-300-100
#
# The paper's first experiment: MNIST, two hidden layers of 300 and 100 units, gates on
# all 784 pixels and on all units. Keras downloads MNIST;
# `KERAS_L0_MNIST=/path/to/mnist.npz` in the environment spares you that. (Automatic
# tests take the digits of scikit-learn, 8 by 8 pixels, and a smaller network.)


# %%
def load():
    if SMALL:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return (x[:1200] / 16, y[:1200]), (x[1200:] / 16, y[1200:])
    if path := os.environ.get("KERAS_L0_MNIST"):
        with np.load(path) as file:
            parts = [(file[f"x_{p}"], file[f"y_{p}"]) for p in ("train", "test")]
    else:
        parts = keras.datasets.mnist.load_data()
    return [(x.reshape(len(x), -1) / 255, y) for x, y in parts]


(x_train, y_train), (x_test, y_test) = load()
side = int(np.sqrt(x_train.shape[1]))
units = (30, 10) if SMALL else (300, 100)
epochs = 1 if SMALL else 10
print(f"{len(x_train):,} images of {side} x {side}")


# %%
def lenet(l0):
    return keras.Sequential(
        [
            keras.Input((side * side,), name="image"),
            keras_l0.layers.L0Gate(l0=l0, cost=units[0], name="pixels"),
            keras_l0.layers.L0Dense(units[0], activation="relu", l0=l0, name="first"),
            keras_l0.layers.L0Dense(units[1], activation="relu", l0=l0, name="second"),
            keras.layers.Dense(10, name="class"),
        ]
    )


def train(model):
    steps = -(-len(x_train) // 256)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(2e-3, epochs * steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=min(20, steps),
    )
    model.fit(x_train, y_train, batch_size=256, epochs=epochs, verbose=0)


# %% [markdown]
# A pixel's gate switches its 300 weights into the first layer: `cost=300`. A unit's
# gate knows its own weights. We train with no price at all, and then with each of the
# three.
#
# To leave out pixels the stripped network has to select the others; `inputs="gather"`
# says so.

# %%
models = {}
print(f"{'price':8}{'architecture':>15}{'parameters':>12}{'test error':>12}")
for name, l0 in {"none": 0.0, **prices}.items():
    keras.utils.set_random_seed(0)
    models[name] = model = lenet(float(l0))
    train(model)
    small = keras_l0.strip(model, inputs="gather")
    gates = keras_l0.gates(model)
    kept = [int((np.array(gate.test_gates) > 0).sum()) for gate in gates]
    error = np.mean(np.argmax(small(x_test), axis=-1) != y_test)
    shape = "-".join(map(str, kept))
    print(f"{name:8}{shape:>15}{small.count_params():12,}{error:12.2%}")

# %% [markdown]
# When this page was written, one run each: with no price 266,610 parameters and an
# error of 1.68 %; with the paper's 102,352 and 1.66 %: what has gone was of no use. AIC
# left 9,606 parameters at 3.70 %, BIC 904 at 22 %, which is no bargain any more. The
# paper's price is the gentle one of the three. None of them knows what an error is
# worth to *you*.

# %% [markdown]
# ### Which pixels are read?
#
# Each picture is the gates of the pixels: how likely each is to be open. Nobody told
# the network that digits are in the middle.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for ax, name in zip(axes, prices, strict=True):
    pixels = keras_l0.gates(models[name])[0]
    image = np.array(pixels.prob_open).reshape(side, side)
    ax.imshow(image, vmin=0, vmax=1, cmap="viridis")
    ax.set_title(name)
    ax.axis("off")
plt.show()

# %% [markdown]
# The gates of one network, in falling order; those in the shaded part are closed. (This
# picture is a call: `keras_l0.plot_gates(model)`.)

# %%
keras_l0.plot_gates(models["AIC"])

# %% [markdown]
# ### What the paper reports
#
# | | architecture | test error |
# |---|---|---|
# | one price, λ = 0.1 | 219-214-100 | 1.4 % |
# | a price for each layer | 266-88-33 | 1.8 % |
#
# With a price for each layer and more epochs, keras-l0 comes to about 198-70-64 at 1.68
# %, the mean of three seeds, and LeNet-5 to 4,578 of 431,080 parameters at 0.92 %,
# where what reads closed units is counted without them. [All runs and
# settings](https://github.com/keras-l0/keras-l0/blob/main/benchmarks/results-mnist.md)
# are in the repository, and `python benchmarks/mnist.py` makes them again.
#
# ## Now you
#
# - `keras_l0.HardConcrete(beta=0.2)`: what does a colder gate look like? Which
#   gradients would it get?
# - Give the pixels another price than the units. Pixels cost nothing on a device, if
#   all of them are there anyway.
# - One price for all layers charges every parameter the same. What if a small layer
#   does most of the work? [Tutorial 1](01_ten_minutes.ipynb) prices by work, [tutorial
#   2](02_a_model_you_have.ipynb) has budgets.
