"""The server: a few files, and a WebSocket for each visitor."""

import asyncio
import contextlib
import errno
import signal
import socket
import sys
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

from websockets.http11 import Request

from echospan.errors import SettingError, first_line, option
from echospan.web.connection import Connection, Gone, State
from echospan.web.desk import Desk
from echospan.web.guard import Guard
from echospan.web.limits import Limits, free_descriptors, within
from echospan.web.pace import Bucket
from echospan.web.served import Served, Work
from echospan.web.static_files import files
from echospan.web.visits import Memory, Visit, Visits
from echospan.web.wire import (
    ELSEWHERE,
    ENDING,
    FAILED,
    FOREIGN,
    FULL,
    MALFORMED,
    Push,
    Refused,
    answered,
    read_hello,
    read_push,
    welcome,
)

BACKLOG = 4_096
"""Connections that the system may keep waiting; Linux has no more by default."""

ACCEPTED = 32
"""Connections accepted in one turn of the event loop."""

FAULTS = 20
"""Lines that the server writes about faults of its own, at most."""


def common_alphabet(models: Sequence[Served]) -> str:
    """The characters that all models know; SettingError where there are not two of them."""
    common = [
        c
        for c in models[0].model.config.alphabet
        if all(c in m.model.config.alphabet for m in models)
    ]
    if len(common) < 2:
        raise SettingError(
            "the models have no two characters in common",
            "serve together what reads the same alphabet, or each on a port of its own",
        )
    return "".join(common)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; 0 picks a free port. SettingError where it cannot be had."""
    if not 0 <= port < 65_536:
        raise SettingError(f"{option('port')} is {port}", "use a whole number from 0 to 65535")
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(kind, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as e:
        reason = (e.strerror or str(e)).lower()
        raise SettingError(
            f"port {port} of {host} cannot be had ({reason})",
            f"name another with {option('port')}, or 0 for any that is free",
        ) from None
    return listening


class Host:
    """What all connections share: the models, the desk, the visitors."""

    def __init__(self, models: Sequence[Served], limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.desk = Desk(models)
        self.visits = Visits(len(models), limits)

    async def receive(self, connection: Connection) -> None:
        """Serve one WebSocket from its first frame to its last."""
        try:
            await self._visit(connection)
        except Refused as e:
            connection.close(e.code, e.reason)
        except Gone:
            pass

    async def _visit(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(self.limits.patience):
                token = read_hello(await connection.receive())
        except TimeoutError:
            seconds = self.limits.patience
            raise Refused(MALFORMED, f"no hello within {seconds:g} seconds") from None
        task, moved = asyncio.current_task(), False
        assert task is not None

        def leave() -> None:
            nonlocal moved
            moved = True
            task.cancel()

        visit, kept = self.visits.enter(token, leave)
        try:
            await self._serve(connection, visit, kept)
        except asyncio.CancelledError:
            if not moved:
                raise
            task.uncancel()
            raise Refused(ELSEWHERE, "this page is open in another window, which goes on") from None
        finally:
            self.visits.go(visit, leave)

    async def _serve(self, connection: Connection, visit: Visit, kept: bool) -> None:
        async with visit.busy:  # what the last connection had under way is done first
            last = [m.last for m in visit.memories]
        await connection.send(welcome(visit.token, kept, self.models, last, self.limits))
        while True:
            push = read_push(await connection.receive(), self.models, self.limits)
            await asyncio.sleep(connection.spend(len(push.ids)))
            async with visit.busy:
                frame = await self._read(push, visit.memories[push.model])
            await connection.send(frame)

    async def _read(self, push: Push, memory: Memory) -> str:
        """The frame that answers a push: only one that is new is read."""
        if push.number == memory.last:
            return memory.frame
        if push.number < memory.last:
            raise Refused(MALFORMED, f"push {push.number} comes after {memory.last}")
        if push.ids:
            answer = await self.desk.answer(push.model, Work(memory.state, push.ids, push.delay))
            memory.state = answer.state
            memory.frame = answered(push, answer)
        else:
            memory.state = None
            memory.frame = answered(push, None)
        memory.last = push.number
        return memory.frame


class Server:
    """The page and its WebSockets, from `run` until `stop`.

    Every connection is in one of two places. `visitors` are open WebSockets. `others` are all that
    have not finished a request, were refused, or are closing; some room is always left for them.
    Beyond the limit of visitors a WebSocket is closed with 1013. Where there is no room for a new
    connection, the oldest of the others is dropped, once it has had the time to say something. So
    connections that never do keep no page from opening.
    """

    def __init__(
        self, models: Sequence[Served], limits: Limits | None = None, names: Iterable[str] = ()
    ) -> None:
        """Make a server that is not yet running.

        Args:
            models: The models that read what visitors type.
            limits: Limits; visitors are fewer where the system allows fewer open files.
            names: Hosts admitted beside addresses and localhost (`guard.host_name`).

        Raises:
            SettingError: Where the models have no two characters in common.
        """
        common_alphabet(models)
        self.limits = within(limits or Limits(), free_descriptors())
        self.host = Host(models, self.limits)
        self.visitors: set[Connection] = set()
        self.others: dict[Connection, float] = {}  # since when; the oldest stands first
        self.started = threading.Event()
        self._guard, self._files = Guard(names), files()
        rate = self.limits.total_rate
        self._total = Bucket(rate, rate, rate * self.limits.patience)
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None

    def run(self, listening: socket.socket) -> None:
        """Serve until `stop`; in the main thread, until SIGINT or SIGTERM, too."""
        asyncio.run(self._run(listening))

    def stop(self) -> None:
        """End `run`, from any thread."""
        assert self._loop is not None
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)

    async def _run(self, listening: socket.socket) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda _, context: self._fault(context))
        if threading.current_thread() is threading.main_thread():
            with contextlib.suppress(NotImplementedError):  # Windows: KeyboardInterrupt ends it
                for number in (signal.SIGINT, signal.SIGTERM):
                    self._loop.add_signal_handler(number, self._end.set)
        listening.setblocking(False)
        async with self.host.desk.open():
            accepting = asyncio.create_task(self._accept(listening))
            self.started.set()
            try:
                await self._end.wait()
            finally:
                accepting.cancel()
                await self._close_all()

    # Connections come and go.

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                for _ in range(ACCEPTED):
                    await self._room()
                    accepted, _ = await loop.sock_accept(listening)
                    self._begin(accepted)
            except OSError as e:
                if e.errno in _EXHAUSTED:  # by files of somebody else
                    self._drop_oldest()
                await asyncio.sleep(0.05)
            await asyncio.sleep(0)  # not every accept waits, and what was accepted is to be read

    def _begin(self, accepted: socket.socket) -> None:
        connection = Connection(self, self.limits, self._total)
        self.others[connection] = time.monotonic()
        self._start(self._connect(accepted, connection))

    async def _connect(self, accepted: socket.socket, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:  # the peer has gone already
            accepted.close()
            self.lost(connection)

    async def _room(self) -> None:
        """Return once another connection may be accepted; the rest waits in the system's queue."""
        while len(self.visitors) + len(self.others) >= self.limits.connections:
            left = next(iter(self.others.values())) + self.limits.young - time.monotonic()
            if left <= 0:
                self._drop_oldest()
            else:
                await asyncio.sleep(min(left, 0.01))  # some may leave earlier

    def _drop_oldest(self) -> None:
        oldest = next(iter(self.others), None)
        if oldest is not None:
            del self.others[oldest]
            oldest.drop("the server is full: come later")

    def closing(self, connection: Connection) -> None:
        """Let another visitor in."""
        if connection in self.visitors:
            self.visitors.remove(connection)
            self.others[connection] = time.monotonic()

    def lost(self, connection: Connection) -> None:
        """Forget a connection."""
        self.visitors.discard(connection)
        self.others.pop(connection, None)

    async def _close_all(self) -> None:
        for connection in tuple(self.visitors):
            connection.close(ENDING, "the server has ended")
        for connection in tuple(self.others):
            if connection.state is State.REQUEST:
                connection.drop("the server has ended")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while self.others:
                    await asyncio.sleep(0.01)
        for connection in tuple(self.others):
            connection.drop("the server has ended")
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(3):  # until those that were dropped are closed
            await asyncio.sleep(0)

    # What a connection asks for.

    def requested(self, connection: Connection, request: Request) -> None:
        """Answer an HTTP request, or open a WebSocket."""
        path = request.path.partition("?")[0]
        if path == "/socket":
            self._open(connection, request)
            return
        host = self._guard.own_host(request.headers)
        headers = {
            "Content-Security-Policy": self._guard.policy(host) if host else "default-src 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-cache",
        }
        file = self._files.get(path.removeprefix("/") or "page.html")
        if host is None:
            status, body = 421, b"not this server: use its address, or --allow-host\n"
        elif request.method not in ("GET", "HEAD"):
            status, body = 405, b"use GET or HEAD\n"
            headers["Allow"] = "GET, HEAD"
        elif file is None:
            status, body = 404, b"there is no such file\n"
        else:
            status, body = 200, file.content
            headers["Content-Type"] = file.kind
        connection.respond(status, body, headers, head=request.method == "HEAD")

    def _open(self, connection: Connection, request: Request) -> None:
        """Open a WebSocket; refuse it in a close frame, whose reason the page can read."""
        if not connection.accept(request):
            return
        reason = self._guard.foreign(request.headers)
        if reason is not None:
            connection.close(FOREIGN, reason)
        elif len(self.visitors) >= self.limits.visitors:
            connection.close(FULL, f"{self.limits.visitors} visitors are here: come later")
        elif connection.state is State.OPEN:
            self.others.pop(connection, None)
            self.visitors.add(connection)
            self._start(self._visit(connection))

    async def _visit(self, connection: Connection) -> None:
        try:
            await self.host.receive(connection)
        except Exception as e:  # a fault of the server, or of a model, is of this visitor alone
            self._fault({"exception": e})
            connection.close(FAILED, "the server failed to answer")

    # Faults of the server itself.

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fault(self, context: Mapping[str, Any]) -> None:
        """Write one line on standard error, but not without end."""
        error = context.get("exception")
        words = f"{type(error).__name__}: {first_line(error)}" if error else context["message"]
        self._faults += 1
        if self._faults <= FAULTS:
            print(f"echospan: the server had a fault ({words})", file=sys.stderr, flush=True)
        if self._faults == FAULTS:
            print("echospan: further faults are not written", file=sys.stderr, flush=True)


_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""What accept says when the system has no room for another connection."""
