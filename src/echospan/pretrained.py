"""`save_pretrained`, `from_pretrained` and `push_to_hub`: a model's methods by their usual names.

What they do stands above the model, in hub.py: it measures a model, and reads and writes run
folders. A method must stand where its class does, so each is a call of the function of its name,
and the one import upward is made here, when it is called, and named in the import contract.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from echospan.model import EchoModel


class Pretrained:
    """A model that can be kept in a folder, shared on the Hugging Face Hub, and had from there."""

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        evaluation: Mapping[str, Any] | None = None,
        license: str | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write a run folder with a model card; returns its path. `echospan.load` reads it too.

        `evaluation`: what `evaluation.json` of a run holds; measured now where left out.
        `license`: as the Hub names it, such as mit. Raises RunError where the folder exists
        (unless `overwrite` and it is a run) or the disk refuses, SettingError for a core of one's
        own, whose code no folder holds; then nothing is left behind.
        """
        from echospan import hub

        return hub.save_pretrained(
            cast("EchoModel", self),
            folder,
            evaluation=evaluation,
            license=license,
            overwrite=overwrite,
        )

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> "EchoModel":
        """The model of a folder, one that is shipped, or `owner/name` of the Hub, in that order.

        In `eval()`, on the CPU. `revision` (branch, tag or commit) and `token` are for the Hub.
        Raises RunError for what is missing, damaged, foreign or newer; it never unpickles.
        """
        from echospan import hub

        return hub.from_pretrained(name, revision=revision, token=token)

    def push_to_hub(
        self,
        repo: str,
        *,
        evaluation: Mapping[str, Any] | None = None,
        license: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        message: str = "A model of echospan",
    ) -> str:
        """Share it as `owner/name`, which is made where it is not there; returns the address.

        As `save_pretrained`; also raises RunError for what the Hub refuses or is not there.
        """
        from echospan import hub

        return hub.push_to_hub(
            cast("EchoModel", self),
            repo,
            evaluation=evaluation,
            license=license,
            private=private,
            token=token,
            message=message,
        )
