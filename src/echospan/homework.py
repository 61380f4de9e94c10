"""The assignment's classes and graders by the assignment's names: thin, on the rest.

A notebook that imports these runs unchanged. Batches are made by tensor operations; through
`DataLoader(batch_size=…)` one draw serves a whole batch.
"""

import random
import string
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torch.utils.data._utils.collate import collate, default_collate_fn_map

from echospan.alphabet import NAMED, Alphabet
from echospan.cores import GRU, open_memory
from echospan.model import EchoModel

N = 26
"""Letters of the alphabet; ids 1..26, 0 is the empty output."""

DELAY = 4
"""The delay of the assignment's first part."""


def idx_to_onehot(x: Tensor, k: int = N + 1) -> Tensor:
    """One-hot float vectors `(…, k)` of ids `(…)`."""
    return torch.eye(k)[x.long()]


class _Item(tuple[Any, ...]):
    """One sequence as the assignment yields it; by its type the collating knows a batch."""


class _Batch(Sequence[_Item]):
    """Items that were drawn together: a list of them to look at, one tensor each to collate."""

    def __init__(self, parts: tuple[Tensor, ...]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, i: Any) -> Any:
        return _Item(p[i] if p.dim() > 1 else int(p[i]) for p in self.parts)


def _collate(batch: Any, *, collate_fn_map: Any = None) -> list[Tensor]:
    if isinstance(batch, _Batch):
        return list(batch.parts)
    return [
        collate([i[k] for i in batch], collate_fn_map=collate_fn_map) for k in range(len(batch[0]))
    ]


# The documented way to teach DataLoader's default collating a type.
default_collate_fn_map[_Item] = _collate


class _Echoes(Dataset[_Item]):
    """`size` items an epoch, drawn anew each time; `torch.manual_seed` decides them."""

    size: int

    def _draw(self, rows: int) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> _Item:
        if not -self.size <= index < self.size:
            raise IndexError(f"item {index} of {self.size}")
        return cast(_Item, _Batch(self._draw(1))[0])

    def __getitems__(self, indices: list[int]) -> _Batch:
        """A whole batch in one draw: DataLoader asks for it so."""
        return _Batch(self._draw(len(indices)))

    def __iter__(self) -> Iterator[_Item]:
        for start in range(0, self.size, 1024):
            yield from _Batch(self._draw(min(1024, self.size - start)))


class EchoDataset(_Echoes):
    """`size` pairs of a sequence `(seq_length,)` and its echo `(seq_length,)`, int64."""

    def __init__(self, delay: int = DELAY, seq_length: int = 15, size: int = 1000) -> None:
        self.delay = delay
        self.seq_length = seq_length
        self.size = size

    def _draw(self, rows: int) -> tuple[Tensor, ...]:
        read = torch.randint(1, N + 1, (rows, self.seq_length))
        return read, F.pad(read, (self.delay, 0))[:, : self.seq_length]


class VariableDelayEchoDataset(_Echoes):
    """`size` triples of a sequence, a delay from 0 to `max_delay`, and the echo."""

    def __init__(self, max_delay: int = 8, seq_length: int = 20, size: int = 1000) -> None:
        self.max_delay = max_delay
        self.seq_length = seq_length
        self.size = size

    def _draw(self, rows: int) -> tuple[Tensor, ...]:
        read = torch.randint(1, N + 1, (rows, self.seq_length))
        delays = torch.randint(0, self.max_delay + 1, (rows,))
        # Row r reads the padded sequence from max_delay − its delay on.
        start = self.max_delay - delays[:, None] + torch.arange(self.seq_length)
        return read, delays, F.pad(read, (self.max_delay, 0)).gather(1, start)


class _Memory(nn.Module):
    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.gru = open_memory(GRU(features, hidden_size, batch_first=True))
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


def grade(model: EchoModel) -> float | None:
    """What the assignment's grader for this model says; None where it has none.

    There is one for letters at delay 4 and one for letters at every delay from 0 up.
    """
    letters = set(string.ascii_lowercase) <= set(model.alphabet.characters)
    if letters and model.config.delay == DELAY:
        return test_model(model)
    if letters and model.config.delay is None and model.max_delay < 20:
        return test_variable_delay_model(model)
    return None
