"""Gates put into a plain model, and weights under which its outputs still vary."""

import keras
import numpy as np
from adversary import batch, is_alive, locations, run, variation

import keras_l0
from keras_l0.analysis.passes import Analysis
from keras_l0.analysis.tracing import trace
from keras_l0.layers import L0Gate

# By how much inputs are moved, and how much farther outputs may move, as shares of how
# far apart they lie: rounding in float64 is then far below 1e-9.
NUDGE, SENSITIVE = 1e-8, 1e3


def gated(model, shared=False):
    """A copy of a plain model, with new weights and gates behind layers with kernels.

    The gate of a layer sits behind what follows it channel by channel, such as
    BatchNormalization and an activation. Output layers get none.

    Args:
        model: A functional model.
        shared: Channels that are tied, such as those of the branches that meet in an
            Add, are closed by one gate that is called on each of the branches.
    """
    analysis = Analysis(model)
    graph, gates, copies = analysis.graph, {}, {}
    seats = _seats(analysis)
    inputs = [graph.input_layer(i).output for i in range(len(graph.inputs))]
    made = {t.index: x for t, x in zip(graph.inputs, inputs, strict=True)}
    for node in graph.nodes:
        kind = node.operation
        if isinstance(kind, keras.Layer):
            if id(kind) not in copies:
                copies[id(kind)] = type(kind).from_config(kind.get_config())
            kind = copies[id(kind)]
        results = node.call(kind, [made[t.index] for t in node.inputs])
        for tensor, x in zip(node.outputs, keras.tree.flatten(results), strict=True):
            if tensor.index in seats:
                axis, atoms = seats[tensor.index]
                key = (axis, atoms.tobytes()) if shared else tensor.index
                x = gates.setdefault(key, L0Gate(axis))(x)
            made[tensor.index] = x
    return graph.rebuild(inputs, [made[t.index] for t in graph.outputs])


def _seats(analysis):
    """Where gates go: tensor number -> the channels' axis and the decisions on them."""
    readers = {t.index: s for s in analysis.steps for t in s.node.inputs}
    sizes = analysis.evaluate([]).sizes
    kernels = {id(s) for s, z in zip(analysis.steps, sizes, strict=True) if z.macs}
    ends = np.concatenate([analysis.atoms(slot) for slot in analysis.output_slots])
    seats = {}
    for step in analysis.steps:
        atoms = analysis.atoms(step.outs[0])
        if id(step) not in kernels or np.isin(atoms, ends).any():
            continue
        (tensor,) = step.node.outputs
        while tensor.consumers == 1 and tensor.index in readers:
            reader = readers[tensor.index]
            if (
                id(reader) in kernels
                or len(reader.ins) != 1
                or reader.rule.whole
                or reader.node.outputs[0].shape != tensor.shape
                or not np.array_equal(analysis.atoms(reader.outs[0]), atoms)
            ):
                break
            (tensor,) = reader.node.outputs
        seats[tensor.index] = analysis.channels[step.outs[0]].axis, atoms
    return seats


def images(model, size, seed=0):
    """A random batch in the range of pixels, which some models rescale themselves."""
    return keras.tree.map_structure(lambda x: 128 * x, batch(model, size, seed))


def enliven(model, seed=0, examples=32):
    """Sets adversarial weights under which signals pass through any depth.

    Of every gate a third to two thirds of the units close. Kernels fit the size of
    what comes in; statistics of BatchNormalization are those of a batch, moved. Deep
    models may then be chaotic: their rounding hides everything, so they get weights
    under which activations are closer to linear.
    """
    for attempt in range(10):
        rng = np.random.default_rng([seed, attempt])
        for gate in keras_l0.gates(model):
            gate.assign_log_alpha(locations(rng, gate.count).reshape(gate.raw.shape))
        _calibrate(model, rng, images(model, examples, attempt), 0.4**attempt)
        x = images(model, 8, seed + 100)
        moved = keras.tree.map_structure(lambda x: x * (1 + NUDGE), x)
        outputs = run(model, x)
        pairs = zip(outputs, run(model, moved), strict=True)
        if all(is_alive(y) and np.isfinite(y).all() for y in outputs) and all(
            np.abs(a - b).max() <= SENSITIVE * NUDGE * variation(a) for a, b in pairs
        ):
            return model
    raise AssertionError(f"no weights make the outputs of {model.name!r} vary")


def _calibrate(model, rng, inputs, gain):
    """Runs the model call by call and sets the weights of each from what it gets."""
    graph = trace(model)
    inputs = map(keras.ops.convert_to_tensor, keras.tree.flatten(inputs))
    left = {t.index: t.consumers for t in graph.tensors}
    made = {t.index: x for t, x in zip(graph.inputs, inputs, strict=True)}
    for node in graph.nodes:
        xs = [made[t.index] for t in node.inputs]
        for weight in getattr(node.operation, "trainable_weights", ()):
            if weight.name != "raw_log_alpha":
                weight.assign(_drawn(rng, node.operation, weight, xs[0], gain))
        if isinstance(node.operation, keras.layers.BatchNormalization):
            _set_statistics(rng, node.operation, xs[0])
        results = keras.tree.flatten(node.call(node.operation, xs))
        made |= {t.index: y for t, y in zip(node.outputs, results, strict=True)}
        for tensor in node.inputs:
            left[tensor.index] -= 1
            if not left[tensor.index]:
                del made[tensor.index]


def _drawn(rng, layer, weight, x, gain):
    shape = tuple(weight.shape)
    if "kernel" in weight.name:
        apart = isinstance(layer, keras.layers.DepthwiseConv2D)
        apart |= "depthwise" in weight.name
        fan = np.prod(shape[: -2 if apart else -1])
        size = float(keras.ops.sqrt(keras.ops.mean(keras.ops.square(x)))) or 1.0
        size = 1.0 if weight.name == "pointwise_kernel" else size
        return rng.normal(size=shape) * 1.5 / np.sqrt(fan) / size
    if weight.name == "gamma":
        return gain * rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
    return rng.normal(size=shape) * 0.3


def _set_statistics(rng, layer, x):
    axes = [a for a in range(len(x.shape)) if a != layer.axis % len(x.shape)]
    mean, variance = map(keras.ops.convert_to_numpy, keras.ops.moments(x, axes))
    n = len(mean)
    deviation = np.sqrt(variance)
    layer.moving_mean.assign(mean + rng.choice([-0.2, 0.2], n) * deviation)
    # Of what does not vary any variance will do.
    variance = np.where(variance > 0, variance, rng.uniform(0.5, 2, n))
    layer.moving_variance.assign(variance * rng.uniform(0.6, 1.6, n))
