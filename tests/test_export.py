"""A model leaves PyTorch as two graphs that answer as it does, or does not leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

import onnx
from echospan import export
from echospan.cli import main
from echospan.cores import CORES, as_core
from echospan.errors import CoreError, ExportError
from echospan.export import export_onnx, trace, verify
from echospan.model import EchoModel
from echospan.recipes import ModelConfig

HOME = Path(__file__).parents[1]
EXAMPLE = HOME / "examples" / "onnx_echo.py"


def a_model(core="gru", conditioning="readout", hidden=16):
    torch.manual_seed(0)
    config = ModelConfig(
        alphabet="abc", max_delay=2, hidden=hidden, core=core, conditioning=conditioning
    )
    model = EchoModel(config).eval()
    with torch.no_grad():  # no weight is one or nothing, as some are at first
        for p in model.parameters():
            p += 0.05 * torch.randn_like(p)
    return model


@pytest.mark.parametrize("core", CORES)
def test_the_graphs_of_every_core_answer_as_it_does(core):
    model = a_model(core)
    parity = verify(model, trace(model), draws=30, steps=60)
    assert parity.drawn < 2e-5
    assert parity.chained < 2e-5


@pytest.mark.parametrize("core", ["gru", "lru", "mamba", "tcn"])
def test_the_delay_is_an_input_where_the_model_reads_it(core):
    model = a_model(core, "input", hidden=32)
    graphs = trace(model)
    assert [v.name for v in graphs.full.graph.input][:2] == ["symbols", "delays"]
    verify(model, graphs, draws=30, steps=60)


@pytest.mark.parametrize(("core", "node"), [("gru", "GRU"), ("lstm", "LSTM"), ("rnn", "RNN")])
def test_what_onnx_knows_is_one_node_of_it(core, node):
    for graph in vars(trace(a_model(core))).values():
        onnx.checker.check_model(graph, full_check=True)
        assert [n.op_type for n in graph.graph.node].count(node) == 1


def test_a_layer_of_ones_own_is_exported_too():
    torch.manual_seed(0)
    core = as_core(nn.LSTM(4, 8, batch_first=True))
    model = EchoModel(ModelConfig(alphabet="abc", max_delay=1, hidden=8), core).eval()
    verify(model, trace(model), draws=30, steps=60)


def test_the_whole_export_twice_in_one_process(tmp_path):
    for name in ("one", "other"):
        parity = export_onnx(a_model("min_gru"), tmp_path / name)
        assert (parity.draws, parity.steps) == (200, 1000)
    for name in ("echo_full.onnx", "echo_step.onnx", "echo.json"):
        one, other = ((tmp_path / f / name).read_bytes() for f in ("one", "other"))
        assert one == other


@pytest.fixture(scope="module")
def exported(fixed_run, tmp_path_factory):
    """What `echospan export` makes of a trained run."""
    folder = tmp_path_factory.mktemp("exports") / "fixed"
    with pytest.raises(SystemExit) as end:
        main(["export", str(fixed_run), "-o", str(folder)])
    assert end.value.code == 0
    return folder


def test_the_folder_tells_a_program_all_that_it_needs(exported):
    assert {p.name for p in exported.iterdir()} == {"echo_full.onnx", "echo_step.onnx", "echo.json"}
    told = json.loads((exported / "echo.json").read_text())
    assert told["alphabet"] == "abcdefghijklmnopqrstuvwxyz"
    assert told["max_delay"] == told["delay"] == 4
    assert told["states"] == [
        {"input": "state_0", "output": "new_state_0", "shape": [1, "batch", 64]}
    ]
    for name in ("full", "step"):
        session = onnxruntime.InferenceSession(exported / f"echo_{name}.onnx")
        inside = json.loads(session.get_modelmeta().custom_metadata_map["echospan"])
        assert inside == told


def test_the_graph_of_whole_sequences_echoes(exported):
    session = onnxruntime.InferenceSession(exported / "echo_full.onnx")
    text = "abacaba"
    symbols = torch.tensor([[ord(c) - 96 for c in text]] * 2).numpy()
    state = torch.zeros(1, 2, 64).numpy()
    logits, _ = session.run(None, {"symbols": symbols, "state_0": state})
    assert logits.shape == (2, len(text), 5, 27)
    assert logits[1, :, 3].argmax(-1).tolist() == [0, 0, 0, 1, 2, 1, 3]


def test_the_example_echoes_without_torch_or_us(exported):
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['echospan'] = None; "
        f"sys.argv[1:] = [{str(exported)!r}, '4']; runpy.run_path({str(EXAMPLE)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input="aba-caba\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "···-·aba\n"


def planted(graphs, change):
    """A fault in the graphs, as an exporter may make it without a word."""
    for graph in (graphs.full.graph, graphs.step.graph):
        change(graph)
    return graphs


def reset_before_the_product(graph):
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "linear_before_reset":
                attribute.i = 0


def another_weight(graph):
    for weight in graph.initializer:
        if "readouts" in weight.name or "MatMul" in weight.name:
            values = onnx.numpy_helper.to_array(weight).copy()
            values.flat[0] += 0.01
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))


def a_type_that_is_none(graph):
    graph.node[-1].op_type = "Nonsense"


FAULTS = {
    "reset before the product": (reset_before_the_product, "has no linear_before_reset of 1"),
    "another weight": (another_weight, "from the model's"),
    "no operator": (a_type_that_is_none, "onnxruntime refuses the graph"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_graph_that_answers_otherwise_is_not_written(
    fault, fixed_run, tmp_path, monkeypatch, capsys
):
    change, sentence = FAULTS[fault]
    monkeypatch.setattr(export, "trace", lambda model: planted(trace(model), change))
    with pytest.raises(SystemExit) as end:
        main(["export", str(fixed_run), "-o", str(tmp_path / "out")])
    assert end.value.code == 1
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def a_model_of(core):
    return EchoModel(ModelConfig(alphabet="abc", max_delay=1, hidden=4), core).eval()


class InPlace(nn.Module):
    """Writes its sums where a trace does not look."""

    def __init__(self):
        super().__init__()
        self.input_size = self.hidden_size = 4
        self.batch_dim = 0

    def forward(self, x, state=None):
        h = x.new_zeros(len(x), 4) if state is None else state
        y = torch.empty_like(x)
        for x_t, y_t in zip(x.unbind(1), y.unbind(1), strict=True):
            h = x_t + 0.5 * h
            y_t.copy_(h)
        return y, h


def test_a_step_that_a_trace_does_not_see_is_found_out():
    model = a_model_of(InPlace())
    with pytest.raises(ExportError, match="from the model's"):
        verify(model, trace(model))


class Exponential(nn.Module):
    """Does what ONNX has no operator for."""

    input_size = hidden_size = 4
    batch_dim = 0

    def forward(self, x, state=None):
        return torch.linalg.matrix_exp(x[..., None] * x[..., None, :])[..., 0], x[:, -1]


class CountsDown(nn.Module):
    """Begins with ones."""

    input_size = hidden_size = 4
    batch_dim = 0
    zeros_are_empty = False

    def forward(self, x, state=None):
        h = torch.ones_like(x[:, 0]) if state is None else state
        return x + h[:, None], h


@pytest.mark.parametrize("core", [Exponential, CountsDown])
def test_a_core_that_is_no_graph_is_refused_and_nothing_is_written(core, tmp_path):
    with pytest.raises(CoreError):
        export_onnx(a_model_of(core()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_replaced_when_that_is_asked_for(exported, fixed_run, tmp_path, capsys):
    import shutil

    folder = tmp_path / "out"
    shutil.copytree(exported, folder)
    (folder / "echo_step.onnx").write_text("damaged")
    with pytest.raises(SystemExit) as end:
        main(["export", str(fixed_run), "-o", str(folder), "--overwrite", "--json"])
    assert end.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parity"]["drawn"] < 1e-5
    assert (folder / "echo_step.onnx").read_bytes() == (exported / "echo_step.onnx").read_bytes()


def test_its_help_needs_no_torch():
    code = """
import sys
from echospan.cli import main
try:
    main(['export', '--help'])
except SystemExit:
    assert not {'torch', 'onnx'} & {*sys.modules}
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_page_has_a_line_for_every_core():
    text, _, _ = (HOME / "docs" / "export.md").read_text().partition("## In a page")
    lines = text.splitlines()
    assert [line.split()[1] for line in lines if line.endswith(" |") and line[-3].isdigit()] == [
        *CORES
    ]


class Noisy(nn.LSTM):
    """Prints in its forward, and has what ONNX has no operator for."""

    def forward(self, x, state=None):
        print("a layer speaks")
        return super().forward(x, state)


def noisy(**size):
    layer = as_core(Noisy(4, 8, batch_first=True, **size))
    return EchoModel(ModelConfig(alphabet="abc", max_delay=1, hidden=8), core=layer)


def test_an_export_writes_nothing_foreign_to_the_terminal(tmp_path, capfd):
    model = noisy()
    capfd.readouterr()
    export_onnx(model, tmp_path / "graphs")
    os.system("echo after")  # what a library has buffered is not written later
    assert capfd.readouterr() == ("after\n", "")
    assert json.loads((tmp_path / "graphs" / "echo.json").read_text())["core"] == "Noisy"


def test_a_refused_export_names_the_layer_and_writes_nothing_foreign_either(tmp_path, capfd):
    model = noisy(proj_size=3)
    capfd.readouterr()
    with pytest.raises(CoreError, match="the core Noisy cannot be traced into a graph"):
        export_onnx(model, tmp_path / "graphs")
    os.system("echo after")
    assert capfd.readouterr() == ("after\n", "")
    assert not (tmp_path / "graphs").exists()
