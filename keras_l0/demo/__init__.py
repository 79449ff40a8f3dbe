"""The demo of the command line: from a dense network to a small TFLite file."""

from keras_l0.demo.errors import DemoError, require
from keras_l0.demo.pipeline import Settings, run
from keras_l0.demo.results import Results, show

__all__ = ["DemoError", "Results", "Settings", "require", "run", "show"]
