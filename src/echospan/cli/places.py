"""Where a command may write a file."""

import tempfile
from pathlib import Path

from echospan.errors import SettingError


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
