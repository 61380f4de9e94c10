"""The echo task: what is asked, and batches of it.

    delay 3     read   a b a c a b a
                say    · · · a b a c        · = blank (id 0): nothing to say yet

Delay 0 is the symbol just read, delay 1 the one before it: the answer at step t is the symbol
read at step t − d, and the blank while there is none.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from echospan.errors import DeviceError, SettingError, first_line, option
from echospan.text import shown
from echospan.validation import kind, whole


@dataclass(frozen=True)
class EchoTask:
    """Echo each of `symbols` symbols (ids 1..symbols) at every delay from 0 to `max_delay`."""

    symbols: int = 26
    max_delay: int = 8

    def __post_init__(self) -> None:
        """Refuse sizes that ask nothing."""
        object.__setattr__(self, "symbols", whole("symbols", self.symbols, 2))
        object.__setattr__(self, "max_delay", whole("max_delay", self.max_delay))

    def empty_past(self, rows: int, device: torch.device | str = "cpu") -> Tensor:
        """Return what was read before the first step, `(rows, max_delay)`: blanks."""
        rows = whole("rows", rows)
        try:
            return torch.zeros(rows, self.max_delay, dtype=torch.long, device=device)
        except (TypeError, ValueError, RuntimeError) as e:
            raise DeviceError(
                f"no tensor can be made on device {shown(device)} ({first_line(e)})",
                "name one that PyTorch has here, such as cpu",
            ) from None

    def draw(self, rows: int, time: int, generator: torch.Generator) -> Tensor:
        """Return uniform random symbols `(rows, time)`, int64, on the generator's device."""
        rows, time = whole("rows", rows), whole("time", time)
        kind("generator", generator, torch.Generator, "a torch.Generator, with a seed of yours")
        return torch.randint(
            1, self.symbols + 1, (rows, time), generator=generator, device=generator.device
        )

    def targets(self, symbols: Tensor, past: Tensor | None = None) -> Tensor:
        """Return the answers `(batch, time, delay)` to `symbols (batch, time)`, int64.

        `past (batch, max_delay)` are the symbols read just before, oldest first; without it the
        sequence starts here and the first `d` answers at delay `d` are blank.
        """
        _check_ids("symbols", symbols)
        if past is None:
            past = self.empty_past(len(symbols), symbols.device)
        self._check_past(symbols, past)
        if not symbols.shape[1]:
            return symbols.new_zeros(len(symbols), 0, self.max_delay + 1)
        read = torch.cat([past, symbols], dim=1)  # (batch, max_delay + time)
        return read.unfold(1, self.max_delay + 1, 1).flip(-1)  # (batch, time, delay)

    def carry(self, symbols: Tensor, past: Tensor) -> Tensor:
        """Return the past `(batch, max_delay)` of the window that follows `symbols`."""
        _check_ids("symbols", symbols)
        self._check_past(symbols, past)
        read = torch.cat([past, symbols], dim=1)
        return read[:, read.shape[1] - self.max_delay :]

    def _check_past(self, symbols: Tensor, past: Tensor) -> None:
        _check_ids("past", past)
        if past.shape != (len(symbols), self.max_delay):
            raise SettingError(
                f"{option('past')} has the shape {tuple(past.shape)}",
                f"give the {self.max_delay} symbols read before, of each of {len(symbols)} rows",
            )

    def batch(
        self, rows: int, time: int, generator: torch.Generator, past: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return fresh symbols `(rows, time)` and their answers `(rows, time, delay)`."""
        symbols = self.draw(rows, time, generator)
        return symbols, self.targets(symbols, past)


def _check_ids(name: str, ids: object) -> None:
    if isinstance(ids, Tensor) and ids.dim() == 2 and not ids.is_floating_point():
        return
    what = f"{ids.dtype} of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else shown(ids)
    raise SettingError(f"{option(name)} is {what}", "give whole numbers, of shape (batch, time)")
