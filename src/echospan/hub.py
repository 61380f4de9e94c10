"""Models to keep and to share: a run folder with a card that is filled from its evaluation."""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from echospan import shipping
from echospan.alphabet import BLANK_MARK, NAMED
from echospan.checkpoint import load, load_run, save
from echospan.errors import RunError, SettingError, first_line
from echospan.evaluation import as_report, evaluate
from echospan.model import EchoModel
from echospan.recipes import Recipe, TrainingConfig, command
from echospan.run_format import EVALUATION, MANIFEST, VERIFIED, check_evaluation
from echospan.storage.reading import is_folder
from echospan.streaming import Stream
from echospan.text import percent, shown
from echospan.unfilled import Unfilled
from echospan.validation import kind, not_allowed, text
from echospan.validation import path as a_path

_EVALUATED = {"delays", "blank_accuracy", "span", "target", "recalled_bits"}
"""What a model card is filled from."""


def save_pretrained(
    model: EchoModel,
    folder: str | Path,
    *,
    evaluation: Mapping[str, Any] | None = None,
    license: str | None = None,
    overwrite: bool = False,
    name: str | None = None,
) -> Path:
    """As EchoModel's method; `name` is what the card calls it, the folder where left out."""
    folder = a_path("folder", folder)
    license = None if license is None else text("license", license, "mit")
    if evaluation is not None:
        kind("evaluation", evaluation, Mapping, "what evaluation.json of a run holds, or None")
        if missing := sorted(_EVALUATED - set(evaluation)):
            raise not_allowed("evaluation", evaluation, f"it lacks {', '.join(missing)}")
    _refuse_foreign_core(model)
    training = model.made.training if model.made else TrainingConfig()
    if evaluation is None:
        evaluation = as_report(model, evaluate(model), training.target, {"stream": None})
    else:
        _check_evaluation(model, evaluation)
    files = {
        EVALUATION: json.dumps(evaluation, indent=2) + "\n",
        "README.md": card(model, name or str(folder), evaluation, license),
    }
    return save(model, training, folder, files, overwrite)


def from_pretrained(
    name: str | Path, *, revision: str | None = None, token: str | None = None
) -> EchoModel:
    """As EchoModel's method."""
    if is_folder(a_path("name", name)):
        return load(name)
    if name in shipping.names():
        return shipping.shipped(str(name))
    if isinstance(name, Path) or not _is_repo(name):
        raise RunError(
            f"there is no model {str(name)!r}: no folder, none that is shipped",
            f"name a folder, one of {', '.join(shipping.names())}, or owner/name of the Hub",
        )
    hub = _hub()
    try:
        there = hub.snapshot_download(
            name, revision=revision, token=token, allow_patterns=[MANIFEST, *VERIFIED]
        )
    except Exception as e:  # of the Hub, the network or the disk; their classes vary by version
        raise _refused(f"{name} cannot be had from the Hub", e) from None
    try:
        return load_run(there, links=True).model  # the Hub's cache is made of links
    except RunError as e:
        raise RunError(
            e.fact.replace(str(there), name), "ask those who share it, or name another revision"
        ) from None


def push_to_hub(
    model: EchoModel,
    repo: str,
    *,
    evaluation: Mapping[str, Any] | None = None,
    license: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    message: str = "A model of echospan",
) -> str:
    """As EchoModel's method."""
    if not isinstance(repo, str) or not _is_repo(repo):
        raise SettingError(f"{shown(repo)} is no name on the Hub", "name it owner/name")
    api = _hub().HfApi(token=token)
    with tempfile.TemporaryDirectory(prefix="echospan-") as made:
        folder = Path(made) / "model"
        save_pretrained(model, folder, evaluation=evaluation, license=license, name=repo)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            told = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
        except Exception as e:
            raise _refused(f"{repo} cannot be put to the Hub", e) from None
    return str(told)


def _is_repo(name: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise SettingError(
            "huggingface_hub is not installed", 'pip install "echospan[hub]"'
        ) from None
    return huggingface_hub


def _refused(fact: str, e: Exception) -> RunError:
    return RunError(
        f"{fact} ({type(e).__name__}: {first_line(e)})",
        "see that the name is right, that the network is there, and that you are logged in, with "
        "hf auth login, where the Hub must know you",
    )


def _refuse_foreign_core(model: EchoModel) -> None:
    with Unfilled():
        ours = EchoModel(model.config)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (ours, model)]
    if type(ours.core) is not type(model.core) or shapes[0] != shapes[1]:
        raise SettingError(
            f"the core of this model, {type(model.core).__name__}, is not the one that its "
            f"settings name, {model.config.core}, and a folder holds settings and weights alone",
            "keep its state_dict with the code that builds it",
        )


def _check_evaluation(model: EchoModel, evaluation: Mapping[str, Any]) -> None:
    """Raise SettingError for an evaluation from which no card can be made."""
    try:
        check_evaluation(evaluation, model.max_delay + 1)
    except ValueError as e:
        raise SettingError(
            f"the evaluation is not one of this model ({e})",
            "give what evaluation.json of its run holds, or leave it out",
        ) from None


def card(
    model: EchoModel, name: str, evaluation: Mapping[str, Any], license: str | None = None
) -> str:
    """The model card: what it does, how it is used, what it recalls, how it was made."""
    parts = [
        _front_matter(model, name, evaluation, license),
        f"# {name.rpartition('/')[2]}",
        _what_it_does(model),
        _how_it_is_used(model, name),
        _what_it_recalls(model, evaluation),
        _how_it_was_made(model),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(
    model: EchoModel, name: str, evaluation: Mapping[str, Any], license: str | None
) -> str:
    """What the Hub reads; its values are JSON, which is YAML too."""
    tags = ["echospan", "echo-task", "memory", "sequence-model", model.config.core]
    lines = [
        "---",
        "library_name: echospan",
        *([f"license: {license}"] if license else []),
        f"tags: {json.dumps(tags)}",
        "metrics: [accuracy]",
        "model-index:",
        f"- name: {json.dumps(name.rpartition('/')[2])}",
        "  results:",
        "  - task: {type: echo, name: Say each symbol again}",
        "    dataset: {type: random-symbols, name: Fresh random symbols}",
        "    metrics:",
    ]
    for d in evaluation["delays"]:
        if d["delay"] in model.config.asked:
            told = {"type": "accuracy", "name": f"recall at delay {d['delay']}"}
            lines.append("    - " + json.dumps(told | {"value": round(d["recall"], 6)}))
    return "\n".join([*lines, "---"])


def _sample(model: EchoModel, order: tuple[int, ...]) -> str:
    symbols = model.alphabet.characters
    return "".join(symbols[i % len(symbols)] for i in order)


def _what_it_does(model: EchoModel) -> str:
    config, text = model.config, _sample(model, (0, 1, 0, 2, 0, 1, 0))
    delay = min(3, config.max_delay)
    said = (BLANK_MARK * delay + text)[: len(text)]
    known = {v: k for k, v in NAMED.items()}.get(config.alphabet, repr(config.alphabet))
    at = (
        f"at every delay `d` from 0 to {config.max_delay}"
        if config.delay is None
        else f"at delay `d` = {config.delay}"
    )
    return (
        f"Reads one symbol at a time ({known}) and says each of them again exactly `d` steps "
        f"later, {at}.\n\n"
        f"    delay {delay}     read   {' '.join(text)}\n"
        f"                say    {' '.join(said)}        · = blank, nothing to say yet\n\n"
        f"Its core is a `{config.core}`, {config.hidden} wide, "
        + (
            "which is told the delay beside each symbol."
            if model.by_input
            else "which does not know the delay; one linear read-out per delay asks it."
        )
    )


def _how_it_is_used(model: EchoModel, name: str) -> str:
    text, first = _sample(model, (0, 1, 0, 2, 0, 1, 0)), _sample(model, (0, 1, 2))
    delay = min(3, model.max_delay) if model.config.delay is None else model.config.delay
    later = min(2, model.max_delay)
    stream = Stream(model, later)
    return (
        "## Use\n\n"
        '`pip install "echospan[hub]"`, then\n\n'
        "```python\n"
        "import echospan\n\n"
        f"model = echospan.EchoModel.from_pretrained({json.dumps(name)})\n"
        f"print(model.echo({json.dumps(text)}, delay={delay}))  # {model.echo(text, delay)}\n"
        f"stream = echospan.Stream(model, delay={later})\n"
        f"print(stream.push({json.dumps(first)}))  # {stream.push(first)}\n"
        "```"
    )


def _what_it_recalls(model: EchoModel, evaluation: Mapping[str, Any]) -> str:
    stream = evaluation.get("stream")
    heads = ["delay", "recall", "95 % interval", "bits", *(["wrong in a stream"] if stream else [])]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---:|" * len(heads)]
    for d in evaluation["delays"]:
        row = [str(d["delay"]), f"{d['recall']:.2%}", f"{d['low']:.2%} – {d['high']:.2%}"]
        row += [f"{d['bits']:.2f}", *([str(stream["errors"][d["delay"]])] if stream else [])]
        lines.append("| " + " | ".join(row) + " |")
    asked = model.config.asked
    blanks = evaluation["blank_accuracy"]
    return (
        "## What it recalls\n\n" + "\n".join(lines) + "\n\n"
        "Recall: the share of right answers where there was a symbol to say, on fresh random "
        "symbols. "
        + (f"Delay {asked[0]} is what it was trained for. " if len(asked) == 1 else "")
        + f"Span {evaluation['span']} at {percent(evaluation['target'])}, "
        f"{evaluation['recalled_bits']:.1f} bits recalled"
        + (f", {blanks:.2%} of the blanks right" if blanks is not None else "")
        + (
            f"; the stream: {stream['symbols']:,} symbols, the state never reset."
            if stream
            else "."
        )
    )


def _how_it_was_made(model: EchoModel) -> str:
    made = model.made
    if made is None:
        return (
            "## How it was made\n\n"
            "By a program of its own: `training` in config.json says nothing of it."
        )
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    recipe = Recipe(model=model.config, training=made.training)
    processes = f"{made.processes} processes; " if made.processes > 1 else ""
    parts = "".join(
        f"Up to step {part.steps:,} it was trained in another place: threads: {part.threads}; "
        f"{part.machine}. "
        for part in made.earlier
    )
    return (
        "## How it was made\n\n"
        f"    OMP_NUM_THREADS={made.threads} {command(recipe)}\n\n"
        f"Seed {made.training.seed}; {versions}; {processes}threads: {made.threads}; "
        f"{made.machine}. {parts}"
        + (
            "All of these again give the same weights, bit for bit; another machine or version, "
            "another model of the same kind."
            if made.repeatable
            else "The same again gives a model of the same kind, not the same weights: the clock "
            "or a signal decided some of it, or it was trained in several places."
        )
    )
