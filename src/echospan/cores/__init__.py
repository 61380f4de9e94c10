"""One architecture a file; CORES is the one list of them."""

from collections.abc import Callable
from difflib import get_close_matches

from torch import nn

from echospan.cores.adapter import as_core as as_core
from echospan.cores.gru import GRU as GRU
from echospan.cores.gru import open_memory as open_memory
from echospan.cores.protocol import Core as Core
from echospan.cores.protocol import State as State
from echospan.cores.protocol import batch_dim as batch_dim
from echospan.cores.protocol import map_state as map_state
from echospan.cores.protocol import tensors as tensors
from echospan.errors import SettingError


def _gru(features: int, hidden: int) -> nn.Module:
    return open_memory(GRU(features, hidden, batch_first=True))


def _rnn(features: int, hidden: int) -> nn.Module:
    return open_memory(nn.RNN(features, hidden, nonlinearity="relu", batch_first=True))


CORES: dict[str, Callable[[int, int], nn.Module]] = {
    "gru": _gru,
    "rnn": _rnn,
}
"""Name -> constructor of (features, hidden)."""


def make_core(name: str, features: int, hidden: int) -> nn.Module:
    """The core of that name; SettingError, with the nearest name, where there is none."""
    if name not in CORES:
        near = get_close_matches(name, CORES, 1)
        raise SettingError(
            f"there is no core {name!r}",
            (f"did you mean {near[0]}? " if near else "") + "use one of " + ", ".join(CORES),
        )
    return CORES[name](features, hidden)
