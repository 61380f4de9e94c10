"""The server: a few files, and one socket a visitor."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from echospan.errors import SettingError, option
from echospan.web.desk import Desk
from echospan.web.guard import Guard, foreign
from echospan.web.limits import Limits
from echospan.web.pace import Pace
from echospan.web.served import Served, Work
from echospan.web.static_files import files
from echospan.web.visits import Memory, Visit, Visits
from echospan.web.wire import (
    ELSEWHERE,
    FOREIGN,
    FULL,
    MALFORMED,
    UNFIT,
    Push,
    Refused,
    answered,
    read_hello,
    read_push,
    welcome,
)


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
            listening.listen(1024)
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


class _Reading(WebSocketsSansIOProtocol):
    """A socket of uvicorn that lets go of who sends and never reads, and tells each why."""

    limits = Limits()
    _late: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._late = self.loop.call_later(self.limits.patience, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._in_time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Pongs are not awaited by anyone: a flood of pings is answered into this buffer.
        if self.transport.get_write_buffer_size() > self.limits.unread:
            self.transport.abort()

    def handle_parser_exception(self) -> None:
        """Say why, and throw away what still arrives: closed upon, it would hide the reason."""
        if self.close_timer is not None:
            return
        closed = self.conn.close_sent
        assert closed is not None
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(1.0, self.transport.close)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Host:
    """What all connections share: the models, the desk, the visitors."""

    def __init__(self, models: Sequence[Served], limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.desk = Desk(models)
        self.visits = Visits(len(models), limits)
        self.connections = 0

    async def receive(self, ws: WebSocket) -> None:
        """One connection from its first frame to its last."""
        await ws.accept()
        self.connections += 1
        try:
            if self.connections > self.limits.connections:
                raise Refused(FULL, f"{self.limits.connections} visitors are here: come later")
            await self._visit(ws)
        except Refused as e:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await ws.close(e.code, e.reason)
        except WebSocketDisconnect:
            pass
        finally:
            self.connections -= 1

    async def _visit(self, ws: WebSocket) -> None:
        try:
            async with asyncio.timeout(self.limits.patience):
                token = read_hello(await _text(ws))
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
            await self._serve(ws, visit, kept)
        except asyncio.CancelledError:
            if not moved:
                raise
            task.uncancel()
            raise Refused(ELSEWHERE, "this page is open in another window, which goes on") from None
        finally:
            self.visits.go(visit, leave)

    async def _serve(self, ws: WebSocket, visit: Visit, kept: bool) -> None:
        pace = Pace(self.limits.rate, self.limits.burst)
        async with visit.busy:  # what the last connection had under way is done first
            last = [m.last for m in visit.memories]
        await ws.send_text(welcome(visit.token, kept, self.models, last))
        while True:
            text = await _text(ws)
            push = read_push(text, self.models, self.limits)
            await pace.spend(self.limits.frame_cost + len(push.ids))
            async with visit.busy:
                frame = await self._read(push, visit.memories[push.model])
            await ws.send_text(frame)

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


async def _text(ws: WebSocket) -> str:
    message = await ws.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    if text is None:
        raise Refused(UNFIT, "a frame is binary: send JSON in text")
    return str(text)


def app(
    models: Sequence[Served], limits: Limits | None = None, also: str = "localhost"
) -> Starlette:
    """The application: page and socket. `also` is a Host that is its own beside addresses."""
    limits = limits or Limits()
    common_alphabet(models)
    host, there = Host(models, limits), files()

    async def file(request: Request) -> Response:
        found = there.get(request.path_params.get("name", "page.html"))
        if found is None:
            return PlainTextResponse("there is no such file\n", 404)
        return Response(found.content, media_type=found.kind)

    async def socket(ws: WebSocket) -> None:
        why = foreign(ws.headers, also)
        if why is not None:
            await ws.accept()
            await ws.close(FOREIGN, why)
            return
        await host.receive(ws)

    @contextlib.asynccontextmanager
    async def at_work(_: Starlette) -> AsyncIterator[None]:
        async with host.desk.open():
            yield

    made = Starlette(
        routes=[
            Route("/", file),
            WebSocketRoute("/socket", socket),
            Route("/{name}", file),
        ],
        middleware=[Middleware(Guard, also=also)],
        lifespan=at_work,
    )
    made.state.host = host
    return made


def server(
    models: Sequence[Served], limits: Limits | None = None, also: str = "localhost"
) -> uvicorn.Server:
    """A server that is not yet running: `server(…).run(sockets=[listen(…)])`."""
    limits = limits or Limits()
    reading = type("Reading", (_Reading,), {"limits": limits})
    config = uvicorn.Config(
        app(models, limits, also),
        ws=reading,
        ws_max_size=limits.frame,
        ws_per_message_deflate=False,
        limit_concurrency=limits.connections + 100,
        timeout_graceful_shutdown=1,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    return uvicorn.Server(config)
