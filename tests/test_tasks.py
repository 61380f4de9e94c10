"""The echo task is what its definition says, for every size."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echospan.errors import SettingError
from echospan.tasks import EchoTask

sizes = st.integers(1, 6)


@settings(deadline=None)
@given(
    symbols=st.integers(2, 40),
    delay=st.integers(0, 9),
    rows=sizes,
    time=sizes,
    seed=st.integers(0, 99),
)
def test_the_answer_is_the_symbol_read_d_steps_ago_and_blank_before(
    symbols, delay, rows, time, seed
):
    task = EchoTask(symbols, delay)
    read, targets = task.batch(rows, time, torch.Generator().manual_seed(seed))
    assert read.min() >= 1
    assert read.max() <= symbols
    assert targets.shape == (rows, time, delay + 1)
    for b in range(rows):
        for t in range(time):
            for d in range(delay + 1):
                assert targets[b, t, d] == (read[b, t - d] if t >= d else 0)


@settings(deadline=None)
@given(delay=st.integers(0, 9), cuts=st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_an_endless_stream_may_be_cut_into_windows_anywhere(delay, cuts):
    task = EchoTask(5, delay)
    read = task.draw(2, sum(cuts), torch.Generator().manual_seed(0))
    past, parts = task.empty_past(2), []
    for window in read.split(cuts, dim=1):
        parts.append(task.targets(window, past))
        past = task.carry(window, past)
    assert torch.equal(torch.cat(parts, 1), task.targets(read))


def test_a_batch_that_goes_on_from_a_past_is_asked_for_what_was_read_there():
    task = EchoTask(9, 3)
    past = torch.tensor([[7, 8, 9]])  # oldest first
    (read,), (answers,) = task.batch(1, 2, torch.Generator().manual_seed(1), past)
    a, b = read.tolist()
    assert answers.tolist() == [[a, 9, 8, 7], [b, a, 9, 8]]


def test_before_the_first_step_blanks_were_read():
    past = EchoTask(4, 3).empty_past(2)
    assert past.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert past.dtype == torch.int64


def test_where_nothing_is_said_there_are_26_letters_and_delays_up_to_8():
    assert EchoTask() == EchoTask(symbols=26, max_delay=8)


def test_every_symbol_is_drawn_alike_often_and_its_generator_alone_decides():
    task = EchoTask(5, 0)
    read = task.draw(100, 1000, torch.Generator().manual_seed(3))
    counts = read.flatten().bincount(minlength=6)
    assert counts[0] == 0
    # Of 100,000 draws each gets 20,000, give or take 126: five times that is never seen.
    assert (counts[1:] - 20_000).abs().max() < 630
    torch.manual_seed(99)
    assert torch.equal(task.draw(100, 1000, torch.Generator().manual_seed(3)), read)
    assert not torch.equal(task.draw(100, 1000, torch.Generator().manual_seed(4)), read)
    assert read.dtype == torch.int64


def test_everything_is_made_where_it_belongs_whatever_the_default_device():
    # The meta device stands for any that is not the CPU.
    task = EchoTask(5, 2)
    assert task.empty_past(2, "meta").device.type == "meta"
    with torch.device("meta"):
        read, answers = task.batch(2, 3, torch.Generator("cpu"))
        assert read.device.type == answers.device.type == "cpu"
        assert task.empty_past(2).device.type == "cpu"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"symbols": 1}, "symbols is 1; use a whole number of 2 or more"),
        ({"max_delay": -1}, "max_delay is -1; use a whole number of 0 or more"),
    ],
)
def test_a_task_that_asks_nothing_is_refused(settings, sentence):
    with pytest.raises(SettingError) as refused:
        EchoTask(**settings)
    assert str(refused.value) == sentence


def test_a_task_cannot_be_changed_behind_a_models_back():
    with pytest.raises(FrozenInstanceError):
        EchoTask().max_delay = 3
