"""Where and with what a model or a figure was made: versions, threads, processes, machine."""

import platform
import re
from pathlib import Path

import torch

from echospan.evaluation import versions
from echospan.recipes import Part


def machine(device: torch.device) -> str:
    """Return what computes: a graphics card, or a processor and its vector instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    named = re.search(r"^model name\s*: (.+)$", info, re.M)
    name = named[1] if named else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def here(device: torch.device, processes: int = 1, steps: int = 0) -> Part:
    """Return the present place of a training.

    Args:
        device: What it runs on.
        processes: How many processes train together.
        steps: The step that was reached.
    """
    return Part(
        steps=steps,
        versions={name: str(version) for name, version in versions().items()},
        threads=torch.get_num_threads(),
        processes=processes,
        machine=machine(device),
    )
