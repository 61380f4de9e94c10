"""What torchrun begins for test_parallel.py: a few steps of every core, and what they led to.

torchrun --nproc-per-node 2 tests/trained_together.py OUT
"""

import sys
from pathlib import Path
from typing import Any, Literal

import torch

from echospan.checkpoint import Snapshot, write_snapshot
from echospan.cores import CORES
from echospan.parallel import ALONE, Group, joined
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.training import TrainingResult, train

STEPS = 4
Conditioning = Literal["readout", "input"]
CASES: list[tuple[str, Conditioning]] = [
    *((core, "readout") for core in CORES),
    ("gru", "input"),
    ("lru", "input"),
]


def a_few_steps(
    core: str, conditioning: Conditioning, group: Group = ALONE, **more: Any
) -> TrainingResult:
    recipe = Recipe(
        model=ModelConfig(
            alphabet="bits", core=core, hidden=16, max_delay=3, conditioning=conditioning
        ),
        training=TrainingConfig(steps=STEPS, batch=8, carry=0.8, asked_at_once=3),
    )
    return train(recipe, group=group, **more)


if __name__ == "__main__":
    with joined("cpu") as group:
        for core, conditioning in CASES:
            result = a_few_steps(core, conditioning, group)
            weights = result.model.state_dict() | {"loss": torch.tensor(result.history[-1].loss)}
            every = group.all(weights)
            assert all(torch.equal(every[0][k], other[k]) for other in every for k in weights)
            if group.first:
                torch.save(weights, Path(sys.argv[1]) / f"{core}.{conditioning}.pt")
        for core in ("gru", "attention"):
            kept: list[Snapshot] = []
            whole = a_few_steps(core, "readout", group, on_snapshot=kept.append, snapshot_seconds=0)
            halfway = group.told(kept[2] if group.first else None)
            again = a_few_steps(core, "readout", group, resume=halfway)
            ends = (whole.model.state_dict(), again.model.state_dict())
            assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])  # bit for bit
            if group.first:
                write_snapshot(Path(sys.argv[1]) / core, kept[2])
