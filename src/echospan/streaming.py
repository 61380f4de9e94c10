"""One symbol in, one out, for as long as you like, in constant memory."""

from pathlib import Path

import torch
from torch.nn import functional as F

from echospan.checkpoint import fingerprint, sealed, unsealed, write_whole
from echospan.cores import State, map_state, tensors
from echospan.errors import RunError
from echospan.model import EchoModel, is_plain_gru


class Stream:
    """A model at work on an endless stream; `delay` may be changed between any two pushes.

    Raises DelayError for a delay the model was not trained on.
    """

    CHUNK = 4096
    """Symbols that bulk text is taken in at a time: memory stays constant."""

    def __init__(self, model: EchoModel, delay: int | None = None) -> None:
        self.model = model.eval()
        self._delay = model.check_delay(delay)
        self.state: State = None
        self.device = model.readouts.weight.device
        with torch.inference_mode():
            core = model.core
            fast = is_plain_gru(core) and not model.by_input and self.device.type == "cpu"
            self.table = core.project(model.embedding.weight) if fast else None  # type: ignore[operator]

    @property
    def delay(self) -> int:
        """The delay asked for; with read-outs it may change at every step."""
        return self._delay

    @delay.setter
    def delay(self, delay: int) -> None:
        self._delay = self.model.check_delay(delay)

    @torch.inference_mode()
    def push_ids(self, ids: list[int]) -> list[int]:
        """Answers to symbol ids, one for each."""
        said: list[int] = []
        for start in range(0, len(ids), self.CHUNK):
            symbols = torch.tensor([ids[start : start + self.CHUNK]], device=self.device)
            if self.table is not None:
                y, self.state = self.model.core.forward_projected(  # type: ignore[operator]
                    F.embedding(symbols.T, self.table), self.state
                )
                y = y[:, 0]
            else:
                delays = torch.tensor([self._delay], device=self.device)
                hidden, self.state = self.model.hidden(symbols, self.state, delays)
                y = hidden[0]
            said += self.model.read(y, self._delay).argmax(-1).tolist()
        return said

    def push(self, text: str) -> str:
        """Answers to each character of `text`; AlphabetError before anything is read."""
        alphabet = self.model.alphabet
        return alphabet.decode(self.push_ids(alphabet.encode(text)))

    def save(self, path: str | Path) -> None:
        """Keep what the model remembers now in a file, whole or not at all.

        Raises RunError where the disk refuses; a file that was there is then still whole.
        """
        told = {"model": fingerprint(self.model), "empty": self.state is None}
        parts = {f"{i:04}": t for i, t in enumerate(tensors(self.state))}
        write_whole(Path(path), sealed(told, parts))

    @torch.inference_mode()
    def restore(self, path: str | Path) -> None:
        """Go on from what `save` kept, bit for bit as if nothing had been in between.

        Raises RunError for a file that is missing, damaged, foreign, newer or of another model.
        """
        remedy = "begin anew with another file"
        told, parts = unsealed(Path(path), "state of a stream", remedy)
        if told.get("model") != fingerprint(self.model):
            raise RunError(f"{path} is of another model", "name the run that it was kept with")
        before = self.state
        self.state = None
        try:
            if not told["empty"]:
                self.push_ids([0])  # the shape of a state is what the core makes of a symbol
                named = iter([parts[name].to(self.device) for name in sorted(parts)])
                kept = map_state(lambda _: next(named), self.state)
                self.state = kept
                self.push_ids([0])
                self.state = kept
        except (StopIteration, RuntimeError, KeyError, IndexError, ValueError) as e:
            self.state = before
            raise RunError(f"{path} does not fit its model ({type(e).__name__})", remedy) from None
