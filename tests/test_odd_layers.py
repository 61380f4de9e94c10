"""A layer of any manner is carried rightly, and said how, or is refused in one sentence."""

import contextlib

import pytest
import torch
from torch import nn

from echospan.cores import as_core
from echospan.cores.protocol import tensors
from echospan.errors import CoreError
from odd_layers import (
    CARRIED,
    REFUSED,
    BuiltInForward,
    Gru,
    InPlainList,
    KeysAndValues,
    LastTwo,
    LastWeights,
    Learnt,
    Lengths,
    MadeInForward,
    OneStepAtATime,
    gru,
    made,
)

CASES = [pytest.param(*case, id=name) for name, case in CARRIED.items()]


@pytest.mark.parametrize(("make", "carries", "numbers"), CASES)
def test_cut_anywhere_it_says_what_the_whole_says(make, carries, numbers):
    core = as_core(made(make)).eval()
    assert core.carries == carries
    x = torch.randn(3, 21, 4)
    whole, state = core(x)
    assert sum(t.numel() for t in tensors(state)) == 3 * numbers
    loose = 0.02 if numbers == 8 and make is CARRIED["autocast inside"][0] else 1e-5
    for cuts in ([1] * 21, [4, 17], [20, 1]):
        parts, state = [], None
        for piece in x.split(cuts, 1):
            before = [t.clone() for t in tensors(state)]
            y, after = core(piece, state)
            assert all(map(torch.equal, tensors(state), before))
            parts.append(y)
            state = after
        torch.testing.assert_close(torch.cat(parts, 1), whole, atol=loose, rtol=loose)


@pytest.mark.parametrize(("make", "sentence"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_in_one_sentence(make, sentence):
    with pytest.raises(CoreError, match=sentence) as refused:
        as_core(made(make))
    assert "\n" not in str(refused.value)


# --- what is said of it


def test_where_inputs_are_read_again_the_core_says_so():
    core = as_core(MadeInForward())
    assert core.rereads
    assert core.note == (
        "its last 256 inputs are read again for each step; what it read before them is lost"
    )
    core = as_core(LastTwo())
    assert core.rereads
    assert core.note == (
        "its last 1 inputs are read again for each step (what it keeps on itself cannot be "
        "carried: the number of tensors depends on the input)"
    )
    core = as_core(KeysAndValues(64))
    assert "(its state cannot be carried for more than 64 steps)" in core.note


def test_where_there_is_a_state_or_no_memory_nothing_needs_to_be_said():
    for layer in (gru(), nn.Linear(4, 8), OneStepAtATime()):
        core = as_core(layer)
        assert (core.rereads, core.note) == (False, "")


def test_weights_that_no_training_will_change_are_named():
    assert as_core(InPlainList()).note == (
        "weights of shape (8, 4) are not among its parameters(), and are not trained"
    )


# --- lengths


@pytest.mark.parametrize("positions", [48, 300, 512, 1024])
def test_the_end_of_a_table_of_positions_is_found(positions):
    core = as_core(Learnt(positions)).eval()
    assert core.longest == positions
    x = torch.randn(2, 2 * positions + 7, 4)
    y, _ = core(x)
    assert y.shape == (2, 2 * positions + 7, 8)
    torch.testing.assert_close(y[:, :positions], core.module(x[:, :positions]))


@pytest.mark.parametrize("returns_state", [True, False])
def test_a_limit_that_no_size_gives_away_is_found_when_it_is_reached(returns_state):
    layer = Lengths(most=300, returns_state=returns_state)
    core = as_core(layer).eval()
    assert core.longest is None
    x = torch.randn(2, 700, 4)
    y, _ = core(x)
    assert core.longest == 300
    torch.testing.assert_close(y, layer.gru(x)[0], atol=1e-5, rtol=1e-5)


def test_an_error_that_no_length_explains_is_raised_as_it_is():
    class Fails(Gru):
        def forward(self, x, h=None):
            if self.training:
                raise ZeroDivisionError("by the way")
            return self.gru(x, h)

    core = as_core(Fails())
    with pytest.raises(ZeroDivisionError, match="by the way"):
        core.train()(torch.randn(2, 900, 4))
    assert core.longest is None


# --- weights that the first call makes


LAZY = {"lazy": lambda: nn.Sequential(nn.LazyLinear(8)), "built in forward": BuiltInForward}


@pytest.mark.parametrize("make", LAZY.values(), ids=LAZY)
def test_weights_of_the_first_call_are_made_where_the_width_is_given(make):
    layer = make().train()
    torch.manual_seed(0)
    core, other = as_core(layer, 4), as_core(make(), 4)
    assert core.module is layer
    assert all(part.training for part in core.modules())
    named, others = dict(core.named_parameters()), dict(other.named_parameters())
    assert named
    assert not any(torch.equal(p, others[name]) for name, p in named.items())
    torch.manual_seed(0)
    again = dict(as_core(make(), 4).named_parameters())
    assert all(torch.equal(p, again[name]) for name, p in named.items())


# --- what a module keeps, and the caller's settings


def test_nothing_of_a_call_stays_on_a_module_that_keeps_its_state():
    layer = LastTwo()
    core = as_core(layer)
    core(torch.randn(2, 5, 4))
    assert len(layer.last) == 0


def test_an_attribute_of_no_consequence_is_not_carried():
    layer = LastWeights()
    as_core(layer)
    assert layer.calls == 0
    assert not hasattr(layer, "mask")


@contextlib.contextmanager
def default(setting, value, before):
    setting(value)
    try:
        yield
    finally:
        setting(before)


SETTINGS = {
    "float64": lambda: default(torch.set_default_dtype, torch.float64, torch.float32),
    "device": lambda: default(torch.set_default_device, "meta", None),
    "deterministic": lambda: default(torch.use_deterministic_algorithms, True, False),
    "anomaly": lambda: default(torch.autograd.set_detect_anomaly, True, False),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def settings():
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


LAYERS = {
    "gru": gru,
    "lstm, time first": lambda: nn.LSTM(4, 8),
    "channels first": lambda: nn.Conv1d(4, 8, 1),
    "attention": lambda: Learnt(48),
    "neurons": CARRIED["silent neurons"][0],
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("under", SETTINGS.values(), ids=SETTINGS)
def test_settings_of_the_caller_change_nothing_and_stay(under, make):
    layer = make().train()
    plain = as_core(layer)
    with under():
        before = settings()
        core = as_core(layer)
        assert settings() == before
    assert core.extra_repr() == plain.extra_repr()
    assert (core.longest, core.note, core.training) == (plain.longest, plain.note, True)


def test_what_a_module_prints_when_it_is_tried_is_not_printed(capsys):
    as_core(made(CARRIED["prints"][0]))
    assert capsys.readouterr() == ("", "")


def test_a_module_in_float32_takes_what_is_read_in_float64():
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    layer = gru()
    with default(torch.set_default_dtype, torch.float64, torch.float32):
        core = as_core(layer)
    y, _ = core(x)
    assert y.dtype == torch.float64
    torch.testing.assert_close(y.float(), layer(x.float())[0])


def test_what_a_module_keeps_at_the_start_follows_it_to_another_dtype():
    class StartsSomewhere(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.h = nn.GRUCell(4, 8), torch.ones(1, 8)

        def forward(self, x):
            out, h = [], self.h.expand(len(x), 8)
            for u in x.unbind(1):
                h = self.cell(u, h)
                out.append(h)
            self.h = h
            return torch.stack(out, 1)

        def reset(self):
            self.h = torch.ones(1, 8)

    core = as_core(StartsSomewhere()).double()
    assert core(torch.randn(2, 5, 4, dtype=torch.float64))[0].dtype == torch.float64


class Immutable(dict):
    def __setitem__(self, name, value):
        raise AttributeError("it does not change")


class Closed(list):
    def __iter__(self):
        raise PermissionError("look elsewhere")


class Pair(tuple):
    def __new__(cls, first, second):
        return super().__new__(cls, (first, second))


class Single:
    only = None

    def __new__(cls):
        cls.only = cls.only or super().__new__(cls)
        return cls.only


def test_a_state_may_hold_settings_and_things_that_are_no_tensors():
    class State:
        def __init__(self, h):
            self.h, self.lock, self.kind = h, Single(), Pair(1, torch.float32)

    class Layer(Gru):
        def forward(self, x, state=None):
            y, h = self.gru(x, None if state is None else state.h)
            return y, State(h)

    core = as_core(Layer())
    _, state = core(torch.randn(2, 5, 4))
    assert [t.shape for t in state] == [(2, 1, 8)]
