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
from collections.abc import Iterable


class EchospanError(Exception):
    """Base of all: `fact` says what was wrong, `remedy` what is allowed and how to mend it."""

    def __init__(self, fact: str, remedy: str) -> None:
        fact = " ".join(fact.splitlines())  # what another library said may be several
        super().__init__(f"{fact}; {remedy}")
        self.fact = fact
        self.remedy = remedy

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.fact, self.remedy)


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
    near = difflib.get_close_matches(name, list(there), 1)
    return f"did you mean {near[0]}? " if near else ""


def first_line(e: BaseException) -> str:
    """Of what another library says, which may go on for pages."""
    return (str(e).strip().splitlines() or [""])[0]
