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


def one_folder(run: str | Path | None, model: str | None) -> tuple[str, Path]:
    """Return the name and the folder of a run, or of a model that is shipped, where one is named.

    Raises SettingError where both are named, or none.
    """
    if run is not None and model is not None:
        raise SettingError(f"a run, {run}, and --model {model} are named", "name one of them")
    if model is not None:
        return model, shipping.folder(model)
    if run is None:
        raise SettingError("no run folder is named", NAME_ONE)
    return name_of(Path(run)), there(run)


def name_of(run: Path) -> str:
    """Return the name of a run folder as text: bytes that are no UTF-8 are replaced."""
    return os.fsencode(run.resolve().name).decode(errors="replace")


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
