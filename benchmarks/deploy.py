"""What a device gets: dense, magnitude-pruned and gated networks as .tflite files.

    python benchmarks/mnist.py --models models
    python benchmarks/deploy.py --models models

trains LeNet-300-100, LeNet-5 and a residual network without gates, prunes them by
magnitude with tensorflow-model-optimization (where it is installed), takes the gated
LeNets that ``mnist.py`` left in the folder (or trains them), gates the trained residual
network under a budget, exports all in float32 and int8, and measures the files: bytes,
accuracy, latency here, the arena of TFLite Micro, and what Arm's Vela estimates for an
Ethos-U55-128. Trained networks stay in the folder, so that a run that was cut short
goes on. Files of one wide residual network, whose inferences take milliseconds, say how
latency follows MACs; nobody trains that one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import budget
import keras
import mnist
import numpy as np
from checkout import COMMIT
from deploy_table import render
from runs import Parser, use_threads, versions

import keras_l0

HERE = Path(__file__).resolve().parent
# Share of the weights that magnitude pruning takes, where the network stands it.
SPARSITY = {"lenet-300-100": 0.9, "lenet-5": 0.9, "residual": 0.7}
NPU = "ethos-u55-128"
# Name -> what `strip` does with closed features; None for networks without gates.
VARIANTS = {"dense": None, "tfmot": None, "ours": "keep", "ours-gather": "gather"}
NETWORKS = (*mnist.NETWORKS, "residual")
# Of the residual network, which is gated when it is trained.
BUDGET = {"macs": 0.25}
# How wide the one is that latency is measured on, and what stays open of each layer.
WIDE = (128, 256, 512)
SHARES = (0.8, 0.65, 0.5, 0.35, 0.25)


def dense(network: str) -> keras.Model:
    """The network without its gates."""
    if network == "residual":
        return budget.residual()
    model = mnist.build(network, mnist.SETTINGS[network])
    plain = [keras.Input(model.input_shape[1:], name="image")]
    for layer in model.layers:
        if isinstance(layer, keras_l0.layers.L0Gate):
            continue
        kind = next(c for c in type(layer).__mro__ if c.__module__.startswith("keras."))
        plain.append(kind.from_config(kind.get_config(layer)))
    return keras.Sequential(plain)


def pruned(
    network: str, model: keras.Model, data: list[np.ndarray], args: argparse.Namespace
) -> keras.Model:
    """The dense network with small weights at 0, by tensorflow-model-optimization."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    from keras_l0.export.tf_keras_twin import build_twin

    functional = keras.Model(model.inputs, model.outputs)
    twin = build_twin(functional)
    steps = -(-len(data[0]) // 128) * args.epochs
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.5,
        SPARSITY[network],
        0,
        max(1, steps * 3 // 4),
        frequency=max(1, steps // 50),
    )
    sparse = tfmot.sparsity.keras.prune_low_magnitude(
        twin.model, pruning_schedule=schedule
    )
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sparse.compile("adam", loss)
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    sparse.fit(
        *data[:2], 128, args.epochs, verbose=0, shuffle=True, callbacks=callbacks
    )
    done = tfmot.sparsity.keras.strip_pruning(sparse)
    result = keras.models.clone_model(functional)
    twin.return_weights(
        result, {v.name: v.numpy() for layer in done.layers for v in layer.weights}
    )
    return result


def gated_file(network: str, args: argparse.Namespace) -> Path | None:
    """The last gated network that `mnist.py` left in the folder, if any."""
    files = args.models.glob(f"{network}-{args.seed}-*.keras")
    return max(files, key=lambda file: file.stat().st_mtime, default=None)


def gated_settings(network: str, args: argparse.Namespace) -> dict[str, Any]:
    """What the gated network was trained with."""
    if network == "residual":
        return {"budget": BUDGET, "epochs": args.epochs}
    file = gated_file(network, args)
    if file is None:
        return json.loads(json.dumps(dataclasses.asdict(mnist.SETTINGS[network])))
    return json.loads(file.with_suffix(".json").read_text())["settings"]


def fitted(
    model: keras.Model,
    data: list[np.ndarray],
    args: argparse.Namespace,
    **settings: Any,
) -> keras.Model:
    """The model, trained as those of `mnist.py` are."""
    options = mnist.Settings(
        **{"l0": (), "epochs": args.epochs, "learning_rate": 1e-3, **settings}
    )
    mnist.train(model, options, *data[:2])
    return model


def gated(
    network: str, data: list[np.ndarray], args: argparse.Namespace
) -> keras.Model:
    """The network with gates, trained."""
    if network == "residual":
        before = trained(network, "dense", data, args)
        limit = keras_l0.Budget(**BUDGET)
        model = keras_l0.add_gates(before, budget=limit)
        return fitted(model, data, args, learning_rate=2e-3)
    settings = dataclasses.asdict(mnist.SETTINGS[network])
    if args.tiny:
        settings["epochs"] = 1
    model = mnist.build(network, mnist.SETTINGS[network])
    return fitted(model, data, args, **settings)


def trained(
    network: str, variant: str, data: list[np.ndarray], args: argparse.Namespace
) -> keras.Model:
    """A variant of a network, from the folder or else made and left there."""
    kind = "gated" if VARIANTS[variant] else variant
    path = args.models / f"deploy-{network}-{kind}.keras"
    if kind == "gated":
        path = gated_file(network, args) or path
    if path.exists():
        return keras.models.load_model(path, compile=False)
    keras.utils.set_random_seed(args.seed)
    if kind == "tfmot":
        model = pruned(network, trained(network, "dense", data, args), data, args)
    elif kind == "dense":
        model = fitted(dense(network), data, args)
    else:
        model = gated(network, data, args)
    model.save(path)
    return model


def scaling(args: argparse.Namespace) -> list[dict[str, Any]]:
    """How the latency of a wide network follows its MACs, in float32.

    Which units are open is drawn: a file takes as long whatever its weights are.
    """
    model = keras_l0.add_gates(budget.residual(WIDE, stem_strides=1))
    rng = np.random.default_rng(args.seed)
    folder = args.models / "deploy-wide"
    folder.mkdir(exist_ok=True)
    records, paths = [], []
    for share in (1.0, *SHARES):
        for gate in keras_l0.gates(model):
            ranks = rng.permutation(gate.count)
            gate.assign_log_alpha(np.where(ranks < share * gate.count, 9.0, -9.0))
        paths.append(folder / f"{share:g}.tflite")
        report = keras_l0.to_tflite(model, paths[-1], verify=False)
        records.append({"share": share, "params": report.params, "macs": report.macs})
    for record, row in zip(
        records, cpu_seconds(paths, max(3, args.runs // 5)), strict=True
    ):
        low, middle, high = np.percentile(row[1], (25, 50, 75))
        record |= {
            "milliseconds": 1000 * float(np.median(row[0])),
            "ratio": middle,
            "ratio_quartiles": (low, high),
        }
    return records


def cpu_seconds(paths: list[Path], runs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each file, the CPU seconds of runs in turns, and the shares of the first's.

    Runs of several milliseconds are interrupted by what else a machine does, which wall
    time would count.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreters = [Interpreter(str(path), num_threads=1) for path in paths]
    seconds = np.zeros((len(paths), runs))
    for interpreter in interpreters:
        interpreter.allocate_tensors()
        interpreter.invoke()
    for run in range(runs):
        for row, interpreter in zip(seconds, interpreters, strict=True):
            start = time.thread_time()
            interpreter.invoke()
            row[run] = time.thread_time() - start
    return [(row, row / seconds[0]) for row in seconds]


def measure(
    model: keras.Model, data: list[np.ndarray], folder: Path, inputs: str
) -> dict[str, Any]:
    """Both files of a network, and all that is known of them but their latency."""
    x, _, x_test, y_test = data
    common = {"data": x_test, "labels": y_test, "inputs": inputs}
    found: dict[str, Any] = {}
    for precision in ("float32", "int8"):
        quantization = None if precision == "float32" else "int8"
        path = folder / f"{precision}.tflite"
        report = keras_l0.to_tflite(
            model, path, quantization, x[::100] if quantization else None, **common
        )
        found[precision] = {
            "bytes": report.bytes,
            "gzip_bytes": report.gzip_bytes,
            "error": 100 * (1 - report.accuracy),
            "top1": report.top1,
            "ops": report.ops,
        }
        found |= {"params": report.params, "macs": report.macs}
        found["error_keras"] = 100 * (1 - report.keras_accuracy)
    for target, module in (("micro", "tflite_micro"), (NPU, "ethosu")):
        if importlib.util.find_spec(module) is None:
            continue
        report = keras_l0.to_tflite(
            model, folder / "target.tflite", "int8", x[::100], target=target,
            data=x_test[:100], inputs=inputs,
        ).target  # fmt: skip
        found[target] = {**report.figures, "mapped": report.mapped}
    return found


def run(
    network: str, data: list[np.ndarray], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """One record per variant of a network."""
    data = list(data)
    shape = (-1, *dense(network).input_shape[1:])
    data[0], data[2] = data[0].reshape(shape), data[2].reshape(shape)
    records = []
    for variant, inputs in VARIANTS.items():
        if variant == "tfmot" and importlib.util.find_spec("tf_keras") is None:
            print(f"{network}: tfmot is not installed, so its variant is left out")
            continue
        model = trained(network, variant, data, args)
        folder = args.models / f"deploy-{network}-{variant}"
        folder.mkdir(exist_ok=True)
        found = measure(model, data, folder, inputs or "keep")
        if inputs:
            found["settings"] = gated_settings(network, args)
        about = {"epochs": args.epochs, "commit": COMMIT}
        if variant == "tfmot":
            about["sparsity"] = SPARSITY[network]
        records.append({"network": network, "variant": variant, **about, **found})
        print(f"{network}, {variant}: {found['float32']}", flush=True)
    for precision in ("float32", "int8"):
        paths = [
            args.models
            / f"deploy-{network}-{record['variant']}"
            / f"{precision}.tflite"
            for record in records
        ]
        result = keras_l0.benchmark(paths, runs=args.runs)
        for record, file in zip(records, result.files, strict=True):
            record[precision]["milliseconds"] = 1000 * file.latency.median
            record[precision]["ratio"] = file.ratio
            record[precision]["ratio_quartiles"] = file.ratio_quartiles
            record[precision]["memory_bytes"] = file.memory_bytes
    return records


def main(arguments: list[str] | None = None) -> None:
    """Trains what is not there yet, measures, and writes the results."""
    parser = Parser(__doc__, holds=dict)
    add = parser.add_argument
    add("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--models", type=Path, required=True, help="folder of networks and files")
    add("--seed", type=int, default=0)
    add("--epochs", type=int, default=8, help="of dense networks, and of pruning them")
    add("--runs", type=int, default=500, help="timed inferences of each file")
    add("--tiny", action="store_true", help="600 images, one epoch")
    add("--data", type=Path, help="an .npz file as Keras keeps it for MNIST")
    add("--output", type=Path, default=HERE / "results-deploy.json")
    add("--threads", type=int, default=1, help="of TensorFlow; 0: as they are")
    args = parser.parse_args(arguments)
    if args.tiny:
        args.epochs, args.runs = 1, 3
    use_threads(args.threads)
    args.models.mkdir(parents=True, exist_ok=True)
    args.validation = False
    records = []
    with contextlib.suppress(FileNotFoundError):
        records = json.loads(args.output.read_text())["records"]
    for network in args.network:
        data = mnist.load(args, network == "lenet-300-100", False)
        records = [record for record in records if record["network"] != network]
        records += run(network, data, args)
    about = {
        "seed": args.seed,
        "npu": NPU,
        "runs": args.runs,
        "versions": versions(),
    }
    result = {"about": about, "records": records, "scaling": scaling(args)}
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(render(result) + "\n")


if __name__ == "__main__":
    main()
