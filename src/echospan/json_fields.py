"""Fields of JSON that others may have written, checked for type and range before they are used.

Every function raises ValueError with the name of the field, what it holds and what is allowed. A
caller that reads an object inside another puts the place in front (`seeds[0].`).
"""

import json
from collections.abc import Set
from typing import Any

from echospan.text import shown

LARGEST = 2**63 - 1
"""The largest integer of a field: what a column of SQLite holds."""


def document(text: str) -> Any:
    """Return the value of a JSON document; NaN and Infinity, which JSON lacks, are refused."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no JSON")


def members(value: Any, required: Set[str], optional: Set[str] = frozenset()) -> dict[str, Any]:
    """Return an object that has all required members, and none but these and the optional ones."""
    if type(value) is not dict:
        raise ValueError(f"{shown(value)} is no object")
    names = value.keys()
    if names == required:
        return value
    if missing := required - names:
        raise ValueError(f"{min(missing)} is missing")
    if unknown := names - required - optional:
        raise ValueError(f"{shown(min(unknown))} is no name of a field")
    return value


def integer(value: Any, name: str, low: int, high: int = LARGEST) -> int:
    """Return an integer from `low` to `high`; a float or bool is none."""
    if type(value) is int and low <= value <= high:
        return value
    raise ValueError(f"{name} is {shown(value)}, not a whole number {_range(low, high)}")


def number(value: Any, name: str, low: float, high: float) -> float:
    """Return a number from `low` to `high` as a float; NaN is in no range."""
    if (type(value) is float or type(value) is int) and low <= value <= high:
        return float(value)
    raise ValueError(f"{name} is {shown(value)}, not a number {_range(low, high)}")


def numbers(value: Any, name: str, low: float, high: float, count: int) -> tuple[float, ...]:
    """Return a list of exactly `count` numbers from `low` to `high`; a document has no NaN."""
    if type(value) is not list or len(value) != count:
        raise ValueError(f"{name} is {shown(value)}, not a list of {count} numbers")
    if not {float, int}.issuperset(map(type, value)) or min(value) < low or max(value) > high:
        for item in value:
            number(item, name, low, high)
    return tuple(map(float, value))


def listed(value: Any, name: str, most: int) -> list[Any]:
    """Return a list of at most `most` items."""
    if type(value) is list and len(value) <= most:
        return value
    raise ValueError(f"{name} is {shown(value)}, not a list of at most {most:,}")


def string(value: Any, name: str, longest: int = 1_000) -> str:
    """Return a string of at most `longest` characters."""
    if type(value) is str and len(value) <= longest:
        return value
    raise ValueError(f"{name} is {shown(value)}, not a text of at most {longest:,} characters")


def flag(value: Any, name: str) -> bool:
    """Return true or false."""
    if type(value) is bool:
        return value
    raise ValueError(f"{name} is {shown(value)}, not true or false")


def _range(low: float, high: float) -> str:
    return f"of {low:,} or more" if high >= LARGEST else f"from {low:,} to {high:,}"
