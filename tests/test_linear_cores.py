"""Each core that is linear in its state is its plain loop, whole or in pieces."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from echospan.cores import reference
from echospan.cores.lmu import CHUNK, LMU, legendre
from echospan.cores.lru import LRU
from echospan.cores.mamba import Mamba, _SelectiveScan
from echospan.cores.min_gru import MinGRU
from echospan.cores.min_lstm import MinLSTM
from echospan.cores.protocol import map_state, tensors
from echospan.cores.s4d import S4D
from echospan.errors import SettingError

SIZES = [(1, 1, 1), (2, 63, 5), (3, 17, 64), (2, 150, 6)]


def plain_layers(cell, parts, core, x, state):
    last = []
    for layer, p in enumerate(core.projections):
        weights = zip(p.weight.chunk(parts), p.bias.chunk(parts), strict=True)
        x, h = cell(x, state[:, layer], *(z for pair in weights for z in pair))
        last.append(h)
    return x, torch.stack(last, 1)


def plain_lru(core, x, state):
    b = torch.view_as_complex(core.weight.unflatten(0, (-1, 2)).transpose(1, 2).contiguous())
    y, last = reference.lru(
        x,
        torch.view_as_complex(state.contiguous()),
        core.log_decay,
        core.log_phase,
        core.log_scale,
        b,
    )
    return torch.view_as_real(y).flatten(-2), torch.view_as_real(last)


def plain_s4d(core, x, state):
    a = torch.complex(-core.log_decay.exp(), core.frequency)
    y, last = reference.s4d(
        core.project_in(x),
        torch.view_as_complex(state.contiguous()),
        core.log_step,
        a,
        torch.view_as_complex(core.c),
        core.d,
    )
    return core.project_out(F.gelu(y)), torch.view_as_real(last)


def plain_mamba(core, x, state):
    u, z = core.project_in(x).chunk(2, -1)
    past = torch.cat([state["past"], u], 1)[:, -(core.width - 1) :]
    u = F.silu(reference.causal_conv(u, core.kernel.T, core.offset, state["past"])[0])
    step, b, c = core.project_x(u).split([core.rank, core.states, core.states], -1)
    delta = F.softplus(core.project_step(step))
    y, h = reference.selective_scan(u, delta, -core.log_decay.exp(), b, c, state["h"])
    return core.project_out((y + core.skip * u) * F.silu(z)), {"h": h, "past": past}


def plain_lmu(core, x, state):
    a_bar, b_bar = (z.to(x.dtype) for z in legendre(core.order, core.theta))
    y, last = reference.lmu(x @ core.weight.T, state, a_bar, b_bar)
    return y.flatten(2), last


CORES = {
    "min_gru": (MinGRU, partial(plain_layers, reference.min_gru, 2)),
    "min_lstm": (MinLSTM, partial(plain_layers, reference.min_lstm, 3)),
    "lru": (lambda features, hidden: LRU(features, hidden + hidden % 2), plain_lru),
    "s4d": (partial(S4D, states=8), plain_s4d),
    "mamba": (partial(Mamba, states=4), plain_mamba),
    "mamba, twice as wide": (partial(Mamba, states=3, expand=2, width=3), plain_mamba),
    "lmu": (LMU, plain_lmu),
}
each_core = pytest.mark.parametrize("name", CORES)


def build(name, features=7, hidden=6):
    torch.manual_seed(0)
    return CORES[name][0](features, hidden).double()


@each_core
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("with_state", [True, False])
def test_output_state_and_every_gradient_are_those_of_the_plain_loop(name, size, with_state):
    batch, time, hidden = size
    core = build(name, hidden=hidden)
    x = torch.randn(batch, time, 7, dtype=torch.double)
    empty = map_state(torch.zeros_like, core(x)[1])
    state = map_state(torch.randn_like, empty) if with_state else empty
    results = []
    for run in (core, partial(CORES[name][1], core)):
        x_ = x.clone().requires_grad_()
        start = map_state(lambda z: z.clone().requires_grad_(), state)
        y, last = run(x_, None if run is core and not with_state else start)
        loss = (y * torch.arange(y.numel(), dtype=torch.double).view_as(y).cos()).sum()
        loss = loss + sum((z**2).sum() for z in tensors(last))
        inputs = [x_, *core.parameters(), *(tensors(start) if with_state else [])]
        results.append([y, *tensors(last), *torch.autograd.grad(loss, inputs)])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-9)


@each_core
def test_every_parameter_gets_a_gradient(name):
    core = build(name)
    core(torch.randn(2, 9, 7, dtype=torch.double))[0].square().sum().backward()
    for parameter in core.parameters():
        assert parameter.grad.abs().sum() > 0


@each_core
@pytest.mark.parametrize("pieces", [[1] * 9, [4, 5], [CHUNK + 3, 2 * CHUNK + 1]])
def test_a_stream_may_be_cut_anywhere(name, pieces):
    core = build(name)
    x = torch.randn(2, sum(pieces), 7, dtype=torch.double)
    whole, last = core(x)
    state, parts = None, []
    for piece in x.split(pieces, 1):
        y, state = core(piece, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    for now, then in zip(tensors(state), tensors(last), strict=True):
        torch.testing.assert_close(now, then)


@each_core
def test_a_row_whose_state_is_zero_starts_afresh_and_rows_do_not_meet(name):
    core = build(name)
    x = torch.randn(3, 5, 7, dtype=torch.double)
    keep = torch.tensor([1.0, 0.0, 1.0], dtype=torch.double)
    _, state = core(x)
    kept = map_state(lambda z: z * keep.view(-1, *[1] * (z.dim() - 1)), state)
    y, _ = core(x, kept)
    torch.testing.assert_close(y[1], core(x[1:2])[0][0])
    torch.testing.assert_close(y[2], core(x[2:], map_state(lambda z: z[2:], state))[0][0])


@each_core
def test_an_output_does_not_depend_on_what_comes_later(name):
    core = build(name)
    x = torch.randn(2, 9, 7, dtype=torch.double)
    later = x.clone()
    later[:, 5:] += 1
    torch.testing.assert_close(core(later)[0][:, :5], core(x)[0][:, :5])


@each_core
@torch.no_grad()
def test_ten_thousand_steps_stay_finite(name):
    torch.manual_seed(0)
    core = CORES[name][0](7, 6)
    y, state = core(torch.randn(1, 10_000, 7))
    assert y.dtype == torch.float32
    assert y.isfinite().all()
    assert all(z.isfinite().all() for z in tensors(state))


def test_gradients_of_the_selective_scan_agree_with_finite_differences():
    time, batch, inner, states = 4, 2, 3, 2
    shapes = [(time, batch, inner)] * 2 + [(states, inner)] + [(time, batch, states)] * 2
    inputs = [torch.randn(s, dtype=torch.double) for s in [*shapes, (batch, states, inner)]]
    inputs[0], inputs[2] = inputs[0].abs(), -inputs[2].abs()
    assert torch.autograd.gradcheck(_SelectiveScan.apply, [z.requires_grad_() for z in inputs])


def test_legendre_memories_hold_the_window():
    """A slow sine of one window ago is read by the polynomials at their end: P_i(1) = 1."""
    theta, order = 50, 8
    a_bar, b_bar = legendre(order, theta)
    u = torch.sin(torch.arange(300, dtype=torch.double) / 40)
    m, _ = reference.lmu(u.view(1, -1, 1), torch.zeros(1, order, 1).double(), a_bar, b_bar)
    read = m[0, 100:, :, 0].sum(1)
    torch.testing.assert_close(
        read, torch.sin((torch.arange(100, 300) - theta + 0.5) / 40).double(), atol=0.02, rtol=0
    )


def test_sizes_that_cannot_be_built_are_refused_with_the_remedy():
    for make in (partial(LRU, 3, 5), partial(LMU, 3, 6, order=4), partial(S4D, 3, 4, states=3)):
        with pytest.raises(SettingError, match="use an"):
            make()
