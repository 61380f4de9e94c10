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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from echospan import __version__
from echospan.errors import EchospanError, RunError
from echospan.model import EchoModel
from echospan.recipes import ModelConfig, Recipe, TrainingConfig

FORMAT = 1
"""Version of the run folder; a newer one is refused."""


def check_output(folder: str | Path, overwrite: bool = False) -> Path:
    """The folder, if a run may be written there; RunError otherwise. Touches nothing it finds."""
    path = Path(folder)
    if path.exists() or path.is_symlink():
        if not overwrite:
            raise RunError(
                f"{path} exists already", "name another folder with --out, or add --overwrite"
            )
        if not (path / "config.json").is_file():
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
