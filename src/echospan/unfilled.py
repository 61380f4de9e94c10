"""Build a model whose tensors are about to be replaced: nothing is drawn, nothing is computed.

A module's constructor draws its weights from PyTorch's global generator. Where the weights come
from a file, those draws cost time and move the caller's random numbers on for nothing. Inside
`Unfilled` what would be drawn is zero, and a tensor larger than what the file holds is refused
before it is made.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from echospan.errors import first_line

_ROOM = 65_536
"""Elements that a constructor may use beside its weights, such as tables of angles."""

_DRAWN: set[Callable[..., Any]] = {torch.rand, torch.randn}
"""What makes a tensor of random numbers: zeros take their place."""

_FILLED: set[Callable[..., Any]] = {
    Tensor.normal_,
    Tensor.uniform_,
    Tensor.fill_,
    Tensor.zero_,
}
"""What fills a tensor that is there: it stays as it is."""

_MADE: set[Callable[..., Any]] = {torch.empty, torch.zeros, torch.ones, torch.full, torch.eye}
"""What makes a tensor of a given size."""

_MADE_LIKE: set[Callable[..., Any]] = {Tensor.new_empty, Tensor.new_zeros, Tensor.new_ones}


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError where PyTorch raises a RuntimeError for memory that it does not get."""
    try:
        yield
    except RuntimeError as e:
        if "alloc" not in str(e):
            raise
        raise MemoryError(first_line(e)) from None


class Unfilled(TorchFunctionMode):
    """Let this thread build modules without drawing their weights.

    Args:
        elements: The largest tensor that may be made, in elements; more raises ValueError.
    """

    def __init__(self, elements: int | None = None) -> None:
        super().__init__()
        self.elements = math.inf if elements is None else elements + _ROOM

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLED:
            return args[0]
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"]  # as torch.nn.init itself names it here
        if func is torch.linalg.qr:
            matrix: Tensor = args[0]
            rank = min(matrix.shape[-2:])
            return matrix[..., :rank], matrix[..., :rank, :]
        if func in _DRAWN:
            kwargs.pop("generator", None)
            func = torch.zeros
        if func in _MADE:
            self._check(_size(func, args, kwargs))
        elif func in _MADE_LIKE:
            self._check(_elements(args[1:]))
        return func(*args, **kwargs)

    def _check(self, elements: float) -> None:
        if elements > self.elements:
            raise ValueError(f"it needs {elements:,} numbers at once, more than its weights have")


def _size(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    if func is torch.full:
        return _elements(args[:1])
    if func is torch.eye:
        return int(args[0]) * int(args[-1])
    return _elements(args or (kwargs["size"],))


def _elements(size: tuple[Any, ...]) -> int:
    if len(size) == 1 and isinstance(size[0], tuple | list):
        size = tuple(size[0])
    return math.prod(int(n) for n in size)
