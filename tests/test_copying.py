"""A copy of a layer computes with weights of its own, whatever the layer is."""

import pytest
import torch
from torch import nn

from echospan.cores import as_core, copy_module
from odd_layers import (
    CARRIED,
    ByClosure,
    FlatMemory,
    InPlainList,
    Views,
    WeightDrop,
    compiled_in_place,
    gru,
    loaded,
    made,
)


def with_hook():
    """A GRU whose output goes through a layer that a closure calls."""
    layer, head = gru(), nn.Linear(8, 8)
    layer.head = head
    layer.register_forward_hook(lambda module, x, out: (head(out[0]), out[1]))
    return layer


def weight_drop_by_closure():
    layer = gru()
    raw = layer.raw = nn.Parameter(layer.weight_hh_l0.data)
    del layer._parameters["weight_hh_l0"]
    plain = layer.forward

    def forward(x, h=None):
        layer.weight_hh_l0 = 2 * raw
        return plain(x, h)

    layer.forward = forward
    return layer


def compiled_forward():
    layer = gru()
    layer.forward = torch.compile(layer.forward, backend="eager")
    return layer


def tied():
    layer = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    layer[1].weight = layer[0].weight
    return layer


def used(make):
    """A layer that keeps results of its last call, with their graph."""
    layer = make()
    layer(torch.randn(2, 5, 4))
    return layer


LAYERS = {
    name: CARRIED[name][0]
    for name in (
        "scripted",
        "traced",
        "fx",
        "compiled",
        "weight norm",
        "weight norm, the old one",
        "orthogonal",
        "containers",
    )
} | {
    "loaded": loaded,
    "compiled in place": compiled_in_place,
    "a part compiled in place": lambda: nn.Sequential(compiled_in_place()),
    "compiled forward": compiled_forward,
    "hook": with_hook,
    "closure": ByClosure,
    "weight drop": lambda: WeightDrop(times=2),
    "weight drop by a closure": weight_drop_by_closure,
    "used weight drop": lambda: used(lambda: WeightDrop(times=2)),
    "view of a parameter": Views,
    "parameters in one memory": FlatMemory,
    "parameter in a list": InPlainList,
    "tied": tied,
    "made in inference mode": torch.inference_mode()(gru),
}


def output(layer):
    y = layer(torch.ones(2, 5, 4))
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_copy_says_the_same_and_learns_alone(make):
    layer = made(make).eval()  # without what dropout draws
    copied = copy_module(layer)
    with torch.inference_mode():
        before = output(layer).clone()
    torch.testing.assert_close(output(copied), before)
    optimiser = torch.optim.Adam(copied.parameters(), lr=0.1)
    output(copied).square().sum().backward()
    optimiser.step()
    assert not torch.allclose(output(copied), before)
    assert all(p.grad is None for p in layer.parameters())
    with torch.inference_mode():
        assert torch.equal(output(layer), before)
    assert {n for n, _ in copied.named_parameters()} == {n for n, _ in layer.named_parameters()}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_so_does_a_copy_of_the_core_that_is_made_of_it(make):
    core = copy_module(as_core(copy_module(made(make))))
    first, _ = core(torch.ones(2, 5, core.input_size))
    first.square().sum().backward()
    torch.optim.Adam(core.parameters(), lr=0.1).step()
    assert not torch.allclose(core(torch.ones(2, 5, core.input_size))[0], first)


def test_what_is_tied_stays_tied():
    copied = copy_module(tied())
    assert copied[0].weight is copied[1].weight


def test_hooks_on_gradients_and_attributes_of_parameters_come_along():
    layer = nn.Linear(4, 8)
    layer.weight.register_hook(lambda slope: slope * 0)
    layer.weight.tag = "frozen"
    copied = copy_module(layer)
    output(copied).sum().backward()
    assert not copied.weight.grad.any()
    assert copied.bias.grad.any()
    assert copied.weight.tag == "frozen"


def test_two_closures_over_one_variable_share_it_in_the_copy_too():
    class Counts(nn.Linear):
        def __init__(self):
            super().__init__(4, 8)
            calls = [self.weight, 0]

            def count():
                calls[1] += 1
                return calls[0]

            self.count, self.calls = count, lambda: calls[1]

        def forward(self, x):
            return x @ self.count().T

    layer = Counts()
    copied = copy_module(layer)
    output(copied)
    assert (copied.calls(), layer.calls()) == (1, 0)
    assert copied.count() is copied.weight


def test_under_inference_mode_the_copy_may_still_be_trained():
    with torch.inference_mode():
        copied = copy_module(gru())
    output(copied).sum().backward()
    assert copied.weight_hh_l0.grad is not None


def test_a_frozen_parameter_stays_frozen():
    layer = gru()
    layer.weight_hh_l0.requires_grad_(False)
    assert [p.requires_grad for p in copy_module(layer).parameters()] == [True, False, True, True]
