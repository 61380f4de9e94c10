"""Where and how it runs: devices, and the modes of PyTorch that a caller may have set."""

import contextlib
from collections.abc import Iterator

import torch

from echospan.errors import DeviceError


def find_device(name: str) -> torch.device:
    """Return the device of that name; DeviceError where this machine does not have it."""
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # one that only holds shapes, as meta, computes nothing
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError):
        there = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise DeviceError(
            f"there is no device {name!r} here", "use one of " + ", ".join(["cpu", *there])
        ) from None
    return torch.device("cpu") if device.type == "cpu" else device


@contextlib.contextmanager
def standard_modes(device: torch.device | str = "cpu") -> Iterator[None]:
    """Compute with gradients, outside inference mode and autocast, by default on `device`.

    A caller may be within `torch.no_grad()`, `inference_mode()` or `autocast()`, or have set a
    default device; afterwards all of these are as they were. The default dtype is left alone: a
    layer's own forward may rely on it.
    """
    device = torch.device(device)
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != device.type:
            stack.enter_context(device)  # a mode that costs time in each call: only where needed
        yield
