"""A model as two ONNX graphs, for programs without PyTorch; none is written that answers otherwise.

    echo_full.onnx   symbols (batch, time), state  ->  logits (batch, time, delay, symbol), state
    echo_step.onnx   symbols (batch,), state       ->  logits (batch, delay, symbol), state
    echo.json        alphabet, longest delay, names and shapes of the state, parity

The symbols are int64 ids: 0 is the blank, 1 the alphabet's first character. A state of zeros is
the empty one. With `conditioning="input"` `delays`, of the shape of `symbols`, is an input too and
the logits have no dimension for the delay. What echo.json says is in the graphs' metadata as well,
under `echospan`.
"""

import contextlib
import dataclasses
import io
import json
import os
import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from echospan import __version__
from echospan.cores import State, batch_dim, copy_module, map_state, tensors
from echospan.devices import standard_modes
from echospan.errors import (
    CoreError,
    EchospanError,
    ExportError,
    RunError,
    SettingError,
    by_caller,
    first_line,
    option,
)
from echospan.model import EchoModel
from echospan.output import muted
from echospan.packing import pack as pack
from echospan.random_streams import Purpose, python_random
from echospan.steps import plain_step
from echospan.storage.atomic import follow
from echospan.storage.folder import Layout, claim, digest, is_empty, read_regular

if TYPE_CHECKING:
    import onnx

FORMAT = 1
"""Version of what is exported: names, shapes and meanings of inputs and outputs."""

OPSET = 17
"""Old enough for readers of 2022, new enough for all that our cores do."""

_STREAM = by_caller("echospan.Stream", "echospan echo")

FULL, STEP, TOLD = "echo_full.onnx", "echo_step.onnx", "echo.json"


def _owned(folder: Path) -> dict[str, str] | None:
    """Return the digests of the files that are an export of ours: each one names us."""
    contents = {name: read_regular(folder / name) or b"" for name in (FULL, STEP, TOLD)}
    try:
        described = json.loads(contents[TOLD])
    except (ValueError, RecursionError):
        return None
    if not isinstance(described, dict) or "echospan" not in described:
        return None
    return {name: digest(data) for name, data in contents.items() if b"echospan" in data}


_LAYOUT = Layout("export", TOLD, _owned)

TOLERANCE = 5e-4
"""The largest difference of logits and states that rounding may make, as a share of the largest.

Attention, whose scores grow sharp in training, came to 4e-5; a wrong reset gate makes 3e-2.
"""


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far the graphs were from their model, in logits and states, as a share of the largest."""

    draws: int
    """Shapes and inputs that were drawn; of each the first step was taken on its own too."""
    drawn: float
    steps: int
    """Steps that were chained, each from the state of the last."""
    chained: float


@dataclasses.dataclass(frozen=True)
class Graphs:
    """A model's two graphs."""

    full: "onnx.ModelProto"
    step: "onnx.ModelProto"


def export_onnx(model: EchoModel, folder: str | Path, *, overwrite: bool = False) -> Parity:
    """Write a model as ONNX once its graphs are sure to answer as it does; how near they came.

    Raises RunError where the folder is there (unless `overwrite` and it is an export) or the disk
    refuses, CoreError for a core that is no graph, ExportError for graphs that answer otherwise:
    then nothing is written.
    """
    path = Path(folder)

    def check(_: Path) -> None:
        check_export(path, overwrite)

    with claim(path, "echospan export", check) as claimed:
        # Exporter and runtime write graphs and warnings of their own, a layer what it likes.
        with standard_modes(), muted():
            _needs()
            model = copy_module(model).cpu().float().eval()
            graphs = trace(model)
            parity = verify(model, graphs)
            told = _told(model) | {"parity": dataclasses.asdict(parity)}
        import onnx

        for graph in (graphs.full, graphs.step):
            onnx.helper.set_model_props(graph, {"echospan": json.dumps(told)})
        files = {
            FULL: graphs.full.SerializeToString(),
            STEP: graphs.step.SerializeToString(),
            TOLD: (json.dumps(told, indent=2) + "\n").encode(),
        }
        claimed.commit(_LAYOUT, files)
    return parity


def check_export(folder: str | Path, overwrite: bool = False) -> Path:
    """Return the folder as a path, if an export may be written there; changes nothing.

    Args:
        folder: The folder; a link is followed.
        overwrite: Whether an export that is there may be replaced.

    Raises RunError for an export without `overwrite`, and for anything else that is not empty.
    """
    path = Path(folder)
    place = follow(path)
    if os.path.lexists(place) and not is_empty(place):
        if not place.is_dir() or _LAYOUT.owned(place) is None:
            raise RunError(
                f"{path} exists and is no export of echospan",
                "it is not overwritten: name another folder",
            )
        if not overwrite:
            raise RunError(
                f"{path} exists already", f"name another folder, or add {option('overwrite', True)}"
            )
    return path


def _needs() -> None:
    try:
        import onnxruntime

        import onnx

        # It would write of its own doings to standard error.
        onnxruntime.set_default_logger_severity(3)
        del onnx
    except ImportError as e:
        raise SettingError(f"{e.name} is not installed", "pip install 'echospan[onnx]'") from None


class _Traced(nn.Module):
    """A model whose inputs and outputs are tensors side by side, as those of a graph."""

    def __init__(self, model: EchoModel, like: State, one_step: bool) -> None:
        super().__init__()
        self.model, self.like, self.one_step = model, like, one_step
        self.step = plain_step(model.core)

    def forward(self, symbols: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        model, parts = self.model, iter(more)
        x = model.embedding(symbols)
        if model.delay_embedding is not None:
            x = torch.cat([x, model.delay_embedding(next(parts))], -1)
        state = map_state(lambda _: next(parts), self.like)
        y, state = self.step(x[:, None] if self.one_step else x, state)
        y = y[:, 0] if self.one_step else y
        logits = model.readouts(y) if model.by_input else model.read_all(y)
        return (logits, *tensors(state))


def trace(model: EchoModel) -> Graphs:
    """The graphs of a model that is on the CPU and in `eval()`; CoreError where there are none."""
    core = model.core
    if not getattr(core, "zeros_are_empty", True):
        raise CoreError(
            "a state of zeros is not the empty one of this core",
            f"a graph cannot begin anew: stream it with {_STREAM}",
        )
    step = _trace(model, one_step=True)
    # These have an operator of their own, for any length; the others go on step by step.
    full = _trace(model, one_step=False) if isinstance(core, nn.RNNBase) else _scanned(step)
    return Graphs(full, step)


@torch.no_grad()
def _empty(model: EchoModel, batch: int) -> State:
    """The empty state of that many rows."""
    zero = torch.zeros(batch, 1, dtype=torch.long)
    return map_state(torch.zeros_like, model.hidden(zero, None, zero)[1])


def _names(model: EchoModel) -> tuple[list[str], list[str], list[str]]:
    """Of the inputs that are read step by step, of the state going in, and of it coming out."""
    count = len(list(tensors(_empty(model, 1))))
    read = ["symbols", "delays"] if model.by_input else ["symbols"]
    state = [f"state_{i}" for i in range(count)]
    return read, state, [f"new_{name}" for name in state]


@torch.no_grad()
def _trace(model: EchoModel, one_step: bool) -> "onnx.ModelProto":
    import onnx

    state = _empty(model, 2)
    read, before, after = _names(model)
    symbols = torch.zeros((2,) if one_step else (2, 3), dtype=torch.long)
    free = {0: "batch"} if one_step else {0: "batch", 1: "time"}
    rows = {batch_dim(model.core): "batch"}
    made = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of all that a trace takes for constant: `verify` sees
            torch.onnx.export(
                _Traced(model, state, one_step),
                (*(symbols for _ in read), *tensors(state)),
                made,  # type: ignore[arg-type]
                input_names=[*read, *before],
                output_names=["logits", *after],
                dynamic_axes=dict.fromkeys((*read, "logits"), free)
                | dict.fromkeys((*before, *after), rows),
                opset_version=OPSET,
                # The newer exporter writes out a loop over time once a process, and then no more.
                dynamo=False,
            )
    except EchospanError:
        raise
    except Exception as e:  # of exporter and layer alike
        reason = first_line(e) or type(e).__name__
        raise CoreError(
            f"the core {model.core_name} cannot be traced into a graph ({reason})",
            f"stream it with {_STREAM}, or write its step without what ONNX lacks",
        ) from None
    return onnx.load_model_from_string(made.getvalue())


def _scanned(step: "onnx.ModelProto") -> "onnx.ModelProto":
    """A graph of whole sequences that takes one step after the other."""
    import onnx
    from onnx import TensorProto, helper

    body = onnx.compose.add_prefix(step, "step/").graph
    state = [value for value in step.graph.input if value.name.startswith("state_")]
    read = [value for value in step.graph.input if not value.name.startswith("state_")]
    logits, after = step.graph.output[0], step.graph.output[1:]
    # A Scan hands its body the state first and takes it back first.
    inputs, outputs = list(body.input), list(body.output)
    del body.input[:], body.output[:]
    body.input.extend([*inputs[len(read) :], *inputs[: len(read)]])
    body.output.extend([*outputs[1:], outputs[0]])
    weights = list(body.initializer)
    del body.initializer[:]
    scan = helper.make_node(
        "Scan",
        [v.name for v in (*state, *read)],
        [v.name for v in (*after, logits)],
        body=body,
        num_scan_inputs=len(read),
        scan_input_axes=[1] * len(read),
        scan_output_axes=[1],
    )
    sizes = [d.dim_value for d in logits.type.tensor_type.shape.dim[1:]]
    graph = helper.make_graph(
        [scan],
        "echo",
        [
            *(
                helper.make_tensor_value_info(v.name, TensorProto.INT64, ["batch", "time"])
                for v in read
            ),
            *state,
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "time", *sizes]),
            *after,
        ],
        weights,
    )
    return helper.make_model(
        graph, opset_imports=list(step.opset_import), ir_version=step.ir_version
    )


def _told(model: EchoModel) -> dict[str, Any]:
    _, before, after = _names(model)
    rows = batch_dim(model.core)
    shapes = [list(t.shape) for t in tensors(_empty(model, 1))]
    return {
        "format": FORMAT,
        "echospan": __version__,
        "alphabet": model.alphabet.characters,
        "max_delay": model.max_delay,
        "delay": model.check_delay(None),
        "conditioning": model.config.conditioning,
        "core": model.core_name,
        "states": [
            {"input": i, "output": o, "shape": [*shape[:rows], "batch", *shape[rows + 1 :]]}
            for i, o, shape in zip(before, after, shapes, strict=True)
        ],
    }


def verify(model: EchoModel, graphs: Graphs, *, draws: int = 200, steps: int = 1000) -> Parity:
    """Run the graphs beside their model on what is drawn; how far apart they were at most.

    Raises ExportError where they are apart by more than rounding, or no sound graphs.
    """
    check_gru(graphs)
    chance = python_random(Purpose.EXPORT, 0)
    full, step = _Session(model, graphs.full), _Session(model, graphs.step)
    drawn = chained = 0.0
    for draw in range(draws):
        batch = chance.randint(1, 8) if draw else 1
        time = chance.randint(1, 96) if draw % 5 else 1
        state = _empty(model, batch)
        if draw % 2:
            state = _answers(model, _drawn(model, chance, batch, chance.randint(1, 48)), state)[1]
        read = _drawn(model, chance, batch, time)
        given = list(tensors(state))
        drawn = max(drawn, full.compared(read, _answers(model, read, state), given)[0])
        logits, after = _answers(model, [r[:, :1] for r in read], state)
        first, expected = [r[:, 0] for r in read], (logits[:, 0], after)
        drawn = max(drawn, step.compared(first, expected, given)[0])
    state = _empty(model, 1)
    given = list(tensors(state))
    for _ in range(steps):
        read = _drawn(model, chance, 1, 1)
        logits, state = _answers(model, read, state)
        expected = logits[:, 0], state
        difference, given = step.compared([r[:, 0] for r in read], expected, given)
        chained = max(chained, difference)
    return Parity(draws, drawn, steps, chained)


def check_gru(graphs: Graphs) -> None:
    """ExportError where a GRU's reset gate falls on the state before the product with its weights.

    PyTorch's falls on that product. Exporters have written the other one without a word.
    """
    for graph in (graphs.full, graphs.step):
        for node in graph.graph.node:
            told = {a.name: a.i for a in node.attribute}
            if node.op_type == "GRU" and told.get("linear_before_reset", 0) != 1:
                raise ExportError(
                    "a GRU of the graph has no linear_before_reset of 1: its reset gate is another",
                    "nothing is written: try another version of torch",
                )


def _drawn(model: EchoModel, chance: random.Random, batch: int, time: int) -> list[Tensor]:
    """Symbols `(batch, time)`, and delays where the model reads them."""
    ends = [(1, model.symbols - 1), (0, model.max_delay)][: 2 if model.by_input else 1]
    return [
        torch.tensor([[chance.randint(*end) for _ in range(time)] for _ in range(batch)])
        for end in ends
    ]


@torch.no_grad()
def _answers(model: EchoModel, read: Sequence[Tensor], state: State) -> tuple[Tensor, State]:
    """Logits as the graph of whole sequences gives them, of PyTorch; and the state."""
    y, state = model.hidden(read[0], state, read[-1])
    return (model.readouts(y) if model.by_input else model.read_all(y)), state


class _Session:
    """A graph at work in onnxruntime."""

    def __init__(self, model: EchoModel, graph: "onnx.ModelProto") -> None:
        import onnxruntime

        self.read, self.before, self.after = _names(model)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        with _refusals():
            self.session = onnxruntime.InferenceSession(graph.SerializeToString(), settings)

    def compared(
        self, read: Sequence[Tensor], expected: tuple[Tensor, State], state: Sequence[Tensor]
    ) -> tuple[float, list[Tensor]]:
        """How far its answers to what is read are from those expected, and its new state."""
        names, outputs = [*self.read, *self.before], ["logits", *self.after]
        fed = {n: t.numpy() for n, t in zip(names, [*read, *state], strict=True)}
        with _refusals():
            got = [torch.from_numpy(a) for a in self.session.run(outputs, fed)]
        difference = 0.0
        for name, one, other in zip(
            outputs, got, [expected[0], *tensors(expected[1])], strict=True
        ):
            apart = _apart(one, other)
            if not apart <= TOLERANCE:
                raise ExportError(
                    f"of symbols {list(read[0].shape)} the graph's {name} are {apart:.2g} from the "
                    f"model's, where rounding makes {TOLERANCE:g} at most",
                    f"nothing is written: stream the model with {_STREAM}",
                )
            difference = max(difference, apart)
        return difference, got[1:]


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest number of `other`."""
    if one.shape != other.shape:
        return float("inf")
    if not other.numel():
        return 0.0
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-3))


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Exception as e:  # those of onnxruntime have no base of their own
        raise ExportError(
            f"onnxruntime refuses the graph ({e})",
            f"nothing is written: stream the model with {_STREAM}",
        ) from None
