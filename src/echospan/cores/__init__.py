"""One architecture a file; CORES is the one list of them."""

from collections.abc import Callable

from torch import nn

from echospan.cores.adapted import Adapted as Adapted
from echospan.cores.adapter import as_core as as_core
from echospan.cores.attention import Attention as Attention
from echospan.cores.copying import copy_module as copy_module
from echospan.cores.delay_line import DelayLine as DelayLine
from echospan.cores.delta_net import DeltaNet as DeltaNet
from echospan.cores.gru import GRU as GRU
from echospan.cores.gru import open_memory as open_memory
from echospan.cores.linear_attention import LinearAttention as LinearAttention
from echospan.cores.lmu import LMU as LMU
from echospan.cores.lru import LRU as LRU
from echospan.cores.lstm import LSTM as LSTM
from echospan.cores.mamba import Mamba as Mamba
from echospan.cores.min_gru import MinGRU as MinGRU
from echospan.cores.min_lstm import MinLSTM as MinLSTM
from echospan.cores.protocol import Core as Core
from echospan.cores.protocol import State as State
from echospan.cores.protocol import batch_dim as batch_dim
from echospan.cores.protocol import map_state as map_state
from echospan.cores.protocol import tensors as tensors
from echospan.cores.reservoir import Reservoir as Reservoir
from echospan.cores.rnn import RNN as RNN
from echospan.cores.s4d import S4D as S4D
from echospan.cores.tcn import TCN as TCN
from echospan.errors import SettingError, nearest
from echospan.text import shown
from echospan.validation import sizes


def _gru(features: int, hidden: int) -> nn.Module:
    features, hidden = sizes(features, hidden)
    return open_memory(GRU(features, hidden, batch_first=True))


def _rnn(features: int, hidden: int) -> nn.Module:
    return RNN(features, hidden, nonlinearity="relu")


CORES: dict[str, Callable[[int, int], nn.Module]] = {
    "gru": _gru,
    "lstm": LSTM,
    "rnn": _rnn,
    "rnn_tanh": RNN,
    "min_gru": MinGRU,
    "min_lstm": MinLSTM,
    "lru": LRU,
    "s4d": S4D,
    "mamba": Mamba,
    "lmu": LMU,
    "linear_attention": LinearAttention,
    "delta_net": DeltaNet,
    "attention": Attention,
    "tcn": TCN,
    "reservoir": Reservoir,
    "delay_line": DelayLine,
}
"""Name -> constructor of (features, hidden)."""


def make_core(name: str, features: int, hidden: int) -> nn.Module:
    """The core of that name; SettingError, with the nearest name, where there is none."""
    if not isinstance(name, str) or name not in CORES:
        raise SettingError(
            f"there is no core {shown(name)}",
            nearest(name, CORES) + "use one of " + ", ".join(CORES),
        )
    return CORES[name](features, hidden)
