"""How a module is called: where its sequence stands, where its state goes in and comes out."""

import copy
import dataclasses
import inspect
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from echospan.errors import CoreError

BATCH_FIRST, TIME_FIRST, CHANNEL_FIRST = (0, 1, 2), (1, 0, 2), (0, 2, 1)
"""Orders of (batch, time, features) that a module may want; each undoes itself."""

INSIDE = frozenset(nn.Module().__dict__) | {"_compiled_call_impl", "_is_full_backward_hook"}
"""What torch itself keeps on a module."""


class Opaque(Exception):
    """A tree with something in it that is neither tensor, number, container nor None."""


def walk(f: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with `f` applied to each tensor and number of it, in order; Opaque for the rest."""
    if tree is None:
        return None
    if isinstance(tree, Tensor | bool | int | float | Leaf):
        return f(tree)
    if isinstance(tree, Mapping):
        return {name: walk(f, part) for name, part in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(walk(f, part) for part in tree))
    if isinstance(tree, list | tuple | deque):
        return type(tree)(walk(f, part) for part in tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        made = copy.copy(tree)
        for part in dataclasses.fields(tree):
            object.__setattr__(made, part.name, walk(f, getattr(tree, part.name)))
        return made
    raise Opaque(type(tree).__name__)


def leaves(tree: Any) -> list[Any]:
    """The tensors and numbers of a tree, in order."""
    found: list[Any] = []
    walk(found.append, tree)
    return found


def copied(tree: Any) -> Any:
    """The tree with every tensor copied, outside any graph."""
    return walk(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, tree)


def same(a: Any, b: Any) -> bool:
    """Whether two trees hold the same tensors and numbers in the same places."""
    try:
        ours, theirs = leaves(a), leaves(b)
    except Opaque:
        return False
    if type(a) is not type(b) or len(ours) != len(theirs):
        return False
    for x, y in zip(ours, theirs, strict=True):
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            if x.shape != y.shape or x.dtype != y.dtype or not torch.equal(x, y):
                return False
        elif type(x) is not type(y) or x != y:
            return False
    return True


@dataclass(frozen=True)
class Leaf:
    """One tensor or number of a module's own state, and how it is laid out."""

    number: type | None
    dtype: torch.dtype
    dim: int | None
    """The dimension that counts the rows; None for what all rows share."""
    per_row: int = 1
    """Entries of that dimension for each row (heads folded into the batch)."""

    @property
    def plain(self) -> bool:
        """Whether it may be given out as it is."""
        floating = self.dtype.is_floating_point
        return self.number is None and floating and self.dim is not None and self.per_row == 1

    def out(self, value: Any, rows: int) -> Tensor:
        """As a floating tensor with the rows first."""
        t = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float32)
        if t.is_complex():
            t = torch.view_as_real(t)
        elif not t.is_floating_point():
            t = t.float()
        if self.dim is None:
            return t.unsqueeze(0).expand(rows, *t.shape)
        t = t.movedim(self.dim, 0)
        return t if self.per_row == 1 else t.unflatten(0, (rows, self.per_row))

    def back(self, t: Tensor) -> Any:
        """As the module had it."""
        if self.dim is None:
            t = t[0]
        else:
            t = (t if self.per_row == 1 else t.flatten(0, 1)).movedim(0, self.dim)
        if self.number is not None:
            return self.number(t.item())
        if self.dtype.is_complex:
            return torch.view_as_complex(t.contiguous())
        return t if self.dtype.is_floating_point else t.to(self.dtype)


def pack(laid: tuple[Leaf, ...], state: Any, rows: int) -> tuple[tuple[Tensor, ...], Any]:
    """A module's state as floating tensors with the rows first, and the shape of its tree."""
    found = leaves(state)
    if len(found) != len(laid):
        raise CoreError(
            f"a state of {len(laid)} tensors has become one of {len(found)}",
            "return as many tensors every time",
        )
    left = iter(laid)
    shape = walk(lambda _: next(left), state)
    return tuple(leaf.out(t, rows) for leaf, t in zip(laid, found, strict=True)), shape


def unpack(state: Sequence[Tensor], shape: Any) -> Any:
    """What `pack` was given."""
    left = iter(state)
    return walk(lambda leaf: leaf.back(next(left)), shape)


def items(out: Any) -> dict[int | str | None, Any]:
    """What a module returned, part by part: tensor, tuple, dict or dataclass."""
    if isinstance(out, Tensor):
        return {None: out}
    if isinstance(out, Mapping):
        return dict(out)
    if dataclasses.is_dataclass(out) and not isinstance(out, type):
        return {f.name: getattr(out, f.name) for f in dataclasses.fields(out)}
    if isinstance(out, list | tuple):
        return dict(enumerate(out))
    return {}


@dataclass(frozen=True)
class Call:
    """One way to call a module."""

    order: tuple[int, int, int] = BATCH_FIRST
    sequence: int | str | None = None
    """Where in what it returns the sequence stands; None where it returns nothing else."""
    flags: dict[str, Any] = field(default_factory=dict)
    """Arguments that make it return its state."""
    state: tuple[int | str | None, ...] = ()
    """Where in what it returns the state stands."""
    give: tuple[str, ...] | int | None = None
    """The keywords it takes the state by; 1 for second place; None for a dict of keywords."""
    start: str | None = None
    """The module's method that makes the first state of so many rows."""
    needs_state: tuple[str, ...] = ()
    """Arguments without a default, given None (or what `start` makes) at the beginning."""
    cast: bool = False
    """Whether the module computes in another type than its input."""

    def __call__(self, module: nn.Module, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """`x (batch, time, features)`; returns `(batch, time, hidden)` and the state as it came."""
        args, kwargs = self.arguments(module, x.shape[0], state)
        given = x.permute(self.order).contiguous() if self.order != BATCH_FIRST else x
        if self.cast:
            given = given.to(module_dtype(module))
        out = module(given, *args, **kwargs)
        parts = items(out)
        y: Tensor = parts[self.sequence]
        if self.order != BATCH_FIRST:
            y = y.permute(self.order)
        found = tuple(parts.get(place) for place in self.state)
        return y.to(x.dtype) if self.cast else y, found[0] if len(found) == 1 else found

    def arguments(
        self, module: nn.Module, rows: int, state: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What stands beside `x`."""
        kwargs = dict(self.flags)
        if state is None:
            if self.start is not None:
                make = getattr(module, self.start)
                state = make(rows) if inspect.signature(make).parameters else make()
            elif self.needs_state:
                return (), kwargs | dict.fromkeys(self.needs_state)
            else:
                return (), kwargs
        if self.give == 1:
            return (state,), kwargs
        if isinstance(self.give, tuple):
            parts = (state,) if len(self.give) == 1 else state
            return (), kwargs | dict(zip(self.give, parts, strict=True))
        return (), kwargs | state


def module_dtype(module: nn.Module) -> torch.dtype:
    """The type that a module computes in."""
    for p in module.parameters():
        if p.is_floating_point():
            return p.dtype
    for b in module.buffers():
        if b.is_floating_point():
            return b.dtype
    return torch.get_default_dtype()


def module_device(module: nn.Module) -> torch.device:
    """Where a module is."""
    for t in (*module.parameters(), *module.buffers()):
        return t.device
    return torch.device("cpu")


Slot = tuple[str, str]
"""A submodule's name, and an attribute or buffer on it."""


def slots(module: nn.Module) -> Iterator[tuple[Slot, Any]]:
    """Every tensor, number and container that a module keeps beside its parameters."""
    for name, part in module.named_modules():
        for key, value in (*part.__dict__.items(), *part._buffers.items()):
            if key in INSIDE:
                continue
            try:
                leaves(value)
            except Opaque:
                continue
            yield (name, key), value


def fill(module: nn.Module, slot: Slot, value: Any) -> None:
    """Put a value where `slots` found one."""
    part = module.get_submodule(slot[0])
    home = part._buffers if slot[1] in part._buffers else part.__dict__
    home[slot[1]] = value


def look(module: nn.Module, slot: Slot) -> Any:
    """What stands there now."""
    part = module.get_submodule(slot[0])
    return part._buffers[slot[1]] if slot[1] in part._buffers else part.__dict__[slot[1]]
