"""Read files that others may have written, damaged, replaced or cut.

A file is opened once. What is checked is what was read through its descriptor, and nothing is
opened again by its path between check and use. Nothing is mapped into memory: a file that is cut
while it is read gives fewer bytes than it had, and no signal.
"""

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from echospan.errors import RunError

T = TypeVar("T")

NAME_A_RUN = "name a folder that echospan train made"

_PAUSES = (0.01, 0.02, 0.03, 0.05, 0.05, 0.05, 0.1, 0.1, 0.2, 0.4)
"""Seconds between attempts: above the resolution of file times, about a second in all."""

_AT_REST = 50_000_000
"""Nanoseconds after which a file counts as not being written."""

_PIECE = 2**20
"""Bytes that are hashed at a time."""


class Changed(Exception):
    """A file that changed while it was read. Raised and caught inside this package."""


@dataclass(frozen=True)
class OpenFile:
    """A regular file that is open for reading."""

    path: Path
    """Its name in messages."""
    descriptor: int
    size: int
    """Its length in bytes when it was opened."""
    modified: int
    """Time of its last change when it was opened, in nanoseconds."""

    def read_into(self, buffer: memoryview) -> None:
        """Fill a buffer with the next bytes; raises Changed where the file ends before that."""
        while buffer:
            try:
                count = os.readv(self.descriptor, [buffer])
            except OSError as e:
                raise _unreadable(self.path, e, "") from None
            if not count:
                raise Changed
            buffer = buffer[count:]

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes; raises Changed where the file ends before that."""
        data = bytearray(count)
        self.read_into(memoryview(data))
        return bytes(data)

    def check_unchanged(self) -> None:
        """Raise Changed where the file is not the one that was opened any more."""
        now = os.fstat(self.descriptor)
        if (now.st_size, now.st_mtime_ns) != (self.size, self.modified):
            raise Changed


@contextlib.contextmanager
def open_regular(
    path: Path,
    most: int,
    *,
    folder: int | None = None,
    links: bool = False,
    remedy: str = NAME_A_RUN,
) -> Iterator[OpenFile]:
    """Open a regular file, which is closed in the end.

    Args:
        path: The file.
        most: The largest size in bytes that is accepted.
        folder: A descriptor of the folder that the file is in, so that all files of a run come
            from one folder while another one takes its place. Default: `path` is opened.
        links: Whether a symbolic link is followed.
        remedy: What the caller can do where there is no such file.

    Raises:
        RunError: For a file that is missing, too large, not regular or not readable.
    """
    try:
        descriptor = _open(path, most, folder, links, remedy)
    except (OSError, ValueError) as e:
        if isinstance(e, RunError):
            raise
        raise _unreadable(path, e, remedy) from None
    try:
        status = os.fstat(descriptor)
        yield OpenFile(path, descriptor, status.st_size, status.st_mtime_ns)
    finally:
        os.close(descriptor)


def _open(path: Path, most: int, folder: int | None, links: bool, remedy: str) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path if folder is None else path.name, flags, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ELOOP, "")
        if status.st_size > most:
            raise RunError(
                f"{path} has {status.st_size:,} bytes, more than the {most:,} that are read", remedy
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _unreadable(path: Path, e: OSError | ValueError, remedy: str) -> RunError:
    number = e.errno if isinstance(e, OSError) else None
    if number in (errno.ENOENT, errno.ENOTDIR):
        return RunError(f"{path.parent} has no {path.name}", remedy)
    if number in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
        return RunError(f"{path} is not a regular file", remedy)
    reason = e.strerror if isinstance(e, OSError) else "it is not a path"
    return RunError(f"{path} cannot be read ({reason})", "name one that you may read")


def read_regular(
    path: Path,
    most: int,
    *,
    folder: int | None = None,
    links: bool = False,
    remedy: str = NAME_A_RUN,
) -> bytes:
    """Return the content of a regular file; as `open_regular`. Raises Changed."""
    with open_regular(path, most, folder=folder, links=links, remedy=remedy) as file:
        data = file.read(file.size)
        file.check_unchanged()
        return data


def digest_regular(
    path: Path,
    most: int,
    *,
    folder: int | None = None,
    links: bool = False,
    remedy: str = NAME_A_RUN,
) -> str:
    """Return the SHA-256 digest of a regular file, read in pieces; as `read_regular`."""
    with open_regular(path, most, folder=folder, links=links, remedy=remedy) as file:
        digest, rest = hashlib.sha256(), file.size
        while rest:
            data = file.read(min(rest, _PIECE))
            digest.update(data)
            rest -= len(data)
        file.check_unchanged()
        return digest.hexdigest()


def is_folder(path: Path) -> bool:
    """Return whether a path names a folder; False for what cannot be a path at all."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Return whether a path names a regular file; False for what cannot be a path at all."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """Open a folder, which is closed in the end; yields its descriptor.

    Raises:
        RunError: For a folder that may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError as e:
        raise RunError(
            f"{path} cannot be read ({e.strerror})", "name one that you may read"
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        s = os.stat(path)
    except (OSError, ValueError):
        return ()
    return s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_size


def settled(read: Callable[[], T], paths: Iterable[Path]) -> T:
    """Return what `read` returns, and call it again while the files that it reads change.

    A failure counts where nothing changed while it was found, nor shortly before: a reader must
    not call a file damaged that is being written.

    Args:
        read: Reads the files; raises Changed or RunError.
        paths: The files, and the folders they are in. The first one names them in a message.

    Raises:
        RunError: What `read` raises, or, where the files never come to rest, that they changed.
    """
    paths = list(paths)
    for pause in _PAUSES:
        before = [_stamp(p) for p in paths]
        try:
            return read()
        except Changed:
            pass
        except RunError:
            changed_at = max((stamp[0] for stamp in before if stamp), default=0)
            at_rest = time.time_ns() - changed_at > _AT_REST
            if at_rest and before == [_stamp(p) for p in paths]:
                raise
        time.sleep(pause)
    raise RunError(f"{paths[0]} changed while it was read", "try again once nothing writes to it")
