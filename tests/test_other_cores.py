"""Every core is its plain loop in reference.py, only faster, and may be cut anywhere."""

import pytest
import torch
from torch.nn import functional as F

from echospan.cores import (
    LSTM,
    RNN,
    TCN,
    Attention,
    Core,
    DelayLine,
    DeltaNet,
    LinearAttention,
    Reservoir,
    make_core,
    reference,
)
from echospan.cores.conv import _Taps, causal_conv
from echospan.cores.protocol import map_state, tensors
from echospan.cores.reservoir import _Recurrence
from echospan.errors import SettingError

SIZES = [(1, 1, 1), (2, 63, 5), (3, 17, 64)]  # batch, time, hidden
EVEN_SIZES = [(1, 1, 2), (2, 63, 6), (3, 17, 64)]
sizes = pytest.mark.parametrize(("batch", "time", "hidden"), SIZES)
even_sizes = pytest.mark.parametrize(("batch", "time", "hidden"), EVEN_SIZES)

CORES = {
    "rnn": lambda: RNN(3, 16),
    "relu": lambda: RNN(3, 16, nonlinearity="relu"),
    "lstm": lambda: LSTM(3, 16),
    "delay line": lambda: DelayLine(3, 16),
    "tcn": lambda: TCN(3, 16, blocks=2),
    "attention": lambda: Attention(3, 16, blocks=2, window=6),
    "linear attention": lambda: LinearAttention(3, 16, chunk=4),
    "delta net": lambda: DeltaNet(3, 16, chunk=4),
    "reservoir": lambda: Reservoir(3, 16, leak=0.7),
}
cores = pytest.mark.parametrize("make", CORES.values(), ids=CORES)


def doubles(*shape):
    return torch.randn(shape, dtype=torch.double, requires_grad=True)


def assert_same(ours, theirs, inputs):
    """Two (y, *state) are equal, and so is every gradient of a loss that weighs them all."""
    results = []
    for outputs in (ours, theirs):
        outputs = [o for o in outputs if o.numel()]
        weighed = [(o * torch.arange(o.numel()).view_as(o).cos()).sum() for o in outputs]
        results.append([*outputs, *torch.autograd.grad(sum(weighed), inputs, allow_unused=True)])
    for a, b in zip(*results, strict=True):
        if a is None or b is None:  # no path to it is a gradient of zero
            assert all(g is None or not g.any() for g in (a, b))
        else:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("taps", [1, 2, 4])
@sizes
def test_the_causal_convolution_is_its_plain_loop(batch, time, hidden, taps):
    inputs = (
        doubles(batch, time, hidden),
        doubles(hidden, taps),
        doubles(hidden),
        doubles(batch, taps - 1, hidden),
    )
    assert_same(causal_conv(*inputs), reference.causal_conv(*inputs), inputs)


def test_the_causal_convolutions_gradients_agree_with_finite_differences():
    assert torch.autograd.gradcheck(_Taps.apply, (doubles(2, 5, 3), doubles(3, 2), doubles(3)))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@sizes
def test_the_rnn_is_its_plain_loop(batch, time, hidden, nonlinearity):
    core = RNN(7, hidden, nonlinearity=nonlinearity).double()
    x, h = doubles(batch, time, 7), doubles(batch, hidden)
    weights = list(core.parameters())
    y, state = core(x, h[None])
    plain = reference.rnn(x, h, *weights, getattr(torch, nonlinearity))
    assert_same((y, state[0]), plain, [x, h, *weights])


@sizes
def test_the_lstm_is_its_plain_loop(batch, time, hidden):
    core = LSTM(7, hidden).double()
    x, h, c = doubles(batch, time, 7), doubles(batch, hidden), doubles(batch, hidden)
    weights = list(core.parameters())
    y, (h_last, c_last) = core(x, (h[None], c[None]))
    plain = reference.lstm(x, h, c, *weights)
    assert_same((y, h_last[0], c_last[0]), plain, [x, h, c, *weights])


def test_the_lstm_is_its_plain_loop_in_single_precision_too():
    core, x, h = LSTM(7, 64), torch.randn(3, 17, 7), torch.randn(2, 3, 64)
    weights = list(core.parameters())
    results = []
    for y, *_ in (core(x, (h[:1], h[1:])), reference.lstm(x, *h, *weights)):
        results.append([y, *torch.autograd.grad((y**2).sum(), weights)])
    for a, b in zip(*results, strict=True):  # PyTorch takes another road here: oneDNN's
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [1, 2, 9])
@pytest.mark.parametrize(("batch", "time", "features"), SIZES)
def test_the_delay_line_is_its_plain_loop(batch, time, features, window):
    hidden = 9 * features + 2
    core = DelayLine(features, hidden, window=window)
    inputs = doubles(batch, time, features), doubles(batch, window - 1, features)
    assert_same(core(*inputs), reference.delay_line(*inputs, hidden), inputs)


def test_a_delay_line_holds_as_many_inputs_as_fit():
    assert DelayLine(27, 459).window == 17
    assert DelayLine(27, 485).window == 17
    with pytest.raises(SettingError, match=r"a delay line of 17 inputs .* use 459 units or more"):
        DelayLine(27, 458, window=17)
    with pytest.raises(SettingError, match="use 27 units"):
        DelayLine(27, 26)


@pytest.mark.parametrize(("blocks", "taps"), [(1, 2), (2, 3)])
@sizes
def test_the_tcn_is_its_plain_loop(batch, time, hidden, blocks, taps):
    core = TCN(7, hidden, blocks=blocks, taps=taps).double()
    x = doubles(batch, time, 7)
    past = [
        doubles(batch, (taps - 1) * 2 ** (i // 2), 7 if i == 0 else hidden)
        for i in range(2 * blocks)
    ]
    convs = [(c.weight.view(hidden, taps, -1), c.bias) for c in core.convs]
    y, contexts = core(x, tuple(past))
    y_plain, contexts_plain = reference.tcn(x, past, (core.widen.weight, core.widen.bias), convs)
    inputs = [x, *past, *core.parameters()]
    assert_same((y, *contexts), (y_plain, *contexts_plain), inputs)


def plain_block(block, x, cache):
    """A block of Attention around the plain attention; the cache's filled steps come last."""
    hidden = x.shape[-1]
    norm, heads = block.norm_attention, (block.heads, -1)
    new = block.qkv(F.layer_norm(x, (hidden,), norm.weight, norm.bias))
    q, k, v = (a.unflatten(-1, heads) for a in new.chunk(3, -1))
    steps = [c for c in cache.unbind(1) if c[:, -1].all()]
    past = [tuple(a.unflatten(-1, heads) for a in c[:, :-1].chunk(2, -1)) for c in steps]
    x = x + block.out(reference.attention(q, k, v, past, block.angles, block.window).flatten(2))
    norm = block.norm_mlp
    x = x + block.down(F.gelu(block.up(F.layer_norm(x, (hidden,), norm.weight, norm.bias))))
    new = torch.cat([k.flatten(2), v.flatten(2), k.new_ones(*k.shape[:2], 1)], -1)
    return x, torch.cat([cache, new], 1)[:, new.shape[1] :]


@pytest.mark.parametrize(("window", "filled"), [(1, 0), (5, 2), (64, 63), (64, 0)])
@even_sizes
def test_attention_is_its_plain_loop(batch, time, hidden, window, filled):
    core = Attention(7, hidden, blocks=2, window=window).double()
    x, inputs, caches = doubles(batch, time, 7), list(core.parameters()), []
    for _ in core.blocks:
        seen = doubles(batch, filled, 2 * hidden)
        inputs.append(seen)
        ones = seen.new_ones(batch, filled, 1)
        caches.append(F.pad(torch.cat([seen, ones], -1), (0, 0, window - 1 - filled, 0)))
    y, state = core(x, tuple(caches))
    if not filled:
        torch.testing.assert_close(core(x), (y, state))
    y_plain, state_plain = core.widen(x), []
    for block, cache in zip(core.blocks, caches, strict=True):
        y_plain, cache = plain_block(block, y_plain, cache)
        state_plain.append(cache)
    assert_same((y, *state), (core.norm(y_plain), *state_plain), [x, *inputs])


@pytest.mark.parametrize("chunk", [5, 64])
@sizes
def test_linear_attention_is_its_plain_loop(batch, time, hidden, chunk):
    core = LinearAttention(7, hidden, key_size=6, chunk=chunk).double()
    heads = (core.heads, -1)
    x, s = doubles(batch, time, 7), doubles(batch, core.heads, 6, hidden // core.heads)
    # A sum of positive features, as it comes about: only then is there something to divide by.
    z = doubles(batch, core.heads, 6).detach().abs().requires_grad_()
    y, state = core(x, (s, z))
    q, k, v = (f(x).unflatten(-1, heads) for f in (core.q, core.k, core.v))
    keep = torch.exp(-core.log_rate.exp())
    y_plain, *state_plain = reference.linear_attention(q, k, v, s, z, keep, core.angles)
    inputs = [x, s, z, *core.parameters()]
    assert_same((y, *state), (y_plain.flatten(2), *state_plain), inputs)


@pytest.mark.parametrize("chunk", [5, 64])
@sizes
def test_delta_net_is_its_plain_loop(batch, time, hidden, chunk):
    core = DeltaNet(7, hidden, key_size=6, chunk=chunk).double()
    heads = (core.heads, -1)
    x, s = doubles(batch, time, 7), doubles(batch, core.heads, 6, hidden // core.heads)
    y, state = core(x, s)
    q, k, v = (f(x).unflatten(-1, heads) for f in (core.q, core.k, core.v))
    q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    rate = torch.sigmoid(core.rate(x))
    y_plain, s_plain = reference.delta_net(q, k, v, rate, s, core.angles)
    assert_same((y, state), (y_plain.flatten(2), s_plain), [x, s, *core.parameters()])


@pytest.mark.parametrize("leak", [1.0, 0.3])
@sizes
def test_the_reservoir_is_its_plain_loop(batch, time, hidden, leak):
    core = Reservoir(7, hidden, leak=leak, input_scale=1.0).double()
    inputs = doubles(batch, time, 7), doubles(batch, hidden)
    assert_same(core(*inputs), reference.reservoir(*inputs, core.w_in, core.w, leak), inputs)


@pytest.mark.parametrize("leak", [1.0, 0.3])
def test_the_reservoirs_gradients_agree_with_finite_differences(leak):
    w = torch.randn(3, 3, dtype=torch.double)
    assert torch.autograd.gradcheck(_Recurrence.apply, (doubles(4, 2, 3), doubles(2, 3), w, leak))


def test_a_reservoir_is_never_trained_and_has_the_radius_asked_for():
    core = Reservoir(3, 40, spectral_radius=0.7)
    assert not list(core.parameters())
    torch.testing.assert_close(torch.linalg.eigvals(core.w).abs(), torch.full((40,), 0.7))


@cores
def test_a_sequence_cut_anywhere_gives_what_the_whole_gives(make):
    core, x = make().double(), torch.randn(2, 15, 3, dtype=torch.double)
    whole, last = core(x)
    assert whole.shape == (2, 15, core.hidden_size)
    assert isinstance(core, Core)
    for cuts in ([1] * 15, [7, 8], [1, 13, 1]):
        parts, state = [], None
        for part in x.split(cuts, 1):
            y, state = core(part, state)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, 1), whole)
        torch.testing.assert_close(list(tensors(state)), list(tensors(last)))


@cores
def test_a_row_of_the_state_times_zero_starts_afresh(make):
    core, x = make().double(), torch.randn(2, 9, 3, dtype=torch.double)
    _, state = core(torch.randn(2, 20, 3, dtype=torch.double))
    keep = torch.tensor([0.0, 1.0], dtype=torch.double)

    def forget(part):
        shape = [1] * part.dim()
        shape[core.batch_dim] = 2
        return part * keep.view(shape)

    y, _ = core(x, map_state(forget, state))
    torch.testing.assert_close(y[:1], core(x[:1])[0])
    torch.testing.assert_close(y[1:], core(x, state)[0][1:])


@cores
def test_every_weight_gets_a_gradient_and_the_input_stays(make):
    core, x = make(), torch.randn(2, 12, 3)
    before = x.clone()
    y, _ = core(x)
    if y.requires_grad:
        (y * torch.randn_like(y)).sum().backward()
    assert torch.equal(x, before)
    for name, p in core.named_parameters():
        assert p.grad is not None, name
        assert p.grad.any(), name


@cores
def test_ten_thousand_steps_end_finite(make):
    with torch.no_grad():
        y, state = make()(torch.randn(1, 10_000, 3))
    assert all(part.isfinite().all() for part in (y, *tensors(state)))


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (lambda: TCN(2, 32, blocks=3), 15),
        (lambda: TCN(2, 32, blocks=1, taps=4), 7),
        (lambda: Attention(2, 4, blocks=2, window=5), 9),
        (lambda: Attention(2, 4, window=1), 1),
    ],
)
def test_an_output_knows_of_the_receptive_field_and_no_more(make, steps):
    core = make()
    x = torch.randn(8, steps + 3, 2, requires_grad=True)
    (seen,) = torch.autograd.grad((core(x)[0][:, -1] ** 3).sum(), x)
    assert core.receptive_field == steps
    assert seen.any(-1).any(0).tolist() == [False] * 3 + [True] * steps


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TCN(3, 4, taps=1), "sees no past; use 1 block or more"),
        (lambda: Attention(3, 5), "use a width that is a multiple of twice the heads"),
        (lambda: Attention(3, 4, window=0), "use 1 or more of each"),
        (lambda: LinearAttention(3, 4, heads=3), "4 units do not divide into 3 heads"),
        (lambda: DeltaNet(3, 4, key_size=3), "use an even number"),
        (lambda: Reservoir(3, 4, leak=0.0), "use a share above 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_remedy(make, said):
    with pytest.raises(SettingError, match=said):
        make()


def test_a_core_that_was_streamed_first_can_be_trained_next():
    core, x = make_core("lmu", 6, 20), torch.randn(2, 5, 6)
    with torch.inference_mode():
        core(x)
    core(x)[0].sum().backward()
    assert core.weight.grad.abs().sum() > 0
