"""Each check has been seen red: by a module with just the fault that it is for."""

import random

import pytest
import torch
from torch import nn

from echospan import checks
from echospan.checks import CORE_CHECKS, check, name_of
from echospan.errors import CheckError, CoreError, SettingError


class Sound(nn.Module):
    """A leaky integrator; each fault below is a small change of it."""

    def __init__(self, features, hidden):
        super().__init__()
        self.w = nn.Linear(features, hidden)
        self.keep = nn.Parameter(torch.rand(hidden))

    def forward(self, x, state=None):
        h = x.new_zeros(x.shape[0], self.keep.shape[0]) if state is None else state
        out = []
        for v in self.w(x).unbind(1):
            h = self.keep.sigmoid() * h + v
            out.append(h.tanh())
        return torch.stack(out, 1), h


class Single(Sound):
    def forward(self, x, state=None):
        y, h = super().forward(x.float(), None if state is None else state.float())
        return y.float().double(), h


class SeesNext(Sound):
    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return y + torch.cat([y[:, 1:], y[:, -1:]], 1), h


class DropsState(Sound):
    def forward(self, x, state=None):
        return super().forward(x)


class CarriesShortOnes(Sound):
    def forward(self, x, state=None):
        return super().forward(x, state if x.shape[1] == 1 else None)


class CentresBatch(Sound):
    def forward(self, x, state=None):
        return super().forward(x - x.mean(0), state)


class PythonsRandom(Sound):
    def __init__(self, features, hidden):
        super().__init__(features, hidden)
        self.register_buffer("scale", torch.tensor(random.random()))

    def forward(self, x, state=None):
        return super().forward(x * self.scale, state)


class HasSpare(Sound):
    def __init__(self, features, hidden):
        super().__init__(features, hidden)
        self.spare = nn.Parameter(torch.zeros(3))


class HidesWeights(Sound):
    def __init__(self, features, hidden):
        super().__init__(features, hidden)
        self.scale = torch.rand(features)

    def forward(self, x, state=None):
        return super().forward(x * self.scale.to(x), state)


class WritesInput(Sound):
    def forward(self, x, state=None):
        return super().forward(x.mul_(2), state)


class WritesState(Sound):
    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return y, h if state is None else state.copy_(h)


class Squeezes(Sound):
    def forward(self, x, state=None):
        return super().forward(x.squeeze(1), state)


class Explodes(Sound):
    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return y, h if state is None else h + 1e3 * state


class HalvesGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return h.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad / 2


class WrongBackward(Sound):
    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return HalvesGradient.apply(y), h


class BeginsAtOne(Sound):
    def forward(self, x, state=None):
        begin = x.new_ones(x.shape[0], self.keep.shape[0])
        return super().forward(x, begin if state is None else state)


FAULTS = [
    (checks.check_shape_dtype_device, Single, r"torch.float64 on cpu, the input torch.float32"),
    (checks.check_causal, SeesNext, r"step 0 changed by \d\.\d+ when the input at step 1 changed"),
    (checks.check_step_by_step, DropsState, r"step 1 differs by .* step by step"),
    (checks.check_chunks, CarriesShortOnes, r"step 2 differs by .* in 2 and 7 steps"),
    (checks.check_rows_independent, CentresBatch, r"changed by .* when another row"),
    (checks.check_same_seed, PythonsRandom, r"scale differs between two cores"),
    (checks.check_every_parameter_learns, HasSpare, r"the parameter spare gets none"),
    (checks.check_state_dict, HidesWeights, r"after load_state_dict the output differs"),
    (checks.check_input_unchanged, WritesInput, r"the input is changed in place"),
    (checks.check_input_unchanged, WritesState, r"the state that is given is changed"),
    (checks.check_length_one, Squeezes, r"a sequence of one step raises \w+"),
    (checks.check_long_run, Explodes, r"within [\d,]+ steps .* no longer finite"),
    (checks.check_gradients, WrongBackward, r"the gradient of the input .* differences say"),
    (checks.check_zeros_are_empty, BeginsAtOne, r"from a state of zeros .* step 0 differs"),
]


@pytest.mark.parametrize(("promise", "faulty", "seen"), FAULTS)
def test_a_check_catches_the_fault_it_is_for(promise, faulty, seen):
    with pytest.raises(CheckError, match=seen):
        promise(faulty)


@pytest.mark.parametrize("promise", CORE_CHECKS, ids=name_of)
def test_a_sound_module_passes(promise):
    promise(Sound)


def test_every_check_has_been_seen_red():
    assert {promise for promise, _, _ in FAULTS} == set(CORE_CHECKS)


def test_a_report_has_a_line_for_each_promise():
    results = check(Sound)
    assert [r.name for r in results] == [name_of(c) for c in CORE_CHECKS]
    assert all(r.ok and r.passed and not r.seen for r in results)


@pytest.mark.parametrize(
    ("layer", "failing"),
    [
        (nn.GRU(5, 8, batch_first=True), set()),
        (nn.LSTM(5, 8, 2), set()),
        (nn.Linear, set()),
        (lambda hidden: nn.GRU(6, hidden), set()),
        (lambda: nn.RNN(3, 7, batch_first=True), set()),
        (nn.GRU(5, 8, bidirectional=True, batch_first=True), {"causal", "step_by_step", "chunks"}),
        (WritesInput(5, 8), {"input_unchanged"}),
        (DropsState, {"step_by_step", "chunks"}),
        (CentresBatch, {"rows_independent"}),
    ],
)
def test_a_report_names_what_fails(layer, failing):
    failed = {r.name for r in check(layer) if not r.ok}
    assert failed >= failing
    assert bool(failed) == bool(failing)


def test_a_failure_that_is_expected_is_no_failure_and_one_that_passes_is():
    results = check(HasSpare, expected_failures={"every_parameter_learns": "kept for later"})
    assert all(r.ok for r in results)
    results = check(Sound, expected_failures={"causal": "it was once"})
    (bad,) = [r for r in results if not r.ok]
    assert (bad.name, bad.passed) == ("causal", True)
    assert "was expected to fail (it was once)" in bad.seen
    with pytest.raises(SettingError, match=r"there is no check 'casual' to fail; name one of"):
        check(Sound, expected_failures={"casual": "a slip"})


def test_what_cannot_be_called_as_a_core_is_refused_in_one_sentence():
    with pytest.raises(CoreError, match=r"takes whole numbers"):
        check(nn.Embedding(5, 8))
    with pytest.raises(CoreError, match=r"wants 3 arguments"):
        check(lambda a, b, c: nn.GRU(a, b, c))
