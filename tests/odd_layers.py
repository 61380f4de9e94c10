"""Layers with manners of their own: what each is carried by, or why it cannot be a core.

All read 4 features. `CARRIED` gives how each is carried and the numbers of state a row after 21
steps; `REFUSED` the words by which one is turned down.
"""

import collections
import dataclasses
import enum
import functools
import io
import threading
import types
import warnings
import weakref
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

STATE, ITSELF, INPUTS = "state", "what it keeps on itself", "its last inputs"


def gru():
    return nn.GRU(4, 8, batch_first=True)


class Gru(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        self.gru = gru()
        for name, value in attributes.items():
            setattr(self, name, value)


# --- states of all forms


class Named(NamedTuple):
    h: torch.Tensor
    nothing: None = None
    number: int = 3


@dataclasses.dataclass(slots=True)
class Slotted:
    h: torch.Tensor


class Cache:
    """Filled in place, with settings beside the tensors."""

    def __init__(self):
        self.layers, self.steps, self.dtype = {}, 0, torch.float32

    def step(self, gru, x):
        y, self.layers[0] = gru(x, self.layers.get(0))
        self.steps += x.shape[1]
        return y


class Boxed(Gru):
    """A GRU whose state comes in a box."""

    def __init__(self, box, h):
        super().__init__()
        self.box, self.h = box, h

    def forward(self, x, state=None):
        y, h = self.gru(x, None if state is None else self.h(state))
        return y, self.box(h)


class WithCache(Gru):
    def forward(self, x, cache_params=None):
        cache = Cache() if cache_params is None else cache_params
        return cache.step(self.gru, x), cache


class FillsDict(Gru):
    def forward(self, x, inference_cache=None):
        cache = {} if inference_cache is None else inference_cache
        y, cache["h"] = self.gru(x, cache.get("h"))
        return y


class FillsAnnotated(Gru):
    def forward(self, x, memory: Cache = None):
        return self.gru(x)[0] if memory is None else memory.step(self.gru, x)


class OnRequest(Gru):
    def forward(self, x, past_key_values=None, use_cache=False):
        if use_cache and past_key_values is None:
            past_key_values = Cache()
        y = self.gru(x)[0] if past_key_values is None else past_key_values.step(self.gru, x)
        return types.SimpleNamespace(last_hidden_state=y, past_key_values=past_key_values)


class Loop(nn.Module):
    """A loop over the steps, from a start to what `step` makes of it."""

    def __init__(self, start, step, dtype=torch.float32):
        super().__init__()
        self.read = nn.Linear(4, 8, dtype=dtype)
        self.start, self.step, self.dtype = start, step, dtype

    def forward(self, x, state=None):
        h = self.start(len(x)) if state is None else state
        out = []
        for u in self.read(x.to(self.read.weight.dtype)).unbind(1):
            h, y = self.step(h, u)
            out.append(y)
        return torch.stack(out, 1), h


class Positions(Gru):
    """Counts its steps, by a number, a tensor without dimensions, or one a row."""

    def __init__(self, zero):
        super().__init__(zero=zero)

    def forward(self, x, state=None):
        h, n = (None, self.zero(len(x))) if state is None else state
        y, h = self.gru(x, h)
        at = torch.arange(x.shape[1]) + (n[:, None] if getattr(n, "ndim", 0) else n)
        return y + (0.1 * at).sin()[..., None], (h, n + x.shape[1])


class KeysAndValues(nn.Module):
    """Attention with a growing cache, and positions up to `most`."""

    def __init__(self, most=None):
        super().__init__()
        self.qkv = nn.Linear(4, 24)
        self.at = nn.Embedding(most, 4) if most else None

    def forward(self, x, past=None):
        n = 0 if past is None else past[0].shape[1]
        if self.at is not None:
            x = x + self.at(torch.arange(n, n + x.shape[1]))
        q, k, v = self.qkv(x).chunk(3, -1)
        if past is not None:
            k, v = torch.cat([past[0], k], 1), torch.cat([past[1], v], 1)
        mask = torch.ones(x.shape[1], k.shape[1], dtype=torch.bool).tril(n)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (k, v)


# --- arguments of all names


class RequiredState(Gru):
    def forward(self, inputs, rnn_hxs):
        return self.gru(inputs, rnn_hxs)


class OddName(Gru):
    def forward(self, x, mask=None, zoom=None):
        return self.gru(x, zoom)


class KeywordOnly(Gru):
    def forward(self, x, *, foo):
        return self.gru(x, foo)


class AnyArguments(Gru):
    def forward(self, *args, **kwargs):
        return self.gru(*args, **kwargs)


class NoneIsNoStart(Gru):
    def forward(self, x, hidden):
        return self.gru(x, hidden.contiguous())


class TwoStates(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)

    def forward(self, x, h, c):
        y, (h, c) = self.lstm(x, (h, c))
        return y, h, c


class StateFirst(Gru):
    def forward(self, x, state=None):
        return self.gru(x, state)[::-1]


class LastOutput(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.new = nn.Linear(4, 8), nn.Linear(4, 8)

    def forward(self, x, h_0=None):
        h, out = x.new_zeros(len(x), 1, 8) if h_0 is None else h_0, []
        for z, u in zip(self.gate(x).sigmoid().split(1, 1), self.new(x).split(1, 1), strict=True):
            h = (1 - z) * h + z * u
            out.append(h)
        return torch.cat(out, 1)


class Embeds(Gru):
    def __init__(self):
        super().__init__(embed=nn.Embedding(27, 4))

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, past=None):
        return self.gru(self.embed(input_ids) if inputs_embeds is None else inputs_embeds, past)


class OneStepAtATime(Gru):
    """Goes on from a cache by single steps alone, and returns none in training unless asked."""

    def forward(self, x, cache=None, use_cache=None):
        y, h = self.gru(x, cache)
        if cache is not None and x.shape[1] > 1:
            y = y + 1
        use_cache = not self.training if use_cache is None else use_cache
        return (y, h) if use_cache else (y, None)


# --- what a module keeps on itself


class MadeInForward(Gru):
    def forward(self, x):
        self.hidden = x.new_zeros(1, len(x), 8)
        y, self.hidden = self.gru(x, self.hidden)
        return y


class LastWeights(nn.Module):
    """Keeps the last attention weights, a mask as large as was needed, and a count, unused."""

    def __init__(self):
        super().__init__()
        self.qkv, self.calls = nn.Linear(4, 24), 0

    def forward(self, x):
        n, self.calls = x.shape[1], self.calls + 1
        if not hasattr(self, "mask") or len(self.mask) < n:
            future = torch.ones(n, n, dtype=torch.bool).triu(1)
            self.register_buffer("mask", future, persistent=False)
        q, k, v = self.qkv(x).chunk(3, -1)
        self.last = (q @ k.mT).masked_fill(self.mask[:n, :n], -1e9).softmax(-1)
        return self.last @ v


class InDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.memory = nn.GRUCell(4, 8), {"h": None, "steps": 0}

    def forward(self, x):
        out = []
        for u in x.unbind(1):
            self.memory["h"] = self.cell(u, self.memory["h"])
            self.memory["steps"] += 1
            out.append(self.memory["h"] + 0.01 * self.memory["steps"])
        return torch.stack(out, 1)


class LastTwo(nn.Module):
    """Reads the last two inputs, from a deque that fills."""

    def __init__(self):
        super().__init__()
        self.read, self.last = nn.Linear(8, 8), collections.deque(maxlen=2)
        self.input_size = 4

    def forward(self, x):
        out = []
        for u in x.unbind(1):
            self.last.append(u)
            out.append(self.read(torch.cat([self.last[0], u], 1)))
        return torch.stack(out, 1)


class Surrogate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 1).to(v)

    @staticmethod
    def backward(ctx, slope):
        return slope / (1 + 3 * (ctx.saved_tensors[0] - 1).abs()) ** 2


class Neurons(nn.Module):
    """Integrate and fire: silent for numbers of about 1, whatever came before."""

    def __init__(self, spike=Surrogate.apply, time=1, on_itself=True):
        super().__init__()
        self.read, self.v = nn.Linear(4, 8), 0.0
        self.spike, self.time, self.on_itself = spike, time, on_itself

    def forward(self, x, state=None):
        v, out = self.v if self.on_itself else 0.0 if state is None else state, []
        for u in self.read(x).mul(0.02).unbind(self.time):
            v = 0.9 * v + u
            out.append(self.spike(v))
            v = v * (1 - out[-1])
        if self.on_itself:
            self.v = v
            return torch.stack(out, self.time)
        return torch.stack(out, self.time), v


def hard(v):
    return (v > 1).to(v)


# --- containers, and lengths


class Color(enum.Enum):
    RED = 1


class Settings:
    def __init__(self):
        self.width, self.names, self.itself = 4, ("a", "b"), self


class Containers(Gru):
    """Keeps all kinds of containers, and changes some in each call."""

    def __init__(self):
        super().__init__(
            sizes=[torch.Size([1, 2])],
            size=torch.Size([3]),
            last=collections.deque([torch.zeros(2)], maxlen=3),
            lists=collections.defaultdict(list, {"a": [1]}),
            ordered=collections.OrderedDict(a=torch.ones(1)),
            counts=collections.Counter("abc"),
            named=Named(torch.ones(1)),
            settings=Settings(),
            maximum=torch.ones(3, 2).max(0),
            unique={1, "a"},
            frozen=frozenset([1]),
            steps=range(5),
            color=Color.RED,
            generator=torch.Generator(),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        self.itself = [weakref.ref(self)]

    def forward(self, x, h=None):
        self.unique.add(3)
        self.lists["b"].append(1)
        self.last.append(torch.ones(2))
        return self.gru(x, h)


class Learnt(nn.Module):
    """Attention with a table of so many positions; `fixed` takes no other number of steps."""

    def __init__(self, positions, fixed=False):
        super().__init__()
        self.at, self.qkv = nn.Parameter(torch.randn(positions, 4)), nn.Linear(4, 24)
        self.fixed = fixed

    def forward(self, x):
        x = x + (self.at if self.fixed else self.at[: x.shape[1]])
        q, k, v = self.qkv(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Lengths(Gru):
    """Takes some lengths only."""

    def __init__(self, least=1, most=10_000, multiple=1, returns_state=False):
        super().__init__(returns_state=returns_state)
        self.takes = lambda n: least <= n <= most and n % multiple == 0

    def forward(self, x, h=None):
        assert self.takes(x.shape[1]), f"{x.shape[1]} steps"
        y, h = self.gru(x, h)
        return (y, h) if self.returns_state else (y,)


# --- how a module computes


class Autocast(Gru):
    def forward(self, x, h=None):
        with torch.autocast("cpu", torch.bfloat16):
            return self.gru(x, h)


class TwoDtypes(nn.Module):
    def __init__(self, first, second, dtype):
        super().__init__()
        self.first, self.second, self.dtype = first, second, dtype

    def forward(self, x):
        return self.second(self.first(x).to(self.dtype))


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.eye(4).to_sparse())

    def forward(self, x):
        return torch.stack([torch.sparse.mm(self.w, row.T).T for row in x])


class Scriptable(Gru):
    def forward(self, x: torch.Tensor, h: torch.Tensor | None = None):
        return self.gru(x, h)


def loaded():
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(Scriptable()), file)
    file.seek(0)
    return torch.jit.load(file)


def compiled_in_place():
    layer = gru()
    layer.compile(backend="eager")
    return layer


class BuiltInForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = None

    def forward(self, x, h=None):
        if self.gru is None:
            self.gru = nn.GRU(x.shape[-1], 8, batch_first=True)
        return self.gru(x, h)


# --- weights


def parametrized(register, make=nn.LSTM):
    layer = make(4, 8, batch_first=True)
    register(layer, "weight_hh_l0")
    return layer


class WeightDrop(nn.Module):
    """Sets a weight before each call: what dropout makes of it, and in eval() the weight itself."""

    def __init__(self, times=1, parameter=False):
        super().__init__()
        self.rnn, self.times, self.parameter = nn.RNN(4, 8, batch_first=True), times, parameter
        self.raw = nn.Parameter(self.rnn.weight_hh_l0.data)
        del self.rnn._parameters["weight_hh_l0"]

    def forward(self, x, h=None):
        weight = F.dropout(self.raw, 0.3, self.training)
        if self.times > 1:
            weight = self.times * weight
        self.rnn.weight_hh_l0 = nn.Parameter(weight) if self.parameter else weight
        return self.rnn(x, h)


class ByClosure(nn.Module):
    """Calls its weights by a closure, a partial, a bound method and a weak reference."""

    def __init__(self):
        super().__init__()
        part = nn.Linear(4, 8)
        self.part, self.closure = part, lambda x: part(x)
        self.partial = functools.partial(F.linear, weight=part.weight)
        self.method, self.weak = part.forward, weakref.ref(part)

    def forward(self, x):
        return self.closure(x) + self.partial(x) + self.method(x) + self.weak()(x)


class Views(nn.Module):
    """Computes with a view of its one flat parameter, made in __init__."""

    def __init__(self):
        super().__init__()
        self.flat = nn.Parameter(torch.randn(32))
        self.weight = self.flat.view(8, 4)

    def forward(self, x):
        return x @ self.weight.T


class FlatMemory(nn.Module):
    """Computes with the memory that its parameters share."""

    def __init__(self):
        super().__init__()
        self.flat = torch.randn(64)
        self.a = nn.Parameter(self.flat[:32].view(8, 4))
        self.b = nn.Parameter(self.flat[32:].view(8, 4))

    def forward(self, x):
        return x @ self.flat[:32].view(8, 4).T + x @ self.b.T


class InPlainList(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights, self.bias = [nn.Parameter(torch.randn(8, 4))], nn.Parameter(torch.zeros(8))

    def forward(self, x):
        return x @ self.weights[0].T + self.bias


class MadeOnce(nn.Module):
    def __init__(self):
        super().__init__()
        self.raw = nn.Parameter(torch.randn(8, 4))
        self.positive = self.raw.exp()

    def forward(self, x):
        return x @ self.positive.T


GLOBAL = nn.Parameter(torch.ones(8, 4))


class ComputesWithGlobal(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_features = 4

    def forward(self, x):
        return x @ GLOBAL.T


class CopiesToItself(nn.Linear):
    def __deepcopy__(self, memo):
        return self


class BatchStatistics(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.read, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8, **options)

    def forward(self, x):
        return self.norm(self.read(x).mT).mT


class RunningMean(Gru):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        y, _ = self.gru(x - self.mean)
        self.mean = 0.9 * self.mean + 0.1 * x.mean((0, 1))
        return y


class DropsAlways(Gru):
    def forward(self, x):
        return F.dropout(self.gru(x)[0], 0.5, True)


class OwnGenerator(Gru):
    def __init__(self):
        super().__init__(generator=torch.Generator())

    def forward(self, x):
        return self.gru(x)[0] + torch.rand(8, generator=self.generator)


class WantsMask(Gru):
    def forward(self, x, mask):
        return self.gru(x * mask[..., None])


class MeetsEnd(Gru):
    def forward(self, x):
        raise SystemExit(3)


class OneMode(nn.Linear):
    def train(self, mode=True):
        raise NotImplementedError("one mode only")


class NewWeights(nn.Module):
    def forward(self, x):
        self.read = nn.Linear(x.shape[-1], 8)
        return self.read(x)


def hooked(hook):
    layer = gru()
    layer.register_forward_pre_hook(hook)
    return layer


def made(make):
    """The layer; what torch says of its older functions is not the matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def raises(*_):
    raise KeyError("no such layer")


def with_lock():
    layer = nn.Linear(4, 8)
    layer.lock = threading.Lock()
    return layer


def sum_state(h, u):
    h = 0.5 * h + u.mean(1)
    return h, u + h[:, None]


def flip_state(h, u):
    h = h ^ (u > 0)
    return h, u * h


def count_state(h, u):
    h = h + (u > 0)
    return h, u * h


def turn_state(h, u):
    h = h * 0.9j + u
    return h, h.real


CARRIED = {
    "named tuple": (lambda: Boxed(Named, lambda s: s.h), STATE, 8),
    "slots": (lambda: Boxed(Slotted, lambda s: s.h), STATE, 8),
    "namespace": (lambda: Boxed(lambda h: types.SimpleNamespace(h=h), lambda s: s.h), STATE, 8),
    "list": (lambda: Boxed(lambda h: [h], list.pop), STATE, 8),
    "deque": (lambda: Boxed(lambda h: collections.deque([h], maxlen=1), lambda s: s[-1]), STATE, 8),
    "dict by layer": (
        lambda: Boxed(
            lambda h: collections.defaultdict(dict, {0: {"h": h, "type": h.dtype}}),
            lambda s: s[0]["h"],
        ),
        STATE,
        8,
    ),
    "None parts": (lambda: Boxed(lambda h: (None, h, [None]), lambda s: s[1]), STATE, 8),
    "cache object": (WithCache, STATE, 9),
    "dict filled in place": (FillsDict, STATE, 8),
    "annotated cache filled in place": (FillsAnnotated, STATE, 9),
    "cache on request": (OnRequest, STATE, 9),
    "one number a row": (lambda: Loop(torch.zeros, sum_state), STATE, 1),
    "bool": (lambda: Loop(lambda n: torch.zeros(n, 8, dtype=torch.bool), flip_state), STATE, 8),
    "int": (lambda: Loop(lambda n: torch.zeros(n, 8, dtype=torch.long), count_state), STATE, 8),
    "complex": (
        lambda: Loop(lambda n: torch.zeros(n, 8, dtype=torch.cfloat), turn_state, torch.cfloat),
        STATE,
        16,
    ),
    "counter": (lambda: Positions(lambda n: 0), STATE, 9),
    "counter in a tensor": (lambda: Positions(lambda n: torch.tensor(0)), STATE, 9),
    "counter a row": (lambda: Positions(lambda n: torch.zeros(n, dtype=torch.long)), STATE, 9),
    "growing": (KeysAndValues, STATE, 21 * 16),
    "growing to 64": (lambda: KeysAndValues(64), INPUTS, 63 * 4 + 1),
    "required state": (RequiredState, STATE, 8),
    "odd name": (OddName, STATE, 8),
    "keyword only": (KeywordOnly, STATE, 8),
    "any arguments": (AnyArguments, STATE, 8),
    "zeros as a start": (NoneIsNoStart, STATE, 8),
    "two required states": (TwoStates, STATE, 16),
    "state first": (StateFirst, STATE, 8),
    "last output": (LastOutput, STATE, 8),
    "inputs_embeds": (Embeds, STATE, 8),
    "one step at a time": (OneStepAtATime, STATE, 8),
    "made in forward": (MadeInForward, INPUTS, 1025),
    "last weights": (LastWeights, INPUTS, 1025),
    "dict on itself": (InDict, ITSELF, 9),
    "deque that fills": (LastTwo, INPUTS, 5),
    "silent neurons": (Neurons, ITSELF, 8),
    "silent neurons without slope": (lambda: Neurons(hard), ITSELF, 8),
    "silent neurons, time first": (lambda: Neurons(time=0), ITSELF, 8),
    "silent neurons that return": (lambda: Neurons(on_itself=False), STATE, 8),
    "containers": (Containers, STATE, 8),
    "table of 48 positions": (lambda: Learnt(48), INPUTS, 47 * 4 + 1),
    "one length": (lambda: Learnt(48, fixed=True), INPUTS, 47 * 4 + 1),
    "4 steps or more": (lambda: Lengths(least=4), INPUTS, 259 * 4 + 1),
    "multiples of 10": (lambda: Lengths(multiple=10), INPUTS, 259 * 4 + 1),
    "autocast inside": (Autocast, STATE, 8),
    "16 bits at the end": (
        lambda: TwoDtypes(nn.LayerNorm(4), nn.Linear(4, 8).bfloat16(), torch.bfloat16),
        INPUTS,
        0,
    ),
    "16 bits first": (
        lambda: TwoDtypes(nn.Linear(4, 8).bfloat16(), nn.LayerNorm(8), torch.float32),
        INPUTS,
        0,
    ),
    "scripted": (lambda: torch.jit.script(Scriptable()), STATE, 8),
    "loaded": (loaded, STATE, 8),
    "traced": (lambda: torch.jit.trace(nn.Linear(4, 8), torch.ones(2, 3, 4)), INPUTS, 0),
    "fx": (lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 8))), INPUTS, 0),
    "compiled": (lambda: torch.compile(gru(), backend="eager"), STATE, 8),
    "compiled in place": (compiled_in_place, STATE, 8),
    "weight norm": (lambda: parametrized(parametrizations.weight_norm), STATE, 16),
    "weight norm, the old one": (lambda: parametrized(nn.utils.weight_norm), STATE, 16),
    "spectral norm, the old one": (lambda: parametrized(nn.utils.spectral_norm), STATE, 16),
    "orthogonal": (lambda: parametrized(parametrizations.orthogonal, nn.RNN), STATE, 8),
    "weight drop": (lambda: WeightDrop(times=2), STATE, 8),
    "closure": (ByClosure, INPUTS, 0),
    "view of a parameter": (Views, INPUTS, 0),
    "parameters in one memory": (FlatMemory, INPUTS, 0),
    "parameter in a list": (InPlainList, INPUTS, 0),
    "batch norm": (BatchStatistics, INPUTS, 0),
    "data parallel": (lambda: nn.DataParallel(gru()), STATE, 8),
    "prints": (lambda: hooked(lambda *_: print("loud")), STATE, 8),
}

REFUSED = {
    "mask": (WantsMask, r"the forward of WantsMask wants 2 inputs \(x, mask\); wrap it"),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(8)),
        r"Sequential makes weights in its first call, as wide as its input; give the width",
    ),
    "built in forward": (BuiltInForward, r"BuiltInForward .* give the width of its input as feat"),
    "new parameters": (
        lambda: WeightDrop(parameter=True),
        r"makes its parameters anew in each call, so that none is trained; make them once in __ini",
    ),
    "running mean": (
        RunningMean,
        r"keeps its state on itself, but going on from it the output differs by 0\.\d+ from",
    ),
    "batch norm without statistics": (
        lambda: BatchStatistics(track_running_stats=False),
        r"mixes the rows of a batch",
    ),
    "dropout in eval": (DropsAlways, r"in eval\(\) answers the same input differently each time"),
    "generator": (OwnGenerator, r"in eval\(\) answers the same input differently each time"),
    "weight drop": (
        WeightDrop,
        r"WeightDrop cannot be trained once it was in eval\(\) \(TypeError: cannot assign .*; let",
    ),
    "sparse": (Sparse, r"Sparse has a sparse parameter, which the optimiser does not train; make"),
    "complex output": (
        lambda: TwoDtypes(nn.Linear(4, 8), nn.Identity(), torch.cfloat),
        r"returns torch.complex64; return floating-point numbers \(\.real",
    ),
    "quantised": (
        lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 8))),
        r"width of the input|mixes the rows of a batch",
    ),
    "meta": (
        lambda: nn.Linear(4, 8, device="meta"),
        r"Linear is on the meta device, where weights have no values; make it on another device",
    ),
    "made once": (
        MadeOnce,
        r"MadeOnce computes with positive, which it made of its parameters once; make it in forwa",
    ),
    "global weight": (
        ComputesWithGlobal,
        r"a copy of ComputesWithGlobal computes with weights that are not its own \(\(8, 4\)\)",
    ),
    "copies to itself": (
        lambda: CopiesToItself(4, 8),
        r"a copy of CopiesToItself shares weight with the original; training and trials work on a",
    ),
    "lock": (
        with_lock,
        r"Linear cannot be copied \(TypeError: cannot pickle '_thread.lock' object",
    ),
    "hook": (lambda: hooked(raises), r"GRU raised KeyError: 'no such layer' for an input of"),
    "exit": (MeetsEnd, r"MeetsEnd raised SystemExit: 3 for an input of"),
    "one mode": (
        lambda: OneMode(4, 8),
        r"OneMode cannot be switched between train\(\) and eval\(\) \(NotImplementedError: one mo",
    ),
    "exported": (
        lambda: torch.export.export(nn.Linear(4, 8).eval(), (torch.ones(2, 7, 4),)).module(),
        r"GraphModule cannot be switched between train\(\) and eval\(\)",
    ),
    "gru cell": (
        lambda: nn.GRUCell(4, 8),
        r"GRUCell reads one step \(batch, features\), not a seq",
    ),
    "lstm cell": (lambda: nn.LSTMCell(4, 8), r"LSTMCell reads one step"),
    "other class": (lambda: int, r"<class 'int'> is no torch.nn.Module; give an instance of one"),
    "function": (lambda: F.relu, r"is no torch.nn.Module; give an instance of one"),
}
