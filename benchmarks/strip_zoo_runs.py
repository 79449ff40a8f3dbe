"""The runs of `strip_zoo.py`: one model proved, or counted under many gates."""

from __future__ import annotations

import ctypes
import gc
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# The models are gated and weighed as in the tests of strip.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "strip"))

import keras
import numpy as np
from adversary import ALIVE, macs, policy, run, swapped, variation
from families import FAMILIES
from gating import enliven, gated, images
from mct_rule import reachable_share

import keras_l0
from keras_l0.analysis.cost import Cost
from keras_l0.analysis.precision import in_float32
from keras_l0.analysis.rounding import outputs, tolerances
from keras_l0.analysis.tracing import trace
from keras_l0.layers import L0Gate

# Keras clones a graph by descending call by call, and gates make deep models deeper.
sys.setrecursionlimit(10_000)

# The smallest input that each takes; all others take 32 x 32.
SIZES = {"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75}
# Further widths: a name, and what to build it with.
WIDTHS: dict[str, dict[str, Any]] = {
    "MobileNet alpha=0.25": {"alpha": 0.25},
    "MobileNet depth_multiplier=2": {"depth_multiplier": 2},
    "MobileNetV2 alpha=0.35": {"alpha": 0.35},
    "MobileNetV2 alpha=1.4": {"alpha": 1.4},
    "MobileNetV3Small minimalistic": {"minimalistic": True},
    "MobileNetV3Large alpha=0.75": {"alpha": 0.75},
}
MODELS = [
    name
    for name, value in vars(keras.applications).items()
    if callable(value) and name[0].isupper()
]


def build(name: str) -> keras.Model:
    """The plain model with logits as its output, of ten classes unless it is small."""
    if name in FAMILIES:
        return FAMILIES[name]()
    base = name.split()[0]
    size = SIZES.get(base, 32)
    return getattr(keras.applications, base)(
        weights=None,
        input_shape=(size, size, 3),
        classes=10,
        classifier_activation=None,
        **WIDTHS.get(name, {}),
    )


def prove(
    make: Callable[[], keras.Model], seed: int, repeats: int = 1
) -> dict[str, Any]:
    """Gates, strips and compares one model; what does not hold is in "failures"."""
    shared = seed % 2 == 1
    with policy("float64"):
        plain = make()
        params, peer = plain.count_params(), reachable_share(trace(plain))
        model = enliven(gated(plain, shared), seed)
    del plain
    plan = keras_l0.plan(model)
    stripped = keras_l0.strip(model, verify=False)
    x = images(model, 8, seed + 1)
    (old,), (new,) = run(model, x), run(stripped, x)
    moved = variation(old)
    rng, wrong = np.random.default_rng(seed), new
    # Units that a barrier holds may be worth nothing further on: swap others as well.
    while np.abs(wrong - new).max() <= 1e-12 * moved:
        mutated = mutate(stripped, rng)
        (wrong,) = run(stripped, x)
    record = {
        "gates": len(keras_l0.gates(model)),
        "params": params,
        "params_stripped": stripped.count_params(),
        "reachable": plan.reachable,
        "reachable_mct": peer,
        "barriers": sorted({f"{b.kind}: {b.reason}" for b in plan.barriers}),
        "macs": plan.before.macs,
        "macs_stripped": macs(stripped),
        "streams": [[g.units, g.kept] for g in plan.groups],
        "variation": moved / float(np.abs(old).max()),
        "difference": float(np.abs(old - new).max()) / moved,
        "mutant": float(np.abs(old - wrong).max()) / moved,
        "mutated": mutated,
    }
    del stripped  # two copies of the largest models at a time are enough
    twin = in_float32(model)
    del model
    record |= float32(twin, x, seed, repeats)
    streams = [kept < units for units, kept in record["streams"]]
    holds = {
        "float64": record["difference"] <= 1e-9,
        "outputs vary": record["variation"] >= ALIVE,
        "a mutant is noticed": record["mutant"] > 1e-9,
        "parameters before": plan.before.params == params,
        "parameters after": plan.after.params == record["params_stripped"],
        "MACs after": plan.after.macs == record["macs_stripped"],
        # A barrier such as LayerNormalization holds every channel of its stream.
        "stream channels go": any(streams)
        or not (shared and streams)
        or bool(plan.barriers),
        "float32": record["difference32"] <= record["tolerance32"],
    }
    failures = [what for what, held in holds.items() if not held]
    return {**record, "failures": failures}


def mutate(stripped: keras.Model, rng: np.random.Generator) -> str:
    """Swaps two kept units of some layer in place; its name."""
    choices = [
        (layer, number)
        for layer in stripped.layers
        for number, weight in enumerate(layer.weights)
        if "kernel" in weight.name and weight.shape[-1] > 1
    ]
    for choice in rng.permutation(len(choices)):
        layer, number = choices[choice]
        weights = layer.get_weights()
        before, weights[number] = weights[number], swapped(weights[number])
        # Units that are closed, but held by a barrier, are alike: both are 0.
        if not np.array_equal(before, weights[number]):
            layer.set_weights(weights)
            return layer.name
    raise ValueError(f"`stripped` has no two units that differ: {stripped.name!r}")


def corners(make: Callable[[], keras.Model], seed: int, count: int) -> dict[str, Any]:
    """Compares what `cost(open)` says with what strip makes, for random gates.

    Of every tenth the outputs are compared as well.
    """
    with policy("float64"):
        model = enliven(gated(make(), shared=seed % 2 == 1), seed)
    rng, x = np.random.default_rng(seed), images(model, 2, seed)
    gates, size_of = keras_l0.gates(model), Cost(model)
    failures, dead = [], 0
    for corner in range(count):
        open_ = close(gates, rng)
        dead += not all(one.any() for one in open_)
        stripped = keras_l0.strip(model, verify=False)
        size = stripped.count_params(), macs(stripped)
        if size_of(open_).whole() != size:
            failures.append(f"cost of corner {corner}")
        if corner % 10 == 0 and not same(run(model, x), run(stripped, x)):
            failures.append(f"outputs of corner {corner}")
    return {"gates": len(gates), "corners": count, "dead": dead, "failures": failures}


def same(old: list[np.ndarray], new: list[np.ndarray]) -> bool:
    """Whether outputs are equal, but for rounding in float64."""
    (a,), (b,) = old, new
    # Constant outputs have no variation to compare with.
    scale = max(variation(a), 1e-3 * float(np.abs(a).max()), 1e-6)
    return bool(np.abs(a - b).max() <= 1e-9 * scale)


def close(gates: Sequence[L0Gate], rng: np.random.Generator) -> list[np.ndarray]:
    """Closes random shares of the gates; which units are open then."""
    shares = rng.uniform(size=len(gates))
    # Of the many layers about one closes as a whole, and one stays whole.
    shares[rng.uniform(size=len(gates)) < 1 / len(gates)] = 0.0
    shares[rng.uniform(size=len(gates)) < 1 / len(gates)] = 1.0
    open_ = [
        (rng.uniform(size=gate.count) < share).astype("float64")
        for gate, share in zip(gates, shares, strict=True)
    ]
    if rng.uniform() < 0.5:  # long chains of layers would hardly ever stay alive
        for one in open_:
            one[rng.integers(one.size)] = 1.0
    for gate, one in zip(gates, open_, strict=True):
        gate.assign_log_alpha(np.where(one, 9.0, -9.0).reshape(gate.raw.shape))
    return open_


def float32(
    model: keras.Model, x: np.ndarray, seed: int, repeats: int
) -> dict[str, Any]:
    """The comparison that strip itself makes, and the same with a mutant.

    Time and memory are measured here, in the precision that models mostly have.
    """
    record, stripped = measure(model, repeats)
    batch, start = [x.astype("float32")], time.process_time()
    (expected,) = outputs(model, batch)
    (allowed,) = tolerances(model, batch, [expected])
    scale = float(np.abs(expected).max())

    def difference() -> float:
        (received,) = outputs(stripped, batch)
        return float(np.abs(received - expected).max()) / scale

    record |= {
        "difference32": difference(),
        "tolerance32": allowed / scale,
        "seconds_comparison": time.process_time() - start,
    }
    mutate(stripped, np.random.default_rng(seed))
    return {**record, "mutant32": difference()}


def measure(model: keras.Model, repeats: int) -> tuple[dict[str, Any], keras.Model]:
    """Time and memory of plan and rewrite beside Keras' own copying; and the result."""

    def copy() -> keras.Model:
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        return clone

    tasks: dict[str, Callable[[], Any]] = {
        "plan": lambda: keras_l0.plan(model),
        "copy": copy,
        "rewrite": lambda: keras_l0.strip(model, verify=False),
    }
    record: dict[str, Any] = {}
    for task, function in tasks.items():
        runs = []
        for _ in range(repeats):
            result = None
            result, *taken = cost(function)
            runs.append(taken)
        seconds, memory = zip(*runs, strict=True)
        record |= {f"seconds_{task}": min(seconds), f"memory_{task}": min(memory)}
    return record, result


def cost(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it returns, its CPU seconds, by how many MiB the process grows at most.

    The last is NaN where Linux does not say.
    """
    gc.collect()
    linux = sys.platform == "linux"
    if linux:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    before, start = _status("VmRSS") if linux else 0, time.process_time()
    result = function()
    seconds = time.process_time() - start
    highest = _status("VmHWM") if linux else math.nan
    return result, seconds, (highest - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
