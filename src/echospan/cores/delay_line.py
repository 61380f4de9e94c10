"""Delay line: the last W inputs side by side, an exact memory of W − 1 steps and the step itself.

Nothing is learnt in it, so what a model on it recalls is known beforehand: everything below W,
nothing from W on. Linear, with the greatest memory capacity its size allows (Jaeger 2001).
"""

import torch
from torch import Tensor, nn

from echospan.errors import SettingError
from echospan.validation import sizes


class DelayLine(nn.Module):
    """`y_t = [x_t, x_{t−1}, …, x_{t−W+1}, 0 …]`, zeros before the first input.

    `window` W is as many inputs as fit into `hidden_size` where it is left out. State: the last
    W − 1 inputs, `(batch, W−1, input_size)`.
    """

    batch_dim = 0

    def __init__(self, input_size: int, hidden_size: int, *, window: int | None = None) -> None:
        super().__init__()
        input_size, hidden_size = sizes(input_size, hidden_size)
        fits = hidden_size // input_size
        self.input_size, self.hidden_size = input_size, hidden_size
        self.window = fits if window is None else window
        if window is not None and window < 1:
            raise SettingError(f"a delay line of {window} inputs holds nothing", "use 1 or more")
        if not 1 <= self.window <= fits:
            inputs = max(self.window, 1)
            raise SettingError(
                f"a delay line of {inputs} inputs of {input_size} numbers does not fit into "
                f"{hidden_size} units",
                f"use {inputs * input_size} units or more",
            )

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`(batch, time, input_size) -> (batch, time, hidden_size)` and the last W − 1 inputs."""
        batch, time, features = x.shape
        w = self.window
        if state is None:
            state = x.new_zeros(batch, w - 1, features)
        seen = torch.cat([state, x], 1)
        taps = [seen[:, w - 1 - d : w - 1 - d + time] for d in range(w)]
        unused = self.hidden_size - w * features
        if unused:
            taps.append(x.new_zeros(batch, time, unused))
        return torch.cat(taps, -1), seen[:, time:]
