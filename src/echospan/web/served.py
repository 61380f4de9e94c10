"""A model as it is served: many memories, one forward pass."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from echospan.cores import State, batch_dim, map_state, tensors
from echospan.model import EchoModel
from echospan.packing import valid_recall

SHOWN = 64
"""Steps whose hidden state a page shows; of a longer text only the last ones are sent."""


@dataclass(frozen=True)
class Work:
    """Symbols that one memory reads next."""

    state: State
    ids: tuple[int, ...]
    delay: int
    """Whose hidden state is shown, where the delay is fed in; else of no effect."""


@dataclass(frozen=True)
class Answer:
    """What was believed after each symbol, and the state to go on from."""

    state: State
    said: list[list[int]]
    """The most believed symbol at each step and delay."""
    sure: list[list[int]]
    """Its probability in thousandths."""
    hidden: str
    """The hidden state of the last steps, a signed byte a unit, in base64."""
    scale: list[float]
    """For each of these steps, what 127 stands for."""


class Served:
    """A model with the name that visitors see; its states belong to them, none is kept here."""

    def __init__(self, name: str, model: EchoModel, recall: Sequence[float] | None = None) -> None:
        """`recall`: at each delay, as it was measured on fresh data; shown only if it is valid."""
        self.name, self.model = name, model.eval()
        self.recall = valid_recall(recall, model.max_delay)
        self.rows = model.max_delay + 1 if model.by_input else 1
        self.dim = batch_dim(model.core)

    def told(self) -> dict[str, Any]:
        """What a page needs to know of it."""
        config = self.model.config
        return {
            "name": self.name,
            "core": config.core,
            "alphabet": config.alphabet,
            "maxDelay": config.max_delay,
            "hidden": self.model.readouts.in_features,
            "delay": self.model.check_delay(None),
            "recall": self.recall,
        }

    def alike(self, work: Work) -> Any:
        """What is equal for works that one pass can do."""
        return len(work.ids), tuple(t.shape for t in tensors(work.state)), work.state is None

    @torch.inference_mode()
    def answers(self, works: Sequence[Work]) -> list[Answer]:
        """Of works that are alike, in one pass; each as if it were alone."""
        symbols = torch.tensor([w.ids for w in works])
        state = _joined([w.state for w in works], self.dim)
        hidden, logits, state = self._read(symbols, state, [w.delay for w in works])
        # A model may diverge. JSON has no NaN: what is no number is shown as 0, or as the largest.
        said = logits.argmax(-1)
        sure = logits.softmax(-1).gather(-1, said[..., None]).squeeze(-1).nan_to_num(0.0)
        shown = hidden[:, -SHOWN:].nan_to_num(0.0)
        scale = shown.abs().amax(-1, keepdim=True).clamp(min=1e-9)
        coded = (shown * (127 / scale)).round().to(torch.int8).numpy()
        states = _parted(state, self.dim, self.rows, len(works))
        rows = zip(
            states,
            said.tolist(),
            (sure * 1000 + 0.5).floor().int().tolist(),
            coded,
            scale.squeeze(-1).tolist(),
            strict=True,
        )
        return [
            Answer(own, what, how, base64.b64encode(code.tobytes()).decode(), size)
            for own, what, how, code, size in rows
        ]

    def _read(
        self, symbols: Tensor, state: State, delays: list[int]
    ) -> tuple[Tensor, Tensor, State]:
        """Hidden `(batch, time, hidden)`, logits `(batch, time, delay, symbol)`, and the state."""
        model, (batch, time) = self.model, symbols.shape
        if not model.by_input:
            y, state = model.hidden(symbols, state)
            return y, model.read_all(y), state
        fed = torch.arange(self.rows).repeat(batch)
        y, state = model.hidden(symbols.repeat_interleave(self.rows, 0), state, fed)
        logits = model.readouts(y).view(batch, self.rows, time, -1).transpose(1, 2)
        return y.view(batch, self.rows, time, -1)[range(batch), delays], logits, state


def _joined(states: Sequence[State], dim: int) -> State:
    """One state of the rows of all; they are alike."""
    if len(states) == 1:
        return states[0]
    parts = zip(*(tensors(s) for s in states), strict=True)
    return map_state(lambda _: torch.cat(next(parts), dim), states[0])


def _parted(state: State, dim: int, rows: int, count: int) -> list[State]:
    """The states of `count` visitors, each its own memory: a view would hold that of all."""
    if count == 1:
        return [state]

    def own(place: int) -> State:
        return map_state(lambda t: t.narrow(dim, place * rows, rows).clone(), state)

    return [own(place) for place in range(count)]
