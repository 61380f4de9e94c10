"""Where a run is read from, and what may be written where."""

import errno
import os
from pathlib import Path

from echospan import shipping
from echospan.errors import RunError, SettingError
from echospan.storage.atomic import follow, temporary_file
from echospan.storage.run_folder import names_of_run

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
    return printable(Path(run).resolve().name), there(run)


def printable(path: str | Path) -> str:
    """Return a path as text that can be printed: what is no UTF-8, or no character, is replaced."""
    text = os.fsencode(path).decode(errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def free(path: Path, overwrite: bool) -> None:
    """Check, before the work, that a file may be written.

    Args:
        path: The file; a link is followed.
        overwrite: Whether a file that is there may be replaced. A file of a run never is.

    Raises SettingError or RunError where it may not.
    """
    try:
        place = follow(path)
        if place.is_dir() or (place.exists() and not overwrite):
            raise SettingError(f"{path} exists already", "name another, or add --overwrite")
        if place.exists() and not place.is_file():
            raise SettingError(f"{path} is a pipe or a device and not a file", "name a file")
        if not place.parent.is_dir():
            raise SettingError(f"{path.parent} is no folder", "make it, or name another")
        if place.exists() and place.name in names_of_run(place.parent):
            raise SettingError(f"{path} is a file of a run", "name another")
        with temporary_file(place.parent):
            pass
    except OSError as e:
        if isinstance(e, RunError):
            raise
        where = path if e.errno == errno.ENAMETOOLONG else path.parent
        raise SettingError(
            f"nothing can be written to {where} ({e.strerror})", "name another"
        ) from None


def apart(flag: str, output: Path, run: Path) -> None:
    """Check that an output is not the run that a command reads, and does not lie in it.

    Args:
        flag: The flag that names the output, for the message.
        output: What is written.
        run: The folder that is read.

    Raises SettingError where they overlap.
    """
    read, written = run.resolve(), follow(output)
    if written == read or read in written.parents:
        raise SettingError(
            f"{flag} is {output}, which is in the run that is read, {run}", "name another place"
        )
