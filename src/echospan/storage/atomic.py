"""Single files, written whole or not at all.

The data go to a temporary file beside the place, `.echospan-<16 hex digits>.part`, which its writer
holds locked, reach the disk, and take the place by a rename. A temporary file that nobody holds
locked was left by a process that was killed; the next writer to that folder removes it.
"""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from echospan.errors import RunError
from echospan.storage.lock import (
    LocksUnsupportedError,
    is_at,
    remove_unlocked,
    try_lock,
)

_PART = re.compile(r"\.echospan-[0-9a-f]{16}\.part")


def is_temporary(name: str) -> bool:
    """Return whether a file or folder of this name is a temporary one of a writer of ours."""
    return _PART.fullmatch(name) is not None


def temporary_name() -> str:
    """Return a fresh name for a temporary file or folder."""
    return f".echospan-{secrets.token_hex(8)}.part"


def follow(path: str | Path) -> Path:
    """Return where an output path leads, links followed.

    Raises RunError for a link that leads nowhere or in a circle, and for what cannot be a path.
    """
    path = Path(path)
    try:
        for part in (path, *path.parents):
            if os.path.islink(part) and not os.path.exists(part):
                # os.path answers where pathlib raises: for circles and names that are too long.
                raise RunError(
                    f"{part} is a link to {os.readlink(part)}, and nothing is there",
                    "make what it leads to, remove the link, or name another place",
                )
        return Path(os.path.realpath(path))
    except ValueError as e:
        raise RunError(f"{str(path)!r} is no path ({e})", "name another place") from None


def write_whole(path: str | Path, data: bytes, before: Path | None = None) -> None:
    """Write a file whole or not at all; a link is followed, the mode of an old file is kept.

    Args:
        path: The file to write or replace.
        data: All of its content.
        before: Where the file that was there is kept, replacing one that was there before it.

    Raises RunError where the path is no regular file or leads nowhere, or the disk refuses; the old
    file is then whole.
    """
    try:
        place = follow(path)
        if place.exists() and not place.is_file():
            raise RunError(f"{path} is a folder, a pipe or a device and not a file", "name a file")
        remove_litter(place.parent)
        with temporary_file(place.parent) as (descriptor, temporary):
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(descriptor, stat.S_IMODE(place.stat().st_mode))
            write_all(descriptor, data)
            if before is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(place, before)
            os.replace(temporary, place)
        sync_folder(place.parent)
    except OSError as e:
        if isinstance(e, RunError):
            raise
        raise RunError(
            f"{path} could not be written ({e.strerror})", "make room or name another place"
        ) from None


def write_all(descriptor: int, data: bytes) -> None:
    """Write all the data to an open file, and wait until they are on the disk."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield an open temporary file in a folder and its path; it is removed if it is still there."""
    descriptor, path = _create(folder)
    try:
        yield descriptor, path
    finally:
        # Before it is closed: the lock is what keeps another writer from removing it.
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def _create(folder: Path) -> tuple[int, Path]:
    while True:
        path = folder / temporary_name()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            # Another writer may have taken it for litter before it was locked.
            if try_lock(descriptor) and is_at(descriptor, path):
                return descriptor, path
        except LocksUnsupportedError:
            return descriptor, path  # where nobody can lock, nobody removes litter
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can tell."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_litter(folder: Path) -> None:
    """Remove the temporary files in a folder whose writers were killed. Never raises."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_temporary(entry.name) and entry.is_file(follow_symlinks=False):
                remove_unlocked(Path(entry.path))
