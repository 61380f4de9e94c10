"""Selective state space: step, input and output matrices made from the input (Mamba).

Gu and Dao 2023, arXiv:2312.00752, in plain PyTorch: short causal convolution, scan, gate.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.cores.conv import causal_conv
from echospan.validation import sizes


class _SelectiveScan(torch.autograd.Function):
    """`h_t = exp(Δ_t A) ⊙ h_{t−1} + B_t (Δ_t u_t)`, time first, one step's numbers in the cache.

    `delta, v = Δ u (time, batch, inner)`, `a (states, inner)`, `b (time, batch, states)`,
    `h0 (batch, states, inner)`. What is as large as all states of all steps is written once: `h`.
    """

    @staticmethod
    def forward(
        ctx: Any, delta: Tensor, v: Tensor, a: Tensor, b: Tensor, c: Tensor, h0: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`y_t = C_t h_t` of `(time, batch, inner)`, and the last `h`."""
        h = h0.new_empty(len(delta) + 1, *h0.shape)
        h[0] = h0
        h_t, decay = h.unbind(0), torch.empty_like(h0)
        rows = zip(
            delta.unsqueeze(2).unbind(0),
            v.unsqueeze(2).unbind(0),
            b.unsqueeze(3).unbind(0),
            h_t[:-1],
            h_t[1:],
            strict=True,
        )
        for delta_t, v_t, b_t, last, h_next in rows:
            torch.mul(delta_t, a, out=decay).exp_()
            torch.mul(b_t, v_t, out=h_next).addcmul_(decay, last)
        ctx.save_for_backward(delta, v, a, b, c, h)
        y = (c.unsqueeze(2) @ h[1:]).squeeze(2).to(h.dtype)
        return y, h[-1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor, ...]:
        """Gradients of all six inputs."""
        delta, v, a, b, c, h = ctx.saved_tensors
        grad_c = (h[1:] @ grad_y.unsqueeze(3)).squeeze(3)
        grad_delta, grad_v = torch.empty_like(delta), torch.empty_like(v)
        grad_a, grad_b = torch.zeros_like(h[0]), torch.empty_like(b)
        g, decay, through = grad_last.clone(), torch.empty_like(h[0]), torch.empty_like(h[0])
        views = [
            z.unbind(0)
            for z in (
                delta.unsqueeze(2),
                v.unsqueeze(3),
                b.unsqueeze(2),
                c.unsqueeze(3),
                grad_y.unsqueeze(2),
                h[:-1],
                grad_delta,
                grad_v.unsqueeze(2),
                grad_b.unsqueeze(3),
            )
        ]
        for delta_t, v_t, b_t, c_t, gy_t, last, gd_t, gv_t, gb_t in zip(
            *(reversed(z) for z in views), strict=True
        ):
            g.addcmul_(c_t, gy_t)  # ∂h_t
            torch.bmm(g, v_t, out=gb_t)
            torch.bmm(b_t, g, out=gv_t)
            torch.mul(delta_t, a, out=decay).exp_()
            g.mul_(decay)
            torch.mul(g, last, out=through)  # ∂(Δ_t A)
            grad_a.addcmul_(through, delta_t)
            torch.sum(through.mul_(a), 1, out=gd_t)
        return grad_delta, grad_v, grad_a.sum(0), grad_b, grad_c, g


class Mamba(nn.Module):
    """One Mamba block, without the normalisation and the residual path around it.

        u, z = W_in x;   u = SiLU(convolution of the last `width` u)
        Δ_low, B, C = W_x u;   Δ = softplus(W_Δ Δ_low + b_Δ)
        h_t = exp(Δ A) ⊙ h_{t−1} + Δ B u;   y = W_out ((C h + D ⊙ u) ⊙ SiLU(z))

    `expand · hidden_size` features of `states` numbers each; A begins at −1 … −states, Δ spread
    evenly in the logarithm from 0.001 to 0.1. The state holds `h (batch, states, features)` and
    the convolution's past `(batch, width − 1, features)`.
    """

    batch_dim = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        expand: int = 1,
        states: int = 16,
        width: int = 4,
    ) -> None:
        super().__init__()
        input_size, hidden_size = sizes(input_size, hidden_size)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.states, self.width = states, width
        inner = self.inner = expand * hidden_size
        self.rank = math.ceil(hidden_size / 16)
        self.project_in = nn.Linear(input_size, 2 * inner, bias=False)
        bound = width**-0.5
        self.kernel = nn.Parameter(torch.empty(width, inner).uniform_(-bound, bound))
        self.offset = nn.Parameter(torch.zeros(inner))
        self.project_x = nn.Linear(inner, self.rank + 2 * states, bias=False)
        self.project_step = nn.Linear(self.rank, inner)
        self.log_decay = nn.Parameter(
            torch.log(torch.arange(1.0, states + 1))[:, None].repeat(1, inner)
        )
        self.skip = nn.Parameter(torch.ones(inner))
        self.project_out = nn.Linear(inner, hidden_size, bias=False)
        step = torch.exp(torch.rand(inner) * math.log(100) + math.log(1e-3))
        nn.init.uniform_(self.project_step.weight, -(self.rank**-0.5), self.rank**-0.5)
        self.project_step.bias.data = torch.log(torch.expm1(step))  # softplus⁻¹

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`x (batch, time, input_size)` to `y (batch, time, hidden_size)` and the last state."""
        u, z = self.project_in(x).chunk(2, -1)  # (batch, time, inner)
        if state is None:
            past, h = None, u.new_zeros(len(x), self.states, self.inner)
        else:
            past, h = state["past"], state["h"]
        u, past = causal_conv(u, self.kernel.T, self.offset, past)
        u = F.silu(u.transpose(0, 1).contiguous())  # (time, batch, inner)
        step, b, c = self.project_x(u).split([self.rank, self.states, self.states], -1)
        delta = F.softplus(self.project_step(step))
        a = -self.log_decay.exp()
        # What is summed over many steps stays wide, whatever the products around it are made in.
        wide = (part.to(a.dtype) for part in (b, c, h))
        delta = delta.to(a.dtype)
        y, h = _SelectiveScan.apply(delta, delta * u, a, *wide)  # type: ignore[no-untyped-call]
        y = torch.addcmul(y, self.skip, u.to(y.dtype)).transpose(0, 1) * F.silu(z)
        return self.project_out(y), {"h": h, "past": past}
