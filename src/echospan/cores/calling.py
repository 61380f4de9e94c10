"""How a module is called: where its sequence goes in, and where its state goes in and comes out."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from echospan.cores.copying import is_compiled
from echospan.cores.state_tree import Leaf, Memo, children, detached, same
from echospan.errors import CoreError

BATCH_FIRST, TIME_FIRST, CHANNEL_FIRST = (0, 1, 2), (1, 0, 2), (0, 2, 1)
"""Orders of (batch, time, features) that a module may want; each undoes itself."""

Place = int | str | None
"""The name or index of a part of what a module returns; None where it returns one tensor."""


def parts_of(out: Any) -> dict[Place, Any]:
    """Return what a module returned, part by part: tensor, tuple, dict, dataclass or object."""
    return {None: out} if isinstance(out, Tensor) else dict(children(out) or ())


class Begin(Protocol):
    """Makes the state that a module is given at the start, for as many rows as `x` has."""

    def __call__(self, module: nn.Module, x: Tensor) -> Any:
        """Return the state for `x (batch, time, features)`."""
        ...


@dataclass(frozen=True)
class ByMethod:
    """The start is made by a method of the module, such as `init_hidden(batch_size)`."""

    name: str

    def __call__(self, module: nn.Module, x: Tensor) -> Any:
        """Call the method; arguments named after the device or dtype get those of `x`."""
        method = getattr(module, self.name)
        parameters = inspect.signature(method).parameters.values()
        required = [p.name for p in parameters if p.default is p.empty and p.kind != p.VAR_KEYWORD]
        required = required or [p.name for p in parameters][:1]
        values = {"device": x.device, "dtype": x.dtype}
        return method(*(values.get(name, len(x)) for name in required))


@dataclass(frozen=True)
class ByZeros:
    """The start is a tensor of zeros, or several."""

    shape: tuple[int, ...]
    """With -1 where the rows are counted."""
    number: int = 1

    def __call__(self, module: nn.Module, x: Tensor) -> Any:
        """Return the tensor, or a tuple of them."""
        shape = [len(x) if size == -1 else size for size in self.shape]
        zeros = tuple(x.new_zeros(shape) for _ in range(self.number))
        return zeros if self.number > 1 else zeros[0]


@dataclass(frozen=True)
class ByClass:
    """The start is an empty container, which the module fills in place."""

    cls: type

    def __call__(self, module: nn.Module, x: Tensor) -> Any:
        """Return a new instance."""
        return self.cls()


LAST = ("row", "step", "layer")
"""Shapes of the last output where it is the state: (batch, hidden), (batch, 1, hidden) and
(1, batch, hidden)."""


@dataclass(frozen=True)
class Call:
    """One way to call a module."""

    order: tuple[int, int, int] = BATCH_FIRST
    sequence: Place = None
    """Where in what it returns the sequence is."""
    keyword: str | None = None
    """The argument that takes the sequence; None for the first one."""
    flags: dict[str, Any] = field(default_factory=dict)
    """Arguments that make it return its state."""
    state: tuple[Place, ...] = ()
    """Where in what it returns the state is."""
    last: str | None = None
    """One of LAST, where the state is the last output."""
    in_place: bool = False
    """Whether the state is instead the object that it was given, which it fills."""
    give: tuple[str, ...] | int | None = None
    """The keywords it takes the state by; 1 for second place; None for a dict of keywords."""
    begin: Begin | None = None
    """Makes the first state, where the module does not make it itself."""
    required: tuple[str, ...] = ()
    """Arguments without a default, which are given None where there is no state for them."""
    like: str | None = None
    """The parameter or buffer in whose dtype the module wants its input; None for any."""

    def __call__(self, module: nn.Module, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the output `(batch, time, hidden)` in the dtype of `x`, and the state.

        Args:
            module: The module, or a copy of it.
            x: The input `(batch, time, features)`.
            state: The state as the module returned it; None to begin anew.
        """
        given = self.begin(module, x) if state is None and self.begin is not None else state
        parts = self.outputs(module, x, given)
        y = parts[self.sequence]
        if self.order != BATCH_FIRST:
            y = y.permute(self.order)
        if y.shape[:2] != x.shape[:2]:
            raise CoreError(
                f"{type(module).__name__} returns {tuple(y.shape)} for an input of "
                f"{tuple(x.shape)}",
                f"return (batch, time, {y.shape[-1]}), one output for each step",
            )
        after = tuple(parts.get(place) for place in self.state)
        if self.last is not None:
            last = y[:, -1:]
            after = ({"row": last[:, 0], "step": last, "layer": last.movedim(1, 0)}[self.last],)
        if self.in_place:
            after = (given,)
        return y.to(x.dtype), after[0] if len(after) == 1 else after

    def outputs(self, module: nn.Module, x: Tensor, state: Any) -> dict[Place, Any]:
        """Return all that the module returns, part by part, in its own layout."""
        if self.like is not None:
            x = x.to(attrgetter(self.like)(module).dtype)
        if self.order != BATCH_FIRST:
            x = x.permute(self.order).contiguous()
        kwargs = dict.fromkeys(self.required) | self.flags
        args: tuple[Any, ...] = (x,)
        if self.keyword is not None:
            args, kwargs = (), kwargs | {self.keyword: x}
        if state is None:
            pass
        elif self.give == 1:
            args = (*args, state)
            kwargs = {name: v for name, v in kwargs.items() if name not in self.required[:1]}
        elif isinstance(self.give, tuple):
            values = (state,) if len(self.give) == 1 else state
            kwargs |= dict(zip(self.give, values, strict=True))
        else:
            kwargs |= state
        return parts_of(module(*args, **kwargs))


def real_dtype(t: Tensor) -> torch.dtype | None:
    """Return the dtype of a floating tensor, or of the parts of a complex one; else None."""
    return t.dtype.to_real() if t.is_floating_point() or t.is_complex() else None


def module_device(module: nn.Module) -> torch.device:
    """Return the device of a module; the CPU for one without tensors."""
    for t in (*module.parameters(), *module.buffers()):
        return t.device
    return torch.device("cpu")


# --- what a module keeps on itself

Slot = tuple[str, str]
"""A submodule's name, and an attribute or buffer of it."""

ABSENT = "the attribute does not exist"
"""The value of a slot whose attribute does not exist."""

_TORCHS_OWN = frozenset(nn.Module().__dict__) | {"_compiled_call_impl", "_is_full_backward_hook"}


def slots(module: nn.Module) -> Iterator[tuple[Slot, Any]]:
    """Yield everything that a module keeps beside its parameters: attributes and buffers."""
    for name, part in module.named_modules():
        if not isinstance(part, torch.jit.ScriptModule) and not is_compiled(part):
            for key, value in part.__dict__.items():
                if key not in _TORCHS_OWN:
                    yield (name, key), value
        for key, value in part._buffers.items():
            yield (name, key), value


def snapshot(module: nn.Module) -> dict[Slot, Any]:
    """Return copies of everything that a module keeps beside its parameters."""
    memo: Memo = {}
    return {slot: detached(value, memo) for slot, value in slots(module)}


def changes(module: nn.Module, before: dict[Slot, Any]) -> set[Slot]:
    """Return the slots that differ from a snapshot."""
    equal: set[tuple[int, int]] = set()
    now = dict(slots(module))
    return {
        slot
        for slot in (*now, *before)
        if not same(now.get(slot, ABSENT), before.get(slot, ABSENT), equal)
    }


def read_slot(module: nn.Module, slot: Slot) -> Any:
    """Return the value of a slot, or ABSENT."""
    part = module.get_submodule(slot[0])
    if slot[1] in part._buffers:
        return part._buffers[slot[1]]
    return part.__dict__.get(slot[1], ABSENT)


def write_slots(module: nn.Module, values: dict[Slot, Any]) -> None:
    """Set slots of a module; ABSENT removes the attribute."""
    for (name, key), value in values.items():
        part = module.get_submodule(name)
        if isinstance(part, torch.jit.ScriptModule):
            setattr(part, key, value)
        elif value is ABSENT:
            part._buffers.pop(key, None)
            part._non_persistent_buffers_set.discard(key)
            part.__dict__.pop(key, None)
        elif key in part._buffers:
            part._buffers[key] = value
        else:
            part.__dict__[key] = value


# --- the result of trying a module

TESTED = 257
"""The longest input of the trials."""


@dataclass(frozen=True)
class Plan:
    """How a module is called, and how it is carried from one window of its input to the next."""

    features: int
    hidden: int
    call: Call
    leaves: tuple[Leaf, ...] = ()
    """The layout of its state, where it returns one, or keeps one on itself."""
    inside: tuple[tuple[Slot, Any], ...] = ()
    """Where a module keeps its state on itself, and the values at the start."""
    plain: bool = False
    """Whether its state may be given to a caller as it is."""
    one_by_one: bool = False
    """Whether it goes on from its state one step at a time only."""
    context: int = 0
    """Inputs before the present one that its output depends on, where it is not carried."""
    whole: bool = True
    """Whether it depends on no more than `context` inputs."""
    longest: int | None = None
    """The longest sequence that it takes at once; None where none is known."""
    multiple: int = 1
    """The lengths that it takes are multiples of this."""
    tested: int = 1
    """A length that it takes."""
    zeros_are_empty: bool = True
    unchanged: bool = True
    """Whether the module leaves a state that it was given as it was."""
    lazy: bool = False
    """Whether its weights are made in its first call."""
    note: str = ""
    """What a reader of its figures should know of how it is carried."""
