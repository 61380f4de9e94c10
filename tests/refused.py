"""What the tests of refusals share: how one is provoked and told, and modules with a fault each."""

import contextlib
import io
import os
import random
import re
import resource
import shutil
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

import echospan
from echospan import cli, engines
from echospan.errors import EchospanError, for_command_line, for_python
from test_checks import Sound

SOURCE = Path(echospan.__file__).parent


@dataclass(frozen=True)
class Refusal:
    """One row: what is raised, what it says, and what provokes it."""

    error: type[EchospanError]
    says: str
    """The whole sentence; `<>` stands for a figure, or for what another library says. Parts made
    by `option` and `by_caller` differ between Python and the command line."""
    call: Callable[[], object] | None = None
    """Through Python; where there is no such way, the command itself is asked with --debug."""
    args: str | None = None
    """Through the command line."""
    harm: Callable[[], object] = lambda: None
    """What is done to the folder before."""
    under: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    """Under what circumstances."""

    def fits(self, text: str) -> bool:
        """Whether Python raised this sentence."""
        return _fits(for_python(self.says), text)

    def fits_command_line(self, text: str) -> bool:
        """Whether the command line printed this sentence."""
        return _fits(for_command_line(self.says), text)


def _fits(sentence: str, text: str) -> bool:
    pattern = ".+".join(re.escape(part) for part in sentence.split("<>"))
    return re.fullmatch(pattern, text) is not None


@contextlib.contextmanager
def inside(folder: Path):
    """At work in a folder, which leaves nothing behind in this process."""
    path, bytecode = [*sys.path], sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode


def provoked(row: Refusal, folder: Path) -> EchospanError:
    """What is raised through Python."""
    with inside(folder):
        row.harm()
        with row.under():
            try:
                if row.call is not None:
                    row.call()
                else:
                    with contextlib.redirect_stdout(io.StringIO()):
                        cli.main([*row.args.split(), "--debug"])
            except EchospanError as e:
                return e
    raise AssertionError(f"nothing was refused: {row.says}")


def commanded(row: Refusal, folder: Path) -> tuple[int | str | None, str, str]:
    """Exit code, standard output and standard error of the command."""
    out, err = io.StringIO(), io.StringIO()
    with (
        inside(folder),
        row.under(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        cli.main(row.args.split())
    return end.value.code, out.getvalue(), err.getvalue()


def places(e: BaseException | None) -> set[tuple[str, int]]:
    """File and line where an error and each that led to it were raised, of our source."""
    found: set[tuple[str, int]] = set()
    while e is not None:
        frames = [f for f in traceback.extract_tb(e.__traceback__) if _ours(f.filename)]
        if frames:
            found.add((str(Path(frames[-1].filename).relative_to(SOURCE)), frames[-1].lineno))
        e = e.__cause__ or e.__context__
    return found


def _ours(filename: str) -> bool:
    return SOURCE in Path(filename).parents


def held(folder: Path) -> dict[str, bytes]:
    """All that a folder holds, by path."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b""
        for p in folder.rglob("*")
    }


def filled(folder: Path, whole: dict) -> Path:
    """A folder with a run, an unfinished one, a stream's state, a store, and a broken module."""
    for name, at in (("run", "run"), ("snapshot", "stopped")):
        shutil.copytree(whole[name][0][0].parent, folder / at)
    shutil.copy(whole["state"][0][0], folder / "state")
    shutil.copy(whole["store"][0][0], folder / "store.sqlite")
    (folder / "there.svg").write_text("mine")
    (folder / "broken.py").write_text("1 / 0\n")
    return folder


@contextlib.contextmanager
def limited(what: int, most: int):
    """As on a disk that is full, or where no more files may be open."""
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def full_disk():
    return limited(resource.RLIMIT_FSIZE, 100)


def no_more_files():
    return limited(resource.RLIMIT_NOFILE, 0)


@contextlib.contextmanager
def replaced(owner, name: str, other: Callable):
    """As where a function of the system does something else."""
    real = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, real)


def failing(owner, name: str, number: int):
    """As where the system refuses one of its functions."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    return replaced(owner, name, refuse)


@contextlib.contextmanager
def closed_engine():
    """An engine named closed, which has ended."""
    pool = ThreadPoolExecutor()
    pool.shutdown()
    engines.ENGINES["closed"] = lambda workers, address: engines.Engine(pool, 1, lambda: None)
    try:
        yield
    finally:
        del engines.ENGINES["closed"]


@contextlib.contextmanager
def without(name: str):
    """As where a library is not installed."""
    kept = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == name}
    sys.modules.update(dict.fromkeys(kept) | {name: None})
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(kept)


@contextlib.contextmanager
def without_a_server():
    """As where what serves the page is not installed, in a process that has not looked for it."""
    ours = {n: m for n, m in sys.modules.items() if n.startswith("echospan.web.")}
    for name in ours:
        del sys.modules[name]
    try:
        with without("websockets"):
            yield
    finally:
        sys.modules.update(ours)


class Locked(nn.Linear):
    """Keeps what cannot be copied."""

    def __init__(self, hidden=8):
        super().__init__(hidden, hidden)
        self.lock = threading.Lock()


class AnyWidth(nn.Module):
    """Takes input of any width, and says none."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(8))

    def forward(self, x):
        return x * self.a.sum() * self.b.sum()


class Pairs(nn.Module):
    """Takes two rows and no other number."""

    def __init__(self):
        super().__init__()
        self.w = nn.Linear(4, 8)

    def forward(self, x):
        return self.w(x).view(2, -1, 8)


class ByLength(nn.Module):
    """Divides by how much there is to read."""

    def __init__(self):
        super().__init__()
        self.w = nn.Linear(4, 8)

    def forward(self, x):
        return self.w(x) / x.shape[1]


class HalfRemembers(nn.Module):
    """Keeps its state on itself, and begins from half of it."""

    def __init__(self):
        super().__init__()
        self.cell, self.h = nn.GRUCell(4, 8), None

    def forward(self, x):
        h = x.new_zeros(len(x), 8) if self.h is None or len(self.h) != len(x) else self.h / 2
        out = []
        for v in x.unbind(1):
            h = self.cell(v, h)
            out.append(h)
        self.h = h
        return torch.stack(out, 1)


class TiresOut(nn.Module):
    """Answers so many times as it should, and after that in another way; its class counts."""

    left = 0

    def __init__(self, calls):
        super().__init__()
        self.w = nn.Linear(4, 8)
        type(self).left = calls

    def tired(self):
        type(self).left -= 1
        return self.left < 0

    def forward(self, x):
        return self.w(x) + self.tired()


class WritesLater(TiresOut):
    """Leaves its input alone so many times, and no more."""

    def forward(self, x):
        return self.w(x.add_(1) if self.tired() else x)


class Shortens(nn.Module):
    """Leaves out what comes after 300 steps."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 8, batch_first=True)

    def forward(self, x, state=None):
        return self.gru(x[:, :300], state)


class OfThreeRows(nn.Module):
    """Keeps a state of three rows, from the beginning."""

    def __init__(self):
        super().__init__()
        self.cell, self.h = nn.GRUCell(4, 8), torch.zeros(3, 8)

    def forward(self, x):
        h, out = self.h, []
        for v in x.unbind(1):
            h = self.cell(v, h)
            out.append(h)
        self.h = h
        return torch.stack(out, 1)


class GrowsState(nn.Module):
    """Returns one more tensor as its state once it has read 300 steps."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 8, batch_first=True)

    def forward(self, x, state=None):
        h, n = (None, 0) if state is None else state[:2]
        y, h = self.gru(x, h)
        n += x.shape[1]
        return y, (h, n) if n < 300 else (h, n, h)


class Overflows(nn.Module):
    """Its output is no longer a number in training, whatever it reads."""

    def __init__(self, hidden):
        super().__init__()
        self.gru = nn.GRU(hidden, hidden, batch_first=True)

    def forward(self, x, state=None):
        y, state = self.gru(x, state)
        return y * 1e30, state


class NotInTraining(nn.Module):
    """Only for show."""

    def __init__(self, hidden):
        super().__init__()
        self.gru = nn.GRU(hidden, hidden, batch_first=True)

    def forward(self, x, state=None):
        if self.training:
            raise RuntimeError("only for show\nat line 3")
        return self.gru(x, state)


class TurnedAround(nn.Module):
    """Reads the other way round."""

    def __init__(self, hidden):
        super().__init__()
        self.gru = nn.GRU(hidden, hidden, batch_first=True)

    def forward(self, x):
        return self.gru(x.flip(1))[0]


class WideAlone(Sound):
    """Says more of a row that is alone."""

    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return (torch.cat([y, y], -1), h) if len(x) == 1 else (y, h)


class SaysLess(Sound):
    """Leaves out the last step."""

    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return y[:, :-1], h


class Whim(Sound):
    """Multiplies by a number that no buffer holds."""

    def __init__(self, features, hidden):
        super().__init__(features, hidden)
        self.scale = random.random()

    def forward(self, x, state=None):
        return super().forward(x * self.scale, state)


class Detached(Sound):
    """Gives no gradient."""

    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return y.detach(), h.detach()


class OfAnySize(Sound):
    """Has another number of parameters each time."""

    def __init__(self, features, hidden):
        super().__init__(features, hidden)
        self.spare = nn.Parameter(torch.ones(random.randrange(2**31) % 10_000 + 1))


class ByTime(Sound):
    """Divides by how much there is to read."""

    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return y / x.shape[1], h


class Shared(Sound):
    """Has a state of which a part belongs to all rows."""

    zeros_are_empty = False


fixed = nn.GRU(16, 16, batch_first=True)
number = 3


class Float32Alone(nn.GRU):
    """Fails where autocast is on, as some operations do on some processors."""

    def __init__(self, features, hidden):
        super().__init__(features, hidden, batch_first=True)

    def forward(self, x, state=None):
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("no such instructions\nat all")
        return super().forward(x, state)


class Short(Float32Alone):
    """Takes seven steps at once."""

    def forward(self, x, state=None):
        if x.shape[1] > 7:
            raise IndexError("at most 7")
        return super().forward(x, state)


def without_gradients():
    with torch.inference_mode():
        return nn.GRU(4, 8, batch_first=True)


class Window(nn.Module):
    """Sees its last three inputs, and keeps no state."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3)

    def forward(self, x):
        return self.conv(nn.functional.pad(x.mT, (2, 0))).mT


class Positions(nn.Module):
    """Sums what it reads and adds one of 40 positions; its state says at which it is."""

    def __init__(self, width):
        super().__init__()
        self.table = nn.Embedding(40, width)

    def forward(self, x, state=None):
        total, at = state if state is not None else (x.new_zeros(x[:, 0].shape), x[:, 0, :1] * 0)
        places = at.long() + torch.arange(x.shape[1])
        y = total[:, None] + x.cumsum(1)
        return y + self.table(places), (y[:, -1], at + x.shape[1])


def forty(hidden):
    return Positions(hidden)


class Weary(Sound):
    """Raises after some steps of training."""

    learnt: ClassVar[list[int]] = []

    def forward(self, x, state=None):
        if self.training and torch.is_grad_enabled():
            self.learnt.append(1)
        if len(self.learnt) > 20:
            raise RuntimeError("tired")
        return super().forward(x, state)


def weary(hidden):
    return Weary(hidden, hidden)


def unsized(n_heads=4):
    """Says nothing of its width."""
    return nn.GRU(16, 16, batch_first=True)


def refuses_every_width(hidden=None):
    """Can be built at its own width alone."""
    assert hidden is None, "its own alone"
    return nn.GRU(5, 5, batch_first=True)


@dataclass
class Configuration:
    """What some models are made of."""

    width: int = 4


def configured(config: Configuration):
    """Takes its width in an object."""
    return nn.GRU(config.width, config.width)


def headed(hidden):
    """Has four heads, which its width must hold alike."""
    assert hidden % 4 == 0, "no heads"
    return nn.GRU(hidden, hidden, batch_first=True)


def three(a, b, c):
    """Wants more than anybody gives."""


def fails(hidden):
    """Makes nothing."""
    raise ValueError("no such size\nat line 3")


def makes_a_number(hidden):
    """Makes what is no module."""
    return hidden
