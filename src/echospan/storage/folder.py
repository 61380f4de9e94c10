"""Folders of several files that change in one move, and that one process at a time may change.

A process claims a folder before it works (`claim`): it holds `.echospan-lock` in it locked, and the
kernel ends the lock with the process. Files are replaced together (`ClaimedFolder.commit`):

1. the new files and a plan are written to a temporary folder inside, and reach the disk;
2. that folder is renamed to `.echospan-commit`: from here on the new files count;
3. the manifest that was there is removed, the new files take their places, the new manifest last,
   and old files that have no successor are removed: where a manifest is, the files that it lists
   are beside it.

A process that is killed before the second step has changed nothing; one that is killed after it has
its work completed by the next process that claims the folder or reads it (`complete`).

A `Layout` names the files that are ours, by their digests. Another file at a name of ours is
renamed to `NAME.replaced-1`, never removed or replaced; all other files are not touched.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from echospan.errors import RunError, by_caller
from echospan.storage.atomic import (
    follow,
    is_temporary,
    remove_litter,
    sync_folder,
    temporary_name,
    write_all,
    write_whole,
)
from echospan.storage.lock import LocksUnsupportedError, is_at, try_lock

LOCK = ".echospan-lock"
COMMIT = ".echospan-commit"
PLAN = ".plan.json"

_ELSEWHERE = "name another folder" + by_caller("", " with --out")
_PATIENCE = 5.0
"""Seconds that a reader waits for a writer that is alive: its last step takes milliseconds."""


class FolderInUseError(RunError):
    """A folder that another process has claimed."""


@dataclass(frozen=True)
class Layout:
    """What makes a folder one of ours."""

    what: str
    """Its kind in a message, such as `run`."""
    manifest: str
    """The file that lists the others: written last, removed first."""
    owned: Callable[[Path], dict[str, str] | None]
    """Return the SHA-256 digest of each file in a folder that is ours, by its name, the manifest
    among them; None where the manifest is missing or foreign."""


@dataclass
class ClaimedFolder:
    """A folder that this process alone may change, until the claim ends."""

    path: Path
    """The folder itself, links followed."""
    name: Path
    """The folder as the caller names it."""
    replaced: list[Path] = field(default_factory=list)
    """Where files were put that had names of ours and were not ours."""

    def commit(
        self, layout: Layout, files: Mapping[str, bytes], remove: Collection[str] = ()
    ) -> None:
        """Put files in the place of all that the manifest lists, in one move.

        Args:
            layout: The kind of folder.
            files: All files by name, the manifest among them.
            remove: Further files of ours that go in the same move.

        Raises RunError where the disk refuses; what was there is then whole.
        """
        try:
            self._commit(layout, files, remove)
        except OSError as e:
            if isinstance(e, RunError):
                raise
            raise RunError(
                f"the {layout.what} could not be written to {self.name} ({e.strerror})",
                f"make room or {_ELSEWHERE}",
            ) from None

    def _commit(self, layout: Layout, files: Mapping[str, bytes], remove: Collection[str]) -> None:
        old = layout.owned(self.path) or {}
        going = {name: old[name] for name in old if name not in files and _is_plain(name)}
        for name in remove:
            data = read_regular(self.path / name)
            if data is not None:
                going[name] = digest(data)
        plan = {
            "manifest": layout.manifest,
            "replaces": {name: old[name] for name in old if name in files},
            "removes": going,
        }
        staged = self.path / temporary_name()
        os.mkdir(staged)
        try:
            for name, data in files.items():
                _write_new(staged / name, data)
            _write_new(staged / PLAN, json.dumps(plan).encode())
            sync_folder(staged)
            staged_names = sorted(_names(staged))
            os.rename(staged, self.path / COMMIT)
        except BaseException:
            _remove_folder(staged)
            raise
        sync_folder(self.path)
        try:
            self.replaced += _apply(self.path)
        except OSError as e:
            untouched = old.get(layout.manifest) is None or _holds(
                self.path / layout.manifest, old[layout.manifest]
            )
            if untouched and staged_names == sorted(_names(self.path / COMMIT)):
                os.rename(self.path / COMMIT, staged)
                _remove_folder(staged)
                raise
            raise RunError(
                f"the {layout.what} in {self.name} is written but could not take its place "
                f"({e.strerror})",
                f"it is whole in {COMMIT} there, and takes its place when the folder is next used",
            ) from None

    def write(self, name: str, data: bytes, before: str | None = None) -> None:
        """Write one file whole, outside of any commit.

        Args:
            name: Its name.
            data: All of its content.
            before: The name under which the file that was there is kept.

        Raises RunError where the disk refuses; the files that were there are then whole.
        """
        try:
            write_whole(self.path / name, data, None if before is None else self.path / before)
        except RunError as e:
            raise RunError(e.fact.replace(str(self.path), str(self.name), 1), e.remedy) from None

    def set_aside(self, name: str) -> None:
        """Rename a file that has a name of ours and is not ours."""
        self.replaced.append(_set_aside(self.path / name))


@contextlib.contextmanager
def claim(
    folder: str | Path, purpose: str, check: Callable[[Path], object]
) -> Iterator[ClaimedFolder]:
    """Make a folder if it is not there and keep other processes from changing it meanwhile.

    Args:
        folder: Its path; a link is followed.
        purpose: What the others read about this process, such as `echospan train`.
        check: Called with the folder itself if it is there, before and after it is claimed; raises
            where it may not be used.

    Raises RunError where another process holds it, the path leads nowhere, the disk refuses, or
    the file system has no locks. A folder that was made for this and stays empty is removed.
    """
    name = Path(folder)
    place = follow(name)
    with _refused(name):
        descriptor, made = _locked(place, name, purpose, check)
    try:
        with _refused(name):
            _complete_and_clean(place)
        check(place)
        yield ClaimedFolder(place, name)
    finally:
        with contextlib.suppress(OSError):
            _complete_and_clean(place)
        _release(place, descriptor)
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(place)  # where it is still empty


@contextlib.contextmanager
def _refused(name: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if isinstance(e, RunError):
            raise
        raise RunError(
            f"nothing can be written to {name} ({e.strerror})",
            "name a folder on a disk with room that you may write to",
        ) from None


def _locked(
    place: Path, name: Path, purpose: str, check: Callable[[Path], object]
) -> tuple[int, bool]:
    """Return the locked file, and whether the folder was made for the claim."""
    while True:
        made = False
        if not os.path.lexists(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                place.mkdir()
                made = True
        # What is ours and in use is reported as such, whatever else it is.
        left_over = os.path.lexists(place / LOCK)
        if not made and not left_over:
            check(place)
        try:
            descriptor = _open_lock(place, name)
        except FileNotFoundError:
            if os.path.lexists(place):
                raise
            continue  # another claim has just ended, and removed the folder
        except OSError:
            if made:
                with contextlib.suppress(OSError):
                    os.rmdir(place)
            raise
        if descriptor is not None:
            _describe_holder(descriptor, purpose)
            return descriptor, made or left_over


def _open_lock(place: Path, name: Path) -> int | None:
    """Return the lock, open and held; None where it was removed meanwhile."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(place / LOCK, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RunError(f"{name}/{LOCK} is not a file of echospan", f"{_ELSEWHERE}")
        if not try_lock(descriptor):
            raise FolderInUseError(
                f"{name} is in use by {_holder(descriptor)}", f"wait until it ends, or {_ELSEWHERE}"
            )
        if is_at(descriptor, place / LOCK):
            return descriptor
    except LocksUnsupportedError as e:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(place / LOCK)
        raise RunError(
            f"{name} is on a file system that cannot lock files ({e.strerror})",
            f"another process could change it meanwhile: {_ELSEWHERE} on a disk of this machine",
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _describe_holder(descriptor: int, purpose: str) -> None:
    text = json.dumps(
        {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().isoformat(" ", "seconds"),
            "purpose": purpose,
        }
    )
    with contextlib.suppress(OSError):  # for people alone: the lock does not depend on it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _holder(descriptor: int) -> str:
    """Return who holds the lock, as the file says: it may be empty, or say anything."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        held: Any = json.loads(os.pread(descriptor, 4096, 0))
        words = (f"{held['purpose']}", f"{held['host']}", f"{held['since']}")
        if all(re.fullmatch(r"[\w .:-]{1,64}", word) for word in words):
            purpose, host, since = words
            return f"{purpose} (process {int(held['process'])} on {host}, since {since})"
    return "another process"


def _release(place: Path, descriptor: int) -> None:
    # While it is held: who opened it before this finds that it is gone, and opens another.
    with contextlib.suppress(OSError):
        if is_at(descriptor, place / LOCK):
            os.unlink(place / LOCK)
    os.close(descriptor)


def complete(folder: Path) -> None:
    """Complete a move whose writer was killed in it; waits for one that is alive. For readers.

    Raises RunError where that writer does not come to its end, or the folder cannot be written.
    """
    waited_from = time.monotonic()
    while os.path.lexists(folder / COMMIT):
        try:
            descriptor = _open_lock(folder, folder)
        except FolderInUseError:
            if time.monotonic() - waited_from > _PATIENCE:
                raise
            time.sleep(0.01)
            continue
        except OSError as e:
            if isinstance(e, RunError):
                raise
            raise RunError(
                f"{folder} was not completed when it was last written, and it cannot be "
                f"completed here ({e.strerror})",
                "name it once where it may be written to",
            ) from None
        if descriptor is not None:
            try:
                _apply(folder)
            finally:
                _release(folder, descriptor)


def _complete_and_clean(place: Path) -> None:
    """Complete a move, and remove what killed writers left: the lock is held."""
    _apply(place)
    remove_litter(place)
    with os.scandir(place) as entries:
        staged = [
            Path(e.path)
            for e in entries
            if is_temporary(e.name) and e.is_dir(follow_symlinks=False)
        ]
    for path in staged:
        _remove_folder(path)


def _apply(place: Path) -> list[Path]:
    """Carry out the plan of a commit, from wherever it was left; the lock is held.

    Returns where files were put that were in the way and not ours.
    """
    commit, aside = place / COMMIT, list[Path]()
    if not os.path.lexists(commit):
        return aside
    if commit.is_symlink() or not commit.is_dir():
        return [_set_aside(commit)]
    if os.path.lexists(commit / PLAN):
        plan = _plan(commit)
        if plan is None:
            return [_set_aside(commit)]
        replaces, removes, manifest = plan
        names = sorted(_names(commit), key=lambda name: (name == manifest, name))
        if manifest in names and os.path.lexists(place / manifest):
            if _holds(place / manifest, replaces.get(manifest)):
                os.unlink(place / manifest)
            else:
                aside.append(_set_aside(place / manifest))
        for name in names:
            if os.path.lexists(place / name) and not _holds(place / name, replaces.get(name)):
                aside.append(_set_aside(place / name))
            os.replace(commit / name, place / name)
        sync_folder(place)
        for name, ours in removes.items():
            # What cannot be removed is not listed any more: it spoils nothing.
            with contextlib.suppress(OSError):
                if _holds(place / name, ours):
                    os.unlink(place / name)
                elif os.path.lexists(place / name):
                    aside.append(_set_aside(place / name))
        sync_folder(place)
        os.unlink(commit / PLAN)
    try:
        os.rmdir(commit)
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        aside.append(_set_aside(commit))  # it holds what no writer of ours puts there
    return aside


def _names(commit: Path) -> list[str]:
    with os.scandir(commit) as entries:
        regular = (e.name for e in entries if e.is_file(follow_symlinks=False))
        return [name for name in regular if not name.startswith(".")]


def _plan(commit: Path) -> tuple[dict[str, str], dict[str, str], str] | None:
    """Return digests of what is replaced and removed, and the manifest; None where damaged."""
    data = read_regular(commit / PLAN, 10_000_000)
    try:
        plan: Any = json.loads(data or b"")
        digests = [
            {_plain(name): str(value) for name, value in plan[part].items()}
            for part in ("replaces", "removes")
        ]
        return digests[0], digests[1], _plain(plan["manifest"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_plain(name: object) -> bool:
    """Return whether it is the name of a file in the folder itself, and none that is hidden."""
    return isinstance(name, str) and not name.startswith(".") and not {"/", "\0"} & set(name)


def _plain(name: Any) -> str:
    if not _is_plain(name):
        raise ValueError(name)
    return str(name)


def is_empty(folder: Path) -> bool:
    """Return whether a folder holds nothing but what a claim of ours leaves."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return all(entry.name == LOCK or is_temporary(entry.name) for entry in entries)


def digest(data: bytes) -> str:
    """Return the SHA-256 digest by which a file of ours is recognised."""
    return hashlib.sha256(data).hexdigest()


def read_regular(path: Path, most: int | None = None) -> bytes | None:
    """Return the content of a regular file; None for all else, and for more than `most` bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or (most is not None and status.st_size > most):
            return None
        return file.read()


def _holds(path: Path, ours: str | None) -> bool:
    data = read_regular(path)
    return data is not None and digest(data) == ours


def _set_aside(path: Path) -> Path:
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.replaced-{number}")
        if not os.path.lexists(aside):
            os.rename(path, aside)
            return aside
    raise AssertionError


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _remove_folder(path: Path) -> None:
    """Remove a temporary folder with the files in it. Never raises."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(path)):
            os.unlink(entry.path)
        os.rmdir(path)
