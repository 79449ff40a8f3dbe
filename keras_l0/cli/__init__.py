"""The command line: ``keras-l0`` and ``python -m keras_l0``."""

from __future__ import annotations

import click

from keras_l0 import __version__
from keras_l0.cli.reporting import report
from keras_l0.cli.shipping import bench, export
from keras_l0.cli.stripping import plan, strip
from keras_l0.cli.trying import demo

__all__ = ["bench", "demo", "export", "main", "plan", "report", "strip"]


class _InOrder(click.Group):
    """Commands are listed in the order in which one needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name="keras-l0", message="%(prog)s %(version)s")
def main() -> None:
    """Makes Keras 3 networks smaller while they train.

    Every unit of a layer gets a gate, training learns which gates to close, and strip
    takes the closed units out. Start with

    \b
        keras-l0 demo

    and go on with a gated model that you have trained and saved:

    \b
        keras-l0 plan gated.keras
        keras-l0 strip gated.keras -o small.keras
        keras-l0 export small.keras -o small.tflite
        keras-l0 report gated.keras --html report.html

    Results go to stdout, all else to stderr; --json makes results JSON. A file that
    exists is replaced with --force only.

    \b
    Exit status
      0  done
      1  it could not be done: one sentence says why, and nothing was written
      2  the command was not understood
    """  # noqa: D301  (click's mark of a paragraph that is not to be rewrapped)


for _command in (demo, plan, strip, export, bench, report):
    main.add_command(_command)
