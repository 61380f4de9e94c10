"""Copies of modules that compute with weights of their own."""

import contextlib
import copy
import functools
import gc
import types
import weakref
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from echospan.errors import CoreError, first_line

M = TypeVar("M", bound=nn.Module)

_NOT_ENTERED = (type, types.ModuleType, types.CodeType, types.FrameType, str, bytes, int, float)
"""What belongs to the program and not to a module, or holds nothing."""

_OWN = (Tensor, nn.Parameter, nn.Buffer)
"""Classes of tensors that hold numbers of their own; others stand for a tensor, as in a graph."""

_COMPILER = ("torch._dynamo", "torch._inductor", "torch._functorch")
"""Packages whose objects stand between a compiled function and what it was compiled from."""


def reachable(root: Any) -> Iterator[Any]:
    """Yield every object that `root` holds: in attributes, containers, closures and methods."""
    known = {id(root): root}
    stack = [root]
    while stack:
        value = stack.pop()
        yield value
        for part in _held(value):
            if id(part) not in known and not isinstance(part, _NOT_ENTERED):
                known[id(part)] = part
                stack.append(part)


def _held(value: Any) -> list[Any]:
    if isinstance(value, types.FunctionType):  # without the globals of its file
        return [value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__]
    if isinstance(value, Tensor):
        return [getattr(value, "__dict__", None), value._backward_hooks]
    if type(value).__module__.startswith(_COMPILER):
        return [value._orig_mod] if is_compiled(value) else []
    return gc.get_referents(value)


def is_compiled(value: Any) -> bool:
    """Return whether `torch.compile` made this module."""
    return isinstance(value, nn.Module) and "_orig_mod" in value._modules


def uncompiled(module: nn.Module) -> nn.Module:
    """Return the module that `torch.compile` was given; any other module as it is."""
    return cast(nn.Module, module._orig_mod) if is_compiled(module) else module


def held_tensors(module: nn.Module) -> list[Tensor]:
    """Return the tensors that a module holds, registered or not, its parameters first."""
    found: dict[int, Tensor] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    found.update((id(v), v) for v in reachable(module) if isinstance(v, Tensor))
    return list(found.values())


def copy_module(module: M) -> M:
    """Return a copy of a module whose weights are its own.

    Beyond `copy.deepcopy`: it copies tensors that are results of a computation, keeps what shares
    memory shared, keeps the gradient hooks of parameters, and makes what was compiled or wrapped
    in a closure refer to the copy.

    Raises:
        CoreError: The module cannot be copied, or the copy would share weights with it.
    """
    name = type(module).__name__
    with torch.inference_mode(False), torch.no_grad():
        tensors = held_tensors(module)
        memo = _shared_memory(tensors)
        try:
            made = copy.deepcopy(module, memo)
            originals = [*module.modules(), *(t for t in tensors if type(t) in _OWN)]
            _Rebinding(memo, originals).apply(made)
        except Exception as e:
            raise CoreError(
                f"{name} cannot be copied ({type(e).__name__}: {first_line(e)})",
                "training and trials work on a copy: keep on the module only what copy.deepcopy "
                "can copy",
            ) from None
        for part in made.modules():
            # What module.compile() put there calls the original; without it, the copy runs eagerly.
            if part.__dict__.get("_compiled_call_impl") is not None:
                part.__dict__["_compiled_call_impl"] = None
        copies = dict(made.named_parameters(remove_duplicate=False))
        for path, p in module.named_parameters(remove_duplicate=False):
            if path in copies and copies[path].requires_grad != p.requires_grad:
                copies[path].requires_grad_(p.requires_grad)  # those of torch.jit lose it
    ours = {_memory(t) for t in (*module.parameters(), *module.buffers())} - {None}
    for path, t in (*made.named_parameters(), *made.named_buffers()):
        if made is module or _memory(t) in ours:
            raise CoreError(
                f"a copy of {name} shares {path} with the original",
                "training and trials work on a copy: let copy.deepcopy copy all of it",
            )
    return made


def _memory(t: Tensor) -> int | None:
    """Return where the numbers of a tensor are; None for one that has no place of its own."""
    try:
        return t.untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError, ValueError):  # sparse, not initialised, meta
        return None


def _shared_memory(tensors: list[Tensor]) -> dict[int, Any]:
    """Return copies, by identity, of the tensors that `copy.deepcopy` does not copy rightly."""
    memo: dict[int, Any] = {}
    groups: dict[int | None, list[Tensor]] = {}
    for t in tensors:
        if isinstance(t, nn.Parameter) and t.layout != torch.strided:
            memo[id(t)] = nn.Parameter(t.detach().clone(), t.requires_grad)
        groups.setdefault(_memory(t), []).append(t)
    for place, group in groups.items():
        if place is None or (len(group) == 1 and group[0].is_leaf):
            continue  # deepcopy's own way serves them
        if any(type(t) not in _OWN or t.is_quantized for t in group):
            continue
        storage = group[0].untyped_storage().clone()
        for t in sorted(group, key=lambda t: not t.is_leaf):
            made = torch.empty(0, dtype=t.dtype, device=t.device)
            made.set_(storage, t.storage_offset(), t.size(), t.stride())
            if isinstance(t, nn.Parameter):
                made = nn.Parameter(made, t.requires_grad)
            elif t.is_leaf:
                made.requires_grad_(t.requires_grad)
            elif t._is_view() and isinstance(memo.get(id(t._base)), nn.Parameter):
                with torch.enable_grad():  # a view through which its parameter is trained
                    made = memo[id(t._base)].as_strided(t.size(), t.stride(), t.storage_offset())
            memo[id(t)] = made
    return memo


class _Rebinding:
    """Makes functions and weak references in a copy refer to the copy, where they do not yet.

    `copy.deepcopy` takes both for constants: a closure over the original goes on to call it.
    """

    def __init__(self, memo: dict[int, Any], originals: list[Any]) -> None:
        self.memo = memo
        self.originals = {id(value): value for value in originals}
        self.copies = {id(value) for value in memo.values()}
        self.done: dict[int, Any] = {}
        self.kept: list[Any] = []  # what `done` names by identity must not be freed

    def apply(self, made: nn.Module) -> None:
        """Mend the attributes of each submodule, and the hooks and attributes of each tensor."""
        for part in made.modules():
            self._mend(part.__dict__)
        for value in self.originals.values():
            copied = self.memo.get(id(value))
            if isinstance(value, Tensor) and copied is not None and copied is not value:
                for name, attribute in value.__dict__.items():
                    copied.__dict__.setdefault(name, self.renewed(attribute))
                if value.is_leaf and not copied._backward_hooks:
                    for hook in (value._backward_hooks or {}).values():
                        copied.register_hook(self.renewed(hook))

    def refers_to_original(self, value: Any) -> bool:
        return any(id(part) in self.originals for part in reachable(value))

    def renewed(self, value: Any) -> Any:
        """Return what stands in the copy in place of a value; its containers change in place."""
        if id(value) in self.memo:
            return self.memo[id(value)]
        if id(value) not in self.done:
            self.kept.append(value)
            self.done[id(value)] = value  # for what refers to itself
            self.done[id(value)] = self._renewed(value)
        return self.done[id(value)]

    def _renewed(self, value: Any) -> Any:
        if isinstance(value, (*_NOT_ENTERED, Tensor, nn.Module)):
            return value
        if isinstance(value, types.FunctionType):
            return self._function(value) if self.refers_to_original(value) else value
        if type(value) is weakref.ref:
            target = self.memo.get(id(value()))
            return value if target is None else weakref.ref(target)
        if isinstance(value, types.MethodType):
            return self._made(types.MethodType, value, value.__func__, value.__self__)
        if type(value) is functools.partial:
            bound = functools.partial(functools.partial, **value.keywords)
            made = self._made(bound, value, value.func, *value.args)
            made.keywords.update(self._values(value.keywords))
            return made
        if isinstance(value, tuple):
            named = hasattr(value, "_fields")
            return self._made(type(value) if named else lambda *v: type(value)(v), value, *value)
        if type(value).__module__.startswith(_COMPILER):
            return value
        if id(value) not in self.copies and self.refers_to_original(value):
            return copy.deepcopy(value, self.memo)  # held by a closure of the original alone
        self._mend(value if isinstance(value, dict | list) else getattr(value, "__dict__", {}))
        return value

    def _mend(self, container: dict[Any, Any] | list[Any]) -> None:
        """Renew the parts of a container of the copy, in place."""
        parts = container.items() if isinstance(container, dict) else enumerate(container)
        for name, part in list(parts):
            if (new := self.renewed(part)) is not part:
                container[name] = new

    def _made(self, make: Any, value: Any, *parts: Any) -> Any:
        """Return `make(*parts)` of renewed parts; the value itself where none has changed."""
        new = [self.renewed(part) for part in parts]
        return value if all(a is b for a, b in zip(parts, new, strict=True)) else make(*new)

    def _values(self, values: dict[str, Any] | None) -> dict[str, Any]:
        return {name: self.renewed(value) for name, value in (values or {}).items()}

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        cells = tuple(self._cell(cell) for cell in function.__closure__ or ())
        code, names = function.__code__, function.__globals__
        made = types.FunctionType(code, names, function.__name__, None, cells)
        self.done[id(function)] = made
        made.__defaults__ = self.renewed(function.__defaults__)
        made.__kwdefaults__ = self._values(function.__kwdefaults__)
        made.__dict__.update(self._values(function.__dict__))
        made.__qualname__, made.__doc__ = function.__qualname__, function.__doc__
        return made

    def _cell(self, cell: types.CellType) -> types.CellType:
        if id(cell) not in self.done:
            self.kept.append(cell)
            self.done[id(cell)] = made = types.CellType()
            with contextlib.suppress(ValueError):  # it is empty
                made.cell_contents = self.renewed(cell.cell_contents)
        return cast(types.CellType, self.done[id(cell)])
