"""Build a layer of a given width from a class or factory, whose arguments are known by name.

An argument sets a width if its name says so (`hidden_size`, `d_model`, `units`, `in_features` …)
and its default, where it has one, is a whole number or None. Position says nothing: the first
argument of a layer may as well be its number of heads.
"""

import contextlib
import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from echospan.errors import CoreError, EchospanError, SettingError, by_caller, first_line

_QUANTITY = frozenset(
    ("size", "dim", "dims", "dimension", "n", "num", "number", "d", "width", "units")
) | frozenset(("features", "feature", "channels", "channel"))
"""Words that say only that a name counts something."""

_INPUT = frozenset(("in", "inp", "input", "inputs", "ninp", "nin"))
_OUTPUT = frozenset(("out", "output", "outputs", "nout"))
_HIDDEN = frozenset(("hidden", "hiddens", "hid", "nhid", "unit", "units", "neuron", "neurons")) | (
    frozenset(("node", "nodes", "cell", "cells", "rnn", "lstm", "gru", "latent", "reservoir"))
)
_MODEL = frozenset(("model", "dmodel", "width", "channels", "dim", "size", "d"))
_EMBEDDED = frozenset(("embed", "embedding", "embd", "emb", "nembd"))

_ALONE = frozenset(
    ("inputs", "ninp", "nin", "outputs", "nout", "hidden", "hiddens", "hid", "nhid", "units")
) | frozenset(("neurons", "nodes", "dmodel", "nembd", "width", "channels", "dim", "size", "d"))
"""Words that name a width without a word of quantity beside them; `cell` alone is no width."""

_OTHER_TYPES = re.compile(
    r"list|tuple|sequence|iterable|dict|mapping|\bstr|float|bool|module|callable|config|tensor",
    re.IGNORECASE,
)
"""Annotations of what is no single number."""

_CONFIGURATION = re.compile(r"(.*_)?(config|cfg|configuration|conf|hparams|args|settings)")

_MULTIPLES = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64)
"""Numbers of heads, groups or blocks that layers divide their width by."""

_ATTEMPTS = 12
"""Widths that are tried where the one asked for cannot be built."""


def role(name: str) -> str | None:
    """Return which width an argument of that name sets; None for one that sets no width.

    "input", "output", "hidden", "model" (input and output alike), "embedded" (the same, but the
    input alone where a hidden width stands beside it) or "features" (the input's, or the only one).
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = [word for word in snake.split("_") if word]
    if words == ["f"]:
        return "features"
    if words == ["h"]:
        return "hidden"
    quantities = [word for word in words if word in _QUANTITY]
    for found, of in (
        ("output", _OUTPUT),
        ("hidden", _HIDDEN),
        ("input", _INPUT),
        ("embedded", _EMBEDDED),
        ("model", frozenset(("model", "dmodel"))),
    ):
        kinds = [word for word in words if word in of]
        if not kinds:
            continue
        if any(word not in of and word not in _QUANTITY for word in words):
            return None
        beside = [word for word in quantities if word not in kinds]
        if beside or any(word in _ALONE for word in kinds):
            return found
        return None
    if len(quantities) < len(words) or not words:
        return None
    if {"features", "feature"} & set(words):
        return "features"
    return "model" if set(words) & _MODEL - {"d"} or words == ["d"] else None


@dataclass(frozen=True)
class Arguments:
    """The arguments of a class or factory, by what they set."""

    names: tuple[str, ...]
    """All of them."""
    inputs: tuple[str, ...]
    """Those that set the width of the input alone."""
    widths: tuple[str, ...]
    """Those that set the width of the layer, the surest first."""
    both: bool
    """Whether the first of `widths` sets the width of the input as well."""
    required: frozenset[str]
    """Those of all without a default."""
    unknown: tuple[str, ...]
    """Required ones that set no width."""
    positional: tuple[str, ...]
    """Those that cannot be given by keyword."""
    inherited: frozenset[str]
    """Those of the bases of a class, which it passes on."""
    configuration: str = ""
    """The first unknown one with its type, where it is a configuration object."""


def _parameters(factory: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """The arguments of a factory; of a class that passes `**kwargs` on, those of its bases too."""
    if isinstance(factory, functools.partial):
        places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        left = len(factory.args)
        for parameter in _parameters(factory.func):
            if left and parameter.kind in places:
                left -= 1
            elif parameter.name not in factory.keywords:
                yield parameter
        return
    try:
        found = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        return
    yield from found
    if not isinstance(factory, type) or not any(p.kind is p.VAR_KEYWORD for p in found):
        return
    for base in factory.__mro__:
        if base is nn.Module:
            return
        if "__init__" not in base.__dict__:
            continue
        written: Any = base.__dict__["__init__"]
        overloads = typing.get_overloads(written)
        _, *found = inspect.signature(overloads[0] if overloads else written).parameters.values()
        yield from found
        if not any(p.kind is p.VAR_KEYWORD for p in found):
            return


def _own_names(factory: Callable[..., Any]) -> Iterator[str]:
    if isinstance(factory, functools.partial):
        yield from _own_names(factory.func)
        return
    with contextlib.suppress(TypeError, ValueError):
        yield from inspect.signature(factory).parameters


def _is_number(parameter: inspect.Parameter) -> bool:
    default, annotation = parameter.default, parameter.annotation
    if default is not parameter.empty and default is not None:
        return isinstance(default, int) and not isinstance(default, bool)
    if annotation is parameter.empty:
        return True
    written = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return not _OTHER_TYPES.search(f"{written} {annotation}")


def _configuration(parameter: inspect.Parameter) -> str:
    kind = parameter.annotation
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    if kind is parameter.empty:
        return parameter.name if _CONFIGURATION.fullmatch(parameter.name) else ""
    if dataclasses.is_dataclass(kind) or re.search(r"config|args", f"{name}", re.IGNORECASE):
        return f"{parameter.name}: {name}"
    return ""


def arguments(factory: Callable[..., Any]) -> Arguments:
    """Return which arguments of a class or factory set its widths."""
    found: dict[str, inspect.Parameter] = {}
    for parameter in _parameters(factory):
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            found.setdefault(parameter.name, parameter)
    own = frozenset(_own_names(factory))
    by_role: dict[str, list[str]] = {}
    for name, parameter in found.items():
        if _is_number(parameter) and (sets := role(name)):
            by_role.setdefault(sets, []).append(name)
    inputs = by_role.get("input", [])
    model, hidden = by_role.get("model", []), by_role.get("hidden", [])
    output, embedded = by_role.get("output", []), by_role.get("embedded", [])
    if inputs or model or hidden or output or embedded:
        inputs = inputs + by_role.get("features", [])
        only: list[str] = []
    else:
        only = by_role.get("features", [])
    if hidden and not inputs:
        inputs, embedded = embedded, []
    both = bool(model or embedded or only) and not inputs
    if inputs and not (model or embedded or hidden or output):  # a layer that keeps its width
        inputs, only, both = [], inputs, True
    widths = (*model, *embedded, *hidden, *output, *only)
    required = frozenset(n for n, p in found.items() if p.default is p.empty)
    unknown = tuple(n for n in found if n in required and n not in (*inputs, *widths))
    return Arguments(
        names=tuple(found),
        inputs=tuple(inputs),
        widths=widths,
        both=both,
        required=required,
        unknown=unknown,
        positional=tuple(n for n, p in found.items() if p.kind is p.POSITIONAL_ONLY),
        inherited=frozenset(found) - own,
        configuration=next((c for n in unknown if (c := _configuration(found[n]))), ""),
    )


def factory_name(factory: Callable[..., Any]) -> str:
    """Return what a class or factory is called in messages."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    return getattr(factory, "__name__", type(factory).__name__)


def build(
    factory: Callable[..., nn.Module],
    features: int | None = None,
    hidden: int | None = None,
    *,
    default: tuple[int | None, int] = (None, 128),
    search: bool = True,
    accepts: Callable[[nn.Module], Any] = lambda module: module,
) -> Any:
    """Build the module of a class or factory, its widths given to the arguments that name them.

    Args:
        factory: a class of modules, or a function that returns one.
        features: the width of the input; an argument keeps its default where this is None.
        hidden: the width of the layer; likewise.
        default: what a required argument gets instead: (width of the input, that of the layer);
            None for an input as wide as the layer.
        search: whether to look for a width near `hidden` that can be built, where that one cannot
            (heads that do not divide it). A default is replaced by it; for `hidden` it is named.
        accepts: called with the module, to judge whether it works at that width; an EchospanError
            of it counts as a width that cannot be built.

    Returns:
        What `accepts` returns: the module itself where it is left out.

    Raises:
        CoreError: the factory makes no module, or needs arguments that are no widths.
        SettingError: the factory has no argument that `hidden` could set and another width, or
            cannot be built at that width.
    """
    if not callable(factory):
        raise CoreError(
            f"{factory!r:.60} is no module and makes none", "name a class, a function or a module"
        )
    known, name = arguments(factory), factory_name(factory)
    if known.configuration:
        kind = known.configuration.rpartition(": ")[2]
        raise CoreError(
            f"{name} takes a configuration object ({known.configuration}) and cannot be sized by "
            "its arguments",
            by_caller("give", "name")
            + " a function that makes one"
            + by_caller(f", such as lambda hidden: {name}({kind}(…))", " of hidden"),
        )
    if known.unknown:
        raise CoreError(
            f"{name} requires {', '.join(known.unknown)}, which no width can be given for",
            "give a function of (features, hidden) that sets the rest, or an instance",
        )
    flexible = bool(known.widths)

    def make(width: int | None) -> Any:
        return accepts(_called(factory, name, known, features, width, default))

    try:
        return make(hidden)
    except EchospanError as failure:
        if hidden is None and features is not None and flexible and not known.both:
            with contextlib.suppress(EchospanError):
                return make(features)  # a hidden width that is the input's as well
        if not search or not flexible:
            raise
        others = _nearest(make, hidden or (features if known.both else None) or default[1])
        first = next(others, None)
        if first is None:
            raise
        if hidden is None:
            return first[1]
        widths = sorted({first[0], *(width for width, _ in others)})
        below = [w for w in widths if w < hidden][-1:]
        above = [w for w in widths if w > hidden][:1]
        raise SettingError(
            f"{name} cannot be built at hidden {hidden} ({failure.fact})",
            f"use {' or '.join(map(str, below + above))}, the nearest widths that it can have",
        ) from failure


def _nearest(make: Callable[[int], Any], asked: int) -> Iterator[tuple[int, Any]]:
    """Yield what can be made at the nearest width to `asked`, then at the nearest beyond it."""
    near = {m * (asked // m + more) for m in _MULTIPLES for more in (0, 1)} - {asked, 0}
    sides = {-1: True, 1: True}
    for width in sorted(near, key=lambda w: (abs(w - asked), -w))[:_ATTEMPTS]:
        side = 1 if width > asked else -1
        if not sides[side]:
            continue
        try:
            made = make(width)
        except EchospanError:
            continue
        sides[side] = False
        yield width, made


def _called(
    factory: Callable[..., nn.Module],
    name: str,
    known: Arguments,
    features: int | None,
    hidden: int | None,
    default: tuple[int | None, int],
) -> nn.Module:
    width = hidden
    if width is None and known.both:
        width = features
    given: dict[str, int] = {}
    for position, argument in enumerate(known.widths):
        sets = position == 0 or role(argument) == "output" or argument in known.required
        if width is not None and sets:
            given[argument] = width
        elif argument in known.required:
            given[argument] = default[1]
    for argument in known.inputs:
        if features is not None:
            given[argument] = features
        elif argument in known.required:
            given[argument] = default[0] or width or default[1]
    places = [given.pop(n) for n in known.positional if n in given]
    try:
        try:
            module = factory(*places, **given)
        except TypeError:
            if not known.inherited & given.keys():
                raise
            # What a class passes on to its base it may have set itself.
            own = {n: width for n, width in given.items() if n not in known.inherited}
            module = factory(*places, **own)
    except EchospanError:
        raise
    except Exception as e:
        said = ", ".join(f"{argument}={value}" for argument, value in given.items())
        raise CoreError(
            f"{name}({said}) raises {type(e).__name__} ({first_line(e)})",
            "give a function of (features, hidden) that makes it, or an instance",
        ) from e
    if not isinstance(module, nn.Module):
        raise CoreError(f"{name} returns {type(module).__name__}", "return a torch.nn.Module")
    return module


def initialised(core: Any) -> Any:
    """Return the core, its lazily made parameters in place: it is called once where it has any."""
    parts = (*core.parameters(), *core.buffers())
    if any(nn.parameter.is_lazy(part) for part in parts):
        training = core.training
        with torch.no_grad():
            core.eval()(torch.zeros(1, 2, core.input_size))
        core.train(training)
    return core


def reread_inputs(core: Any) -> int | None:
    """Return how many inputs a core reads again at each step, because no state can be carried.

    None for a core that is carried by a state, or needs none.
    """
    again = getattr(core, "rereads", getattr(core, "carries", "") == "its last inputs")
    return (getattr(core, "context", 0) or None) if again else None


def note_of(core: Any) -> str:
    """Return what a reader of a core's figures should know of how it is carried; mostly nothing."""
    note, again = getattr(core, "note", ""), reread_inputs(core)
    return note or (
        "" if again is None else f"its last {again} inputs are read again for each step"
    )


def check_storage(module: nn.Module) -> nn.Module:
    """Return the module; CoreError where its tensors hold no numbers, as on the meta device."""
    if any(t.is_meta for t in (*module.parameters(), *module.buffers())):
        raise CoreError(
            f"{type(module).__name__} is on the meta device, whose tensors hold no numbers",
            "build it on the CPU or a GPU, or load its weights first",
        )
    return module
