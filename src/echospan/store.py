"""Results in one SQLite file: appended a transaction at a time, read while it grows.

Processes of one machine may share a file; a network drive will not do (SQLite's write-ahead log
asks for memory that all its users share).
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echospan.benching import CellResult
from echospan.errors import SettingError, StoreError, option
from echospan.grids import Cell
from echospan.profiling import Profile

_MARK = 0x4563686F
"""SQLite's application_id: "Echo"."""

MIGRATIONS = (
    """
    CREATE TABLE results (
        key TEXT PRIMARY KEY, cell TEXT NOT NULL, status TEXT NOT NULL, error TEXT,
        tries INTEGER NOT NULL, seconds REAL NOT NULL, ended TEXT NOT NULL, profile TEXT,
        setting TEXT NOT NULL, race TEXT NOT NULL,
        core TEXT NOT NULL, hidden INTEGER, max_delay INTEGER NOT NULL, seed INTEGER NOT NULL,
        parameters INTEGER, state INTEGER, span INTEGER, span_at_most INTEGER, reads INTEGER,
        stores INTEGER, bits REAL, rising INTEGER, symbols INTEGER, symbols_per_second REAL,
        microseconds REAL, symbols_to_target INTEGER, seconds_to_target REAL, learning_rate REAL,
        digest TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE running (
        key TEXT PRIMARY KEY, process INTEGER NOT NULL, began REAL NOT NULL, beat REAL NOT NULL
    ) STRICT
    """,
)
"""What makes each schema version of the one before; user_version counts those that were applied."""

STALE = 60.0
"""Seconds without a sign of life after which a cell that another process runs is free again."""

COLUMNS = (
    *("key", "status", "core", "hidden", "parameters", "state", "max_delay", "seed", "span"),
    *("span_at_most", "reads", "stores", "bits", "rising", "symbols", "learning_rate", "tries"),
    *("seconds", "symbols_per_second", "microseconds", "symbols_to_target", "seconds_to_target"),
    *("ended", "error", "setting", "race"),
)
"""What `results` tells of a cell. `setting` is the same for cells that differ in nothing but their
seed, `race` for those that differ in nothing but their core and its width."""


@dataclass(frozen=True)
class Stored:
    """A result as the file has it."""

    cell: Cell
    profile: Profile | None
    error: str | None
    tries: int
    seconds: float
    ended: str


class Store:
    """A file of results. `write=False` opens it to read, and it must be there.

    Raises StoreError for what is missing, foreign, damaged, newer or cannot be written.
    """

    def __init__(self, path: str | Path, *, write: bool = True) -> None:
        self.path = Path(path)
        self._write = write
        try:
            there = self.path.exists()
            parent = self.path.resolve().parent.is_dir()
        except (OSError, RuntimeError) as e:
            raise StoreError(f"{self.path} is no path ({e})", "name another file") from None
        if not there and not write:
            raise StoreError(
                f"there is no file of results {self.path}", "make one with echospan bench --store"
            )
        if self.path.is_dir():
            raise StoreError(f"{self.path} is a folder", "name a file, such as results.sqlite")
        if not parent:
            raise StoreError(f"{self.path.parent} is no folder", "make it, or name another")
        if there and self.path.stat().st_size and not _is_sqlite(self.path):
            raise StoreError(
                f"{self.path} is no file of results", "name one that echospan bench made"
            )
        with self._said():
            self._db = self._connected()
            try:
                self._begin()
            except BaseException:
                self._db.close()
                raise

    def _connected(self) -> sqlite3.Connection:
        where, folder = self.path.resolve(), os.access(self.path.resolve().parent, os.W_OK)
        log = where.with_name(where.name + "-wal")
        if not self._write and not (folder and os.access(where, os.W_OK)) and not log.exists():
            # Of a file that nobody writes to a reader may ask for nothing beside it.
            where_to = f"{where.as_uri()}?mode=ro&immutable=1"
            return sqlite3.connect(where_to, uri=True, isolation_level=None)
        return sqlite3.connect(self.path, timeout=60, isolation_level=None)

    def _begin(self) -> None:
        for tried in range(20):  # the change to a log is refused at once while another makes it
            try:
                self._prepare()
                return
            except sqlite3.OperationalError as e:
                if self._db.in_transaction:  # begun, and refused at its first look
                    self._db.execute("ROLLBACK")
                if "locked" not in str(e) or tried == 19:
                    raise
                time.sleep(0.05 * (tried + 1))

    def _prepare(self) -> None:
        if self._write:
            self._db.execute("PRAGMA busy_timeout=60000")
        self._db.execute("BEGIN")  # one look, not three between which another may begin the file
        mark, version = self._pragma("application_id"), self._pragma("user_version")
        fresh = mark == 0 and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone()
        self._db.execute("COMMIT")
        if mark != _MARK and not (fresh and self._write):
            raise StoreError(
                f"{self.path} is no file of results", "name one that echospan bench made"
            )
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self.path} has version {version}, newer than {len(MIGRATIONS)}",
                "install a newer echospan",
            )
        if not self._write:
            return
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        if version < len(MIGRATIONS):
            with self._transaction():
                for number in range(self._pragma("user_version"), len(MIGRATIONS)):
                    self._db.execute(MIGRATIONS[number])
                self._db.execute(f"PRAGMA application_id={_MARK}")
                self._db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as e:
            locked = isinstance(e, sqlite3.OperationalError) and "locked" in str(e)
            raise StoreError(
                f"{self.path} cannot be {'written' if self._write else 'read'} ({e})",
                "wait until nobody holds it"
                if locked
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
        """Let the file go."""
        self._db.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def missing(self, cells: Iterable[Cell], *, again: bool = False) -> list[Cell]:
        """Those that have no result; with `again`, those that failed count as such."""
        with self._said():
            there = {
                key
                for key, status in self._db.execute("SELECT key, status FROM results")
                if status == "done" or not again
            }
        return [cell for cell in cells if cell.key not in there]

    def claim(self, cell: Cell, *, again: bool = False) -> bool:
        """Whether this process may run the cell: nobody has ended it or is at it.

        With `again`, one that failed may be run anew. A claim ends with its result, with its
        process, or a minute after its last sign of life (`alive`).
        """
        now, key, me = time.time(), cell.key, os.getpid()
        with self._said(), self._transaction():
            ended = self._db.execute("SELECT status FROM results WHERE key=?", (key,)).fetchone()
            held = self._db.execute(
                "SELECT process, beat FROM running WHERE key=?", (key,)
            ).fetchone()
            if ended and not (again and ended[0] == "failed"):
                return False
            if held and held[0] != me and _alive(*held):
                return False
            self._db.execute(
                "INSERT OR REPLACE INTO running VALUES (?, ?, ?, ?)", (key, me, now, now)
            )
        return True

    @contextlib.contextmanager
    def alive(self, every: float = 10.0) -> Iterator[None]:
        """Signs of life for all claims of this process; they are given up at the end."""
        ended = threading.Event()

        def beat() -> None:
            with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as db:
                while not ended.wait(every):
                    # A beat that is missed is made up for by the next one.
                    with contextlib.suppress(sqlite3.Error), db:
                        told = time.time(), os.getpid()
                        db.execute("UPDATE running SET beat=? WHERE process=?", told)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with self._said(), self._transaction():
                self._db.execute("DELETE FROM running WHERE process=?", (os.getpid(),))

    def add(self, result: CellResult) -> None:
        """Keep a result, in one transaction; a failure never takes the place of a profile."""
        self.add_all([result])

    def add_all(self, results: Iterable[CellResult]) -> None:
        """Keep several, all or none."""
        rows = [_row(result) for result in results]
        for row in rows:
            row["digest"] = _digest(row)
        if not rows:
            return
        names = ", ".join(rows[0])
        marks = ", ".join(":" + name for name in rows[0])
        with self._said(), self._transaction():
            for row in rows:
                self._db.execute(
                    f"INSERT INTO results ({names}) VALUES ({marks}) ON CONFLICT (key) DO UPDATE "
                    f"SET ({names}) = ({marks}) WHERE results.status <> 'done'",
                    row,
                )
                self._db.execute("DELETE FROM running WHERE key=?", (row["key"],))

    def __len__(self) -> int:
        with self._said():
            return int(self._db.execute("SELECT count(*) FROM results").fetchone()[0])

    def stored(self, keys: Iterable[str] | None = None) -> Iterator[Stored]:
        """Every result, or those of some keys, in the order of their cells."""
        for row in self._whole(keys):
            try:
                cell = Cell.from_json(row["cell"])
                told = None if row["profile"] is None else Profile.from_json(row["profile"])
            except (SettingError, ValueError, TypeError, KeyError) as e:
                raise self._damaged(row["key"], str(e)) from e
            yield Stored(cell, told, row["error"], row["tries"], row["seconds"], row["ended"])

    def rows(self) -> list[dict[str, Any]]:
        """Every result as a row of `COLUMNS`, in the order of their cells."""
        rows = [{name: row[name] for name in COLUMNS} for row in self._whole(None)]
        for row in rows:
            row["rising"] = None if row["rising"] is None else bool(row["rising"])
        return rows

    def _whole(self, keys: Iterable[str] | None) -> Iterator[dict[str, Any]]:
        """Rows that are as they were written; StoreError at one that is not."""
        some = "" if keys is None else "WHERE key IN (SELECT value FROM json_each(?)) "
        statement = f"SELECT * FROM results {some}ORDER BY core, hidden, max_delay, seed, key"
        asked = () if keys is None else (json.dumps(list(keys)),)
        with self._said(), contextlib.closing(self._db.execute(statement, asked)) as found:
            names = [column[0] for column in found.description]
            if not {"digest", "cell", "profile", *COLUMNS} <= set(names):
                raise self._damaged("all", "its columns have other names")
            for values in found:
                row = dict(zip(names, values, strict=True))
                if row.pop("digest") != _digest(row):
                    raise self._damaged(row.get("key"), "its checksum differs")
                yield row

    def _damaged(self, key: object, why: str) -> StoreError:
        return StoreError(
            f"{self.path} holds a result that is damaged ({key}: {why})",
            "take a copy of the file from before, or delete that row and run its cell again",
        )


def _digest(row: dict[str, Any]) -> str:
    """Of all that a row says: SQLite sees damage to its pages' form, not to what stands in them."""
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as f:
            return f.read(16) == b"SQLite format 3\x00"
    except OSError as e:
        raise StoreError(
            f"{path} cannot be read ({e.strerror})", "name a file that you may read"
        ) from None


def _alive(process: int, beat: float) -> bool:
    if time.time() - beat > STALE:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # there, and someone else's
    return True


def _row(result: CellResult) -> dict[str, Any]:
    cell, profile = result.cell, result.profile
    row: dict[str, Any] = {
        "key": cell.key,
        "cell": cell.to_json(),
        "status": "failed" if profile is None else "done",
        "error": result.error and result.error.encode(errors="replace").decode(),
        "tries": result.tries,
        "seconds": result.seconds,
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "profile": None,
        "setting": cell.key_without("seed"),
        "race": cell.key_without("core", "hidden", "source"),
        "core": cell.core,
        "hidden": cell.hidden,
        "max_delay": cell.max_delay,
        "seed": cell.seed,
    }
    told = dict.fromkeys(
        (
            *("parameters", "state", "span", "span_at_most", "reads", "stores", "bits", "rising"),
            *("symbols", "symbols_per_second", "microseconds", "symbols_to_target"),
            *("seconds_to_target", "learning_rate"),
        )
    )
    if profile is None:
        return row | told
    (seed,) = profile.seeds
    return row | {
        "profile": profile.to_json(),
        "hidden": profile.hidden,
        "parameters": profile.parameters,
        "state": profile.state,
        "span": seed.span,
        "span_at_most": seed.span_at_most,
        "reads": seed.reads,
        "stores": seed.stores,
        "bits": seed.recalled_bits,
        "rising": int(seed.rising),
        "symbols": seed.symbols,
        "symbols_per_second": profile.symbols_per_second,
        "microseconds": seed.microseconds,
        "symbols_to_target": seed.symbols_to_target,
        "seconds_to_target": seed.seconds_to_target,
        "learning_rate": seed.learning_rate,
    }


def results(store: str | Path) -> Any:
    """The results of a file, a row each: a pandas DataFrame where pandas is there, else a list.

    Raises StoreError for a file that is missing, foreign, damaged or newer.
    """
    with Store(store, write=False) as opened:
        rows = opened.rows()
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def as_json(stored: Stored) -> str:
    """A result as a line of JSON: the cell, and its profile or its error."""
    told = {
        "key": stored.cell.key,
        "cell": json.loads(stored.cell.to_json()),
        "error": stored.error,
        "tries": stored.tries,
        "seconds": stored.seconds,
        "ended": stored.ended,
        "profile": None if stored.profile is None else json.loads(stored.profile.to_json()),
    }
    return json.dumps(told)


def combined(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows of finished cells that differ in nothing but their seed, together."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["setting"], []).append(row)
    return list(groups.values())


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
    ones, others = ([r for r in done if r["core"] == core] for core in (one, other))
    for a in ones:
        near = [
            b
            for b in others
            if a["race"] == b["race"]
            and any(
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
