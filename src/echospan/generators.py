"""Random numbers that one computation draws, without a trace in the process's generators.

PyTorch, NumPy and Python each have one generator for the whole process. Layers draw from them, when
they are made and, with dropout, when they are trained. Two trainings in two threads would share
them, and the caller's own numbers would depend on what was trained before. So

- layers of this package are made inside `drawing_from`: their numbers come from a generator that is
  given, in this thread alone; the process's generators are neither read nor moved;
- code of the caller's, which may draw in any way, runs inside `preserved` or `Borrowed`: one thread
  at a time, the process's generators set for it before and put back after.
"""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from echospan.random_streams import Purpose, generator

_PROCESS = threading.RLock()
"""Held by the thread that has set the process's generators."""

_DRAWING: set[Callable[..., Any]] = {
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli),
    *(torch.multinomial, torch.poisson),
    *(Tensor.normal_, Tensor.uniform_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_),
    *(Tensor.cauchy_, Tensor.log_normal_, Tensor.geometric_),
    *(Tensor.bernoulli, Tensor.multinomial),
    *(nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_, nn.init.kaiming_normal_),
}
"""The functions that draw from PyTorch's generator, or from the one that they are given."""


class drawing_from(TorchFunctionMode):
    """Let what this thread draws come from a generator, where it would be the process's.

    Args:
        generator: On the device on which tensors are drawn.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWING and kwargs.get("generator") is None:
            kwargs = kwargs | {"generator": self.generator}
        return func(*args, **kwargs)


@dataclass(frozen=True)
class _States:
    """The positions of the process's generators."""

    torch: Tensor
    cuda: tuple[Tensor, ...]
    python: Any
    numpy: Any


def _states() -> _States:
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return _States(
        torch.get_rng_state(),
        tuple(torch.cuda.get_rng_state_all()) if on_gpu else (),
        random.getstate(),
        np.random.get_state(),  # noqa: NPY002
    )


def _set(states: _States) -> None:
    torch.set_rng_state(states.torch)
    if states.cuda:
        torch.cuda.set_rng_state_all(list(states.cuda))
    random.setstate(states.python)
    np.random.set_state(states.numpy)  # noqa: NPY002


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Put the process's generators back in the end; other threads that need them wait."""
    with _PROCESS:
        before = _states()
        try:
            yield
        finally:
            _set(before)


@contextlib.contextmanager
def seeded(purpose: Purpose, seed: int, part: int = 0) -> Iterator[None]:
    """Let the process's generator on the CPU draw from a stream; as `preserved`."""
    with preserved():
        torch.set_rng_state(generator(purpose, seed, part).get_state())
        yield


class Borrowed:
    """The process's generators in the use of one training, for a step at a time.

    Each `with` sets them to where this training left them, and puts the caller's back. Python's and
    NumPy's cost as much as a small step: they are left out once two steps have not drawn from them.

    Args:
        cpu: Whose stream PyTorch's generator on the CPU goes on with.
        others: States of Python's and of NumPy's generators.
        gpu: Whose stream the generator of its device goes on with.
    """

    def __init__(
        self,
        cpu: torch.Generator,
        others: tuple[Any, Any],
        gpu: torch.Generator | None = None,
    ) -> None:
        self.cpu = cpu.get_state()
        self.cuda = None if gpu is None else gpu.get_state()
        self.device: torch.device | str = "cuda" if gpu is None else gpu.device
        self._python, self._numpy = others
        self._steps_without = 0
        self._theirs: list[Any] = []

    @property
    def _all(self) -> bool:
        return self._steps_without < 2

    def __enter__(self) -> None:
        _PROCESS.acquire()
        self._theirs = [torch.get_rng_state()]
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            self._theirs.append(torch.cuda.get_rng_state(self.device))
            torch.cuda.set_rng_state(self.cuda, self.device)
        if self._all:
            self._theirs += [random.getstate(), np.random.get_state()]  # noqa: NPY002
            random.setstate(self._python)
            np.random.set_state(self._numpy)  # noqa: NPY002

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            theirs = iter(self._theirs)
            self.cpu = torch.get_rng_state()
            torch.set_rng_state(next(theirs))
            if self.cuda is not None:
                self.cuda = torch.cuda.get_rng_state(self.device)
                torch.cuda.set_rng_state(next(theirs), self.device)
            if self._all:
                python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
                random.setstate(next(theirs))
                np.random.set_state(next(theirs))  # noqa: NPY002
                drawn = python != self._python or not _equal(numpy, self._numpy)
                # Once drawn from, they are never left out.
                self._steps_without = -(2**62) if drawn else self._steps_without + 1
                self._python, self._numpy = python, numpy
        finally:
            _PROCESS.release()


def _equal(one: Any, other: Any) -> bool:
    """Return whether two states of NumPy's generator are equal."""
    return bool(np.array_equal(one[1], other[1])) and one[2:] == other[2:]


_SILENT = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.ModuleList, nn.ParameterList, nn.Sequential)
"""Modules of PyTorch that draw nothing once they are made."""


def may_draw(module: nn.Module) -> bool:
    """Return whether a module may draw random numbers when it is called."""
    return any(
        bool(getattr(part, "dropout", 0))
        or not (type(part) in _SILENT or type(part).__module__.startswith("echospan.cores."))
        for part in module.modules()
    )
