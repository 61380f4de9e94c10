"""The assignment's data sets, models and graders, by the assignment's names.

A script that imports them in place of its own class definitions runs unchanged. The models have the
assignment's layers, parameters and default modes; the data sets draw whole batches by tensor
operations. Where a class does more than the assignment's, `docs/students.md` says so in one table.
"""

import itertools
import random
import string
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, default_collate, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map
from torch.utils.data._utils.fetch import _IterableDatasetFetcher

from echospan.alphabet import NAMED, Alphabet
from echospan.errors import AlphabetError, DelayError, SettingError
from echospan.model import EchoModel
from echospan.validation import not_allowed, whole

# The constants are left out: a script that has set its own would lose them to `import *`.
__all__ = [
    "EchoDataset",
    "GRUMemory",
    "VariableDelayEchoDataset",
    "VariableDelayGRUMemory",
    "idx_to_onehot",
    "test_model",
    "test_variable_delay_model",
]

N = 26
"""Letters of the alphabet; their ids are 1 to 26, and 0 is the empty output."""

DELAY = 4
"""The delay of the assignment's first part, in letters."""

_LETTERS = Alphabet(NAMED["letters"])

_DELAY_FEATURES = 16
"""Width of the embedded delay; the assignment's, so that its weights load."""

_SYMBOLS_OF_BATCHES = 20_000
"""Letters of one draw that batches are taken from: a draw for each takes half as long again."""

_SYMBOLS_OF_ITEMS = 1_000
"""Letters of one draw where items are read one by one: an item keeps its whole draw in memory."""


def idx_to_onehot(x: Any, k: int = N + 1) -> Tensor:
    """Return the one-hot vectors of ids.

    Args:
        x: Ids from 0 to `k - 1`, of any shape: a tensor, an array, a list or a number. Floats are
            taken where they are whole.
        k: Length of a vector (default 27: the empty output and 26 letters).

    Returns:
        A tensor `(*x.shape, k)` of the default float type, on the device of `x`.

    Raises:
        AlphabetError: An id is negative, or `k` or more.
        SettingError: `x` holds something else than whole numbers, or `k` is not 1 or more.
    """
    k = whole("k", k, 1)
    ids = _numbers(x)
    if ids is None:
        raise SettingError(f"x is of type {type(x).__name__}", "use a tensor of ids")
    if ids.is_complex() or (ids.is_floating_point() and not bool((ids.frac() == 0).all())):
        raise SettingError("x holds numbers that are not whole", "use whole ids, such as 3")
    wrong = _outside(ids, k - 1)
    if wrong is not None:
        raise AlphabetError(f"x holds the id {wrong}", f"use ids from 0 to {k - 1}")
    rows = ids.reshape(-1).long()
    return torch.eye(k, device=ids.device).index_select(0, rows).view(*ids.shape, k)


def _numbers(value: Any) -> Tensor | None:
    """Return a number, list, array or tensor as a dense tensor; None for anything else."""
    try:
        return torch.as_tensor(value).to_dense()
    except (TypeError, ValueError, RuntimeError):
        return None


def _is_integer(numbers: Tensor) -> bool:
    """Return whether a tensor is of integers; those of truth values are not."""
    kind = numbers.dtype
    return not (kind.is_floating_point or kind.is_complex or kind == torch.bool)


def _outside(numbers: Tensor, most: int) -> int | None:
    """Return a number outside 0 to `most`, None where there is none."""
    # What is compiled or exported cannot branch on values.
    if torch.compiler.is_compiling() or not numbers.numel():
        return None
    low, high = (int(end) for end in numbers.aminmax())
    return low if low < 0 else high if high > most else None


class _Epoch:
    """One pass over a data set, drawn as many rows at a time as are asked for.

    Its generator is seeded by Python's `random` when the first row is drawn: `random.seed` decides
    the data, as it does in the assignment, and no other random stream is touched.
    """

    def __init__(self, data: "_Echoes") -> None:
        self.data = data
        self.generator: torch.Generator | None = None
        self.ahead: tuple[Tensor, ...] = ()
        self.used = self.drawn = 0

    def batch(self, rows: int) -> list[Tensor]:
        """Return the next rows, one tensor for each part of an item; several batches share a draw.

        Where the last rows of a draw do not fill a batch they are dropped: others are as good.
        """
        if self.drawn - self.used < rows:
            batches = max(1, _SYMBOLS_OF_BATCHES // (rows * self.data.seq_length))
            self.used, self.drawn = 0, rows * batches
            self.ahead = self.draw(self.drawn)
        start, self.used = self.used, self.used + rows
        device = torch.get_default_device()
        return [part[start : self.used].to(device) for part in self.ahead]

    def items(self, count: int) -> Iterator[tuple[Any, ...]]:
        """Return the next `count` rows one by one, each a tuple as the assignment yields it."""
        rows = max(1, _SYMBOLS_OF_ITEMS // self.data.seq_length)
        for start in range(0, count, rows):
            parts = self.draw(min(rows, count - start))
            device = torch.get_default_device()
            yield from zip(
                *(p.to(device).unbind(0) if p.dim() > 1 else p.tolist() for p in parts),
                strict=True,
            )

    def draw(self, rows: int) -> tuple[Tensor, ...]:
        """Return `rows` new rows, on the CPU: the same ones whatever the default device."""
        with torch.device("cpu"):
            if self.generator is None:
                self.generator = torch.Generator().manual_seed(random.getrandbits(32))
            return self.data._draw(rows, self.generator)


def _collate(batch: list[_Epoch], *, collate_fn_map: Any = None) -> list[Tensor]:
    """Return a batch of as many rows as were asked for, in one draw."""
    return batch[0].batch(len(batch))


# The documented way to add a type to DataLoader's default collation.
default_collate_fn_map[_Epoch] = _collate


class _Echoes(IterableDataset[tuple[Any, ...]]):
    """`size` items an epoch, drawn anew for each; several workers share them out."""

    seq_length: int
    size: int

    def _draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        count = self.size
        if worker is not None:
            count = len(range(worker.id, self.size, worker.num_workers))
        epoch = _Epoch(self)
        # DataLoader asks for a batch item by item, and a row of its own for each would take most of
        # the time. What the default collation puts together nobody else reads: there the epoch
        # stands for each of its items, and the collation draws all of them at once.
        reader = sys._getframe(1).f_locals.get("self")
        if (
            type(reader) is _IterableDatasetFetcher
            and reader.auto_collation
            and reader.collate_fn is default_collate
        ):
            return itertools.repeat(epoch, count)
        return epoch.items(count)


class EchoDataset(_Echoes):
    """Random sequences of letters, and their echoes at one delay.

    An item is `(sequence, echo)`, both int64 tensors `(seq_length,)`: letters are 1 to 26, and the
    echo begins with `delay` zeros.

    Args:
        delay: Letters between a letter and its echo, 0 or more (default 4).
        seq_length: Letters of a sequence, 1 or more (default 15).
        size: Items of an epoch, 0 or more (default 1000).

    Raises:
        SettingError: An argument is not a whole number, or below its least value.
    """

    def __init__(self, delay: int = DELAY, seq_length: int = 15, size: int = 1000) -> None:
        self.delay = whole("delay", delay, 0)
        self.seq_length = whole("seq_length", seq_length, 1)
        self.size = whole("size", size, 0)

    def _draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        read = torch.randint(1, N + 1, (rows, self.seq_length), generator=generator)
        echo = torch.zeros_like(read)
        echo[:, self.delay :] = read[:, : max(0, self.seq_length - self.delay)]
        return read, echo


class VariableDelayEchoDataset(_Echoes):
    """Random sequences of letters, each with a delay of its own, and their echoes.

    An item is `(sequence, delay, echo)`: int64 tensors `(seq_length,)` and an int drawn uniformly
    from 0 to `max_delay`.

    Args:
        max_delay: The longest delay, 0 or more (default 8).
        seq_length: Letters of a sequence, 1 or more (default 20).
        size: Items of an epoch, 0 or more (default 1000).

    Raises:
        SettingError: An argument is not a whole number, or below its least value.
    """

    def __init__(self, max_delay: int = 8, seq_length: int = 20, size: int = 1000) -> None:
        self.max_delay = whole("max_delay", max_delay, 0)
        self.seq_length = whole("seq_length", seq_length, 1)
        self.size = whole("size", size, 0)

    def _draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        read = torch.randint(1, N + 1, (rows, self.seq_length), generator=generator)
        delays = torch.randint(0, self.max_delay + 1, (rows,), generator=generator)
        # An echo is a window of its row, padded in front: it begins `delay` steps before the row.
        pad = min(self.max_delay, self.seq_length)
        padded = torch.cat([read.new_zeros(rows, pad), read], 1)
        starts = torch.arange(pad, padded.numel(), padded.shape[1]) - delays.clamp(max=pad)
        echo = padded.flatten().unfold(0, self.seq_length, 1).index_select(0, starts)
        return read, delays, echo


class _Memory(nn.Module):
    """What both models share: the check of their input, and the echo of a string."""

    output_layer: nn.Linear

    def _one_hot(self, x: Any, dims: tuple[int, ...]) -> Tensor:
        """Return the input as the layers take it; SettingError for any other shape.

        Integers, as `torch.nn.functional.one_hot` returns them, are taken in a batch alone: two
        dimensions of them may be ids.
        """
        weight: Tensor = self.output_layer.weight
        fits = (
            isinstance(x, Tensor)
            and x.dim() in dims
            and x.shape[-1] == N + 1
            and x.shape[-2] > 0
            and x.layout == torch.strided
            and not x.is_complex()
            and (x.dim() == 3 or x.is_floating_point())
        )
        if not fits:
            if isinstance(x, Tensor):
                given = f"of the shape {tuple(x.shape)} and {str(x.dtype).removeprefix('torch.')}"
            else:
                given = f"of type {type(x).__name__}"
            raise SettingError(
                f"x is {given}",
                f"use one-hot letters (batch, time, {N + 1}), as idx_to_onehot returns them",
            )
        if x.device != weight.device:
            raise SettingError(
                f"x is on {x.device} and the model on {weight.device}", "move one to the other"
            )
        return x.to(weight.dtype)  # type: ignore[no-any-return]

    def _echo(self, s: Any, *delays: int) -> str:
        """Return the model's answer to a string, in evaluation mode; the mode stays as it was."""
        if not isinstance(s, str):
            raise SettingError(f"s is of type {type(s).__name__}", "use a string of letters")
        ids = _LETTERS.encode(s)
        if not ids:
            return ""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            logits = self(idx_to_onehot(torch.tensor([ids])).to(self.output_layer.weight), *delays)
        finally:
            for module, training in modes:
                module.training = training
        return _LETTERS.decode(logits[0].argmax(-1).tolist(), blank=" ")


class GRUMemory(_Memory):
    """The assignment's first model: two layers of GRU with dropout 0.1, and a linear decoder.

    Parameters, their names and their initial values under `torch.manual_seed` are the assignment's.

    Args:
        hidden_size: Units of each layer, 1 or more.

    Raises:
        SettingError: `hidden_size` is not a whole number of 1 or more.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = whole("hidden_size", hidden_size, 1)
        self.gru = nn.GRU(N + 1, self.hidden_size, num_layers=2, batch_first=True, dropout=0.1)
        self.output_layer = nn.Linear(self.hidden_size, N + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the echo.

        Args:
            x: One-hot letters `(batch, time, 27)`, or `(time, 27)` for one sequence.

        Returns:
            Logits of the same shape: id 0 is the empty output.

        Raises:
            SettingError: `x` has another shape, no steps, or is on another device.
        """
        hidden, _ = self.gru(self._one_hot(x, (2, 3)))
        return self.output_layer(hidden)  # type: ignore[no-any-return]

    @torch.no_grad()
    def test_run(self, s: str) -> str:
        """Return what the model says while it reads `s`, without dropout.

        Args:
            s: Lower-case letters.

        Returns:
            One character for each letter; a space is the empty output.

        Raises:
            AlphabetError: A character is not one of the letters a to z.
            SettingError: `s` is no string.
        """
        return self._echo(s)


class VariableDelayGRUMemory(_Memory):
    """The assignment's second model: the delay is embedded and fed in beside each letter.

    Two layers of GRU with dropout 0.1, and a linear decoder. Parameters, their names and their
    initial values under `torch.manual_seed` are the assignment's.

    Args:
        hidden_size: Units of each layer, 1 or more.
        max_delay: The longest delay, 0 or more.

    Raises:
        SettingError: An argument is not a whole number, or below its least value.
    """

    def __init__(self, hidden_size: int, max_delay: int) -> None:
        super().__init__()
        self.hidden_size = whole("hidden_size", hidden_size, 1)
        self.max_delay = whole("max_delay", max_delay, 0)
        self.delay_embedding = nn.Embedding(self.max_delay + 1, _DELAY_FEATURES)
        features = N + 1 + _DELAY_FEATURES
        self.gru = nn.GRU(features, self.hidden_size, num_layers=2, batch_first=True, dropout=0.1)
        self.output_layer = nn.Linear(self.hidden_size, N + 1)

    def forward(self, x: Tensor, delays: Any) -> Tensor:
        """Return the logits of the echo.

        Args:
            x: One-hot letters `(batch, time, 27)`.
            delays: Whole numbers from 0 to `max_delay`: one for all rows, one a row as `(batch,)`
                or as a column `(batch, 1)`, or one a step as `(batch, time)`; a number, a list, an
                array or a tensor.

        Returns:
            Logits `(batch, time, 27)`; id 0 is the empty output.

        Raises:
            DelayError: A delay is out of range or not whole, or the shape is another one.
            SettingError: `x` has another shape, no steps, or is on another device.
        """
        x = self._one_hot(x, (3,))
        embedded = self.delay_embedding(self._each_step(delays, x))
        hidden, _ = self.gru(torch.cat([x, embedded], -1))
        return self.output_layer(hidden)  # type: ignore[no-any-return]

    def _each_step(self, delays: Any, x: Tensor) -> Tensor:
        """Return one delay for each step `(batch, time)` of `x`, on its device."""
        batch, time, _ = x.shape
        given = _numbers(delays)
        if given is None or not _is_integer(given):
            kind = repr(delays)
            if given is not None and given.dim():
                kind = str(given.dtype).removeprefix("torch.")
            raise DelayError(f"delays are {kind}", f"use whole numbers from 0 to {self.max_delay}")
        each = given[:, None] if given.dim() == 1 else given
        if each.dim() and each.shape not in ((batch, 1), (batch, time)):
            raise DelayError(
                f"delays have the shape {tuple(given.shape)}, and x has {batch} rows of {time} "
                "steps",
                "give one delay, one a row (batch,), or one a step (batch, time)",
            )
        each = each.to(x.device, torch.long)
        wrong = _outside(each, self.max_delay)
        if wrong is not None:
            raise DelayError(
                f"delay {wrong} is outside 0..{self.max_delay}",
                f"use one of these, or build the model with max_delay={wrong}"
                if wrong > 0
                else "use one of these",
            )
        return each.expand(batch, time)

    @torch.no_grad()
    def test_run(self, s: str, delay: int) -> str:
        """Return what the model says while it reads `s`, without dropout.

        Args:
            s: Lower-case letters.
            delay: Letters between a letter and its echo, from 0 to `max_delay`.

        Returns:
            One character for each letter; a space is the empty output.

        Raises:
            AlphabetError: A character is not one of the letters a to z.
            DelayError: `delay` is out of range, or no whole number.
            SettingError: `s` is no string.
        """
        one_step = self.output_layer.weight[None, :1]
        return self._echo(s, int(self._each_step(delay, one_step)))


def test_model(model: Any, sequence_length: int = 15) -> float:
    """Return the share of right answers at delay 4, the assignment's grade of its first part.

    Args:
        model: Anything with `test_run(s)`. It is run on 500 random strings of 15 to 25 letters,
            which `random.seed` decides.
        sequence_length: Not used, as in the assignment.

    Raises:
        SettingError: `model` has no `test_run`.
    """
    run = _run_of(model)
    total = correct = 0
    for _ in range(500):
        length = random.randint(15, 25)
        s = "".join(random.choice(string.ascii_lowercase) for _ in range(length))
        correct += _right(s, run(s), DELAY)
        total += length - DELAY
    return correct / total


def test_variable_delay_model(model: Any, seq_length: int = 20) -> float:
    """Return the share of right answers over all delays, the grade of the second part.

    Args:
        model: Anything with `test_run(s, delay)` and `max_delay`. It is run on 500 random strings,
            each at a delay drawn from 0 to `max_delay`; `random.seed` decides both.
        seq_length: Letters of a string, more than `max_delay` (default 20).

    Raises:
        SettingError: `seq_length` is too short, or `model` has no `test_run` or `max_delay`.
    """
    run = _run_of(model)
    max_delay = whole("model.max_delay", getattr(model, "max_delay", None))
    seq_length = whole("seq_length", seq_length, max_delay + 1)
    total = correct = 0
    for _ in range(500):
        s = "".join(random.choice(string.ascii_lowercase) for _ in range(seq_length))
        delay = random.randint(0, max_delay)
        correct += _right(s, run(s, delay), delay)
        total += seq_length - delay
    return correct / total


def _run_of(model: Any) -> Callable[..., str]:
    run = getattr(model, "test_run", None)
    if not callable(run):
        raise not_allowed("model", model, "give a model that has test_run, such as GRUMemory(64)")
    return run  # type: ignore[no-any-return]


def _right(s: str, answer: str, delay: int) -> int:
    return sum(a == b for a, b in zip(s[: len(s) - delay], answer[delay:], strict=False))


def grade(model: EchoModel) -> float | None:
    """Return the grade of the assignment's grader for this model; None where it has none.

    There is one for letters at delay 4 and one for letters at every delay from 0 up.
    """
    letters = set(string.ascii_lowercase) <= set(model.alphabet.characters)
    if letters and model.config.delay == DELAY:
        return test_model(model)
    if letters and model.config.delay is None and model.max_delay < 20:
        return test_variable_delay_model(model)
    return None
