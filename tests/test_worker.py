"""What a worker of a bench returns of its cell, and the progress that it sends on the way."""

import json
import random
import socket
from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch
from benchmarks.report import made_up

from benched import LAYERS
from echospan.benching import _NEWS, _answer, received, run
from echospan.grids import Cell, Grid
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


TOKEN = b"0123456789abcdef"


def asked(cell, news, folder):
    return run(cell, news.getsockname()[1], TOKEN, str(folder))


def test_a_cell_that_ends_is_a_profile_and_was_heard_of(news, here):
    one = cell("gru")
    kind, told = asked(one, news, here)
    assert kind == "profile"
    assert Profile.from_json(told).seeds[0].symbols >= 3_000
    moments = list(received(news, TOKEN, {one.key: (one, 1)}))
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


def packet(cell, token=TOKEN, used=0.5, recall=0.75, span=1):
    return _NEWS.pack(token, cell.key.encode(), used, recall, span)


@pytest.fixture
def stranger():
    """A socket of somebody who knows the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        yield other


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xff", b"[" * 4_000, b"[1]", b"\0" * 56, b"x" * 60_000),
        *(b'["key", Infinity, 1, 1]', b"1" + b"0" * 400, b'{"a":' * 900, b"NaN"),
        *(TOKEN, TOKEN + b"x" * 39, TOKEN + b"x" * 41, TOKEN + b"\xff" * 40),
    ],
)
def test_a_datagram_of_another_kind_is_dropped(news, stranger, data):
    one = cell("gru")
    stranger.sendto(data, news.getsockname())
    stranger.sendto(packet(one), news.getsockname())
    assert [m.recall for m in received(news, TOKEN, {one.key: (one, 1)})] == [0.75]


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "changes",
    [
        {"token": b"0123456789abcdeX"},
        *({"used": v} for v in (-0.1, 1.1, NAN, INFINITE, -INFINITE)),
        *({"recall": v} for v in (-0.1, 1.1, NAN, INFINITE)),
        *({"span": v} for v in (-2, 2, 2**62, -(2**62))),
    ],
)
def test_progress_without_the_token_or_out_of_range_is_dropped(news, stranger, changes):
    one = cell("gru")
    stranger.sendto(packet(one, **changes), news.getsockname())
    assert list(received(news, TOKEN, {one.key: (one, 1)})) == []


def test_progress_of_a_cell_that_does_not_run_is_dropped(news, stranger):
    one, other = cell("gru"), cell("lru")
    stranger.sendto(packet(other), news.getsockname())
    assert list(received(news, TOKEN, {one.key: (one, 1)})) == []


def test_a_flood_is_read_in_turns(news, stranger, monkeypatch):
    monkeypatch.setattr("echospan.benching._MOST_NEWS", 5)
    one = cell("gru")
    for _ in range(12):
        stranger.sendto(b"", news.getsockname())
    stranger.sendto(packet(one), news.getsockname())
    turns = [list(received(news, TOKEN, {one.key: (one, 1)})) for _ in range(3)]
    assert list(map(len, turns)) == [0, 0, 1]


def test_a_profile_that_is_out_of_range_is_a_failure_of_its_cell():
    document = json.loads(made_up(Cell(core="gru", symbols=9), 3, random.Random(0)).to_json())
    document["seeds"][0]["microseconds"] = -1
    future = Future()
    future.set_result(("profile", json.dumps(document)))
    profile, error, lost = _answer(future)
    assert (profile, lost) == (None, False)
    assert "microseconds is -1" in error
