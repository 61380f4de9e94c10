"""Where a run is read from, and what may be written where."""

import os
import tempfile
from pathlib import Path

from echospan import shipping
from echospan.errors import RunError, SettingError

NAME_ONE = "name one, such as runs/variable, or a model that is shipped, such as --model variable"


def there(run: str | Path) -> Path:
    """The run folder; where only a model that is shipped has the name, it says how to have that."""
    if str(run) in shipping.names() and not Path(run).exists():
        raise RunError(
            f"there is no run folder {run}",
            f"name one, or take the model of that name that is shipped with --model {run}",
        )
    return Path(run)


def printable(path: str | Path) -> str:
    """Return a path as text that can be printed: what is no UTF-8, or no character, is replaced."""
    text = os.fsencode(path).decode(errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def free(path: Path, overwrite: bool) -> None:
    """Whether a file may be written there, found out before the work and not after it."""
    if path.is_dir() or (path.exists() and not overwrite):
        raise SettingError(f"{path} exists already", "name another, or add --overwrite")
    if not path.resolve().parent.is_dir():
        raise SettingError(f"{path.parent} is no folder", "make it, or name another")
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as e:
        raise SettingError(
            f"nothing can be written to {path.resolve().parent} ({e.strerror})", "name another"
        ) from None
