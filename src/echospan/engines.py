"""Where the cells of a bench run: executors of `concurrent.futures` over processes or a cluster.

An engine tells a lost worker by an exception of the future, and goes on with a new one. Everything
that a cell itself does wrong comes back as a value (`benching.run`), so the two are never confused.
"""

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from queue import LifoQueue
from typing import Any

from echospan.errors import SettingError, option


class Engine:
    """An executor, how many cells it takes at once, and how it is ended."""

    def __init__(self, executor: Executor, workers: int, end: Callable[[], None]) -> None:
        self.submit: Callable[..., Future[Any]] = executor.submit
        self.workers = workers
        self.end = end
        """Ends it now: what still runs is killed, what was here before it is left alone."""


def _begin(parent: int) -> None:
    """What a worker of ours does first: ends with its parent, however that ends; ignores Ctrl-C.

    What a layer prints there goes where messages go, not among the answers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Slots(Executor):
    """As many pools of one process each as there are workers: a death costs one cell, no other.

    A pool of several loses all that it runs when one of its processes is killed (joblib#812), and
    nobody knows who was to blame.
    """

    def __init__(self, workers: int) -> None:
        self._free: LifoQueue[Any] = LifoQueue()
        self._all: list[Any] = []
        for _ in range(workers):
            self._free.put(None)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        # A future wakes who waits for it a moment before its place is free again.
        pool = self._free.get() or self._pool()
        try:
            future: Future[Any] = pool.submit(fn, *args, **kwargs)
        except BrokenExecutor:  # its process was killed while it had nothing to do
            if pool in self._all:
                self._all.remove(pool)
            pool = self._pool()
            future = pool.submit(fn, *args, **kwargs)
        future.add_done_callback(lambda ended: self._take_back(pool, ended))
        return future

    def _pool(self) -> Any:
        from joblib.externals.loky.process_executor import ProcessPoolExecutor

        # A thread a worker: two that share a core's arithmetic thrash.
        pool = ProcessPoolExecutor(
            max_workers=1,
            initializer=_begin,
            initargs=(os.getpid(),),
            env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        self._all.append(pool)
        return pool

    def _take_back(self, pool: Any, ended: Future[Any]) -> None:
        whole = not ended.cancelled() and ended.exception() is None
        if not whole and pool in self._all:
            self._all.remove(pool)
        self._free.put(pool if whole else None)

    def end(self) -> None:
        for pool in [*self._all]:  # each that is killed takes itself off the list
            pool.shutdown(wait=True, kill_workers=True)


def loky(workers: int | None, address: str | None) -> Engine:
    """Processes on this machine, as many as it has cores where left out."""
    if address is not None:
        raise SettingError(
            f"{option('address')} is {address}, and loky runs on this machine alone",
            f"use {option('engine', 'dask')} or {option('engine', 'ray')} with it",
        )
    from joblib import cpu_count

    count = workers or cpu_count()
    slots = _Slots(count)
    return Engine(slots, count, slots.end)


def look(engine: str) -> None:
    """SettingError where what an engine stands on is not installed."""
    stands_on = {"dask": "distributed", "ray": "ray"}.get(engine)
    if stands_on is not None and importlib.util.find_spec(stands_on) is None:
        raise SettingError(f"{engine} is not installed", f"pip install 'echospan[{engine}]'")


def dask(workers: int | None, address: str | None) -> Engine:
    """The Dask cluster at `address` (tcp://host:port), or one begun here."""
    look("dask")
    import dask as library
    from distributed import Client, LocalCluster

    cluster = None
    if address is None:
        # What is lost is tried again by the bench, which counts.
        library.config.set({"distributed.scheduler.allowed-failures": 0})
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
    client = Client.__new__(Client)
    try:
        Client.__init__(client, cluster or address, timeout=10, set_as_default=False)
    except (OSError, ValueError, TypeError) as e:
        client.status = "closed"  # it would wait 20 seconds for it at the end of the program
        raise SettingError(
            f"no Dask scheduler answers at {address} ({e})", "give one, such as tcp://host:8786"
        ) from None

    def end() -> None:
        client.close()
        if cluster is not None:
            cluster.close()

    there = len(client.nthreads()) or 1  # cells of one process would wait for each other
    executor = client.get_executor(pure=False)
    return Engine(executor, min(workers or there, there), end)


class _Ray(Executor):  # pragma: no cover: needs Ray, which is too large for every check
    """Ray's remote functions as an executor."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        # What is lost is tried again by the bench, which counts.
        remote = self._ray.remote(max_retries=0, num_cpus=1)(fn)
        future: Future[Any] = remote.remote(*args, **kwargs).future()
        return future


def ray(workers: int | None, address: str | None) -> Engine:  # pragma: no cover: as above
    """The Ray cluster at `address`, or one begun here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # at its 15 a busy machine starves them
    look("ray")
    import ray as library
    from joblib import cpu_count

    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        settings |= {
            "num_cpus": workers or cpu_count(),
            "include_dashboard": False,
            "object_store_memory": 100 * 2**20,
        }
    try:
        library.init(address=address or "local", **settings)
    except (OSError, ValueError, RuntimeError) as e:
        reason = str(e).splitlines()[0]
        raise SettingError(
            f"no Ray cluster answers at {address} ({reason})", "give one, such as ray://host:10001"
        ) from None
    there = max(1, int(library.cluster_resources().get("CPU", 1)))
    return Engine(_Ray(library), min(workers or there, there), library.shutdown)


ENGINES: dict[str, Callable[[int | None, str | None], Engine]] = {
    "loky": loky,
    "dask": dask,
    "ray": ray,
}
"""By name: what begins one, given how many workers and the address of a cluster."""
