"""The bench: cells in, results out, one by one as they end. Knows nothing of files.

for result in echospan.bench(echospan.Grid(cores=("gru", "lru"), seeds=(0, 1)).cells()):
    print(result.cell.name, result.profile.span)
"""

import contextlib
import hmac
import math
import secrets
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echospan.engines import ENGINES, Engine
from echospan.errors import EchospanError, EngineError, SettingError, first_line
from echospan.grids import Cell, fingerprint
from echospan.layers import find
from echospan.profiling import Profile, profile
from echospan.training import Progress

TRIES = 3
"""How often a cell is begun whose worker is lost, or whose memory runs out, before it counts as
failed."""


_MEMORY = ("can't allocate memory", "out of memory")
"""What torch says on a processor and on a GPU, in errors that have no class of their own."""

_ONE_AT_A_TIME = threading.Lock()

_NEWS = struct.Struct("!16s16sddq")
"""A datagram of progress: the token of the bench, the key of the cell, the share of its training,
the mean recall and the span."""

_MOST_NEWS = 500
"""Datagrams that are read in one turn of the loop; a flood of them delays no result."""


@dataclass(frozen=True)
class CellResult:
    """How a cell ended: with a profile, or with the error that it failed with."""

    cell: Cell
    profile: Profile | None
    error: str | None
    tries: int
    seconds: float
    """From its last beginning to its end, all included."""


@dataclass(frozen=True)
class Moment:
    """News of a cell under way."""

    cell: Cell
    tries: int
    """1 for the first time that it is begun."""
    used: float = 0.0
    """Share of its training that is done."""
    recall: float = 0.0
    """Mean over the delays, so far."""
    span: int = -1
    """So far, by what was seen on the way."""
    lost: str | None = None
    """Why it is to be begun again; None while it runs."""


def bench(
    cells: Iterable[Cell],
    *,
    engine: str = "loky",
    workers: int | None = None,
    address: str | None = None,
    mine: Callable[[Cell], bool] | None = None,
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[Moment], None] | None = None,
) -> Iterator[CellResult]:
    """Run cells on all cores of this machine, or on a cluster, and yield each result as it ends.

    `engine`: loky (processes on this machine), dask or ray, with the `address` of a cluster that is
    there or with one begun for the bench. `workers`: cells at once, one thread each. `mine` is
    asked just before a cell is begun; where it says False, the cell is left to someone else.
    `stop` is asked several times a second; True ends it, and what runs is killed.
    `on_progress` hears of cells that begin, train and are lost. A cell that fails is a result as
    well; one whose worker is killed or whose memory runs out is begun up to `TRIES` times. Who
    stops listening ends the bench, and kills what runs.

    Raises SettingError for an engine that is not there, EngineError for one that has ended.
    """
    if engine not in ENGINES:
        raise SettingError(f"there is no engine {engine!r}", f"use one of {', '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise SettingError(f"the number of workers is {workers}", "use 1 or more")
    return _bench(cells, engine, workers, address, mine, stop, on_progress)


def _bench(
    cells: Iterable[Cell],
    name: str,
    workers: int | None,
    address: str | None,
    mine: Callable[[Cell], bool] | None,
    stop: Callable[[], bool] | None,
    on_progress: Callable[[Moment], None] | None,
) -> Iterator[CellResult]:
    waiting: deque[tuple[Cell, int]] = deque((cell, 1) for cell in cells)
    running: dict[Future[Any], tuple[Cell, int, float]] = {}
    engine: Engine | None = None
    token = secrets.token_bytes(16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as news:
        news.bind(("127.0.0.1", 0))
        news.setblocking(False)
        port = news.getsockname()[1]
        try:
            while (waiting or running) and not (stop and stop()):
                while waiting and len(running) < (engine.workers if engine else 1):
                    cell, tries = waiting.popleft()
                    if tries == 1 and mine is not None and not mine(cell):
                        continue
                    engine = engine or ENGINES[name](workers, address)
                    try:
                        future = engine.submit(run, cell, port, token, str(Path.cwd()))
                    except Exception as e:
                        raise EngineError(
                            f"{name} takes no more cells ({type(e).__name__}: {e})",
                            "begin it anew: what has ended is not run again",
                        ) from e
                    running[future] = cell, tries, time.perf_counter()
                    if on_progress is not None:
                        on_progress(Moment(cell, tries))
                ended, _ = wait(running, timeout=0.1, return_when=FIRST_COMPLETED)
                if on_progress is not None:
                    under_way = {c.key: (c, tries) for c, tries, _ in running.values()}
                    for moment in received(news, token, under_way):
                        on_progress(moment)
                for future in ended:
                    cell, tries, began = running.pop(future)
                    profiled, error, lost = _answer(future)
                    if lost and tries < TRIES:
                        waiting.append((cell, tries + 1))
                        if on_progress is not None:
                            on_progress(Moment(cell, tries, lost=error))
                        continue
                    if lost:
                        error = f"{error}, {tries} times"
                    yield CellResult(cell, profiled, error, tries, time.perf_counter() - began)
        finally:
            if engine is not None:
                engine.end()


def _answer(future: Future[Any]) -> tuple[Profile | None, str | None, bool]:
    """Profile, error, and whether it is worth another try."""
    try:
        kind, told = future.result()
    except Exception as e:
        reason = str(e).partition(".")[0].partition("\n")[0]
        return None, f"its worker was lost ({type(e).__name__}: {reason[:100]})", True
    if kind == "profile":
        try:
            return Profile.from_json(told), None, False
        except SettingError as e:
            return None, e.fact, False
    return None, told, kind == "memory"


def run(cell: Cell, port: int, token: bytes, folder: str) -> tuple[str, str]:
    """Train and measure a cell, in a worker and on one thread.

    Args:
        cell: The cell.
        port: Where datagrams of its progress go, on this machine; they may be lost.
        token: Sixteen bytes that tell the bench that a datagram comes from a worker of its own.
        folder: The working folder of the bench, from which a layer may be imported.

    Returns:
        ("profile", as JSON), ("failed", the reason), or ("memory", the reason) where it may be
        tried again.
    """
    import torch

    torch.set_num_threads(1)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # Seeds are a process's: where a cluster gives it several threads, they take turns.
    with _ONE_AT_A_TIME, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as news:
        news.setblocking(False)
        last = 0.0

        def tell(_: str, p: Progress) -> None:
            nonlocal last
            if p.used < 1 and time.perf_counter() - last < 0.25:
                return
            last = time.perf_counter()
            delays = p.evaluation.delays
            recall = sum(d.recall for d in delays) / len(delays)
            packet = (
                token,
                cell.key.encode(),
                min(1.0, p.used),
                recall,
                p.evaluation.span(cell.at),
            )
            with contextlib.suppress(OSError, struct.error):
                news.sendto(_NEWS.pack(*packet), ("127.0.0.1", port))

        try:
            layer = find(cell.core)
            if fingerprint(cell.core) != cell.source:
                return "failed", f"the file of {cell.core} is not the one that the bench began with"
            told = profile(
                layer,
                cell.max_delay,
                seconds=cell.seconds or 45.0,
                symbols=cell.symbols,
                hidden=cell.hidden,
                features=cell.features,
                seeds=[cell.seed],
                learning_rates=cell.learning_rates,
                alphabet=cell.alphabet,
                at=cell.at,
                name=cell.core,
                batch=cell.batch,
                on_progress=tell,
            )
            if not told.seeds[0].steps:
                return "failed", "its budget ended before the first step of training"
            return "profile", told.to_json()
        except (Exception, SystemExit) as e:
            reason = first_line(e)[:300]
            cause: BaseException | None = e
            while cause is not None:  # a layer's own error may be told by one of ours
                if isinstance(cause, MemoryError) or any(t in str(cause) for t in _MEMORY):
                    return "memory", f"its memory ran out ({reason})"
                cause = cause.__cause__
            if isinstance(e, EchospanError):
                return "failed", reason
            return "failed", f"{type(e).__name__}: {reason}"


def received(
    news: socket.socket, token: bytes, running: dict[str, tuple[Cell, int]]
) -> Iterator[Moment]:
    """Yield the progress of cells from datagrams that have arrived, `_MOST_NEWS` at most.

    A datagram of another size, without the token, of a cell that does not run, or with a number out
    of its range is dropped. None is parsed beyond the numbers at fixed places.
    """
    for _ in range(_MOST_NEWS):
        try:
            data = news.recv(_NEWS.size + 1)
        except OSError:  # nothing has arrived; elsewhere than on Linux, or one that was too long
            return
        if len(data) != _NEWS.size or not hmac.compare_digest(data[: len(token)], token):
            continue
        _, key, used, recall, span = _NEWS.unpack(data)
        cell, tries = running.get(key.decode("latin-1"), (None, 0))
        if cell is None or not all(map(math.isfinite, (used, recall))):
            continue
        if 0 <= used <= 1 and 0 <= recall <= 1 and -1 <= span <= cell.max_delay:
            yield Moment(cell, tries, used, recall, span)
