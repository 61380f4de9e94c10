"""No two purposes share a random stream, whatever their seeds; one module makes them all."""

import ast
import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.random_streams import recorded, seen, shared_by_streams, windows
from hypothesis import example, given, settings
from hypothesis import strategies as st

import echospan
from echospan import random_streams
from echospan.cli import main
from echospan.errors import SettingError
from echospan.evaluation import evaluate, evaluate_span, length_recall, stream_errors
from echospan.generators import seeded
from echospan.probes import looks_into
from echospan.profiling import profile
from echospan.random_streams import (
    SEEDS,
    Purpose,
    check_seed,
    derived_bytes,
    generator,
    python_random,
    training_generator,
)
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.selftest import selftest
from echospan.tasks import EchoTask
from echospan.training import train

SOURCE = Path(echospan.__file__).parent
EVERY_SEED = st.integers(0, SEEDS - 1)
DERIVED = [p for p in Purpose if p is not Purpose.TRAINING]


def letters(purpose, seed, part=0, count=400):
    return torch.randint(1, 27, (1, count), generator=generator(purpose, seed, part))


@settings(deadline=None, max_examples=60)
@given(st.lists(EVERY_SEED, min_size=2, max_size=6, unique=True))
@example([0, 1, 2, 3, 11, 13, 17, 1_000_003])  # distances at which uses of one number can meet
@example([0, SEEDS - 1, 2**31, 2**31 - 1])
def test_no_two_purposes_share_a_window_for_any_pair_of_seeds(seeds):
    count, shared = shared_by_streams(seeds, 400)
    assert count == len(Purpose) * len(seeds) * (400 - 12)
    assert shared == 0


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(DERIVED), EVERY_SEED)
def test_the_parts_of_a_stream_are_streams_of_their_own(purpose, seed):
    drawn = [set(windows(letters(purpose, seed, part)).tolist()) for part in (0, 1, 2, 10)]
    assert sum(map(len, drawn)) == len(set.union(*drawn))


def test_a_stream_is_the_same_each_time_and_moves_nothing_of_the_callers():
    states = torch.get_rng_state(), random.getstate()
    for purpose in Purpose:
        assert torch.equal(letters(purpose, 7), letters(purpose, 7))
        with seeded(purpose, 7):
            torch.rand(3)
    assert python_random(Purpose.GRADER, 7).random() == python_random(Purpose.GRADER, 7).random()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_global_draws_are_those_of_the_stream():
    for purpose in Purpose:
        with seeded(purpose, 3, 2):
            inside = torch.rand(5)
        assert torch.equal(inside, torch.rand(5, generator=generator(purpose, 3, 2)))


def test_training_keeps_the_stream_of_pytorchs_own_seed():
    expected = torch.rand(9, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.rand(9, generator=generator(Purpose.TRAINING, 5)), expected)
    here = training_generator(5, torch.device("cpu"))
    assert torch.equal(torch.rand(9, generator=here), expected)


def test_seeds_end_where_pytorch_begins_to_call_two_of_them_one():
    for seed in (0, 1, 2**31):
        one, other = (torch.Generator().manual_seed(s) for s in (seed, seed + SEEDS))
        assert torch.equal(torch.rand(9, generator=one), torch.rand(9, generator=other))


@given(st.sampled_from(DERIVED), EVERY_SEED)
def test_a_derived_stream_is_that_of_mt19937_begun_at_the_derived_state(purpose, seed):
    # Another implementation, given the same 624 words: the layout of torch's state is private.
    other = np.random.MT19937()
    words = np.frombuffer(derived_bytes(purpose, seed, 0, 2496), dtype=np.uint32)
    other.state = {**other.state, "state": {"key": words, "pos": 624}}
    expected = (other.random_raw(1000) % 26 + 1).tolist()
    assert letters(purpose, seed, count=1000)[0].tolist() == expected


def test_the_words_of_a_state_lie_where_they_are_written():
    # The C++ standard names the 10,000th number of mt19937 begun at 5489: 4123659995.
    state = torch.Generator().manual_seed(5489).get_state()
    slots = state.view(torch.int64)[random_streams._FIRST_WORD :][: random_streams._WORDS]
    assert slots[0] == 5489
    other = np.random.MT19937()
    other.state = {
        **other.state,
        "state": {"key": slots.numpy().astype(np.uint32), "pos": 624},
    }
    assert other.random_raw(10_000)[-1] == 4123659995


# A seed


@pytest.mark.parametrize("seed", [0, 1, SEEDS - 1, np.int64(7), torch.tensor(7)])
def test_a_seed_is_a_whole_number_below_2_to_the_32nd(seed):
    assert check_seed(seed) == int(seed)
    assert type(check_seed(seed)) is int


NO_SEEDS = [-1, SEEDS, 2**63, -(2**63), 2**64, 10**40, 1.0, 0.5, True, "1", None, float("nan"), []]


@pytest.mark.parametrize("seed", NO_SEEDS, ids=str)
@pytest.mark.parametrize(
    "use",
    [
        lambda seed: check_seed(seed),
        lambda seed: generator(Purpose.RECALL, seed),
        lambda seed: python_random(Purpose.GRADER, seed),
        lambda seed: training_generator(seed, torch.device("cpu")),
        lambda seed: seeded(Purpose.LAYER, seed).__enter__(),
        lambda seed: TrainingConfig(seed=seed),
        lambda seed: evaluate(echospan.shipped("bits"), seed=seed),
        lambda seed: stream_errors(echospan.shipped("bits"), 10, seed=seed),
        lambda seed: length_recall(echospan.shipped("bits"), 10, seed=seed),
        lambda seed: evaluate_span(echospan.shipped("bits"), seed=seed),
        lambda seed: profile("gru", 2, seeds=[seed], symbols=1),
        lambda seed: echospan.Grid(cores=("gru",), seeds=(seed,)),
        lambda seed: echospan.Cell(core="gru", symbols=1, seed=seed),
        lambda seed: echospan.memory_capacity(torch.nn.GRU(1, 4, batch_first=True), seed=seed),
        lambda seed: selftest(seed),
    ],
)
def test_what_is_no_seed_is_refused_everywhere(use, seed):
    with pytest.raises(
        SettingError, match=r"seeds? is .*; use a whole number from 0 to 4294967295"
    ):
        use(seed)


@pytest.mark.parametrize("seed", [-1, SEEDS, 2**64, -(2**70)])
@pytest.mark.parametrize(
    "command",
    [
        "train fixed --out new --seed",
        "evaluate --model bits --seed",
        "selftest --seed",
        "profile gru --symbols 1 --seeds",
        "bench --cores gru --symbols 1 --store new --seeds",
    ],
)
def test_every_command_refuses_it_in_one_sentence(command, seed, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([*command.split(), str(seed)])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    flag = command.split()[-1]
    assert err == f"echospan: {flag} is {seed}; use a whole number from 0 to 4294967295\n"
    assert not list(tmp_path.iterdir())


# What a model is trained on, stopped by and measured on


SOME_SEEDS = (0, 1, 2, 3, 4, 11, 13, 17, 1_000_003, 1_000_004, SEEDS - 1)


def quick(seed):
    return Recipe(
        model=ModelConfig(max_delay=4, hidden=8),
        training=TrainingConfig(steps=40, batch=8, seed=seed),
    )


@pytest.fixture(scope="module")
def trained():
    """Every window that these seeds' trainings learn from or stop by, and one of the models."""
    read = []
    for seed in SOME_SEEDS:
        with recorded() as one:
            model = train(quick(seed)).model
        read += one
    return seen(read), model


@pytest.mark.parametrize("seed", SOME_SEEDS)
def test_no_model_is_measured_on_what_a_training_of_any_seed_has_read(trained, seed):
    before, model = trained
    reported = {}
    for name, measure in {
        "recall": lambda: evaluate(model, trials=3_000, seed=seed),
        "some delays": lambda: evaluate(model, trials=3_000, seed=seed, asked=[2], length=40),
        "span": lambda: evaluate_span(model, trials=7_000, seed=seed),
        "stream": lambda: stream_errors(model, 10_000, seed=seed),
        "lengths": lambda: length_recall(model, 12, trials=3_000, seed=seed),
    }.items():
        with recorded() as read:
            measure()
        reported[name] = seen(read)
        assert len(reported[name]) > 1_000
        assert not reported[name] & before, name
    del reported["some delays"]  # part of what recall at every delay is measured on
    for one, other in itertools.combinations(reported, 2):
        assert not reported[one] & reported[other], (one, other)


def test_a_training_stops_by_other_symbols_than_it_learns_from():
    with recorded(training=True) as learnt, recorded(training=False) as stopped:
        train(quick(1))
    assert len(seen(learnt)) > 1_000
    assert len(seen(stopped)) > 1_000
    assert not seen(learnt) & seen(stopped)


def test_the_commands_measure_what_was_not_trained_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = ["--max-delay", "4", "--hidden", "8", "--steps", "40", "--batch", "8"]
    with recorded() as read:
        train(quick(1))
    before = seen(read)
    with recorded() as read, pytest.raises(SystemExit):
        main(["train", "variable", "--out", "one", "--seed", "1", "--stream", "2000", *settings])
    again = seen(read)
    with recorded() as read, pytest.raises(SystemExit):
        main(["evaluate", "one", "--seed", "1", "--stream", "2000", "--trials", "2000", "--json"])
    measured = seen(read)
    assert before <= again  # what was trained on, and what was measured after it
    assert not before & measured
    assert measured & (again - before)  # the command measured on these symbols after its training
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["seed"] == 1


def test_a_probe_is_measured_on_what_it_was_not_fitted_on():
    model = echospan.EchoModel(ModelConfig(max_delay=2, hidden=8))
    task = EchoTask(26, 2)
    drawn = []
    for purpose in (Purpose.PROBE_FITTING, Purpose.PROBE_RECALL):
        with recorded() as read:
            looks = looks_into(model, task, generator(purpose, 0))
            for _ in range(20):
                next(looks)
        drawn.append(seen(read))
    assert not drawn[0] & drawn[1]


# Nothing else makes a stream

ELSEWHERE = {
    "random_streams.py": "makes them",
    "homework.py": "draws the assignment's data, which the caller's random.seed decides",
    "checks.py": "tries a module on fixed input; no figure comes of it",
    "cores/carrying.py": "tries a module on fixed input; no figure comes of it",
    "cores/probing.py": "tries a module on fixed input; no figure comes of it",
}
SEEDING = {"manual_seed", "manual_seed_all", "seed", "default_rng", "RandomState", "Random"}


def test_no_other_module_seeds_a_generator_or_adds_to_a_seed():
    found = set()
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and getattr(node.func, "attr", None) in SEEDING
            added = isinstance(node, ast.BinOp) and any(
                "seed" in (getattr(n, "id", None), getattr(n, "attr", None))
                for n in (node.left, node.right)
            )
            if called or added:
                found.add(str(path.relative_to(SOURCE)))
    assert found == set(ELSEWHERE)


def test_every_purpose_is_used_and_described():
    used = {
        node.attr
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "Purpose"
    }
    assert {p.name for p in Purpose} == used
    page = (Path(__file__).parents[1] / "docs/determinism.md").read_text()
    for purpose in Purpose:
        assert f"| {purpose.value} |" in page
