"""Trained models that come with the package: each is a run folder beside this file.

    fixed      letters, delay 4       the assignment's first part
    variable   letters, delays 0–8    the assignment's second part
    bits       0 and 1, delays 0–3    eight units: small enough to look at each

The README in each says what it recalls and which command made it; `python -m benchmarks.shipped`
makes them anew and compares.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echospan.errors import SettingError, nearest
from echospan.text import shown

if TYPE_CHECKING:
    from echospan.model import EchoModel

HERE = Path(__file__).parent


def names() -> tuple[str, ...]:
    """Of the models that are shipped."""
    return tuple(sorted(p.parent.name for p in HERE.glob("*/config.json")))


def folder(name: str) -> Path:
    """The run folder of a model that is shipped; SettingError, with the nearest, for no such."""
    if not isinstance(name, str) or name not in names():
        raise SettingError(
            f"no model {shown(name)} is shipped",
            nearest(name, names()) + f"use one of {', '.join(names())}",
        )
    return HERE / name


def shipped(name: str) -> "EchoModel":
    """A trained model that comes with the package, in `eval()`, on the CPU.

    Raises SettingError where none has that name.
    """
    from echospan.checkpoint import load  # torch, which the list of names does without

    return load(folder(name))
