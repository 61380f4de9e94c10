"""How far back can a sequence model remember? The echo task, solved and measured.

Names are imported when first used, so that `import echospan` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echospan.alphabet import Alphabet as Alphabet
    from echospan.benching import bench as bench
    from echospan.capacity import memory_capacity as memory_capacity
    from echospan.checkpoint import load as load
    from echospan.checks import check as check
    from echospan.cores import CORES as CORES
    from echospan.cores import as_core as as_core
    from echospan.errors import EchospanError as EchospanError
    from echospan.evaluation import Evaluation as Evaluation
    from echospan.evaluation import evaluate as evaluate
    from echospan.evaluation import stream_errors as stream_errors
    from echospan.grids import Cell as Cell
    from echospan.grids import Grid as Grid
    from echospan.model import EchoModel as EchoModel
    from echospan.profiling import Profile as Profile
    from echospan.profiling import combine as combine
    from echospan.profiling import profile as profile
    from echospan.pytest_plugin import assert_span as assert_span
    from echospan.recipes import RECIPES as RECIPES
    from echospan.recipes import ModelConfig as ModelConfig
    from echospan.recipes import Recipe as Recipe
    from echospan.recipes import TrainingConfig as TrainingConfig
    from echospan.shipping import shipped as shipped
    from echospan.store import results as results
    from echospan.streaming import Stream as Stream
    from echospan.tasks import EchoTask as EchoTask
    from echospan.training import train as train


__version__ = "0.1.0"

_HOME = {
    "Alphabet": "alphabet",
    "CORES": "cores",
    "Cell": "grids",
    "EchoModel": "model",
    "EchoTask": "tasks",
    "EchospanError": "errors",
    "Evaluation": "evaluation",
    "Grid": "grids",
    "ModelConfig": "recipes",
    "Profile": "profiling",
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "Stream": "streaming",
    "TrainingConfig": "recipes",
    "as_core": "cores",
    "assert_span": "pytest_plugin",
    "bench": "benching",
    "check": "checks",
    "combine": "profiling",
    "evaluate": "evaluation",
    "load": "checkpoint",
    "memory_capacity": "capacity",
    "profile": "profiling",
    "results": "store",
    "shipped": "shipping",
    "stream_errors": "evaluation",
    "train": "training",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"echospan has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"echospan.{_HOME[name]}"), name)
