"""Every error that Echospan raises on purpose.

    EchospanError
    ├── AlphabetError   (ValueError)  a character that is not a symbol, or a bad alphabet
    ├── DelayError      (ValueError)  a delay the model was not trained on
    ├── SettingError    (ValueError)  a setting out of its range
    ├── DeviceError     (RuntimeError) a device that is not there
    ├── DivergenceError (ArithmeticError) a loss or gradient that is no longer a number
    ├── CoreError       (TypeError)   a module that cannot be a core
    ├── CheckError      (AssertionError) a promise that a core does not keep
    ├── ExportError     (ArithmeticError) a graph that does not answer as its model
    ├── EngineError     (RuntimeError) a cluster, or pool of workers, that takes no more work
    ├── StoreError      (OSError)     a file of results that is missing, foreign, damaged or newer
    └── RunError        (OSError)     a run folder that is missing, foreign, damaged or in the way

One message holds the fact and the remedy, in one sentence.
"""

import difflib
import re
from collections.abc import Iterable

_BEGIN, _BETWEEN, _END = "\N{START OF TEXT}", "\N{UNIT SEPARATOR}", "\N{END OF TEXT}"
"""Delimiters of a text with one form for Python and one for the command line."""

_BY_CALLER = re.compile(f"{_BEGIN}([^{_END}]*?){_BETWEEN}([^{_END}]*?){_END}")


def by_caller(python: str, command: str) -> str:
    """Return a part of a message: `python` in Python, `command` on the command line."""
    return f"{_BEGIN}{python}{_BETWEEN}{command}{_END}"


def option(name: str, value: object = None) -> str:
    """Return the name of a setting for a message, as the caller writes it.

    Args:
        name: The argument in Python, such as `max_delay`; the flag is `--max-delay`.
        value: A value to go with it: `max_delay=9`, `--max-delay 9`. For a switch, True:
            `overwrite=True`, `--overwrite`.
    """
    flag = "--" + name.replace("_", "-")
    if value is None:
        return by_caller(name, flag)
    return by_caller(f"{name}={value!r}", flag if value is True else f"{flag} {value}")


MAKER = by_caller(
    "give what makes it, such as lambda hidden: MyLayer(hidden)",
    "name what makes it, such as mylayers:MyLayer",
)
"""The remedy where a module that is made already cannot be made anew, or in another size."""


def for_python(text: str) -> str:
    """Return `text` with each part that depends on the caller as Python's callers read it."""
    return _BY_CALLER.sub(r"\1", text)


def for_command_line(text: str) -> str:
    """Return `text` with each part that depends on the caller as the command line prints it."""
    return _BY_CALLER.sub(r"\2", text)


class EchospanError(Exception):
    """Base class of all errors: what was wrong, and how to fix it.

    Args:
        fact: What was wrong; one line is made of several.
        remedy: What is allowed, and how to fix it. Both may hold parts made by `option` and
            `by_caller`; `str(error)`, `error.fact` and `error.remedy` are worded for Python.
    """

    def __init__(self, fact: str, remedy: str) -> None:
        fact = " ".join(fact.splitlines())  # another library's message may have several lines
        self._parts = fact, remedy
        self.fact, self.remedy = for_python(fact), for_python(remedy)
        super().__init__(f"{self.fact}; {self.remedy}")

    def command_line(self) -> str:
        """Return the message worded for the command line: flags in place of arguments."""
        return "; ".join(map(for_command_line, self._parts))

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), self._parts


class AlphabetError(EchospanError, ValueError):
    """A character that is not in the alphabet, or an alphabet that cannot be one."""


class DelayError(EchospanError, ValueError):
    """A delay outside the delays the model was trained on."""


class SettingError(EchospanError, ValueError):
    """A setting outside its range."""


class DeviceError(EchospanError, RuntimeError):
    """A device that this machine does not have."""


class DivergenceError(EchospanError, ArithmeticError):
    """A training whose loss or gradient is no longer a finite number."""


class CoreError(EchospanError, TypeError):
    """A module that cannot be a core: its shape, or what it does, is not what a core promises."""


class CheckError(EchospanError, AssertionError):
    """A promise that a core does not keep."""


class RunError(EchospanError, OSError):
    """A run folder that cannot be read or written."""


class ExportError(EchospanError, ArithmeticError):
    """A graph that was made of a model and does not answer as it does."""


class EngineError(EchospanError, RuntimeError):
    """A cluster, or pool of workers, that takes no more work."""


class StoreError(EchospanError, OSError):
    """A file of results that cannot be read or written."""


def nearest(name: str, there: Iterable[str]) -> str:
    """`did you mean this? ` where one of these is near, nothing elsewhere."""
    near = difflib.get_close_matches(str(name), list(there), 1)
    return f"did you mean {near[0]}? " if near else ""


def first_line(e: BaseException) -> str:
    """Of what another library says, which may go on for pages."""
    return (str(e).strip().splitlines() or [""])[0]
