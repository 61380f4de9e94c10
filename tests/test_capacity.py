"""Memory capacity is what it is known to be, whatever the scale, and its interval holds it."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import solve_discrete_lyapunov
from scipy.signal import lfilter
from torch import nn

from echospan.capacity import capacity_of_states, controllability_rank, memory_capacity
from echospan.cores import GRU
from echospan.errors import CoreError, SettingError
from echospan.selftest import LinearCore, Momentary, delay_line, leaky_integrator, ring


def of_linear(a, b, lags):
    """Jaeger's capacity of x ← a x + b u by lag: c Σ⁻¹ c with c = aᵈ b and Σ = a Σ aᵀ + b bᵀ."""
    sigma, c, out = solve_discrete_lyapunov(a, np.outer(b, b)), b, []
    for _ in range(lags + 1):
        out.append(c @ np.linalg.solve(sigma, c))
        c = a @ c
    return np.array(out)


def holds(c, known):
    """At which lags the interval holds what is known, and whether that of the total does."""
    by_lag = (np.array(c.low) <= known) & (known <= np.array(c.high))
    return by_lag, c.total_low <= known[1:].sum() <= c.total_high


@pytest.mark.parametrize("weight", [0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_ring_of_20_remembers_19_steps_beside_the_present_one(weight, seed):
    c = memory_capacity(ring(20, weight), 40, steps=100_000, seed=seed)
    assert c.lags == tuple(range(41))
    assert c.rank == 20
    assert c.total == pytest.approx(19 + weight**40, abs=0.05)
    known = [weight ** (2 * 20 * (d // 20)) * (1 - weight**40) for d in c.lags]
    np.testing.assert_allclose(c.values, known, atol=0.01)


def test_the_closed_form_of_the_ring_is_that_of_every_linear_system():
    core = ring(6, 0.8)
    known = [0.8 ** (12 * (d // 6)) * (1 - 0.8**12) for d in range(13)]
    np.testing.assert_allclose(of_linear(core.a.numpy(), core.b.numpy(), 12), known, atol=1e-12)


def test_a_delay_line_of_9_has_capacity_1_at_lags_0_to_8_and_none_after():
    c = memory_capacity(delay_line(9), 20)
    np.testing.assert_allclose(c.values[:9], 1, atol=1e-9)
    np.testing.assert_allclose(c.values[9:], 0, atol=0.005)
    assert holds(c, np.array([1.0] * 9 + [0.0] * 12))[1]


def test_what_sees_one_step_has_no_memory():
    c = memory_capacity(Momentary(), 30)
    assert c.total_low == 0
    assert c.total_high < 0.02
    assert c.values[0] > 0.9


def test_no_floor_is_left_where_nothing_is_remembered():
    totals = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        inputs, states = rng.uniform(-1, 1, 2000), rng.normal(size=(2000, 5))
        totals.append(capacity_of_states(inputs, states, 20, rows=10, warm_up=0).total)
    # The plain squared correlations would add up to about 20/1800 = 0.011.
    assert abs(np.mean(totals)) < 3 * np.std(totals) / 10 < 0.005


def random_core(seed, nodes, unreached):
    """A stable linear system of which `unreached` nodes have no path from the input."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(nodes, nodes)), rng.normal(size=nodes)
    a *= 0.8 / abs(np.linalg.eigvals(a)).max()
    if unreached:
        a[:unreached, unreached:] = 0
        b[:unreached] = 0
    return a, b


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.array([[0.9]]), np.ones(1)),
        (np.array([[0.99]]), np.ones(1)),
        (ring(5, 0.9).a.numpy(), ring(5, 0.9).b.numpy()),
        random_core(3, 4, 0),
    ],
    ids=["leaky 0.9", "leaky 0.99", "ring of 5", "random"],
)
def test_the_95_percent_interval_holds_the_truth_in_90_of_100_repeats(a, b):
    lags, known = 12, of_linear(a, b, 12)
    by_lag, of_total = np.zeros(lags + 1), 0
    eigen, vectors = np.linalg.eig(a)
    drive = np.linalg.solve(vectors, b.astype(complex))
    for seed in range(100):
        u = np.random.default_rng(seed).uniform(-1, 1, (20, 1200))
        modes = [lfilter([g], [1, -e], u, axis=1) for e, g in zip(eigen, drive, strict=True)]
        states = (np.stack(modes, -1) @ vectors.T).real
        hit, hit_total = holds(capacity_of_states(u, states, lags, warm_up=1000), known)
        by_lag += hit
        of_total += hit_total
    assert by_lag.min() >= 90
    assert of_total >= 90


def test_one_long_record_gives_what_separate_rows_give():
    u = np.random.default_rng(0).uniform(-1, 1, 40_000)
    c = capacity_of_states(u, lfilter([1], [1, -0.9], u)[:, None], 20)
    assert all(holds(c, 0.19 * 0.81 ** np.arange(21))[0])
    assert c.settings == {"rows": 20, "confidence": 0.95, "warm_up": 100}
    assert c.steps == 20 * (39_900 // 20 - 20)


@pytest.mark.parametrize("scale", [1e-6, 1e6, 1e-200, 1e200])
@pytest.mark.parametrize("activation", [np.asarray, np.tanh])
def test_the_scale_of_the_states_is_nothing(scale, activation):
    rng = np.random.default_rng(0)
    a, b = random_core(5, 12, 0)
    u = rng.uniform(-0.8, 0.8, 4000)
    states = np.zeros((4000, 12))
    for t in range(1, 4000):
        states[t] = activation(a @ states[t - 1] + b * u[t])
    one, other = (capacity_of_states(u, states * s, 30, rows=10) for s in (1, scale))
    for field in ("values", "low", "high", "total", "total_low", "total_high"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    nodes=st.integers(2, 7),
    unreached=st.integers(0, 3),
    exponents=st.lists(st.integers(-8, 8), min_size=7, max_size=7),
)
def test_any_scale_and_rotation_gives_the_same_and_never_more_than_the_rank(
    seed, nodes, unreached, exponents
):
    unreached = min(unreached, nodes - 1)
    a, b = random_core(seed, nodes, unreached)
    rank = controllability_rank(a, b)
    assert rank == nodes - unreached
    u = np.random.default_rng(seed).uniform(-1, 1, 2000)
    states = np.zeros((2000, nodes))
    for t in range(2000):
        states[t] = a @ states[t - 1] + b * u[t]
    c = capacity_of_states(u, states, 20, rows=10)
    half = c.total_high - c.total
    assert c.total + c.values[0] <= rank + half
    assert c.rank <= rank
    scaled = states * 10.0 ** np.array(exponents[:nodes])
    rotation, _ = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(nodes, nodes)))
    for same in (scaled, states @ rotation):
        np.testing.assert_allclose(
            capacity_of_states(u, same, 20, rows=10).values, c.values, atol=1e-6
        )


@pytest.mark.parametrize(
    ("a", "b", "rank"),
    [
        (ring(20, 0.5).a, ring(20, 0.5).b, 20),
        (ring(20, 0.1).a * 1e-6, ring(20, 0.1).b * 1e9, 20),
        (delay_line(9).a, delay_line(9).b, 9),
        (np.diag(np.linspace(-0.9, 0.9, 50)), np.ones(50), 50),  # powers alone give fewer
        (np.diag([0.5, 0.5, 0.25]), np.ones(3), 2),  # two nodes that never differ
        (np.diag([0.5, 0.4, 0.3]), np.array([1, 0, 1]), 2),  # a node without input
        (np.diag([0.5, 0.5, 0.25]), np.array([[1, 0], [0, 1], [1, 1]]), 3),  # two inputs
        (np.eye(3), np.zeros(3), 0),
        (np.zeros((3, 3)), np.ones(3), 1),
    ],
)
def test_controllability_rank(a, b, rank):
    assert controllability_rank(a, b) == rank


def test_a_module_of_torch_goes_in_and_keeps_its_mode():
    core = nn.GRU(1, 16, batch_first=True)
    c = memory_capacity(core, 10, steps=4000)
    assert core.training
    assert 0.5 < c.total < 16
    assert c == memory_capacity(core, 10, steps=4000)
    assert c != memory_capacity(core, 10, steps=4000, seed=2)
    assert json.loads(json.dumps(c.as_dict()))["total"] == c.total
    assert c.settings["seed"] == 1
    ours = GRU(1, 16, batch_first=True)
    ours.load_state_dict(core.state_dict())
    np.testing.assert_allclose(memory_capacity(ours, 10, steps=4000).values, c.values, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16])
def test_low_precision_costs_only_what_it_rounds_away(dtype):
    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.core = ring(8, 0.9)
            self.register_buffer("kind", torch.zeros(1, dtype=dtype))

        def forward(self, x, state=None):
            y, state = self.core(x.double(), state)
            return y.to(dtype), state

    rounded, exact = memory_capacity(Rounded(), 16), memory_capacity(ring(8, 0.9), 16)
    assert rounded.rank == 8
    assert rounded.total == pytest.approx(exact.total, abs=0.01)


U = np.random.default_rng(0).uniform(-0.8, 0.8, 6_000)
X = np.stack([np.concatenate([np.zeros(d), U[: len(U) - d]]) for d in range(20)], 1)
"""A noise and the record of a delay line of 20 that reads it: capacity 19."""


class Line(nn.Module):
    """A delay line of 20 units as an RNN, each output scaled down so that tanh does not bend."""

    def __init__(self, batch_first=True):
        super().__init__()
        self.r = nn.RNN(1, 20, batch_first=batch_first, bias=False)
        with torch.no_grad():
            self.r.weight_ih_l0.zero_()[0] = 0.01
            self.r.weight_hh_l0.zero_()[range(1, 20), range(19)] = 1

    def forward(self, x, h=None):
        return self.r(x, h)


class OutputAlone(Line):
    def forward(self, x):
        return self.r(x)[0]


class ThreeThings(Line):
    def forward(self, x, h=None):
        return (*self.r(x, h), None)


class Named(Line):
    def forward(self, x, h=None):
        y, h = self.r(x, h)
        return {"output": y, "h": h}


class ChannelsFirst(Line):
    def forward(self, x):
        return self.r(x.mT)[0].mT


class Inside(Line):
    h = None

    def forward(self, x):
        y, self.h = self.r(x, self.h)
        return y


class Turned(Line):
    """Says its output times i, and keeps a complex state."""

    def forward(self, x, h=None):
        y, h = self.r(x, None if h is None else h.imag)
        return 1j * y, 1j * h


class ComplexWeights(nn.Module):
    """A diagonal linear recurrence with complex eigenvalues; its output is complex too."""

    def __init__(self, nodes=8):
        super().__init__()
        angle = torch.linspace(0.2, 2.8, nodes)
        self.a = nn.Parameter(torch.polar(torch.full((nodes,), 0.95), angle))

    def forward(self, x, h=None):
        h = torch.zeros(len(x), len(self.a), dtype=self.a.dtype) if h is None else h
        out = []
        for u in x.unbind(1):
            h = self.a * h + u
            out.append(h)
        return torch.stack(out, 1), h


class Double(Line):
    def __init__(self):
        super().__init__()
        self.double()


@pytest.mark.parametrize(
    "core",
    [
        *(Line(), Line(batch_first=False), Line(batch_first=False).r, OutputAlone(), ThreeThings()),
        *(Named(), ChannelsFirst(), Inside(), Turned(), Double()),
        lambda x: OutputAlone()(x.float()),
        lambda x: (OutputAlone()(x.float()).double().mul(1e6).round().long(), None),
    ],
    ids=lambda core: type(core).__name__,
)
def test_the_same_system_has_the_same_capacity_however_it_is_called(core):
    with torch.no_grad():
        c = memory_capacity(core, 30, steps=4_000)
    assert c.total == pytest.approx(19, abs=0.3)


def test_real_and_imaginary_parts_of_a_state_are_nodes_of_their_own():
    c = memory_capacity(ComplexWeights(8), 60, steps=6_000)
    assert c.rank == 16
    assert c.total == pytest.approx(15, abs=0.7)  # with the present input: 16, its number of nodes
    turned = X[:, :10] + 1j * X[:, 10:]
    for states in (1j * X, turned, torch.as_tensor(turned).conj(), turned.astype(np.complex64)):
        assert capacity_of_states(U, states, 30).total == pytest.approx(19, abs=0.3)


@pytest.mark.parametrize(
    ("inputs", "states"),
    [
        (U[:, None], X),
        (U.tolist(), X.tolist()),
        (torch.as_tensor(U), list(torch.as_tensor(X))),
        (torch.as_tensor(U, dtype=torch.float), torch.as_tensor(X).float().requires_grad_()),
        (U, (1e6 * X).round().astype(np.int64)),
        (U.reshape(20, 300), X.reshape(20, 300, 20)),
        (U, np.concatenate([X, np.full((6_000, 3), 7.0)], 1)),  # nodes that never move
    ],
)
def test_records_of_any_kind_of_number_and_container_give_the_same(inputs, states):
    assert capacity_of_states(inputs, states, 30).total == pytest.approx(19, abs=0.3)


def test_the_modes_of_a_caller_and_of_a_module_stay_as_they_are():
    core = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5)).train()
    core[1].eval()
    random = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        c = memory_capacity(core, 5, steps=2_000)
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert (core.training, core[0].training, core[1].training) == (True, True, False)
    assert not core._forward_hooks
    assert torch.equal(torch.get_rng_state(), random)
    assert c.values[0] > 0.99
    assert abs(c.total) < 0.1


class Unstable(nn.Module):
    def forward(self, x, state=None):
        late = torch.arange(x.shape[1])[:, None] > 500
        return x.masked_fill(late, torch.inf), None


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: memory_capacity(nn.GRU(3, 4, batch_first=True)), "reads 3 numbers a step"),
        (lambda: memory_capacity(ring(4, 0.5), 0), "max_lag is 0; use a whole number of 1 or more"),
        (
            lambda: memory_capacity(ring(4, 0.5), rows=2),
            "rows is 2; use a whole number of 3 or more",
        ),
        (
            lambda: memory_capacity(ring(4, 0.5), confidence=95),
            "confidence is 95; use a share between 0 and 1",
        ),
        (
            lambda: memory_capacity(ring(4, 0.5), amplitude=0),
            "amplitude is 0; use a finite number above 0",
        ),
        (lambda: memory_capacity(ring(40, 0.5), steps=40), "do not fit 39 directions"),
        (lambda: memory_capacity(Unstable()), "nan or infinity"),
        (lambda: memory_capacity(nn.Linear(3, 4)), "reads 3 numbers a step"),
        (
            lambda: memory_capacity(lambda x: x.squeeze(-1)),
            r"returned \(20, 1200\) for an input of",
        ),
        (lambda: memory_capacity(lambda x: None), "returned NoneType for an input of"),
        (lambda: memory_capacity(nn.Embedding(3, 4)), "takes whole numbers"),
        (lambda: memory_capacity(nn.RNN(1, 4, bidirectional=True)), "sees the future"),
        (lambda: capacity_of_states(U * 1j, X), "inputs is complex"),
        (lambda: capacity_of_states(U[:-1], X), "do not belong together"),
        (lambda: capacity_of_states(U, X[:, 0]), "do not belong together"),
        (lambda: capacity_of_states(U, np.where(X > 0.7, np.nan, X)), "nan or infinity"),
        (lambda: capacity_of_states(U, np.where(X > 0.7, np.nan, X) * 1j), "nan or infinity"),
        (lambda: capacity_of_states(np.where(U > 0.7, np.inf, U), X), "does not vary, or is not"),
        (lambda: capacity_of_states(U, [[1, 2], [3]] * 3000), "no array of numbers"),
        (lambda: capacity_of_states(U, [["a"]] * 6000), "no array of numbers"),
        (lambda: capacity_of_states(U, None), "no array of numbers"),
        (lambda: capacity_of_states(U.reshape(2, -1), X.reshape(2, 3000, -1)), "3 or more"),
        (lambda: capacity_of_states(U.reshape(60, -1), X.reshape(60, 100, -1)), "counted steps"),
        (lambda: capacity_of_states(np.zeros(5), np.zeros((6, 2))), "do not belong together"),
        (lambda: capacity_of_states(np.zeros(500), np.zeros((500, 2))), "500 steps do not make"),
        (lambda: capacity_of_states(np.zeros(5000), np.zeros((5000, 2))), "does not vary"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(ask, sentence):
    with pytest.raises((SettingError, CoreError), match=sentence):
        ask()


def test_states_that_never_move_remember_nothing():
    u = np.random.default_rng(0).uniform(-1, 1, 5000)
    c = capacity_of_states(u, np.full((5000, 3), 0.7), 10)
    assert c.rank == 0
    assert c.total == pytest.approx(0)
    assert c.total_low == 0


class Port(LinearCore):
    """The documented network of reservoirpy, x = tanh(W x + Win u), in torch."""

    def forward(self, x, state=None):
        h = x.new_zeros(len(x), self.hidden_size) if state is None else state
        states = []
        for driven in (x * self.b).unbind(1):
            h = torch.addmm(driven, h, self.a.T).tanh()
            states.append(h)
        return torch.stack(states, 1), h


def test_the_long_run_value_of_reservoirpys_documented_network():
    pytest.importorskip("reservoirpy", reason="its weights come from reservoirpy (test-peers)")
    from reservoirpy.nodes import Reservoir, Ridge
    from reservoirpy.observables import memory_capacity as theirs

    reservoir = Reservoir(100, sr=1, seed=1)
    # The same network as in their documentation, which prints 18.78 for 100 held-out steps.
    assert theirs(reservoir >> Ridge(ridge=1e-4), k_max=50, seed=1) == pytest.approx(18.78, abs=0.1)
    states = reservoir.run(np.random.default_rng(0).uniform(-0.8, 0.8, (50, 1)))
    assert reservoir.lr == 1
    assert reservoir.bias == 0
    port = Port(torch.tensor(reservoir.W.toarray()), torch.tensor(reservoir.Win.toarray()[:, 0]))
    inputs = np.random.default_rng(0).uniform(-0.8, 0.8, (1, 50, 1))
    np.testing.assert_allclose(port(torch.tensor(inputs))[0][0], states, atol=1e-12)
    c = memory_capacity(port, 50, steps=20_000)
    assert c.total == pytest.approx(20.9, abs=0.4)
    assert c.rank == 100
    # Held-out squared correlations of theirs at 20,000 steps.
    lags, known = (1, 5, 10, 15, 20, 25), (0.998, 0.993, 0.954, 0.812, 0.611, 0.253)
    np.testing.assert_allclose([c.values[d] for d in lags], known, atol=0.03)


def test_the_leaky_integrator_of_the_self_test_is_the_one_of_the_books():
    c = memory_capacity(leaky_integrator(0.9), 20)
    assert all(holds(c, 0.19 * 0.81 ** np.arange(21))[0])
