"""Any module goes in, or is refused in one sentence that says what was seen and what to write."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from echospan.cores import Core, as_core
from echospan.cores.adapted import Inside, Plain, Reading
from echospan.cores.protocol import map_state, tensors
from echospan.errors import CoreError


class Layer(nn.Module):
    """A GRU of width 4 and 8 units; each below has its own manner of being called."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 8, batch_first=True)


class OneTuple(Layer):
    def forward(self, x):
        return (self.gru(x)[0],)


class ManyParts(Layer):
    def forward(self, x, hidden=None):
        y, h = self.gru(x, hidden)
        return y, y.mean(), h, {"loss": y.sum()}


class InDict(Layer):
    def forward(self, x, state=None):
        y, h = self.gru(x, state)
        return {"aux": x.sum(), "output": y, "state": h}


@dataclass
class Output:
    hidden_states: torch.Tensor
    cache: torch.Tensor


class InDataclass(Layer):
    def forward(self, x, cache=None):
        return Output(*self.gru(x, cache))


class Keyword(Layer):
    def forward(self, x, mask=None, *, past_state=None):
        return self.gru(x, past_state)


class OnRequest(Layer):
    def forward(self, x, prev_hidden=None, return_next_prev_hidden=False):
        y, h = self.gru(x, prev_hidden)
        return (y, h) if return_next_prev_hidden else y


class TwoArguments(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)

    def forward(self, x, h0=None, c0=None):
        y, (h, c) = self.lstm(x, None if h0 is None else (h0, c0))
        return y, h, c


class Splat(Layer):
    def forward(self, x, conv_state=None, gru_state=None):
        y, h = self.gru(x, gru_state)
        return y, {"conv_state": x[:, -1:], "gru_state": h}


class Tutorial(Layer):
    def init_hidden(self, rows):
        return torch.zeros(1, rows, 8)

    def forward(self, x, hidden):
        return self.gru(x, hidden + 0)


class Position(Layer):
    def forward(self, x, state=None):
        h, steps = (None, 0) if state is None else state
        at = torch.arange(steps, steps + x.shape[1])
        y, h = self.gru(x, h)
        return y + (0.1 * at).sin()[:, None], (h, steps + x.shape[1])


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.a = nn.Linear(4, 16), nn.Parameter(torch.rand(8))

    def forward(self, x, state=None):
        z = x.new_zeros(x.shape[0], 8, dtype=torch.cfloat) if state is None else state
        out = []
        for u in torch.view_as_complex(self.w(x).unflatten(-1, (8, 2))).unbind(1):
            z = z * torch.exp(1j * self.a) * 0.9 + u
            out.append(z.real)
        return torch.stack(out, 1), z


class MixedDims(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.GRU(4, 8, batch_first=True), nn.GRUCell(8, 8)

    def forward(self, x, state=None):
        h, g = (None, None) if state is None else state
        y, h = self.one(x, h)
        out = []
        for v in y.unbind(1):
            g = self.two(v, g)
            out.append(g)
        return torch.stack(out, 1), (h, g)


class OnItself(nn.Module):
    def __init__(self, sizes=(4, 8)):
        super().__init__()
        self.cell, self.h = nn.GRUCell(*sizes), None

    def forward(self, x):
        h = x.new_zeros(len(x), 8) if self.h is None or len(self.h) != len(x) else self.h
        out = []
        for v in x.unbind(1):
            h = self.cell(v, h)
            out.append(h)
        self.h = h
        return torch.stack(out, 1)


class Convolution(nn.Module):
    def __init__(self, channels_first=False):
        super().__init__()
        self.channels_first = channels_first
        self.conv, self.second = nn.Conv1d(4, 8, 5), nn.Conv1d(8, 6, 3, dilation=2)

    def forward(self, x):
        x = x if self.channels_first else x.transpose(1, 2)
        x = self.second(F.pad(self.conv(F.pad(x, (4, 0))).relu(), (4, 0)))
        return x if self.channels_first else x.transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, causal=True, window=None):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.causal, self.window = causal, window

    def forward(self, x):
        n = x.shape[1]
        mask = ~torch.ones(n, n, dtype=torch.bool).tril() if self.causal else None
        if self.window:
            mask = mask | torch.ones(n, n, dtype=torch.bool).tril(-self.window)
        return self.attention(x, x, x, attn_mask=mask)


class UpTo32(nn.Module):
    def __init__(self):
        super().__init__()
        self.at, self.inner = nn.Parameter(torch.randn(32, 8)), Attention()

    def forward(self, x):
        return self.inner(x + self.at[: x.shape[1]])[0]


class DropsState(Layer):
    def forward(self, x, state=None):
        return self.gru(x)


class LastStep(Layer):
    def forward(self, x):
        return self.gru(x)[0][:, -1]


class MeanOfBatch(Layer):
    def forward(self, x):
        return self.gru(x - x.mean(0))[0]


class NotANumber(Layer):
    def forward(self, x):
        return self.gru(x)[0].log()


class InPlace(Layer):
    def forward(self, x):
        return self.gru(x.mul_(2))[0]


class Raises(Layer):
    def forward(self, x):
        raise RuntimeError("no such luck\nat line 3")


class NeedsGpu(Layer):
    def forward(self, x):
        raise RuntimeError("Expected x.is_cuda() to be true, but got false.")


class Noisy(Layer):
    def forward(self, x):
        return F.dropout(self.gru(x)[0], 0.5, training=True)


class Integers(Layer):
    def forward(self, x):
        return self.gru(x)[0].argsort(-1)


def gru(**options):
    return nn.GRU(4, 8, **options)


GOES_IN = {
    "gru": lambda: gru(batch_first=True),
    "lstm": lambda: nn.LSTM(4, 8, 2, batch_first=True),
    "projected lstm": lambda: nn.LSTM(4, 8, proj_size=3, batch_first=True),
    "relu rnn": lambda: nn.RNN(4, 8, nonlinearity="relu", batch_first=True),
    "time first": lambda: gru(),
    "time-first lstm": lambda: nn.LSTM(4, 8),
    "float64": lambda: gru(batch_first=True).double(),
    "bfloat16": lambda: gru(batch_first=True).bfloat16(),
    "float16": lambda: gru(batch_first=True).half(),
    "compiled": lambda: torch.compile(gru(batch_first=True), backend="eager"),
    "linear": lambda: nn.Linear(4, 8),
    "sequential": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU()),
    "one tuple": OneTuple,
    "many parts": ManyParts,
    "dict": InDict,
    "dataclass": InDataclass,
    "keyword": Keyword,
    "state on request": OnRequest,
    "two arguments": TwoArguments,
    "dict of keywords": Splat,
    "tutorial": Tutorial,
    "position in state": Position,
    "complex state": Complex,
    "rows in two dimensions": MixedDims,
    "state on itself": OnItself,
    "convolution": Convolution,
    "channels first": lambda: Convolution(True),
    "attention": Attention,
    "window of attention": lambda: Attention(window=5),
    "positions up to 32": UpTo32,
}

REFUSED = {
    "both directions": (
        lambda: gru(bidirectional=True, batch_first=True),
        r"GRU sees the future \(the output at step 0 changed by 0\.\d+ when the input at step 1 "
        r"changed\); mask the future",
    ),
    "no mask": (lambda: Attention(False), r"sees the future"),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16), r"sees the future"),
    "padded both sides": (lambda: nn.Conv1d(4, 8, 3, padding=1), r"Conv1d sees the future"),
    "no padding": (lambda: nn.Conv1d(4, 8, 3), r"returns \(3, 5, 8\) for an input of \(3, 7, 4\)"),
    "mixes rows": (MeanOfBatch, r"mixes the rows of a batch \(one row's output changed by"),
    "nan": (NotANumber, r"returns NaN or infinite values"),
    "in place": (InPlace, r"changes its input in place; begin its forward with x = x.clone\(\)"),
    "raises": (Raises, r"Raises raised RuntimeError: no such luck for an input of \(2, 7, 4\); it"),
    "gpu": (NeedsGpu, r"NeedsGpu needs a GPU \(RuntimeError: Expected x.is_cuda\(\).*move it"),
    "last step": (LastStep, r"returns \(3, 8\) for an input of \(3, 7, 4\); return \(batch, time"),
    "drops state": (DropsState, r"takes state and returns a state, but .* differs by 0\.\d+"),
    "noise": (Noisy, r"answers the same input differently each time; switch its random parts off"),
    "integers out": (Integers, r"returns torch.int64; return floating-point numbers"),
    "integers in": (lambda: nn.Embedding(4, 8), r"takes whole numbers.*leave its nn.Embedding"),
    "query, key, value": (
        lambda: nn.MultiheadAttention(8, 2),
        r"wants 3 inputs \(query, key, value\); wrap it in a module whose forward\(x\)",
    ),
    "no width": (
        nn.ReLU,
        r"width of the input of ReLU cannot be found; give the width of its input as features",
    ),
    "a class": (lambda: nn.GRU, r"GRU is a class; give an instance of it, as GRU\(…\)"),
    "no module": (lambda: "gru", r"'gru' is no torch.nn.Module; give an instance"),
}


@pytest.mark.parametrize("make", GOES_IN.values(), ids=GOES_IN)
def test_cut_anywhere_it_says_what_the_whole_says(make):
    core = as_core(make()).eval()
    assert isinstance(core, Core)
    x = torch.randn(3, 21, core.input_size)
    whole, _ = core(x)
    assert whole.shape == (3, 21, core.hidden_size)
    assert whole.dtype == x.dtype
    loose = 0.02 if core.call.like and make is not GOES_IN["float64"] else 1e-5
    for cuts in ([1] * 21, [4, 17], [20, 1]):
        said, state = [], None
        for piece in x.split(cuts, 1):
            y, state = core(piece, state)
            said.append(y)
            for t in tensors(state):
                assert t.is_floating_point()
                assert t.shape[core.batch_dim] == 3
        torch.testing.assert_close(torch.cat(said, 1), whole, atol=loose, rtol=loose)


@pytest.mark.parametrize("make", GOES_IN.values(), ids=GOES_IN)
def test_where_zeros_are_empty_one_row_may_begin_anew(make):
    core = as_core(make()).eval()
    x = torch.randn(3, 9, core.input_size)
    _, state = core(torch.randn(3, 12, core.input_size))
    if state is None:
        return
    if not core.zeros_are_empty:
        assert make is Position  # what all rows share cannot be emptied for one
        return
    keep = torch.tensor([1.0, 0.0, 1.0])

    def restart(t):
        return t * keep.to(t).view([-1 if d == core.batch_dim else 1 for d in range(t.dim())])

    loose = 0.02 if core.call.like and make is not GOES_IN["float64"] else 1e-5
    y, _ = core(x, map_state(restart, state))
    torch.testing.assert_close(y[1:2], core(x[1:2])[0], atol=loose, rtol=loose)
    torch.testing.assert_close(y[::2], core(x, state)[0][::2], atol=loose, rtol=loose)


@pytest.mark.parametrize(("make", "sentence"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_in_one_sentence(make, sentence):
    with pytest.raises(CoreError, match=sentence) as refused:
        as_core(make())
    assert "\n" not in str(refused.value)


def test_torchs_layers_come_through_as_they_are():
    for layer in (gru(batch_first=True), nn.LSTM(4, 8, batch_first=True)):
        core = as_core(layer)
        assert isinstance(core, Plain)
        assert core.module is layer
        assert core.batch_dim == 1
        assert as_core(core) is core


def test_a_width_that_does_not_fit_is_told_with_the_one_that_does():
    with pytest.raises(CoreError, match=r"GRU takes input of width 4, not 5; make it for width 5"):
        as_core(gru(batch_first=True), 5)
    with pytest.raises(CoreError, match=r"returns \(3, 7, 8\).*return \(batch, time, 9\)"):
        as_core(gru(batch_first=True), 4, 9)
    assert as_core(nn.ReLU(), 6).hidden_size == 6


def test_how_far_back_a_module_without_a_state_reads_is_found():
    assert (as_core(Convolution()).context, as_core(Convolution()).whole) == (8, True)
    assert as_core(Attention(window=5)).context == 4
    assert (as_core(Attention()).context, as_core(Attention()).whole) == (256, False)
    assert as_core(Attention(), context=20).context == 20
    assert as_core(nn.Linear(4, 8)).context == 0
    assert isinstance(as_core(UpTo32()), Reading)


def test_nothing_is_left_of_the_trials():
    layer = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 8)).train()
    layer[2].eval()
    before = {name: t.clone() for name, t in layer.state_dict().items()}
    torch.manual_seed(5)
    as_core(layer)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    assert (layer.training, layer[1].training, layer[2].training) == (True, True, False)
    assert all(torch.equal(t, before[name]) for name, t in layer.state_dict().items())


def test_what_a_module_keeps_on_itself_is_taken_away_after_each_call():
    layer = OnItself()
    core = as_core(layer)
    assert isinstance(core, Inside)
    core(torch.randn(2, 5, 4))[0].sum().backward()
    assert layer.h is None
    assert layer.cell.weight_hh.grad is not None


def test_a_used_module_that_keeps_its_state_must_know_how_to_forget():
    class Forgets(OnItself):
        def reset(self):
            self.h = None

    used = OnItself(), Forgets()
    for layer in used:
        layer(torch.randn(2, 5, 4))
    with pytest.raises(CoreError, match=r"begins from what it was used for; give a new one, or"):
        as_core(used[0])
    x = torch.randn(2, 6, 4)
    y, _ = as_core(used[1])(x)
    used[1].reset()
    torch.testing.assert_close(y, used[1](x))


def test_what_it_found_out_can_be_read():
    assert "4 -> 8, time first, carried by state" in repr(as_core(gru()))
    assert "its last inputs" in repr(as_core(Convolution()))
