import logging
import os
import subprocess
import sys

import pytest

from keras_l0.export.silence import silence

LOUD = """
import os, sys
from keras_l0.export.silence import silence
print("before")
with silence():
    print("dropped"); print("dropped", file=sys.stderr)
    os.write(1, b"dropped"); os.write(2, b"dropped"); os.system("echo dropped")
print("after"); os.write(2, b"heard")
"""


def run(code, **kwargs):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, text=True, **kwargs
    )


def test_python_native_code_and_children_are_silent_inside_only():
    done = run(LOUD, capture_output=True, check=True)
    assert done.stdout == "before\nafter\n"
    assert "dropped" not in done.stderr and done.stderr.endswith("heard")


def test_closed_descriptors_stay_closed():
    done = run(
        "import os\nfrom keras_l0.export.silence import silence\n"
        "os.close(1)\n"
        "with silence(): os.write(2, b'dropped')\n"
        "try: os.fstat(1)\n"
        "except OSError: os.write(2, b'closed')\n",
        stderr=subprocess.PIPE,
        check=True,
    )
    assert done.stderr.endswith("closed") and "dropped" not in done.stderr


def test_all_is_restored_after_an_exception(capfd):
    files = [os.fstat(descriptor) for descriptor in (1, 2)]
    streams, open_before = (sys.stdout, sys.stderr), len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyError), silence():
        raise KeyError
    assert [os.fstat(descriptor) for descriptor in (1, 2)] == files
    assert (sys.stdout, sys.stderr) == streams
    assert logging.root.manager.disable == logging.NOTSET
    assert len(os.listdir("/proc/self/fd")) == open_before
    os.write(1, b"out")
    os.write(2, b"err")
    assert capfd.readouterr() == ("out", "err")


def test_a_handler_made_meanwhile_works_afterwards(capsys):
    with silence():
        handler = logging.StreamHandler()
    logger = logging.Logger("made-meanwhile")
    logger.addHandler(handler)
    logger.warning("heard")
    assert capsys.readouterr().err == "heard\n"
