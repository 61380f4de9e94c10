"""Ctrl-C and SIGTERM: one press is one interruption, however many signals arrive for it."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from echospan import signals
from echospan.signals import interrupted_by, raised_by


@pytest.fixture
def presses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock in which a test says when each signal arrives."""
    moments: list[float] = []
    monkeypatch.setattr(signals, "_last", -signals.SAME_PRESS)
    monkeypatch.setattr(signals.time, "monotonic", lambda: moments[-1])
    return moments


def press(presses: list[float], at: float, number: int = signal.SIGINT) -> None:
    presses.append(at)
    os.kill(os.getpid(), number)


def test_the_first_signal_is_noted_and_those_of_the_same_press_are_too(
    presses: list[float],
) -> None:
    with interrupted_by(signal.SIGINT, signal.SIGTERM) as stop:
        assert not stop
        for at in (10.0, 10.01, 10.02, 10.9):
            press(presses, at)
        press(presses, 10.95, signal.SIGTERM)
        assert stop == [signal.SIGINT]


def test_a_second_press_raises(presses: list[float]) -> None:
    with interrupted_by(signal.SIGTERM, signal.SIGINT) as stop:
        press(presses, 10.0, signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            press(presses, 11.5)
        assert stop == [signal.SIGTERM]


def test_a_patient_one_never_raises(presses: list[float]) -> None:
    with interrupted_by(signal.SIGINT, patient=True) as stop:
        for at in (10.0, 12.0, 14.0):
            press(presses, at)
        assert stop


def test_one_inside_another_has_the_same_list_and_the_handlers_come_back(
    presses: list[float],
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupted_by(signal.SIGINT) as outer:
        press(presses, 10.0)
        with interrupted_by(signal.SIGINT) as inner:
            assert inner is outer
            assert inner == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is before
    with interrupted_by(signal.SIGINT) as fresh:
        assert not fresh


def test_a_signal_that_is_ignored_stays_so_and_another_thread_handles_none() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with interrupted_by(signal.SIGTERM) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert not stop
    finally:
        signal.signal(signal.SIGTERM, before)
    handlers = []

    def elsewhere() -> None:
        with interrupted_by(signal.SIGINT), raised_by(signal.SIGINT):
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


def test_work_that_writes_nothing_is_interrupted_at_once_by_either_signal(
    presses: list[float],
) -> None:
    with raised_by(signal.SIGINT, signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt):
            press(presses, 10.0, signal.SIGTERM)
        press(presses, 10.5)  # of the same press
        with pytest.raises(KeyboardInterrupt):
            press(presses, 12.0)


def test_many_signals_in_a_row_end_a_command_without_a_traceback() -> None:
    code = """
        import os, signal
        from echospan import cli

        def work(command):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:  # what cleans up is interrupted too
                for _ in range(5):
                    os.kill(os.getpid(), signal.SIGINT)

        settings, shape, _ = cli.COMMANDS["selftest"]
        cli.COMMANDS["selftest"] = settings, shape, work
        cli.main(["selftest"])
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (130, "")
