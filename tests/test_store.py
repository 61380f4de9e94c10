"""A file of results shared by processes: claims, claims of the dead, and all or nothing."""

import os
import sqlite3
import subprocess
import sys

import pytest

from echospan.benching import CellResult
from echospan.errors import StoreError
from echospan.grids import Cell
from echospan.store import STALE, Store

CELL = Cell(core="gru", symbols=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.sqlite"


def held_by(path, process, ago=0.0):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE running SET process = ?, beat = beat - ?", (process, ago))
    db.close()


def test_a_cell_that_another_process_runs_is_left_to_it_until_it_is_dead_or_silent(path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with Store(path) as store:
        assert store.claim(CELL)
        assert store.claim(CELL)  # it is mine
        held_by(path, os.getppid())
        assert not store.claim(CELL)
        held_by(path, dead.pid)
        assert store.claim(CELL)
        held_by(path, os.getppid(), ago=STALE + 1)
        assert store.claim(CELL)


def test_a_cell_that_failed_is_claimed_again_on_request_alone(path):
    with Store(path) as store:
        store.add(CellResult(CELL, None, "out of luck", 1, 0.1))
        assert not store.claim(CELL)
        assert store.claim(CELL, again=True)
        assert store.missing([CELL]) == []
        assert store.missing([CELL], again=True) == [CELL]


def test_several_results_are_kept_all_or_none(path):
    with Store(path) as store:
        store.add_all([])
        good, bad = (CellResult(CELL, None, "why", tries, 0.1) for tries in (1, "many"))
        with pytest.raises(StoreError, match="cannot be written"):
            store.add_all([good, bad])
        assert len(store) == 0
        store.add_all([good])
        assert len(store) == 1


def test_a_file_that_is_held_for_long_is_waited_for_and_then_refused(path, monkeypatch):
    Store(path).close()
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with sqlite3.connect(path, isolation_level=None) as holder:
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("PRAGMA journal_mode=DELETE")
        holder.execute("BEGIN EXCLUSIVE")
        connect = sqlite3.connect
        monkeypatch.setattr(
            sqlite3, "connect", lambda p, **more: connect(p, **more | {"timeout": 0})
        )
        with pytest.raises(StoreError, match="wait until nobody holds it"):
            Store(path, write=False)
    holder.close()
