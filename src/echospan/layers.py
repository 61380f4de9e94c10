"""Layers as they are given, made into cores that can be trusted, and sized for a fair race."""

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from echospan.alphabet import alphabet as find_alphabet
from echospan.checks import check_causal, check_chunks, check_rows_independent
from echospan.cores import CORES, Adapted, as_core, copy_module, make_core, tensors
from echospan.devices import float32_by_default
from echospan.errors import (
    MAKER,
    CoreError,
    EchospanError,
    SettingError,
    first_line,
    nearest,
    option,
)
from echospan.random_streams import Purpose, seeded
from echospan.sizing import (
    arguments,
    build,
    check_storage,
    factory_name,
    initialised,
    note_of,
    reread_inputs,
)

Layer = nn.Module | Callable[..., nn.Module] | str
"""A module, what makes one, or the name of one of ours."""


DEFAULT_HIDDEN = 128
"""Width of a layer where neither the caller nor the layer itself gives one."""

MOST_PARAMETERS = 100_000_000
"""Numbers of the largest core that is built while a width is looked for: 0.4 GB in float32."""

MOST_NUMBERS = 2**22
"""Parameters and buffers at which the search for a state ends: the state of such a core grows so
slowly with its width that the layers tried next would fill the memory."""

SIZE_TOLERANCE = 0.02
"""How far a core of the width that `fit_hidden` returns may be off the size asked for."""


def name_of(layer: Layer) -> str:
    """Return what a layer is called where it has no name of its own."""
    if isinstance(layer, str):
        return layer
    return type(layer).__name__ if isinstance(layer, nn.Module) else factory_name(layer)


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


def trusted(layer: Layer, symbols: int, hidden: int | None, features: int | None, seed: int) -> Any:
    """Return a fresh core that keeps the promises without which its figures would mean nothing.

    Args: those of `built`.

    Raises:
        CheckError: the layer sees the future, mixes the rows of a batch or loses its state.
        CoreError: it cannot be a core, or cannot be trained.
        SettingError: it cannot have the width `hidden`.
    """
    core = built(layer, symbols, hidden, features, seed)
    if not isinstance(layer, str):
        # In eval(), as it is measured: statistics over a batch in training are no wrong figure.
        check_causal(lambda *_: copy_module(core), in_training=False)
        check_rows_independent(lambda *_: copy_module(core), in_training=False)
        check_chunks(lambda *_: copy_module(core))
        _tried_in_training(copy_module(core), name_of(layer))
    return core


def _tried_in_training(core: Any, name: str) -> None:
    x = _zeros(core, 5).add(1).expand(3, -1, -1).clone().requires_grad_()
    try:
        with torch.random.fork_rng(devices=[]):  # the caller's random state is not advanced
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


def takes_length(core: Any, name: str, length: int) -> None:
    """Raise CoreError where a core does not take sequences as long as it will be given."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy_module(core).eval()(_zeros(core, length))
    except Exception as e:
        raise CoreError(
            f"{name} raises {type(e).__name__} on a sequence of {length} steps ({first_line(e)})",
            f"let it take as many, or ask for a shorter {option('max_delay')}",
        ) from e


MOST_WINDOWS, MOST_STEPS = 40, 4_096
"""Windows of training, and steps, over which it is tried whether a state can be carried: of a
thousand million rows one goes on for more windows."""


def carried_windows(core: Any, window: int) -> bool:
    """Return whether a core can go on from window to window, as long as it will in training.

    Not where its past is read again, which costs as much as the window itself, nor where its state
    comes to an end, as that of a layer with a table of positions does.
    """
    if reread_inputs(core) is not None:
        return False
    if not isinstance(core, Adapted):
        return True  # one of `CORES`
    trial, state = copy_module(core).eval(), None
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for _ in range(min(MOST_WINDOWS, max(2, MOST_STEPS // window))):
                _, state = trial(_zeros(core, window), state)
    except Exception:  # whatever it raises, it is not carried as far
        return False
    return True


def _zeros(core: Any, time: int) -> torch.Tensor:
    """Input `(1, time, features)` of zeros in the type that a core computes in."""
    like = next((p for p in core.parameters() if p.is_floating_point()), torch.zeros(1))
    return torch.zeros(1, time, core.input_size, dtype=like.dtype, device=like.device)


def built(
    layer: Layer,
    symbols: int,
    hidden: int | None,
    features: int | None,
    seed: int,
    *,
    search: bool = True,
) -> Any:
    """Return a fresh core of a layer, only as far checked as `as_core` does.

    Args:
        layer: a module (it is copied), a class or factory, or the name of one of `CORES`.
        symbols: classes of the embedding; the width of the input of a core of `CORES`, unless
            `features` says otherwise.
        hidden: the width of the layer. None: a class or factory keeps its own default, and gets
            `DEFAULT_HIDDEN` where it has none.
        features: the width of its input, where it does not say.
        seed: of its weights.
        search: see `sizing.build`.

    Raises:
        CoreError: the layer cannot be built, or cannot be a core.
        SettingError: it cannot have the width `hidden`.
    """
    with seeded(Purpose.LAYER, seed):
        if isinstance(layer, str):
            with float32_by_default():
                return make_core(layer, features or symbols, hidden or DEFAULT_HIDDEN)
        if isinstance(layer, nn.Module):
            core = initialised(as_core(copy_module(check_storage(layer)).cpu(), features))
            if hidden not in (None, core.hidden_size):
                raise SettingError(
                    f"a {name_of(layer)} that is made already has its width, {core.hidden_size}",
                    f"leave out {option('hidden', hidden)}, or {MAKER}",
                )
            return core
        core = build(
            layer,
            features,
            hidden,
            default=(None, DEFAULT_HIDDEN),
            search=search,
            accepts=lambda module: initialised(as_core(check_storage(module).cpu(), features)),
        )
        if hidden not in (None, core.hidden_size) and not arguments(layer).widths:
            raise _unsized(
                layer, f"leave out {option('hidden', hidden)} (it is {core.hidden_size} wide)"
            )
        return core


def _unsized(layer: Callable[..., Any], remedy: str) -> SettingError:
    names = arguments(layer).names
    has = f"its arguments are {', '.join(names)}" if names else "it takes no arguments"
    return SettingError(
        f"{factory_name(layer)} has no argument that sets its width ({has})",
        f"{remedy}, or give a function of (features, hidden)",
    )


def default_hidden(layer: Layer, symbols: int, max_delay: int) -> int | None:
    """Return the width of a layer where none is asked for.

    128 for the cores of `CORES`, but for the delay line what holds `max_delay` + 1 of `symbols`
    classes; None for other layers, whose own default counts first.
    """
    if not isinstance(layer, str):
        return None
    return symbols * (max(max_delay, 0) + 1) if layer == "delay_line" else DEFAULT_HIDDEN


def fit_hidden(
    layer: Layer,
    *,
    parameters: int | None = None,
    state: int | None = None,
    max_delay: int = 16,
    features: int | None = None,
    alphabet: str = "letters",
) -> int:
    """Return the `hidden` at which a layer has this many parameters, or numbers of state.

    Args:
        layer: a class or factory with an argument that sets its width, or a name of `CORES`.
        parameters: numbers that are trained, up to `MOST_PARAMETERS`.
        state: numbers carried from step to step, likewise; give one of the two.
        max_delay: the state is counted after twice as many steps and two.
        features: the width of the input, where the layer does not say.
        alphabet: its symbols make the width of the input of a core of `CORES`.

    Raises:
        SettingError: no width comes within 2 % (the nearest is named), or the layer has no width
            to set.
        CoreError: the layer cannot be built, or cannot be a core.
    """
    wanted = parameters if parameters is not None else state
    what = "state" if parameters is None else "parameters"
    if wanted is None:
        raise SettingError("no size is asked for", "give parameters or state")
    if parameters is not None and state is not None:
        raise SettingError("parameters and state both set the size", "give one of them")
    if not 1 <= wanted <= MOST_PARAMETERS:
        raise SettingError(
            f"the size asked for is {wanted:,} {what}", f"use 1 to {MOST_PARAMETERS:,}"
        )
    name = name_of(layer)
    if isinstance(layer, nn.Module):
        raise SettingError(
            f"a {name} that is made already has its size",
            MAKER,
        )
    symbols = len(find_alphabet(alphabet)) + 1
    first = sizes_of(built(layer, symbols, None, features, 0), max_delay)
    if not isinstance(layer, str) and not arguments(layer).widths:
        raise _unsized(layer, f"leave out {option(what, wanted)}")
    if first["reread_inputs"] is not None and what == "state":
        raise SettingError(
            f"{name} carries no state: its last inputs are read again",
            f"compare it at one {option('hidden')} or number of {option('parameters')}",
        )
    if first[what] == 0:
        raise SettingError(
            f"{name} has no {what} at any width", f"compare it at one {option('hidden')}"
        )
    sizes: dict[int, int | None] = {}
    numbers = [0]

    def size(width: int) -> int | None:
        """Return the size at a width; None where the layer cannot have it."""
        if width not in sizes:
            try:
                core = built(layer, symbols, width, features, 0, search=False)
                sizes[width] = sizes_of(core, max_delay)[what]
                numbers.append(sum(t.numel() for t in core.state_dict().values()))
            except (EchospanError, ValueError, AssertionError, RuntimeError):
                sizes[width] = None
        return sizes[width]

    def from_here(width: int) -> int:
        """Return the size at the first width from here up that the layer can have."""
        steps = (-(-width // step) * step for step in _STEPS)
        near = (n for w in (*range(width, width + 64), *steps) if (n := size(w)) is not None)
        return next(near, 2 * wanted)

    low, high = 0, 1
    while (reached := from_here(high)) < wanted and high < _WIDEST:
        if what == "state" and max(numbers) >= MOST_NUMBERS:
            low = high  # which is the nearest
            break
        # A size grows with the square of the width at most: nothing huge is built on the way.
        grown = math.ceil(high * math.sqrt(2 * wanted / max(1, reached)))
        large = 4 * reached > MOST_PARAMETERS // 4
        low, high = high, min(2 * high, max(high + 1, grown)) if large else 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if from_here(middle) < wanted else (low, middle)
    below = (*range(high - 1, max(0, high - 64), -1), *((high - 1) // n * n for n in _STEPS))
    next((width for width in below if width and size(width) is not None), None)

    def off(width: int) -> float:
        """Return how far the size at a width is off, as a share of the size asked for."""
        return abs((sizes[width] or 0) - wanted) / wanted

    if min(map(off, sizes)) > SIZE_TOLERANCE:  # sizes that do not grow steadily, as with heads
        for width in range(max(1, low - 64), high):
            size(width)
    best = min((width for width, n in sizes.items() if n), key=off, default=None)
    if best is None:
        raise SettingError(
            f"{name} cannot be built at any width that was tried, from 1 to {max(sizes)}",
            f"leave out {option(what)}",
        )
    if off(best) > SIZE_TOLERANCE:
        raise SettingError(
            f"{name} comes no nearer to {wanted:,} {what} than {sizes[best]:,} (hidden {best})",
            "ask for that many, or leave it out of the race",
        )
    return best


_WIDEST = 65_536
"""The largest width that is tried."""

_STEPS = (128, 256, 512)
"""Multiples that are tried where none of 64 neighbouring widths can be built."""


def sizes_of(core: Any, max_delay: int) -> dict[str, Any]:
    """Return the sizes of a core, as a `Profile` has them.

    Keys: `features` and `hidden` (widths of input and output), `parameters` (numbers that are
    trained), `state` (numbers carried after 2 · max_delay + 2 steps; a complex number is two), and
    `reread_inputs`: where no state can be carried, `state` is None and this is the number of inputs
    that are read again at each step; None elsewhere. `note`: see `sizing.note_of`.
    """
    training = core.training
    core.eval()
    with torch.no_grad():
        _, state = core(_zeros(core, 2 * max_delay + 2))
    core.train(training)
    again = reread_inputs(core)
    return {
        "features": core.input_size,
        "hidden": core.hidden_size,
        "parameters": sum(_numbers(p) for p in core.parameters() if p.requires_grad),
        "state": sum(map(_numbers, tensors(state))) if again is None else None,
        "reread_inputs": again,
        "note": note_of(core),
    }


def _numbers(t: torch.Tensor) -> int:
    return t.numel() * (2 if t.is_complex() else 1)
