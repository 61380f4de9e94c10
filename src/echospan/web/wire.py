"""The frames between page and server: JSON in text, each kind with its fields.

    page     {"hello": token or null}
             {"push": n, "model": i, "ids": [symbol, …], "delay": d}
             {"reset": n, "model": i}
    server   {"welcome": token, "kept": whether the token was known,
              "models": [{…, "last": n, "batch": symbols that a push may have}, …]}
             {"push": n, "model": i, "said": [[symbol by delay] by step], "sure": thousandths of
              probability likewise, "hidden": base64, "scale": [what 127 stands for, by step]}
             {"reset": n, "model": i}

`n` counts a model's pushes and resets from 1. One that is repeated, because its answer was lost
with a connection, is answered again and not read again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from echospan.web.limits import Limits
from echospan.web.served import Answer, Served

FOREIGN, MALFORMED, FULL, UNFIT, ELSEWHERE = 1008, 1007, 1013, 1003, 4000
TOO_BIG, FAILED, ENDING = 1009, 1011, 1012
"""Codes of a close: of RFC 6455, and one of our own."""


REASON = 123
"""Bytes of a close reason: a control frame holds 125, of which the code takes 2 (RFC 6455, 5.5)."""


def close_reason(text: str) -> str:
    """Return `text` cut to what a close frame holds, between characters."""
    return text.encode(errors="replace")[:REASON].decode(errors="ignore")


class Refused(Exception):
    """A connection that is to be closed, with a code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class Push:
    """Symbols for one model; none for a reset."""

    number: int
    model: int
    ids: tuple[int, ...]
    delay: int = 0


def read_hello(text: str) -> str | None:
    """The token of the first frame; Refused where it is no hello."""
    told = _object(text)
    token = told.get("hello", 0)
    if set(told) != {"hello"} or not (token is None or isinstance(token, str)):
        raise Refused(MALFORMED, 'the first frame is no {"hello": token or null}')
    return token


def read_push(text: str, models: Sequence[Served], limits: Limits) -> Push:
    """A push or a reset; Refused, naming the field, for anything else."""
    told = _object(text)
    reset = "reset" in told
    fields = {"reset", "model"} if reset else {"push", "model", "ids", "delay"}
    if set(told) != fields:
        raise Refused(MALFORMED, "a frame is a push, model, ids, delay, or a reset, model")
    number = _whole(told, "reset" if reset else "push", 1, 2**53)
    at = _whole(told, "model", 0, len(models) - 1)
    if reset:
        return Push(number, at, ())
    model, ids, most = models[at].model, told["ids"], batch(models[at], limits)
    if not isinstance(ids, list) or not 1 <= len(ids) <= most:
        raise Refused(MALFORMED, f"ids is no list of 1 to {most} symbols")
    if not all(type(i) is int and 0 < i < model.symbols for i in ids):
        raise Refused(MALFORMED, f"a symbol is no whole number from 1 to {model.symbols - 1}")
    return Push(number, at, tuple(ids), _whole(told, "delay", 0, model.max_delay))


def batch(model: Served, limits: Limits) -> int:
    """Return how many symbols a push to this model may have."""
    return max(1, min(limits.symbols, limits.answers // (model.model.max_delay + 1)))


def _object(text: str) -> dict[str, object]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(MALFORMED, "the frame is no JSON") from None
    if not isinstance(told, dict):
        raise Refused(MALFORMED, "the frame is no JSON object")
    return told


def _whole(told: dict[str, object], name: str, least: int, most: int) -> int:
    value = told[name]
    if type(value) is not int or not least <= value <= most:
        raise Refused(MALFORMED, f"{name} is no whole number from {least} to {most}")
    return value


def welcome(
    token: str, kept: bool, models: Sequence[Served], last: Sequence[int], limits: Limits
) -> str:
    """The first frame of the server; `last` is the number of each model's last push."""
    described = [
        m.told() | {"last": n, "batch": batch(m, limits)} for m, n in zip(models, last, strict=True)
    ]
    return _json({"welcome": token, "kept": kept, "models": described})


def answered(push: Push, answer: Answer | None) -> str:
    """The frame that answers a push, or a reset."""
    if answer is None:
        return _json({"reset": push.number, "model": push.model})
    return _json(
        {
            "push": push.number,
            "model": push.model,
            "said": answer.said,
            "sure": answer.sure,
            "hidden": answer.hidden,
            "scale": [float(f"{s:.3g}") for s in answer.scale],
        }
    )


def _json(value: object) -> str:
    """Return `value` as JSON; `JSON.parse` takes no NaN, so a program error is found here."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
