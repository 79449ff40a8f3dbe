"""The demo: train, strip, export, run the files, and compare at every step."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich import progress
from rich.console import Console

from keras_l0.callbacks import Density
from keras_l0.demo.data import Images, load
from keras_l0.demo.errors import DemoError, require
from keras_l0.demo.networks import NETWORKS, Network
from keras_l0.demo.results import RESULTS, Measured, Results, TFLiteFile
from keras_l0.demo.training import ShowEpoch, predict, train
from keras_l0.export import ExportError, to_tflite
from keras_l0.export.answers import answers
from keras_l0.export.latency import latency
from keras_l0.export.report import accuracy
from keras_l0.layers import find_gates
from keras_l0.report import profile
from keras_l0.stripping import strip

# Two float32 evaluations of one network differ less than this in any probability.
_TOLERANCE = 1e-4
# What pruning may cost in accuracy before the demo calls it a failure.
_ALLOWED_LOSS = 0.1
# `strip` and `to_tflite` compare on so many images; the demo itself on all.
_FEW = 128


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the command line sets.

    Attributes:
        output: Folder for the files.
        network: A key of `NETWORKS`.
        dataset: ``"digits"`` or ``"mnist"``.
        data: A .npz file to use instead.
        epochs: Epochs of each training; None leaves it to the size of the data set.
        l0: Price of a parameter; None leaves it to the network and the data set.
        seed: Seed of both trainings.
    """

    output: Path
    network: str = "conv"
    dataset: str = "digits"
    data: Path | None = None
    epochs: int | None = None
    l0: float | None = None
    seed: int = 0


def run(settings: Settings, console: Console) -> Results:
    """Runs the demo and writes its files into ``settings.output``.

    Args:
        settings: What to run.
        console: Where progress is shown.

    Returns:
        What was measured.

    Raises:
        DemoError: If something is missing, or if any two things that must agree do not.
    """
    _check_surroundings()
    images = load(settings.dataset, settings.data)
    is_new = not settings.output.exists()
    folder = _make_folder(settings.output)
    network = NETWORKS[settings.network]
    epochs = settings.epochs or (10 if images.many else 80)
    l0 = network.price[images.many] if settings.l0 is None else settings.l0

    models = _train_both(network, images, epochs, l0, settings.seed, console)
    says = {name: predict(model, images.x_test) for name, model in models.items()}
    right = {name: accuracy(says[name], images.y_test) for name in says}
    if right["dense"] - right["gated"] > _ALLOWED_LOSS:
        if is_new:
            folder.rmdir()
        raise DemoError(
            f"Accuracy collapsed: {right['dense']:.1%} without gates, "
            f"{right['gated']:.1%} with gates at a price of {l0:g}; try a "
            "lower --l0, or more --epochs."
        )

    with console.status("stripping, exporting, running the files"):
        models["stripped"] = _strip(models["gated"], network, images)
        says["stripped"] = predict(models["stripped"], images.x_test)
        difference = _difference(says["stripped"], says["gated"])
        _check(difference, "The stripped model", "the gated one")
        # Elsewhere first: a demo that fails leaves the files of an earlier one alone.
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as temporary:
            new = Path(temporary)
            for name, model in models.items():
                model.save(new / f"{name}.keras")
            _draw(models["gated"], images, new / "kept.png")
            files = _export(models, says, images, new)
            results = Results(
                network=network.title,
                dataset=images.name,
                images=(len(images.x_train), len(images.x_test)),
                layers=network.gated,
                inputs=network.inputs,
                epochs=epochs,
                l0=l0,
                seed=settings.seed,
                difference=difference,
                **_measure(network, images, models, says, files),
            )
            results.write(new / RESULTS)
            # By its results a folder is known as that of a demo.
            for name in sorted(os.listdir(new), key=lambda name: name != RESULTS):
                os.replace(new / name, folder / name)
    return results


def _check_surroundings() -> None:
    """Finds out now, not after a minute of training, what is missing."""
    if keras.backend.backend() != "tensorflow":
        raise DemoError(
            "The demo ends in a TFLite file, which takes the TensorFlow backend, and "
            f"Keras runs on {keras.backend.backend()} here. Set KERAS_BACKEND to "
            'tensorflow; pip install "keras-l0[tensorflow]" brings it.'
        )
    require("matplotlib", "draw what survived")
    require("ai_edge_litert", "run TFLite files", extra="tensorflow")


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DemoError(
            f"--output {str(folder)!r} cannot be written to: {error.strerror}."
        ) from error
    return folder


def _train_both(
    network: Network,
    images: Images,
    epochs: int,
    l0: float,
    seed: int,
    console: Console,
) -> dict[str, keras.Model]:
    bars = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=20),
        progress.MofNCompleteColumn(),
        progress.TextColumn("epochs  {task.fields[figures]}"),
        progress.TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    models = {}
    with bars:
        for name, price in (("dense", None), ("gated", l0)):
            task = bars.add_task(f"{name} {network.title}", total=epochs, figures="")
            keras.utils.set_random_seed(seed)
            models[name] = network.build(images.shape, images.classes, price)
            show: list[keras.callbacks.Callback] = [ShowEpoch(bars, task)]
            if price is not None:
                show.insert(0, Density(inputs=network.inputs))
            train(models[name], images, epochs, show)
    return models


def _strip(gated: keras.Model, network: Network, images: Images) -> keras.Model:
    try:
        promised = profile(gated, inputs=network.inputs).deployed.params
        stripped = strip(gated, inputs=network.inputs, data=images.x_test[:_FEW])
    except (RuntimeError, ValueError) as error:
        raise DemoError(f"The gated model could not be stripped: {error}") from error
    if find_gates(stripped):
        raise DemoError("The stripped model still has gates.")
    if stripped.count_params() != promised:
        raise DemoError(
            f"The stripped model has {stripped.count_params():,} parameters, but "
            f"`profile` promised {promised:,}."
        )
    return stripped


def _draw(gated: keras.Model, images: Images, path: Path) -> None:
    from keras_l0.demo.picture import draw

    draw(gated, images.x_test[0], path)


def _export(
    models: dict[str, keras.Model],
    says: dict[str, np.ndarray],
    images: Images,
    folder: Path,
) -> dict[str, TFLiteFile]:
    """Writes the .tflite files, runs them on all test images, and times them."""
    paths = {name: folder / f"{name}.tflite" for name in ("dense", "stripped")}
    found: dict[str, dict[str, Any]] = {}
    for name, path in paths.items():
        try:
            report = to_tflite(models[name], path, data=images.x_test[:_FEW])
            answered = answers(path, images.x_test)
        except (ExportError, ImportError, OSError) as error:
            raise DemoError(f"The {name} model's TFLite file: {error}") from error
        difference = _difference(answered, says[name])
        _check(difference, f"The {name} model's TFLite file", "Keras")
        found[name] = {
            "bytes": report.bytes,
            "accuracy": accuracy(answered, images.y_test),
            "difference": difference,
        }
    timings = latency(list(paths.values()), runs=500)
    return {
        name: TFLiteFile(**found[name], seconds=timing.median)
        for name, timing in zip(paths, timings, strict=True)
    }


def _measure(
    network: Network,
    images: Images,
    models: dict[str, keras.Model],
    says: dict[str, np.ndarray],
    files: dict[str, TFLiteFile],
) -> dict[str, Measured]:
    sizes = profile(models["gated"], inputs=network.inputs)
    layers = {layer.name: layer for layer in sizes.layers}
    all_units = tuple(layers[name].units for name in network.gated)
    kept = tuple(layers[name].kept for name in network.gated)
    # A gated model does the work of the dense one, and multiplies by its gates.
    macs = {name: sizes.dense.macs for name in ("dense", "gated")}
    macs["stripped"] = profile(models["stripped"]).deployed.macs
    return {
        name: Measured(
            units=kept if name == "stripped" else all_units,
            params=model.count_params(),
            macs=macs[name],
            accuracy=accuracy(says[name], images.y_test),
            tflite=files.get(name),
        )
        for name, model in models.items()
    }


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    # A comparison with NaN is false: make NaN a difference.
    return float(np.nan_to_num(np.abs(a - b), nan=np.inf).max())


def _check(difference: float, what: str, other: str) -> None:
    if difference > _TOLERANCE:
        raise DemoError(
            f"{what} disagrees with {other}: a probability differs by {difference:.1e} "
            f"where {_TOLERANCE:.0e} is allowed."
        )
