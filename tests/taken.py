"""Snapshots of one small training, one for each of its steps, for tests of files."""

import functools

from echospan.checkpoint import Snapshot
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.training import train

SMALL = Recipe(
    model=ModelConfig(alphabet="abc", max_delay=2, hidden=4),
    training=TrainingConfig(steps=22, batch=2),
)


@functools.cache
def all_snapshots(recipe: Recipe = SMALL) -> tuple[Snapshot, ...]:
    snapshots: list[Snapshot] = []
    train(recipe, on_snapshot=snapshots.append, snapshot_seconds=0)
    return tuple(snapshots)


def snapshot(step: int) -> Snapshot:
    """Return the snapshot after a step, from 1 on; the last ones have a history."""
    return all_snapshots()[step - 1]
