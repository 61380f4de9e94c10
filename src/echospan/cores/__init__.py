"""One architecture a file; CORES is the one list of them."""

from collections.abc import Callable

from torch import nn

from echospan.cores.adapter import as_core as as_core
from echospan.cores.gru import GRU as GRU
from echospan.cores.protocol import Core as Core


def _gru(features: int, hidden: int, layers: int = 1) -> nn.Module:
    return GRU(features, hidden, layers, batch_first=True)


def _rnn(features: int, hidden: int, layers: int = 1) -> nn.Module:
    return nn.RNN(features, hidden, layers, nonlinearity="relu", batch_first=True)


CORES: dict[str, Callable[..., nn.Module]] = {"gru": _gru, "rnn": _rnn}
"""Name -> constructor of (features, hidden, layers)."""
