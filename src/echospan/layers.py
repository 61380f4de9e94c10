"""Layers as they are given, made into cores that can be trusted, and sized for a fair race."""

import copy
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from echospan.alphabet import alphabet as find_alphabet
from echospan.checks import build, check_causal, check_chunks, check_rows_independent
from echospan.cores import CORES, as_core, copy_module, make_core, tensors
from echospan.errors import CoreError, EchospanError, SettingError, first_line, nearest, option
from echospan.generators import drawing_from, preserved, seeded
from echospan.random_streams import Purpose, generator

Layer = nn.Module | Callable[..., nn.Module] | str
"""A module, what makes one, or the name of one of ours."""


def name_of(layer: nn.Module | Callable[..., nn.Module]) -> str:
    """What a layer is called where it has no name of its own."""
    return getattr(layer, "__name__", type(layer).__name__)


def find(layer: str) -> Layer:
    """The name of one of our cores, or the object that `package.module:name` names.

    A module is looked for beside the program and in the working folder. Raises SettingError, with
    the nearest name, where there is none.
    """
    if ":" not in layer:
        if layer not in CORES:
            raise SettingError(
                f"there is no core {layer!r}",
                nearest(layer, CORES)
                + f"use one of {', '.join(CORES)}, or package.module:factory of your own",
            )
        return layer
    module, _, name = layer.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # and there it stays: a layer may import more later
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as e:
        raise SettingError(
            f"{module} cannot be imported ({e})", "run where it lies, or install it"
        ) from e
    except (Exception, SystemExit) as e:
        raise SettingError(
            f"{module} raises {type(e).__name__} when it is imported ({e})", "mend it first"
        ) from e
    for part in name.split("."):
        there = sorted(n for n in dir(found) if n[:1] != "_" and callable(getattr(found, n, None)))
        if not hasattr(found, part):
            raise SettingError(
                f"{module} has no {name}",
                nearest(part, there).rstrip() or f"it has {', '.join(there[:12]) or 'none'}",
            )
        found = getattr(found, part)
    return cast(Layer, found)


def trusted(layer: Layer, symbols: int, hidden: int, features: int | None, seed: int) -> Any:
    """A fresh core that keeps the promises without which its figures would mean nothing."""
    core = built(layer, symbols, hidden, features, seed)
    if not isinstance(layer, str):
        for promise in (check_causal, check_rows_independent, check_chunks):
            promise(lambda *_: copy.deepcopy(core))
        _tried_in_training(copy.deepcopy(core), type(getattr(core, "module", core)).__name__)
    return core


def _tried_in_training(core: Any, name: str) -> None:
    like = next((p for p in core.parameters() if p.is_floating_point()), torch.zeros(1))
    x = torch.ones(3, 5, core.input_size, dtype=like.dtype, requires_grad=True)
    try:
        with preserved():
            y, state = core.train()(x)
            core(x, state)
        if y.requires_grad:
            y.sum().backward()
    except Exception as e:
        reason = first_line(e)
        raise CoreError(
            f"{name} cannot be trained: it raises {type(e).__name__} ({reason})",
            "try it yourself, in train() and with backward()",
        ) from e


def built(layer: Layer, symbols: int, hidden: int, features: int | None, seed: int) -> Any:
    """A fresh core of a layer, its promises not yet looked at, beyond those as_core asks for."""
    if isinstance(layer, str):
        with drawing_from(generator(Purpose.LAYER, seed)):
            return make_core(layer, features or symbols, hidden)
    with seeded(Purpose.LAYER, seed):
        module = (
            copy_module(layer)
            if isinstance(layer, nn.Module)
            else build(layer, features or hidden, hidden)
        )
    return as_core(module.cpu(), features)


def fit_hidden(
    layer: Layer,
    *,
    parameters: int | None = None,
    state: int | None = None,
    max_delay: int = 16,
    features: int | None = None,
    alphabet: str = "letters",
) -> int:
    """The `hidden` at which a layer has this many parameters, or numbers of state, within 2 %.

    Raises SettingError where no width comes that near, with the nearest that there is.
    """
    wanted = parameters if parameters is not None else state
    what = "state" if parameters is None else "parameters"
    if wanted is None:
        raise SettingError("no size is asked for", "give parameters or state")
    if parameters is not None and state is not None:
        raise SettingError("parameters and state both set the size", "give one of them")
    if wanted < 1:
        raise SettingError(f"the size asked for is {wanted} {what}", "give 1 or more")
    if isinstance(layer, nn.Module):
        raise SettingError(
            f"a {type(layer).__name__} that is made already has its size",
            "give what makes it, such as lambda hidden: MyLayer(hidden)",
        )
    symbols = len(find_alphabet(alphabet)) + 1
    widths: dict[int, int] = {}

    def size(hidden: int) -> int:
        """Of the nearest width from `hidden` up that the layer can have."""
        for width in range(hidden, hidden + 64):
            if width not in widths:
                try:
                    core = built(layer, symbols, width, features, 0)
                    widths[width] = sizes_of(core, max_delay)[what]
                except (EchospanError, ValueError, AssertionError, RuntimeError):
                    widths[width] = -1
            if widths[width] >= 0:
                return widths[width]
        return 2 * wanted  # no width here: look below

    name = layer if isinstance(layer, str) else name_of(layer)
    if size(16) == 0:
        raise SettingError(
            f"{name} has no {what} at any width", f"compare it at one {option('hidden')}"
        )
    low, high = 1, 2
    while size(high) < wanted and high < 65_536:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < wanted else (low, middle)
    for hidden in range(max(1, low - 64), high + 1):
        size(hidden)
    there = {h: n for h, n in widths.items() if n > 0}
    best = min(there, key=lambda h: abs(there[h] - wanted))
    if abs(there[best] - wanted) > 0.02 * wanted:
        raise SettingError(
            f"{name} comes no nearer to {wanted:,} {what} than {there[best]:,} (hidden {best})",
            "ask for that many, or leave it out of the race",
        )
    return best


def sizes_of(core: Any, max_delay: int) -> dict[str, int]:
    """Sizes of a core: widths, numbers that are trained, numbers that are carried."""
    like = next((p for p in core.parameters() if p.is_floating_point()), torch.zeros(1))
    training = core.training
    core.eval()
    with torch.no_grad():
        x = torch.zeros(1, 2 * max_delay + 2, core.input_size, dtype=like.dtype)
        _, state = core(x)
    core.train(training)
    return {
        "features": core.input_size,
        "hidden": core.hidden_size,
        "parameters": sum(p.numel() for p in core.parameters() if p.requires_grad),
        "state": sum(t.numel() for t in tensors(state)),
    }
