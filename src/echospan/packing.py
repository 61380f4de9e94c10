"""A model as JSON, small enough for a page that runs it on its own (web/static/model.js).

    {format, name, core, alphabet, maxDelay, delay, hidden, recall, weights: {name: {shape, data}}}

`data` is base64 of float32, the lowest byte first. What a core makes of a symbol first is linear:
it stands there for every symbol, `read (symbol, gate·hidden)`, and for every delay where the model
is told it, `told (delay, gate·hidden)`, all constant biases within.
"""

import base64
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from echospan.cores import GRU, LRU, LSTM, RNN, MinGRU
from echospan.errors import SettingError
from echospan.model import EchoModel

FORMAT = 1
"""Version of what is packed; web/static/model.js reads this one alone."""

_Parts = tuple[Tensor, Tensor, dict[str, Tensor]]
"""Weight and bias of what is linear in the input, and all that comes after it."""


def _gru(core: GRU) -> _Parts:
    w_ih, w_hh, b_ih, b_hh = core.all_weights[0]
    kept, candidate = b_hh.split([2 * core.hidden_size, core.hidden_size])
    bias = b_ih + torch.cat([kept, torch.zeros_like(candidate)])
    return w_ih, bias, {"recurrent": w_hh, "candidate": candidate}


def _recurrent(core: LSTM | RNN) -> _Parts:
    w_ih, w_hh, b_ih, b_hh = core.all_weights[0]
    return w_ih, b_ih + b_hh, {"recurrent": w_hh}


def _min_gru(core: MinGRU) -> _Parts:
    first, *more = (p for p in core.projections if isinstance(p, nn.Linear))
    parts: dict[str, Tensor] = {}
    for i, layer in enumerate(more, 1):
        parts |= {f"weight_{i}": layer.weight, f"bias_{i}": layer.bias}
    return first.weight, first.bias, parts


def _lru(core: LRU) -> _Parts:
    eigenvalues = torch.polar(torch.exp(-core.log_decay.exp()), core.log_phase.exp())
    weight = core.weight * core.log_scale.exp().repeat_interleave(2)[:, None]
    parts = {"eigenvalues": torch.view_as_real(eigenvalues)}
    return weight, weight.new_zeros(len(weight)), parts


_PACKED: dict[type[nn.Module], tuple[str, Callable[[Any], _Parts]]] = {
    GRU: ("gru", _gru),
    LSTM: ("lstm", _recurrent),
    RNN: ("rnn_tanh", _recurrent),
    MinGRU: ("min_gru", _min_gru),
    LRU: ("lru", _lru),
}


def _one_layer(core: nn.Module) -> bool:
    """Whether a recurrent core of PyTorch has one layer, one direction and biases."""
    return not isinstance(core, nn.RNNBase) or [len(w) for w in core.all_weights] == [4]


def valid_recall(recall: Sequence[float] | None, max_delay: int) -> list[float] | None:
    """Return `recall` as a page may show it, or None where it is no recall of such a model.

    Args:
        recall: Recall by delay, as an evaluation measured it, or None.
        max_delay: The longest delay of the model: there is one figure for each from 0 on.
    """
    if recall is None or len(recall) != max_delay + 1:
        return None
    figures = [float(r) for r in recall]
    return figures if all(0 <= r <= 1 for r in figures) else None  # False for NaN


@torch.no_grad()
def pack(
    model: EchoModel, name: str = "echo", recall: Sequence[float] | None = None
) -> dict[str, Any]:
    """Return a model as a page runs it.

    Args:
        model: The model; its core is one of gru, lstm, min_gru, lru, rnn, rnn_tanh, of one layer.
        name: What the page calls it.
        recall: Recall by delay as it was measured, from 0 to the longest; shown beside the page's
            own count. None, or figures that cannot be the recall of this model: not shown.

    Raises:
        SettingError: For a core that does not run in a page.
    """
    core = model.core
    kind, parts_of = _PACKED.get(type(core), ("", None))
    if parts_of is None or not _one_layer(core):
        raise SettingError(
            f"the core {model.core_name} does not run in a page on its own",
            "open it with echospan serve, or train one of gru, lstm, min_gru, lru, rnn, rnn_tanh",
        )
    if isinstance(core, RNN) and core.nonlinearity == "relu":
        kind = "rnn"
    weight, bias, parts = parts_of(core)
    own = model.embedding.embedding_dim
    parts["read"] = model.embedding.weight @ weight[:, :own].T + bias
    if model.delay_embedding is not None:
        parts["told"] = model.delay_embedding.weight @ weight[:, own:].T
    parts |= {"readouts": model.readouts.weight, "offsets": model.readouts.bias}
    return {
        "format": FORMAT,
        "name": name,
        "core": kind,
        "alphabet": model.alphabet.characters,
        "maxDelay": model.max_delay,
        "delay": model.check_delay(None),
        "hidden": core.hidden_size,
        "recall": valid_recall(recall, model.max_delay),
        "weights": {n: _written(t) for n, t in parts.items()},
    }


def _written(t: Tensor) -> dict[str, Any]:
    data = t.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()
    return {"shape": list(t.shape), "data": base64.b64encode(data).decode()}
