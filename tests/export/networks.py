"""Small networks to export, and a way to run the files."""

import keras
import numpy as np
from keras import layers


def awkward(model, seed=0):
    """Weights that hide nothing: no zero biases, statistics far from 0 and 1."""
    rng = np.random.default_rng(seed)
    draws = {
        "moving_variance": lambda shape: rng.uniform(0.3, 4, shape),
        "gamma": lambda shape: rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1]),
        "kernel": lambda shape: rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])),
    }
    for variable in model.weights:
        draw = draws.get(variable.name, lambda shape: rng.normal(size=shape) * 2)
        variable.assign(draw(variable.shape))
    return model


def conv_net():
    return awkward(
        keras.Sequential(
            [
                keras.Input((16, 16, 2), name="image"),
                layers.Conv2D(4, 3),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.MaxPooling2D(),
                layers.Conv2D(6, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Flatten(),
                layers.Dense(7, activation="relu"),
                layers.Dense(3, activation="softmax", name="scores"),
            ]
        )
    )


def small(name="small"):
    x = keras.Input((4,), name="x")
    return awkward(keras.Model(x, layers.Dense(3, name="y")(x), name=name))


def two_by_two(structure):
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    joined = layers.Concatenate()([left, right])
    # Alphabetical and graph order differ, and the shapes do not tell them apart.
    first = layers.Dense(2, name="z_first")(joined)
    second = layers.Dense(2, name="a_second")(layers.Dense(5)(joined))
    if structure == "list":
        return awkward(keras.Model([left, right], [first, second]))
    inputs = {"right": right, "left": left}
    return awkward(keras.Model(inputs, {"one": first, "another": second}))


def run(path, **inputs):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    examples = [
        runner(**{name: array[i : i + 1] for name, array in inputs.items()})
        for i in range(len(next(iter(inputs.values()))))
    ]
    return {
        name: np.concatenate([example[name] for example in examples])
        for name in examples[0]
    }


def normal(*shape):
    return np.random.default_rng(7).normal(size=shape).astype("float32")
