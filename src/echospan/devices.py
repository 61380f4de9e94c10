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
def standard_modes(device: torch.device | str = "cpu", *, gradients: bool = True) -> Iterator[None]:
    """Compute outside autocast, by default on `device`, with or without gradients.

    A caller may be within `torch.no_grad()`, `inference_mode()` or `autocast()`, or have set a
    default device; afterwards all of these are as they were. The default dtype is left alone: a
    layer's own forward may rely on it.

    Args:
        device: Where tensors are made that name no device.
        gradients: True also leaves inference mode, whose tensors can never have gradients.
    """
    device = torch.device(device)
    with contextlib.ExitStack() as stack:
        if gradients and torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(gradients))
        for kind in {"cpu", device.type} - {"meta"}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != device.type:
            stack.enter_context(device)  # a mode that costs time in each call: only where needed
        yield


@contextlib.contextmanager
def float32_by_default() -> Iterator[None]:
    """Make tensors in float32 unless another type is named; the caller's default returns after.

    For what is ours alone: figures do not depend on `torch.set_default_dtype`.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
