"""Words into settings; words that do not fit are refused in one sentence, with the nearest."""

import contextlib
import dataclasses
import itertools
import re
import sys
import types
import typing
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

from echospan.errors import EchospanError, SettingError, nearest


@dataclasses.dataclass(frozen=True)
class Written:
    """What a person wrote: the command, its words, and what belongs there."""

    command: str
    """As it is written, `echospan train fixed`."""
    shape: str
    """What stands behind it, `RUN [TEXT]`."""
    words: list[str]
    fields: dict[str, Any]
    """The type of every setting, by name."""
    flags: list[str]


def parse(
    settings: type[Any], args: list[str], command: str, shape: str = "", *, of: Any = None
) -> Any:
    """The settings that `args` make; `of` is what tyro builds them of, themselves where left out.

    Raises SettingError for words that do not fit, and whatever the settings raise.
    """
    fields = _fields(settings)
    args = _gathered(args, {_flag(n) for n, kind in fields.items() if _takes_many(n, kind)})
    wrote = Written(command, shape, args, fields, [f for n in fields for f in _flags(n, fields[n])])

    def refuse(event: Any) -> None:
        # What an event holds is private to tyro: where it is changed, tyro tells it in its own way.
        with contextlib.suppress(AttributeError):
            refusal = _own(event) or _unknown(event, wrote) or _missing(event, wrote)
            raise refusal or _bad_value(event, wrote)

    prog = " ".join(command.split()[:2])
    with _heard(refuse):
        return tyro.cli(of or settings, prog=prog, args=args, config=(tyro.conf.OmitArgPrefixes,))


def _heard(refuse: Callable[[Any], None]) -> AbstractContextManager[None]:
    """Calls `refuse` with each of tyro's refusals, where this tyro can."""
    try:
        from tyro._errors import on_parse_error
    except ImportError:
        return contextlib.nullcontext()
    return on_parse_error(refuse)


def _fields(settings: Any) -> dict[str, Any]:
    """The type of every setting by name, those of nested ones too."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        kind: Any = field.type
        found |= _fields(kind) if dataclasses.is_dataclass(kind) else {field.name: kind}
    return found


def _flags(name: str, kind: Any) -> list[str]:
    if typing.get_origin(kind) is Annotated and tyro.conf.Positional in kind.__metadata__:
        return []
    return [_flag(name), _flag(f"no_{name}")] if kind is bool else [_flag(name)]


def _takes_many(name: str, kind: Any) -> bool:
    """Return whether a flag takes any number of values behind it."""
    repeatable = typing.get_origin(kind) is Annotated and tyro.conf.UseAppendAction in (
        kind.__metadata__
    )
    return bool(_flags(name, kind)) and not repeatable and ... in typing.get_args(_bare(kind))


def _gathered(words: list[str], many: set[str]) -> list[str]:
    """Return the words, the values of a flag that is written several times behind its first.

    Of `--model fixed --model bits` tyro would take the last alone, without a word.
    """
    values: dict[str, list[str]] = {}
    rest: list[list[str]] = []
    into: list[str] | None = None
    for i, word in enumerate(words):
        if word == "--":
            return [*itertools.chain(*rest), *words[i:]]
        name, equals, value = word.partition("=")
        flag = name.replace("_", "-")
        if word.startswith("--") and flag in many:
            if flag not in values:
                values[flag] = [flag]
                rest.append(values[flag])
            into = values[flag]
            into += [value] if equals else []
        elif into is not None and not _is_flag(word):
            into.append(word)
        else:
            into = None
            rest.append([word])
    return [*itertools.chain(*rest)]


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not re.fullmatch(r"-[\d.][\w.+-]*", word)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _own(event: Any) -> EchospanError | None:
    """What a setting refused: a ValueError too, which tyro takes for one of its own."""
    e = sys.exception() if type(event).__name__ == "InstantiationFailure" else None
    while e is not None and not isinstance(e, EchospanError):
        e = e.__context__
    return e


def _unknown(event: Any, wrote: Written) -> SettingError | None:
    words = getattr(event, "tokens", None) or getattr(event, "unrecognized_tokens", [])
    if not words:
        return None
    flag = next((w.partition("=")[0].replace("_", "-") for w in words if w[:1] == "-"), None)
    if flag is None:
        return SettingError(f"{wrote.command} has no place for {words[0]!r}", _usage(wrote))
    return SettingError(
        f"there is no flag {flag}",
        nearest(flag, wrote.flags) + f"{wrote.command} --help lists them",
    )


def _missing(event: Any, wrote: Written) -> SettingError | None:
    lacks = [a.arg.field.intern_name.upper() for a in getattr(event, "missing_arguments", ())]
    return SettingError(f"{' and '.join(lacks)} is left out", _usage(wrote)) if lacks else None


def _usage(wrote: Written) -> str:
    return f"write {wrote.command} {wrote.shape}".rstrip()


def _bad_value(event: Any, wrote: Written) -> SettingError:
    name: str = event.argument.field.intern_name
    kind, flag = _bare(wrote.fields[name]), _flag(name)
    words = _given(flag, wrote.words)
    given = " ".join(words if typing.get_origin(kind) is tuple else words[:1])
    return SettingError(
        f"{flag} is {given}" if given else f"{flag} has no value",
        nearest(given, _choices(kind)) + f"give it {_wanted(kind)}",
    )


def _given(flag: str, words: list[str]) -> list[str]:
    """What was written for a flag, where it is written last."""
    given: list[str] = []
    ours = False
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            ours = name.replace("_", "-") == flag
            given = ([value] if equals else []) if ours else given
        elif ours:
            given.append(word)
    return given


def _bare(kind: Any) -> Any:
    """The type without what may stand around it: None, and marks for tyro."""
    if typing.get_origin(kind) is Annotated:
        return _bare(kind.__origin__)
    if typing.get_origin(kind) in (Union, types.UnionType):
        return _bare(next(part for part in typing.get_args(kind) if part is not types.NoneType))
    return kind


def _choices(kind: Any) -> list[str]:
    return list(typing.get_args(kind)) if typing.get_origin(kind) is Literal else []


def _wanted(kind: Any) -> str:
    if choices := _choices(kind):
        return "one of " + ", ".join(choices)
    many = typing.get_origin(kind) is tuple
    one, some = _CALLED.get(_bare(typing.get_args(kind)[0]) if many else kind, ("a word", "words"))
    if not many:
        return one
    return some if ... in typing.get_args(kind) else f"{len(typing.get_args(kind))} {some}"


_CALLED = {
    int: ("a whole number, such as 20", "whole numbers, such as 20"),
    float: ("a number, such as 0.5", "numbers, such as 0.5"),
    Path: ("a path", "paths"),
}
