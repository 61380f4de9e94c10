"""Types of flags that several commands have."""

from typing import Annotated

import tyro


def _whole(words: list[str]) -> int:
    number = float(words[0]) if any(c in words[0] for c in ".eE") else int(words[0])
    if abs(number) == float("inf") or number != int(number):
        raise ValueError(f"{words[0]} is no whole number")
    return int(number)


Whole = Annotated[
    int,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=_whole,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A whole number that may be written 2e6."""
