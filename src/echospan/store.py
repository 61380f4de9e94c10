"""Results of benches in one SQLite file: one transaction for each result, readable at any time.

Processes of one machine may share a file, in one container or in several; a network drive may not
lock it as SQLite needs. The file is whole by itself: SQLite's rollback journal keeps nothing that
has been committed outside of it, so that a copy of the file, also after a crash, lacks no result.

What a file holds is verified when it is opened and when it is read:

- SQLite's own integrity check sees damaged pages;
- the schema must be exactly that of `FORMAT`, so nothing runs that a stranger put into it;
- each row has a SHA-256 digest, and `totals` the number of rows and the sum of their digests, which
  every transaction updates: a row that is missing, doubled or changed is an error;
- cells and profiles are checked field by field, for authors who compute the digests anew.

Benches that share a file claim the cells that they run. A claim holds a random token of its bench,
and a number that the bench counts up every `BEAT` seconds. Whether a bench still runs is decided
without wall clocks and process ids, which differ between containers and jump: on one machine a file
lock, which the kernel releases with its holder, tells at once; elsewhere a claim is void when its
number has not changed for `LEASE` seconds of the observer's monotonic clock.
"""

import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from echospan.benching import CellResult
from echospan.errors import SettingError, StoreError, option
from echospan.grids import Cell
from echospan.json_fields import integer, number, string
from echospan.profiling import Profile, combine
from echospan.text import plain, shown
from echospan.validation import path as a_path

try:
    import fcntl
except ImportError:  # pragma: no cover: Windows, where the lease alone decides
    fcntl = None  # type: ignore[assignment]

FORMAT = 3
"""The format of the file, SQLite's user_version. Files of another format are refused."""

_MARK = 0x4563686F
"""SQLite's application_id: "Echo"."""

_SCHEMA = {
    "results": """CREATE TABLE results (
        key TEXT PRIMARY KEY, digest TEXT NOT NULL, cell TEXT NOT NULL, error TEXT,
        tries INTEGER NOT NULL, seconds REAL NOT NULL, ended TEXT NOT NULL, profile TEXT
    ) STRICT""",
    "totals": """CREATE TABLE totals (
        id INTEGER PRIMARY KEY CHECK (id = 1), rows INTEGER NOT NULL, digest TEXT NOT NULL
    ) STRICT""",
    "claims": """CREATE TABLE claims (
        key TEXT PRIMARY KEY, bench TEXT NOT NULL, boot TEXT NOT NULL, beat INTEGER NOT NULL
    ) STRICT""",
}

_FIELDS = ("key", "cell", "error", "tries", "seconds", "ended", "profile")
"""Columns of `results` under the digest of a row, in its order."""

WAIT = 60.0
"""Seconds to wait for another process that writes the file."""

BEAT = 10.0
"""Seconds from one beat of a bench to the next."""

LEASE = 60.0
"""Seconds without a beat, of the observer's monotonic clock, after which a claim is void."""

_LONGEST_ERROR = 10_000

_ROW_BYTES = 16 * 2**20
"""The largest row. A profile of the largest `max_delay` of a grid takes 10 MiB."""

_OPENING = 1_000_000
"""Instructions of SQLite's machine for reading the schema; our own takes some hundred. A file made
for it could else keep the parser busy for ever, before the integrity check sees its pages."""


@dataclass(frozen=True)
class Stored:
    """A result as the file has it: a profile, or the error that the cell failed with."""

    cell: Cell
    profile: Profile | None
    error: str | None
    tries: int
    seconds: float
    ended: str

    @property
    def status(self) -> str:
        """`done` or `failed`."""
        return "failed" if self.profile is None else "done"

    @property
    def hidden(self) -> int | None:
        """The width that was measured; of a failed cell the one that was asked for."""
        return self.cell.hidden if self.profile is None else self.profile.hidden

    @property
    def row(self) -> dict[str, Any]:
        """The figures by the names of `COLUMNS`."""
        return {name: value(self) for name, value in _COLUMNS.items()}


def _of_profile(name: str) -> Callable[[Stored], Any]:
    return lambda s: None if s.profile is None else getattr(s.profile, name)


def _of_seed(name: str) -> Callable[[Stored], Any]:
    return lambda s: None if s.profile is None else getattr(s.profile.seeds[0], name)


_COLUMNS: dict[str, Callable[[Stored], Any]] = {
    "key": lambda s: s.cell.key,
    "status": lambda s: s.status,
    "core": lambda s: s.cell.core,
    "hidden": lambda s: s.hidden,
    "parameters": _of_profile("parameters"),
    "state": _of_profile("state"),
    "max_delay": lambda s: s.cell.max_delay,
    "seed": lambda s: s.cell.seed,
    "span": _of_seed("span"),
    "span_at_most": _of_seed("span_at_most"),
    "reads": _of_seed("reads"),
    "stores": _of_seed("stores"),
    "bits": _of_seed("recalled_bits"),
    "rising": _of_seed("rising"),
    "symbols": _of_seed("symbols"),
    "learning_rate": _of_seed("learning_rate"),
    "tries": lambda s: s.tries,
    "seconds": lambda s: s.seconds,
    "symbols_per_second": _of_profile("symbols_per_second"),
    "microseconds": _of_seed("microseconds"),
    "symbols_to_target": _of_seed("symbols_to_target"),
    "seconds_to_target": _of_seed("seconds_to_target"),
    "ended": lambda s: s.ended,
    "error": lambda s: s.error,
    "setting": lambda s: s.cell.key_without("seed"),
    "race": lambda s: s.cell.key_without("core", "hidden", "source"),
}

COLUMNS = tuple(_COLUMNS)
"""The columns of a result in `results` and in CSV. `setting` is the same for cells that differ in
nothing but their seed, `race` for those that differ in nothing but their core and its width."""


class Store:
    """A file of results.

    Args:
        path: The file; a link is followed.
        write: Whether results can be added; the file is then made where there is none. False opens
            an existing file, also on a medium that is read-only.

    Raises:
        StoreError: The file is missing, foreign, damaged, of another format, or cannot be written.
    """

    def __init__(self, path: str | Path, *, write: bool = True) -> None:
        self.path = Path(path)
        self._write = write
        self._bench = secrets.token_hex(16)
        self._observed: dict[str, tuple[str, int, float]] = {}
        self._failed: dict[str, str] = {}
        self._present: set[str] = set()
        self._recovered: Path | None = None
        self._absolute = Path.cwd() / self.path
        self._file = self._checked_path()
        with self._errors():
            self._db = self._opened()
        self._inode = self._inode_now()

    def _checked_path(self) -> Path:
        """Return the file that the path leads to; StoreError for what is no file."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            status = None
        except (OSError, ValueError) as e:  # too long, a link to itself, a NUL, not permitted
            reason = getattr(e, "strerror", None) or e
            raise StoreError(f"{self.path} is no path ({reason})", "name another file") from None
        if status is None and not self._write:
            raise StoreError(
                f"there is no file of results {self.path}", "make one with echospan bench --store"
            )
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise StoreError(f"{self.path} is a folder", "name a file, such as results.sqlite")
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise StoreError(
                f"{self.path} is no regular file", "name a file, such as results.sqlite"
            )
        if status is not None and self._write and status.st_nlink > 1:
            # A crash leaves a journal under one name, which SQLite looks for under the other.
            raise StoreError(
                f"{self.path} has {status.st_nlink} names (hard links)",
                "SQLite keeps a file whole under one name alone: copy it, or remove the others",
            )
        file = Path(os.path.realpath(self.path))
        if not file.parent.is_dir():
            raise StoreError(f"{self.path.parent} is no folder", "make it, or name another")
        return file

    def _opened(self) -> sqlite3.Connection:
        """Return a connection to the file, verified; for writing, its tables are made first."""
        if self._write:
            return self._verified("mode=rwc")
        beside = [self._file.with_name(self._file.name + end) for end in ("-wal", "-journal")]
        writable = os.access(self._file, os.W_OK) and os.access(self._file.parent, os.W_OK)
        try:
            # What a crash left in a journal is rolled back by the first reader that may.
            return self._verified("mode=rw" if writable else "mode=ro")
        except sqlite3.OperationalError:
            if writable or any(path.exists() for path in beside):
                raise
        # A file in WAL mode asks for files beside it, which a read-only medium refuses.
        return self._verified("mode=ro&immutable=1")

    def _verified(self, mode: str) -> sqlite3.Connection:
        db = self._connection(mode)
        try:
            db.set_progress_handler(lambda: 1, _OPENING)
            if self._write:
                db.execute("BEGIN IMMEDIATE")
                if _pragma(db, "application_id") == 0 and not _schema(db):
                    _make_tables(db)
                db.execute("COMMIT")
            db.execute("BEGIN")
            self._check_format(db)
            db.set_progress_handler(None, 0)
            (problem,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            if problem != "ok":
                raise self._damaged_file(problem)
            digests = [row[0] for row in db.execute("SELECT digest FROM results")]
            self._check_totals(db, digests)
            db.execute("COMMIT")
            if self._write and db.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                with contextlib.suppress(sqlite3.OperationalError):  # others have it open
                    db.execute("PRAGMA journal_mode=DELETE")
        except BaseException:
            db.close()
            raise
        return db

    def _connection(self, mode: str) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"{self._file.as_uri()}?{mode}", uri=True, timeout=WAIT, isolation_level=None
        )
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _ROW_BYTES)
        for setting in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0"):
            db.execute(f"PRAGMA {setting}")
        db.execute("PRAGMA synchronous=EXTRA")
        return db

    def _check_format(self, db: sqlite3.Connection) -> None:
        foreign = StoreError(
            f"{self.path} is no file of results", "name one that echospan bench made"
        )
        if _pragma(db, "application_id") != _MARK:
            raise foreign
        if (version := _pragma(db, "user_version")) != FORMAT:
            raise StoreError(
                f"{self.path} has format {version}, and this echospan reads format {FORMAT}",
                "use the echospan that made it, or run the bench again into another file",
            )
        if _schema(db) != _SCHEMA:
            raise foreign

    def _check_totals(self, db: sqlite3.Connection, digests: Sequence[str]) -> None:
        """Raise StoreError unless these are the digests of all rows that were ever stored."""
        totals = db.execute("SELECT rows, digest FROM totals").fetchone() or (0, "")
        try:
            digest = _sum(digests)
        except ValueError:  # one is no number
            digest = "none"
        if totals != (len(digests), digest):
            raise self._damaged_file(
                f"{totals[0]:,} results were stored, and {len(digests):,} are found"
                if totals[0] != len(digests)
                else "the digest of all results differs"
            )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of SQLite into a StoreError."""
        try:
            yield
        except (sqlite3.Error, UnicodeError) as e:
            name = getattr(e, "sqlite_errorname", "")
            if name == "SQLITE_READONLY_DBMOVED":
                raise self._gone() from e
            if name == "SQLITE_NOTADB":
                raise StoreError(
                    f"{self.path} is no file of results", "name one that echospan bench made"
                ) from e
            raise StoreError(
                f"{self.path} cannot be {'written' if self._write else 'read'} ({e})",
                "wait until no other process holds it"
                if name in ("SQLITE_BUSY", "SQLITE_LOCKED")
                else "see that the disk has room and the file is whole and yours",
            ) from e

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _inode_now(self) -> tuple[int, int] | None:
        try:
            status = self._absolute.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def check(self) -> None:
        """Raise StoreError if the path no longer leads to the file that is written, or that is no
        longer a file of results."""
        self._check_place()
        try:
            self._db.execute("SELECT rows FROM totals").fetchone()
        except sqlite3.Error as e:
            if getattr(e, "sqlite_errorname", "") != "SQLITE_BUSY":
                raise StoreError(
                    f"{self.path} was overwritten while it was open ({e})",
                    "run the command again with a file that nothing else writes",
                ) from None

    def verify(self, cells: Iterable[Cell]) -> list[Stored]:
        """Return the results of these cells, read anew from the file at the path.

        Raises StoreError if it is another file, damaged, or lacks a result that this object has
        added or found before.
        """
        self.check()
        wanted = {cell.key for cell in cells}
        with Store(self._absolute, write=False) as fresh:
            results = [s for s in fresh.stored() if s.cell.key in wanted]
        if missing := (wanted & self._present) - {s.cell.key for s in results}:
            raise StoreError(
                f"{self.path} lacks {len(missing):,} results that were stored in it",
                "something else has written to it: run the command again",
            )
        return results

    def _check_place(self) -> None:
        if self._inode_now() != self._inode:
            raise self._gone()

    def _gone(self) -> StoreError:
        """Return the error of a file that was removed or replaced; its results are copied first."""
        name = f"{self._file.stem}-recovered-{self._bench[:8]}{self._file.suffix}"
        for folder in (self._file.parent, Path(tempfile.gettempdir())):
            if self._recovered is None:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("VACUUM INTO ?", (str(folder / name),))
                    self._recovered = folder / name
        return StoreError(
            f"{self.path} was removed, moved or replaced while it was open",
            "run the command again"
            if self._recovered is None
            else f"what it held is in {self._recovered}: move that back, and run the command again",
        )

    def missing(self, cells: Iterable[Cell], *, again: bool = False) -> list[Cell]:
        """Return the cells that have no result.

        Args:
            cells: The cells of a bench.
            again: Count those that have failed as missing. `claim` then takes each of them once:
                not where another bench has run it since.
        """
        with self._errors():
            rows = self._db.execute("SELECT key, digest, profile IS NULL FROM results").fetchall()
        failed = {key: digest for key, digest, failed in rows if failed}
        ended = {key for key, _, _ in rows}
        self._present |= ended
        if again:
            self._failed = failed
            ended -= failed.keys()
        return [cell for cell in cells if cell.key not in ended]

    def claim(self, cell: Cell, *, again: bool = False) -> bool:
        """Return whether this bench may run the cell: it has no result, and no other bench runs it.

        A claim ends with its result, with the session of its bench (`session`), or `LEASE` seconds
        after its last beat that this object has observed, in an earlier call.

        Args:
            cell: The cell.
            again: Take one that had failed when `missing` was called.
        """
        key = cell.key
        with self._errors(), self._transaction():
            ended = self._db.execute(
                "SELECT digest, profile IS NULL FROM results WHERE key=?", (key,)
            ).fetchone()
            if ended and not (again and ended[1] and self._failed.get(key, ended[0]) == ended[0]):
                return False
            held = self._db.execute(
                "SELECT bench, boot, beat FROM claims WHERE key=?", (key,)
            ).fetchone()
            if held and held[0] != self._bench and self._runs(key, *held):
                return False
            self._db.execute(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, 0)", (key, self._bench, _boot())
            )
        return True

    def _runs(self, key: str, bench: str, boot: str, beat: int) -> bool:
        """Return whether the bench that has claimed a cell may still run it."""
        if boot and boot == _boot() and _is_free(self._lock_of(bench)):
            self._forget(bench)
            return False
        before = self._observed.get(key)
        if before is None or before[:2] != (bench, beat):
            self._observed[key] = bench, beat, time.monotonic()
            return True
        return time.monotonic() - before[2] <= LEASE

    def _lock_of(self, bench: str) -> Path:
        return self._file.with_name(f"{self._file.name}-bench-{bench}")

    def _forget(self, bench: str) -> None:
        """Remove the claims and the lock of a bench of this machine that has ended."""
        self._db.execute("DELETE FROM claims WHERE bench=?", (bench,))
        with contextlib.suppress(OSError):
            self._lock_of(bench).unlink()

    def _forget_ended(self) -> None:
        """Remove what killed benches of this machine have left."""
        prefix = self._lock_of("").name
        with self._errors(), self._transaction():
            elsewhere = self._db.execute("SELECT bench FROM claims WHERE boot<>?", (_boot(),))
            benches = {name for (name,) in elsewhere}
            for path in self._file.parent.iterdir():
                bench = path.name.removeprefix(prefix)
                if bench != path.name and bench not in benches and _is_free(path):
                    self._forget(bench)

    @contextlib.contextmanager
    def session(self, every: float | None = None) -> Iterator[None]:
        """Keep the claims of this bench alive; they are given up at the end.

        A lock shows other benches of this machine that this one runs, and beats show it to all.

        Args:
            every: Seconds from beat to beat; `BEAT` where left out.
        """
        self._forget_ended()
        over = threading.Event()
        beats = threading.Thread(
            target=self._beats, args=(BEAT if every is None else every, over), daemon=True
        )
        with _lock(self._lock_of(self._bench)):
            beats.start()
            try:
                yield
            finally:
                over.set()
                beats.join()
                # A file that is gone is named by `check` and `verify`.
                with contextlib.suppress(sqlite3.Error), self._transaction():
                    self._db.execute("DELETE FROM claims WHERE bench=?", (self._bench,))

    def _beats(self, every: float, over: threading.Event) -> None:
        with contextlib.closing(self._connection("mode=rw")) as db:
            while not over.wait(every):
                # The next beat makes up for one that fails.
                with contextlib.suppress(sqlite3.Error):
                    db.execute("UPDATE claims SET beat = beat + 1 WHERE bench=?", (self._bench,))

    def add(self, result: CellResult) -> None:
        """Store a result in one transaction; a failure never takes the place of a profile."""
        self.add_all([result])

    def add_all(self, results: Iterable[CellResult]) -> None:
        """Store several results, all or none.

        Raises StoreError if the file cannot be written, or is no longer at its path.
        """
        results = list(results)
        rows = [_row(result) for result in results]
        try:
            with self._errors(), self._transaction():
                self._insert(rows)
            self._check_place()
        except StoreError:
            if self._recovered is not None:
                with contextlib.suppress(StoreError), Store(self._recovered) as copy:
                    copy.add_all(results)
            raise
        self._present |= {row["key"] for row in rows}

    def _insert(self, rows: Sequence[dict[str, Any]]) -> None:
        count, digest = self._db.execute("SELECT rows, digest FROM totals").fetchone()
        for row in rows:
            old = self._db.execute(
                "SELECT digest, profile IS NULL FROM results WHERE key=?", (row["key"],)
            ).fetchone()
            self._db.execute("DELETE FROM claims WHERE key=?", (row["key"],))
            if old and not old[1]:
                continue
            self._db.execute(
                f"INSERT OR REPLACE INTO results ({', '.join(row)}) "
                f"VALUES ({', '.join('?' * len(row))})",
                tuple(row.values()),
            )
            count += old is None
            digest = _sum([digest, row["digest"]], [old[0]] if old else [])
        self._db.execute("UPDATE totals SET rows=?, digest=?", (count, digest))

    def __len__(self) -> int:
        with self._errors():
            return int(self._db.execute("SELECT rows FROM totals").fetchone()[0])

    def stored(self, keys: Iterable[str] | None = None) -> list[Stored]:
        """Return every result, or those of some keys, by core, width, delays and seed.

        Raises StoreError if a row is damaged, or rows are missing.
        """
        return sorted(map(self._result, self._rows(keys)), key=_order)

    def rows(self) -> list[dict[str, Any]]:
        """Return every result as a row of `COLUMNS`, by core, width, delays and seed."""
        ordered = [(_order(s), s.row) for s in map(self._result, self._rows())]
        return [row for _, row in sorted(ordered, key=lambda pair: pair[0])]

    def _rows(self, keys: Iterable[str] | None = None) -> list[tuple[Any, ...]]:
        """Return rows of `digest` and `_FIELDS`; all of them are as many as were stored."""
        columns = ", ".join(("digest", *_FIELDS))
        with self._errors():
            self._db.execute("BEGIN")  # rows and totals of one moment
            try:
                if keys is None:
                    rows = self._db.execute(f"SELECT {columns} FROM results").fetchall()
                    self._check_totals(self._db, [row[0] for row in rows])
                else:
                    rows = self._db.execute(
                        f"SELECT {columns} FROM results "
                        "WHERE key IN (SELECT value FROM json_each(?))",
                        (json.dumps(list(keys)),),
                    ).fetchall()
            finally:
                self._db.execute("COMMIT")
        return rows

    def _result(self, row: tuple[Any, ...]) -> Stored:
        """Return the result of a row of `digest` and `_FIELDS`, checked."""
        key, cell_json, error, tries, seconds, ended, profile_json = row[1:]
        try:
            if row[0] != _digest(row[1:]):
                raise ValueError("its digest differs")
            cell = Cell.from_json(cell_json)
            profile = None if profile_json is None else Profile.from_json(profile_json)
            if key != cell.key:
                raise ValueError("its key is not that of its cell")
            if (error is None) != (profile is not None):
                raise ValueError("it has no profile or error, or both")
            if profile is not None:
                _check_profile(profile, cell)
            return Stored(
                cell,
                profile,
                None if error is None else string(error, "error", _LONGEST_ERROR),
                integer(tries, "tries", 1),
                number(seconds, "seconds", 0, 1e12),
                string(ended, "ended", 40),
            )
        except ValueError as e:  # a SettingError is one
            raise StoreError(
                f"{self.path} holds a result that is damaged ({shown(key)}: {e})",
                "take a copy of the file from before, or run the bench again into another file",
            ) from None

    def _damaged_file(self, why: str) -> StoreError:
        return StoreError(
            f"{self.path} is damaged ({plain(why, 200)})",
            "take a copy of the file from before, or run the bench again into another file",
        )


def _check_profile(profile: Profile, cell: Cell) -> None:
    """Raise ValueError unless the profile is that of the cell."""
    expected = {
        "name": cell.core,
        "max_delay": cell.max_delay,
        "at": cell.at,
        "symbols": len(cell.alphabet),
    }
    for name, value in expected.items():
        if getattr(profile, name) != value:
            raise ValueError(f"{name} of its profile is {shown(getattr(profile, name))}")
    if [seed.seed for seed in profile.seeds] != [cell.seed]:
        raise ValueError("its profile is of other seeds")


def _order(stored: Stored) -> tuple[Any, ...]:
    cell = stored.cell
    return cell.core, stored.hidden or 0, cell.max_delay, cell.seed, cell.key


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _schema(db: sqlite3.Connection) -> dict[str, str]:
    """Return the statements that made what is in the file, without what SQLite makes by itself."""
    rows = db.execute("SELECT type, name, sql FROM sqlite_schema")
    own = ("sqlite_stat1", "sqlite_stat4")  # of ANALYZE, which programs for SQLite files run
    return {
        name: sql for kind, name, sql in rows if (kind, sql) != ("index", None) and name not in own
    }


def _make_tables(db: sqlite3.Connection) -> None:
    for statement in _SCHEMA.values():
        db.execute(statement)
    db.execute("INSERT INTO totals VALUES (1, 0, ?)", (_sum([]),))
    db.execute(f"PRAGMA application_id={_MARK}")
    db.execute(f"PRAGMA user_version={FORMAT}")


def _digest(fields: Sequence[Any]) -> str:
    """Return the SHA-256 of the fields of a row, each with its type and length."""
    digest = hashlib.sha256()
    for value in fields:
        data = str(value).encode()
        digest.update(f"{type(value).__name__} {len(data)} ".encode() + data)
    return digest.hexdigest()


def _sum(digests: Iterable[str], less: Iterable[str] = ()) -> str:
    """Return the sum of digests modulo 2^256, in which their order does not matter."""
    total = sum(int(d, 16) for d in digests) - sum(int(d, 16) for d in less)
    return f"{total % 2**256:064x}"


@lru_cache
def _boot() -> str:
    """Return what names this start of this machine's kernel, the same in all containers; or ''."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock on a new file as long as this process lives; without locks, make no file."""
    handle = None
    if fcntl is not None:
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    if handle is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (
            OSError
        ):  # this file system has none, and a free lock would mean that this bench ended
            path.unlink()
    try:
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(handle)


def _is_free(path: Path) -> bool:
    """Return whether a file is there that no process of this machine holds a lock on."""
    if fcntl is None:
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _row(result: CellResult) -> dict[str, Any]:
    cell, profile = result.cell, result.profile
    error = None if profile is not None else (result.error or "no reason is known")
    row: dict[str, Any] = {
        "key": cell.key,
        "cell": cell.to_json(),
        "error": error and error[:_LONGEST_ERROR].encode(errors="replace").decode(),
        "tries": result.tries,
        "seconds": float(result.seconds),
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "profile": None if profile is None else profile.to_json(),
    }
    return {"digest": _digest([row[name] for name in _FIELDS])} | row


def results(store: str | Path) -> list[dict[str, Any]]:
    """Return the results in a file, one dict for each cell.

    `pandas.DataFrame(echospan.results(path))`, or polars' or pyarrow's counterpart, makes a table.

    Args:
        store: The file that `echospan bench` made.

    Returns:
        A list, in the order of the cells. Each dict has the keys that `COLUMNS` names, the same
        for a cell that failed, whose figures are None and whose `error` says why.

    Raises:
        SettingError: For what is no path.
        StoreError: For a file that is missing, foreign, damaged or of another format.
    """
    with Store(a_path("store", store), write=False) as opened:
        return opened.rows()


def as_json(stored: Stored) -> str:
    """Return a result as a line of JSON: the cell, and its profile or its error."""
    return json.dumps(
        {
            "key": stored.cell.key,
            "cell": json.loads(stored.cell.to_json()),
            "error": stored.error,
            "tries": stored.tries,
            "seconds": stored.seconds,
            "ended": stored.ended,
            "profile": None if stored.profile is None else json.loads(stored.profile.to_json()),
        }
    )


def by_setting(stored: Iterable[Stored]) -> list[tuple[tuple[Cell, ...], Profile]]:
    """Return the finished cells that differ in nothing but their seed together, with one profile.

    Those that were measured with other versions or threads stand alone.
    """
    groups: dict[str, list[Stored]] = {}
    for s in stored:
        if s.profile is not None:
            groups.setdefault(s.cell.key_without("seed"), []).append(s)
    settings: list[tuple[tuple[Cell, ...], Profile]] = []
    for group in groups.values():
        cells = tuple(s.cell for s in group)
        profiles = [s.profile for s in group if s.profile is not None]
        try:
            settings.append((cells, combine(profiles)))
        except SettingError:
            settings += [((c,), p) for c, p in zip(cells, profiles, strict=True)]
    return settings


def differences(rows: Iterable[dict[str, Any]], one: str, other: str) -> list[dict[str, Any]]:
    """Span and recalled bits of core `one` less those of `other`, over pairs that are else equal.

    Pairs share delays, budget, seed and all other settings (`race`), and their width, parameters or
    state to within 2 %. The interval is Student's, at 95 %, over the pairs; one pair has none.
    Raises SettingError where there are none, or several for one.
    """
    from scipy.stats import t

    done = [r for r in rows if r["status"] == "done"]
    there = sorted({r["core"] for r in done})
    for core in (one, other):
        if core not in there:
            raise SettingError(
                f"there is no result of {core}", f"compare two of {', '.join(there) or 'none'}"
            )
    pairs = []
    sizes = ("hidden", "parameters", "state")
    others: dict[str, list[dict[str, Any]]] = {}
    for b in done:
        if b["core"] == other:
            others.setdefault(b["race"], []).append(b)
    for a in done:
        if a["core"] != one:
            continue
        near = [
            b
            for b in others.get(a["race"], ())
            if any(
                abs(a[size] - b[size]) <= 0.02 * max(1, a[size])
                for size in sizes
                if a[size] is not None and b[size] is not None
            )
        ]
        if len(near) > 1:  # at one width before at one number of parameters or of state
            near = [b for b in near if a["hidden"] == b["hidden"]] or near
        if len(near) > 1:
            raise SettingError(
                f"{one} at hidden {a['hidden']} has several to be compared with",
                f"leave one width of {other} with {option('hidden')}",
            )
        pairs += [(a, b) for b in near]
    if not pairs:
        raise SettingError(
            f"{one} and {other} share no seed, setting and size", "run both on the same grid"
        )
    told = []
    for name in ("span", "bits"):
        values = [a[name] - b[name] for a, b in pairs]
        n, mean = len(values), sum(values) / len(values)
        spread = (sum((v - mean) ** 2 for v in values) / max(1, n - 1)) ** 0.5
        half = float(t.ppf(0.975, n - 1)) * spread / n**0.5 if n > 1 else float("inf")
        told.append(
            {
                "of": name,
                "mean": mean,
                "low": mean - half if n > 1 else None,
                "high": mean + half if n > 1 else None,
                "pairs": n,
                "more": sum(v > 0 for v in values),
                "less": sum(v < 0 for v in values),
            }
        )
    return told
