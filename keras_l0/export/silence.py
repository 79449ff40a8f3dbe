"""Silence at the level of file descriptors: C++ does not ask `sys.stderr`."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Drops what Python and native code write to stdout and stderr.

    The converter logs from C++ straight to descriptor 2, whatever the log level. The
    descriptors belong to the whole process: what other threads print meanwhile is
    dropped too. Everything is put back on the way out, exceptions included.

    Yields:
        None.

    Example:
        >>> import os
        >>> from keras_l0.export.silence import silence
        >>> with silence():
        ...     _ = os.write(2, b"from C++")
    """
    _flush()
    logging_before = logging.root.manager.disable
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w"))
        out, err = _Muted(sys.stdout), _Muted(sys.stderr)
        stack.callback(out.unmute)
        stack.callback(err.unmute)
        for descriptor in (1, 2):
            stack.enter_context(_redirected(descriptor, nowhere.fileno()))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        # Handlers keep the stream they were made with.
        stack.callback(logging.disable, logging_before)
        logging.disable(logging.CRITICAL)
        yield


@contextlib.contextmanager
def _redirected(descriptor: int, to: int) -> Iterator[None]:
    try:
        saved = os.dup(descriptor)
    except OSError:  # closed, as under a daemon: nothing to silence
        yield
        return
    try:
        os.dup2(to, descriptor)
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


def _flush() -> None:
    # Text that is buffered now was printed before: it must not be dropped.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


class _Muted(io.TextIOBase):
    """Drops what is written until unmuted, then hands on.

    A logging handler that is made meanwhile keeps this stream for good.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self.stream = stream
        self.muted = True

    def unmute(self) -> None:
        self.muted = False

    def write(self, text: str) -> int:
        if self.muted or self.stream is None:
            return len(text)
        return self.stream.write(text)

    def flush(self) -> None:
        if not self.muted and self.stream is not None:
            self.stream.flush()
