"""States of modules as trees: taken apart into tensors, compared, copied and put together again.

A tree is a tensor or number, or a container of trees: tuple, named tuple, list, deque, dict, or an
object with attributes. Everything else in it (a string, a type, a device, a function, a module) is
kept as it is.
"""

import copy
import enum
import types
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from echospan.errors import CoreError

Memo = dict[int, Any]
"""The containers already rebuilt, by the identity of the originals: shared ones stay shared."""

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class written in Python

_KEPT = (nn.Module, type, enum.Enum, BaseException, types.ModuleType, types.FunctionType)
"""Objects with attributes that are no containers."""

_COPIED = (set, bytearray, np.ndarray)
"""Containers without trees in them, which a module may still change in place."""


@dataclass(frozen=True)
class Leaf:
    """One tensor or number of a state, and how it is laid out."""

    number: type | None
    """The type of a number; None for a tensor."""
    dtype: torch.dtype
    dim: int | None
    """The dimension that counts the rows; None for what all rows share."""
    per_row: int = 1
    """Entries of that dimension for each row (heads folded into the batch)."""
    counts_rows: bool = False
    """Whether it is the number of rows itself."""
    scalar: bool = False
    """Whether it is one number a row, or one for all, without a dimension of its own."""
    constant: bool = False
    """Whether it is the same in every state, and so no part of what is carried."""

    @property
    def plain(self) -> bool:
        """Whether the tensor may be given to a caller as it is."""
        floating = self.dtype.is_floating_point
        return self.number is None and floating and self.dim is not None and self.per_row == 1

    def pack(self, value: Any, rows: int) -> Tensor:
        """Return the value as a floating tensor with the rows first and one more dimension."""
        # float64 holds every whole number up to 2**53: counters and positions stay exact.
        t = value if isinstance(value, Tensor) else torch.tensor(value, device="cpu")
        if t.is_complex():
            t = torch.view_as_real(t)
        elif self.number is not None or not t.is_floating_point():
            t = t.to(torch.float32 if t.device.type == "mps" else torch.float64)
        if self.dim is None:
            t = t.unsqueeze(0).expand(rows, *t.shape)
        else:
            t = t.movedim(self.dim, 0)
            t = t if self.per_row == 1 else t.unflatten(0, (rows, self.per_row))
        return t.unsqueeze(1) if self.scalar else t

    def unpack(self, t: Tensor) -> Any:
        """Return the value as the module had it."""
        if self.counts_rows:
            return cast(type, self.number)(t.shape[0])
        if self.scalar:
            t = t.squeeze(1)
        if self.dim is None:
            t = t[0]
        else:
            t = (t if self.per_row == 1 else t.flatten(0, 1)).movedim(0, self.dim)
        if self.dtype.is_complex:
            t = torch.view_as_complex(t.contiguous())
        if self.number is not None:
            return self.number(t.item())
        # A floating state keeps its dtype: the module may have been converted since.
        return t if self.dtype.is_floating_point or self.dtype.is_complex else t.to(self.dtype)


_LEAVES = (Tensor, bool, int, float, complex, Leaf)


def _slots(cls: type) -> list[str]:
    named = [vars(base).get("__slots__", ()) for base in cls.__mro__]
    return [
        name
        for names in named
        for name in ((names,) if isinstance(names, str) else names)
        if name not in ("__dict__", "__weakref__")
    ]


def _is_object(tree: Any) -> bool:
    """Whether a value is an object whose attributes may be replaced in another like it."""
    cls = type(tree)
    return (
        (bool(cls.__flags__ & _HEAP_TYPE) or cls is types.SimpleNamespace)
        and not isinstance(tree, _KEPT)
        and not hasattr(cls, "__del__")  # a second one would close what the first has open
        and (hasattr(cls, "__dict__") or bool(_slots(cls)))
    )


def children(tree: Any) -> list[tuple[Any, Any]] | None:
    """Return the names and parts of a container; None for what is none."""
    if isinstance(tree, Tensor | torch.Size | str | Leaf) or tree is None:
        return None
    try:
        if isinstance(tree, dict):
            return list(tree.items())
        if isinstance(tree, list | tuple | deque):
            return list(enumerate(tree))
        if not _is_object(tree):
            return None
        found = {name: getattr(tree, name) for name in _slots(type(tree)) if hasattr(tree, name)}
        return list((found | getattr(tree, "__dict__", {})).items())
    except Exception:  # a class that does not let itself be looked into
        return None


def rebuild(f: Callable[[Any], Any], tree: Any, memo: Memo | None = None) -> Any:
    """Return the tree with `f` applied to each tensor and number of it, in order.

    Containers are made anew, of the same classes; one that appears twice is made once.
    """
    memo = {} if memo is None else memo
    if isinstance(tree, _LEAVES):
        return f(tree)
    if id(tree) in memo:
        return memo[id(tree)]
    if isinstance(tree, _COPIED):
        memo[id(tree)] = copy.copy(tree)
        return memo[id(tree)]
    parts = children(tree)
    if parts is None:
        return tree
    memo[id(tree)] = made = _shell(tree)
    if made is tree and not isinstance(tree, tuple):
        return tree
    values = [rebuild(f, part, memo) for _, part in parts]
    try:
        if isinstance(tree, tuple):
            made = type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
        for (name, _), value in zip(parts, values, strict=True):
            if isinstance(tree, dict | list | deque):
                made[name] = value
            elif not isinstance(tree, tuple):
                object.__setattr__(made, name, value)
    except Exception:  # a class that does not let itself be made so stays as it is
        made = tree
    memo[id(tree)] = made
    return made


def _shell(tree: Any) -> Any:
    """Return another container of the class; the same one where there cannot be one."""
    try:
        if isinstance(tree, dict | list | deque | types.SimpleNamespace):
            return copy.copy(tree)
        # object.__new__ refuses the classes of C extensions, whose insides only they can make.
        return tree if isinstance(tree, tuple) else object.__new__(type(tree))
    except Exception:  # whatever its class raises
        return tree


def leaves(tree: Any) -> list[Any]:
    """Return the tensors and numbers of a tree, in order."""
    found: list[Any] = []
    rebuild(found.append, tree)
    return found


def detached(tree: Any, memo: Memo | None = None) -> Any:
    """Return the tree with every tensor copied, outside any autograd graph.

    Weights (leaves that require a gradient) stay the same objects: they are no part of a state.
    """
    return rebuild(lambda v: v.detach().clone() if is_state(v) else v, tree, memo)


def is_state(value: Any) -> bool:
    """Return whether a value is a tensor, and not a weight."""
    return isinstance(value, Tensor) and not (value.is_leaf and value.requires_grad)


def cloned(tree: Any) -> Any:
    """Return the tree with every tensor copied, inside its autograd graph."""
    return rebuild(lambda t: t.clone() if isinstance(t, Tensor) else t, tree)


def same(a: Any, b: Any, equal: set[tuple[int, int]] | None = None) -> bool:
    """Return whether two trees have the same structure, tensors and numbers.

    `equal` holds the pairs of containers already compared, so that shared ones are compared once.
    """
    if a is b and children(a) is None and not isinstance(a, _COPIED):
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        try:
            return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
        except (RuntimeError, NotImplementedError):  # sparse, quantised, without storage
            return a is b
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    ours = children(a)
    if ours is None:
        try:
            return bool(a == b)
        except Exception:  # a comparison of a class's own
            return False
    equal = set() if equal is None else equal
    if (id(a), id(b)) in equal:
        return True
    equal.add((id(a), id(b)))
    theirs = children(b) or []
    return len(ours) == len(theirs) and all(
        name == other and same(x, y, equal)
        for (name, x), (other, y) in zip(ours, theirs, strict=True)
    )


class Unpackable(Exception):
    """A state whose tensors cannot be told apart by rows."""


def layout(states: Sequence[Any], rows: Sequence[int]) -> tuple[Leaf, ...]:
    """Return how each tensor and number of a state is laid out.

    Args:
        states: The state after one input, after the first rows of it alone, and after another
            input of another length.
        rows: How many rows each of these inputs had; the first two differ.

    Raises:
        Unpackable: The states have different numbers of tensors, or no dimension counts rows.
    """
    parts = [leaves(state) for state in states]
    if len({len(part) for part in parts}) > 1:
        raise Unpackable("the number of tensors depends on the input")
    return tuple(_leaf(values, rows) for values in zip(*parts, strict=True))


def _leaf(values: tuple[Any, ...], rows: Sequence[int]) -> Leaf:
    a, b, *_ = values
    if not all(isinstance(value, Tensor) for value in values):
        number = type(a)
        if any(type(value) is not number for value in values):
            raise Unpackable("the type of a part depends on the input")
        is_complex = number is complex
        return Leaf(
            number,
            torch.complex128 if is_complex else torch.float64,
            None,
            counts_rows=all(value == n for value, n in zip(values, rows, strict=True)),
            scalar=not is_complex,
            constant=all(value == a for value in values),
        )
    if a.dim() != b.dim():
        raise Unpackable("the number of dimensions depends on the rows")
    differ = [d for d in range(a.dim()) if a.shape[d] != b.shape[d]]
    if not differ:
        constant, scalar = all(same(a, v) for v in values), not a.dim() and not a.is_complex()
        return Leaf(None, a.dtype, None, scalar=scalar, constant=constant)
    if len(differ) > 1 or a.shape[differ[0]] * rows[1] != b.shape[differ[0]] * rows[0]:
        raise Unpackable("no one dimension counts the rows")
    per_row = a.shape[differ[0]] // rows[0]
    scalar = a.dim() == 1 and per_row == 1 and not a.is_complex()
    return Leaf(None, a.dtype, differ[0], per_row, scalar=scalar)


def pack(laid: Sequence[Leaf], state: Any, rows: int) -> tuple[tuple[Tensor, ...], Any]:
    """Return a module's state as floating tensors with the rows first, and its skeleton.

    The skeleton is the tree with a `Leaf` in place of each tensor and number that is carried.
    """
    parts = leaves(state)
    if len(parts) != len(laid):
        raise CoreError(
            f"a state of {len(laid)} tensors has become one of {len(parts)}",
            "return as many tensors every time",
        )
    left = iter(laid)

    def place(value: Any) -> Any:
        leaf = next(left)
        return value if leaf.constant else leaf

    skeleton = rebuild(place, state)
    carried = (
        leaf.pack(value, rows) for leaf, value in zip(laid, parts, strict=True) if not leaf.constant
    )
    return tuple(carried), skeleton


def unpack(state: Sequence[Tensor], skeleton: Any) -> Any:
    """Return the state that `pack` was given."""
    left = iter(state)
    return rebuild(lambda v: v.unpack(next(left)) if isinstance(v, Leaf) else v, skeleton)
