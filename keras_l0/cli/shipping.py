"""``keras-l0 export`` and ``keras-l0 bench``."""

from __future__ import annotations

from pathlib import Path

import click

import keras_l0
from keras_l0.cli.arguments import (
    array_option,
    inputs_option,
    json_option,
    model_argument,
    quantization,
    quantization_options,
)
from keras_l0.cli.reading import (
    loading_options,
    read_arrays,
    read_model,
    require_tflite,
)
from keras_l0.cli.saying import say_json, stdout, step, table
from keras_l0.cli.writing import output_option, require_destination
from keras_l0.export.latency import file_cells
from keras_l0.export.options import ETHOS_U, IO_DTYPES
from keras_l0.export.silence import silence

# Below these widths the table of files leaves out what can be missed.
_ALL, _SOME = 84, 60


@click.command()
@model_argument
@output_option(".tflite", help="The file to write.")
@quantization_options
@array_option(
    "--data",
    "Examples to measure the ranges of 8 bits on, a few hundred of the training data; "
    "in a .npz file, one array per input by its name.",
)
@array_option(
    "--test-data",
    "Other examples to compare the file with Keras on. Default: those of --data, or "
    "else random ones.",
)
@array_option("--labels", "Classes of the --test-data, to report accuracies.")
@click.option(
    "--target",
    metavar="NAME",
    help="What the file is to run on: edgetpu, micro (TFLite Micro), ethos-u or "
    f"{ETHOS_U[0]} to {ETHOS_U[-1]}. It is refused, or told, what does not run there; "
    "all but micro take --int8.",
)
@inputs_option
@click.option(
    "--io-dtype",
    type=click.Choice(IO_DTYPES),
    help="Of inputs and outputs of an --int8 file.  [default: float32, int8 for a "
    "target]",
)
@click.option(
    "--allow-float",
    is_flag=True,
    help="Let an --int8 file compute in float what has no 8-bit form.",
)
@click.option(
    "--sparse",
    is_flag=True,
    help="Store kernels that are mostly zeros, those of gates on weights or blocks, "
    "without the zeros. 32 bits only.",
)
@click.option(
    "--min-top1",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="SHARE",
    help="Refuse a quantized file whose largest output is Keras' in fewer examples.",
)
@click.option(
    "--max-error",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    metavar="SHARE",
    help="Refuse a quantized file whose outputs are off by more of how far they vary.",
)
@click.option(
    "--c-array",
    type=click.Path(path_type=Path),
    metavar="OUT.cc",
    help="Also write the file as a C++ array, with a header beside it.",
)
@json_option
@loading_options
def export(
    model: Path,
    output: Path,
    force: bool,
    float16: bool,
    dynamic: bool,
    int8: bool,
    data: Path | None,
    test_data: Path | None,
    labels: Path | None,
    target: str | None,
    inputs: str,
    io_dtype: str | None,
    allow_float: bool,
    sparse: bool,
    min_top1: float,
    max_error: float,
    c_array: Path | None,
    as_json: bool,
    unsafe: bool,
    imports: tuple[str, ...],
) -> None:
    """Writes a model as a .tflite file.

    A gated model is stripped first. The file is run and compared with Keras, and left
    only if the two agree. Without --int8, --dynamic or --float16 it computes in 32
    bits.

    \b
    Examples
      keras-l0 export small.keras -o small.tflite
      keras-l0 export small.keras -o small.tflite --int8 --data x_train.npy
      keras-l0 export small.keras -o small.tflite --int8 --data x_train.npy \\
          --target edgetpu --test-data x_test.npy --labels y_test.npy

    numpy.save("x_train.npy", x_train[:500]) writes such data.
    """  # noqa: D301
    kind = quantization(float16=float16, dynamic=dynamic, int8=int8)
    require_destination(output, force, ".tflite")
    if min_top1 and not kind:
        raise click.UsageError("--min-top1 is for quantized files.")
    if allow_float and not int8:
        raise click.UsageError("--allow-float is for --int8 files.")
    if c_array:
        for file in (c_array, c_array.with_suffix(".h")):
            require_destination(file, force, argument="c_array")
    given, tested = read_arrays(data, "--data"), read_arrays(test_data, "--test-data")
    classes = read_arrays(labels, "--labels")
    network = read_model(model, unsafe, imports)
    with step("converting, running and comparing"):
        report = keras_l0.to_tflite(
            network,
            output,
            kind,
            given if int8 else None,
            data=given if tested is None else tested,
            labels=classes,
            target=target,
            inputs=inputs,
            io_dtype=io_dtype,
            allow=("float",) if allow_float else (),
            min_top1=min_top1,
            max_error=max_error,
            sparse=sparse,
            c_array=c_array,
        )
    if as_json:
        say_json(report)
    else:
        click.echo(report)


@click.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE.tflite...",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="Timed inferences of each file.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Threads of the interpreter.",
)
@json_option
def bench(files: tuple[Path, ...], runs: int, threads: int, as_json: bool) -> None:
    """Times .tflite files side by side on this machine.

    They take turns, run by run, on random inputs. Ratios are to the first file, with
    the range of the middle half of the runs; memory is what a process needs to load
    the file and run it.

    \b
    Examples
      keras-l0 bench dense.tflite small.tflite
      keras-l0 bench dense.tflite small.tflite --runs 1000 --threads 4
    """  # noqa: D301
    for path in files:
        require_tflite(path)
    with step(f"timing {len(files)} files"), silence():
        measured = keras_l0.benchmark(list(files), runs, threads)
    if as_json:
        say_json(measured)
        return
    console = stdout()
    console.print(_side_by_side(measured, console.width))
    console.print(
        f"{runs} runs in turns, {threads} thread{'s' * (threads > 1)}; ratios are to "
        "the first file."
    )


def _side_by_side(measured: keras_l0.export.Benchmark, width: int) -> object:
    leave_out = [] if width >= _ALL else ["gzip", "95 %", "middle half"]
    leave_out += [] if width >= _SOME else ["memory"]
    rows = [
        {key: cell for key, cell in file_cells(file).items() if key not in leave_out}
        for file in measured.files
    ]
    return table(list(rows[0]), [list(row.values()) for row in rows])
