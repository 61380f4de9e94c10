"""The page's server: from key to echo, with one user, with two hundred, and beside bad company.

    python -m benchmarks.serve                    # some six minutes, a model it trains
    python -m benchmarks.serve --run runs/variable
    python -m benchmarks.serve --quick            # few users for a second or two, little company

The server is `echospan serve` in a process of its own; the users are in this one, on the same
machine; floods are in processes of their own (`benchmarks.floods`). Statistics: median, 99th
percentile and worst of all keys; every answer is compared with what the model says alone; memory is
the server's own, at the start and at the end. Last, a server that may open 1,024 files is asked for
2,000 connections at once: how many it lets in, how it closes the others, what it writes meanwhile.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync import client as sync

from benchmarks.floods import KINDS
from echospan import EchoModel, ModelConfig, load, train
from echospan.checkpoint import save
from echospan.recipes import RECIPES, TrainingConfig

RATE = 5.0
"""Keys a second of one user."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: int
    port: int

    def memory(self) -> float:
        """Resident megabytes."""
        for line in Path(f"/proc/{self.process}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError

    def busy(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def socket(self) -> str:
        """Its address."""
        return f"ws://127.0.0.1:{self.port}/socket"


@contextlib.contextmanager
def served(run: Path, files: int | None = None, log: IO[str] | None = None) -> Iterator[Server]:
    """A server; `files` that it may open, hard limit and soft; `log`: its standard error."""
    command = [sys.executable, "-m", "echospan", "serve", str(run), "--port", "0"]
    if files is not None:
        command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline()
            yield Server(process.pid, int(address.split(":")[2].split("/")[0]))
        finally:
            process.send_signal(signal.SIGINT)


@dataclass
class Seen:
    """What one user saw."""

    seconds: list[float]
    ids: list[int]
    said: list[list[int]]


async def types(server: Server, symbols: int, keys: int, seed: int, rate: float = RATE) -> Seen:
    """One user: so many keys a second, begun at a moment of their own."""
    draw, seen = random.Random(seed), Seen([], [], [])
    async with connect(server.socket, compression=None) as ws:
        await hello(ws)
        due = time.perf_counter() + draw.random() / rate
        for n in range(1, keys + 1):
            await asyncio.sleep(due - time.perf_counter())
            due += 1 / rate
            seen.ids.append(draw.randrange(1, symbols))
            start = time.perf_counter()
            await ws.send(push(n, seen.ids[-1:]))
            seen.said += json.loads(await ws.recv())["said"]
            seen.seconds.append(time.perf_counter() - start)
    return seen


async def hello(ws: ClientConnection) -> None:
    await ws.send('{"hello": null}')
    await ws.recv()


def push(n: int, ids: list[int]) -> str:
    return json.dumps({"push": n, "model": 0, "ids": ids, "delay": 0})


def wrong(model: EchoModel, seen: list[Seen]) -> int:
    """Answers, at any delay, that the model alone does not give."""
    count = 0
    with torch.inference_mode():
        for user in seen:
            alone = model(torch.tensor([user.ids]))[0][0].argmax(-1).tolist()
            count += sum(a != b for a, b in zip(user.said, alone, strict=True))
    return count


def milliseconds(seconds: list[float]) -> str:
    cut = statistics.quantiles(seconds, n=100, method="inclusive")
    return (
        f"median {1e3 * statistics.median(seconds):.1f} ms, 99 % {1e3 * cut[98]:.1f} ms, "
        f"most {1e3 * max(seconds):.1f} ms"
    )


async def many(server: Server, model: EchoModel, users: int, seconds: float) -> None:
    """So many users at once."""
    keys = int(seconds * RATE)
    await asyncio.gather(*(types(server, model.symbols, keys // 4, s) for s in range(users)))
    before = server.memory()
    seen = await asyncio.gather(*(types(server, model.symbols, keys, s) for s in range(users)))
    after = server.memory()
    delays = [s for user in seen for s in user.seconds]
    print(
        f"{users} users, {RATE:g} keys a second each, {len(delays)} keys: {milliseconds(delays)}; "
        f"{wrong(model, seen)} wrong echoes; memory {before:.0f} to {after:.0f} MB"
    )


async def idle(server: Server, model: EchoModel, visitors: int, seconds: float) -> None:
    """One user among many who only sit there."""
    before = server.memory()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(visitors):
            await hello(await stack.enter_async_context(connect(server.socket, compression=None)))
        seen = await types(server, model.symbols, int(seconds * RATE), 0)
        print(
            f"one user beside {visitors} idle connections: {milliseconds(seen.seconds)}; "
            f"{wrong(model, [seen])} wrong; memory {before:.0f} to {server.memory():.0f} MB"
        )


async def beside(
    server: Server, model: EchoModel, kind: str, connections: int, seconds: float
) -> None:
    """One user of ten keys a second beside a flood, which has a process of its own."""
    command = [sys.executable, "-m", "benchmarks.floods", kind, str(server.port)]
    command += ["--connections", str(connections), "--seconds", str(seconds + 1.0)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as flooding:
        await asyncio.sleep(0.5)  # for its Python to begin
        before, start = server.busy(), time.perf_counter()
        seen = await types(server, model.symbols, int(seconds * 10), 0, 10.0)
        busy = (server.busy() - before) / (time.perf_counter() - start)
        sent, _ = await asyncio.to_thread(flooding.communicate)
    print(
        f"beside {kind} on {connections}: {milliseconds(seen.seconds)}; {wrong(model, [seen])} "
        f"wrong; {sent.strip()}; server busy {100 * busy:.0f} %; memory {server.memory():.0f} MB"
    )


def opened(server: Server) -> float:
    """Seconds until the page is here with all that it names, and its socket says welcome."""
    start = time.perf_counter()
    address = f"http://127.0.0.1:{server.port}/"
    with urllib.request.urlopen(address, timeout=60) as answer:
        page = answer.read().decode()
    for name in re.findall(r'(?:src|href)="([^"#]+)"', page):
        with urllib.request.urlopen(address + name, timeout=60) as answer:
            answer.read()
    with sync.connect(server.socket, compression=None, open_timeout=60) as ws:
        ws.send('{"hello": null}')
        assert "welcome" in ws.recv(timeout=60)
    return time.perf_counter() - start


async def half_open(server: Server, model: EchoModel, count: int, seconds: float) -> None:
    """The page opens, and one types, beside connections whose requests are never finished."""
    with contextlib.ExitStack() as stack:
        for n in range(count):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            raw.sendall(b"GET / HTTP/1.1\r\n"[: n % 17])
        loads = [await asyncio.to_thread(opened, server) for _ in range(5)]
        seen = await types(server, model.symbols, int(seconds * 10), 0, 10.0)
    print(
        f"beside {count} half-open connections the page opens in {1e3 * min(loads):.0f} to "
        f"{1e3 * max(loads):.0f} ms; {milliseconds(seen.seconds)}; {wrong(model, [seen])} wrong"
    )


async def few_files(run: Path, model: EchoModel, files: int, attempts: int, stay: float) -> None:
    """More connections than the server may open files: what becomes of each."""

    async def come(server: Server, leave: asyncio.Event) -> str:
        try:
            async with connect(server.socket, compression=None, open_timeout=60) as ws:
                await hello(ws)
                await leave.wait()
                return "in"
        except ConnectionClosed as end:
            return str(end.rcvd.code) if end.rcvd is not None else "lost"
        except InvalidStatus as e:
            return str(e.response.status_code)
        except (OSError, InvalidHandshake) as e:
            return type(e).__name__

    with tempfile.TemporaryFile("w+") as log, served(run, files, log) as server:
        leave = asyncio.Event()
        coming = [asyncio.create_task(come(server, leave)) for _ in range(attempts)]
        await asyncio.sleep(stay)
        leave.set()
        ends = Counter(await asyncio.gather(*coming))
        seen = await types(server, model.symbols, 20, 0, 10.0)
        size = log.seek(0, 2)
    print(
        f"{attempts} connections to a server that may open {files} files: "
        + ", ".join(f"{n} {end}" for end, n in sorted(ends.items()))
        + f"; {size} bytes on standard error; afterwards {milliseconds(seen.seconds)}"
    )


def on_screen(server: Server, keys: int) -> None:
    """One user in Chromium: from the key to the frame that shows the echo."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        print("no Chromium here: nothing is measured on the screen")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_selector(".model canvas", state="attached")
        page.evaluate(
            """() => {
              globalThis.seconds = [];
              let pressed = 0;
              addEventListener("keydown", (event) => (pressed = event.timeStamp));
              const draw = Echospan.page.draw.bind(Echospan.page);
              Echospan.page.draw = () => {
                draw();
                const then = new MessageChannel(); // heard when the frame is done
                then.port1.onmessage = () => seconds.push((performance.now() - pressed) / 1000);
                then.port2.postMessage(0);
              };
            }"""
        )
        draw = random.Random(0)
        for _ in range(keys):
            page.keyboard.press(draw.choice("abcdef"))
            time.sleep(1 / RATE * draw.random())
        time.sleep(0.3)
        seconds = page.evaluate("seconds")
        assert len(seconds) >= 0.9 * keys, f"{len(seconds)} frames for {keys} keys"
        browser.close()
    print(f"from key to screen in Chromium, {len(seconds)} frames: {milliseconds(seconds)}")


def made(folder: Path, quick: bool) -> Path:
    """A run to serve: quick, one that was never trained."""
    recipe = RECIPES["variable"]
    if quick:
        torch.manual_seed(0)
        model = EchoModel(ModelConfig(hidden=32))
    else:
        model = train(recipe).model
    return save(model, TrainingConfig(), folder / "variable", {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--quick", action="store_true")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8_192)), hard))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or made(Path(folder), args.quick)
        model = load(run)
        print(f"torch {torch.__version__}, {model.config.core}, {model.config.hidden} units")
        with served(run) as server:
            if args.quick:
                asyncio.run(many(server, model, 20, 1.0))
                asyncio.run(idle(server, model, 50, 0.8))
                asyncio.run(beside(server, model, "pings", 1, 0.5))
                asyncio.run(half_open(server, model, 100, 0.5))
                return
            on_screen(server, 200)
            asyncio.run(many(server, model, 1, 20.0))
            asyncio.run(many(server, model, 200, 30.0))
            asyncio.run(idle(server, model, 1000, 10.0))
            for kind in KINDS:
                for connections in (1, 3, 10):
                    asyncio.run(beside(server, model, kind, connections, 5.0))
            asyncio.run(half_open(server, model, 2_200, 10.0))
        asyncio.run(few_files(run, model, 1_024, 2_000, 10.0))


if __name__ == "__main__":
    main()
