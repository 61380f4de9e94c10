"""Keep what others print out of the answers of a program."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Discard what is written to standard output and standard error meanwhile.

    By Python and by libraries written in C alike: the files behind both are replaced for the whole
    process, so other threads are muted too.
    """
    with Path(os.devnull).open("w") as nowhere, contextlib.ExitStack() as stack:
        for number in (1, 2):
            with contextlib.suppress(OSError):  # a process without that file has nothing to mute
                stack.callback(_restore, number, os.dup(number))
        _flush()
        for number in (1, 2):
            with contextlib.suppress(OSError):
                os.dup2(nowhere.fileno(), number)
        stack.callback(_flush)  # before the files are put back: what is buffered goes nowhere
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def _restore(number: int, kept: int) -> None:
    os.dup2(kept, number)
    os.close(kept)


def _flush() -> None:
    """Write out what Python and C keep in their buffers."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a stream may be closed, or None
            stream.flush()
    with contextlib.suppress(Exception):  # not every system has its C library under this name
        ctypes.CDLL(None).fflush(None)
