"""The figures are what their definitions say: all are counted again from what a model was asked."""

import math
import platform
import time
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import nn

import echospan
from echospan.errors import SettingError
from echospan.evaluation import (
    DelayRecall,
    Evaluation,
    SpanEvaluation,
    always_valid,
    as_report,
    evaluate,
    evaluate_span,
    length_recall,
    stream_errors,
    wilson,
)
from echospan.model import EchoModel
from echospan.recipes import ModelConfig
from echospan.selftest import KnownModel


class Written:
    """Writes down what a model is asked and what it answers."""

    def forward(self, symbols, state=None):
        logits, after = super().forward(symbols, state)
        self.book.append((symbols, list(range(self.max_delay + 1)), logits, self._how(), state))
        return logits, after

    def ask(self, symbols, delays):
        logits = super().ask(symbols, delays)
        self.book.append((symbols, delays.tolist(), logits, self._how(), None))
        return logits

    def _how(self):
        return self.training, torch.is_grad_enabled()


class Untaught(Written, EchoModel):
    """Answers at random, always the same to the same."""

    def __init__(self, max_delay, alphabet="abc", **config):
        config = {"hidden": 6, **config}
        super().__init__(ModelConfig(alphabet=alphabet, max_delay=max_delay, **config))
        self.book = []


class Drilled(Written, KnownModel):
    """Right in a given share of its answers at each delay, wrong by one letter in the others."""

    def __init__(self, *shares):
        super().__init__(len(shares) - 1, max_delay=len(shares) - 1, letters="abcd")
        self.shares, self.generator = shares, torch.Generator().manual_seed(0)
        self.book = []

    def say(self, read):
        said = []
        for d, share in enumerate(self.shares):
            due = self.ago(read, d)
            wrong = torch.rand(due.shape, generator=self.generator) >= share
            said.append(self.certain(torch.where(wrong, 1 + due % 4, due)))
        return torch.stack(said, 2)

    def ask(self, symbols, delays):
        logits, _ = KnownModel.forward(self, symbols)
        self.book.append((symbols, delays.tolist(), logits[:, :, delays], self._how(), None))
        return logits[:, :, delays]


def counted(book, delay):
    """Answers, right ones, bits gained, blanks and right blanks at a delay, all over the book."""
    trials = right = blanks = right_blanks = 0
    nats = 0.0
    for read, delays, logits, *_ in book:
        if delay not in delays:
            continue
        here = logits[:, :, delays.index(delay)].double()
        said, due = here.argmax(-1), read[:, : read.shape[1] - delay]
        trials += due.numel()
        right += int((said[:, delay:] == due).sum())
        blanks += said[:, :delay].numel()
        right_blanks += int((said[:, :delay] == 0).sum())
        surprise = (
            here[:, delay:].logsumexp(-1) - here[:, delay:].gather(-1, due[..., None])[..., 0]
        )
        nats += float(surprise.sum())
        symbols = logits.shape[-1] - 1
    gain = math.log2(symbols) - nats / trials / math.log(2)
    return trials, right, gain, blanks, right_blanks


# Wilson's interval, and the one that is valid however often one looks


@settings(deadline=None)
@given(st.integers(1, 100_000), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilsons_interval_is_scipys(trials, share, confidence):
    correct = round(share * trials)
    theirs = binomtest(correct, trials).proportion_ci(confidence, method="wilson")
    assert wilson(correct, trials, confidence) == pytest.approx(tuple(theirs), abs=1e-12)


def test_wilsons_interval_is_of_95_percent_where_nothing_is_said():
    assert wilson(7, 9) == wilson(7, 9, 0.95)


def test_an_interval_never_leaves_0_to_1():
    for n in range(1, 400):
        for low, high in (wilson(0, n), wilson(n, n), always_valid(0, n), always_valid(n, n)):
            assert 0 <= low <= high <= 1


def test_who_has_tried_nothing_knows_nothing():
    assert wilson(0, 0) == always_valid(0, 0) == (0.0, 1.0)


@settings(deadline=None)
@given(st.integers(1, 20_000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_an_always_valid_interval_ends_where_the_uniform_mixture_bets_1_over_alpha(
    trials, share, confidence
):
    correct = round(share * trials)
    # The mixture's likelihood is 1 / ((n + 1) · (n over k)).
    ways = math.lgamma(trials + 1) - math.lgamma(correct + 1) - math.lgamma(trials - correct + 1)

    def bet(p):
        likelihood = correct * math.log(p) + (trials - correct) * math.log1p(-p)
        return -math.log(trials + 1) - ways - likelihood

    low, high = always_valid(correct, trials, confidence)
    allowed = math.log(1 / (1 - confidence))
    assert low == 0 if correct == 0 else bet(low) == pytest.approx(allowed, abs=1e-5)
    assert high == 1 if correct == trials else bet(high) == pytest.approx(allowed, abs=1e-5)
    assert low <= correct / trials <= high


def test_an_always_valid_interval_is_of_95_percent_where_nothing_is_said():
    assert always_valid(7, 9) == always_valid(7, 9, 0.95)


def test_one_answer_of_two_leaves_an_interval_on_both_sides():
    low, high = always_valid(1, 2)
    assert low == pytest.approx(1 - high)
    assert low * high == pytest.approx(0.05 / 6)  # p · (1 − p) where the mixture has 1/6


# What is told of a delay, and of all of them


def test_a_delay_is_told_with_its_share_its_interval_and_its_bits():
    told = DelayRecall(delay=3, trials=400, correct=300, gain=1.5)
    low, high = wilson(300, 400)
    assert told.interval == (low, high)
    assert told.as_dict() == {
        "delay": 3,
        "trials": 400,
        "correct": 300,
        "recall": 0.75,
        "low": low,
        "high": high,
        "bits": 1.5,
    }


def test_a_delay_that_was_not_asked_recalls_nothing():
    assert DelayRecall(0, 0, 0, 0.0).recall == 0
    assert DelayRecall(0, 1, 1, 0.0).recall == 1


def test_who_bets_worse_than_chance_has_no_bits_rather_than_fewer_than_none():
    assert DelayRecall(0, 10, 1, gain=-0.3).bits == 0
    assert (
        Evaluation((DelayRecall(0, 9, 9, 2.0), DelayRecall(1, 9, 0, -5.0)), 0, 0).recalled_bits == 2
    )


def of_span(*ends, at=0.9):
    return SpanEvaluation((), tuple(ends), None, at)


def recalls(*counts, trials=1000):
    return tuple(DelayRecall(d, trials, n, 0.0) for d, n in enumerate(counts))


def test_the_span_ends_before_the_first_delay_that_falls_short():
    assert Evaluation(recalls(1000, 1000, 1000), 0, 0).span() == 2
    assert Evaluation(recalls(1000, 800, 1000), 0, 0).span() == 0
    assert Evaluation(recalls(800, 1000, 1000), 0, 0).span() == -1
    assert Evaluation(recalls(1000, 800, 1000), 0, 0).span(0.7) == 2


def test_the_span_asks_the_lower_end_of_the_interval_and_99_percent_where_nothing_is_said():
    some = Evaluation(recalls(995), 0, 0)  # the share is above 99 %, its interval is not
    low, _ = some.delays[0].interval
    assert low < 0.99 < some.delays[0].recall
    assert some.span() == some.span(0.99) == -1
    assert some.span(low) == 0
    # 500 of 500 have 0.9924 at the lower end: enough for 0.99, not for more.
    assert Evaluation(recalls(500, trials=500), 0, 0).span() == 0


def test_the_target_is_reached_when_it_is_at_every_delay_asked_for_and_others_do_not_count():
    some = Evaluation(recalls(1000, 500, 1000), 0, 0)
    assert some.reached((0, 2), 0.99)
    assert not some.reached((0, 1), 0.99)
    assert some.reached((1,), some.delays[1].interval[0])
    assert not some.reached((1,), 0.5)  # the share is 0.5, the interval's lower end is not


@pytest.mark.parametrize("delays", [(3,), (1, 2), (0, 2), (2, 0)])
def test_an_evaluation_of_some_delays_claims_no_span(delays):
    some = Evaluation(tuple(DelayRecall(d, 1000, 1000, 1.0) for d in delays), 0, 0)
    with pytest.raises(SettingError, match=r"alone has no span, which is over every delay from 0"):
        some.span(0.5)
    assert some.reached(delays, 0.5)
    with pytest.raises(SettingError, match=r"delay 5 was not asked in this evaluation; it has"):
        some.reached((5,), 0.5)


def test_delays_are_found_by_their_name_and_not_by_their_place():
    first, second = DelayRecall(1, 1000, 1000, 1.0), DelayRecall(0, 1000, 500, 1.0)
    some = Evaluation((first, second), 0, 0)
    assert (some.at(1), some.at(0)) == (first, second)
    assert some.span() == -1  # delay 0 falls short, wherever it stands
    assert some.reached((1,), 0.9)
    assert not some.reached((0,), 0.9)


def test_blanks_are_told_beside_recall():
    assert Evaluation((), 8, 6).blank_accuracy == 0.75
    assert Evaluation((), 1, 1).blank_accuracy == 1
    assert Evaluation((), 0, 0).blank_accuracy is None


@pytest.mark.parametrize("told", [recalls(9)[0], Evaluation((), 0, 0), of_span(at=0.9)])
def test_what_was_measured_cannot_be_changed_afterwards(told):
    with pytest.raises(FrozenInstanceError):
        told.delays = ()


@pytest.mark.parametrize(("target", "reached", "span"), [(0.99, False, 0), (0.4, True, 2)])
def test_a_report_holds_every_figure_the_target_and_what_made_them(target, reached, span):
    delays = tuple(DelayRecall(d, 1000, n, 1.5) for d, n in enumerate((1000, 500, 1000)))
    told = as_report(Untaught(2), Evaluation(delays, 8, 6), target, {"seconds": 3.5})
    assert told == {
        "target": target,
        "reached": reached,
        "length": 9,
        "reached_beyond": None,
        "delays": [d.as_dict() for d in delays],
        "blank_accuracy": 0.75,
        "span": span,
        "recalled_bits": 4.5,
        "seconds": 3.5,
        "versions": {
            "echospan": echospan.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
    }


def test_a_report_counts_only_the_delays_that_were_asked_for_towards_the_target():
    delays = recalls(1000, 500, 1000)
    model = Untaught(2, delay=2)
    assert as_report(model, Evaluation(delays, 0, 0), 0.99, {})["reached"]


@pytest.mark.parametrize(
    ("lows", "beyond"),
    [
        ([], None),  # nothing longer was measured
        ([(0.2, 0.995)], True),  # delay 0 is not asked for
        ([(0.995, 0.995), (0.995, 0.98)], False),
    ],
)
def test_a_report_says_whether_longer_sequences_reach_the_target_too(lows, beyond):
    model, delays = Untaught(1, delay=1), recalls(1000, 1000)
    within = {"times": 1, "length": 6, "recall": [1, 1], "low": [0.1, 0.1]}
    longer = [
        {"times": times, "length": 6 * times, "recall": [1, 1], "low": list(low)}
        for times, low in zip((2, 5), lows, strict=False)
    ]
    told = as_report(model, Evaluation(delays, 0, 0), 0.99, {"lengths": [within, *longer]})
    assert told["reached"]  # recall in sequences of `length` decides, whatever the longer ones say
    assert (told["length"], told["reached_beyond"]) == (7, beyond)


# Recall, counted again


@settings(deadline=None, max_examples=40)
@given(
    max_delay=st.integers(0, 4),
    letters=st.sampled_from(["ab", "abcd"]),
    trials=st.integers(1, 300),
    longer=st.none() | st.integers(1, 12),
    conditioning=st.sampled_from(["readout", "input"]),
    data=st.data(),
)
def test_recall_bits_and_blanks_are_what_one_counts_from_the_answers(
    max_delay, letters, trials, longer, conditioning, data
):
    asked = data.draw(st.none() | st.sets(st.integers(0, max_delay), min_size=1).map(sorted))
    torch.manual_seed(0)
    model = Untaught(max_delay, letters, conditioning=conditioning)
    length = None if longer is None else max_delay + longer
    told = evaluate(model, trials=trials, length=length, asked=asked, seed=4)
    book = model.book[:1]  # asked by input, a model asks itself for what it was asked
    assert [d.delay for d in told.delays] == (asked or list(range(max_delay + 1)))
    blanks = right_blanks = 0
    for d in told.delays:
        answers, right, gain, *of_blanks = counted(book, d.delay)
        assert (d.trials, d.correct) == (answers, right)
        assert d.gain == pytest.approx(gain, abs=1e-5)
        blanks, right_blanks = blanks + of_blanks[0], right_blanks + of_blanks[1]
    assert (told.blanks, told.blanks_correct) == (blanks, right_blanks)
    (read, *_), steps = book[0], book[0][0].shape[1]
    assert steps == (length or 2 * max_delay + 5)
    assert trials <= len(read) * (steps - max_delay) < trials + steps - max_delay
    assert read.min() >= 1
    assert read.max() <= len(letters)


def test_delays_asked_alone_are_those_rows_of_all_delays():
    model = Untaught(3)
    every = evaluate(model, trials=500).delays
    for some in ([1, 3], [3, 0], [2], [0, 1, 2, 3], [2, 3, 1, 0]):
        alone = evaluate(model, trials=500, asked=some).delays
        assert [(d.delay, d.correct) for d in alone] == [(d, every[d].correct) for d in some]
        assert [d.gain for d in alone] == pytest.approx([every[d].gain for d in some])
    assert [2] in [asked for _, asked, *_ in model.book]  # what was not asked was not answered


def test_the_figures_that_are_quoted_are_of_20_000_answers_of_the_first_stream():
    model = Untaught(1)
    assert evaluate(model) == evaluate(model, trials=20_000, seed=1, length=7)
    assert evaluate(Untaught(0)).delays[0].trials == 20_000


def test_a_seed_names_the_stream():
    model = Untaught(1)
    for seed in (5, 5, 6):
        evaluate(model, trials=90, seed=seed)
    first, again, other = (read for read, *_ in model.book)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_model_is_measured_where_it_is_whatever_the_default_device():
    model = Untaught(2, core="delay_line", hidden=8)
    measures = (
        lambda: evaluate(model, trials=50),
        lambda: evaluate(model, trials=50, asked=[1]),
        lambda: stream_errors(model, 300, streams=3),
    )
    here = [measure() for measure in measures]
    with torch.device("meta"):  # stands for a GPU that is the default
        assert [measure() for measure in measures] == here


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_measured_in_eval_without_gradients_and_left_as_it_was(training):
    model = Untaught(2).train(training)
    for measure in (
        lambda: evaluate(model, trials=10),
        lambda: evaluate(model, trials=10, asked=[1]),
        lambda: stream_errors(model, 10),
    ):
        measure()
        assert model.training is training
        assert all(how == (False, False) for *_, how, _ in model.book)


def test_a_long_evaluation_is_taken_in_pieces_that_fit_and_all_of_them_count():
    # 85 symbols, 41 delays and 3 classes of an answer: 478 sequences are 5,000,000 numbers.
    model = Untaught(40, "ab")
    told = evaluate(model, trials=45 * 500)
    pieces = [logits for _, _, logits, *_ in model.book]
    assert [len(p) for p in pieces] == [478, 22]
    assert all(p.numel() <= 5_000_000 for p in pieces)
    for d in (0, 40):
        assert told.delays[d].trials == 500 * (85 - d)
        _, right, gain, *_ = counted(model.book, d)
        assert told.delays[d].correct == right
        assert told.delays[d].gain == pytest.approx(gain, abs=1e-5)
    assert told.blanks == 500 * 41 * 20
    assert told.blanks_correct == sum(counted(model.book, d)[4] for d in range(41))


def test_a_sequence_that_is_too_long_for_a_piece_is_taken_alone():
    model = Untaught(40, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ012345678", hidden=1)
    evaluate(model, trials=4000, length=2040)
    assert [len(read) for read, *_ in model.book] == [1, 1]


# The span, with trials where its edge is


def test_a_span_lies_between_what_is_sure_and_what_is_not_ruled_out():
    some = of_span((0.95, 0.99), (0.9, 0.9), (0.5, 0.95), (0.1, 0.2), (0.95, 0.99))
    assert (some.span, some.span_at_most) == (1, 2)
    assert (of_span((0.1, 0.2)).span, of_span((0.1, 0.2)).span_at_most) == (-1, -1)
    assert (of_span((0.95, 1.0)).span, of_span((0.95, 1.0)).span_at_most) == (0, 0)


def looks(model):
    """How many answers at the longest delay were wanted in each look, and at which delays."""
    reach = model.max_delay
    return [(len(read) * (read.shape[1] - reach), asked) for read, asked, *_ in model.book]


def test_what_cannot_be_decided_is_asked_twice_as_often_each_time_until_the_trials_are_spent():
    model = Drilled(0.95)
    told = evaluate_span(model, 0.95, trials=10_000)
    assert looks(model) == [(2000, [0]), (4000, [0]), (4000, [0])]
    assert told.delays[0].trials == 10_000
    one_more = Drilled(0.95)
    evaluate_span(one_more, 0.95, trials=6001)
    assert looks(one_more) == [(2000, [0]), (4000, [0]), (5, [0])]  # a sequence has 5 answers
    assert told.span == -1
    assert told.span_at_most == 0
    assert told.at == 0.95


def test_a_span_at_100_percent_is_open_as_long_as_no_answer_is_wrong():
    model = Drilled(1.0)
    told = evaluate_span(model, 1.0, trials=6000)
    assert told.delays[0].trials == 6000
    assert (told.span, told.span_at_most) == (-1, 0)


def test_what_any_model_meets_is_decided_at_once():
    model = Drilled(0.0)
    assert evaluate_span(model, 0.0).span == 0
    assert len(model.book) == 1


def test_few_trials_are_one_look():
    model = Drilled(0.95)
    assert evaluate_span(model, 0.95, trials=500).delays[0].trials == 500


def test_only_delays_that_may_still_move_the_span_are_asked_again():
    # Sure at once, open for long, open for long, ruled out, and beyond what was ruled out.
    model = Drilled(1.0, 0.95, 0.95, 0.3, 0.95)
    told = evaluate_span(model, 0.95, trials=14_000)
    (_, first), *others = looks(model)
    assert first == [0, 1, 2, 3, 4]
    assert [asked for _, asked in others] == [[1, 2]] * 2
    assert (told.span, told.span_at_most) == (0, 2)
    for d, told_here in enumerate(told.delays):
        trials, right, gain, *_ = counted(model.book, d)
        assert (told_here.delay, told_here.trials, told_here.correct) == (d, trials, right)
        assert told_here.gain == pytest.approx(gain, abs=1e-4)


def test_the_intervals_of_a_span_hold_all_at_once_and_its_blanks_are_of_the_first_look():
    model = Drilled(1.0, 0.9, 0.9)
    told = evaluate_span(model, 0.9, trials=6000)
    expected = [always_valid(d.correct, d.trials, 1 - 0.05 / 3) for d in told.delays]
    assert list(told.intervals) == expected
    *_, blanks, right = (
        sum(n) for n in zip(*(counted(model.book[:1], d) for d in range(3)), strict=True)
    )
    assert told.blank_accuracy == right / blanks


def test_each_look_is_of_a_stream_of_its_own_and_the_seed_names_them_all():
    streams = []
    for seed in (1, 1, 2):
        model = Drilled(0.95)
        evaluate_span(model, 0.95, trials=6000, seed=seed)
        streams.append([read for read, *_ in model.book])
    (first, second), again, (other, _) = streams
    assert not torch.equal(first, second[: len(first)])
    assert not torch.equal(first, other)
    assert all(torch.equal(a, b) for a, b in zip(streams[0], again, strict=True))


def test_a_span_is_of_99_percent_and_at_most_64_000_answers_where_nothing_is_said():
    model, same = Drilled(0.99), Drilled(0.99)
    told = evaluate_span(model)
    assert told == evaluate_span(same, 0.99, trials=64_000, seed=1)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(model.book, same.book, strict=True))
    assert told.at == 0.99
    assert told.delays[0].trials == 64_000


def test_past_its_deadline_a_span_is_what_one_look_tells():
    model = Drilled(0.95)
    evaluate_span(model, 0.95, deadline=time.perf_counter() - 1)
    assert looks(model) == [(2000, [0])]
    model = Drilled(0.95)
    evaluate_span(model, 0.95, trials=6000, deadline=time.perf_counter() + 1000)
    assert len(model.book) == 2


# Longer sequences, and streams without an end


def test_recall_is_told_at_one_two_five_and_ten_times_the_training_length():
    model = Untaught(2)
    told = length_recall(model, 4, trials=60, seed=8)
    assert [(m["times"], m["length"]) for m in told] == [(1, 4), (2, 8), (5, 20), (10, 40)]
    assert [read.shape[1] for read, *_ in model.book] == [4, 8, 20, 40]
    for m, entry in zip(told, model.book, strict=True):
        counts = [counted([entry], d)[:2] for d in range(3)]
        assert m["recall"] == [right / trials for trials, right in counts]
        assert m["low"] == [wilson(right, trials)[0] for trials, right in counts]
        assert set(m) == {"times", "length", "recall", "low"}


def test_lengths_are_told_from_20_000_answers_where_nothing_is_said():
    model = Untaught(0)
    assert length_recall(model, 4) == length_recall(model, 4, trials=20_000, seed=1)


def test_a_sequence_is_no_shorter_than_the_longest_delay_needs():
    told = length_recall(Untaught(4), 3, trials=60)
    assert [(m["times"], m["length"]) for m in told] == [(1, 5), (2, 6), (5, 15), (10, 30)]


def test_past_its_deadline_only_the_training_length_is_told():
    told = length_recall(Untaught(1), 4, trials=9, deadline=time.perf_counter() - 1)
    assert [m["times"] for m in told] == [1]
    told = length_recall(Untaught(1), 4, trials=9, deadline=time.perf_counter() + 1000)
    assert len(told) == 4


@settings(deadline=None, max_examples=30)
@given(
    max_delay=st.integers(0, 4),
    symbols=st.integers(1, 700),
    streams=st.integers(1, 9),
    core=st.sampled_from(["gru", "delay_line"]),
)
def test_errors_in_a_stream_are_what_one_counts_from_its_answers(max_delay, symbols, streams, core):
    torch.manual_seed(0)
    model = Untaught(max_delay, core=core, hidden=12)
    answered, errors = stream_errors(model, symbols, streams=streams, seed=5)
    book, rows = model.book[:], min(streams, symbols)
    read, said = (torch.cat(parts, 1) for parts in list(zip(*book, strict=True))[0:3:2])
    assert len(read) == rows
    assert answered == rows * (read.shape[1] - max_delay)
    assert symbols <= answered < symbols + rows
    # Unbroken: read at one go from the empty state, the model says the same.
    whole, _ = EchoModel.forward(model, read)
    torch.testing.assert_close(said, whole)
    assert book[0][4] is None
    assert max(piece.shape[1] for piece, *_ in book) <= 50  # memory does not grow with the stream
    for d in range(max_delay + 1):
        due = read[:, max_delay - d : read.shape[1] - d]
        assert errors[d] == int((said[:, max_delay:, d].argmax(-1) != due).sum())
        assert isinstance(errors[d], int)


def test_a_stream_is_taken_in_as_few_pieces_as_memory_allows():
    model = Untaught(2)
    stream_errors(model, 340, streams=2)
    assert [read.shape[1] for read, *_ in model.book] == [2, 50, 50, 50, 20]


def test_streams_are_a_hundred_where_nothing_is_said():
    model = Untaught(1)
    assert stream_errors(model, 3000) == stream_errors(model, 3000, streams=100, seed=1)
    assert all(len(read) == 100 for read, *_ in model.book)


def test_a_model_with_dropout_is_measured_without_it():
    class Forgetful(nn.Dropout):
        input_size = hidden_size = 4

        def forward(self, x, state=None):
            return super().forward(x), None

    model = EchoModel(ModelConfig(alphabet="abc", max_delay=0, hidden=4), Forgetful(0.5)).train()
    with torch.no_grad():
        model.readouts.weight.copy_(torch.eye(4))
        model.readouts.bias.zero_()
    assert evaluate(model, trials=1000).delays[0].recall == 1
    assert stream_errors(model, 1000)[1] == [0]
