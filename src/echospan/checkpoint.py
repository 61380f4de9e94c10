"""The run folder: `model.safetensors`, `config.json`, `evaluation.json`, `history.jsonl`.

Each file is written whole or not at all, and those of a run change in one move
(`echospan.storage.folder`). Loading never unpickles.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from echospan import __version__
from echospan.devices import standard_modes
from echospan.errors import EchospanError, RunError, by_caller, first_line, option
from echospan.model import EchoModel
from echospan.recipes import Made, ModelConfig, Recipe, TrainingConfig
from echospan.storage.atomic import follow
from echospan.storage.atomic import write_whole as write_whole
from echospan.storage.folder import LOCK, ClaimedFolder, claim, complete, digest
from echospan.storage.run_folder import RUN, RunState, inspect, is_snapshot
from echospan.storage.run_folder import SNAPSHOTS as SNAPSHOTS
from echospan.validation import path as a_path

FORMAT = 3
"""Version of the run folder; a newer one is refused. The checksum of 1 was of the weights alone,
that of 2 of settings and weights; since 3 the folder says how the model was made."""


_OUT = by_caller("", " with --out")


@dataclass(frozen=True)
class Snapshot:
    """A training under way, as numbers: what it takes to go on as if nothing had happened."""

    recipe: Recipe
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    """What is no tensor, as JSON has it."""


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
    named = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    config: dict[str, Any] = {
        "format": FORMAT,
        "echospan": __version__,
        "model": asdict(model.config),
        "training": asdict(training),
        "made": None,
    }
    if model.made is not None:
        config["made"] = asdict(model.made)
        del config["made"]["training"]  # stands beside it
    config["sha256"] = _digest(_decides(config), named)
    contents = {
        "model.safetensors": safetensors.torch.save(named),
        **{name: text.encode() for name, text in files.items()},
    }
    config["files"] = {name: digest(data) for name, data in contents.items()}
    contents[RUN.manifest] = (json.dumps(config, indent=2) + "\n").encode()
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
    facts = snapshot.facts | {"torch": torch.__version__, "threads": torch.get_num_threads()}
    text = {
        "model": asdict(snapshot.recipe.model),
        "training": asdict(snapshot.recipe.training),
        "facts": facts,
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


def read_snapshot(folder: Path) -> Snapshot | None:
    """The newest whole snapshot of a run folder; None where none is there.

    Raises RunError where those that are there are damaged, foreign or newer.
    """
    refused: RunError | None = None
    for name in SNAPSHOTS:
        if (folder / name).exists():
            try:
                return _snapshot(folder / name)
            except RunError as e:
                # The training that it is of may have gone on, or ended, meanwhile.
                if (folder / name).exists():
                    refused = refused or e
    if refused is not None:
        raise refused
    return None


def _snapshot(path: Path) -> Snapshot:
    again = "train it anew with echospan train --overwrite"
    told, tensors = unsealed(path, "snapshot", again)
    try:
        recipe = Recipe(
            model=ModelConfig(**told["model"]), training=TrainingConfig(**told["training"])
        )
        return Snapshot(recipe, tensors, dict(told["facts"]))
    except (EchospanError, KeyError, TypeError, ValueError) as e:
        raise RunError(f"{path} is no whole snapshot ({e})", again) from None


def sealed(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors and what JSON tells of them as a file of safetensors, with a checksum over both."""
    text = json.dumps({"format": FORMAT, "echospan": __version__, **told})
    kept = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    return safetensors.torch.save(kept, {"echospan": text, "sha256": _digest(text, kept)})


def unsealed(path: Path, what: str, remedy: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `sealed` wrote; RunError for what is damaged, foreign or newer. Never unpickles."""
    try:
        with safetensors.safe_open(_regular(path), "pt") as f:
            kept = f.metadata() or {}
            tensors = {name: f.get_tensor(name).clone() for name in f.keys()}  # noqa: SIM118
        told: Any = json.loads(kept["echospan"])
        if told["format"] > FORMAT:
            raise RunError(
                f"{path} has format {told['format']}, newer than {FORMAT}",
                "install a newer echospan",
            )
        if _digest(kept["echospan"], tensors) != kept["sha256"]:
            raise RunError(f"{path} is damaged (its checksum differs)", remedy)
        return dict(told), tensors
    except RunError:
        raise
    except (
        OSError,
        safetensors.SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as e:
        raise RunError(f"{path} is no whole {what} ({first_line(e)})", remedy) from None


def fingerprint(model: EchoModel) -> str:
    """Sixty-four digits that are the same for models of equal settings and weights."""
    named = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    return _digest(json.dumps(asdict(model.config), sort_keys=True), named)


def _config(path: Path, again: str) -> dict[str, Any]:
    """What config.json says, once it is sure that it is ours and not newer."""
    try:
        config: Any = json.loads(_regular(path / "config.json", 1_000_000).read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        if isinstance(e, RunError):
            raise
        raise RunError(f"{path}/config.json cannot be read ({e})", again) from None
    kind = config.get("format") if isinstance(config, dict) else None
    if not isinstance(kind, int) or isinstance(kind, bool):
        raise RunError(f"{path}/config.json is not of echospan", "name a folder it made")
    if kind > FORMAT:
        raise RunError(f"{path} has format {kind}, newer than {FORMAT}", "install a newer echospan")
    return dict(config)


def _regular(path: Path, most: int | None = None) -> Path:
    """The path, if a file of at most so many bytes is there itself, and no link to another place.

    What is a pipe, a device or a link into some other folder is not ours, and may never end.
    """
    try:
        seen = path.lstat()
    except OSError:
        raise RunError(
            f"{path.parent} has no {path.name}", "name a folder that echospan train made"
        ) from None
    if not stat.S_ISREG(seen.st_mode) or (most is not None and seen.st_size > most):
        what = "no file of its own" if not stat.S_ISREG(seen.st_mode) else "too large to be ours"
        raise RunError(f"{path} is {what}", "name a folder that echospan train made")
    return path


def _decides(config: Mapping[str, Any]) -> str:
    """What config.json holds of settings, and of how the model was made, as text.

    What it holds, not what is known by now.
    """
    parts = ("model", "training", "made") if config["format"] > 2 else ("model", "training")
    return json.dumps([config[part] for part in parts], sort_keys=True)


def _digest(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """Of all that a snapshot holds: names, types, shapes and numbers."""
    total = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        t = tensors[name].contiguous()
        total.update(f"{name} {t.dtype} {list(t.shape)}".encode())
        total.update(t.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def load(folder: str | Path) -> EchoModel:
    """The model of a run folder, in `eval()`, on the CPU.

    Raises RunError, naming file and reason, for what is missing, damaged, foreign or newer.
    """
    return load_recipe(folder)[0]


def load_recipe(folder: str | Path) -> tuple[EchoModel, Recipe]:
    """As `load`, and the recipe that made the model."""
    path = a_path("folder", folder)
    again = "train it anew with echospan train"
    if not path.is_dir():
        raise RunError(
            f"there is no run folder {path}",
            "make one with echospan train --out, or take a model that is shipped",
        )
    complete(path)
    if not (path / RUN.manifest).exists():
        state = inspect(path)
        if state is RunState.UNFINISHED:
            raise RunError(
                f"{path} holds a run that was not finished", "go on with echospan train --resume"
            )
        if state is RunState.EMPTY and (path / LOCK).exists():
            raise RunError(
                f"{path} holds a training that has saved nothing yet",
                "wait for its end, or train it with echospan train --resume",
            )
    config = _config(path, again)
    weights = path / "model.safetensors"
    try:
        recipe = Recipe(
            model=ModelConfig(**config["model"]), training=TrainingConfig(**config["training"])
        )
        with safetensors.safe_open(_regular(weights), "pt") as f:
            # What the file has room for bounds what is built: a claim alone costs no memory.
            shape = f.get_slice("readouts.weight").get_shape()
            rows = (len(recipe.model.alphabet) + 1) * (
                1 if recipe.model.conditioning == "input" else recipe.model.max_delay + 1
            )
            if shape != [rows, recipe.model.hidden]:
                raise RunError(
                    f"{path}/config.json does not fit its model (the read-outs are {shape}, not "
                    f"{[rows, recipe.model.hidden]})",
                    again,
                )
            named = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
        if config["format"] == 1:
            fits = hashlib.sha256(weights.read_bytes()).hexdigest() == config.get("sha256")
        else:
            fits = _digest(_decides(config), named) == config.get("sha256")
        if not fits:
            raise RunError(f"{path}/model.safetensors is damaged (its checksum differs)", again)
        if not all(t.isfinite().all() for t in named.values()):
            raise RunError(f"{path}/model.safetensors holds what is no number", again)
        with standard_modes():  # on the CPU, whatever device is the default
            model = EchoModel(recipe.model)
        model.load_state_dict(named)
        made = config.get("made", {"versions": {"echospan": config.get("echospan", "?")}})
        if made is not None:
            model.made = Made(training=recipe.training, **made)
    except RunError:
        raise
    except safetensors.SafetensorError as e:
        raise RunError(f"{path}/model.safetensors is damaged ({e})", again) from None
    except (EchospanError, KeyError, TypeError, ValueError, RuntimeError) as e:
        reason = (str(e).splitlines() or [""])[-1].strip()  # torch says first that there is one
        raise RunError(f"{path}/config.json does not fit its model ({reason})", again) from None
    return model.eval(), recipe


def measured_recall(folder: str | Path) -> list[float] | None:
    """Recall by delay as a run's evaluation has it; None where none is there that can be read."""
    try:
        told = json.loads(_regular(Path(folder) / "evaluation.json", 10_000_000).read_bytes())
        return [float(d["recall"]) for d in told["delays"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
