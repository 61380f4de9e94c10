"""Trials of a module: a copy of it that is called again and again, each time as if it were new.

Nothing remains of the trials: weights, buffers, mode, random states and settings of torch stay as
they were.
"""

import contextlib
import inspect
import io
import random
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from echospan.cores.calling import (
    ABSENT,
    Call,
    Place,
    Slot,
    changes,
    module_device,
    read_slot,
    real_dtype,
    snapshot,
    write_slots,
)
from echospan.cores.copying import copy_module, held_tensors
from echospan.cores.state_tree import Memo, detached, leaves
from echospan.errors import CoreError, first_line, option

RESETS = ("reset_state", "reset_states", "reset_hidden", "reset_memory", "reset_cache", "reset")
"""Methods that make a module forget what it keeps on itself."""


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Run trials under settings of their own, and leave the caller's as they are.

    Random states are put back; there is no autograd graph, no inference mode, no autocast and no
    anomaly detection; warnings and what a module prints are dropped.
    """
    pythons, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with contextlib.ExitStack() as stack:
            for context in (
                torch.random.fork_rng(),
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autograd.set_detect_anomaly(False),
                warnings.catch_warnings(),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                stack.enter_context(context)
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)  # noqa: NPY002


def short(e: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    text = first_line(e).strip()
    return f"{type(e).__name__}: {text[:160]}" if text else type(e).__name__


def signature(module: nn.Module) -> tuple[str, dict[str, inspect.Parameter]]:
    """Return the name of the first argument of `forward`, and the others."""
    if isinstance(module, torch.jit.ScriptModule):
        arguments = module._c._get_method("forward").schema.arguments[1:]
        parameters = [
            inspect.Parameter(
                a.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=a.default_value if a.has_default_value() else inspect.Parameter.empty,
            )
            for a in arguments
        ]
    else:
        try:
            parameters = list(inspect.signature(module.forward).parameters.values())
        except (TypeError, ValueError):
            parameters = []
    if not parameters:
        return "x", {}
    first, *others = parameters
    return first.name, {p.name: p for p in others}


class Refused(Exception):
    """One way of calling that does not do.

    Args:
        near: How far it came; of several refusals the caller reads the one that came farthest.
        fact: What was wrong.
        remedy: How to fix it.
    """

    def __init__(self, near: float, fact: str, remedy: str) -> None:
        super().__init__(fact)
        self.near, self.fact, self.remedy = near, fact, remedy


def tolerance_of(dtypes: set[torch.dtype]) -> float:
    """Return how far rounding may move an output, as a share of the largest output."""
    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    # What is compared is a sum of many: types of 16 bits round at 1e-2; 8 bits hold no more.
    return min(16 * eps, 0.125) if eps > 1e-4 else max(200 * eps, 1e-9)


class Trial:
    """A copy of a module, in `eval()`, with the attributes that it has when it is new."""

    def __init__(self, module: nn.Module, judge: bool = True) -> None:
        self.name = type(module).__name__
        self.judge = judge
        self.original = module
        if any(t.is_meta for t in (*module.parameters(), *module.buffers())):
            raise CoreError(
                f"{self.name} is on the meta device, where weights have no values",
                "make it on another device, or give it values with to_empty() and load_state_dict",
            )
        self.first, self.arguments = signature(module)
        self.required = tuple(
            name
            for name, p in self.arguments.items()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        )
        """The arguments without a default, beside the first."""
        self.device = module_device(module)
        self.lazy = has_lazy_weights(module)
        self.dtypes: dict[torch.dtype, str | None] = {}
        for name, t in (*module.named_parameters(), *module.named_buffers()):
            if dtype := real_dtype(t):
                self.dtypes.setdefault(dtype, name)
        self.dtypes = self.dtypes or {torch.get_default_dtype(): None}
        self.dtype = next(iter(self.dtypes))
        self.tolerance = tolerance_of({self.dtype})
        self.scale = 1
        """Of the numbers in the input."""
        self.begin_anew()

    def begin_anew(self) -> None:
        """Make a new copy."""
        self.module = copy_module(self.original)
        try:
            if {"train", "eval"} & set(self.original.__dict__):  # methods of its own, not copied
                self.original.train(self.original.training)
            self.module.train()
            self.module.eval()
        except Exception as e:
            raise CoreError(
                f"{self.name} cannot be switched between train() and eval() ({short(e)})",
                "give the module that it was made from",
            ) from None
        for reset in RESETS:
            method = getattr(self.module, reset, None)
            if callable(method):
                with contextlib.suppress(Exception):  # it may want arguments: then try the next
                    method()
                    break
        self.made = False
        self.remember()

    def sizes(self) -> set[int]:
        """Return the sizes of the dimensions of all tensors that the module holds."""
        tensors = [t for t in held_tensors(self.module) if not is_lazy(t)]
        return {int(size) for t in tensors for size in t.shape if size}

    # --- input

    def draw(self, rows: int, time: int, features: int, seed: int = 0) -> Tensor:
        """Return random input `(rows, time, features)`, the same each time."""
        generator = torch.Generator("cpu").manual_seed(1000 * time + features + 1_000_000 * seed)
        shape = (rows, time, features)
        x = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        return (self.scale * x).to(self.device, self.dtype)

    def other(self, x: Tensor) -> Tensor:
        """Return input of the same shape with no number in common."""
        rows, time, features = x.shape
        return self.draw(rows, time, features, seed=1)

    # --- calls

    def run(self, call: Call, x: Tensor, state: Any = None, seed: int = 0) -> tuple[Tensor, Any]:
        """Return output and state as if the module had never been called."""
        self.forget()
        return self.go_on(call, x, state, seed)

    def go_on(self, call: Call, x: Tensor, state: Any = None, seed: int = 0) -> tuple[Tensor, Any]:
        """Return output and state after all that the module has read."""
        given = x.clone()
        with self._watched(seed, x):
            y, out = call(self.module, given, state)
        if self.judge and not torch.equal(given, x):
            raise Refused(
                9,
                f"{self.name} changes its input in place",
                "begin its forward with x = x.clone()",
            )
        return y, out

    def outputs(self, call: Call, x: Tensor) -> dict[Place, Any]:
        """Return all that a new module returns, part by part."""
        self.forget()
        with self._watched(0, x):
            given = call.begin(self.module, x) if call.begin is not None else None
            return call.outputs(self.module, x.clone(), given)

    @contextlib.contextmanager
    def _watched(self, seed: int, x: Tensor) -> Iterator[None]:
        """Seed all random states, name what the module raises, note what changes on it."""
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        except Refused:
            raise
        except CoreError as e:  # what it returns has another length
            raise Refused(1, e.fact, e.remedy) from e
        except (Exception, SystemExit) as e:
            if self.makes_weights():
                self.begin_anew()
            raise self.refusal(e, tuple(x.shape)) from e
        if self.makes_weights():
            if self.made:
                raise Refused(
                    9,
                    f"{self.name} makes its parameters anew in each call, so that none is trained",
                    "make them once in __init__, and compute with them in forward",
                )
            self.lazy = self.made = True
            self.remember()
        self.changed |= changes(self.module, self.fresh)

    def makes_weights(self) -> bool:
        """Return whether calls have made parameters since the last look at them."""
        if any(id(p) not in self.weights for p in self.module.parameters()):
            return True
        return self.waiting and not has_lazy_weights(self.module)

    def remember(self) -> None:
        """Take the module as it is now for new."""
        self.waiting = has_lazy_weights(self.module)
        self.weights = {id(p): p for p in self.module.parameters()}
        self.fresh = snapshot(self.module)
        self.changed: set[Slot] = set()

    def forget(self) -> None:
        """Put back what the module keeps on itself when it is new."""
        self.put({slot: self.fresh.get(slot, ABSENT) for slot in self.changed})

    def put(self, values: dict[Slot, Any]) -> None:
        """Put copies of values on the module."""
        memo: Memo = {}
        write_slots(self.module, {slot: detached(v, memo) for slot, v in values.items()})

    def put_as_they_are(self, values: dict[Slot, Any]) -> None:
        """Put values on the module, inside their autograd graph."""
        write_slots(self.module, values)

    def values(self, places: Iterable[Slot]) -> dict[Slot, Any]:
        """Return copies of what the module keeps in some places."""
        memo: Memo = {}
        return {slot: detached(read_slot(self.module, slot), memo) for slot in places}

    # --- what is measured

    def gap(self, a: Tensor, b: Tensor) -> float:
        """Return the largest difference; 0 where it is no more than rounding."""
        if a.shape != b.shape:
            return float("inf")
        if not a.numel():
            return 0.0
        a, b = a.double(), b.double()
        gap = float((a - b).abs().max())
        scale = max(1e-3, float(a.abs().max()))
        return 0.0 if gap <= self.tolerance * scale else gap

    def measure_rounding(self, call: Call, x: Tensor) -> None:
        """Set the tolerance by the coarsest dtype that the module computes in or returns."""
        used = {self.dtype}

        def record(t: Tensor) -> Tensor:
            used.update({real_dtype(t)} - {None})  # type: ignore[arg-type]
            return t

        # What autograd keeps of each operation tells its dtype, also inside autocast.
        with (
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(record, lambda t: t),
            contextlib.suppress(Refused),
        ):
            for value in self.outputs(call, x).values():
                _ = [record(t) for t in leaves(value) if isinstance(t, Tensor)]
        self.tolerance = tolerance_of(used)

    def refusal(self, e: BaseException, shape: tuple[int, ...]) -> Refused:
        """Return what is made of an error that the module raised."""
        text = short(e)
        if re.search(r"scalar types?:? .*(Long|Int)|indices|must be.*(Long|int)", text):
            named = [name for name in self.arguments if "embed" in name]
            return Refused(
                2,
                f"{self.name} takes whole numbers, not the vectors that a core is given",
                f"wrap it in a module whose forward(x) calls it with {named[0]}=x"
                if named
                else "leave its nn.Embedding outside and give the layer after it",
            )
        if re.search(r"cuda|triton|\bGPU\b|nvidia", text, re.IGNORECASE):
            return Refused(
                2, f"{self.name} needs a GPU ({text})", "move it to one with .to('cuda') first"
            )
        return Refused(
            1,
            f"{self.name} raised {text} for an input of {shape}",
            "it must take (batch, time, features): wrap it, or give its width as "
            + option("features"),
        )


def has_lazy_weights(module: nn.Module) -> bool:
    """Return whether some weights take their size from the first input."""
    return any(is_lazy(t) for t in (*module.parameters(), *module.buffers()))


def graph_leaves(*outputs: Any) -> list[Tensor]:
    """Return the tensors that require a gradient and that some outputs were computed from."""
    found: dict[int, Tensor] = {}
    visited: set[Any] = set()
    stack: list[Any] = [t.grad_fn for t in outputs if isinstance(t, Tensor) and t.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if isinstance(variable := getattr(node, "variable", None), Tensor):
            found[id(variable)] = variable
        stack += [next_node for next_node, _ in node.next_functions]
    return list(found.values())
