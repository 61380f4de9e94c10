"""The assignment's classes and graders by the assignment's names: thin, on the rest.

A notebook that imports these runs unchanged. Batches are made by tensor operations; through
`DataLoader(batch_size=…)` one draw serves a whole batch.
"""

import random
import string
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from echospan.alphabet import NAMED, Alphabet
from echospan.cores import GRU
from echospan.tasks import EchoTask

N = 26
"""Letters of the alphabet; ids 1..26, 0 is the empty output."""

DELAY = 4
"""The delay of the assignment's first part."""


def idx_to_onehot(x: Tensor, k: int = N + 1) -> Tensor:
    """One-hot float vectors `(…, k)` of ids `(…)`."""
    return torch.eye(k)[x.long()]


class EchoDataset(IterableDataset[tuple[Tensor, Tensor]]):
    """`size` pairs of a sequence `(seq_length,)` and its echo `(seq_length,)`, int64."""

    def __init__(self, delay: int = DELAY, seq_length: int = 15, size: int = 1000) -> None:
        self.delay = delay
        self.seq_length = seq_length
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        task = EchoTask(N, self.delay)
        for rows in _blocks(self.size):
            seq, targets = task.batch(rows, self.seq_length, _generator())
            yield from zip(seq.unbind(0), targets[..., self.delay].unbind(0), strict=True)


class VariableDelayEchoDataset(IterableDataset[tuple[Tensor, int, Tensor]]):
    """`size` triples of a sequence, a delay from 0 to `max_delay`, and the echo."""

    def __init__(self, max_delay: int = 8, seq_length: int = 20, size: int = 1000) -> None:
        self.max_delay = max_delay
        self.seq_length = seq_length
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[Tensor, int, Tensor]]:
        task = EchoTask(N, self.max_delay)
        for rows in _blocks(self.size):
            generator = _generator()
            seq, targets = task.batch(rows, self.seq_length, generator)
            delays = torch.randint(0, self.max_delay + 1, (rows,), generator=generator)
            index = delays[:, None, None].expand(rows, self.seq_length, 1)
            echo = targets.gather(2, index).squeeze(2)
            yield from zip(seq.unbind(0), delays.tolist(), echo.unbind(0), strict=True)


def _generator() -> torch.Generator:
    # Seeded from the global generator, so that torch.manual_seed decides, and workers differ.
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())))


def _blocks(size: int, block: int = 1024) -> Iterator[int]:
    for start in range(0, size, block):
        yield min(block, size - start)


class _Memory(nn.Module):
    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.gru = GRU(features, hidden_size, batch_first=True)
        self.output_layer = nn.Linear(hidden_size, N + 1)

    def _say(self, s: str, *delays: Tensor) -> str:
        alphabet = Alphabet(NAMED["letters"])
        if not s:
            return ""
        logits = self(idx_to_onehot(torch.tensor([alphabet.encode(s)])), *delays)
        return alphabet.decode(logits[0].argmax(-1).tolist(), blank=" ")


class GRUMemory(_Memory):
    """The assignment's first model: a GRU and a decoder."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(N + 1, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(batch, time, 27)` of one-hot `x (batch, time, 27)`."""
        return self.output_layer(self.gru(x)[0])  # type: ignore[no-any-return]

    @torch.no_grad()
    def test_run(self, s: str) -> str:
        """What the model says while it reads `s`; a space is the empty output."""
        return self._say(s)


class VariableDelayGRUMemory(_Memory):
    """The assignment's second model: the delay is embedded and fed in beside each symbol."""

    def __init__(self, hidden_size: int, max_delay: int) -> None:
        super().__init__(N + 1 + 16, hidden_size)
        self.max_delay = max_delay
        self.delay_embedding = nn.Embedding(max_delay + 1, 16)

    def forward(self, x: Tensor, delays: Tensor) -> Tensor:
        """Logits `(batch, time, 27)`; `delays`: `(batch,)` or, one a step, `(batch, time)`."""
        if delays.dim() == 1:
            delays = delays[:, None].expand(x.shape[:2])
        return self.output_layer(  # type: ignore[no-any-return]
            self.gru(torch.cat([x, self.delay_embedding(delays)], -1))[0]
        )

    @torch.no_grad()
    def test_run(self, s: str, delay: int) -> str:
        """What the model says while it reads `s` at this delay."""
        return self._say(s, torch.tensor([delay]))


def test_model(model: Any, sequence_length: int = 15) -> float:
    """Share of right answers at delay 4 over 500 random strings of 15 to 25 letters."""
    return _grade(model, lambda: (random.randint(15, 25), None))


def test_variable_delay_model(model: Any, seq_length: int = 20) -> float:
    """Share of right answers over 500 random strings, each at a random delay."""
    return _grade(model, lambda: (seq_length, random.randint(0, model.max_delay)))


def _grade(model: Any, draw: Any) -> float:
    total = correct = 0
    for _ in range(500):
        length, delay = draw()
        s = "".join(random.choices(string.ascii_lowercase, k=length))
        result = model.test_run(s) if delay is None else model.test_run(s, delay)
        d = DELAY if delay is None else delay
        correct += sum(a == b for a, b in zip(s[: len(s) - d], result[d:], strict=False))
        total += len(s) - d
    return correct / total
