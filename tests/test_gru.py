"""Our GRU is torch.nn.GRU, only faster."""

import pytest
import torch
from torch import nn

from echospan.cores import GRU
from echospan.cores.gru import _Layer
from echospan.cores.reference import gru as reference_gru


@pytest.mark.parametrize(("batch", "time", "hidden"), [(1, 1, 1), (2, 63, 5), (3, 17, 64)])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("with_state", [True, False])
def test_output_state_and_every_gradient_equal_torchs(
    batch, time, hidden, layers, bias, batch_first, with_state
):
    ours = GRU(7, hidden, layers, bias=bias, batch_first=batch_first, dtype=torch.double)
    theirs = nn.GRU(7, hidden, layers, bias=bias, batch_first=batch_first, dtype=torch.double)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    shape = (batch, time, 7) if batch_first else (time, batch, 7)
    x = torch.randn(shape, dtype=torch.double)
    h = torch.randn(layers, batch, hidden, dtype=torch.double)
    results = []
    for module in (ours, theirs):
        x_, h_ = x.clone().requires_grad_(), h.clone().requires_grad_()
        y, state = module(x_, h_) if with_state else module(x_)
        loss = (y * torch.arange(y.numel()).view_as(y).cos()).sum() + (state**2).sum()
        inputs = [x_, *module.parameters()] + ([h_] if with_state else [])
        results.append([y, state, *torch.autograd.grad(loss, inputs)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_the_fast_path_is_the_plain_loop():
    core = GRU(3, 5, batch_first=True, dtype=torch.double)
    x, h = torch.randn(2, 9, 3, dtype=torch.double), torch.randn(1, 2, 5, dtype=torch.double)
    y, state = core(x, h)
    weights = [p for _, p in core.named_parameters()]
    y_ref, h_ref = reference_gru(x, h[0], *weights)
    torch.testing.assert_close(y, y_ref)
    torch.testing.assert_close(state[0], h_ref)


def test_gradients_agree_with_finite_differences():
    gates = torch.randn(4, 2, 9, dtype=torch.double, requires_grad=True)
    h0 = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    w = torch.randn(9, 3, dtype=torch.double, requires_grad=True)
    b = torch.randn(3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(_Layer.apply, (gates, h0, w, b))


def test_what_the_fast_path_does_not_cover_goes_torchs_way():
    ours = GRU(3, 4, bidirectional=True, batch_first=True)
    theirs = nn.GRU(3, 4, bidirectional=True, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 3)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])
    unbatched = GRU(3, 4)
    assert unbatched(torch.randn(5, 3))[0].shape == (5, 4)
