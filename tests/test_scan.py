"""The scan is its loop, forwards and backwards."""

import pytest
import torch

from echospan.cores import reference
from echospan.cores.scan import scan

SIZES = [(1, 1, 1), (2, 63, 5), (3, 17, 64)]


def draw(*shape, dtype=torch.double):
    return torch.randn(*shape, dtype=dtype) * 0.7


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("a_shape", ["a step", "all steps", "a step, all rows"])
@pytest.mark.parametrize("dtype", [torch.double, torch.cdouble])
@pytest.mark.parametrize("with_state", [True, False])
def test_every_state_and_every_gradient_is_that_of_the_plain_loop(size, a_shape, dtype, with_state):
    batch, time, hidden = size
    shape = {
        "a step": (time, batch, hidden),
        "all steps": (hidden,),
        "a step, all rows": (time, 1, hidden),
    }[a_shape]
    a, b, x0 = draw(*shape, dtype=dtype), draw(time, batch, hidden, dtype=dtype), None
    zeros = torch.zeros(batch, hidden, dtype=dtype)
    if with_state:
        x0 = draw(batch, hidden, dtype=dtype)
    weight = draw(time, batch, hidden, dtype=dtype)
    results = []
    for f in (scan, reference.scan):
        inputs = [z.clone().requires_grad_() for z in (a, b, zeros if x0 is None else x0)]
        x = f(inputs[0], inputs[1], *([] if x0 is None and f is scan else inputs[2:]))
        loss = (x * weight).abs().square().sum()
        asked = inputs if with_state else inputs[:2]
        results.append([x, *torch.autograd.grad(loss, asked)])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("a_shape", [(4, 2, 3), (3,)])
@pytest.mark.parametrize("dtype", [torch.double, torch.cdouble])
def test_gradients_agree_with_finite_differences(a_shape, dtype):
    inputs = [draw(*s, dtype=dtype).requires_grad_() for s in (a_shape, (4, 2, 3), (2, 3))]
    assert torch.autograd.gradcheck(scan, inputs)


def test_what_is_read_and_what_is_given_stay_as_they_are():
    a, b, x0 = draw(5, 2, 3), draw(5, 2, 3), draw(2, 3)
    before = [z.clone() for z in (a, b, x0)]
    scan(a, b, x0)
    for now, was in zip((a, b, x0), before, strict=True):
        assert torch.equal(now, was)
