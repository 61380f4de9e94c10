"""One training on several processes: each takes its rows of every batch, all make the same step.

    torchrun --nproc-per-node 2 -m echospan train variable

The processes draw the same whole batch and read their own rows, so that what is trained does not
depend on how many there are; DistributedDataParallel averages the gradients. Process 0 holds the
clock, the files and the last word on every figure.
"""

import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from echospan.devices import find_device
from echospan.errors import EngineError, SettingError, by_caller, option

T = TypeVar("T")

SILENCE = 25.0
"""Seconds after which a process that is not heard of counts as lost."""


@dataclass(frozen=True)
class Group:
    """The processes of one training, this one among them; alone where nothing else is said."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """Number of this process on its machine."""

    @property
    def first(self) -> bool:
        """Whether this is the process that looks at the clock, prints and writes."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of that name for this process: `cuda` is one for each.

        Raises SettingError for a device that all of them would share.
        """
        if self.size == 1 or name == "cpu":
            return name
        if name != "cuda":
            raise SettingError(
                f"{option('device')} is {name}, one for {self.size} processes", "use cpu or cuda"
            )
        return f"cuda:{self.local}"

    def rows(self, batch: int) -> slice:
        """The rows of a batch that this process reads.

        Raises SettingError where the batch cannot be shared out evenly.
        """
        if batch % self.size:
            raise SettingError(
                f"{option('batch')} is {batch}, which {self.size} processes cannot share evenly",
                f"use a multiple of {self.size}",
            )
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def spread(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module, with gradients that are the mean of all processes'."""
        if self.size == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        with self.heard():
            return DistributedDataParallel(
                module,
                device_ids=[device.index] if device.type == "cuda" else None,
                gradient_as_bucket_view=True,
            )

    def mean(self, value: float, device: torch.device) -> float:
        """The mean of all processes' values, the same in each of them."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.double, device=device)
        with self.heard():
            dist.all_reduce(total)
        return float(total) / self.size

    def agreed(
        self, left: float, stop: bool, due: bool, device: torch.device
    ) -> tuple[float, bool, bool]:
        """What process 0's clock says is left and due; stop where any of them was told to."""
        if self.size == 1:
            return left, stop, due
        told = torch.tensor(
            [left if self.first else 0.0, float(stop), float(due and self.first)],
            dtype=torch.double,
            device=device,
        )
        with self.heard():
            dist.all_reduce(told)
        left, stops, dues = told.tolist()
        return left, stops > 0, dues > 0

    def told(self, value: T) -> T:
        """Process 0's value, in every process."""
        if self.size == 1:
            return value
        box = [value]
        with self.heard():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def all(self, value: T) -> list[T]:
        """Every process's value, in the order of their ranks."""
        if self.size == 1:
            return [value]
        boxes: list[Any] = [None] * self.size
        with self.heard():
            dist.all_gather_object(boxes, value)
        return boxes

    def whole(self, part: Tensor, rows: int) -> Tensor:
        """All processes' rows of a tensor, in order; `rows` is the dimension that counts them."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        with self.heard():
            dist.all_gather(parts, part.contiguous())
        return torch.cat(parts, rows)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """EngineError where another process does not answer any more."""
        try:
            yield
        except RuntimeError as e:
            if self.size == 1 or not _of_the_wire(e):
                raise
            said = str(e).rpartition("] ")[2].partition(". ")[0]
            raise EngineError(
                f"process {self.rank} of {self.size} lost another one of this training ({said})",
                "look above for what ended it, then go on from the last snapshot"
                + by_caller("", " with --resume"),
            ) from e


ALONE = Group()


def _of_the_wire(e: RuntimeError) -> bool:
    # gloo's errors are RuntimeErrors of no class of their own.
    return isinstance(e, dist.DistBackendError) or any(
        word in str(e).lower() for word in ("gloo", "nccl", "peer", "timed out")
    )


def told_by_torchrun() -> Group:
    """This process's place among those that torchrun began; alone without torchrun."""
    if not dist.is_torchelastic_launched():
        return ALONE
    return Group(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


@contextlib.contextmanager
def joined(device: str) -> Iterator[Group]:
    """The group that torchrun began this process in; alone without torchrun.

    `device` is the one asked for: gloo connects CPUs, nccl GPUs. Raises DeviceError where there are
    fewer GPUs than processes, EngineError where the others do not come.
    """
    group = told_by_torchrun()
    if group.size == 1:
        yield ALONE
        return
    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.set_device(find_device(group.device(device)))
    with group.heard():
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(seconds=SILENCE))
    yield group
    # Not where something went wrong: with a process lost it might wait for ever.
    with group.heard():
        dist.barrier()
    gc.collect()  # what was spread holds the connections in a circle
    dist.destroy_process_group()
