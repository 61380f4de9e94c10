"""A training that does not fit into the memory is refused before anything is built."""

import resource
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from echospan.cores import CORES
from echospan.errors import SettingError
from echospan.memory import (
    _group_limits,
    available_memory,
    check_training_memory,
    memory_checked,
    training_memory,
)
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.training import train


def recipe(**settings: int | str) -> Recipe:
    model = {k: v for k, v in settings.items() if k in ModelConfig.__dataclass_fields__}
    training = {k: v for k, v in settings.items() if k not in model}
    return Recipe(model=ModelConfig(**model), training=TrainingConfig(**training))


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden": 10**6},
        {"window": 10**9},
        {"batch": 10**9},
        {"batch": 2**62},
        {"max_delay": 5 * 10**8},
        {"max_delay": 10**5, "asked_at_once": 4},
        {"max_delay": 10**6, "conditioning": "input"},
        {"hidden": 10**12},
        *({"hidden": 10**9, "core": core} for core in ("lmu", "lru", "tcn", "attention")),
    ],
    ids=str,
)
def test_what_cannot_fit_is_refused_in_one_sentence(settings: dict[str, int | str]) -> None:
    with pytest.raises(
        SettingError, match=r"takes at least .* GB of memory, and .* GB are free; use a smaller"
    ) as refused:
        check_training_memory(recipe(**settings), available=64 * 10**9)
    assert isinstance(refused.value.__cause__, MemoryError)  # by which a bench knows it


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("conditioning", ["readout", "input"])
def test_what_fits_is_not_refused(core: str, conditioning: str) -> None:
    small = recipe(core=core, hidden=64, alphabet="ab", max_delay=8, conditioning=conditioning)
    check_training_memory(small, available=10_000_000)


def test_the_estimate_is_below_what_a_training_takes() -> None:
    """Counted by the allocator in a process of its own: a step, an evaluation, the optimiser."""
    code = """
        import resource
        from echospan.memory import training_memory
        from echospan.recipes import ModelConfig, Recipe, TrainingConfig
        from echospan.training import train
        recipe = Recipe(
            model=ModelConfig(hidden=1024, max_delay=24),
            training=TrainingConfig(steps=2, batch=512, window=80),
        )
        train(Recipe(training=TrainingConfig(steps=1)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        train(recipe)
        took = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(1024 * took, *training_memory(recipe))
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    ).stdout
    took, first, whole = map(int, out.split())
    assert first < whole < took < 4 * whole


def test_several_processes_share_the_rows() -> None:
    alone = list(training_memory(recipe(batch=1000)))
    shared = list(training_memory(recipe(batch=1000), processes=10))
    assert alone[0] / 10 < shared[0] < alone[0] / 4  # each draws the whole batch


def test_a_core_of_ones_own_counts_with_its_width() -> None:
    core = torch.nn.GRU(27, 2048, batch_first=True)
    first, whole = training_memory(recipe(hidden=8), core)
    assert whole - first > 4 * 4 * sum(p.numel() for p in core.parameters())


def test_nothing_is_drawn_for_an_estimate() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for core in CORES:
        list(training_memory(recipe(core=core, hidden=64, alphabet="ab")))
    assert torch.equal(torch.get_rng_state(), before)


def test_no_more_is_free_than_the_machine_and_ulimit_have() -> None:
    free = available_memory()
    assert free > 0
    code = "import echospan.memory as m; print(m.available_memory())"
    limit = 4 * 10**9
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    ).stdout
    assert 0 < int(out) < limit


def test_a_containers_limit_counts_without_what_is_only_cached(tmp_path: Path) -> None:
    def write(folder: Path, **files: object) -> None:
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(f"{text}\n")

    write(tmp_path / "a" / "b", memory__max="max", memory__current=5)
    write(
        tmp_path / "v1" / "memory" / "c",
        memory__limit_in_bytes=1000,
        memory__usage_in_bytes=700,
        memory__stat="cache 250\ntotal_inactive_file 200",
    )
    (tmp_path / "a" / "memory.max").write_text("900\n")
    (tmp_path / "a" / "memory.current").write_text("400\n")
    assert list(_group_limits("0::/a/b\n", tmp_path)) == [500]  # of the group above
    assert list(_group_limits("9:name=x:/\n4:cpu,memory:/c\n", tmp_path / "v1")) == [500]
    assert list(_group_limits("0::/none\n", tmp_path)) == []


def test_memory_that_runs_out_on_the_way_is_one_sentence_too() -> None:
    said = r"the memory ran out \(.*can't allocate memory"
    with pytest.raises(SettingError, match=said), memory_checked():
        torch.empty(2**55, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="another"), memory_checked():
        raise RuntimeError("another")


def test_a_training_checks_its_memory_before_it_begins() -> None:
    with pytest.raises(SettingError, match="of memory"):
        train(replace(Recipe(), training=TrainingConfig(window=10**12)))
