"""What a device gets: dense, magnitude-pruned and gated networks as .tflite files.

    python benchmarks/mnist.py --models models
    python benchmarks/deploy.py --models models

trains LeNet-300-100 and LeNet-5 without gates, prunes them by magnitude with
tensorflow-model-optimization (where it is installed), takes the gated ones that
``mnist.py`` left in the folder (or trains them), exports all in float32 and int8, and
measures the files: bytes, accuracy, latency here, the arena of TFLite Micro, and what
Arm's Vela estimates for an Ethos-U55-128. Trained networks stay in the folder, so that
a run that was cut short goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import platform
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import mnist
import numpy as np
from checkout import COMMIT
from deploy_table import render

import keras_l0

HERE = Path(__file__).resolve().parent
SPARSITY = 0.9
NPU = "ethos-u55-128"
# Name -> what `strip` does with closed features; None for networks without gates.
VARIANTS = {"dense": None, "tfmot": None, "ours": "keep", "ours-gather": "gather"}


def dense(network: str, settings: mnist.Settings) -> keras.Model:
    """The network of `mnist.py` without its gates."""
    model = mnist.build(network, settings)
    plain = [keras.Input(model.input_shape[1:], name="image")]
    for layer in model.layers:
        if isinstance(layer, keras_l0.layers.L0Gate):
            continue
        kind = next(c for c in type(layer).__mro__ if c.__module__.startswith("keras."))
        plain.append(kind.from_config(kind.get_config(layer)))
    return keras.Sequential(plain)


def pruned(
    model: keras.Model, data: list[np.ndarray], args: argparse.Namespace
) -> keras.Model:
    """The dense network with small weights at 0, by tensorflow-model-optimization."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    from keras_l0.export.tf_keras_twin import build_twin

    functional = keras.Model(model.inputs, model.outputs)
    twin = build_twin(functional)
    steps = -(-len(data[0]) // 128) * args.epochs
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.5, SPARSITY, 0, max(1, steps * 3 // 4), frequency=max(1, steps // 50)
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
    file = gated_file(network, args)
    if file is None:
        return json.loads(json.dumps(dataclasses.asdict(mnist.SETTINGS[network])))
    return json.loads(file.with_suffix(".json").read_text())["settings"]


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
    settings = mnist.SETTINGS[network]
    if kind == "tfmot":
        model = pruned(trained(network, "dense", data, args), data, args)
    elif kind == "dense":
        model = dense(network, settings)
        settings = dataclasses.replace(settings, epochs=args.epochs, learning_rate=1e-3)
        mnist.train(model, settings, *data[:2])
    else:
        model = mnist.build(network, settings)
        if args.tiny:
            settings = dataclasses.replace(settings, epochs=1)
        mnist.train(model, settings, *data[:2])
    model.save(path)
    return model


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
    shape = (-1, *dense(network, mnist.SETTINGS[network]).input_shape[1:])
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
        records.append({"network": network, "variant": variant, **found})
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
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--network", nargs="+", choices=mnist.NETWORKS, default=list(mnist.NETWORKS))
    add("--models", type=Path, required=True, help="folder of networks and files")
    add("--seed", type=int, default=0)
    add("--epochs", type=int, default=8, help="of the dense network, and of pruning it")
    add("--runs", type=int, default=500, help="timed inferences of each file")
    add("--tiny", action="store_true", help="600 images, one epoch")
    add("--data", type=Path, help="an .npz file as Keras keeps it for MNIST")
    add("--output", type=Path, default=HERE / "results-deploy.json")
    args = parser.parse_args(arguments)
    if args.tiny:
        args.epochs, args.runs = 1, 3
    args.models.mkdir(parents=True, exist_ok=True)
    args.validation = False
    records = []
    with contextlib.suppress(FileNotFoundError):
        records = json.loads(args.output.read_text())["records"]
    for network in args.network:
        data = mnist.load(args, network == "lenet-300-100", False)
        records = [record for record in records if record["network"] != network]
        records += run(network, data, args)
    modules = {m.__name__: m.__version__ for m in (keras_l0, keras, np)}
    about = {
        "commit": COMMIT,
        "seed": args.seed,
        "epochs": args.epochs,
        "sparsity": SPARSITY,
        "npu": NPU,
        "runs": args.runs,
        "versions": {"python": platform.python_version(), **modules},
    }
    result = {"about": about, "records": records}
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(render(result) + "\n")


if __name__ == "__main__":
    main()
