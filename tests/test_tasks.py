"""The echo task is what its definition says, for every size."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
