"""Gated recurrent unit with a hand-written backward (Cho et al. 2014; weights of torch.nn.GRU).

Run backwards, the recurrence is linear in the gradient, so all that does not depend on the
gradient is computed for every step at once; three tensor operations a step remain.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Layer(torch.autograd.Function):
    """One layer, time first: `gates (time, batch, 3·hidden)` are the projected inputs."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, h0: Tensor, w_hh: Tensor, b_hn: Tensor) -> Tensor:
        """Hidden states `(time, batch, hidden)`."""
        time, batch, three_hidden = gates.shape
        hidden = three_hidden // 3
        h = gates.new_empty(time + 1, batch, hidden)
        h[0] = h0
        rz = gates[..., : 2 * hidden].clone(memory_format=torch.contiguous_format)
        un = gates.new_empty(time, batch, hidden)  # U_n h + c_n
        n = torch.empty_like(un)
        w_rz, w_n = w_hh[: 2 * hidden].T, w_hh[2 * hidden :].T
        # Views are taken for all steps at once: one by one they cost as much as the arithmetic.
        views = zip(
            h[:-1].unbind(0),
            h[1:].unbind(0),
            rz.unbind(0),
            rz[..., :hidden].unbind(0),
            rz[..., hidden:].unbind(0),
            gates[..., 2 * hidden :].unbind(0),
            un.unbind(0),
            n.unbind(0),
            strict=True,
        )
        for h_last, h_next, rz_t, r_t, z_t, xn_t, un_t, n_t in views:
            rz_t.addmm_(h_last, w_rz).sigmoid_()
            torch.addmm(b_hn, h_last, w_n, out=un_t)
            torch.addcmul(xn_t, r_t, un_t, out=n_t).tanh_()
            torch.lerp(n_t, h_last, z_t, out=h_next)
        ctx.save_for_backward(h, rz, un, n, w_hh)
        return h[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of all four inputs."""
        h, rz, un, n, w_hh = ctx.saved_tensors
        time, batch, hidden = n.shape
        r, z = rz[..., :hidden], rz[..., hidden:]
        # d is first ∂(what each gate adds up)/∂h_t and, times the gradient of h_t, the gradient.
        d = n.new_empty(time, batch, 3, hidden)
        through_n = (1 - z) * (1 - n * n)  # ∂h_t / ∂(n before tanh)
        torch.mul(through_n, r, out=d[:, :, 2])
        torch.mul(d[:, :, 2], un, out=d[:, :, 0]).mul_(1 - r)
        torch.sub(h[:-1], n, out=d[:, :, 1]).mul_(z).mul_(1 - z)
        grad_h = torch.empty_like(n)
        grad_h[-1] = grad_y[-1]
        d_t, flat_t = d.unbind(0), d.view(time, batch, 3 * hidden).unbind(0)
        gh_t, gh_gate_t, z_t, gy_t = (
            grad_h.unbind(0),
            grad_h.unsqueeze(2).unbind(0),
            z.unbind(0),
            grad_y.unbind(0),
        )
        for t in range(time - 1, 0, -1):
            d_t[t].mul_(gh_gate_t[t])
            torch.addcmul(gy_t[t - 1], gh_t[t], z_t[t], out=gh_t[t - 1]).addmm_(flat_t[t], w_hh)
        d_t[0].mul_(gh_gate_t[0])
        grad_h0 = torch.addmm(gh_t[0] * z_t[0], flat_t[0], w_hh)
        flat = d.view(time * batch, 3 * hidden)
        grad_w = flat.T @ h[:-1].reshape(time * batch, hidden)
        grad_b_hn = flat[:, 2 * hidden :].sum(0)
        # The third slot was the gradient of U_n h + c_n; the projected input enters past the reset.
        torch.mul(through_n, grad_h, out=d[:, :, 2])
        return flat.view(time, batch, 3 * hidden), grad_h0, grad_w, grad_b_hn


class GRU(nn.GRU):
    """`torch.nn.GRU` with a faster CPU path: same arguments, weights, results and state_dict.

    Bidirectional layers, dropout, unbatched or packed input, and every device but the CPU go the
    way of `torch.nn.GRU` (cuDNN on a GPU). First derivatives only.
    """

    batch_dim = 1

    def forward(  # type: ignore[override]
        self, input: Tensor, hx: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`(batch, time, features)` if batch_first, else `(time, batch, features)`."""
        if not isinstance(input, Tensor) or not self._fast(input):
            return super().forward(input, hx)
        self.check_input(input, None)
        if hx is not None:
            self.check_hidden_size(hx, self.get_expected_hidden_size(input, None))
        gates = self.project(input.transpose(0, 1) if self.batch_first else input)
        y, state = self.forward_projected(gates, hx)
        return (y.transpose(0, 1) if self.batch_first else y), state

    def _fast(self, input: Tensor) -> bool:
        return (
            input.device.type == "cpu"
            and input.dim() == 3
            and input.numel() > 0
            and not self.bidirectional
            and (self.dropout == 0 or not self.training)
            and not torch.is_autocast_enabled("cpu")
        )

    def project(self, x: Tensor, layer: int = 0) -> Tensor:
        """Input to one layer's gates: `(…, features) -> (…, 3·hidden)`; linear, so a table will do.

        The recurrent biases of the reset and update gates are added here, once for all steps.
        """
        w, b = getattr(self, f"weight_ih_l{layer}"), None
        if self.bias:
            hidden = self.hidden_size
            b_hh = getattr(self, f"bias_hh_l{layer}")
            b = getattr(self, f"bias_ih_l{layer}") + F.pad(b_hh[: 2 * hidden], (0, hidden))
        return F.linear(x, w, b)

    def forward_projected(self, gates: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """From projected inputs `(time, batch, 3·hidden)` to `(time, batch, hidden)` and state."""
        if hx is None:
            hx = gates.new_zeros(self.num_layers, gates.shape[1], self.hidden_size)
        last, y = [], gates
        for layer in range(self.num_layers):
            if layer:
                gates = self.project(y, layer)
            w_hh = getattr(self, f"weight_hh_l{layer}")
            if self.bias:
                b_hn = getattr(self, f"bias_hh_l{layer}")[2 * self.hidden_size :]
            else:
                b_hn = gates.new_zeros(self.hidden_size)
            y = _Layer.apply(gates, hx[layer], w_hh, b_hn)  # type: ignore[no-untyped-call]
            last.append(y[-1])
        return y, torch.stack(last)


def open_memory(core: nn.GRU | nn.RNN) -> nn.GRU | nn.RNN:
    """Let a GRU or RNN begin as a memory: what training improves is already there.

    An orthogonal recurrence keeps what it has read; an update gate nearly open (bias −3) and small
    inputs (std 0.2) keep it near-linear at first. It halved the steps to the target.
    """
    for name, p in core.named_parameters():
        if "weight_hh" in name:
            for block in p.data.split(p.shape[1]):
                nn.init.orthogonal_(block)
        elif "bias" in name:
            nn.init.zeros_(p)
        elif "weight_ih_l0" in name:
            nn.init.normal_(p, std=0.2)
    if isinstance(core, nn.GRU):
        for layer in range(core.num_layers):
            bias = getattr(core, f"bias_ih_l{layer}")
            bias.data[core.hidden_size : 2 * core.hidden_size] = -3.0
    return core
