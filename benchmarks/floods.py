"""Clients that cost a server of the page as much as they can, for `benchmarks.serve`.

    python -m benchmarks.floods pings 8737 --connections 3 --seconds 10

Only 127.0.0.1 is asked, and every kind ends by itself. A connection that the server closes is
opened again at once. The last line says how many were opened and how many bytes were sent.
"""

import argparse
import contextlib
import json
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HANDSHAKE = (
    b"GET /socket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PAGE = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def frame(opcode: int, data: bytes = b"", fin: bool = True) -> bytes:
    """Return a masked frame; the mask is zero, so the payload is as it stands."""
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([fin << 7 | opcode]) + length + bytes(4) + data


def text(**fields: object) -> bytes:
    """Return a frame of JSON."""
    return frame(1, json.dumps(fields).encode())


def _again(data: bytes) -> Callable[[], Iterator[bytes]]:
    """Return what sends the same bytes without end, some 64 KiB at a time."""
    many = data * max(1, 65_536 // len(data))

    def parts() -> Iterator[bytes]:
        while True:
            yield many

    return parts


def _pushes(symbols: int) -> Callable[[], Iterator[bytes]]:
    def parts() -> Iterator[bytes]:
        ids, n = [1] * symbols, 0
        while True:
            n += 1
            yield text(push=n, model=0, ids=ids, delay=0)

    return parts


def _resets() -> Iterator[bytes]:
    n = 0
    while True:
        n += 1
        yield text(reset=n, model=0)


def _fragments() -> Iterator[bytes]:
    yield frame(1, fin=False)
    yield from _again(frame(0, fin=False))()


def _nothing() -> Iterator[bytes]:
    return iter(())


@dataclass(frozen=True)
class Kind:
    """What a connection sends."""

    parts: Callable[[], Iterator[bytes]]
    """What follows its beginning."""
    begin: bytes = HANDSHAKE + text(hello=None)
    """What it sends first."""
    reads: bool = True
    """Whether it reads what the server sends."""


def _kind(parts: Callable[[], Iterator[bytes]], begin: bytes | None = None, **more: bool) -> Kind:
    return Kind(parts, **({} if begin is None else {"begin": begin}), **more)


KINDS = {
    "pings": _kind(_again(frame(9))),
    "pings, pongs unread": _kind(_again(frame(9)), reads=False),
    "long pings": _kind(_again(frame(9, b"x" * 125))),
    "pongs": _kind(_again(frame(10))),
    "empty fragments": _kind(_fragments),
    "empty messages": _kind(_again(frame(1))),
    "binary frames": _kind(_again(frame(2, b"x" * 1_000))),
    "keys": _kind(_pushes(1)),
    "one key, repeated": _kind(_again(text(push=1, model=0, ids=[1], delay=0))),
    "resets": _kind(_resets),
    "texts": _kind(_pushes(512)),
    "texts, unread": _kind(_pushes(512), reads=False),
    "JSON of many brackets": _kind(_again(frame(1, b"[" * 16_000))),
    "handshakes": _kind(_nothing, HANDSHAKE + frame(8)),
    "pages": _kind(_nothing, PAGE),
    "headers without end": _kind(_again(b"X: y\r\n"), PAGE[:-2]),
}


class _Client:
    """One connection, opened anew when the server has closed it."""

    def __init__(self, kind: Kind, port: int, selector: selectors.BaseSelector) -> None:
        self.kind, self.port, self.selector = kind, port, selector
        self.opened = self.sent = 0
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.waiting = self.kind.begin
        if self.waiting.startswith(HANDSHAKE):
            self.socket.sendall(HANDSHAKE)
            head = b""  # what comes before the handshake is answered would be refused
            while not head.endswith(b"\r\n\r\n"):
                part = self.socket.recv(1)
                if not part:
                    raise ConnectionResetError
                head += part
            self.waiting = self.waiting[len(HANDSHAKE) :]
        self.socket.setblocking(False)
        self.parts = self.kind.parts()
        self.opened += 1
        events = selectors.EVENT_WRITE | (selectors.EVENT_READ if self.kind.reads else 0)
        self.selector.register(self.socket, events, self)

    def ready(self, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and not self.socket.recv(262_144):
                raise ConnectionResetError
            if events & selectors.EVENT_WRITE:
                self.send()
        except BlockingIOError:
            pass
        except OSError:
            self.selector.unregister(self.socket)
            self.socket.close()
            self.open()

    def send(self) -> None:
        self.waiting = self.waiting or next(self.parts, b"")
        if not self.waiting:
            self.selector.modify(self.socket, selectors.EVENT_READ, self)
            return
        sent = self.socket.send(self.waiting)
        self.waiting = self.waiting[sent:]
        self.sent += sent


def flood(name: str, port: int, connections: int, seconds: float) -> str:
    """Send until the time is over; return what was done, in words."""
    selector = selectors.DefaultSelector()
    clients = [_Client(KINDS[name], port, selector) for _ in range(connections)]
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for key, events in selector.select(left):
            with contextlib.suppress(OSError):  # the server may be slow to take it up again
                key.data.ready(events)
    for client in clients:
        client.socket.close()
    opened, sent = sum(c.opened for c in clients), sum(c.sent for c in clients)
    return f"{opened} connections, {sent / 1e6:.1f} MB sent"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    print(flood(args.kind, args.port, args.connections, args.seconds))


if __name__ == "__main__":
    main()
