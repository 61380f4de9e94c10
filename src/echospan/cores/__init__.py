"""One architecture a file; CORES is the one list of them."""

from collections.abc import Callable

from torch import nn

from echospan.cores.gru import GRU as GRU
from echospan.cores.lmu import LMU as LMU
from echospan.cores.lru import LRU as LRU
from echospan.cores.mamba import Mamba as Mamba
from echospan.cores.min_gru import MinGRU as MinGRU
from echospan.cores.min_lstm import MinLSTM as MinLSTM
from echospan.cores.protocol import Core as Core
from echospan.cores.s4d import S4D as S4D


def _gru(features: int, hidden: int, layers: int = 1) -> nn.Module:
    return GRU(features, hidden, layers, batch_first=True)


def _rnn(features: int, hidden: int, layers: int = 1) -> nn.Module:
    return nn.RNN(features, hidden, layers, nonlinearity="relu", batch_first=True)


CORES: dict[str, Callable[..., nn.Module]] = {
    "gru": _gru,
    "rnn": _rnn,
    "min_gru": MinGRU,
    "min_lstm": MinLSTM,
    "lru": LRU,
    "s4d": S4D,
    "mamba": Mamba,
    "lmu": LMU,
}
"""Name -> constructor of (features, hidden); gru and rnn take layers as well."""
