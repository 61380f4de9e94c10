"""Arguments of public functions and fields of settings, checked once at the border.

Each function returns the value in its plain type (a NumPy integer becomes an int), so that settings
compare, hash and are written to JSON alike however they were given. What does not fit raises
SettingError in one sentence that names the argument, the value and what is allowed.
"""

import math
import numbers
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from echospan.errors import SettingError, option
from echospan.text import shown

LARGEST = 2**63 - 1
"""The largest whole number of a setting: what an int64 tensor and a column of SQLite hold."""


def not_allowed(name: str, value: object, remedy: str) -> SettingError:
    """Return the error of a value that is not allowed for the argument `name`."""
    return SettingError(f"{option(name)} is {shown(value)}", remedy)


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number: an int, or NumPy's or PyTorch's of one; no bool."""
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except Exception:  # no number, or a tensor of floats, or of several numbers
        return False
    return True


def whole(name: str, value: Any, least: int = 0, most: int = LARGEST) -> int:
    """Return a whole number from `least` to `most` as an int."""
    given = operator.index(value) if is_whole(value) else least - 1
    if least <= given <= most:
        return given
    open_end = most == LARGEST and given < least
    allowed = f"of {least} or more" if open_end else f"from {least} to {most}"
    raise not_allowed(name, value, f"use a whole number {allowed}")


def sizes(input_size: Any, hidden_size: Any) -> tuple[int, int]:
    """Return the widths of a core's input and output, each 1 or more."""
    return whole("input_size", input_size, 1), whole("hidden_size", hidden_size, 1)


def number(name: str, value: Any, low: float, high: float, remedy: str) -> float:
    """Return a number above `low` and below `high` as a float; `remedy` says so in words."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not low < value < high:
        raise not_allowed(name, value, remedy)
    return float(value)


def positive(name: str, value: Any) -> float:
    """Return a finite number above 0 as a float."""
    return number(name, value, 0, math.inf, "use a finite number above 0")


def moment(name: str, value: Any) -> float:
    """Return a point in time, of `time.perf_counter`, as a float; infinity stands for never."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or math.isnan(value):
        raise not_allowed(name, value, "use a time of time.perf_counter(), or math.inf for none")
    return float(value)


def share(name: str, value: Any) -> float:
    """Return a share between 0 and 1, both left out, as a float."""
    return number(name, value, 0, 1, "use a share between 0 and 1, such as 0.99")


def fraction(name: str, value: Any) -> float:
    """Return a share from 0 to 1, both included, as a float."""
    lowest, highest = math.nextafter(0, -1), math.nextafter(1, 2)
    return number(name, value, lowest, highest, "use a share from 0 to 1")


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return one of the texts that are allowed."""
    allowed = list(choices)
    if not isinstance(value, str) or value not in allowed:
        raise not_allowed(name, value, f"use one of {', '.join(allowed)}")
    return value


def text(name: str, value: Any, such_as: str) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise not_allowed(name, value, f"use a text, such as {such_as}")
    return value


def several(name: str, value: Any, what: str) -> list[Any]:
    """Return the items of a list, or of anything like one; `what` says what they are."""
    try:
        items = None if isinstance(value, str | bytes | dict) else list(value)
    except TypeError:
        items = None
    if items is None:
        raise not_allowed(name, value, f"give a list of {what}")
    if not items:
        raise SettingError(f"{option(name)} is empty", f"give one or more {what}")
    return items


def path(name: str, value: Any) -> Path:
    """Return a path of a file or folder."""
    named = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(named, str) or not named or "\0" in named:
        raise not_allowed(name, value, "give a path")
    try:
        os.lstat(named)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # it need not be there
    except ValueError:  # half of a character that takes two
        raise not_allowed(name, value, "give a path") from None
    except OSError as e:  # too long a name, a loop of links
        raise not_allowed(name, value, f"give another path ({e.strerror})") from None
    return Path(named)


def function(name: str, value: Any, what: str) -> Any:
    """Return what can be called, or None; `what` says what it is called with."""
    if value is not None and not callable(value):
        raise not_allowed(name, value, f"give a function of {what}, or None")
    return value


def kind(name: str, value: Any, of: type | tuple[type, ...], what: str) -> Any:
    """Return an object of a class; `what` says how one is had."""
    if not isinstance(value, of):
        raise not_allowed(name, value, f"give {what}")
    return value
