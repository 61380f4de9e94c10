"""The scan `x_t = a_t ⊙ x_{t−1} + b_t` along time, real or complex, with a hand-written backward.

A plain loop, one fused multiply-add a step, and on purpose the only form: on two cores, at 20 to
144 steps of 32 x 256 numbers, it was 13 to 27 times as fast as a log-depth scan and, for an `a`
that is the same at every step, 9 to 16 times as fast as a convolution by FFT.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def _each_step(a: Tensor, x: Tensor) -> Sequence[Tensor]:
    """`a` of each step: its slices, or the same again and again."""
    return a.unbind(0) if a.dim() == x.dim() else [a] * len(x)


class _Scan(torch.autograd.Function):
    """The gradient of `x` obeys the same recurrence, from the last step to the first."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, x0: Tensor) -> Tensor:
        """All `x_t`."""
        x = b.new_empty(len(b) + 1, *b.shape[1:])
        x[0] = x0
        # Views are taken for all steps at once: one by one they cost as much as the arithmetic.
        x_t = x.unbind(0)
        for a_t, b_t, last, x_next in zip(
            _each_step(a, b), b.unbind(0), x_t[:-1], x_t[1:], strict=True
        ):
            torch.addcmul(b_t, a_t, last, out=x_next)
        ctx.save_for_backward(a, x)
        return x[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_x: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """`g_t = ∂x_t + conj(a_{t+1}) ⊙ g_{t+1}` is ∂b_t, `g_t ⊙ conj(x_{t−1})` is ∂a_t."""
        a, x = ctx.saved_tensors
        g = torch.empty_like(grad_x, memory_format=torch.contiguous_format)
        g[-1] = grad_x[-1]
        a_t, g_t = _each_step(a.conj().resolve_conj(), g), g.unbind(0)
        grad_t = grad_x.unbind(0)
        for t in range(len(g) - 1, 0, -1):
            torch.addcmul(grad_t[t - 1], a_t[t], g_t[t], out=g_t[t - 1])
        grad_a = None
        if ctx.needs_input_grad[0]:
            grad_a = (g * x[:-1].conj()).sum_to_size(a.shape)
        return grad_a, g, a_t[0] * g_t[0]


def scan(a: Tensor, b: Tensor, x0: Tensor | None = None) -> Tensor:
    """Every `x_t = a_t ⊙ x_{t−1} + b_t`, time first: `b (time, …)`, `x0 (…)` or None for zeros.

    `a (time, …)` for one a step, without the first dimension for the same at every step; its
    other dimensions broadcast to those of `b`. First derivatives only.
    """
    if x0 is None:
        x0 = b.new_zeros(b.shape[1:])
    return _Scan.apply(a, b, x0)  # type: ignore[no-untyped-call, no-any-return]
