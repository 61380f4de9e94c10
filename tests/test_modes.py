"""What a caller has set in PyTorch neither stops a public function nor is changed by it."""

import contextlib
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import echospan
from echospan.cores import CORES
from echospan.devices import standard_modes
from echospan.errors import DeviceError, EchospanError
from echospan.model import EchoModel
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.selftest import selftest
from echospan.training import check_steps

RECIPE = Recipe(model=ModelConfig(hidden=8, max_delay=1), training=TrainingConfig(steps=30))


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: default_device("meta"),  # any other than the CPU
}


def layer():
    torch.manual_seed(0)
    return nn.GRU(5, 8, batch_first=True, device="cpu")


def profiled(of, **settings):
    return echospan.profile(of, max_delay=1, alphabet="abcd", symbols=400, batch=8, **settings)


CALLS = {
    "profile": lambda: profiled(layer()).recalled_bits,
    "profile a core": lambda: profiled("lru", hidden=8).recalled_bits,
    "profile a class": lambda: profiled(nn.LSTM, hidden=8, learning_rates=[1e-2]).recalled_bits,
    "train": lambda: echospan.train(RECIPE).model.readouts.weight.double().sum().item(),
    "check": lambda: [r.name for r in echospan.check(layer()) if not r.ok],
    "check a class": lambda: [r.name for r in echospan.check(nn.LSTM) if not r.ok],
    "memory_capacity": lambda: (
        echospan.memory_capacity(nn.GRU(1, 8, device="cpu"), 5, steps=900).rank
    ),
    "evaluate": lambda: echospan.evaluate(echospan.shipped("fixed"), trials=500),
    "stream_errors": lambda: echospan.stream_errors(echospan.shipped("fixed"), 500),
    "echo": lambda: echospan.shipped("fixed").echo("abacaba", 3),
}
OF_THE_LAYERS_TYPE = {"profile", "profile a class", "memory_capacity"}
"""Layers that are made in the caller's default type are measured in it: other figures, as good."""


@pytest.fixture(scope="module")
def plain():
    return {name: call() for name, call in CALLS.items()}


def modes():
    """All that a caller may have set."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_rng_state().tolist(),
    )


SLOW = {"profile a core": ("float64",), "profile a class": ("meta",)}
"""Calls that are tried in the modes alone that concern how a layer is built."""


@pytest.mark.parametrize(
    ("mode", "name"), [(m, n) for m in MODES for n in CALLS if m in SLOW.get(n, MODES)]
)
def test_a_public_function_runs_in_any_mode_and_leaves_it_as_it_was(mode, name, plain):
    torch.manual_seed(0)
    with MODES[mode]():
        layer()
        before = modes()
        result = CALLS[name]()
        layer()  # which the random state is set by
        assert modes() == before
    if mode not in ("float64", "bfloat16") or name not in OF_THE_LAYERS_TYPE:
        assert result == plain[name]


def test_the_whole_self_test_passes_within_inference_mode_and_float64():
    with torch.inference_mode(), default_dtype(torch.float64):
        assert selftest().passed


def test_the_modes_return_after_an_error_too():
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        with contextlib.suppress(ZeroDivisionError), standard_modes():
            assert torch.is_grad_enabled()
            assert not torch.is_autocast_enabled("cpu")
            _ = 1 / 0
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_layer_of_another_type_than_the_default_is_profiled(dtype):
    assert profiled(layer().to(dtype), learning_rates=[1e-3]).hidden == 8


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_of_each_core_in_each_precision_is_tried_or_refused(core, precision):
    training = TrainingConfig(precision=precision)
    recipe = Recipe(model=ModelConfig(core=core, hidden=54, max_delay=1), training=training)
    torch.manual_seed(0)
    model = EchoModel(recipe.model).train()
    weights = {name: p.clone() for name, p in model.named_parameters()}
    random = torch.get_rng_state()
    with contextlib.suppress(DeviceError):  # on a processor without the instructions
        check_steps(model, recipe)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


def test_what_a_processor_cannot_do_in_bfloat16_is_refused_before_training(tmp_path):
    command = "train bits --core lstm --precision bf16 --steps 20 --stream 0 --out r"
    done = subprocess.run(
        [sys.executable, "-m", "echospan", *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"},
    )
    if done.returncode != 2:
        pytest.skip("oneDNN of this machine does not follow ONEDNN_MAX_CPU_ISA")
    assert done.stderr.count("\n") == 1
    assert "cannot train LSTM in bf16" in done.stderr
    assert done.stderr.rstrip().endswith("use --precision fp32")
    assert not (tmp_path / "r").exists()


class Aliased(nn.Module):
    """Two parameters of one storage, one of them a view of the other."""

    def __init__(self):
        super().__init__()
        self.g = nn.GRU(5, 8, batch_first=True)
        self.w = nn.Parameter(self.g.weight_hh_l0.data[:8])

    def forward(self, x, h=None):
        y, h = self.g(x, h)
        return y @ self.w, h


class Sparse(nn.Module):
    """Its table has sparse gradients, which Adam does not take."""

    def __init__(self):
        super().__init__()
        self.g = nn.GRU(5, 8, batch_first=True)
        self.table = nn.Embedding(4, 8, sparse=True)

    def forward(self, x, h=None):
        y, h = self.g(x, h)
        return y + self.table((x[..., 0] > 0).long()), h


class Expanded(nn.Module):
    """A parameter that is one number many times."""

    def __init__(self):
        super().__init__()
        self.g = nn.GRU(5, 8, batch_first=True)
        self.w = nn.Parameter(torch.ones(1).expand(8))

    def forward(self, x, h=None):
        y, h = self.g(x, h)
        return y * self.w, h


@pytest.mark.parametrize("made", [Aliased, Sparse, Expanded])
def test_parameters_that_the_optimiser_may_not_take_are_trained_or_refused_at_once(made):
    steps = []
    refused = pytest.raises(EchospanError, match="Sparse cannot be trained")
    with refused if made is Sparse else contextlib.nullcontext():
        profiled(made(), on_progress=lambda name, progress: steps.append(progress))
    assert bool(steps) == (made is not Sparse)
