"""Weights that hide nothing, and how outputs are compared."""

import contextlib

import keras
import numpy as np

import keras_l0
from keras_l0.analysis.cost import Cost

# Correctness is decided in float64: rounding cannot hide a mistake there. On other
# backends Keras' float64 is in part float32: BatchNormalization on JAX is off by 1e-7.
PRECISION = "float64" if keras.backend.backend() == "tensorflow" else "float32"
# How far outputs may be off, as a share of how far they move from input to input.
ALLOWED = {"float64": 1e-9, "float32": 1e-5}

# Outputs vary over inputs by at least this share of their scale.
ALIVE = 0.05


@contextlib.contextmanager
def policy(name):
    """Layers made inside compute in ``name``; inputs are float64 or float32."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(name)
    keras.config.set_floatx("float64" if name == "float64" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])


def batch(model, size=48, seed=0):
    """A random batch in the structure of the model's inputs, in float64."""
    rng = np.random.default_rng(seed)

    def draw(tensor):
        shape = (size, *(d or 5 for d in tensor.shape[1:]))
        if "int" in keras.backend.standardize_dtype(tensor.dtype):
            return rng.integers(0, 4, shape)
        return rng.normal(size=shape)

    if isinstance(model, keras.Sequential):
        return draw(model.inputs[0])
    return keras.tree.map_structure(draw, model.input)


def run(model, inputs):
    """Test-time outputs, flat, float64."""
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    result = keras.tree.flatten(model(tensors, training=False))
    return [
        np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(y, "float64")))
        for y in result
    ]


def variation(output):
    """How far an output moves from one input to another."""
    return float(np.ptp(output, axis=0).max(initial=0.0))


def is_alive(output):
    return variation(output) >= ALIVE * np.abs(output).max(initial=0.0) > 0


def harden(model, dead=(), alive=True, seed=0):
    """Sets adversarial weights: the outputs still vary, and nothing is 0 or 1.

    Of every gate a third to two thirds of its units close, the rest is partly or
    fully open. All gates of the layers named in ``dead`` close.
    """
    for attempt in range(20):
        _draw(model, np.random.default_rng([seed, attempt]), dead)
        outputs = run(model, batch(model))
        if not alive or all(is_alive(y) and np.isfinite(y).all() for y in outputs):
            return model
    raise AssertionError(f"no weights make the outputs of {model.name!r} vary")


def _draw(model, rng, dead):
    draws = {
        "kernel": lambda s: rng.normal(size=s) * 1.5 / np.sqrt(np.prod(s[:-1])),
        "gamma": lambda s: rng.uniform(0.5, 1.5, s) * rng.choice([-1, 1], s),
        "moving_variance": lambda s: rng.uniform(0.3, 3, s),
        "variance": lambda s: rng.uniform(0.3, 3, s),
        "moving_mean": lambda s: rng.normal(size=s) * 0.7 + 0.3,
    }
    for weight in model.weights:
        if weight.name != "raw_log_alpha":
            draw = draws.get(weight.name, lambda s: rng.normal(size=s))
            weight.assign(draw(weight.shape))
    for layer in model._flatten_layers():
        # What Normalization computes with is derived from its weights.
        getattr(layer, "finalize_state", lambda: None)()
    for gate in keras_l0.gates(model):
        gate.assign_log_alpha(
            np.full(gate.raw.shape, -9.0)
            if owner(gate) in dead
            else locations(rng, gate.count).reshape(gate.raw.shape)
        )


def owner(gate):
    """The name of the layer that a gate belongs to."""
    return gate.raw.path.split("/")[-2 if gate.name != "gate" else -3]


def locations(rng, count):
    """log_alpha of gates, some closed, some between, some open, in random order."""
    closed = round(count * rng.uniform(1 / 3, 2 / 3))
    partly = rng.uniform(-1.8, 1.8, (count - closed + 1) // 2)
    values = np.full(count, 9.0)
    values[:closed] = -9.0
    values[closed : closed + len(partly)] = partly
    return rng.permutation(values)


def swapped(array):
    """The first two entries of the last axis exchanged."""
    order = np.arange(array.shape[-1])
    order[:2] = order[1::-1]
    return array[..., order]


def narrowed(model, inputs, kept):
    """The batch with the features that a model stripped under "narrow" takes."""
    names = [t.name for t in model.inputs]
    flat = keras.tree.flatten(inputs)
    cut = [
        x[..., kept[n]] if n in kept else x for n, x in zip(names, flat, strict=True)
    ]
    return keras.tree.pack_sequence_as(inputs, cut)


WITH_KERNELS = (
    keras.layers.Dense,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
COUNTED = (*WITH_KERNELS, keras.layers.BatchNormalization)


def macs(model):
    """Multiply-accumulates of a plain model's calls of `WITH_KERNELS` per example."""
    total = 0
    for layer in model.layers:
        if not isinstance(layer, WITH_KERNELS):
            continue
        kernels = [w for w in layer.weights if "kernel" in w.name]
        for node in layer._inbound_nodes:
            shape = list(node.outputs[0].shape[1:])
            first = getattr(layer, "data_format", None) == "channels_first"
            shape.pop(0 if first else -1)
            positions = int(np.prod([d or 1 for d in shape]))
            total += positions * sum(int(np.prod(k.shape)) for k in kernels)
    return total


def check(model, mode="keep", allowed=1e-9):
    """Strips a model: its outputs stay, and it is as large as plan and cost say."""
    plan = keras_l0.plan(model, inputs=mode)
    stripped = keras_l0.strip(model, inputs=mode, verify=False)
    assert all(np.isfinite(w).all() for w in stripped.get_weights())
    inputs = batch(model)
    cut = narrowed(model, inputs, plan.kept_inputs) if mode == "narrow" else inputs
    for old, new in zip(run(model, inputs), run(stripped, cut), strict=True):
        assert old.shape == new.shape
        # Constant outputs have no variation to compare with.
        scale = max(variation(old), 1e-3 * np.abs(old).max(), 1e-6)
        assert np.abs(old - new).max() <= allowed * scale
    assert stripped.count_params() == plan.after.params
    corner = [np.asarray(gate.test_gates).ravel() > 0 for gate in keras_l0.gates(model)]
    size = Cost(model, inputs=mode)([z.astype("float64") for z in corner])
    assert float(size.params) == stripped.count_params()
    # Of what a barrier multiplies nothing is known.
    barriers = {barrier.name for barrier in plan.barriers}
    weighty = [o for o in stripped.layers if o.weights]
    if all(type(o) in COUNTED and o.name not in barriers for o in weighty):
        assert float(size.macs) == macs(stripped)
    assert not keras_l0.gates(stripped)
    return stripped
