"""A model that is fed the delay answers as one that is asked through read-outs does."""

import pytest
import torch

from echospan.evaluation import evaluate
from echospan.model import EchoModel
from echospan.recipes import ModelConfig
from echospan.streaming import Stream


@pytest.fixture
def model():
    config = ModelConfig(alphabet="abc", max_delay=2, hidden=8, conditioning="input")
    return EchoModel(config).eval()


def test_some_delays_alone_are_answered_as_all_are(model):
    symbols = torch.randint(1, 4, (3, 7))
    some = torch.tensor([2, 0])
    with torch.no_grad():
        torch.testing.assert_close(model.ask(symbols, some), model(symbols)[0][:, :, some])


def test_a_delay_for_each_step_is_that_delay_for_the_row_where_it_stays(model):
    symbols, delays = torch.randint(1, 4, (3, 7)), torch.tensor([0, 2, 1])
    with torch.no_grad():
        by_row, _ = model.answer(symbols, delays)
        by_step, _ = model.answer(symbols, delays[:, None].expand(3, 7))
    torch.testing.assert_close(by_row, by_step)


def test_its_stream_says_what_its_echo_says_and_goes_on(model, tmp_path):
    stream = Stream(model, 1)
    said = stream.push("abca")
    stream.save(tmp_path / "kept")
    again = Stream(model, 1)
    again.restore(tmp_path / "kept")
    assert said + again.push("cabb") == model.echo("abcacabb", 1)


def test_it_is_evaluated_at_every_delay(model):
    seen = evaluate(model, trials=500)
    assert [d.delay for d in seen.delays] == [0, 1, 2]
    assert all(0 < d.recall < 1 for d in seen.delays)


def test_a_state_that_was_empty_is_taken_up_empty(model, tmp_path):
    Stream(model, 1).save(tmp_path / "kept")
    stream = Stream(model, 1)
    stream.push("abc")
    stream.restore(tmp_path / "kept")
    assert stream.push("abc") == Stream(model, 1).push("abc")
