"""What does a layer of your own remember? Run: python examples/your_layer.py"""

import torch

import echospan


class Leaky(torch.nn.Module):
    """A bank of leaky integrators: the old fades, each unit at a pace of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = torch.nn.Linear(width, width)
        self.pace = torch.nn.Parameter(torch.linspace(-2, 4, width))

    def forward(
        self, x: torch.Tensor, state: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`(batch, time, width)` to the same, and the state `(batch, width)`."""
        u, keep = self.read(x), torch.sigmoid(self.pace)
        h = torch.zeros_like(x[:, 0]) if state is None else state
        outputs = []
        for u_t in u.unbind(1):
            h = keep * h + (1 - keep) * u_t
            outputs.append(h)
        return torch.stack(outputs, 1), h


profile = echospan.profile(Leaky, max_delay=8, seconds=10)
print(profile)
profile.plot().savefig("leaky.svg")
