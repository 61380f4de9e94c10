"""The run folder: `model.safetensors`, `config.json`, `evaluation.json`, `history.jsonl`.

Each file is written whole or not at all, and the folder appears whole: it is built beside its
place and renamed into it. Loading never unpickles.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from echospan import __version__
from echospan.errors import EchospanError, RunError
from echospan.model import EchoModel
from echospan.recipes import ModelConfig, Recipe, TrainingConfig

FORMAT = 1
"""Version of the run folder; a newer one is refused."""


@dataclass(frozen=True)
class Snapshot:
    """A training under way, as numbers: what it takes to go on as if nothing had happened."""

    recipe: Recipe
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    """What is no tensor, as JSON has it."""


SNAPSHOTS = ("resume.safetensors", "resume.before.safetensors")
"""The newest and the one before it, in the folder of a run that is unfinished."""


def check_output(folder: str | Path, overwrite: bool = False) -> Path:
    """The folder, if a run may be written there; RunError otherwise. Touches nothing it finds."""
    path = Path(folder)
    if path.exists() or path.is_symlink():
        unfinished = any((path / name).is_file() for name in SNAPSHOTS)
        if not overwrite:
            raise RunError(
                f"{path} {'holds a run that was not finished' if unfinished else 'exists already'}",
                ("go on with --resume, " if unfinished else "")
                + "name another folder with --out, or add --overwrite",
            )
        if not unfinished and not (path / "config.json").is_file():
            raise RunError(
                f"{path} exists and is not a run of echospan",
                "it is not overwritten: name another folder with --out",
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".echospan-"):
            pass
    except OSError as e:
        raise RunError(
            f"nothing can be written beside {path} ({e.strerror})",
            "name a folder on a disk with room that you may write to",
        ) from None
    return path


def save(
    model: EchoModel,
    training: TrainingConfig,
    folder: str | Path,
    files: Mapping[str, str],
    overwrite: bool = False,
) -> Path:
    """Write a run folder: model, settings, and `files` by name, as text. Returns its path.

    Raises RunError where the folder exists (unless `overwrite` and it is a run) or the disk
    refuses; then nothing is left behind and a run that was there is still whole.
    """
    path = check_output(folder, overwrite)
    made = Path(tempfile.mkdtemp(dir=path.parent, prefix=".echospan-"))
    try:
        weights = safetensors.torch.save(
            {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
        )
        config = {
            "format": FORMAT,
            "echospan": __version__,
            "model": asdict(model.config),
            "training": asdict(training),
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
        _write(made / "model.safetensors", weights)
        _write(made / "config.json", (json.dumps(config, indent=2) + "\n").encode())
        for name, text in files.items():
            _write(made / name, text.encode())
        made.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=".echospan-")) / "old"
            path.replace(old)
            made.replace(path)
            shutil.rmtree(old.parent, ignore_errors=True)
        else:
            made.replace(path)
    except OSError as e:
        raise RunError(
            f"the run could not be written to {path} ({e.strerror})",
            "make room or name another folder with --out",
        ) from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return path


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """A single file, whole or not at all; RunError where the disk refuses."""
    made: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".echospan-")
        os.close(handle)
        made = Path(name)
        _write(made, data)
        made.chmod(0o644)
        made.replace(path)
    except OSError as e:
        if made is not None:
            made.unlink(missing_ok=True)
        raise RunError(
            f"{path} could not be written ({e.strerror})", "make room or name another place"
        ) from None


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Keep a snapshot in a run folder, whole; the one before it stays until the next.

    Raises RunError where the disk refuses; the snapshots that are there stay whole.
    """
    facts = json.dumps(
        {
            "format": FORMAT,
            "echospan": __version__,
            "model": asdict(snapshot.recipe.model),
            "training": asdict(snapshot.recipe.training),
            "facts": snapshot.facts
            | {"torch": torch.__version__, "threads": torch.get_num_threads()},
        }
    )
    told = {"snapshot": facts, "sha256": _digest(facts, snapshot.tensors)}
    newest, before = (folder / name for name in SNAPSHOTS)
    try:
        folder.mkdir(exist_ok=True)
        if newest.exists():
            newest.replace(before)
    except OSError as e:
        raise RunError(f"{folder} cannot be written ({e.strerror})", "make room there") from None
    write_whole(newest, safetensors.torch.save(snapshot.tensors, told))


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
                refused = refused or e
    if refused is not None:
        raise refused
    return None


def _snapshot(path: Path) -> Snapshot:
    again = "train it anew with echospan train --overwrite"
    try:
        with safetensors.safe_open(path, "pt") as f:
            told = f.metadata() or {}
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
        kept: Any = json.loads(told["snapshot"])
        if kept["format"] > FORMAT:
            raise RunError(
                f"{path} has format {kept['format']}, newer than {FORMAT}",
                "install a newer echospan",
            )
        if _digest(told["snapshot"], tensors) != told["sha256"]:
            raise RunError(f"{path} is damaged (its checksum differs)", again)
        recipe = Recipe(
            model=ModelConfig(**kept["model"]), training=TrainingConfig(**kept["training"])
        )
        return Snapshot(recipe, tensors, kept["facts"])
    except RunError:
        raise
    except (
        OSError,
        EchospanError,
        safetensors.SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as e:
        reason = (str(e).splitlines() or [""])[0]
        raise RunError(f"{path} is no whole snapshot ({reason})", again) from None


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
    path = Path(folder)
    again = "train it anew with echospan train"
    if not path.is_dir():
        raise RunError(f"there is no run folder {path}", "make one with echospan train --out")
    try:
        config: Any = json.loads((path / "config.json").read_text())
        weights = (path / "model.safetensors").read_bytes()
    except FileNotFoundError as e:
        missing = Path(str(e.filename)).name
        raise RunError(
            f"{path} has no {missing}", "name a folder that echospan train made"
        ) from None
    except (OSError, ValueError) as e:
        raise RunError(f"{path}/config.json cannot be read ({e})", again) from None
    if not isinstance(config, dict) or not isinstance(config.get("format"), int):
        raise RunError(f"{path}/config.json is not of echospan", "name a folder it made")
    if config["format"] > FORMAT:
        raise RunError(
            f"{path} has format {config['format']}, newer than {FORMAT}", "install a newer echospan"
        )
    if hashlib.sha256(weights).hexdigest() != config.get("sha256"):
        raise RunError(f"{path}/model.safetensors is damaged (its checksum differs)", again)
    try:
        recipe = Recipe(
            model=ModelConfig(**config["model"]), training=TrainingConfig(**config["training"])
        )
        model = EchoModel(recipe.model)
        model.load_state_dict(safetensors.torch.load(weights))
    except (
        EchospanError,
        KeyError,
        TypeError,
        RuntimeError,
        safetensors.SafetensorError,
    ) as e:
        reason = str(e).splitlines()[0]
        raise RunError(f"{path}/config.json does not fit its model ({reason})", again) from None
    return model.eval(), recipe
