"""One architecture a file; CORES is the one list of them."""

from collections.abc import Callable

from torch import nn

from echospan.cores.attention import Attention as Attention
from echospan.cores.delay_line import DelayLine as DelayLine
from echospan.cores.delta_net import DeltaNet as DeltaNet
from echospan.cores.gru import GRU as GRU
from echospan.cores.linear_attention import LinearAttention as LinearAttention
from echospan.cores.lstm import LSTM as LSTM
from echospan.cores.protocol import Core as Core
from echospan.cores.reservoir import Reservoir as Reservoir
from echospan.cores.rnn import RNN as RNN
from echospan.cores.tcn import TCN as TCN


def _gru(features: int, hidden: int, layers: int = 1) -> nn.Module:
    return GRU(features, hidden, layers, batch_first=True)


def _rnn(features: int, hidden: int, layers: int = 1) -> nn.Module:
    return RNN(features, hidden, layers, nonlinearity="relu")


CORES: dict[str, Callable[..., nn.Module]] = {
    "gru": _gru,
    "rnn": _rnn,
    "rnn_tanh": RNN,
    "lstm": LSTM,
    "attention": Attention,
    "tcn": TCN,
    "linear_attention": LinearAttention,
    "delta_net": DeltaNet,
    "reservoir": Reservoir,
    "delay_line": DelayLine,
}
"""Name -> constructor of (features, hidden); gru, rnn and lstm take a number of layers too."""
