"""The desk where all visitors' symbols arrive, and leave in one pass of a model where they can."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from echospan.web.served import Answer, Served, Work

Waiting = tuple[Work, "asyncio.Future[Answer]"]


class Desk:
    """Answers works, first come first served, but single keys before long texts.

    One thread reads, so the loop that listens to all visitors never waits for a model. While a
    pass runs others arrive, and the next one takes all their keys: the more visitors, the larger
    the pass. Between two passes of keys at most one text is read.
    """

    def __init__(self, models: Sequence[Served]) -> None:
        self.models = models
        self._keys: list[deque[Waiting]] = [deque() for _ in models]
        self._texts: deque[tuple[Served, Waiting]] = deque()
        self._arrived = asyncio.Event()

    async def answer(self, model: int, work: Work) -> Answer:
        """The answer to a work, once it has had its turn."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if len(work.ids) == 1:
            self._keys[model].append((work, future))
        else:
            self._texts.append((self.models[model], (work, future)))
        self._arrived.set()
        return await future

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """At work while inside."""
        with ThreadPoolExecutor(1, "echospan-desk") as thread:
            task = asyncio.create_task(self._work(thread))
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _work(self, thread: ThreadPoolExecutor) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while passes := self._next():
                for model, waiting in passes:
                    await self._pass(thread, model, waiting)

    def _next(self) -> list[tuple[Served, list[Waiting]]]:
        """The passes of the next turn."""
        passes = []
        for model, keys in zip(self.models, self._keys, strict=True):
            there = [keys.popleft() for _ in range(len(keys))]
            kinds = [(str(model.alike(work)), (work, future)) for work, future in there]
            kinds.sort(key=lambda kind: kind[0])
            for _, same in groupby(kinds, key=lambda kind: kind[0]):
                passes.append((model, [waiting for _, waiting in same]))
        if self._texts:
            model, text = self._texts.popleft()
            passes.append((model, [text]))
        return passes

    async def _pass(
        self, thread: ThreadPoolExecutor, model: Served, waiting: list[Waiting]
    ) -> None:
        works = [work for work, _ in waiting]
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(thread, model.answers, works)
        except Exception as e:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(e)
            return
        for (_, future), answer in zip(waiting, answers, strict=True):
            if not future.done():  # a visitor may have left meanwhile
                future.set_result(answer)
