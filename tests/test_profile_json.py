"""A profile from JSON is what `to_json` wrote, or is refused with the name of the field."""

import json
import random

import pytest
from benchmarks.report import made_up

from echospan.errors import SettingError
from echospan.grids import Cell
from echospan.profiling import Profile, combine

WHOLE = made_up(Cell(core="gru", symbols=100_000, max_delay=3), 2, random.Random(0))
HUGE = 10**400


def changed(path, value):
    """The JSON of a profile with the field at a path replaced, or deleted where value is `...`."""
    document = json.loads(WHOLE.to_json())
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return json.dumps(document)


def test_a_profile_comes_back_whole():
    back = Profile.from_json(WHOLE.to_json())
    assert back == WHOLE
    assert back.to_json() == WHOLE.to_json()


SEED = ("seeds", 0)
DELAY = (*SEED, "delays", 1)
REFUSED = [
    (("name",), 7, "name is 7"),
    (("name",), "x" * 2_000, "name is 'xxx"),
    (("symbols",), 1, "symbols is 1, not a whole number of 2 or more"),
    (("symbols",), 26.0, "symbols is 26.0"),
    (("max_delay",), -1, "max_delay is -1"),
    (("max_delay",), 4, "delays has 4 entries, and max_delay is 4"),
    (("max_delay",), 2, "delays is"),
    (("max_delay",), 10**6, "delays has 4 entries"),
    (("max_delay",), True, "max_delay is True"),
    (("at",), 1, "at is 1,"),
    (("at",), "0.99", "at is '0.99'"),
    (("hidden",), 0, "hidden is 0"),
    (("state",), HUGE, "state is a number of 1,329 bits"),
    (("parameters",), None, "parameters is None"),
    (("threads",), 0, "threads is 0"),
    (("seeds",), [], "its seeds are not one or more"),
    (("seeds",), {}, "seeds is {}"),
    (("seeds",), [[]], r"seeds[0]: [] is no object"),
    (("settings",), [], "[] is no object"),
    (("settings", "batch"), {"deep": 1}, "settings is {'deep': 1}"),
    (("settings", "batch"), HUGE, "settings is a number of"),
    (("versions", "torch"), 2, "versions is 2"),
    (("versions",), "2.0", "'2.0' is no object"),
    (("more",), 1, "'more' is no name of a field"),
    (("threads",), ..., "threads is missing"),
    ((*SEED, "span"), "9", "seeds[0]: span is '9'"),
    ((*SEED, "span"), 4, "span is 4, not a whole number from -1 to 3"),
    ((*SEED, "span_at_most"), 1, "span_at_most is 1, not a whole number from 2 to 3"),
    ((*SEED, "reads"), -2, "reads is -2"),
    ((*SEED, "stores"), 2.0, "stores is 2.0"),
    ((*SEED, "reads_recall"), [0.5] * 3, "reads_recall is [0.5, 0.5, 0.5]"),
    ((*SEED, "stores_recall", 0), 1.5, "stores_recall is 1.5"),
    ((*SEED, "gradient", 0), -0.1, "gradient is -0.1"),
    ((*SEED, "blank_accuracy"), 7.0, "blank_accuracy is 7.0"),
    ((*SEED, "seconds"), 0, "seconds is 0"),
    ((*SEED, "microseconds"), HUGE, "microseconds is a number of"),
    ((*SEED, "learning_rate"), "fast", "learning_rate is 'fast'"),
    ((*SEED, "symbols"), -1, "symbols is -1"),
    ((*SEED, "rising"), 1, "rising is 1, not true or false"),
    ((*SEED, "lengths"), [[1]], "lengths does not hold lists of 2"),
    ((*SEED, "lengths", 0, 1), [1.0], "lengths is [1.0], not a list of 4 numbers"),
    ((*SEED, "curve", 0), [1, 2, 1], "curve is 2"),
    ((*SEED, "symbols_to_target"), 5, "one of seconds_to_target and symbols_to_target"),
    ((*SEED, "steps"), ..., "steps is missing"),
    ((*DELAY, "delay"), 2, r"delays[1]: delay is 2"),
    ((*DELAY, "trials"), 0, "trials is 0"),
    ((*DELAY, "correct"), 9_000, "correct is 9000"),
    ((*DELAY, "low"), 1.1, "low is 1.1"),
    ((*DELAY, "high"), 0.0, "high is 0.0"),
    ((*DELAY, "bits"), 5.0, "bits is 5.0"),
    (DELAY, 3, "3 is no object"),
]


@pytest.mark.parametrize(("path", "value", "says"), REFUSED)
def test_a_field_that_does_not_fit_is_named(path, value, says):
    with pytest.raises(SettingError) as refused:
        Profile.from_json(changed(path, value))
    assert says in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "{", '"x"', "1" * 5_000, "\ud800", "[" * 100_000, '{"a":' * 100_000),
        WHOLE.to_json().replace("0.9999", "NaN"),
        WHOLE.to_json().replace("0.9999", "Infinity"),
        WHOLE.to_json().replace("0.9999", "1e999"),
    ],
)
def test_what_is_no_json_object_of_finite_numbers_is_refused_in_a_sentence(text):
    with pytest.raises(SettingError, match="this is no profile of echospan"):
        Profile.from_json(text)


def test_the_same_seed_twice_is_refused():
    document = json.loads(WHOLE.to_json())
    document["seeds"] *= 2
    with pytest.raises(SettingError, match="each once"):
        Profile.from_json(json.dumps(document))
    document["seeds"][1] = document["seeds"][0] | {"seed": 1}
    two = Profile.from_json(json.dumps(document))
    other = Profile.from_json(changed((*SEED, "seed"), 1))
    assert combine([WHOLE, other]) == two
