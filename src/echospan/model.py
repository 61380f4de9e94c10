"""Embedding, core and read-outs: one pass of the core answers at every delay."""

import contextlib
import operator
from collections.abc import Iterator
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.alphabet import BLANK_MARK, Alphabet
from echospan.cores import GRU, Core, State, make_core, tensors
from echospan.devices import float32_by_default, standard_modes
from echospan.errors import AlphabetError, CoreError, DelayError, SettingError, option
from echospan.pretrained import Pretrained
from echospan.recipes import Made, ModelConfig
from echospan.text import shown
from echospan.validation import is_whole, kind, not_allowed


def _core(name: str, core: object) -> Core:
    """Return a core, if it says how wide it is and reads `(batch, time, features)`."""
    sizes = [getattr(core, size, None) for size in ("input_size", "hidden_size")]
    if not isinstance(core, nn.Module) or not all(is_whole(size) for size in sizes):
        raise CoreError(
            f"{option(name)} is {shown(core)}, which is no module with an input_size and a "
            "hidden_size",
            "wrap the module with echospan.as_core",
        )
    if getattr(core, "batch_first", True) is False:
        raise CoreError(
            f"{option(name)} is a {type(core).__name__} that reads time first",
            "build it with batch_first=True",
        )
    return cast(Core, core)


def _outer_dtype(core: nn.Module) -> torch.dtype:
    """Return the type of embedding and read-outs: float64 around a core in float64, else float32.

    Around one of 16 bits the default type: such a core converts what it is given in any other.
    """
    own = next((t.dtype for t in core.parameters() if t.is_floating_point()), torch.float32)
    return own if own in (torch.float32, torch.float64) else torch.get_default_dtype()


def is_plain_gru(core: nn.Module) -> TypeGuard[GRU]:
    """Whether a core is our GRU with nothing added, so that its projection may be a table."""
    return type(core) is GRU and not core.bidirectional and not core.dropout


def check_delay(delay: object, max_delay: int) -> int:
    """Return a delay that a model with this longest delay answers at.

    Raises:
        DelayError: For a delay that the model was not trained on, or what is no whole number.
    """
    if not is_whole(delay):
        raise DelayError(
            f"{option('delay')} is {shown(delay)}", f"use a whole number from 0 to {max_delay}"
        )
    given = operator.index(delay)  # type: ignore[arg-type]
    if not 0 <= given <= max_delay:
        raise DelayError(
            f"delay {given} is outside 0..{max_delay}, the delays this model was trained on",
            "ask for one of these"
            + (f", or train with {option('max_delay', given)}" if given > 0 else ""),
        )
    return given


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into `eval()`, and each of its parts back into the mode that it was in.

    Without gradients and autocast meanwhile, and with the module's device as the default one.
    """
    before = [(m, m.training) for m in module.modules()]
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    module.eval()
    try:
        with standard_modes(device, gradients=False):
            yield
    finally:
        for m, training in before:
            if m.training != training:
                m.train(training)  # a module's own train() may do more than set the mode


class EchoModel(Pretrained, nn.Module):
    """A core that remembers, asked by one linear read-out per delay.

        symbols (batch, time) ──> embedding ──> core ──> hidden (batch, time, hidden)
                                          ──> read-outs ──> logits (batch, time, delay, symbol)

    With `conditioning="input"` the delay is embedded and fed in beside each symbol instead, one
    read-out answers, and `hidden` needs the delay.
    """

    def __init__(self, config: ModelConfig, core: nn.Module | None = None) -> None:
        """`core`: any core of one's own instead of the one that `config.core` names."""
        super().__init__()
        config = kind("config", config, ModelConfig, "an echospan.ModelConfig")
        self.config = config
        self.made: Made | None = None
        """How it was trained; None for one that nobody trained, or a program of its own."""
        self.alphabet = Alphabet(config.alphabet)
        self.max_delay = config.max_delay
        symbols = len(self.alphabet) + 1
        self.by_input = config.conditioning == "input"
        extra = 16 if self.by_input else 0
        self.core_name = (
            config.core if core is None else type(getattr(core, "module", core)).__name__
        )
        """What the core is called in messages and in what is exported."""
        if core is None:
            with float32_by_default():
                core = make_core(config.core, symbols + extra, config.hidden)
        sizes = _core("core", core)
        if sizes.input_size <= extra:
            raise SettingError(
                f"the core reads {sizes.input_size} features, of which the delay takes {extra}",
                "make it wider, or ask it through read-outs",
            )
        self.core = core
        dtype = _outer_dtype(core)
        self.embedding = nn.Embedding(symbols, sizes.input_size - extra, dtype=dtype)
        if self.embedding.embedding_dim == symbols:
            nn.init.eye_(self.embedding.weight)
        self.delay_embedding = (
            nn.Embedding(config.max_delay + 1, extra, dtype=dtype) if extra else None
        )
        self.readouts = nn.Linear(
            sizes.hidden_size,
            symbols * (1 if self.by_input else config.max_delay + 1),
            dtype=dtype,
        )

    @property
    def symbols(self) -> int:
        """Classes of an answer: the alphabet's symbols and the blank."""
        return len(self.alphabet) + 1

    def hidden(
        self, symbols: Tensor, state: State = None, delays: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """The core's `(batch, time, hidden)` after each of `symbols (batch, time)`, and its state.

        `delays`, `(batch,)` or `(batch, time)`, is for `conditioning="input"` alone.
        """
        if not isinstance(symbols, Tensor) or symbols.dim() != 2 or symbols.is_floating_point():
            self._check_symbols(symbols)
        self._check_state(state)
        if (
            self.delay_embedding is None
            and symbols.is_cpu
            and is_plain_gru(self.core)
            and not torch.is_autocast_enabled("cpu")
        ):
            # The input projection is linear: project the few symbols, then look them up.
            table = self.core.project(self.embedding.weight)
            y, state = self.core.forward_projected(
                F.embedding(symbols.T, table), cast(Tensor | None, state)
            )
            return y.transpose(0, 1), state
        x = self.embedding(symbols)
        if self.delay_embedding is not None:
            if not isinstance(delays, Tensor):
                raise DelayError(
                    f"delays is {shown(delays)}, and this model is conditioned by its input",
                    "give a tensor of delays, (batch,) or (batch, time)",
                )
            if delays.dim() == 1:
                delays = delays[:, None].expand_as(symbols)
            x = torch.cat([x, self.delay_embedding(delays)], -1)
        y, state = self.core(x, state)
        return y, state

    def forward(self, symbols: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Logits `(batch, time, delay, symbol)` at every delay, and the state to go on from.

        `symbols (batch, time)` int64. By input, each delay is a row of its own, in the state too.
        """
        self._check_symbols(symbols)
        batch, time = symbols.shape
        n = self.max_delay + 1
        if not self.by_input:
            y, state = self.hidden(symbols, state)
            return self.read_all(y), state
        delays = torch.arange(n, device=symbols.device).repeat(batch)
        y, state = self.hidden(symbols.repeat_interleave(n, 0), state, delays)
        return self.readouts(y).view(batch, n, time, self.symbols).transpose(1, 2), state

    def _check_symbols(self, symbols: object) -> None:
        if isinstance(symbols, Tensor) and symbols.dim() == 2 and symbols.shape[1] > 0:
            if torch.compiler.is_compiling():
                return
            ids = symbols.dtype in (torch.int64, torch.int32)
            if ids and (not len(symbols) or 0 <= symbols.min() <= symbols.max() < self.symbols):
                return
        given = (
            f"{symbols.dtype} of shape {tuple(symbols.shape)}"
            if isinstance(symbols, Tensor)
            else shown(symbols)
        )
        raise AlphabetError(
            f"symbols is {given}",
            f"give ids from 0 to {self.symbols - 1}, int64, of shape (batch, time), time 1 or more",
        )

    def _check_state(self, state: object) -> None:
        if state is None or isinstance(state, Tensor):
            return
        try:
            parts = list(tensors(state))  # type: ignore[arg-type]
        except (TypeError, RecursionError):
            parts = []
        if not parts:
            raise CoreError(
                f"state is {shown(state)}", "give None, or a state that this model returned"
            )

    def answer(self, symbols: Tensor, delays: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Logits `(batch, time, symbol)` at one delay a row, `delays (batch,)`, or a step."""
        if self.by_input:
            y, state = self.hidden(symbols, state, delays)
            return self.readouts(y), state
        logits, state = self(symbols, state)
        index = delays.view(len(symbols), -1, 1, 1).expand(*symbols.shape, 1, self.symbols)
        return logits.gather(2, index).squeeze(2), state

    def readouts_at(self, delays: Tensor) -> tuple[Tensor, Tensor]:
        """Weight `(delay·symbol, hidden)` and bias of the read-outs at `delays (delay,)`."""
        weight = self.readouts.weight.unflatten(0, (-1, self.symbols))[delays].flatten(0, 1)
        return weight, self.readouts.bias.unflatten(0, (-1, self.symbols))[delays].flatten()

    def ask(self, symbols: Tensor, delays: Tensor) -> Tensor:
        """Logits `(batch, time, delay, symbol)` at some delays, `delays (delay,)`, alone."""
        if self.by_input:
            return self(symbols)[0][:, :, delays]  # type: ignore[no-any-return]
        y, _ = self.hidden(symbols)
        return F.linear(y, *self.readouts_at(delays)).view(
            *symbols.shape, len(delays), self.symbols
        )

    def read_all(self, hidden: Tensor) -> Tensor:
        """Logits `(…, delay, symbol)` of `hidden (…, hidden)`, where one read-out a delay asks."""
        return self.readouts(hidden).unflatten(-1, (-1, self.symbols))  # type: ignore[no-any-return]

    def read(self, hidden: Tensor, delay: int) -> Tensor:
        """Logits `(…, symbol)` of `hidden (…, hidden)` at one delay, the others unasked."""
        if self.by_input:
            return self.readouts(hidden)  # type: ignore[no-any-return]
        rows = slice(delay * self.symbols, (delay + 1) * self.symbols)
        return F.linear(hidden, self.readouts.weight[rows], self.readouts.bias[rows])

    def check_delay(self, delay: int | None) -> int:
        """The delay; where none is given, the one asked for in training, or the longest.

        Raises DelayError for a delay that was not trained.
        """
        if delay is None:
            return self.max_delay if self.config.delay is None else self.config.delay
        return check_delay(delay, self.max_delay)

    def echo(self, text: str, delay: int | None = None, blank: str = BLANK_MARK) -> str:
        """Return what the model answers while it reads `text`, one character for each.

        Args:
            text: Characters of the model's alphabet; may be empty.
            delay: How many characters later each is repeated; default: the delay asked for in
                training, or the longest.
            blank: The character that stands for a blank; none of the alphabet.

        Raises:
            AlphabetError: For a character that is not in the alphabet.
            DelayError: For a delay that the model was not trained on.
            SettingError: For a blank that is no character of its own.
        """
        if not isinstance(blank, str) or len(blank) != 1 or blank in self.alphabet.characters:
            raise not_allowed("blank", blank, "use one character that is not in the alphabet")
        return self._echo(text, delay, blank)

    @torch.no_grad()
    def _echo(self, text: str, delay: int | None, blank: str) -> str:
        delay, ids = self.check_delay(delay), self.alphabet.encode(text)
        if not ids:
            return ""
        device = self.readouts.weight.device
        with evaluating(self):
            y, _ = self.hidden(
                torch.tensor([ids], device=device), None, torch.tensor([delay], device=device)
            )
            answers: list[int] = self.read(y[0], delay).argmax(-1).tolist()
        return self.alphabet.decode(answers, blank)

    def test_run(self, s: str, delay: int | None = None) -> str:
        """Return the echo of `s` with blanks as spaces, as the assignment's graders call it."""
        return self._echo(s, delay, " ")
