"""A file of results: nothing in it is lost or changed unseen, and many processes may share it."""

import ast
import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.bench import container
from benchmarks.report import fill, made_up

import echospan
from echospan import store as module
from echospan.benching import CellResult
from echospan.errors import StoreError
from echospan.grids import Cell
from echospan.profiling import Profile
from echospan.store import COLUMNS, FORMAT, Store, by_setting

CELL = Cell(core="gru", symbols=1)

needs_unshare = pytest.mark.skipif(not shutil.which("unshare"), reason="no mounts of its own here")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.sqlite"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a store of forty results."""
    path = tmp_path_factory.mktemp("whole") / "s.sqlite"
    fill(path, 40)
    return path.read_bytes()


def executed(path, *statements):
    """Run statements of SQL on a file, as another program does."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(*statement) if isinstance(statement, tuple) else db.execute(statement)


def read(path):
    with Store(path, write=False) as store:
        return store.stored()


def failed(cell=CELL, error="out of luck"):
    return CellResult(cell, None, error, 1, 0.1)


def done(cell=CELL, span=3):
    return CellResult(cell, made_up(cell, span, random.Random(0)), None, 1, 0.1)


# What is stored comes back, once.


def test_results_come_back_as_they_were_added(path):
    cells = [replace(CELL, hidden=128, seed=seed) for seed in range(3)]
    results = [done(cells[0]), failed(cells[1], "bad luck \ud800"), done(cells[2])]
    with Store(path) as store:
        for result in results:
            store.add(result)
        assert len(store) == 3
    stored = read(path)
    assert [s.cell for s in stored] == cells
    assert [s.profile for s in stored] == [r.profile for r in results]
    assert [s.error for s in stored] == [None, "bad luck ?", None]
    assert [s.status for s in stored] == ["done", "failed", "done"]
    row = stored[0].row
    assert tuple(row) == COLUMNS
    assert (row["core"], row["hidden"], row["span"]) == ("gru", 128, 3)
    assert row["bits"] == results[0].profile.recalled_bits


def test_a_failure_never_takes_the_place_of_a_profile(path):
    with Store(path) as store:
        store.add(failed())
        store.add(failed(error="again"))
        assert [s.error for s in store.stored()] == ["again"]
        store.add(done())
        store.add(failed())
        assert [s.error for s in store.stored()] == [None]
    assert len(read(path)) == 1


def test_several_results_are_kept_all_or_none(path):
    with Store(path) as store:
        store.add_all([])
        good, bad = (CellResult(CELL, None, "why", tries, 0.1) for tries in (1, "many"))
        with pytest.raises(StoreError, match="cannot be written"):
            store.add_all([good, bad])
        assert len(store) == 0
        store.add_all([good])
        assert len(store) == 1


def test_seeds_of_one_setting_are_one_profile_and_those_of_other_threads_stand_alone(path):
    cells = [replace(CELL, seed=seed) for seed in range(3)]
    results = [done(cell) for cell in cells]
    results[2] = replace(results[2], profile=replace(results[2].profile, threads=9))
    with Store(path) as store:
        store.add_all(results[:2])
        ((_, profile),) = by_setting(store.stored())
        assert [s.seed for s in profile.seeds] == [0, 1]
        store.add(results[2])
        assert [len(cells) for cells, _ in by_setting(store.stored())] == [1, 1, 1]


def test_results_are_a_list_where_pandas_is_not(path, monkeypatch):
    fill(path, 2)
    monkeypatch.setitem(sys.modules, "pandas", None)
    rows = echospan.results(path)
    assert [row["core"] for row in rows] == ["gru", "gru"]


# Damage.


def test_a_page_that_lists_fewer_cells_is_damage(whole, path):
    size = int.from_bytes(whole[16:18], "big")
    pages = range(size, len(whole), size)
    tables = [p for p in pages if whole[p] in (2, 5, 10, 13)]  # headers of pages of a b-tree
    assert len(tables) > 10
    for page in tables:
        (count,) = (int.from_bytes(whole[page + 3 : page + 5], "big"),)
        for other in {0, count - 1, count + 1} - {count}:
            data = bytearray(whole)
            data[page + 3 : page + 5] = (other % 2**16).to_bytes(2, "big")
            path.write_bytes(data)
            with pytest.raises(StoreError) as refused:
                read(path)
            assert "\n" not in str(refused.value)


def test_every_changed_byte_of_the_header_is_harmless_or_refused(whole, path):
    path.write_bytes(whole)
    expected = read(path)
    for at in range(100):
        data = bytearray(whole)
        data[at] ^= 0xFF
        path.write_bytes(data)
        with contextlib.suppress(StoreError):
            assert read(path) == expected


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM results WHERE rowid = 7",
        "DELETE FROM results",
        "INSERT INTO results SELECT 'another', digest, cell, error, tries, seconds, ended, profile "
        "FROM results LIMIT 1",
        "UPDATE results SET digest = (SELECT digest FROM results LIMIT 1) WHERE rowid = 7",
        "UPDATE results SET digest = 'none' WHERE rowid = 7",
        "UPDATE totals SET rows = 39",
        "UPDATE totals SET digest = '00'",
        "DELETE FROM totals",
    ],
)
def test_rows_that_are_missing_or_more_than_were_stored_are_damage(whole, path, harm):
    path.write_bytes(whole)
    executed(path, harm)
    for write in (False, True):
        with pytest.raises(StoreError, match="is damaged"):
            Store(path, write=write)


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE results SET tries = 2 WHERE rowid = 7",
        "UPDATE results SET seconds = seconds + 1e-9 WHERE rowid = 7",
        "UPDATE results SET error = 'x' WHERE rowid = 7",
        "UPDATE results SET profile = replace(profile, '0.9', '0.8') WHERE rowid = 7",
        "UPDATE results SET ended = 'x' WHERE rowid = 7",
        "UPDATE results SET key = 'x' WHERE rowid = 7",
    ],
)
def test_a_row_that_was_changed_is_damage(whole, path, harm):
    path.write_bytes(whole)
    executed(path, harm)
    with pytest.raises(StoreError, match="its digest differs"):
        read(path)


def test_the_digest_of_all_rows_is_right_after_writers_at_once(path):
    results = [done(replace(CELL, seed=seed)) for seed in range(24)]
    Store(path).close()

    def write(some):
        with Store(path) as store:
            for result in some:
                store.add(failed(result.cell))
                store.add(result)

    writers = [threading.Thread(target=write, args=(results[i % 3 :: 2],)) for i in range(3)]
    for writer in writers:
        writer.start()
    while any(w.is_alive() for w in writers):
        read(path)
    assert len(read(path)) == 24


# Files that are no stores, or others.


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TRIGGER t AFTER INSERT ON claims BEGIN DELETE FROM results; END"],
        ["CREATE VIEW v AS SELECT 1"],
        ["CREATE INDEX i ON results (cell)"],
        ["ALTER TABLE results ADD COLUMN more TEXT"],
        ["ALTER TABLE results RENAME COLUMN ended TO end"],
        ["ALTER TABLE results RENAME TO others", "CREATE VIEW results AS SELECT * FROM others"],
        ["DROP TABLE claims"],
        ["CREATE TABLE mine (x)"],
        ["PRAGMA application_id=7"],
    ],
)
def test_a_schema_that_is_not_ours_is_no_store(whole, path, statements):
    path.write_bytes(whole)
    executed(path, *statements)
    for write in (False, True):
        with pytest.raises(StoreError, match="is no file of results"):
            Store(path, write=write)


def test_what_analyze_adds_is_no_harm(whole, path):
    path.write_bytes(whole)
    executed(path, "ANALYZE")
    assert len(read(path)) == 40


@pytest.mark.parametrize("version", [0, 1, FORMAT - 1, FORMAT + 1, 99])
def test_another_format_is_refused_with_both_numbers(whole, path, version):
    path.write_bytes(whole)
    executed(path, f"PRAGMA user_version={version}")
    for write in (False, True):
        with pytest.raises(
            StoreError, match=f"has format {version}, and this echospan reads format {FORMAT}"
        ):
            Store(path, write=write)


def a_link_to_itself(path):
    path.symlink_to(path)


def with_two_names(path):
    fill(path, 1)
    path.with_name("other.sqlite").hardlink_to(path)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        (a_link_to_itself, "is no path"),
        (lambda path: path.write_text("hello " * 100), "is no file of results"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"x" * 100), "is no file of results"),
        (with_two_names, "has 2 names"),
    ],
)
def test_what_is_no_file_of_results_is_refused_for_writing(path, harm, says):
    harm(path)
    with pytest.raises(StoreError, match=says):
        Store(path)


@pytest.mark.parametrize(
    "name", ["s" * 300, "a\0b", "nowhere/s.sqlite", "/proc/s.sqlite", "/dev/null/s.sqlite", ""]
)
def test_a_path_that_no_file_can_have_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for write in (False, True):
        with pytest.raises(StoreError) as refused:
            Store(name, write=write)
        assert len(str(refused.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [":memory:", "file:x?mode=memory", "a b%20?#.sqlite", "[red]x", "größe\x1b.sqlite", "\udcff"],
)
def test_every_name_that_a_file_can_have_is_that_of_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with Store(name) as store:
        store.add(done())
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(read(name)) == 1


def test_a_link_is_followed(tmp_path, path):
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    with Store(link) as store:
        store.add(done())
        store.verify([CELL])
    assert link.is_symlink()
    assert len(read(path)) == len(read(link)) == 1


def test_a_file_that_is_held_for_long_is_waited_for_and_then_refused(whole, path, monkeypatch):
    path.write_bytes(whole)
    monkeypatch.setattr(module, "WAIT", 0.01)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        for write in (False, True):
            with pytest.raises(StoreError, match="wait until no other process holds it"):
                Store(path, write=write)


def test_a_file_in_wal_mode_is_read_and_written(whole, path):
    path.write_bytes(whole)
    executed(path, "PRAGMA journal_mode=WAL")
    assert len(read(path)) == 40
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM totals").fetchall()
        with Store(path) as store:
            store.add(done())
            assert len(read(path)) == 41
    assert len(read(path)) == 41


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_file_that_may_not_be_written_is_read(whole, path, mode):
    path.write_bytes(whole)
    executed(path, f"PRAGMA journal_mode={mode}")
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        assert len(read(path)) == 40
        with pytest.raises(StoreError, match="cannot be written"):
            Store(path)
    finally:
        path.parent.chmod(0o755)


@needs_unshare
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_medium_that_is_read_only_is_read(whole, tmp_path, mode):
    script = (
        f"mount -t tmpfs none {tmp_path} && cp {tmp_path}-s {tmp_path}/s.sqlite && "
        f"mount -o remount,ro {tmp_path} && {sys.executable} -c 'import sys; "
        "from echospan.store import Store; s = Store(sys.argv[1], write=False); print(len(s))' "
        f"{tmp_path}/s.sqlite"
    )
    source = Path(f"{tmp_path}-s")
    source.write_bytes(whole)
    executed(source, f"PRAGMA journal_mode={mode}")
    ended = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
    )
    if "echospan" not in ended.stderr and ended.returncode and "mount" in ended.stderr:
        pytest.skip("no mounts are permitted here")
    assert ended.stdout == "40\n", ended.stderr


FILLS = """
import sys
from dataclasses import replace
from echospan.benching import CellResult
from echospan.errors import StoreError
from echospan.grids import Cell
from echospan.store import Store
added = 0
with Store(sys.argv[1]) as store:
    try:
        while True:
            cell = Cell(core="gru", symbols=1, seed=added)
            store.add(CellResult(cell, None, "x" * 9_000, 1, 0.1))
            added += 1
    except StoreError as e:
        print(e)
with Store(sys.argv[1]) as store:
    print(len(store.stored()) == added > 9)
"""


@needs_unshare
def test_a_full_disk_is_one_sentence_and_nothing_that_was_stored_is_lost(tmp_path):
    script = 'mount -t tmpfs -o size=300k none "$1" && exec "$2" -c "$3" "$1/s.sqlite"'
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    ended = subprocess.run(
        [*words, str(tmp_path), sys.executable, FILLS], capture_output=True, text=True
    )
    if ended.returncode and "Traceback" not in ended.stderr:
        pytest.skip("no mounts are permitted here")
    sentence, whole = ended.stdout.splitlines()
    assert "cannot be written (database or disk is full); see that the disk has room" in sentence
    assert whole == "True"


# A file that goes away while it is written.


def removed(path):
    path.unlink()


def moved(path):
    path.rename(path.with_name("moved.sqlite"))


def replaced(path):
    path.unlink()
    fill(path, 3)


@pytest.mark.parametrize("harm", [removed, moved, replaced])
def test_a_file_that_goes_away_is_named_at_once_and_what_it_held_is_kept(path, harm):
    other = replace(CELL, seed=1)
    with Store(path) as store:
        store.add(done())
        store.check()
        harm(path)
        for use in (store.check, lambda: store.verify([CELL]), lambda: store.add(done(other))):
            with pytest.raises(StoreError, match="was removed, moved or replaced") as refused:
                use()
        (copy,) = path.parent.glob("s-recovered-*.sqlite")
        assert str(copy) in str(refused.value)
    assert [s.cell for s in read(copy)] == [CELL, other]


def test_a_file_that_was_overwritten_is_named_at_once(whole, path):
    with Store(path) as store:
        store.add(done())
        path.write_text("")
        with pytest.raises(StoreError, match="was overwritten while it was open"):
            store.check()


def test_a_result_that_something_else_took_out_is_missed_at_the_end(whole, path):
    with Store(path) as store:
        before = path.read_bytes()
        store.add(done())
        path.write_bytes(before)  # as from a copy of the file
        with pytest.raises(StoreError, match="lacks 1 results that were stored in it"):
            store.verify([CELL])


def test_what_is_there_is_verified(path):
    other = replace(CELL, seed=1)
    with Store(path) as store:
        store.add_all([done(), done(other)])
        assert [s.cell for s in store.verify([other])] == [other]


# Claims.


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock of the observer, which the test moves on."""
    now = [1_000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def elsewhere(monkeypatch):
    """As if every claim were made on another machine: no lock of it is visible here."""
    boots = iter(range(1_000))
    monkeypatch.setattr(module, "_boot", lambda: f"boot {next(boots)}")


def test_a_cell_that_another_bench_runs_is_left_to_it(path):
    with Store(path) as one, Store(path) as other, one.session():
        assert one.claim(CELL)
        assert one.claim(CELL)  # it is its own
        assert not other.claim(CELL)
        assert other.claim(replace(CELL, seed=1))
    with Store(path) as third:
        assert third.claim(CELL)  # given up at the end


def test_a_claim_from_another_machine_is_void_when_it_has_no_beat_for_a_lease(
    path, clock, elsewhere
):
    with Store(path) as one, Store(path) as other:
        assert one.claim(CELL)
        assert not other.claim(CELL)
        clock[0] += module.LEASE
        assert not other.claim(CELL)
        clock[0] += 1
        assert other.claim(CELL)
        assert not one.claim(CELL)


def test_a_claim_is_valid_as_long_as_it_beats(path, clock, elsewhere):
    with Store(path) as one, Store(path) as other:
        assert one.claim(CELL)
        for _ in range(5):
            executed(path, "UPDATE claims SET beat = beat + 1")
            assert not other.claim(CELL)
            clock[0] += module.LEASE
        assert not other.claim(CELL)
        clock[0] += 1
        assert other.claim(CELL)


def test_a_session_beats(path):
    with Store(path) as store, store.session(every=0.001):
        assert store.claim(CELL)
        with contextlib.closing(sqlite3.connect(path)) as db:
            while db.execute("SELECT beat FROM claims").fetchone()[0] < 3:
                pass


@pytest.mark.parametrize("beat", [-(2**63), -1, 0, 1_800_000_000, 2**63 - 1])
def test_a_beat_of_any_size_holds_a_claim_for_a_lease_and_no_longer(path, clock, beat):
    with Store(path) as store:
        executed(path, ("INSERT INTO claims VALUES (?, 'x', 'boot', ?)", (CELL.key, beat)))
        assert not store.claim(CELL)
        clock[0] += module.LEASE + 1
        assert store.claim(CELL)


HOLDER = """
import sys
from echospan.grids import Cell
from echospan.store import Store
with Store(sys.argv[1]) as store, store.session():
    assert store.claim(Cell(core="gru", symbols=1))
    print("claimed", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path, *before):
    """A process that has claimed the cell, and holds it until it is ended."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "claimed\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_claim_of_a_process_that_was_killed_is_void_at_once(path):
    with Store(path) as store:
        with holder(path) as process:
            assert not store.claim(CELL)
            process.kill()
            process.wait()
            assert store.claim(CELL)
        assert [p.name for p in path.parent.iterdir()] == [path.name]  # its lock is gone too


def test_what_a_killed_bench_left_is_removed_by_the_next_session(path):
    with holder(path) as process:
        process.kill()
        process.wait()
        assert len(list(path.parent.glob("s.sqlite-bench-*"))) == 1
        with (
            Store(path) as store,
            store.session(),
            contextlib.closing(sqlite3.connect(path)) as db,
        ):
            assert db.execute("SELECT * FROM claims").fetchall() == []
        assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(container() is None, reason="no pid namespaces are permitted here")
def test_a_process_of_another_pid_namespace_holds_its_claim_as_long_as_it_lives(path):
    with Store(path) as store, holder(path, *container()) as process:
        assert not store.claim(CELL)
        process.kill()  # and with it, a moment later, the first process of the namespace
        assert any(store.claim(CELL) for _ in range(10_000))


def test_no_decision_reads_the_wall_clock_or_a_process_id():
    tree = ast.parse(Path(module.__file__).read_text())
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert calls.isdisjoint({"time.time", "os.getpid", "os.kill", "datetime.now"})
    # `ended` is stored for people, and is read by nothing but the columns that show it.
    assert sum("gmtime" in call for call in calls) == 1


def test_a_cell_that_failed_is_claimed_again_on_request_alone(path):
    with Store(path) as store:
        store.add(failed())
        assert not store.claim(CELL)
        assert store.claim(CELL, again=True)
        assert store.missing([CELL]) == []
        assert store.missing([CELL], again=True) == [CELL]


def test_two_benches_that_repeat_failures_repeat_each_once(path):
    with Store(path) as one, Store(path) as other:
        one.add(failed())
        assert one.missing([CELL], again=True) == other.missing([CELL], again=True) == [CELL]
        assert one.claim(CELL, again=True)
        one.add(failed(error="again"))
        assert not other.claim(CELL, again=True)
        assert other.missing([CELL]) == []


# Stores whose author computed the digests.


def forged(path, **changes):
    """A store of one result, some of its fields changed, with the right digests."""
    with Store(path) as store:
        store.add(done())
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.row_factory = sqlite3.Row
        row = dict(db.execute("SELECT * FROM results").fetchone()) | changes
        row["digest"] = module._digest([row[name] for name in module._FIELDS])
        db.execute("DELETE FROM results")
        names = ", ".join(row)
        db.execute(
            f"INSERT INTO results ({names}) VALUES ({', '.join('?' * len(row))})", (*row.values(),)
        )
        db.execute("UPDATE totals SET digest = ?", (module._sum([row["digest"]]),))


PROFILE = json.loads(done().profile.to_json())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cell": "{}"}, "this is no cell of a bench"),
        ({"cell": "[" * 10**5}, "nested too deeply"),
        ({"cell": replace(CELL, seed=1).to_json()}, "its key is not that of its cell"),
        ({"profile": None}, "it has no profile or error"),
        ({"error": "x"}, "it has no profile or error, or both"),
        ({"profile": None, "error": "x" * 10**6}, "error is 'xxx"),
        ({"tries": 0}, "tries is 0"),
        ({"seconds": -1.0}, "seconds is -1.0"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"ended": "x" * 99}, "ended is 'xxx"),
        ({"profile": "{"}, "this is no profile of echospan"),
        ({"profile": json.dumps(PROFILE | {"name": "lru"})}, "name of its profile is 'lru'"),
        ({"profile": json.dumps(PROFILE | {"at": 0.5})}, "at of its profile is 0.5"),
        ({"profile": json.dumps(PROFILE | {"symbols": 99})}, "symbols of its profile is 99"),
        (
            {"profile": json.dumps(PROFILE | {"seeds": [PROFILE["seeds"][0] | {"seed": 4}]})},
            "its profile is of other seeds",
        ),
    ],
)
def test_a_forged_result_is_one_sentence(path, changes, says):
    forged(path, **changes)
    with pytest.raises(StoreError, match="holds a result that is damaged") as refused:
        read(path)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 1_000


def test_a_row_that_is_larger_than_any_result_is_not_read(path, monkeypatch):
    monkeypatch.setattr(module, "_ROW_BYTES", 10**6)
    forged(path)
    executed(path, "UPDATE results SET profile = printf('%.*c', 2000000, ' ')")
    with pytest.raises(StoreError, match="cannot be read"):
        read(path)


def test_a_forged_result_that_fits_is_read(path):
    forged(path, ended="yesterday")
    assert isinstance(read(path)[0].profile, Profile)
