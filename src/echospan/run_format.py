"""What the JSON files of a run folder hold: written, and parsed into validated types.

`config.json` lists the SHA-256 digest of each other file of the run and has a checksum over all
that it says itself, so that this one checksum stands for the whole of a run.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from echospan.errors import RunError
from echospan.json_fields import document, flag, integer, listed, members, number, string
from echospan.recipes import Made, ModelConfig, Part, Recipe, TrainingConfig
from echospan.text import shown

FORMAT = 4
"""Version of run folders, snapshots and states of streams; no other one is read."""

MANIFEST = "config.json"
WEIGHTS = "model.safetensors"
EVALUATION = "evaluation.json"
HISTORY = "history.jsonl"

VERIFIED = (WEIGHTS, EVALUATION, HISTORY)
"""The files that are verified when a run is loaded; others, such as its card, may be edited."""


@dataclass(frozen=True)
class Config:
    """What `config.json` says."""

    recipe: Recipe
    made: Made | None
    files: Mapping[str, str]
    """SHA-256 digests by name."""


def check_format(found: Any, path: object) -> None:
    """Raise RunError for a format other than the one that is read."""
    if type(found) is not int:
        raise RunError(f"{path} is not of echospan", "name one that it made")
    if found == FORMAT:
        return
    raise RunError(
        f"{path} has format {shown(found)}, and this version of echospan reads format {FORMAT}",
        "install a newer echospan"
        if found > FORMAT
        else "make it anew, or read it with the echospan that wrote it",
    )


def manifest(config: Mapping[str, Any]) -> bytes:
    """Return the content of `config.json`, its checksum added.

    Args:
        config: Settings, origin and digests of the other files (`files`), as JSON has them.
    """
    return (json.dumps({**config, "sha256": _checksum(config)}, indent=2) + "\n").encode()


def _checksum(config: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in config.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


_CONFIG = {"format", "echospan", "model", "training", "made", "files", "sha256"}


def parse_config(data: bytes, path: object, remedy: str) -> Config:
    """Return what `config.json` says.

    Args:
        data: Its content.
        path: Its name in messages.
        remedy: What the caller can do where it is damaged.

    Raises:
        RunError: For what is damaged, foreign, of another format or out of range.
    """
    try:
        config = document(data.decode())
        checksum = _checksum(config) if isinstance(config, dict) else ""
    except (ValueError, RecursionError) as e:
        raise RunError(f"{path} is not valid JSON ({e})", remedy) from None
    check_format(config.get("format") if isinstance(config, dict) else None, path)
    if checksum != config.get("sha256"):
        raise RunError(f"{path} is damaged (its checksum differs)", remedy)
    try:
        members(config, _CONFIG)
        string(config["echospan"], "echospan", 100)
        recipe = parse_recipe(config)
        return Config(recipe, _made(config["made"], recipe.training), _files(config["files"]))
    except (ValueError, TypeError) as e:
        raise RunError(f"{path} does not describe a model ({e})", remedy) from None


def parse_recipe(config: Mapping[str, Any]) -> Recipe:
    """Return the settings of a model and of its training; ValueError for what they cannot be."""
    model, training = _settings(config, "model"), _settings(config, "training")
    return Recipe(model=ModelConfig(**model), training=TrainingConfig(**training))


def _settings(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    of = {"model": ModelConfig, "training": TrainingConfig}[part]
    # A setting that is missing was added later, and has its default.
    return members(config[part], set(), {f.name for f in fields(of)})


_PLACE = {"versions", "threads", "processes", "machine"}


def _made(value: Any, training: TrainingConfig) -> Made | None:
    if value is None:
        return None
    said = members(value, _PLACE | {"earlier", "repeatable"})
    earlier = [parse_part(part) for part in listed(said["earlier"], "made.earlier", 1_000)]
    return Made(
        training=training,
        earlier=tuple(earlier),
        repeatable=flag(said["repeatable"], "made.repeatable"),
        **_place(said),
    )


def parse_part(value: Any) -> Part:
    """Return a stretch of a training; ValueError for what is none."""
    said = members(value, _PLACE | {"steps"})
    return Part(steps=integer(said["steps"], "steps", 0), **_place(said))


def _place(said: Mapping[str, Any]) -> dict[str, Any]:
    versions = said["versions"]
    if not isinstance(versions, dict) or len(versions) > 20:
        raise ValueError(f"versions is {shown(versions)}, not versions by name")
    return {
        "versions": {
            string(name, "a name of versions", 100): string(version, "a version", 100)
            for name, version in versions.items()
        },
        "threads": integer(said["threads"], "threads", 1, 1_000_000),
        "processes": integer(said["processes"], "processes", 1, 1_000_000),
        "machine": string(said["machine"], "machine", 300),
    }


def _files(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > 1_000 or WEIGHTS not in value:
        raise ValueError(f"files is {shown(value)}, not digests by name")
    for name, digest in value.items():
        if not isinstance(digest, str) or len(digest) != 64:
            raise ValueError(f"the digest of {shown(name)} is {shown(digest)}")
    return value


def made_as_json(made: Made | None) -> dict[str, Any] | None:
    """Return what `config.json` holds of a model's origin; its settings stand beside it."""
    if made is None:
        return None
    said = asdict(made)
    del said["training"]
    return said


def parse_evaluation(data: bytes, delays: int) -> tuple[float, ...]:
    """Return recall at each delay, as `evaluation.json` has it.

    Args:
        data: Its content.
        delays: The number of delays that its model answers at.

    Raises:
        ValueError: For what is no JSON, or no evaluation of such a model.
    """
    return check_evaluation(document(data.decode()), delays)


_SHARES = ("recall", "low", "high")

_ROUNDING = 1e-9
"""By which shares that are equal may differ: far below one answer in any number of them."""


def check_evaluation(evaluation: Any, delays: int) -> tuple[float, ...]:
    """Return recall at each delay of an evaluation; as `parse_evaluation`."""
    if not isinstance(evaluation, Mapping):
        raise ValueError("it is no object")
    _check_finite(evaluation)
    rows = evaluation.get("delays")
    if not isinstance(rows, list | tuple) or len(rows) != delays:
        raise ValueError(f"delays is {shown(rows)}, not a list of {delays}, one for each delay")
    recalls = []
    for delay, row in enumerate(rows):
        at = f"delays[{delay}]."
        said = members(row, {"delay", "trials", "correct", *_SHARES, "bits"})
        integer(said["delay"], at + "delay", delay, delay)
        trials = integer(said["trials"], at + "trials", 0)
        correct = integer(said["correct"], at + "correct", 0, trials)
        recall, low, high = (number(said[name], at + name, 0, 1) for name in _SHARES)
        number(said["bits"], at + "bits", 0, 64)
        inside = low - _ROUNDING <= recall <= high + _ROUNDING
        if not inside or (trials and abs(recall - correct / trials) > _ROUNDING):
            raise ValueError(f"{at}recall is {recall}, which does not fit {correct} of {trials}")
        recalls.append(recall)
    for name, low, high in (("target", 0, 1), ("recalled_bits", 0, 1e9)):
        if name in evaluation:
            number(evaluation[name], name, low, high)
    if "span" in evaluation:
        integer(evaluation["span"], "span", -1, delays - 1)
    if evaluation.get("blank_accuracy") is not None:
        number(evaluation["blank_accuracy"], "blank_accuracy", 0, 1)
    if evaluation.get("stream") is not None:
        stream = members(evaluation["stream"], {"symbols", "errors"})
        symbols = integer(stream["symbols"], "stream.symbols", 1)
        errors = listed(stream["errors"], "stream.errors", delays)
        if len(errors) != delays:
            raise ValueError(f"stream.errors has {len(errors)} numbers, not {delays}")
        for count in errors:
            integer(count, "stream.errors", 0, symbols)
    return tuple(recalls)


def _check_finite(value: Any) -> None:
    """Raise ValueError for a number that JSON or a double cannot hold, wherever it is."""
    rest = [value]
    while rest:
        part = rest.pop()
        if isinstance(part, Mapping):
            rest += part.values()
        elif isinstance(part, list | tuple):
            rest += part
        elif isinstance(part, float) and not math.isfinite(part):
            raise ValueError(f"it holds {part}, which is no JSON")
        elif isinstance(part, int) and not -(2**63) <= part < 2**64:
            raise ValueError(f"it holds {shown(part)}")
