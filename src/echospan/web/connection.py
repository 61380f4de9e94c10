"""One TCP connection, from accept to end: an HTTP request, or a WebSocket.

    state     ends when                       at most              and then
    request   the request is complete         `patience` seconds   408 if it began, closing
    open      either side closes              while the peer lives closing
    closing   the peer has closed, too        `closing` seconds    closed

In every state a peer that reads nothing while bytes wait for it is dropped after `patience`
seconds. One turn of the event loop reads at most `READ` bytes of a connection, and what they cost
is taken from its pace: pings, pongs and fragments as much as text.

HTTP is what a page of a few small files needs: GET and HEAD, one request per connection, no body.
Parsing and framing are those of the `websockets` package, through its interface without I/O.
"""

import asyncio
import contextlib
import enum
import http
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from typing import Protocol, cast

from websockets.exceptions import HeaderLineTooLong, RequestLineTooLong, TooManyHeaders
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import SEND_EOF
from websockets.server import ServerProtocol

from echospan.web.limits import Limits
from echospan.web.pace import Bucket, Pace
from echospan.web.wire import MALFORMED, TOO_BIG, UNFIT, close_reason

READ = 2_048
"""Bytes read of a connection in one turn: 341 of the smallest frames, some milliseconds."""

_DISCARDED = bytearray(65_536)
"""What a closing connection is read into, of all connections: nobody looks at it."""

WRITE = 65_536
"""Bytes that may wait for a peer before it is waited for."""

_SILENT = logging.getLogger("echospan.web")
_SILENT.addHandler(logging.NullHandler())  # a peer cannot make the server write a log


class State(enum.Enum):
    """States of a connection."""

    REQUEST, OPEN, CLOSING, CLOSED = range(4)


class Gone(Exception):
    """The peer has closed the WebSocket, or is lost."""


class Owner(Protocol):
    """What a connection tells its server."""

    def requested(self, connection: "Connection", request: Request) -> None:
        """Handle a complete request: call `respond`, or `accept`."""

    def closing(self, connection: "Connection") -> None:
        """Note that the connection is closing."""

    def lost(self, connection: "Connection") -> None:
        """Note that the connection is closed."""


class Connection(asyncio.BufferedProtocol):
    """A connection of a peer; `receive` and `send` once its WebSocket is open."""

    _transport: asyncio.Transport

    def __init__(self, owner: Owner, limits: Limits, total: Bucket) -> None:
        """`total`: what all connections of the server may cost together."""
        self.state = State.REQUEST
        self._owner, self._limits = owner, limits
        self._pace = Pace(limits, total)
        self._protocol = ServerProtocol(max_size=limits.frame, logger=_SILENT)
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(READ)
        self._connected = False
        self._received = 0  # bytes of the request
        self._discarded = 0  # bytes since it is closing
        self._early = False  # whether more came right behind the request
        self._held: set[str] = set()  # reasons not to read
        self._message = bytearray()  # of the frames that have come of a message
        self._fragments = 0
        self._messages: deque[str] = deque()
        self._changed = asyncio.Event()  # the messages, whether the peer reads, or the state
        self._alive = True  # whether the peer has sent anything since the last ping
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._paced: asyncio.TimerHandle | None = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the request must be complete in time."""
        self._transport, self._connected = cast(asyncio.Transport, transport), True
        if self.state is State.CLOSED:  # dropped before it was connected
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=WRITE)
        self._after(self._limits.patience, self._request_late)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return the buffer to read into."""
        return self._buffer if self.state in (State.REQUEST, State.OPEN) else _DISCARDED

    def buffer_updated(self, nbytes: int) -> None:
        """Handle what was read."""
        self._alive = True
        if self.state in (State.CLOSING, State.CLOSED):
            # Read on: closed upon unread bytes, TCP would drop what the peer has not read yet.
            self._discarded += nbytes
            if self._discarded > self._limits.discarded:
                self._transport.abort()
            return
        frames = 0
        self._protocol.receive_data(self._buffer[:nbytes])
        events = self._protocol.events_received()
        if self.state is State.REQUEST:
            self._received += nbytes
            self._handle_request(events)
        else:
            frames = len(events)
            for event in events:
                if self.state is State.OPEN:
                    self._handle_frame(cast(Frame, event))
            self._flush()
        wait = self._pace.spend(frames * self._limits.frame_cost + nbytes * self._limits.byte_cost)
        if wait and self.state in (State.REQUEST, State.OPEN):
            self._hold("pace")
            self._paced = self._loop.call_later(wait, self._release, "pace")

    def eof_received(self) -> None:
        """End: the peer sends no more. What is written is still sent."""
        self._enter_closing()

    def pause_writing(self) -> None:
        """Wait for a peer that does not read, but not for ever; meanwhile, read nothing of it."""
        self._hold("write")
        self._stalled = self._loop.call_later(self._limits.patience, self._transport.abort)

    def resume_writing(self) -> None:
        """Go on: the peer reads."""
        if self._stalled is not None:
            self._stalled.cancel()
        self._release("write")
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.state = State.CLOSED
        for timer in (self._deadline, self._stalled, self._paced):
            if timer is not None:
                timer.cancel()
        self._message.clear()
        self._changed.set()
        self._owner.lost(self)

    # HTTP.

    def _handle_request(self, events: Sequence[object]) -> None:
        """Hand over a complete request; answer one that never will be."""
        more = self._protocol.data_to_send()
        if events:
            self._early = len(events) > 1 or bool(more)
            self._owner.requested(self, cast(Request, events[0]))
        elif more:
            # The parser has given up. Its own answer is for WebSockets, or there is none.
            error = self._protocol.handshake_exc
            if isinstance(error, RequestLineTooLong):
                self.respond(414, "the request line is too long\n")
            elif isinstance(error, (HeaderLineTooLong, TooManyHeaders)):
                self.respond(431, "the headers are too long, or too many\n")
            else:
                self.respond(400, "no HTTP request without a body\n")
        elif self._received > self._limits.request:
            self.respond(431, f"a request has at most {self._limits.request} bytes\n")

    def _request_late(self) -> None:
        if not self._received:
            self._transport.close()  # a browser may have opened it to have it ready
            return
        seconds = self._limits.patience
        self.respond(408, f"the request was not complete within {seconds:g} seconds\n")

    def respond(
        self,
        status: int,
        body: str | bytes,
        headers: Mapping[str, str] | None = None,
        *,
        head: bool = False,
    ) -> None:
        """Answer the request and close.

        Args:
            status: The HTTP status.
            body: Text or bytes.
            headers: Headers beside Date, Connection and Content-Length.
            head: Whether the request was HEAD, which is answered without the body.
        """
        content = body.encode() if isinstance(body, str) else body
        fields = {
            "Date": formatdate(usegmt=True),
            "Connection": "close",
            "Content-Length": str(len(content)),
            "Content-Type": "text/plain; charset=utf-8",
            **(headers or {}),
        }
        lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        start = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
        self._write(start if head else start + content)
        self._write_eof()
        self._enter_closing()

    def accept(self, request: Request) -> bool:
        """Answer a WebSocket handshake; return whether the WebSocket is open now."""
        if self._early:
            self.respond(400, "more was sent before the handshake was answered\n")
            return False
        response = self._protocol.accept(request)
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            headers = dict(response.headers.raw_items())
            self.respond(response.status_code, bytes(response.body), headers)
            return False
        self._protocol.send_response(response)
        self.state = State.OPEN
        self._after(self._limits.ping, self._ping)
        self._flush()
        return True

    # WebSocket.

    async def receive(self) -> str:
        """Return the next message; raise Gone where there will be none."""
        while not self._messages:
            if self.state is not State.OPEN:
                raise Gone
            self._changed.clear()
            await self._changed.wait()
        message = self._messages.popleft()
        if not self._messages:
            self._release("queue")
        return message

    async def send(self, text: str) -> None:
        """Send a message and wait until the peer reads; raise Gone where it does not."""
        if self.state is State.OPEN:
            self._protocol.send_text(text.encode())
            self._flush()
        while "write" in self._held and self.state is State.OPEN:
            self._changed.clear()
            await self._changed.wait()
        if self.state is not State.OPEN:
            raise Gone

    def spend(self, cost: float) -> float:
        """Take a cost from the pace of this connection; return the seconds to wait."""
        return self._pace.spend(cost)

    def close(self, code: int, reason: str) -> None:
        """Close the WebSocket; the reason is cut to what a frame holds."""
        if self.state is State.OPEN:
            self._protocol.fail(code, close_reason(reason))
            self._flush()

    def drop(self, reason: str) -> None:
        """Close at once; a connection whose request is not finished is answered 503."""
        if not self._connected:
            self.state = State.CLOSED
            return
        if self.state is State.REQUEST:
            self.respond(503, f"{reason}\n", {"Retry-After": "5"})
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    def _handle_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self.close(UNFIT, "a frame is binary: send JSON in text")
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._fragments += 1
            self._message += frame.data
            if self._fragments > self._limits.fragments:
                self.close(TOO_BIG, f"a message in more than {self._limits.fragments} fragments")
            elif frame.fin:
                self._handle_message()

    def _handle_message(self) -> None:
        try:
            text = self._message.decode()
        except UnicodeDecodeError:
            self.close(MALFORMED, "a frame is no UTF-8")
            return
        self._message.clear()
        self._fragments = 0
        self._messages.append(text)
        self._hold("queue")  # until it is received: a peer cannot fill the memory
        self._changed.set()

    def _ping(self) -> None:
        """Ask whether the peer is alive, and drop one that was asked and sent nothing."""
        if not self._alive and not self._held:
            self._transport.abort()
            return
        self._alive = False
        self._protocol.send_ping(b"")
        self._after(self._limits.ping, self._ping)
        self._flush()

    # What both need.

    def _flush(self) -> None:
        """Write what the WebSocket has to send; where it ends, close."""
        data = self._protocol.data_to_send()
        self._write(b"".join(data))
        if SEND_EOF in data:
            self._write_eof()
        if self._protocol.close_expected():
            self._enter_closing()

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _write_eof(self) -> None:
        if not self._transport.is_closing():
            with contextlib.suppress(OSError):  # the peer has reset the connection meanwhile
                self._transport.write_eof()

    def _enter_closing(self) -> None:
        """Wait for the peer to close, too, while what it sends is thrown away."""
        if self.state in (State.CLOSING, State.CLOSED):
            return
        self.state = State.CLOSING
        for reason in tuple(self._held - {"write"}):
            self._release(reason)
        self._after(self._limits.closing, self._close_late)
        self._changed.set()
        self._owner.closing(self)

    def _close_late(self) -> None:
        self._transport.close()  # once what waits is sent
        self._after(self._limits.patience, self._transport.abort)

    def _after(self, seconds: float, call: Callable[[], object]) -> None:
        """Set the one deadline of the present state."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(seconds, call)

    def _hold(self, reason: str) -> None:
        if not self._held and not self._transport.is_closing():
            self._transport.pause_reading()
        self._held.add(reason)

    def _release(self, reason: str) -> None:
        self._held.discard(reason)
        if not self._held and not self._transport.is_closing():
            self._transport.resume_reading()
