"""Signals that interrupt: Ctrl-C and SIGTERM. Imports no torch."""

import atexit
import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SAME_PRESS = 1.0
"""Seconds in which signals count as one: keys that repeat, Ctrl-C pressed several times in a hurry,
and a signal that both a terminal and a parent process send."""

_last = -SAME_PRESS

_waiting: list[int] | None = None
"""The list of the outermost `interrupted_by`; one inside of it shares it."""


def _is_new() -> bool:
    """Return whether a signal that arrives now is another one than the last."""
    global _last
    now, before = time.monotonic(), _last
    _last = now if now - before >= SAME_PRESS else before
    return now - before >= SAME_PRESS


def _raise_once(number: int, frame: FrameType | None) -> None:
    if _is_new():
        raise KeyboardInterrupt


def raise_once_a_press() -> None:
    """Make SIGINT raise one KeyboardInterrupt a press in this process, and none at its exit.

    Python's own handler raises one for each signal: the second, raised while the first is handled,
    ends in a traceback. Where another handler is set, or in another thread, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _raise_once)
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _usable(signals: tuple[int, ...]) -> list[int]:
    """Return the signals that may be handled here: not ignored, as under nohup, in main thread."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def interrupted_by(*signals: int, patient: bool = False) -> Iterator[list[int]]:
    """Yield a list that the first of these signals makes true; no exception is raised for it.

    What is under way can be finished first. A signal that follows later than `SAME_PRESS` raises
    KeyboardInterrupt, unless `patient`: torchrun sends its own after that of the terminal. A signal
    that is ignored, as under nohup, stays so; outside of the main thread nothing is handled. One
    of these inside another yields the same list.
    """
    global _waiting
    usable, outer = _usable(signals), _waiting
    stop: list[int] = outer if outer is not None and usable else []

    def handle(number: int, frame: FrameType | None) -> None:
        new = _is_new()
        if not stop:
            stop.append(number)
        elif new and not patient:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in usable}
    for number in before:
        signal.signal(number, handle)
    if usable:
        _waiting = stop
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if usable:
            _waiting = outer


@contextlib.contextmanager
def raised_by(*signals: int) -> Iterator[None]:
    """Raise KeyboardInterrupt at once for each of these signals, for work that writes nothing.

    An exception raised by a signal may be swallowed, in a destructor for instance: the next signal
    raises another one.
    """
    before = {number: signal.getsignal(number) for number in _usable(signals)}
    for number in before:
        signal.signal(number, _raise_once)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
