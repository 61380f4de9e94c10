"""Elman's recurrent network (Elman 1990), tanh or ReLU: torch.nn.RNN that begins as a memory."""

from typing import Literal

from torch import nn

from echospan.validation import sizes


class RNN(nn.RNN):
    """`torch.nn.RNN`, batch first, with the recurrence orthogonal and the input small at first.

    An orthogonal recurrence keeps what it has read (Le et al. 2015, arXiv:1504.00941, begin with
    the identity); small inputs keep it in the near-linear middle of tanh.
    """

    batch_dim = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
    ) -> None:
        input_size, hidden_size = sizes(input_size, hidden_size)
        super().__init__(
            input_size, hidden_size, num_layers, nonlinearity=nonlinearity, batch_first=True
        )

    def reset_parameters(self) -> None:
        """Orthogonal recurrences, inputs of standard deviation 0.2, no biases."""
        for name, p in self.named_parameters():
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(p)
            elif name.startswith("weight_ih_l0"):
                nn.init.normal_(p, std=0.2)
            elif name.startswith("weight_ih"):
                nn.init.orthogonal_(p)
            else:
                nn.init.zeros_(p)
