"""A server in the same process, and visitors who speak to it."""

import contextlib
import json
import re
import socket
import threading

from websockets.sync.client import connect

from echospan.web.limits import Limits
from echospan.web.server import Server, listen


class Served:
    """A running server: its port, and its state."""

    def __init__(self, port, server):
        self.port, self.server, self.host = port, server, server.host

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    @property
    def socket(self):
        return f"ws://127.0.0.1:{self.port}/socket"

    def raw(self, *sent):
        """A TCP connection on which this was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        for data in sent:
            connection.sendall(data)
        return connection


@contextlib.contextmanager
def serving(models, port=0, names=(), **limits):
    """The models, served until the block ends."""
    running = Server(models, Limits(**limits), names)
    with listen("127.0.0.1", port) as listening:
        thread = threading.Thread(target=running.run, args=(listening,))
        thread.start()
        try:
            assert running.started.wait(30)
            yield Served(listening.getsockname()[1], running)
        finally:
            running.stop()
            thread.join()


class Visitor:
    """A visitor of a server, as the page is one."""

    def __init__(self, ws, token=None):
        self.ws = ws
        self.ws.send(json.dumps({"hello": token}))
        self.welcome = json.loads(self.ws.recv())
        self.token = self.welcome["welcome"]
        self.numbers = [m["last"] for m in self.welcome["models"]]

    def send(self, ids, model=0, delay=0):
        self.numbers[model] += 1
        push = {"push": self.numbers[model], "model": model, "ids": list(ids), "delay": delay}
        self.ws.send(json.dumps(push))

    def read(self):
        return json.loads(self.ws.recv())

    def push(self, ids, model=0, delay=0):
        """What was said, at each step and delay."""
        self.send(ids, model, delay)
        return self.read()["said"]


@contextlib.contextmanager
def visiting(served, token=None):
    """A visitor, here until the block ends."""
    with connect(served.socket, compression=None) as ws:
        yield Visitor(ws, token)


@contextlib.contextmanager
def proxied(served, prefix, keeps_host):
    """A proxy that takes `prefix` off the path, as an nginx location or a notebook server does.

    The port; the Host that a browser sent goes through, or becomes that of the server.
    """

    def forward(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def connected(client):
        with client, contextlib.suppress(OSError), served.raw() as upstream:
            upstream.settimeout(None)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1) or b"\r\n\r\n"
            line, _, headers = head.partition(b"\r\n")
            method, path, version = line.split(b" ")
            if not path.startswith(prefix.encode()):
                client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                return
            line = b" ".join([method, b"/" + path.removeprefix(prefix.encode()), version])
            if not keeps_host:
                host = re.search(rb"(?i)^host: .*$", headers, re.M)[0]
                headers = headers.replace(host, b"Host: 127.0.0.1:%d\r" % served.port)
            upstream.sendall(line + b"\r\n" + headers)
            there = threading.Thread(target=forward, args=(client, upstream))
            there.start()
            forward(upstream, client)
            there.join()

    def accept():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                threads.append(threading.Thread(target=connected, args=(client,)))
                threads[-1].start()

    threads = [threading.Thread(target=accept)]
    with listen("127.0.0.1", 0) as listening:
        threads[0].start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
