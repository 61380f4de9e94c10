"""The width of a layer is set by the names of its arguments, never by their position."""

import dataclasses
import functools
from typing import Optional

import pytest
import torch
from torch import nn

import echospan
from echospan import sizing
from echospan.errors import CoreError, SettingError
from echospan.layers import built, fit_hidden, sizes_of


@pytest.mark.parametrize(
    ("sets", "names"),
    [
        ("input", "input_size in_features in_channels in_dim d_in d_input input_dim num_inputs "
                  "n_inputs inputSize nin ninp"),
        ("hidden", "hidden hidden_size hidden_dim hidden_channels hidden_units d_hidden n_hidden "
                   "units num_units n_units nhid rnn_size cell_size hiddenSize reservoir_size"),
        ("model", "d_model dim_model model_dim dim d width channels num_channels size"),
        ("embedded", "embed_dim embedding_dim n_embd emb_dim emb_size embedding_size"),
        ("features", "features num_features n_features feature_dim"),
        ("output", "output_size out_features out_channels d_out output_dim num_outputs"),
        (None, "n_heads num_heads nhead heads head_dim num_layers n_layers layers depth blocks "
               "dropout p bias window_size kernel_size vocab_size batch_size block_size max_len n "
               "dim_feedforward intermediate_size d_state d_conv expand states cell rnn_cell "
               "rnn_type hidden_act embedding input output num_hidden_layers seq_len k a x"),
    ],
)  # fmt: skip
def test_names_say_what_an_argument_sets(sets, names):
    assert {name: sizing.role(name) for name in names.split()} == dict.fromkeys(names.split(), sets)


class Named(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.g = nn.GRU(features, hidden, batch_first=True)

    def forward(self, x, h=None):
        return self.g(x, h)


ONE_WIDTH = [
    "hidden=8", "hidden_size=8", "d_model=8", "dim=8", "width=8", "channels=8", "units=8",
    "embed_dim=8", "n_embd=8", "features=8", "input_size=8", "size=8", "d=8", "hiddenSize=8",
    "hidden: int = 8", "hidden: Optional[int] = 8", "hidden: 'int | None' = None",
]  # fmt: skip
"""Arguments that alone set the width."""


@pytest.mark.parametrize("argument", ONE_WIDTH)
@pytest.mark.parametrize("place", ["n_heads=128, {}", "{}, n_heads=128", "*, n_heads=2, {}"])
def test_a_width_with_a_default_is_set_wherever_it_stands(argument, place):
    name = argument.partition("=")[0].partition(":")[0].strip()

    def make(**given):
        assert given in ({}, {name: 24})
        width = given.get(name, 8)
        return Named(width, width)

    made = _signed(make, place.format(argument))
    core = built(made, 27, 24, None, 0)
    assert (core.input_size, core.hidden_size) == (24, 24)
    assert built(made, 27, None, None, 0).hidden_size == 8  # its own default, where none is asked


def _signed(make, text):
    """The function with the signature of that text."""
    import inspect

    space = {"Optional": Optional}
    exec(f"def f({text}): ...", space)
    make.__signature__ = inspect.signature(space["f"])
    return make


@pytest.mark.parametrize(
    ("signature", "given"),
    [
        ("input_size, hidden_size", {"input_size": 5, "hidden_size": 24}),
        ("hidden_size, input_size", {"input_size": 5, "hidden_size": 24}),
        ("n_layers=1, *, hidden=3, features=2", {"features": 5, "hidden": 24}),
        ("in_features, out_features, bias=True", {"in_features": 5, "out_features": 24}),
        ("embedding_dim, hidden_dim", {"embedding_dim": 5, "hidden_dim": 24}),
        ("input_dim, d_model, hidden_dim=64", {"input_dim": 5, "d_model": 24}),
        ("input_size, hidden_size, output_size",
         {"input_size": 5, "hidden_size": 24, "output_size": 24}),
        ("f, h", {"f": 5, "h": 24}),
    ],
)  # fmt: skip
def test_the_widths_of_input_and_layer_are_told_apart(signature, given):
    def make(**said):
        assert said == given
        return Named(5, 24)

    core = built(_signed(make, signature), 27, 24, 5, 0)
    assert (core.input_size, core.hidden_size) == (5, 24)


class Subclass(nn.GRU):
    def __init__(self, *args, extra=1, **kwargs):
        super().__init__(*args, batch_first=True, **kwargs)


class Fixed(nn.GRU):
    def __init__(self, **kwargs):
        super().__init__(input_size=27, hidden_size=12, batch_first=True, **kwargs)


@pytest.mark.parametrize(
    ("factory", "hidden"),
    [
        (nn.GRU, 24),
        (nn.LSTM, 24),
        (Subclass, 24),
        (functools.partial(nn.GRU, batch_first=True), 24),
        (functools.partial(nn.GRU, 9), 24),
        (functools.partial(nn.GRU, hidden_size=7), None),
        (Fixed, None),
    ],
)
def test_arguments_that_are_passed_on_to_a_base_are_known(factory, hidden):
    core = built(factory, 27, hidden, None, 0)
    assert core.hidden_size == (hidden or {Fixed: 12}.get(factory, 7))


@dataclasses.dataclass
class Config:
    d_model: int = 8


class Configured(Named):
    def __init__(self, config: Config):
        super().__init__(config.d_model, config.d_model)


class Headed(Named):
    def __init__(self, n_heads=3, dim=12):
        assert dim % n_heads == 0, "dim must be divided by n_heads"
        super().__init__(dim, dim)


class HeadedLater(Named):
    """Finds out in its forward that the heads do not divide its width."""

    def __init__(self, d_model: int, n_heads: int = 4):
        super().__init__(d_model, d_model)
        self.heads = n_heads

    def forward(self, x, h=None):
        y, h = self.g(x, h)
        return y.unflatten(-1, (self.heads, y.shape[-1] // self.heads)).flatten(-2), h


@pytest.mark.parametrize(
    ("factory", "error", "sentence"),
    [
        (Configured, CoreError, r"takes a configuration object \(config: Config\) and cannot be"),
        (lambda config: Named(8, 8), CoreError, r"takes a configuration object \(config\)"),
        (lambda a, b: Named(a, b), CoreError, r"requires a, b, which no width can be given for"),
        (lambda hidden, num_layers: 0, CoreError, r"requires num_layers, which no width"),
        (lambda n_heads=4: Named(8, 8), SettingError,
         r"no argument that sets its width \(its arguments are n_heads\); leave out hidden=24"),
        (lambda: Named(8, 8), SettingError, r"\(it takes no arguments\); leave out hidden=24"),
        (lambda hidden="wide": Named(8, 8), SettingError, r"no argument that sets its width"),
        (lambda channels=(8, 8): Named(8, 8), SettingError, r"no argument that sets its width"),
        (lambda size=True: Named(8, 8), SettingError, r"no argument that sets its width"),
        (Named(8, 8), SettingError, r"a Named that is made already has its width, 8; leave out"),
        (functools.partial(Headed, 5), SettingError, r"cannot be built at hidden 24 .* use 20 or"),
        (functools.partial(HeadedLater, n_heads=7), SettingError, r"use 21 or 28, the nearest"),
    ],
)  # fmt: skip
def test_a_width_that_cannot_be_set_is_refused_in_one_sentence(factory, error, sentence):
    with pytest.raises(error, match=sentence):
        echospan.profile(factory, max_delay=1, symbols=100, hidden=24)


def test_a_width_that_a_layer_has_already_may_be_asked_for():
    assert built(lambda: Named(8, 8), 27, 8, None, 0).hidden_size == 8
    assert built(Named(8, 8), 27, 8, None, 0).hidden_size == 8


@pytest.mark.parametrize(
    ("factory", "width"),
    [
        (lambda dim: Headed(3, dim), 129),  # the default of 128 has no three heads
        (lambda d_model: HeadedLater(d_model, 12), 132),
        (lambda hidden: Headed(1, hidden), 128),
    ],
)
def test_a_default_that_heads_do_not_divide_gives_way_to_the_nearest_width(factory, width):
    assert built(factory, 27, None, None, 0).hidden_size == width


def test_the_checks_are_run_at_a_width_that_the_layer_can_have():
    assert all(r.ok for r in echospan.check(lambda dim: Headed(3, dim)))
    assert all(r.ok for r in echospan.check(Headed))


@pytest.mark.parametrize(
    ("factory", "features"),
    [
        (lambda width=8: Named(width, width), 5),
        (lambda hidden=8: Named(hidden, hidden), 5),
        (lambda hidden=8: Named(5, hidden), 5),
        (lambda features, hidden: Named(features, hidden), 5),
    ],
)
def test_the_width_of_the_input_is_set_where_it_is_said(factory, features):
    assert built(factory, 27, None, features, 0).input_size == features
    assert all(r.ok for r in echospan.check(factory, features=features))


class Leaky(nn.Module):
    """That of docs/researchers.md, in short."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.read = nn.Linear(width, width)
        self.pace = nn.Parameter(torch.linspace(-2, 4, width))

    def forward(self, x, state=None):
        u, keep = self.read(x), torch.sigmoid(self.pace)
        h = torch.zeros_like(x[:, 0]) if state is None else state
        outputs = []
        for u_t in u.unbind(1):
            h = keep * h + (1 - keep) * u_t
            outputs.append(h)
        return torch.stack(outputs, 1), h


@pytest.mark.parametrize("size", [{"parameters": 30_000}, {"state": 48}])
@pytest.mark.parametrize("made", [Leaky, nn.GRU, lambda dim: HeadedLater(dim, 2), "lstm"])
def test_a_layer_is_found_the_width_of_a_size(made, size):
    hidden = fit_hidden(made, max_delay=2, **size)
    (what, wanted) = next(iter(size.items()))
    assert abs(sizes_of(built(made, 27, hidden, None, 0), 2)[what] - wanted) <= 0.02 * wanted


@pytest.mark.parametrize(
    ("made", "size", "sentence"),
    [
        (Leaky, {"parameters": 10**15}, r"the size asked for is 1,000,000,000,000,000 parameters"),
        (Leaky, {"state": 10**15}, r"use 1 to 100,000,000"),
        (lambda n_heads=2: Named(8, 8), {"parameters": 500}, r"no argument that sets its width"),
        (lambda: Named(8, 8), {"state": 500}, r"no argument that sets its width"),
        (lambda dim: Headed(128, dim), {"state": 200}, r"no nearer to 200 state than (128|256)"),
        (nn.Linear, {"state": 5}, r"has no state at any width"),
    ],
)
def test_a_size_that_no_width_has_is_refused_before_anything_large_is_built(made, size, sentence):
    with pytest.raises(SettingError, match=sentence):
        fit_hidden(made, max_delay=2, **size)


def test_no_module_much_larger_than_asked_is_built():
    largest = 0

    def make(width):
        nonlocal largest
        largest = max(largest, width)
        return Leaky(width)

    fit_hidden(make, parameters=40_000, max_delay=1)
    assert largest < 400


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.g = nn.LazyLinear(16), nn.GRU(16, 16, batch_first=True)

    def forward(self, x, h=None):
        return self.g(self.read(x), h)


def test_parameters_made_in_the_first_call_are_made_from_the_seed():
    one, two, other = (built(Lazy, 27, None, 9, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(t, two[name]) for name, t in one.items())
    assert not torch.equal(one["module.read.weight"], other["module.read.weight"])
