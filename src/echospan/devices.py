"""Where it runs: cpu, cuda, cuda:1, …"""

import torch

from echospan.errors import DeviceError


def find_device(name: str) -> torch.device:
    """The device of that name; DeviceError where this machine does not have it."""
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # one that only holds shapes, as meta, computes nothing
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError):
        there = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise DeviceError(
            f"there is no device {name!r} here", "use one of " + ", ".join(["cpu", *there])
        ) from None
    return torch.device("cpu") if device.type == "cpu" else device
