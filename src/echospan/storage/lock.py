"""Advisory locks of open files: they end with the process that holds them, however it ends.

A lock of `flock` belongs to the open file and is kept by the kernel, so that it also excludes
processes of other containers (other process-id namespaces) on the same file system.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path

try:
    import fcntl
except ImportError:  # a system without flock
    fcntl = None  # type: ignore[assignment]


class LocksUnsupportedError(OSError):
    """The file system, or the system, has no locks."""


def try_lock(descriptor: int) -> bool:
    """Return whether the open file is now locked by this process, without waiting.

    Raises LocksUnsupportedError where there are no locks.
    """
    if fcntl is None:
        raise LocksUnsupportedError(errno.ENOSYS, "it has no flock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        raise LocksUnsupportedError(e.errno, e.strerror) from None
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open file is still the one at `path`: it may have been removed since."""
    try:
        current = path.lstat()
    except OSError:
        return False
    opened = os.fstat(descriptor)
    return (current.st_dev, current.st_ino) == (opened.st_dev, opened.st_ino)


def remove_unlocked(path: Path) -> None:
    """Remove a regular file whose writer is gone: one that nobody holds locked. Never raises."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            if regular and try_lock(descriptor) and is_at(descriptor, path):
                os.unlink(path)
        finally:
            os.close(descriptor)
