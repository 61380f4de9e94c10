"""One symbol in, one out, for as long as you like, in constant memory."""

import torch
from torch.nn import functional as F

from echospan.cores import State
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
