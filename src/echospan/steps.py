"""One step of a core in a form that a graph can hold: nothing in place, no complex numbers.

What depends on the weights alone is computed beforehand. Cores that are not named here are traced
as they stand: what they do in one step is plain already.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.cores import (
    GRU,
    LMU,
    LRU,
    S4D,
    DeltaNet,
    Mamba,
    MinGRU,
    MinLSTM,
    Reservoir,
    State,
)
from echospan.cores import reference as plain
from echospan.cores.lmu import legendre
from echospan.cores.rotary import turn

Step = Callable[[Tensor, Any], tuple[Tensor, State]]
"""`step(x (batch, 1, features), state) -> (y (batch, 1, hidden), state)`."""


def _gru(core: GRU) -> Step:
    return lambda x, h: nn.GRU.forward(core, x, h)  # which any length may go through


def _min_gru(core: MinGRU) -> Step:
    def step(x: Tensor, state: Tensor) -> tuple[Tensor, State]:
        last = []
        for projection, h in zip(core.projections, state.unbind(1), strict=True):
            assert isinstance(projection, nn.Linear)
            (w_z, w_h), (b_z, b_h) = projection.weight.chunk(2), projection.bias.chunk(2)
            x, h = plain.min_gru(x, h, w_z, b_z, w_h, b_h)
            last.append(h)
        return x, torch.stack(last, 1)

    return step


def _min_lstm(core: MinLSTM) -> Step:
    def step(x: Tensor, state: Tensor) -> tuple[Tensor, State]:
        x, last = x[:, 0], []
        for projection, h in zip(core.projections, state.unbind(1), strict=True):
            f, i, v = projection(x).chunk(3, -1)
            keep = torch.sigmoid(F.logsigmoid(f) - F.logsigmoid(i))
            x = keep * h + (1 - keep) * v
            last.append(x)
        return x[:, None], torch.stack(last, 1)

    return step


def _times(a: Tensor, x: Tensor) -> Tensor:
    """The product of complex `a (…)` and of `x (batch, …, 2)`, its parts side by side."""
    re, im = x[..., 0], x[..., 1]
    return torch.stack([a.real * re - a.imag * im, a.real * im + a.imag * re], -1)


def _lru(core: LRU) -> Step:
    eigenvalues = torch.polar(torch.exp(-core.log_decay.exp()), core.log_phase.exp())
    weight = core.weight * core.log_scale.exp().repeat_interleave(2)[:, None]

    def step(x: Tensor, state: Tensor) -> tuple[Tensor, State]:
        h = _times(eigenvalues, state) + F.linear(x[:, 0], weight).unflatten(-1, (-1, 2))
        return h.flatten(1)[:, None], h

    return step


def _s4d(core: S4D) -> Step:
    a = torch.complex(-core.log_decay.exp(), core.frequency)
    a_bar = torch.exp(a * core.log_step.exp()[:, None])
    b_bar = torch.view_as_real((a_bar - 1) / a)
    c = torch.view_as_real(2 * torch.view_as_complex(core.c).conj().resolve_conj())

    def step(x: Tensor, state: Tensor) -> tuple[Tensor, State]:
        u = core.project_in(x[:, 0])  # (batch, hidden)
        h = _times(a_bar, state) + u[..., None, None] * b_bar
        s = (c * h).sum((-2, -1)) + core.d * u
        return core.project_out(F.gelu(s))[:, None], h

    return step


def _mamba(core: Mamba) -> Step:
    def step(x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, State]:
        u, z = core.project_in(x).chunk(2, -1)
        u, past = plain.causal_conv(u, core.kernel.T, core.offset, state["past"])
        u = F.silu(u)
        low, b, c = core.project_x(u).split([core.rank, core.states, core.states], -1)
        delta = F.softplus(core.project_step(low))
        y, h = plain.selective_scan(u, delta, -core.log_decay.exp(), b, c, state["h"])
        return core.project_out((y + core.skip * u) * F.silu(z)), {"h": h, "past": past}

    return step


def _lmu(core: LMU) -> Step:
    a, b = (t.to(core.weight) for t in legendre(core.order, core.theta))

    def step(x: Tensor, state: Tensor) -> tuple[Tensor, State]:
        y, m = plain.lmu(x @ core.weight.T, state, a, b)
        return y.flatten(2), m

    return step


def _delta_net(core: DeltaNet) -> Step:
    def step(x: Tensor, state: Tensor) -> tuple[Tensor, State]:
        q, k, v = (
            part(x).unflatten(-1, (core.heads, -1)).transpose(1, 2)
            for part in (core.q, core.k, core.v)
        )  # (batch, heads, 1, size)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        rate = torch.sigmoid(core.rate(x)).transpose(1, 2)[..., None]
        s = turn(state.transpose(-1, -2), core.angles).transpose(-1, -2)
        s = s + k.transpose(-1, -2) @ (rate * (v - k @ s))
        return (q @ s).transpose(1, 2).flatten(2), s

    return step


def _reservoir(core: Reservoir) -> Step:
    return lambda x, h: plain.reservoir(x, h, core.w_in, core.w, core.leak)


_PLAIN: dict[type[nn.Module], Callable[[Any], Step]] = {
    GRU: _gru,
    MinGRU: _min_gru,
    MinLSTM: _min_lstm,
    LRU: _lru,
    S4D: _s4d,
    Mamba: _mamba,
    LMU: _lmu,
    DeltaNet: _delta_net,
    Reservoir: _reservoir,
}


def plain_step(core: nn.Module) -> Step:
    """The step of a core; the core itself where its own `forward` is plain enough."""
    make = _PLAIN.get(type(core))
    return core if make is None else make(core)
