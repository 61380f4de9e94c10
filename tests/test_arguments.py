"""Whatever a public function is given, it answers, or raises an EchospanError in one sentence."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import echospan
from echospan import (
    Alphabet,
    EchoModel,
    EchospanError,
    EchoTask,
    ModelConfig,
    Recipe,
    TrainingConfig,
    cores,
)
from echospan.capacity import capacity_of_states
from echospan.devices import find_device
from echospan.evaluation import evaluate_span, length_recall
from echospan.recipes import Made
from echospan.selftest import selftest

NOTHING = [None, True, [], {}, (), object(), int]
TEXTS = ["x", "", "\0", b"x"]
NUMBERS = [-1, 0, 2.5, math.nan, math.inf, -math.inf, 10**30, -(10**30)]
LISTS = [[1], [-1], [0.5], ["x"], [1, 1], [None]]
ODD = [torch.tensor(1.5), torch.tensor(True), np.array([1.5, 2]), 1 + 2j]
ANYTHING = [*NOTHING, *TEXTS, *NUMBERS, *LISTS, *ODD]
"""What no argument should be, most of the time."""

MODEL = echospan.shipped("bits")
SYMBOLS = torch.ones(1, 2).long()
NO_CORE = "none"
"""So that what is allowed is refused for the name of its core, rather than trained."""

RECIPE = Recipe(model=ModelConfig(hidden=4, max_delay=1), training=TrainingConfig(steps=1, batch=2))


@pytest.fixture(scope="module")
def layer_profile():
    return echospan.profile("gru", 1, hidden=4, symbols=1)


def module():
    return nn.GRU(1, 4, batch_first=True)


def called(function, **arguments):
    return function, arguments


CALLS = {
    "Alphabet": called(Alphabet, characters="ab"),
    "Alphabet.encode": called(Alphabet("ab").encode, text="a"),
    "Alphabet.decode": called(Alphabet("ab").decode, ids=[1]),
    "EchoModel": called(EchoModel, config=ModelConfig(hidden=4), core=module()),
    "EchoModel()": called(MODEL, symbols=SYMBOLS),
    "EchoModel.hidden": called(MODEL.hidden, symbols=SYMBOLS),
    "EchoModel.echo": called(MODEL.echo, text="0", delay=1, blank="."),
    "EchoModel.test_run": called(MODEL.test_run, s="0", delay=1),
    "EchoModel.check_delay": called(MODEL.check_delay, delay=1),
    "EchoModel.push_to_hub": called(MODEL.push_to_hub, repo="me"),
    "EchoModel.from_pretrained": called(EchoModel.from_pretrained, name="bits"),
    "EchoTask": called(EchoTask, symbols=3, max_delay=2),
    "EchoTask.empty_past": called(EchoTask().empty_past, rows=2, device="cpu"),
    "EchoTask.draw": called(EchoTask().draw, rows=2, time=3, generator=torch.Generator()),
    "EchoTask.targets": called(EchoTask().targets, symbols=SYMBOLS, past=None),
    "EchoTask.carry": called(EchoTask().carry, symbols=SYMBOLS, past=torch.ones(1, 8).long()),
    "EchoTask.batch": called(
        EchoTask().batch, rows=1, time=3, generator=torch.Generator(), past=None
    ),
    "Evaluation.span": called(echospan.evaluate(MODEL, trials=9).span, at=0.9),
    "Evaluation.reached": called(
        echospan.evaluate(MODEL, trials=9).reached, asked=(1,), target=0.9
    ),
    "Evaluation.at": called(echospan.evaluate(MODEL, trials=9).at, delay=1),
    "evaluate": called(echospan.evaluate, model=MODEL, trials=9, length=9, seed=1, asked=[1]),
    "evaluate_span": called(
        evaluate_span, model=MODEL, at=0.9, trials=9, seed=1, deadline=math.inf
    ),
    "length_recall": called(
        length_recall, model=MODEL, window=5, trials=9, seed=1, deadline=math.inf
    ),
    "stream_errors": called(echospan.stream_errors, model=MODEL, symbols=9, streams=2, seed=1),
    "ModelConfig": called(
        ModelConfig,
        alphabet="ab",
        core="gru",
        hidden=3,
        max_delay=2,
        delay=1,
        conditioning="readout",
    ),
    "TrainingConfig": called(TrainingConfig, **vars(TrainingConfig())),
    "Recipe": called(Recipe, model=ModelConfig(), training=TrainingConfig()),
    "train": called(
        echospan.train,
        recipe=RECIPE,
        core=None,
        deadline=math.inf,
        resume=None,
        snapshot_seconds=20.0,
    ),
    "as_core": called(echospan.as_core, module=module(), features=1, hidden=4, context=3),
    "make_core": called(cores.make_core, name="gru", features=4, hidden=8),
    "load": called(echospan.load, folder="nowhere"),
    "shipped": called(echospan.shipped, name="bits"),
    "results": called(echospan.results, store="nowhere"),
    "memory_capacity": called(
        echospan.memory_capacity,
        core=module(),
        max_lag=3,
        steps=300,
        rows=4,
        warm_up=5,
        amplitude=0.8,
        confidence=0.9,
        seed=1,
    ),
    "capacity_of_states": called(
        capacity_of_states,
        inputs=np.random.default_rng(0).uniform(size=500),
        states=np.random.default_rng(1).uniform(size=(500, 2)),
        max_lag=3,
        rows=4,
        warm_up=5,
        confidence=0.9,
    ),
    "profile": called(
        echospan.profile,
        layer=NO_CORE,
        max_delay=1,
        seconds=1.0,
        symbols=1,
        hidden=4,
        batch=2,
        features=27,
        seeds=(0,),
        learning_rates=(1e-2,),
        alphabet="ab",
        at=0.9,
        name="a",
        on_progress=None,
        on_model=None,
    ),
    "assert_span": called(
        echospan.assert_span, module_or_factory=NO_CORE, at_least=0, seconds=1.0, symbols=1
    ),
    "combine": called(echospan.combine, profiles=[]),
    "Profile.from_json": called(echospan.Profile.from_json, text=""),
    "find_device": called(find_device, name="cpu"),
    "selftest": called(selftest, seed=0, trials=9),
    **{
        f"CORES[{name!r}]": called(
            lambda input_size, hidden_size, make=make: make(input_size, hidden_size),
            input_size=4,
            hidden_size=8,
        )
        for name, make in echospan.CORES.items()
    },
}

ELSEWHERE = {
    "Cell": "test_grids.py",
    "Grid": "test_grids.py",
    "Stream": "test_model.py",
    "bench": "test_bench.py",
    "check": "test_checks.py",
    "EchospanError": "is what is raised",
    "RECIPES": "holds recipes",
}
"""Public names that have no row here, and where they are tried, or why not."""

FUNCTIONS_OF_YOURS = {"on_progress", "on_model", "core", "layer", "module_or_factory"}
"""A class or a function is one; what it raises when it is called is its own."""


def rows():
    for name, (function, arguments) in CALLS.items():
        for argument in arguments:
            yield pytest.param(function, arguments, argument, id=f"{name}-{argument}")


@pytest.mark.parametrize(("function", "arguments", "argument"), list(rows()))
@pytest.mark.filterwarnings("ignore")
def test_anything_is_answered_or_refused_in_one_sentence(
    function, arguments, argument, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused = []
    for value in ANYTHING:
        if value is int and argument in FUNCTIONS_OF_YOURS:
            continue
        try:
            function(**{**arguments, argument: value})
        except EchospanError as e:
            refused.append(e)
    assert len(refused) > len(ANYTHING) / 2
    assert all(e.fact and e.remedy and "\n" not in str(e) for e in refused)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: echospan.evaluate(MODEL, trials=0), "trials is 0; use a whole number of 1 or"),
        (lambda: echospan.evaluate(MODEL, trials=2.5), "trials is 2.5; use a whole number of 1"),
        (lambda: echospan.evaluate(MODEL, asked=()), "asked is empty; give one or more delays"),
        (lambda: echospan.evaluate(MODEL, asked=(7,)), "delay 7 is outside 0..3, the delays"),
        (lambda: echospan.evaluate(MODEL, asked=3), "asked is 3; give a list of delays"),
        (lambda: echospan.evaluate(MODEL, length=3), "length is 3; use a whole number of 4 or"),
        (lambda: echospan.evaluate(None), "model is None; give an echospan.EchoModel"),
        (lambda: echospan.stream_errors(MODEL, 0), "symbols is 0; use a whole number of 1 or"),
        (lambda: length_recall(MODEL, 0), "window is 0; use a whole number of 1 or more"),
        (lambda: evaluate_span(MODEL, trials=0), "trials is 0; use a whole number of 1 or more"),
        (lambda: MODEL.echo(None), "the text is None; give a str of '01'"),
        (lambda: MODEL.echo("0", 2.0), "delay is 2.0; use a whole number from 0 to 3"),
        (lambda: MODEL.echo("0", True), "delay is True; use a whole number from 0 to 3"),
        (lambda: echospan.load(None), "folder is None; give a path"),
        (lambda: echospan.load(""), "folder is ''; give a path"),
        (lambda: echospan.shipped(None), "no model None is shipped; use one of bits, fixed,"),
        (lambda: echospan.results(3), "store is 3; give a path"),
        (lambda: echospan.train("fixed"), "recipe is 'fixed'; give a Recipe, such as"),
        (lambda: ModelConfig(conditioning="both"), "conditioning is 'both'; use one of readout,"),
        (lambda: ModelConfig(hidden=True), "hidden is True; use a whole number of 1 or more"),
        (lambda: ModelConfig(alphabet="ab·"), "the alphabet 'ab·' has '·', which stands for a"),
        (lambda: TrainingConfig(precision="fp16"), "precision is 'fp16'; use one of fp32, bf16"),
        (lambda: TrainingConfig(steps=2.5), "steps is 2.5; use a whole number of 1 or more"),
        (lambda: TrainingConfig(target=math.nan), "target is nan; use a share between 0 and 1"),
        (lambda: TrainingConfig(target=-5), "target is -5; use a share between 0 and 1"),
        (lambda: TrainingConfig(target=0.9999999), "target is 0.9999999, which the 50,000 answers"),
        (lambda: find_device("meta"), "there is no device 'meta' here; use one of cpu"),
    ],
)
def test_what_was_wrong_and_what_is_allowed_stand_in_the_sentence(call, sentence):
    with pytest.raises(EchospanError) as refused:
        call()
    assert str(refused.value).startswith(sentence)


def test_settings_hold_plain_numbers_however_they_were_given():
    one = ModelConfig(hidden=np.int64(3), max_delay=torch.tensor(2), delay=np.int8(1))
    assert one == ModelConfig(hidden=3, max_delay=2, delay=1)
    assert {type(n) for n in (one.hidden, one.max_delay, one.delay)} == {int}
    two = TrainingConfig(target=np.float32(0.5), steps=np.int16(3), seconds=np.float64(2))
    assert two == TrainingConfig(target=0.5, steps=3, seconds=2.0)
    assert {type(n) for n in (two.target, two.seconds)} == {float}


def test_a_core_that_reads_time_first_or_has_no_width_is_refused():
    for core in (nn.GRU(27, 4), nn.ReLU(), nn.Linear(27, 4), 3):
        with pytest.raises(EchospanError):
            EchoModel(ModelConfig(hidden=4), core)


def test_every_public_name_has_a_row():
    named = {name.partition(".")[0].partition("[")[0].removesuffix("()") for name in CALLS}
    assert set(echospan.__all__) - named == set(ELSEWHERE)


def test_the_record_of_a_training_is_no_input():
    assert Made(training=TrainingConfig(), versions={}, threads=1).training == TrainingConfig()


def test_each_part_of_a_model_is_put_back_into_its_mode():
    layers = nn.Sequential(nn.Dropout(), nn.Dropout())

    class Core(nn.Module):
        input_size = hidden_size = 27
        batch_dim = 0

        def __init__(self):
            super().__init__()
            self.layers = layers

        def forward(self, x, state=None):
            assert not self.training
            assert not layers[0].training
            return self.layers(x), None

    model = EchoModel(ModelConfig(max_delay=1), Core()).train()
    layers[0].eval()
    for measure in (
        lambda: echospan.evaluate(model, trials=9),
        lambda: echospan.stream_errors(model, 9),
        lambda: model.echo("ab"),
    ):
        measure()
        assert model.training
        assert [part.training for part in layers] == [False, True]
