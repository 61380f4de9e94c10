"""Rotary positions: queries and keys turned by an angle a step (Su et al. 2021, arXiv:2104.09864).

A product of two turned vectors knows only how far apart they are, so positions may be counted from
anywhere: a stream of any length counts them anew in each call.
"""

import torch
from torch import Tensor


def turn(x: Tensor, angle: Tensor) -> Tensor:
    """`x (…, size)`, its halves taken as real and imaginary parts, turned by `angle (…, size/2)`.

    a ← a cos − b sin        b ← b cos + a sin
    """
    cos, sin = torch.cos(angle), torch.sin(angle)
    swapped = x.roll(x.shape[-1] // 2, -1)
    return torch.addcmul(x * torch.cat([cos, cos], -1), swapped, torch.cat([-sin, sin], -1))
