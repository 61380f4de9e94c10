"""The self-test passes on this instrument, and fails on one with a fault."""

import json
import math
from dataclasses import replace

import pytest
import torch

from echospan import selftest as module
from echospan.capacity import memory_capacity
from echospan.evaluation import evaluate, stream_errors
from echospan.selftest import Convolution, DelayLine, Forgetful, selftest
from echospan.tasks import EchoTask


@pytest.fixture(scope="module")
def result():
    return selftest()


def test_every_known_answer_is_within_its_error(result):
    assert result.passed, "\n".join(f"{a.name}: {a.measured}" for a in result.failed)
    assert result.failed == ()
    assert len(result.answers) > 35
    assert result.seconds < 30


def test_the_figures_are_the_same_for_the_same_seed(result):
    assert selftest() == result
    other = selftest(seed=1)
    assert other.passed
    assert other.answers != result.answers


def test_it_goes_to_json_with_the_verdict_of_each_answer(result):
    said = json.loads(json.dumps(result.as_dict()))
    assert said["passed"]
    assert said["answers"][0] == {
        "name": "oracle: span",
        "fact": "it holds 17, the newest is delay 0",
        "expected": 16,
        "measured": 16,
        "allowed": 0,
        "passed": True,
    }


def counts_blanks(model, *, trials, seed):
    """Asks a model for its blanks too, and takes them for recall."""
    good = evaluate(model, trials=trials, seed=seed)
    task = EchoTask(len(model.alphabet), model.max_delay)
    read, targets = task.batch(500, 40, torch.Generator().manual_seed(seed))
    right = (model(read)[0].argmax(-1) == targets).sum((0, 1)).tolist()
    delays = [replace(d, trials=500 * 40, correct=right[d.delay]) for d in good.delays]
    return replace(good, delays=tuple(delays))


def counts_from_one(model, *, trials, seed):
    """Calls the symbol just read delay 1, as POPGym does, and delay 0 what it is asked first."""
    good = evaluate(model, trials=trials, seed=seed)
    later = (replace(d, delay=d.delay + 1) for d in good.delays[:-1])
    return replace(good, delays=(good.delays[0], *later))


def in_nats(model, *, trials, seed):
    good = evaluate(model, trials=trials, seed=seed)
    return replace(good, delays=tuple(replace(d, gain=d.gain * math.log(2)) for d in good.delays))


def of_the_wrong_delay(self, symbols, past=None, real=EchoTask.targets):
    """Answers that are due a step later than the delay says."""
    return real(self, symbols.roll(1, 1), past)


def drops_the_state(model, symbols, *, seed):
    forward = model.forward
    model.forward = lambda symbols, state=None: forward(symbols)
    return stream_errors(model, symbols, seed=seed)


def counts_the_present(core, max_lag, **settings):
    """Adds lag 0 to the total."""
    c = memory_capacity(core, max_lag, **settings)
    return replace(c, total=c.total + c.values[0])


def keeps_the_floor(core, max_lag, **settings):
    """Reports squared correlations of 200 steps as they are: 1/200 at every lag for nothing."""
    c, floor = memory_capacity(core, max_lag, **settings), 1 / 200
    sums = {f: getattr(c, f) + max_lag * floor for f in ("total", "total_low", "total_high")}
    lags = {f: tuple(v + floor for v in getattr(c, f)) for f in ("values", "low", "high")}
    return replace(c, **sums, **lags)


@pytest.mark.parametrize(
    ("name", "fault", "seen_by"),
    [
        ("evaluate", counts_blanks, "delay line of 9: recall at delays 9..16"),
        ("evaluate", counts_from_one, "delay line of 9: span"),
        ("evaluate", in_nats, "forgetful: bits"),
        ("EchoTask.targets", of_the_wrong_delay, "oracle: recall at delays 0..16"),
        ("stream_errors", drops_the_state, "oracle: errors in a stream"),
        ("memory_capacity", counts_the_present, "ring of 20, weight 0.5: capacity"),
        ("memory_capacity", keeps_the_floor, "nonlinear net without memory: capacity"),
    ],
)
def test_a_planted_fault_is_seen(monkeypatch, name, fault, seen_by):
    if name == "EchoTask.targets":
        monkeypatch.setattr(EchoTask, "targets", fault)
    else:
        monkeypatch.setattr(module, name, fault)
    result = selftest()
    assert not result.passed
    assert seen_by in [a.name for a in result.failed]


@pytest.mark.parametrize(
    "make",
    [
        lambda: DelayLine(4, max_delay=6),
        lambda: Convolution(2, max_delay=9, letters="ab"),
        lambda: Convolution(3, max_delay=2),
        lambda: DelayLine(9, max_delay=2),
    ],
)
def test_the_known_models_answer_a_stream_in_pieces_as_a_whole(make):
    model = make()
    n = len(model.alphabet)
    read = torch.randint(1, n + 1, (3, 30), generator=torch.Generator().manual_seed(0))
    whole, last = model(read)
    assert whole.shape == (3, 30, model.max_delay + 1, n + 1)
    state, parts = None, []
    for piece in read.split([1, 7, 2, 20], 1):
        logits, state = model(piece, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    assert torch.equal(state, last)


def test_the_bits_of_a_forgetful_model_are_its_entropys():
    (sure, none), (half, _) = Forgetful((1.0, 0.5), seed=0).bits()
    assert sure == pytest.approx(2)
    assert none == pytest.approx(0, abs=1e-10)
    # Of 4 letters one has 1/2, three 1/6 each: 1/2·1 + 1/2·log2 6 bits are missing.
    assert half == pytest.approx(2 - (0.5 + 0.5 * math.log2(6)))
