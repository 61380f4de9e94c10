"""The desk where all visitors' symbols arrive, and leave in one pass of a model where they can."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby

from echospan.web.served import SHOWN, Answer, Served, Work

PIECE = SHOWN
"""Symbols of a text that are read in one pass. A key waits for one piece at most, and the last one
has all hidden states that are shown."""

Waiting = tuple[Work, "asyncio.Future[Answer]"]


@dataclass
class _Text:
    """A work of several symbols, and how far it has come."""

    model: Served
    work: Work
    future: "asyncio.Future[Answer]"
    said: list[list[int]] = field(default_factory=list)
    sure: list[list[int]] = field(default_factory=list)

    def next_piece(self) -> Work:
        """Return the symbols to read next; the first piece is the one that may be short."""
        ids = self.work.ids
        return replace(self.work, ids=ids[: len(ids) % PIECE or PIECE])

    def add(self, piece: Work, answer: Answer) -> None:
        """Take the answer to a piece; the last one ends the work."""
        self.said += answer.said
        self.sure += answer.sure
        left = self.work.ids[len(piece.ids) :]
        self.work = replace(self.work, ids=left, state=answer.state)
        if not left:
            self.future.set_result(replace(answer, said=self.said, sure=self.sure))


class Desk:
    """Answers works, first come first served, but single keys before long texts.

    One thread reads, so the loop that listens to all visitors never waits for a model. While a
    pass runs others arrive, and the next one takes all their keys: the more visitors, the larger
    the pass. Between two passes of keys at most one piece of one text is read, of each in turn.
    """

    def __init__(self, models: Sequence[Served]) -> None:
        self.models = models
        self._keys: list[deque[Waiting]] = [deque() for _ in models]
        self._texts: deque[_Text] = deque()
        self._arrived = asyncio.Event()

    async def answer(self, model: int, work: Work) -> Answer:
        """The answer to a work, once it has had its turn."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if len(work.ids) == 1:
            self._keys[model].append((work, future))
        else:
            self._texts.append(_Text(self.models[model], work, future))
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
            while self._texts or any(self._keys):
                for model, waiting in self._key_passes():
                    await self._pass(thread, model, waiting)
                if self._texts:
                    await self._piece(thread, self._texts.popleft())

    def _key_passes(self) -> list[tuple[Served, list[Waiting]]]:
        """Return all keys that wait, in as few passes as can be."""
        passes = []
        for model, keys in zip(self.models, self._keys, strict=True):
            there = [keys.popleft() for _ in range(len(keys))]
            kinds = [(str(model.alike(work)), (work, future)) for work, future in there]
            kinds.sort(key=lambda kind: kind[0])
            for _, same in groupby(kinds, key=lambda kind: kind[0]):
                passes.append((model, [waiting for _, waiting in same]))
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

    async def _piece(self, thread: ThreadPoolExecutor, text: _Text) -> None:
        piece = text.next_piece()
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        await self._pass(thread, text.model, [(piece, answered)])
        if text.future.done():
            answered.exception()  # which nobody waits for
        elif error := answered.exception():
            text.future.set_exception(error)
        else:
            text.add(piece, answered.result())
            if not text.future.done():
                self._texts.append(text)
