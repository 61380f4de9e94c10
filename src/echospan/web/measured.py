"""What a run was measured to recall, for the page to show beside what it recalls now."""

import json
from pathlib import Path


def measured_recall(run: Path) -> list[float] | None:
    """Recall by delay as the run's evaluation has it, where it is there and can be read."""
    try:
        told = json.loads((run / "evaluation.json").read_bytes())
        return [float(d["recall"]) for d in told["delays"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
