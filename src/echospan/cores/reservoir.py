"""Echo state network (Jaeger 2001): a random recurrence that is never trained; only what reads it.

Run backwards, the recurrence is linear in the gradient, so its slopes are computed at once.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.errors import SettingError
from echospan.validation import sizes


class _Recurrence(torch.autograd.Function):
    """`h_t = (1−a) h_{t−1} + a tanh(u_t + W h_{t−1})`, time first, W fixed."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, h0: Tensor, w: Tensor, leak: float) -> Tensor:
        """`u (time, batch, hidden)`, `h0 (batch, hidden)` -> `(time, batch, hidden)`."""
        h = torch.cat([h0.unsqueeze(0), u])
        n = h if leak == 1 else h.clone()  # n is tanh(…): the state itself without a leak
        for h_last, h_t, n_t in zip(
            h[:-1].unbind(0), h[1:].unbind(0), n[1:].unbind(0), strict=True
        ):
            n_t.addmm_(h_last, w.T).tanh_()
            if leak != 1:
                torch.lerp(h_last, n_t, leak, out=h_t)
        ctx.save_for_backward(n, w)
        ctx.leak = leak
        return h[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of the projected inputs and the first state; there are no others."""
        n, w = ctx.saved_tensors
        leak = ctx.leak
        slope = (1 - n[1:] * n[1:]).mul_(leak)
        grad_h = grad_y.clone(memory_format=torch.contiguous_format)
        grad_u = torch.empty_like(grad_h)
        gh, gu, slope_t = grad_h.unbind(0), grad_u.unbind(0), slope.unbind(0)
        for t in range(len(gh) - 1, -1, -1):
            torch.mul(gh[t], slope_t[t], out=gu[t])
            if t:
                gh[t - 1].addmm_(gu[t], w)
                if leak != 1:
                    gh[t - 1].add_(gh[t], alpha=1 - leak)
        return grad_u, torch.addmm(gh[0] * (1 - leak), gu[0], w), None, None


class Reservoir(nn.Module):
    """`h_t = (1−a) h_{t−1} + a tanh(W h_{t−1} + W_in x_t)`, all weights buffers; the output is h.

    W is a random orthogonal matrix times `spectral_radius`, so every eigenvalue has that modulus
    (White et al. 2004 study the memory of such networks); the inputs' weights are normal with
    standard deviation `input_scale`; `leak` is a. State `(batch, hidden)`.
    """

    batch_dim = 0
    w_in: Tensor
    w: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        spectral_radius: float = 0.99,
        input_scale: float = 0.1,
        leak: float = 1.0,
    ) -> None:
        super().__init__()
        input_size, hidden_size = sizes(input_size, hidden_size)
        if not 0 < leak <= 1:
            raise SettingError(f"the leak is {leak}", "use a share above 0, up to 1")
        self.input_size, self.hidden_size, self.leak = input_size, hidden_size, leak
        w = nn.init.orthogonal_(torch.empty(hidden_size, hidden_size)) * spectral_radius
        self.register_buffer("w_in", torch.randn(hidden_size, input_size) * input_scale)
        self.register_buffer("w", w)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`(batch, time, input_size) -> (batch, time, hidden_size)` and the last of them."""
        if state is None:
            state = x.new_zeros(len(x), self.hidden_size)
        u = F.linear(x.transpose(0, 1), self.w_in)
        h = _Recurrence.apply(u, state, self.w, self.leak)  # type: ignore[no-untyped-call]
        return h.transpose(0, 1), h[-1]
