"""One symbol in, one out, for as long as you like, in constant memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echospan.checkpoint import fingerprint, sealed, unsealed, write_whole
from echospan.cores import State, map_state, tensors
from echospan.errors import AlphabetError, RunError, option
from echospan.json_fields import flag, integer, members, string
from echospan.model import EchoModel, evaluating
from echospan.state_layout import StateLayout, state_layout
from echospan.storage.tensor_file import Spec
from echospan.text import shown
from echospan.validation import kind
from echospan.validation import path as a_path

_ANOTHER = "begin anew with another file"

_NUMBERS = 2**22
"""Numbers of hidden states that are made at a time, at most: 16 MB."""


class Stream:
    """A model that reads an endless stream, its hidden state carried from push to push.

    Answers are those of the model in `eval()` with the weights that it has at each push: new
    weights, another device or another precision are followed. The mode of the model is left as it
    is.

    Args:
        model: The model.
        delay: How many symbols later each is repeated. Default: the delay asked for in training, or
            the longest. It may be changed between any two pushes.

    Attributes:
        state: The hidden state; None at the beginning.
        position: How many symbols were read.

    Raises:
        DelayError: For a delay that the model was not trained on.
    """

    CHUNK = 4096
    """Symbols that are read at a time, at most: memory stays constant however long a text is."""

    def __init__(self, model: EchoModel, delay: int | None = None) -> None:
        self.model: EchoModel = kind(
            "model", model, EchoModel, "an EchoModel, such as echospan.load returns"
        )
        self._delay = model.check_delay(delay)
        self.state: State = None
        self.position = 0
        self._dtype = model.readouts.weight.dtype

    @property
    def delay(self) -> int:
        """How many symbols later each is repeated; with readouts it may change at every step."""
        return self._delay

    @delay.setter
    def delay(self, delay: int) -> None:
        self._delay = self.model.check_delay(delay)

    def reset(self) -> None:
        """Forget all that was read: the next symbol is the first one."""
        self.state, self.position = None, 0

    @torch.inference_mode()
    def push_ids(self, ids: Sequence[int]) -> list[int]:
        """Read symbols and return the answer to each. After an error nothing was read.

        Args:
            ids: Whole numbers from 0 (the blank) to the number of symbols.

        Raises:
            AlphabetError: For anything else.
        """
        symbols = self._checked(ids)
        if symbols is None:
            return []
        state = self._copied()
        device = self.model.readouts.weight.device
        delays = torch.tensor([self._delay], device=device)
        answers: list[int] = []
        with evaluating(self.model):
            for chunk in symbols.split(self._chunk()):
                y, state = self.model.hidden(chunk[None].to(device), state, delays)
                answers += self.model.read(y[0], self._delay).argmax(-1).tolist()
        self.state = state
        self.position += len(answers)
        return answers

    def _chunk(self) -> int:
        """Return how many symbols are read at a time: fewer where the hidden state is wide."""
        return max(1, min(self.CHUNK, _NUMBERS // self.model.readouts.in_features))

    def _checked(self, ids: Sequence[int]) -> Tensor | None:
        """Return ids as a tensor `(time,)`; None where there are none."""
        last = self.model.symbols - 1
        if type(ids) is list and len(ids) == 1 and type(ids[0]) is int and 0 <= ids[0] <= last:
            return torch.tensor(ids)  # one symbol at a time, as streams are read
        try:
            symbols = torch.as_tensor(ids, device="cpu")
        except (TypeError, ValueError, RuntimeError, OverflowError):
            symbols = torch.tensor(0.5)
        if symbols.dim() == 1 and not len(symbols):
            return None
        whole = not (
            symbols.is_floating_point() or symbols.is_complex() or symbols.dtype == torch.bool
        )
        if not whole or symbols.dim() != 1 or not 0 <= symbols.min() <= symbols.max() <= last:
            raise AlphabetError(
                f"{option('ids')} is {shown(ids)}", f"give whole numbers from 0 to {last}"
            )
        return symbols.long()

    def _copied(self) -> State:
        """Return the state, on the device and in the precision that the model has by now.

        It is a copy: a core may write into the state that it is given.
        """
        weight = self.model.readouts.weight
        before, self._dtype = self._dtype, weight.dtype

        def moved(part: Tensor) -> Tensor:
            dtype = weight.dtype if part.dtype == before else part.dtype
            return part.to(weight.device, dtype, copy=True)

        return map_state(moved, self.state)

    def push(self, text: str) -> str:
        """Read a text and return the answer to each character. After an error nothing was read.

        Raises:
            AlphabetError: For a character that is not in the alphabet.
        """
        alphabet = self.model.alphabet
        return alphabet.decode(self.push_ids(alphabet.encode(text)))

    def save(self, path: str | Path) -> None:
        """Write the hidden state to a file, whole or not at all.

        Args:
            path: The file; one that is there is replaced.

        Raises:
            RunError: Where the disk refuses; a file that was there is then still whole.
        """
        write_whole(a_path("path", path), self.state_file())

    def state_file(self, ended: bool = True, model: str | None = None) -> bytes:
        """Return the content of the file that `save` writes.

        Args:
            ended: Whether all that was answered is in the state.
            model: The fingerprint of the model, where it is known. Default: it is computed.
        """
        facts = {
            "model": model or fingerprint(self.model),
            "empty": self.state is None,
            "position": self.position,
            "ended": ended,
        }
        return sealed(facts, {f"{i:04}": t for i, t in enumerate(tensors(self.state))})

    def restore(self, path: str | Path) -> bool:
        """Go on from a state that `save` wrote, bit for bit as if nothing had been in between.

        All of the file is verified before the stream is changed.

        Args:
            path: The file.

        Returns:
            Whether the state holds all that was answered: False where `echospan echo --state` was
            killed, and answered more since it last wrote the state.

        Raises:
            RunError: For a file that is missing, damaged, foreign, of another format or of another
                model.
        """
        name = a_path("path", path)
        model = fingerprint(self.model)
        layout: StateLayout | None = None

        def check(facts: dict[str, Any], specs: Mapping[str, Spec]) -> None:
            nonlocal layout
            members(facts, {"format", "echospan", "model", "empty", "position", "ended"})
            if string(facts["model"], "model") != model:
                raise RunError(f"{name} is of another model", "name the run that it was kept with")
            position = integer(facts["position"], "position", 0)
            if flag(facts["empty"], "empty") and (specs or position):
                raise ValueError("the state is empty and has tensors or a position")
            flag(facts["ended"], "ended")
            if not facts["empty"]:
                layout = state_layout(self.model)
                names = [f"{i:04}" for i in range(len(specs))]
                if sorted(specs) != names:
                    raise ValueError("its tensors are not numbered from 0000 on")
                if difference := layout.difference([specs[n] for n in names]):
                    raise ValueError(difference)

        facts, parts = unsealed(name, "state of this model", _ANOTHER, check)
        for part in parts.values():
            if not part.isfinite().all():
                raise RunError(f"{name} holds nan or infinity", _ANOTHER)
        weight = self.model.readouts.weight
        moved = [parts[n].to(weight.device) for n in sorted(parts)]
        self.state = None if layout is None else layout.build(moved)
        self.position, self._dtype = facts["position"], weight.dtype
        return bool(facts["ended"])
