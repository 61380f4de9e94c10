"""The page's server: from key to echo, with one user, with two hundred, and beside bad company.

    python -m benchmarks.serve                    # two and a half minutes, a model it trains
    python -m benchmarks.serve --run runs/variable
    python -m benchmarks.serve --quick            # few users for a second or two, no bad company

The server is `echospan serve` in a process of its own; the users are in this one, on the same
machine. Statistics: median and 99th percentile of all keys; every answer is compared with what the
model says alone; memory is the server's own, at the start and at the end.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import multiprocessing
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

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

    @property
    def socket(self) -> str:
        """Its address."""
        return f"ws://127.0.0.1:{self.port}/socket"


@contextlib.contextmanager
def served(run: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "echospan", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline()
        yield Server(process.pid, int(address.split(":")[2].split("/")[0]))
        process.send_signal(signal.SIGINT)


@dataclass
class Seen:
    """What one user saw."""

    seconds: list[float]
    ids: list[int]
    said: list[list[int]]


async def types(server: Server, symbols: int, keys: int, seed: int) -> Seen:
    """One user: a key every 0.2 s, begun at a moment of their own."""
    draw, seen = random.Random(seed), Seen([], [], [])
    async with connect(server.socket, compression=None) as ws:
        await hello(ws)
        due = time.perf_counter() + draw.random() / RATE
        for n in range(1, keys + 1):
            await asyncio.sleep(due - time.perf_counter())
            due += 1 / RATE
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
    cut = statistics.quantiles(seconds, n=100)
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


async def floods(socket: str, end: float, ids: list[int], deaf: bool) -> None:
    """Send without a pause until `end`, or until it is let go; a deaf one reads nothing."""
    more = {"max_queue": 1} if deaf else {}
    with contextlib.suppress(ConnectionClosed, OSError):
        async with connect(socket, compression=None, **more) as ws:  # type: ignore[arg-type]

            async def hears() -> None:
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        await ws.recv()

            await hello(ws)
            hearing = None if deaf else asyncio.create_task(hears())
            for n in itertools.count(1):
                if time.time() > end:
                    break
                await asyncio.wait_for(ws.send(push(n, ids)), max(0.1, end - time.time()))
                await asyncio.sleep(0)
            if hearing is not None:
                hearing.cancel()


def bad_company(socket: str, end: float, each: int) -> None:
    """Floods of keys, floods of texts, and visitors who never read: so many of each."""

    async def all_of_them() -> None:
        kinds = (([1], False), ([1] * 512, False), ([1] * 512, True))
        await asyncio.gather(
            *(floods(socket, end, ids, deaf) for ids, deaf in kinds for _ in range(each)),
            return_exceptions=True,
        )

    asyncio.run(all_of_them())


async def attack(server: Server, model: EchoModel, seconds: float, each: int) -> None:
    """One user beside bad company, which has a process of its own."""
    before, start = server.memory(), 3.0  # seconds that a process takes to import all this
    process = multiprocessing.get_context("spawn").Process(
        target=bad_company, args=(server.socket, time.time() + seconds + start, each)
    )
    process.start()
    await asyncio.sleep(start)
    seen = await types(server, model.symbols, int(seconds * RATE), 0)
    during = server.memory()
    await asyncio.to_thread(process.join)
    print(
        f"one user beside {each} floods of keys, {each} of texts, {each} who never read: "
        f"{milliseconds(seen.seconds)}; {wrong(model, [seen])} wrong; "
        f"memory {before:.0f} to {during:.0f} MB"
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
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or made(Path(folder), args.quick)
        model = load(run)
        print(f"torch {torch.__version__}, {model.config.core}, {model.config.hidden} units")
        with served(run) as server:
            if args.quick:
                asyncio.run(many(server, model, 20, 1.0))
                asyncio.run(idle(server, model, 50, 0.8))
                return
            on_screen(server, 200)
            asyncio.run(many(server, model, 1, 20.0))
            asyncio.run(many(server, model, 200, 30.0))
            asyncio.run(idle(server, model, 1000, 10.0))
            asyncio.run(attack(server, model, 20.0, 5))


if __name__ == "__main__":
    main()
