"""The assignment's scripts run with our classes, which do what the printed ones do, and more."""

import contextlib
import io
import pickle
import random
import string

import numpy as np
import pytest
import torch
from benchmarks import assignment
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from echospan import homework
from echospan.errors import AlphabetError, DelayError, EchospanError, SettingError

PRINTED = assignment.printed()
"""The assignment's own classes and functions, from benchmarks/assignment.txt."""

MODELS = {"GRUMemory": (12,), "VariableDelayGRUMemory": (12, 5)}
DATA = ["EchoDataset", "VariableDelayEchoDataset"]


def both(name, *args, seed=0, **kwargs):
    """The printed class and ours, each made under the same seed."""
    for source in (PRINTED[name], getattr(homework, name)):
        torch.manual_seed(seed)
        yield source(*args, **kwargs)


def letters(seed, length):
    return "".join(random.Random(seed).choices(string.ascii_lowercase, k=length))


# The scripts


@pytest.mark.parametrize("part", assignment.PARTS)
def test_a_printed_script_passes_its_own_tests_with_our_classes(part):
    """At a reduced size; `python -m benchmarks.homework --scripts` runs them whole."""
    source = assignment.with_our_classes(assignment.PARTS[part])
    assert "class " not in source
    assert assignment.IMPORT in source
    random.seed(0)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assignment.run(assignment.reduced(source, part))
    assert out.getvalue().endswith("tests passed\n")


def test_the_star_brings_the_assignments_names_and_none_that_a_script_sets_itself():
    script = {"DELAY": 6, "N": 26, "random": "mine", "F": "mine", "DataLoader": "mine"}
    exec("from echospan.homework import *", script)
    assert script["DELAY"] == 6
    assert script["random"] == script["F"] == script["DataLoader"] == "mine"
    brought = {name for name in script if not name.startswith("__")}
    assert brought - {"DELAY", "N", "random", "F", "DataLoader"} == set(homework.__all__)
    assert set(homework.__all__) == {
        *("EchoDataset", "VariableDelayEchoDataset", "idx_to_onehot"),
        *("GRUMemory", "VariableDelayGRUMemory", "test_model", "test_variable_delay_model"),
    }


# The models, beside the printed ones


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_printed_parameters_and_the_same_seed_gives_the_same_ones(name):
    theirs, ours = both(name, *MODELS[name])
    for (key, a), (other, b) in zip(
        theirs.named_parameters(), ours.named_parameters(), strict=True
    ):
        assert key == other
        assert torch.equal(a, b)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert theirs.training is ours.training is True
    assert (ours.gru.num_layers, ours.gru.dropout, ours.gru.batch_first) == (2, 0.1, True)
    for attribute in ("hidden_size", "max_delay"):
        assert getattr(theirs, attribute, None) == getattr(ours, attribute, None)


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(sorted(MODELS)),
    hidden=st.integers(1, 12),
    max_delay=st.integers(0, 9),
    batch=st.integers(1, 5),
    time=st.integers(1, 9),
    train=st.booleans(),
    seed=st.integers(0, 99),
)
def test_printed_weights_load_and_the_logits_and_gradients_are_the_printed_ones(
    name, hidden, max_delay, batch, time, train, seed
):
    args = (hidden,) if name == "GRUMemory" else (hidden, max_delay)
    theirs = PRINTED[name](*args).train(train)
    ours = getattr(homework, name)(*args).train(train)
    ours.load_state_dict(theirs.state_dict())
    seq = torch.randint(1, 27, (batch, time))
    delays = () if name == "GRUMemory" else (torch.randint(0, max_delay + 1, (batch,)),)
    logits = []
    for model, onehot in ((theirs, PRINTED["idx_to_onehot"]), (ours, homework.idx_to_onehot)):
        torch.manual_seed(seed)  # dropout draws from torch's generator
        logits.append(model(onehot(seq), *delays))
        logits[-1].square().sum().backward()
    torch.testing.assert_close(*logits)
    assert logits[0].is_contiguous() == logits[1].is_contiguous()
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    theirs.load_state_dict(ours.state_dict())
    s = letters(seed, time)
    asked = () if name == "GRUMemory" else (max_delay,)
    assert theirs.eval().test_run(s, *asked) == ours.test_run(s, *asked)


def test_one_sequence_without_a_batch_is_read_as_the_printed_model_reads_it():
    theirs, ours = both("GRUMemory", 7)
    x = homework.idx_to_onehot(torch.randint(1, 27, (6,)))
    torch.testing.assert_close(theirs.eval()(x), ours.eval()(x))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("train", [True, False])
def test_a_run_is_without_dropout_and_leaves_every_module_in_its_mode(name, train):
    model = getattr(homework, name)(*MODELS[name]).train(train)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(5)  # so that its answers differ from letter to letter
    model.output_layer.train(not train)
    before = [m.training for m in model.modules()]
    asked = () if name == "GRUMemory" else (2,)
    answers = {model.test_run("thequickbrownfox", *asked) for _ in range(5)}
    assert len(answers) == 1
    assert [m.training for m in model.modules()] == before
    with pytest.raises(AlphabetError):
        model.test_run("?", *asked)
    assert [m.training for m in model.modules()] == before


def test_a_student_who_overrides_forward_is_asked_through_it():
    class Mine(homework.GRUMemory):
        def forward(self, x):
            return F.pad(x, (0, 0, 1, 0))[:, :-1]  # says each letter one step later

    assert Mine(3).test_run("abc")[1:] == "ab"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:The tensor attributes")  # of every torch.nn.GRU
def test_a_model_may_be_traced_compiled_exported_and_pickled():
    model = homework.VariableDelayGRUMemory(5, 3).eval()
    x, delays = homework.idx_to_onehot([[1, 2], [3, 4]]), torch.tensor([3, 0])
    args = (x.flip(1), torch.tensor([1, 2]))
    for other in (
        torch.jit.trace(model, args),
        torch.compile(model, backend="eager"),
        torch.export.export(model, args).module(),
        pickle.loads(pickle.dumps(model)),
    ):
        torch.testing.assert_close(other(x, delays), model(x, delays))


def test_a_model_may_have_another_float_type():
    model = homework.VariableDelayGRUMemory(5, 3).double()
    x = homework.idx_to_onehot(torch.randint(1, 27, (2, 4)))
    assert model(x, 3).dtype == torch.float64
    assert len(model.test_run("abc", 1)) == 3
    integers = F.one_hot(torch.randint(1, 27, (2, 4)), 27)
    assert model(integers, 3).shape == (2, 4, 27)


# Delays


def wide(delays):
    """A model that has learned nothing, and its logits at these delays for two rows of 4 steps."""
    torch.manual_seed(1)
    model = homework.VariableDelayGRUMemory(6, 5).eval()
    x = homework.idx_to_onehot(torch.arange(1, 9).view(2, 4))
    with torch.no_grad():
        return model(x, delays)


@pytest.mark.parametrize(
    ("delays", "a_row"),
    [
        (3, (3, 3)),
        (np.int64(3), (3, 3)),
        (torch.tensor(3), (3, 3)),
        ([3, 1], (3, 1)),
        ((3, 1), (3, 1)),
        (np.array([3, 1]), (3, 1)),
        (torch.tensor([3, 1]), (3, 1)),
        (torch.tensor([3, 1], dtype=torch.uint8), (3, 1)),
        (torch.tensor([[3], [1]]), (3, 1)),
        ([[3], [1]], (3, 1)),
        (torch.tensor([[3] * 4, [1] * 4]), (3, 1)),
        (torch.tensor([3, 1]).to_sparse(), (3, 1)),
        (range(3, 0, -2), (3, 1)),
    ],
)
def test_delays_are_one_or_one_a_row_or_one_a_step(delays, a_row):
    torch.testing.assert_close(wide(delays), wide(torch.tensor(a_row)))


def test_a_delay_a_step_is_fed_in_at_its_step():
    steps = wide(torch.tensor([[0, 1, 2, 3], [3, 3, 3, 3]]))
    torch.testing.assert_close(steps[1], wide(3)[1])
    torch.testing.assert_close(steps[0, 0], wide(0)[0, 0])
    assert not torch.allclose(steps[0, 3], wide(0)[0, 3])


@pytest.mark.parametrize(
    "delays",
    [
        *(2.0, True, -1, 6, None, "3", 1j, float("nan"), 10**30),
        *([3.0, 1.0], [True, False], [3], [3, 1, 2], [0, 6], [-1, 0], ["a", "b"], [None, 1]),
        *(torch.tensor([3.0, 1.0]), torch.tensor([True, False]), torch.zeros(1, 2).long()),
        *(torch.zeros(2, 3).long(), torch.zeros(2, 1, 1).long(), torch.zeros(4).long()),
        *(torch.zeros(0).long(), np.array([3.5, 1]), np.array([3, 6])),
    ],
    ids=repr,
)
def test_any_other_delays_are_refused_in_one_sentence(delays):
    with pytest.raises(DelayError) as refused:
        wide(delays)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("delay", [2.0, True, -1, 6, None, "3", [1, 2], torch.tensor([0.0])])
@pytest.mark.parametrize("s", ["", "abc"])
def test_a_run_at_a_delay_that_is_none_is_refused_also_where_nothing_is_read(s, delay):
    with pytest.raises(DelayError):
        homework.VariableDelayGRUMemory(4, 5).test_run(s, delay)


@pytest.mark.parametrize("delay", [3, np.int32(3), torch.tensor(3), torch.tensor([3])])
def test_a_run_takes_any_whole_number_as_its_delay(delay):
    model = homework.VariableDelayGRUMemory(4, 5)
    assert model.test_run("abcde", delay) == model.test_run("abcde", 3)


# Strings


@pytest.mark.parametrize(
    ("s", "says"),
    [
        ("aBc", "the character 'B' at position 1 is not in the alphabet; write it in lower case"),
        ("F", "the character 'F' at position 0"),  # printed: read as the letter a
        ("ab[", "the character '[' at position 2"),  # printed: read as the letter v
        ("a`", "the character '`' at position 1"),  # printed: read as the empty output
        ("a1", "the character '1' at position 1"),
        ("a b", "the character ' ' at position 1"),
        ("é", "the character 'é' at position 0"),
        (["a"], "s is of type list; use a string of letters"),
        (None, "s is of type NoneType; use a string of letters"),
        (b"ab", "s is of type bytes; use a string of letters"),
    ],
)
def test_what_is_no_string_of_lower_case_letters_is_refused(s, says):
    for model, delay in (
        (homework.GRUMemory(4), ()),
        (homework.VariableDelayGRUMemory(4, 5), (2,)),
    ):
        with pytest.raises(EchospanError) as refused:
            model.test_run(s, *delay)
        assert says in str(refused.value)


def test_nothing_is_answered_to_nothing():
    assert homework.GRUMemory(4).test_run("") == ""
    assert homework.VariableDelayGRUMemory(4, 5).test_run("", 5) == ""


# One-hot letters


@settings(deadline=None, max_examples=30)
@given(ids=st.lists(st.integers(0, 26), max_size=8), k=st.integers(27, 40), rows=st.integers(1, 3))
def test_one_hot_vectors_are_the_printed_ones(ids, k, rows):
    x = torch.tensor(ids, dtype=torch.int64).repeat(rows, 1)
    for one in (x, x.int(), x.double(), x[0]):
        ours, theirs = homework.idx_to_onehot(one, k), PRINTED["idx_to_onehot"](one, k)
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (3, (27,)),
        ([1, 2], (2, 27)),
        (np.array([[1, 2]]), (1, 2, 27)),
        (torch.arange(6).view(2, 3).T, (3, 2, 27)),  # printed: not contiguous, refused
        (torch.zeros(0, 5), (0, 5, 27)),
        ([], (0, 27)),
        (torch.tensor([True, False]), (2, 27)),
        (torch.tensor([3, 0]).to_sparse(), (2, 27)),
    ],
)
def test_anything_that_holds_ids_has_one_hot_vectors(x, shape):
    vectors = homework.idx_to_onehot(x)
    assert vectors.shape == shape
    assert (
        torch.equal(vectors.argmax(-1), torch.as_tensor(x).to_dense().long()) or not vectors.numel()
    )
    assert (vectors.sum(-1) == 1).all()


def test_other_lengths_of_the_vectors():
    assert homework.idx_to_onehot(torch.tensor([0, 4]), 5).tolist()[1] == [0, 0, 0, 0, 1]
    assert homework.idx_to_onehot(torch.zeros(3).long(), k=1).tolist() == [[1]] * 3


@pytest.mark.parametrize(
    ("x", "k", "error", "says"),
    [
        (-1, 27, AlphabetError, "x holds the id -1; use ids from 0 to 26"),
        (torch.tensor([3, 27]), 27, AlphabetError, "x holds the id 27; use ids from 0 to 26"),
        (torch.tensor([5]), 5, AlphabetError, "x holds the id 5; use ids from 0 to 4"),
        (torch.tensor([1.5]), 27, SettingError, "x holds numbers that are not whole"),
        (torch.tensor([torch.nan]), 27, SettingError, "x holds numbers that are not whole"),
        (torch.tensor([torch.inf]), 27, SettingError, "x holds numbers that are not whole"),
        (torch.tensor([1j]), 27, SettingError, "x holds numbers that are not whole"),
        (torch.tensor([1e18]), 27, AlphabetError, "x holds the id 999999984306749440; use"),
        ("abc", 27, SettingError, "x is of type str; use a tensor of ids"),
        (None, 27, SettingError, "x is of type NoneType; use a tensor of ids"),
        ([[1], [1, 2]], 27, SettingError, "x is of type list; use a tensor of ids"),
        ([1], 0, SettingError, "k is 0; use a whole number of 1 or more"),
        ([1], 27.0, SettingError, "k is 27.0; use a whole number of 1 or more"),
        ([1], True, SettingError, "k is True; use a whole number of 1 or more"),
    ],
)
def test_ids_that_are_none_have_no_one_hot_vector(x, k, error, says):
    with pytest.raises(error) as refused:
        homework.idx_to_onehot(x, k)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("x", "given"),
    [
        (torch.ones(2, 5).long(), "x is of the shape (2, 5) and int64"),
        (torch.ones(2, 27).long(), "x is of the shape (2, 27) and int64"),  # ids, most likely
        (torch.ones(2, 5, 26), "x is of the shape (2, 5, 26) and float32"),
        (torch.ones(27), "x is of the shape (27,) and float32"),
        (torch.ones(2, 0, 27), "x is of the shape (2, 0, 27) and float32"),
        (torch.ones(1, 2, 5, 27), "x is of the shape (1, 2, 5, 27) and float32"),
        (torch.ones(2, 5, 27) * 1j, "x is of the shape (2, 5, 27) and complex64"),
        ([[[0] * 27]], "x is of type list"),
        ("abc", "x is of type str"),
        (torch.ones(2, 5, 27, device="meta"), "x is on meta and the model on cpu"),
    ],
)
def test_input_that_is_not_one_hot_is_refused_in_one_sentence(x, given):
    for model, delays in (
        (homework.GRUMemory(4), ()),
        (homework.VariableDelayGRUMemory(4, 5), (1,)),
    ):
        with pytest.raises(SettingError) as refused:
            model(x, *delays)
        assert str(refused.value).startswith(given + "; ")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: homework.GRUMemory(0), "hidden_size is 0; use a whole number of 1 or more"),
        (lambda: homework.GRUMemory(8.0), "hidden_size is 8.0"),
        (lambda: homework.GRUMemory(True), "hidden_size is True"),
        (
            lambda: homework.VariableDelayGRUMemory(8, -1),
            "max_delay is -1; use a whole number of 0",
        ),
        (lambda: homework.VariableDelayGRUMemory("8", 3), "hidden_size is '8'"),
        (lambda: homework.EchoDataset(-1), "delay is -1; use a whole number of 0 or more"),
        (lambda: homework.EchoDataset(delay=1.5), "delay is 1.5"),
        (lambda: homework.EchoDataset(seq_length=0), "seq_length is 0; use a whole number of 1"),
        (lambda: homework.EchoDataset(size=-1), "size is -1"),
        (lambda: homework.VariableDelayEchoDataset(max_delay=None), "max_delay is None"),
        (lambda: homework.VariableDelayEchoDataset(seq_length=True), "seq_length is True"),
        (lambda: homework.VariableDelayEchoDataset(size="9"), "size is '9'"),
    ],
)
def test_sizes_that_are_none_are_refused(make, says):
    with pytest.raises(SettingError) as refused:
        make()
    assert says in str(refused.value)


# The data, beside the printed ones


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_items_and_batches_are_of_the_printed_types_shapes_and_layouts(name, batch_size):
    theirs, ours = both(name, 3, 10, 25)
    assert isinstance(ours, IterableDataset)
    assert len(theirs) == len(ours) == 25
    for a, b in (
        (list(theirs), list(ours)),
        (list(DataLoader(theirs, batch_size)), list(DataLoader(ours, batch_size))),
    ):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert type(one) is type(other)
            for part, same in zip(one, other, strict=True):
                assert type(part) is type(same)
                if isinstance(part, torch.Tensor):
                    assert part.dtype == same.dtype
                    assert part.shape == same.shape
                    assert part.is_contiguous()
                    assert same.is_contiguous()


@settings(deadline=None, max_examples=40)
@given(
    varies=st.booleans(),
    delay=st.integers(0, 12),
    length=st.integers(1, 9),
    size=st.integers(0, 70),
    batch=st.integers(1, 80),
    drop=st.booleans(),
)
def test_every_item_is_a_sequence_and_its_echo_in_as_many_batches_as_printed(
    varies, delay, length, size, batch, drop
):
    name = DATA[varies]
    theirs, ours = both(name, delay, length, size)
    loader = DataLoader(ours, batch_size=batch, drop_last=drop)
    batches = list(loader)
    assert len(loader) == len(batches)
    if delay <= length:  # the printed echo is longer than its sequence where the delay is
        assert [len(b[0]) for b in batches] == [
            len(b[0]) for b in DataLoader(theirs, batch_size=batch, drop_last=drop)
        ]
    items = [item for b in batches for item in zip(*b, strict=True)]
    for item in [*ours, *items]:
        read, d, echo = item if varies else (item[0], delay, item[1])
        assert 0 <= d <= delay
        assert read.shape == echo.shape == (length,)
        assert 1 <= read.min() <= read.max() <= 26
        assert echo.tolist() == ([0] * d + read.tolist())[:length]


@pytest.mark.parametrize("name", DATA)
def test_letters_and_delays_are_drawn_alike_often(name):
    ours = getattr(homework, name)(4, 20, 5_000)
    random.seed(0)
    for parts in (list(zip(*ours, strict=True)), list(zip(*DataLoader(ours, 100), strict=True))):
        # Of 100,000 letters each gets 3,846, give or take 61: six times that is never seen.
        counts = torch.cat([p.flatten() for p in parts[0]]).bincount(minlength=27)
        assert counts[0] == 0
        assert (counts[1:] - 100_000 / 26).abs().max() < 370
        if len(parts) == 3:
            delays = torch.tensor([d for p in parts[1] for d in torch.as_tensor(p).view(-1)])
            assert (delays.bincount(minlength=5) - 1_000).abs().max() < 170


@pytest.mark.parametrize("source", [PRINTED, vars(homework)], ids=["printed", "ours"])
@pytest.mark.parametrize("name", DATA)
def test_randoms_seed_decides_the_data_and_torchs_seed_and_stream_have_no_part_in_it(name, source):
    data = source[name](size=30)

    def epoch(seed, of_torch=0):
        if seed is not None:
            random.seed(seed)
        torch.manual_seed(of_torch)
        before = torch.get_rng_state()
        items = torch.stack([item[0] for item in data])
        assert torch.equal(torch.get_rng_state(), before)
        batches = torch.cat([b[0] for b in DataLoader(data, 8)])
        return items, batches

    first, again, other, onwards = epoch(7), epoch(7, of_torch=1), epoch(8), epoch(None)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    for more in (other, onwards):
        for a, b in zip(first, more, strict=True):
            assert not torch.equal(a, b)
    assert not torch.equal(*first)  # each epoch has its own data


@pytest.mark.parametrize("name", DATA)
def test_the_data_are_made_for_the_default_device_and_are_the_same_on_each(name):
    data = getattr(homework, name)(size=4)
    batches = iter(DataLoader(data, batch_size=4))
    with torch.device("meta"):  # stands for a GPU
        on_meta = [*next(iter(data)), *next(batches)]
        printed = [*next(iter(PRINTED[name](size=4)))]
    places = [p.device.type for p in on_meta if isinstance(p, torch.Tensor)]
    assert set(places) == {"meta"} == {p.device.type for p in printed if not isinstance(p, int)}
    assert data.seq_length == len(on_meta[0])


@pytest.mark.parametrize("name", DATA)
def test_two_readers_at_once_do_not_share_their_rows(name):
    data = getattr(homework, name)(size=9)
    random.seed(0)
    pairs = list(zip(data, data, strict=True))
    assert len(pairs) == 9
    assert any(not torch.equal(a[0], b[0]) for a, b in pairs)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("collate", [list, None])
@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore::DeprecationWarning")
def test_workers_share_the_items_out_and_draw_different_ones(name, collate):
    data = getattr(homework, name)(3, 12, 21)
    torch.manual_seed(0)
    loader = DataLoader(data, batch_size=4, num_workers=2, collate_fn=collate)
    assert len(loader) == 6
    reads = [row for b in loader for row in ([i[0] for i in b] if collate else b[0].unbind(0))]
    assert len(reads) == 21  # printed: 42, every item once for each worker
    assert len({tuple(row.tolist()) for row in reads}) == 21


def test_a_collation_of_ones_own_and_one_of_torchs_called_by_hand_get_plain_items():
    data = homework.VariableDelayEchoDataset(3, 6, 8)
    (items,) = DataLoader(data, batch_size=8, collate_fn=lambda batch: batch)
    assert [type(item) for item in items] == [tuple] * 8
    read, delays, echo = torch.utils.data.default_collate(list(data))
    assert read.shape == echo.shape == (8, 6)
    assert delays.dtype == torch.int64

    class Odd(homework.EchoDataset):
        def __iter__(self):
            return (item for item in super().__iter__() if item[0][0] % 2)

    for read, _ in DataLoader(Odd(size=40), batch_size=5):
        assert (read[:, 0] % 2 == 1).all()


def test_a_row_may_be_written_to_and_kept():
    data = homework.EchoDataset(size=3000)
    random.seed(3)
    batches = iter(DataLoader(data, batch_size=4))
    first, second = next(batches), next(batches)
    kept = second[0].clone()
    first[0].zero_()
    assert torch.equal(second[0], kept)
    one = pickle.loads(pickle.dumps(next(iter(data))))
    assert one[0].shape == (15,)


def test_a_long_sequence_takes_the_memory_of_its_own_batch():
    (batch,) = DataLoader(homework.VariableDelayEchoDataset(10**15, 25_000, 2), batch_size=2)
    assert batch[0].untyped_storage().nbytes() == 2 * 25_000 * 8
    assert batch[2].shape == (2, 25_000)


def test_data_in_random_order_or_by_number_are_no_more_than_the_printed():
    for data in both("EchoDataset"):
        with pytest.raises(ValueError, match="shuffle"):
            DataLoader(data, shuffle=True)
        with pytest.raises(NotImplementedError):
            data[0]


# The graders


class Echo:
    """Says what is right, and now and then nothing."""

    max_delay = 8

    def test_run(self, s, delay=4):
        answer = (" " * delay + s)[: len(s)]
        return "".join(" " if ord(c) % 7 == 0 else c for c in answer)


@pytest.mark.parametrize("name", ["test_model", "test_variable_delay_model"])
def test_a_grader_gives_the_printed_grade_for_a_seed(name):
    grades = []
    for source in (PRINTED, vars(homework)):
        random.seed(5)
        grades.append(source[name](Echo()))
    assert grades[0] == grades[1]
    assert 0.8 < grades[0] < 0.9


def test_a_grader_asks_for_a_model_and_strings_that_are_longer_than_its_delays():
    assert homework.test_variable_delay_model(Echo(), seq_length=9) > 0.8
    for grader in (homework.test_model, homework.test_variable_delay_model):
        with pytest.raises(SettingError, match="give a model that has test_run"):
            grader(3)
    with pytest.raises(SettingError, match="seq_length is 8; use a whole number of 9 or more"):
        homework.test_variable_delay_model(Echo(), seq_length=8)
    Nameless = type("Nameless", (), {"test_run": lambda self, s, delay: s})
    with pytest.raises(SettingError, match=r"model.max_delay is None"):
        homework.test_variable_delay_model(Nameless())


# What the table in docs/students.md says of the printed classes


def test_the_printed_classes_do_what_the_table_of_differences_says():
    memory, varied = PRINTED["GRUMemory"](8), PRINTED["VariableDelayGRUMemory"](8, 5)
    with torch.no_grad():
        for p in memory.parameters():
            p.mul_(5)  # so that its answers differ from letter to letter
    assert len({memory.train().test_run("thequickbrownfox") for _ in range(30)}) > 1
    with pytest.raises(RuntimeError):
        memory.test_run("")
    read = memory.eval().test_run
    assert read("EFZ`") == read("`au`")
    for s in ("D", "1", " ", "{"):
        with pytest.raises(IndexError):
            read(s)
    with pytest.raises((RuntimeError, ValueError)):
        PRINTED["GRUMemory"](8).double().test_run("abc")
    x = homework.idx_to_onehot(torch.ones(2, 4).long())
    for delays in (3, [3, 1], torch.tensor([[3], [1]]), torch.ones(2, 4).long()):
        with pytest.raises((AttributeError, RuntimeError)):
            varied(x, delays)
    for delays in (torch.tensor([6, 1]), torch.tensor([1.0, 2.0]), torch.tensor([1, 2, 3])):
        with pytest.raises((IndexError, RuntimeError)):
            varied(x, delays)
    onehot = PRINTED["idx_to_onehot"]
    assert onehot(torch.tensor([1.7])).argmax() == 1
    for ids in (torch.ones(2, 3).T, [1], 1):
        with pytest.raises((AttributeError, RuntimeError)):
            onehot(ids)
    _, echo = next(iter(PRINTED["EchoDataset"](delay=20, seq_length=15)))
    assert len(echo) > 15
    with pytest.raises(RuntimeError):
        next(iter(PRINTED["EchoDataset"](delay=-1)))
    next(iter(PRINTED["EchoDataset"](seq_length=True)))
