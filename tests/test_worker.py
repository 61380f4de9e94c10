"""What a worker of a bench says of its cell, and what is heard of it on the way."""

import json
import socket
from dataclasses import replace

import pytest
import torch

from benched import LAYERS
from echospan.benching import _hear, run
from echospan.grids import Grid
from echospan.profiling import Profile


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the researcher's module in it."""
    (tmp_path / "worklayers.py").write_text(LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def news():
    """Where a worker's datagrams arrive."""
    threads = torch.get_num_threads()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.setblocking(False)
        yield heard
    torch.set_num_threads(threads)


def cell(core, **more):
    settings = {"hidden": (8,), "max_delay": (1,), "alphabet": "abc", "symbols": (3_000,)}
    (made,) = Grid(**{"cores": (core,)} | settings | more).cells()
    return made


def asked(cell, news, folder):
    return run(cell, news.getsockname()[1], str(folder))


def test_a_cell_that_ends_is_a_profile_and_was_heard_of(news, here):
    one = cell("gru")
    kind, told = asked(one, news, here)
    assert kind == "profile"
    assert Profile.from_json(told).seeds[0].symbols >= 3_000
    moments = []
    _hear(news, {one.key: (one, 1)}, moments.append)
    assert moments[-1].used == 1
    assert 0 < moments[-1].recall <= 1


@pytest.mark.parametrize(
    ("core", "kind", "why"),
    [
        ("worklayers:Raises", "failed", "RuntimeError: out of luck"),
        ("worklayers:Leaves", "failed", "SystemExit: 7"),
        ("worklayers:Hungry", "memory", "its memory ran out (no more)"),
    ],
)
def test_a_cell_that_fails_says_why(news, here, core, kind, why):
    assert asked(cell(core), news, here) == (kind, why)


def test_a_cell_that_is_refused_says_it_in_a_sentence(news, here):
    kind, why = asked(replace(cell("lru"), hidden=7), news, here)
    assert (kind, why.split("; ")[1]) == ("failed", "use an even number, such as 8")


def test_a_cell_without_time_for_a_step_is_no_result(news, here):
    timed = cell("gru", symbols=None, seconds=(1e-6,))
    assert asked(timed, news, here) == (
        "failed",
        "its budget ended before the first step of training",
    )


def test_what_someone_else_sends_is_not_heard(news):
    one, moments = cell("gru"), []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for said in (b"\xff", b"[1]", json.dumps(["another", 1.0, 2.0, 1]).encode()):
            other.sendto(said, news.getsockname())
        _hear(news, {one.key: (one, 1)}, moments.append)
        assert moments == []
        other.sendto(json.dumps([one.key, 0.5, 2.0, 1]).encode(), news.getsockname())
    _hear(news, {one.key: (one, 1)}, moments.append)
    assert [(m.used, m.recall, m.span) for m in moments] == [(0.5, 1.0, 1)]
