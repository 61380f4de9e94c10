"""Every core is its plain loop in reference.py, only faster."""

import pytest
import torch

from echospan.cores import reference
from echospan.cores.conv import _Taps, causal_conv

SIZES = [(1, 1, 1), (2, 63, 5), (3, 17, 64)]  # batch, time, channels


def doubles(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.double, requires_grad=True)


def assert_same(ours, theirs, inputs):
    """Two (y, *state) are equal, and so is every gradient of a loss that weighs them all."""
    results = []
    for outputs in (ours, theirs):
        weighed = [(o * torch.arange(o.numel()).view_as(o).cos()).sum() for o in outputs]
        results.append([*outputs, *torch.autograd.grad(sum(weighed), inputs)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize(("batch", "time", "channels"), SIZES)
def test_the_causal_convolution_is_its_plain_loop(batch, time, channels, taps):
    inputs = (
        doubles(batch, time, channels),
        doubles(channels, taps),
        doubles(channels),
        doubles(batch, taps - 1, channels),
    )
    assert_same(causal_conv(*inputs), reference.causal_conv(*inputs), inputs)


def test_the_causal_convolutions_gradients_agree_with_finite_differences():
    assert torch.autograd.gradcheck(_Taps.apply, (doubles(2, 5, 3), doubles(3, 2), doubles(3)))
