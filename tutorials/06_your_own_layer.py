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
# # Your own layer
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-l0/keras-l0/blob/main/tutorials/06_your_own_layer.ipynb)
#
# keras-l0 knows the layers of Keras. It does not know yours, and it does not guess: a
# layer without a rule is a **barrier**. Such a model strips, and correctly, but the
# units in front of the barrier stay. If your layer treats every channel on its own, a
# rule of a few lines changes that. Here we
#
# 1. write a layer: an activation with two learned numbers for each channel,
# 2. see it as a barrier in the plan,
# 3. write a rule for it, a wrong one first, and see what happens then,
# 4. train, strip, save and load.
#
# [The first tutorial](01_ten_minutes.ipynb) explains gates. You should have written a
# Keras layer before. It takes about a minute on a laptop.

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

# %% [markdown]
# ## 1. The layer
#
# `Bend` is an activation: `offset + x * sigmoid(slope * x)`, the curve that is called
# swish, but every channel learns how sharply it bends, and how high it starts. This is
# an ordinary Keras layer; there is nothing of keras-l0 in it.
#
# The decorator is for saving: it lets Keras find the class again when it loads a model.


# %%
@keras.saving.register_keras_serializable(package="tutorial")
class Bend(keras.layers.Layer):
    """``offset + x * sigmoid(slope * x)``, two numbers for each channel."""

    def build(self, input_shape):
        channels = (input_shape[-1],)
        self.slope = self.add_weight(shape=channels, initializer="ones", name="slope")
        self.offset = self.add_weight(
            shape=channels, initializer="zeros", name="offset"
        )

    def call(self, x):
        return self.offset + x * keras.ops.sigmoid(self.slope * x)


def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(24, 3, name="conv1"),
            Bend(name="bend1"),
            keras.layers.Conv2D(48, 3, name="conv2"),
            Bend(name="bend2"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, name="hidden"),
            Bend(name="bend3"),
            keras.layers.Dense(10, activation="softmax", name="class"),
        ],
        name="bent",
    )


keras.utils.set_random_seed(0)
model = network()

# %% [markdown]
# ## 2. A barrier
#
# Where could gates go?

# %%
print(keras_l0.plan_gates(model))

# %% [markdown]
# Nowhere. `Bend` may compute anything, for all that keras-l0 knows: a mean over all
# channels, say, which would be another number if one of them left. So all channels that
# enter it have to stay.
#
# The plan of a model with gates says the same. Let us put one in by hand, and close
# half of it.

# %%
gate = keras_l0.layers.L0Gate(name="gate")
x = model.get_layer("bend3").output
outputs = model.get_layer("class")(gate(x))
by_hand = keras.Model(model.inputs, outputs, name="by_hand")
gate.assign_log_alpha([9.0] * 64 + [-9.0] * 64)
print(keras_l0.plan(by_hand))

# %% [markdown]
# Half of the 128 channels are 0 behind the gate, and nothing goes. `hidden` keeps its
# units, for all of them enter the barrier, and `class` keeps its inputs. Below the
# table the plan names every barrier, and why it is one. The parameters that it "holds
# back" are those behind it. What a rule would free in front of it, nobody can tell
# without one.

# %% [markdown]
# ## 3. The rule
#
# What does `Bend` do to channels?
#
# - Channel 3 of the output depends on channel 3 of the input, and on nothing else. It
#   is an *elementwise* function. For these there is a base class, `ElementwiseRule`,
#   that asks for the **function**, on one number for each channel.
# - It has weights: two for each channel (**size**).
# - Without some of its channels it is the same layer with shorter weights
#   (**rewrite**).
#
# Let us begin with a rule that is wrong: it forgets that `Bend` has weights.

# %%
from keras_l0.analysis.rules.elementwise import ElementwiseRule


@keras_l0.register_strip_rule(Bend)
class Forgetful(ElementwiseRule):
    """Wrong: says nothing of the weights."""

    def function(self, values):
        slope, offset = (np.float64(w) for w in self.layer.get_weights())
        return offset + values / (1 + np.exp(-slope * values))


try:
    keras_l0.strip(by_hand)
except RuntimeError as error:
    print(error)

# %% [markdown]
# The message names the layer and the rule. Whatever is wrong with a rule, you get no
# wrong model from it: `strip` compares sizes with the plan, and runs both models on a
# batch, before it hands over the new one.
#
# Now the right rule. It replaces the other.

# %%
from keras_l0.analysis.facts import Size
from keras_l0.analysis.logic import count


@keras_l0.register_strip_rule(Bend)
class BendRule(ElementwiseRule):
    """``offset + x * sigmoid(slope * x)``, two numbers for each channel."""

    def function(self, values):
        slope, offset = (np.float64(w) for w in self.layer.get_weights())
        return offset + values / (1 + np.exp(-slope * values))

    def size(self, ins, keep_in, keep):
        return Size(params=2 * count(keep[0]), macs=0.0)

    def rewrite(self, site):
        x = site.rescale(0)
        weights = [w[site.keep[0]] for w in self.layer.get_weights()]
        layer = site.build(Bend, self.layer.get_config(), weights)
        return [(self.node.call(layer, [x.tensor]), x.scale)]


# %% [markdown]
# Line by line:
#
# - `function` gets the value of each channel that is constant, because its gate is
#   closed, and says what the layer makes of it. For a closed channel that is not 0 but
#   the offset. Strip adds it to the bias of the next layer. You need not care how.
# - `count(keep[0])` is how many channels of the first output are kept. It is a function
#   of keras-l0 since it also has to work on probabilities, in training.
# - `site.keep[0]` says which channels are kept. The weights are cut accordingly.
# - `site.rescale(0)` is the input. An open gate may be .8 instead of 1. Strip
#   multiplies such factors into neighbouring weights where it can, and `rescale` says:
#   not past this layer, which is bent. (Of a layer with f(2x) = 2 f(x), like ReLU, you
#   would say `passes_scale = True`, and take `site.ins[0]`.)

# %%
print(keras_l0.plan(by_hand))

# %% [markdown]
# Now `hidden`, `bend3` and `class` lose what the gate has closed, and no barrier is
# left.

# %% [markdown]
# ### Test it
#
# As long as the layer is new, slopes are 1 and offsets 0, and a rule that mixes them up
# would pass. So a test gives it random weights, and random gates, and puts both models
# on the same numbers. In double precision hardly any rounding hides an error.


# %%
def largest_error(seed):
    rng = np.random.default_rng(seed)
    gated = keras_l0.add_gates(network())
    gated.set_weights([rng.normal(0, 0.3, w.shape) for w in gated.weights])
    for gate in keras_l0.gates(gated):
        gate.assign_log_alpha(rng.choice([-9.0, 1.0, 9.0], gate.count))
    stripped = keras_l0.strip(gated)
    assert stripped.count_params() < gated.count_params() * 0.8
    x = rng.normal(size=(8, 8, 8, 1))
    return np.abs(gated(x) - stripped(x)).max()


def precision(name):
    keras.config.set_floatx(name)
    keras.config.set_dtype_policy(name)


precision("float64")
errors = [largest_error(seed) for seed in range(1 if SMALL else 5)]
precision("float32")
print(f"largest error: {max(errors):.0e}")
assert max(errors) < 1e-9

# %% [markdown]
# ## 4. Train and strip
#
# With the rule, `add_gates` knows where to put gates: behind `Bend`, where a closed
# gate leaves 0.

# %%
print(keras_l0.plan_gates(model))


# %%
def train(model):
    steps = -(-len(x_train) // 64)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * steps)
        ),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps,
    )
    model.fit(x_train, y_train, batch_size=64, epochs=EPOCHS, verbose=0)


def accuracy(model):
    return np.mean(np.argmax(model(x_test), axis=-1) == y_test)


keras.utils.set_random_seed(0)
dense = network()
train(dense)

# A filter works at many positions, so its parameters cost more.
keras.utils.set_random_seed(0)
prices = {"conv*": 2e-5, "hidden": 5e-6}
gated = keras_l0.add_gates(network(), l0=prices, seed=0)
train(gated)
small = keras_l0.strip(gated)

print(f"{'':10}{'parameters':>12}{'MACs':>10}{'accuracy':>10}")
for name, net in (("dense", dense), ("gated", gated), ("stripped", small)):
    size = keras_l0.profile(net).dense
    print(f"{name:10}{size.params:12,}{size.macs:10,}{accuracy(net):10.1%}")

# %% [markdown]
# The layers in the stripped model are built-in ones, and yours, with the weights of the
# channels that are left. Here are the curves of `bend3`, before and after.

# %%
x = np.linspace(-3, 2)[:, None]
figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
for ax, net, title in zip(axes, (gated, small), ("gated", "stripped"), strict=True):
    bend = net.get_layer("bend3")
    channels = bend.slope.shape[0]
    ax.plot(x, bend(x.repeat(channels, axis=1)), linewidth=0.8)
    ax.set_title(f"{title}: {channels} channels")
plt.show()

# %% [markdown]
# ## Save and load
#
# Thanks to the decorator on the class, both models save and load as any other. The
# stripped one needs your class, and no keras-l0. The rule is not saved: it is code, and
# belongs beside the layer, in the same module.

# %%
small.save("bent.keras")
loaded = keras.models.load_model("bent.keras")
print(f"loaded: {accuracy(loaded):.1%}")
assert np.allclose(loaded(x_test), small(x_test))

# %% [markdown]
# ## Now you
#
# - What if your layer reads one channel to change another, as LayerNormalization does?
#   Then it is a barrier by nature, and you need no rule. If you want the plan to say
#   why, raise `keras_l0.analysis.rules.Barrier("why")` in `connect`.
# - A rule for *some* settings of a layer: do the same for the others.
# - Look at a rule that comes near to what you need: those of Keras' layers are in
#   `keras_l0/analysis/rules/`, a module for each family, and
#   [CONTRIBUTING](https://github.com/keras-l0/keras-l0/blob/main/CONTRIBUTING.md) has
#   the five steps to a rule for a built-in layer.
