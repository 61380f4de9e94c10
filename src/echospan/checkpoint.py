"""The run folder: `model.safetensors`, `config.json`, `evaluation.json`, `history.jsonl`.

Each file is written whole or not at all, and those of a run change in one move
(`echospan.storage.folder`). Loading never unpickles.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from echospan import __version__
from echospan.errors import RunError, by_caller, option
from echospan.json_fields import document, members, string
from echospan.model import EchoModel
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.run_format import (
    EVALUATION,
    FORMAT,
    HISTORY,
    MANIFEST,
    VERIFIED,
    WEIGHTS,
    Config,
    check_format,
    made_as_json,
    manifest,
    parse_config,
    parse_evaluation,
    parse_recipe,
)
from echospan.snapshots import Facts, check_specs, check_values
from echospan.storage.atomic import follow
from echospan.storage.atomic import write_whole as write_whole
from echospan.storage.folder import LOCK, ClaimedFolder, claim, complete, digest
from echospan.storage.reading import (
    digest_regular,
    is_folder,
    open_folder,
    open_regular,
    read_regular,
    settled,
)
from echospan.storage.run_folder import RUN, RunState, inspect, is_snapshot
from echospan.storage.run_folder import SNAPSHOTS as SNAPSHOTS
from echospan.storage.tensor_file import Spec, TensorFile, differences
from echospan.unfilled import Unfilled, memory_errors
from echospan.validation import path as a_path

_OUT = by_caller("", " with --out")

_LARGEST_CONFIG = 1_000_000
_LARGEST_EVALUATION = 10_000_000
_LARGEST_HISTORY = 2**29
"""Bytes: it is read in pieces, and hashed in less than a second."""
_LARGEST_FILE = 2**40
"""Bytes: what a file of tensors holds is compared with what is needed before it is read."""


@dataclass(frozen=True)
class Snapshot:
    """A training under way, as numbers: what it takes to go on as if nothing had happened."""

    recipe: Recipe
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    """What is no tensor, as JSON has it."""


def run_files(
    model: EchoModel, training: TrainingConfig, files: Mapping[str, str]
) -> dict[str, bytes]:
    """Return the contents of a run folder by name, the manifest last.

    Args:
        model: What is saved.
        training: How it was trained.
        files: Further files by name, as text.

    Raises:
        RunError: For an evaluation that `load` would refuse.
    """
    if EVALUATION in files:
        try:
            parse_evaluation(files[EVALUATION].encode(), model.max_delay + 1)
        except ValueError as e:
            raise RunError(
                f"the evaluation is not one of this model ({e})",
                "give what as_report returns, or leave it out",
            ) from None
    named = {k: v.detach().to("cpu", copy=True) for k, v in model.state_dict().items()}
    contents = {WEIGHTS: safetensors.torch.save({k: v.contiguous() for k, v in named.items()})}
    contents |= {name: text.encode() for name, text in files.items()}
    config = {
        "format": FORMAT,
        "echospan": __version__,
        "model": asdict(model.config),
        "training": asdict(training),
        "made": made_as_json(model.made),
        "files": {name: digest(data) for name, data in contents.items()},
    }
    return {**contents, MANIFEST: manifest(config)}


def check_output(folder: str | Path, overwrite: bool = False) -> Path:
    """Return the folder as a path, if a run may be written there; changes nothing.

    Args:
        folder: The run folder; a link is followed.
        overwrite: Whether a run that is there may be replaced.

    Raises RunError for a run without `overwrite`, and for anything else that is not empty.
    """
    path = Path(folder)
    try:
        state = inspect(follow(path))
    except OSError as e:
        if isinstance(e, RunError):
            raise
        raise RunError(
            f"{path} cannot be read ({e.strerror})", "name a folder that you may write to"
        ) from None
    if state is RunState.FOREIGN:
        raise RunError(
            f"{path} exists and is not a run of echospan",
            f"it is not overwritten: name another folder{_OUT}",
        )
    unfinished = state in (RunState.UNFINISHED, RunState.RESUMABLE)
    if not overwrite and state not in (RunState.ABSENT, RunState.EMPTY):
        raise RunError(
            f"{path} {'holds a run that was not finished' if unfinished else 'exists already'}",
            by_caller("", "go on with --resume, " if unfinished else "")
            + f"name another folder{_OUT}, or add {option('overwrite', True)}",
        )
    return path


def claim_run(
    folder: str | Path, overwrite: bool = False, purpose: str = "echospan"
) -> contextlib.AbstractContextManager[ClaimedFolder]:
    """Claim a run folder, making it if it is not there; see `echospan.storage.folder.claim`.

    Raises RunError where `check_output` does, and where another process has claimed it.
    """
    name = Path(folder)

    def check(_: Path) -> None:
        check_output(name, overwrite)

    return claim(name, purpose, check)


def save(
    model: EchoModel,
    training: TrainingConfig,
    folder: str | Path,
    files: Mapping[str, str],
    overwrite: bool = False,
) -> Path:
    """Write a run folder and return its path.

    Args:
        model: What is saved.
        training: How it was trained.
        folder: Where; a link is followed.
        files: Further files by name, as text.
        overwrite: Whether a run that is there is replaced, with its snapshots. Files that are not
            of that run stay.

    Raises RunError where the folder may not be written (see `check_output`), another process has
    claimed it, or the disk refuses; a run that was there is then whole.
    """
    with claim_run(folder, overwrite) as run:
        write_run(run, model, training, files)
    return Path(folder)


def write_run(
    run: ClaimedFolder,
    model: EchoModel,
    training: TrainingConfig,
    files: Mapping[str, str],
    *,
    keep_snapshots: bool = False,
) -> None:
    """Write a run into a folder that is claimed, in one move with the removal of its snapshots.

    Args:
        run: The folder.
        model: What is saved.
        training: How it was trained.
        files: Further files by name, as text; a file of the old run that is not among them goes.
        keep_snapshots: Whether the snapshots stay, for a training that goes on or is measured.

    Raises RunError where the disk refuses; a run that was there is then whole.
    """
    contents = run_files(model, training, files)
    if not keep_snapshots:
        _set_foreign_snapshots_aside(run)
    run.commit(RUN, contents, remove=() if keep_snapshots else SNAPSHOTS)


def write_snapshot(folder: Path | ClaimedFolder, snapshot: Snapshot, first: bool = False) -> None:
    """Write a snapshot into a run folder, whole; the one before it stays until the next.

    Args:
        folder: The folder, claimed; a path is one that no other process writes to.
        snapshot: What is written.
        first: Whether it is the first one of its training: those of another one then go.

    Raises RunError where the disk refuses; the snapshots that are there stay whole.
    """
    text = {
        "model": asdict(snapshot.recipe.model),
        "training": asdict(snapshot.recipe.training),
        "facts": snapshot.facts,
    }
    newest, before = SNAPSHOTS
    try:
        if isinstance(folder, Path):
            folder.mkdir(exist_ok=True)
            folder = ClaimedFolder(folder, folder)
        _set_foreign_snapshots_aside(folder)
        folder.write(newest, sealed(text, snapshot.tensors), None if first else before)
        if first:
            (folder.path / before).unlink(missing_ok=True)
    except OSError as e:
        if isinstance(e, RunError):
            raise
        name = folder.name if isinstance(folder, ClaimedFolder) else folder
        raise RunError(
            f"{name} cannot be written ({e.strerror})",
            f"make room there or name another folder{_OUT}",
        ) from None


def _set_foreign_snapshots_aside(run: ClaimedFolder) -> None:
    for name in SNAPSHOTS:
        path = run.path / name
        if os.path.lexists(path) and not is_snapshot(path):
            run.set_aside(name)


def read_snapshot(folder: Path, core: nn.Module | None = None) -> Snapshot | None:
    """Return the newest whole snapshot of a run folder; None where none is there.

    Args:
        folder: The run folder.
        core: The core, where the training has one of its own instead of the recipe's.

    Raises:
        RunError: Where those that are there are damaged, foreign or of another format.
    """
    refused: RunError | None = None
    for name in SNAPSHOTS:
        if os.path.lexists(folder / name):
            try:
                return _snapshot(folder / name, core)
            except RunError as e:
                # The training that it is of may have gone on, or ended, meanwhile.
                if os.path.lexists(folder / name):
                    refused = refused or e
    if refused is not None:
        raise refused
    return None


def _snapshot(path: Path, core: nn.Module | None) -> Snapshot:
    again = "train it anew with echospan train --overwrite"
    recipe = Recipe()

    def check(said: dict[str, Any], specs: Mapping[str, Spec]) -> None:
        nonlocal recipe
        members(said, {"format", "echospan", "model", "training", "facts"})
        recipe = parse_recipe(said)
        check_specs(recipe, Facts.parse(said["facts"], recipe), specs, core)

    facts, tensors = unsealed(path, "snapshot", again, check)
    try:
        check_values(recipe, Facts.parse(facts["facts"], recipe), tensors)
    except ValueError as e:
        raise RunError(f"{path} is not a whole snapshot ({e})", again) from None
    return Snapshot(recipe, tensors, facts["facts"])


def sealed(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Return a file of safetensors that holds tensors and facts, with a checksum over both.

    Args:
        told: Facts for JSON.
        tensors: Tensors by name.
    """
    text = json.dumps({"format": FORMAT, "echospan": __version__, **told}, allow_nan=False)
    # A copy of each: one tensor may have two names.
    kept = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    return safetensors.torch.save(kept, {"echospan": text, "sha256": _digest(text, kept)})


def unsealed(
    path: Path,
    what: str,
    remedy: str,
    check: Callable[[dict[str, Any], Mapping[str, Spec]], None] | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return facts and tensors of a file that `sealed` made; never unpickles.

    Args:
        path: The file.
        what: What it is, in messages.
        remedy: What the caller can do where it is not whole.
        check: Called with the facts, and with types and shapes of the tensors, before any tensor
            is read or allocated; raises ValueError for what is not wanted.

    Raises:
        RunError: For a file that is missing, damaged, foreign or of another format.
    """
    return settled(lambda: _unsealed(path, what, remedy, check), [path, path.parent])


def _unsealed(
    path: Path,
    what: str,
    remedy: str,
    check: Callable[[dict[str, Any], Mapping[str, Spec]], None] | None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with enough_memory(path), open_regular(path, _LARGEST_FILE) as file:
            tensor_file = TensorFile(file)
            if set(tensor_file.metadata) != {"echospan", "sha256"}:
                raise ValueError("it was not written by echospan")
            text = tensor_file.metadata["echospan"]
            facts = document(text)
            if not isinstance(facts, dict):
                raise ValueError("its facts are no object")
            check_format(facts.get("format"), path)
            string(facts.get("echospan"), "echospan", 100)
            if check is not None:
                check(facts, tensor_file.specs)
            tensors, _ = tensor_file.read()
        if _digest(text, tensors) != tensor_file.metadata["sha256"]:
            raise RunError(f"{path} is damaged (its checksum differs)", remedy)
    except ValueError as e:
        raise RunError(f"{path} is not a whole {what} ({e})", remedy) from None
    return facts, tensors


@contextlib.contextmanager
def enough_memory(path: Path) -> Iterator[None]:
    """Raise RunError where the tensors of a file do not fit into memory."""
    try:
        with memory_errors():
            yield
    except MemoryError:
        raise RunError(
            f"there is not enough memory to read {path}", "read it on a machine that has more"
        ) from None


def fingerprint(model: EchoModel) -> str:
    """Return 64 digits that are the same for models of equal settings and weights."""
    named = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    return _digest(json.dumps(asdict(model.config), sort_keys=True), named)


def _digest(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of text and tensors: names, types, shapes and numbers."""
    total = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        t = tensors[name].contiguous()
        total.update(f"{name} {t.dtype} {list(t.shape)}".encode())
        total.update(t.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


@dataclass(frozen=True)
class Run:
    """A run folder, read and verified."""

    model: EchoModel
    """In `eval()`, on the CPU."""
    recipe: Recipe
    """What made it."""
    recall: tuple[float, ...] | None
    """Recall at each delay, as its evaluation has it; None where the run has no evaluation."""


def load(folder: str | Path) -> EchoModel:
    """Return the model of a run folder, in `eval()`, on the CPU.

    Every byte that is used is read once and verified: one checksum stands for settings, weights,
    evaluation, history and origin. It never unpickles, and draws no random numbers.

    Args:
        folder: The run folder.

    Raises:
        RunError: For what is missing, damaged, foreign or of another format; names the file.
    """
    return load_run(folder).model


def load_recipe(folder: str | Path) -> tuple[EchoModel, Recipe]:
    """Return the model as `load` does, and the recipe that made it."""
    run = load_run(folder)
    return run.model, run.recipe


def load_run(folder: str | Path, *, links: bool = False) -> Run:
    """Return all that a run folder holds, verified as `load` does.

    Args:
        folder: The run folder.
        links: Whether its files may be symbolic links, as in the cache of the Hugging Face Hub.

    Raises:
        RunError: As `load`.
    """
    path = a_path("folder", folder)
    return settled(
        lambda: _load_run(path, links), [path, *(path / name for name in (MANIFEST, *VERIFIED))]
    )


def _load_run(path: Path, links: bool) -> Run:
    again = "train it anew with echospan train"
    if not is_folder(path):
        raise RunError(
            f"there is no run folder {path}",
            "make one with echospan train --out, or take a model that is shipped",
        )
    complete(path)
    with open_folder(path) as descriptor:
        if not os.path.lexists(path / MANIFEST):
            _check_state(path)
        data = read_regular(path / MANIFEST, _LARGEST_CONFIG, folder=descriptor, links=links)
        config = parse_config(data, path / MANIFEST, again)
        model = _load_model(path / WEIGHTS, config, descriptor, links, again)
        recall = None
        if EVALUATION in config.files:
            name = path / EVALUATION
            data = read_regular(name, _LARGEST_EVALUATION, folder=descriptor, links=links)
            _check_digest(name, hashlib.sha256(data).hexdigest(), config, again)
            try:
                recall = parse_evaluation(data, model.max_delay + 1)
            except ValueError as e:
                raise RunError(f"{name} is not an evaluation of this model ({e})", again) from None
        if HISTORY in config.files:
            name = path / HISTORY
            hashed = digest_regular(name, _LARGEST_HISTORY, folder=descriptor, links=links)
            _check_digest(name, hashed, config, again)
    return Run(model, config.recipe, recall)


def _check_state(path: Path) -> None:
    """Raise RunError for a folder of a training that has not ended."""
    state = inspect(path)
    if state is RunState.UNFINISHED:
        raise RunError(
            f"{path} holds a run that was not finished", "go on with echospan train --resume"
        )
    if state is RunState.EMPTY and os.path.lexists(path / LOCK):
        raise RunError(
            f"{path} holds a training that has saved nothing yet",
            "wait for its end, or train it with echospan train --resume",
        )


def _check_digest(path: Path, digest: str, config: Config, remedy: str) -> None:
    if digest != config.files[path.name]:
        raise RunError(f"{path} is damaged (its checksum differs)", remedy)


def _load_model(path: Path, config: Config, folder: int, links: bool, remedy: str) -> EchoModel:
    try:
        with (
            enough_memory(path),
            open_regular(path, _LARGEST_FILE, folder=folder, links=links) as file,
        ):
            tensor_file = TensorFile(file)
            try:
                model = _fitting(config.recipe.model, tensor_file)
            except ValueError as e:
                raise RunError(f"{path} does not fit {MANIFEST} ({e})", remedy) from None
            tensors, digest = tensor_file.read()
    except ValueError as e:
        raise RunError(f"{path} is damaged ({e})", remedy) from None
    _check_digest(path, digest, config, remedy)
    if not all(t.isfinite().all() for t in tensors.values()):
        raise RunError(f"{path} holds nan or infinity", remedy)
    model.load_state_dict(tensors, assign=True)
    model.made = config.made
    return model.to(model.readouts.weight.dtype).eval()


def _fitting(config: ModelConfig, file: TensorFile) -> EchoModel:
    """Return a model without weights that has exactly the tensors of a file.

    Raises ValueError, before anything of the size of the claim is made, where there is none.
    """
    # The widths of the readouts bound what a constructor loops over.
    rows = (len(config.alphabet) + 1) * (
        1 if config.conditioning == "input" else config.max_delay + 1
    )
    weight = file.specs.get("readouts.weight")
    if weight is None or weight.shape != (rows, config.hidden):
        shape = "missing" if weight is None else list(weight.shape)
        raise ValueError(f"readouts.weight is {shape}, not {[rows, config.hidden]}")
    if not weight.dtype.is_floating_point:
        raise ValueError(f"readouts.weight is {weight}, not of floating point")
    with torch.inference_mode(False), torch.device("cpu"), Unfilled(file.numel):
        model = EchoModel(config)
    wanted = {name: Spec.of(t) for name, t in model.state_dict().items()}
    # A model may have been saved in another precision than the one that models are made in.
    wanted = {
        name: replace(spec, dtype=weight.dtype) if spec.dtype.is_floating_point else spec
        for name, spec in wanted.items()
    }
    if difference := differences(file.specs, wanted):
        raise ValueError(difference)
    return model
