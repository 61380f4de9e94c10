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


class Norm(Sound):
    """Batch normalisation, over rows and steps."""

    def __init__(self, features, hidden):
        super().__init__(features, hidden)
        self.norm = nn.BatchNorm1d(features)

    def forward(self, x, state=None):
        return super().forward(self.norm(x.mT).mT, state)


class CentresTimeInTraining(Sound):
    def forward(self, x, state=None):
        return super().forward(x - x.mean(1, keepdim=True) if self.training else x, state)


class ScalesOnEval(Sound):
    def train(self, mode=True):
        if not mode:
            self.w.weight.data.mul_(0.9)
        return super().train(mode)


class CountsSwitches(Sound):
    def __init__(self, features, hidden):
        super().__init__(features, hidden)
        self.register_buffer("switches", torch.tensor(0))

    def train(self, mode=True):
        self.switches += 1
        return super().train(mode)


class CachesKernel(Sound):
    """Works out its decay once in eval(), and never again."""

    cached = None

    def forward(self, x, state=None):
        if self.training:
            return super().forward(x, state)
        if self.cached is None:
            self.cached = (self.w.weight.clone(), self.w.bias.clone(), self.keep.sigmoid())
        weight, bias, keep = self.cached
        h = x.new_zeros(x.shape[0], len(keep)) if state is None else state
        out = []
        for v in nn.functional.linear(x, weight, bias).unbind(1):
            h = keep * h + v
            out.append(h.tanh())
        return torch.stack(out, 1), h


class KeepsGraph(Sound):
    decay = None

    def forward(self, x, state=None):
        if self.decay is None or not self.decay.requires_grad:
            self.decay = self.keep.sigmoid()
        y, h = super().forward(x, state)
        return y * self.decay, h


class GrowsParameter(Sound):
    def forward(self, x, state=None):
        if self.training and not hasattr(self, "late"):
            self.late = nn.Parameter(torch.zeros(1))
        return super().forward(x, state)


class LoadsInto(Sound):
    """Computes with a second tensor that loading does not reach."""

    def __init__(self, features, hidden):
        super().__init__(features, hidden)
        self.second = [self.keep.detach().clone()]

    def forward(self, x, state=None):
        if self.training:
            self.second[0] = self.keep.detach().clone()
        y, h = super().forward(x, state)
        return y * self.second[0].to(x), h


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
    (checks.check_causal, CentresTimeInTraining, r"step 0 changed by .* changed in train\(\)"),
    (checks.check_rows_independent, Norm, r"when another row changed in train\(\)"),
    (checks.check_train_and_eval, ScalesOnEval, r"after train\(\) and eval\(\) the output differs"),
    (checks.check_train_and_eval, CountsSwitches, r"switches is another after train\(\)"),
    (checks.check_one_step, CachesKernel, r"two steps of training change no output"),
    (checks.check_one_step, KeepsGraph, r"the second training step raises RuntimeError"),
    (checks.check_one_step, GrowsParameter, r"state_dict does not load after two steps"),
    (checks.check_one_step, LoadsInto, r"loads the weights of two steps of training differs by"),
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


class DropsOut(Sound):
    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return nn.functional.dropout(y, 0.3, self.training), h


class SkipsByChance(Sound):
    """Stochastic depth, drawn from Python's generator."""

    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return y * (random.random() < 0.5) if self.training else y, h


class MovesInTraining(Sound):
    """Its scale follows the data in train(), as running statistics do."""

    def __init__(self, features, hidden):
        super().__init__(features, hidden)
        self.register_buffer("level", torch.ones(()))

    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        if self.training:
            self.level = 0.9 * self.level + 0.1 * x.detach().abs().mean()
        return y * (self.level if not self.training else 1), h


class InFloat32(Sound):
    """Computes in float32 whatever it is given, as many state space layers do."""

    def forward(self, x, state=None):
        names = ("w.weight", "w.bias", "keep")
        weight, bias, keep = (self.get_parameter(n).float() for n in names)
        h = torch.zeros(len(x), len(keep)) if state is None else state.float()
        out = []
        for v in nn.functional.linear(x.float(), weight, bias).unbind(1):
            h = keep.sigmoid() * h + v
            out.append(h.tanh())
        return torch.stack(out, 1).to(x.dtype), h.to(x.dtype)


class InFloat32Alone(InFloat32):
    """Refuses any other type."""

    def forward(self, x, state=None):
        if x.dtype != torch.float32:
            raise TypeError("float32 alone")
        return super().forward(x, state)


class Faint(InFloat32):
    """One of its parameters has little weight in what rounds as float32."""

    scale = 1e-5

    def __init__(self, features, hidden):
        super().__init__(features, hidden)
        self.faint = nn.Parameter(torch.zeros(hidden))

    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return (y.float() + self.scale * self.faint.float()).to(x.dtype), h


class Fainter(Faint):
    scale = 1e-9


class Coarse(Sound):
    """Rounds its output to bfloat16, in the forward pass and in the backward pass."""

    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return y.bfloat16().to(x.dtype), h


class Rotates(nn.Module):
    """A linear recurrence with complex eigenvalues and weights."""

    def __init__(self, features, hidden):
        super().__init__()
        self.w = nn.Parameter(0.3 * torch.randn(hidden, features, dtype=torch.cfloat))
        self.turn = nn.Parameter(torch.polar(torch.full((hidden,), 0.9), torch.rand(hidden)))

    def forward(self, x, state=None):
        h = x.new_zeros(len(x), 1) + 0j if state is None else torch.view_as_complex(state)
        out = []
        for v in (x.to(self.w.dtype) @ self.w.T).unbind(1):
            h = self.turn * h + v
            out.append(h.real)
        return torch.stack(out, 1), torch.view_as_real(h)


class Quiet(Sound):
    """Its output is tiny."""

    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return 1e-6 * y, h


class Kinked(Sound):
    def forward(self, x, state=None):
        y, h = super().forward(x, state)
        return y.relu(), h


class Frozen(Sound):
    def __init__(self, features, hidden):
        super().__init__(features, hidden)
        self.requires_grad_(False)


SOUND = [
    *(Sound, DropsOut, SkipsByChance, MovesInTraining, InFloat32, InFloat32Alone, Faint, Fainter),
    *(Coarse, Rotates, Quiet, Kinked),
]


@pytest.mark.parametrize("layer", SOUND)
@pytest.mark.parametrize("promise", CORE_CHECKS, ids=name_of)
def test_a_sound_module_passes(promise, layer):
    promise(layer)


class OffByOnePercent(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return h.clone()

    @staticmethod
    def backward(ctx, grad):
        return 1.01 * grad


def slightly_wrong(base):
    """That layer with a gradient that is 1 % too large."""

    class Wrong(base):
        def forward(self, x, state=None):
            y, h = super().forward(x, state)
            return OffByOnePercent.apply(y), h

    return Wrong


def cut_off(base):
    """That layer with one path of its gradient cut off."""

    class Cut(base):
        def forward(self, x, state=None):
            y, h = super().forward(x, state)
            return y + 0.1 * y.detach(), h

    return Cut


@pytest.mark.parametrize("base", [Sound, InFloat32, InFloat32Alone, Faint, Rotates, Quiet, Kinked])
@pytest.mark.parametrize("fault", [slightly_wrong, cut_off])
def test_a_gradient_that_is_slightly_wrong_is_found_whatever_the_layer_computes_in(base, fault):
    with pytest.raises(CheckError, match=r"the gradient of .* finite differences say"):
        checks.check_gradients(fault(base))


def test_a_wrong_gradient_of_a_parameter_of_little_weight_is_found():
    class Wrong(Faint):
        def forward(self, x, state=None):
            y, h = InFloat32.forward(self, x, state)
            faint = 0.5 * self.faint + 0.5 * self.faint.detach()
            return (y.float() + self.scale * faint.float()).to(x.dtype), h

    with pytest.raises(CheckError, match=r"the gradient of faint"):
        checks.check_gradients(Wrong)


def test_a_layer_without_anything_to_train_fails_no_check_of_training():
    results = {r.name: r for r in check(Frozen)}
    assert results["one_step"].ok
    assert results["gradients"].ok


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
    with pytest.raises(CoreError, match=r"requires a, b, c, which no width"):
        check(lambda a, b, c: nn.GRU(a, b, c))
