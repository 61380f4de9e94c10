"""The echo task: what is asked, and batches of it.

    delay 3     read   a b a c a b a
                say    · · · a b a c        · = blank (id 0): nothing to say yet

Delay 0 is the symbol just read, delay 1 the one before it: the answer at step t is the symbol
read at step t − d, and the blank while there is none.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from echospan.errors import SettingError


@dataclass(frozen=True)
class EchoTask:
    """Echo each of `symbols` symbols (ids 1..symbols) at every delay from 0 to `max_delay`."""

    symbols: int = 26
    max_delay: int = 8

    def __post_init__(self) -> None:
        """Refuse sizes that ask nothing."""
        if self.symbols < 2:
            raise SettingError(f"{self.symbols} symbols leave nothing to remember", "use 2 or more")
        if self.max_delay < 0:
            raise SettingError(f"max delay {self.max_delay} lies in the future", "use 0 or more")

    def empty_past(self, rows: int, device: torch.device | str = "cpu") -> Tensor:
        """What was read before the first step, `(rows, max_delay)`: blanks."""
        return torch.zeros(rows, self.max_delay, dtype=torch.long, device=device)

    def draw(self, rows: int, time: int, generator: torch.Generator) -> Tensor:
        """Uniform random symbols `(rows, time)`, int64, on the generator's device."""
        return torch.randint(
            1, self.symbols + 1, (rows, time), generator=generator, device=generator.device
        )

    def targets(self, symbols: Tensor, past: Tensor | None = None) -> Tensor:
        """Answers `(batch, time, delay)` to `symbols (batch, time)`, int64.

        `past (batch, max_delay)` are the symbols read just before, oldest first; without it the
        sequence starts here and the first `d` answers at delay `d` are blank.
        """
        if past is None:
            past = self.empty_past(len(symbols), symbols.device)
        read = torch.cat([past, symbols], dim=1)  # (batch, max_delay + time)
        return read.unfold(1, self.max_delay + 1, 1).flip(-1)  # (batch, time, delay)

    def carry(self, symbols: Tensor, past: Tensor) -> Tensor:
        """The past `(batch, max_delay)` of the window that follows `symbols`."""
        read = torch.cat([past, symbols], dim=1)
        return read[:, read.shape[1] - self.max_delay :]

    def batch(
        self, rows: int, time: int, generator: torch.Generator, past: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Fresh symbols `(rows, time)` and their answers `(rows, time, delay)`."""
        symbols = self.draw(rows, time, generator)
        return symbols, self.targets(symbols, past)
