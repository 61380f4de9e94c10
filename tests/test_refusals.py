"""Every refusal, through Python and through the command line: one sentence, and nothing left.

A row says which class is raised, with which words, and what provokes it; what it provokes runs in a
folder with a run, an unfinished one, a stream's state and a store (`refused.filled`).
"""

import ast
import builtins
import errno
import fcntl
import functools
import hashlib
import json
import math
import os
import pickle
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.damage import subjects
from torch import nn

import refused
import test_adapter
import test_capacity
import test_checks
import test_export
from echospan import checks, cli, engines, homework, shipping, sizing
from echospan.alphabet import Alphabet
from echospan.benching import CellResult, bench
from echospan.capacity import capacity_of_states, memory_capacity
from echospan.checkpoint import (
    Snapshot,
    check_output,
    claim_run,
    load,
    read_snapshot,
    save,
    sealed,
    unsealed,
    write_snapshot,
    write_whole,
)
from echospan.checks import check
from echospan.cores import (
    CORES,
    GRU,
    LMU,
    LRU,
    S4D,
    TCN,
    Attention,
    DelayLine,
    DeltaNet,
    LinearAttention,
    Reservoir,
    as_core,
    make_core,
)
from echospan.devices import find_device
from echospan.errors import (
    AlphabetError,
    CheckError,
    CoreError,
    DelayError,
    DeviceError,
    DivergenceError,
    EchospanError,
    EngineError,
    ExportError,
    RunError,
    SettingError,
    StoreError,
    by_caller,
    option,
)
from echospan.evaluation import evaluate, evaluate_span
from echospan.export import check_export, export_onnx, pack, trace, verify
from echospan.grids import Cell, Grid, read
from echospan.layers import built, find, fit_hidden, trusted
from echospan.memory import check_training_memory
from echospan.model import EchoModel
from echospan.parallel import Group
from echospan.profiling import Profile, combine, profile
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.run_format import manifest
from echospan.selftest import ring
from echospan.storage.folder import FolderInUseError, claim
from echospan.store import Store, differences, results
from echospan.streaming import Stream
from echospan.tasks import EchoTask
from echospan.training import train
from echospan.web.guard import host_name
from echospan.web.served import Served
from echospan.web.server import common_alphabet, listen
from refused import SOURCE, Refusal, commanded, filled, held, places, provoked

R = Refusal
SMALL = ModelConfig(alphabet="abc", max_delay=2, hidden=8)
SHORT = TrainingConfig(steps=40, batch=4)
ALL = ", ".join(CORES)


# What is done to the folder, or asked of it.


def text(path, said):
    return lambda: Path(path).write_text(said)


def cut(path, at):
    return lambda: os.truncate(path, at)


def config(change):
    """A run's settings, changed, with the right checksum."""

    def harm():
        path = Path("run/config.json")
        settings = json.loads(path.read_text())
        change(settings)
        path.write_bytes(manifest(settings))

    return harm


def sealed_as(path, change, **tensors):
    """A file of ours with other facts and tensors, and the right checksum over them."""

    def harm():
        told, kept = unsealed(Path(path), "", "")
        change(told)
        Path(path).write_bytes(sealed(told, tensors or kept))

    return harm


def scribbled(path):
    """One byte changed where the tensors are."""

    def harm():
        data = bytearray(Path(path).read_bytes())
        data[-1] ^= 1
        Path(path).write_bytes(data)

    return harm


def database(*statements):
    """Statements of SQL on the store."""

    def harm():
        with sqlite3.connect("store.sqlite") as db:
            for statement in statements:
                db.execute(statement)
        db.close()

    return harm


def page_twice():
    """The second page of the store in the place of its last one."""
    data = Path("store.sqlite").read_bytes()
    size = int.from_bytes(data[16:18], "big")
    Path("store.sqlite").write_bytes(data[:-size] + data[size : 2 * size])


LUCKLESS = CellResult(Cell(core="gru", symbols=1), None, "out of luck", 1, 0.1)


def while_open(harm, use=Store.check):
    """What is done to a store while it is open for writing."""
    with Store("store.sqlite") as store:
        harm("store.sqlite")
        use(store)


def taken_out():
    """A result that was added, and replaced by a copy of the file from before."""
    with Store("store.sqlite") as store:
        before = Path("store.sqlite").read_bytes()
        store.add(LUCKLESS)
        Path("store.sqlite").write_bytes(before)
        store.verify([LUCKLESS.cell])


def linked():
    Path("run/config.json").rename("elsewhere")
    Path("run/config.json").symlink_to("../elsewhere")


def evaluated(content):
    """Give the run another evaluation, with the right checksum."""
    Path("run/evaluation.json").write_text(content)
    digest = hashlib.sha256(content.encode()).hexdigest()
    config(lambda settings: settings["files"].update({"evaluation.json": digest}))()


UNFIT = {"blank_accuracy": None, "delays": [], "recalled_bits": 0.0, "span": 0, "target": 0.9}


def unfinite(path):
    """Put a number that is none into a state, with the right checksum."""
    facts, parts = unsealed(Path(path), "", "")
    parts = {name: part.fill_(torch.nan) for name, part in parts.items()}
    Path(path).write_bytes(sealed(facts, parts))


def not_a_number():
    model = load("run")
    with torch.no_grad():
        model.readouts.bias[0] = torch.nan
    save(model, SHORT, "run", {}, overwrite=True)


def saved():
    return save(load("run"), SHORT, "run", {"more": "x" * 1000}, overwrite=True)


def claimed(folder):
    with claim_run(folder, overwrite=True):
        pass


def no_memory(_):
    raise MemoryError


def restored(path="state"):
    return Stream(load("run")).restore(path)


def rows(path="store.sqlite"):
    with Store(path, write=False) as store:
        return store.rows()


def stored(path="store.sqlite"):
    with Store(path, write=False) as store:
        return store.stored()


def two(**changes):
    """Two profiles of a store, the second changed."""
    one = stored()[0].profile
    return [one, replace(one, **changes)]


def cells(**settings):
    return Grid(**{"cores": ("gru",), "hidden": (8,)} | settings)


def grid(said):
    """A grid in TOML, read."""
    return {
        "call": lambda: read(Path("my.toml")),
        "args": "bench my.toml",
        "harm": text("my.toml", said),
    }


def used():
    """A module that keeps its state on itself, and has been used."""
    layer = test_adapter.OnItself()
    layer(torch.randn(2, 5, 4))
    return layer


def row(core, hidden, **more):
    told = {"status": "done", "race": "", "parameters": 0, "state": hidden, "span": 1, "bits": 1.0}
    return {"core": core, "hidden": hidden} | told | more


def graphs(change):
    """A run's graphs with a fault in them."""
    model = load("run")
    verify(model, test_export.planted(trace(model), change))


def snapshot(**tensors):
    return Snapshot(Recipe(model=SMALL, training=SHORT), tensors, {})


def tires():
    """A module that tires just when it is asked whether it keeps anything on itself."""
    for calls in range(60):
        try:
            as_core(refused.TiresOut(calls))
        except CoreError as e:
            if "is not among its attributes" in str(e):
                raise


def writes_late():
    """A module that leaves its input alone until it is asked how it is carried."""
    for calls in reversed(range(60)):
        as_core(refused.WritesLater(calls))


NO_RUN = (
    "no run folder is named; name one, such as runs/variable, or a model that is shipped, such as "
    "--model variable"
)

ASKED = {
    "forget": (
        "there is no command 'forget'; use one of train, evaluate, echo, export, profile, "
        "check, selftest, bench, results, report, serve"
    ),
    "chekc gru": (
        "there is no command 'chekc'; did you mean check? use one of train, evaluate, echo, "
        "export, profile, check, selftest, bench, results, report, serve"
    ),
    "train": "no recipe is named; use one of fixed, variable, bits",
    "train fixd --out new": (
        "there is no recipe 'fixd'; did you mean fixed? use one of fixed, variable, bits"
    ),
    "train fixed --out new --hiden 3": (
        "there is no flag --hiden; did you mean --hidden? echospan train fixed --help lists them"
    ),
    "train fixed --out new --hidden many": "--hidden is many; give it a whole number, such as 20",
    "train fixed --out": "--out has no value; give it a path",
    "train fixed --out new --conditioning both": (
        "--conditioning is both; give it one of readout, input"
    ),
    "train fixed extra --out new": (
        "echospan train fixed has no place for 'extra'; write echospan train fixed"
    ),
    "train fixed --out new --stream -1": (
        f"{option('stream')} is -1; use a whole number of 0 or more"
    ),
    "train fixed --out new --snapshot-seconds -1": (
        "--snapshot-seconds is -1.0; use 0 for never, or more"
    ),
    "train fixed --out run --resume": (
        "run is finished; evaluate it, or train anew with --overwrite"
    ),
    "train fixed --out stopped --resume": (
        "stopped was begun with --alphabet abc, not abcdefghijklmnopqrstuvwxyz; go on with "
        "the same settings, or train anew with --overwrite"
    ),
    "train fixed --out stopped --resume --overwrite": (
        "--resume goes on with what is there, and --overwrite replaces it; give one of them"
    ),
    "evaluate": NO_RUN,
    "evaluate run --trials 0": f"{option('trials')} is 0; use a whole number of 1 or more",
    "evaluate run --trials 1e3": "--trials is 1e3; give it a whole number, such as 20",
    "evaluate run -x": "there is no flag -x; echospan evaluate --help lists them",
    "echo": NO_RUN,
    "export -o new": NO_RUN,
    "export run -o new --model fixed": (
        "a run, run, and --model fixed are named; name one of them"
    ),
    "evaluate --model fixed --target nan": (
        f"{option('target')} is nan; use a share between 0 and 1, such as 0.99"
    ),
    "evaluate --model fixed bist": (
        "no model 'bist' is shipped; did you mean bits? use one of bits, fixed, variable"
    ),
    "echo run abc --model fixed": "a run, run, and --model fixed are named; name one of them",
    "echo run abc def": "echospan echo has no place for 'def'; write echospan echo RUN [TEXT]",
    "echo run --othr skip": (
        "there is no flag --othr; did you mean --other? echospan echo --help lists them"
    ),
    "profile": "no layer is named; name some, such as gru or mylayers:Mine",
    "profile gru --parameters 9 --state 9": (
        "--parameters and --state both set the size; give one of them, and --hidden to none"
    ),
    "profile gru --out x.txt": "--out is x.txt; end it in .svg, .png or .pdf",
    "profile gru --out there.svg": "there.svg exists already; name another, or add --overwrite",
    "profile gru --out no/x.svg": "no is no folder; make it, or name another",
    "profile gru --out /proc/x.svg": (
        "nothing can be written to /proc (No such file or directory); name another"
    ),
    "profile gru --max_dely 3": (
        "there is no flag --max-dely; did you mean --max-delay? echospan profile --help lists them"
    ),
    "check gru --feature 3": (
        "there is no flag --feature; did you mean --features? echospan check --help lists them"
    ),
    "selftest --seed one": "--seed is one; give it a whole number, such as 20",
    "selftest gru": "echospan selftest has no place for 'gru'; write echospan selftest",
    "bench": (
        "no grid is named; name architectures, length, quick, size, a file in TOML, or cores "
        "with --cores gru lru"
    ),
    "bench qick": (
        "there is no grid 'qick'; did you mean quick? name architectures, length, quick, size, "
        "or a file in TOML"
    ),
    "bench --cores gru --workers 0": f"{option('workers')} is 0; use 1 or more",
    "bench --cores gru --address tcp://x:1": (
        f"{option('address')} is tcp://x:1, and loky runs on this machine alone; "
        f"use {option('engine', 'dask')} or {option('engine', 'ray')} with it"
    ),
    "bench --cores gru --hidden 2.5": "--hidden is 2.5; give it whole numbers, such as 20",
    "bench --cores gru --hidden=8 many": "--hidden is 8 many; give it whole numbers, such as 20",
    "bench --cores gru --engine spark": "--engine is spark; give it one of loky, dask, ray",
    "bench --cores gru --retry-faild": (
        "there is no flag --retry-faild; did you mean --retry-failed? echospan bench --help "
        "lists them"
    ),
    "results": "STORE is left out; write echospan results STORE",
    "results store.sqlite --csv store.sqlite --overwrite": (
        "store.sqlite is the file of results itself; name another"
    ),
    "results store.sqlite --csv run/config.json --overwrite": (
        "run/config.json is a file of a run; name another"
    ),
    f"profile gru --out {'a' * 300}.svg": (
        f"nothing can be written to {'a' * 300}.svg (File name too long); name another"
    ),
    "export run --format html -o run/model.safetensors --overwrite": (
        "--out is run/model.safetensors, which is in the run that is read, run; name another place"
    ),
    "export run -o run --overwrite": (
        "--out is run, which is in the run that is read, run; name another place"
    ),
    "echo run abc --state run/kept": (
        "--state is run/kept, which is in the run that is read, run; name another place"
    ),
    "results store.sqlite --status maybe": "--status is maybe; give it one of done, failed",
    "results store.sqlite --compare gru": "--compare is gru; give it 2 words",
    "results store.sqlite --json=3": (
        "echospan results has no place for '3'; write echospan results STORE"
    ),
    "results store.sqlite --csv out --jsonl ./out": (
        f"{option('csv')} and {option('jsonl')} are one file, out; "
        "give each output a file of its own"
    ),
    "results store.sqlite --csv store.sqlite-journal": (
        "store.sqlite-journal is the file of results itself; name another"
    ),
    "report store.sqlite figures/span.svg --figures figures": (
        "the page and the figure span.svg are one file, figures/span.svg; give each output a file "
        "of its own"
    ),
    "report store.sqlite --figures /proc/new": (
        "/proc/new cannot be made (No such file or directory); "
        f"name another with {option('figures')}"
    ),
    "report store.sqlite --figures there.svg": (
        f"there.svg is no folder; name another with {option('figures')}"
    ),
}
"""What a command line that does not fit is told: a SettingError, each of them."""


A_MAKER = by_caller(
    "give what makes it, such as lambda hidden: MyLayer(hidden)",
    "name what makes it, such as mylayers:MyLayer",
)
OTHERS = by_caller("", ", or let such characters go by with --other skip or --other keep")
OUT = by_caller("", " with --out")
ELSEWHERE = f"name another folder{OUT}"
SIZES = f"{option('hidden')}, {option('batch')}, {option('window')} or {option('max_delay')}"


def small():
    return EchoModel(SMALL)


def digits():
    return EchoModel(replace(SMALL, alphabet="0123456789"))


def unheard(group):
    """As gloo says it; a process that really dies is in test_parallel.py."""
    with group.heard():
        raise RuntimeError(
            "[gloo/transport/tcp/pair.cc:544] Connection closed by peer. See the log"
        )


REFUSALS = [
    # alphabet, model, tasks, recipes
    R(
        AlphabetError,
        "the alphabet 'aa' has 'a' twice; "
        "give each character once, or one of the names letters, digits, letters-digits, bits",
        lambda: Alphabet("aa"),
        "train fixed --out new --alphabet aa",
    ),
    R(
        AlphabetError,
        "the alphabet 'a' has fewer than two characters; "
        "give at least two, or one of the names letters, digits, letters-digits, bits",
        lambda: Alphabet("a"),
        "train fixed --out new --alphabet a",
    ),
    R(
        AlphabetError,
        "the alphabet is 3; use a string or one of the names letters, digits, letters-digits, bits",
        lambda: Alphabet(3),
    ),
    R(
        AlphabetError,
        "the alphabet 'a·' has '·', which stands for a blank; "
        "leave it out, or give another in its place",
        lambda: Alphabet("a·"),
        "train fixed --out new --alphabet a·",
    ),
    R(
        AlphabetError,
        "the text is 3; give a str of 'abc'",
        lambda: load("run").echo(3),
    ),
    R(
        AlphabetError,
        "the ids are [1, 4]; give whole numbers from 0 to 3",
        lambda: Alphabet("abc").decode([1, 4]),
    ),
    R(
        AlphabetError,
        "symbols is torch.int64 of shape (1, 1); "
        "give ids from 0 to 3, int64, of shape (batch, time), time 1 or more",
        lambda: load("run")(torch.tensor([[4]])),
    ),
    R(
        SettingError,
        "blank is 'a'; use one character that is not in the alphabet",
        lambda: load("run").echo("abc", blank="a"),
    ),
    R(
        CoreError,
        "core is ReLU(), which is no module with an input_size and a hidden_size; "
        "wrap the module with echospan.as_core",
        lambda: EchoModel(SMALL, nn.ReLU()),
    ),
    R(
        CoreError,
        "core is a GRU that reads time first; build it with batch_first=True",
        lambda: EchoModel(SMALL, nn.GRU(4, 8)),
    ),
    R(
        DelayError,
        "delay is 2.0; use a whole number from 0 to 2",
        lambda: load("run").echo("abc", 2.0),
    ),
    R(
        SettingError,
        "model is 'run'; give an echospan.EchoModel, as echospan.load returns",
        lambda: evaluate("run"),
    ),
    R(
        SettingError,
        "asked is [1, 1]; give each delay once",
        lambda: evaluate(small(), asked=[1, 1]),
    ),
    R(
        SettingError,
        "an evaluation of the delays 2 alone has no span, which is over every delay from 0 up; "
        "evaluate without asked=, or look at one delay with Evaluation.at",
        lambda: evaluate(small(), trials=10, asked=[2]).span(),
    ),
    R(
        SettingError,
        "delay 1 was not asked in this evaluation; "
        "it has 2; ask for more with evaluate(model, asked=…)",
        lambda: evaluate(small(), trials=10, asked=[2]).reached([1], 0.5),
    ),
    R(
        SettingError,
        "deadline is nan; use a time of time.perf_counter(), or math.inf for none",
        lambda: evaluate_span(small(), deadline=math.nan),
    ),
    R(SettingError, "folder is None; give a path", lambda: load(None)),
    R(
        SettingError,
        "store is 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…; "
        "give another path (File name too long)",
        lambda: results("a" * 300),
    ),
    R(
        CoreError,
        "state is 3; give None, or a state that this model returned",
        lambda: load("run")(torch.ones(1, 2).long(), 3),
    ),
    R(
        DelayError,
        "delays is None, and this model is conditioned by its input; "
        "give a tensor of delays, (batch,) or (batch, time)",
        lambda: EchoModel(replace(SMALL, conditioning="input")).hidden(torch.ones(1, 2).long()),
    ),
    R(
        DeviceError,
        "no tensor can be made on device 'gpu' (<>); name one that PyTorch has here, such as cpu",
        lambda: EchoTask().empty_past(2, "gpu"),
    ),
    R(
        SettingError,
        "evaluation is {}; it lacks blank_accuracy, delays, recalled_bits, span, target",
        lambda: load("run").save_pretrained("new", evaluation={}),
    ),
    R(
        AlphabetError,
        "the alphabet is 3; use a string or one of the names letters, digits, letters-digits, bits",
        lambda: ModelConfig(alphabet=3),
    ),
    R(
        AlphabetError,
        "no alphabet has the name 'leters'; did you mean letters? "
        "use one of the names letters, digits, letters-digits, bits",
        lambda: ModelConfig(alphabet="leters"),
        "train fixed --out new --alphabet leters",
    ),
    R(
        AlphabetError,
        "no alphabet has the name 'bit'; did you mean bits? "
        "use one of the names letters, digits, letters-digits, bits, "
        "or, for an alphabet of these characters, another order: 'tib'",
        lambda: cells(alphabet="bit"),
        "bench --cores gru --alphabet bit --store new.sqlite",
    ),
    R(
        AlphabetError,
        "the character 'B' at position 1 is not in the alphabet; write it in lower case" + OTHERS,
        lambda: load("run").echo("aBc"),
        "echo run aBc",
    ),
    R(
        AlphabetError,
        "the character '1' at position 1 is not in the alphabet; write only 'abc'" + OTHERS,
        lambda: load("run").echo("a1c"),
        "echo run a1c",
    ),
    R(
        DelayError,
        "delay 9 is outside 0..2, the delays this model was trained on; "
        f"ask for one of these, or train with {option('max_delay', 9)}",
        lambda: load("run").echo("abc", 9),
        "echo run abc --delay 9",
    ),
    R(
        DelayError,
        "delay -1 is outside 0..2, the delays this model was trained on; ask for one of these",
        lambda: load("run").echo("abc", -1),
        "echo run abc --delay -1",
    ),
    R(
        SettingError,
        "the core reads 16 features, of which the delay takes 16; "
        "make it wider, or ask it through read-outs",
        lambda: EchoModel(ModelConfig(conditioning="input"), GRU(16, 8, batch_first=True)),
    ),
    R(
        SettingError,
        "past has the shape (1, 3); give the 8 symbols read before, of each of 2 rows",
        lambda: EchoTask().targets(torch.ones(2, 4).long(), torch.zeros(1, 3).long()),
    ),
    R(
        SettingError,
        "symbols is torch.float32 of shape (2, 4); give whole numbers, of shape (batch, time)",
        lambda: EchoTask().targets(torch.ones(2, 4)),
    ),
    R(
        SettingError,
        f"{option('target')} is 0.999999, which the 50,000 answers that decide cannot show even "
        "if all are right; use 0.9999 or less",
        lambda: TrainingConfig(target=0.999999),
        "train fixed --out new --target 0.999999",
    ),
    R(
        SettingError,
        f"{option('seed')} is -1; use a whole number from 0 to 4294967295",
        lambda: TrainingConfig(seed=-1),
        "train fixed --out new --seed -1",
    ),
    R(
        SettingError,
        f"{option('device')} is ''; use a text, such as cpu",
        lambda: TrainingConfig(device=""),
    ),
    R(
        SettingError,
        "conditioning is 'both'; use one of readout, input",
        lambda: ModelConfig(conditioning="both"),
    ),
    R(
        SettingError,
        f"{option('hidden')} is 0; use a whole number of 1 or more",
        lambda: ModelConfig(hidden=0),
        "train fixed --out new --hidden 0",
    ),
    R(
        SettingError,
        f"{option('delay')} is -1; use a whole number of 0 or more",
        lambda: ModelConfig(delay=-1),
        "train fixed --out new --delay -1",
    ),
    R(
        SettingError,
        f"{option('seconds')} is 0.0; use a finite number above 0",
        lambda: TrainingConfig(seconds=0.0),
        "train fixed --out new --seconds 0",
    ),
    R(
        SettingError,
        f"{option('learning_rate')} is nan; use a finite number above 0",
        lambda: TrainingConfig(learning_rate=float("nan")),
        "train fixed --out new --learning-rate nan",
    ),
    R(
        SettingError,
        f"{option('target')} is 1.0; use a share between 0 and 1, such as 0.99",
        lambda: TrainingConfig(target=1.0),
        "train fixed --out new --target 1",
    ),
    R(
        SettingError,
        f"{option('carry')} is 2.0; use a share from 0 to 1",
        lambda: TrainingConfig(carry=2.0),
        "train fixed --out new --carry 2",
    ),
    # homework
    R(
        SettingError,
        "x is of type str; use a tensor of ids",
        lambda: homework.idx_to_onehot("abc"),
    ),
    R(
        SettingError,
        "x holds numbers that are not whole; use whole ids, such as 3",
        lambda: homework.idx_to_onehot(torch.tensor([0.5])),
    ),
    R(
        AlphabetError,
        "x holds the id -1; use ids from 0 to 26",
        lambda: homework.idx_to_onehot(torch.tensor([3, -1])),
    ),
    R(
        SettingError,
        "hidden_size is 0; use a whole number of 1 or more",
        lambda: homework.GRUMemory(0),
    ),
    R(
        SettingError,
        "model is 3; give a model that has test_run, such as GRUMemory(64)",
        lambda: homework.test_model(3),
    ),
    R(
        SettingError,
        "x is of the shape (2, 5) and int64; "
        "use one-hot letters (batch, time, 27), as idx_to_onehot returns them",
        lambda: homework.GRUMemory(4)(torch.ones(2, 5).long()),
    ),
    R(
        SettingError,
        "x is on meta and the model on cpu; move one to the other",
        lambda: homework.GRUMemory(4)(torch.ones(2, 5, 27, device="meta")),
    ),
    R(
        SettingError,
        "s is of type list; use a string of letters",
        lambda: homework.GRUMemory(4).test_run(["a", "b"]),
    ),
    R(
        DelayError,
        "delays are 2.0; use whole numbers from 0 to 5",
        lambda: homework.VariableDelayGRUMemory(4, 5).test_run("abc", 2.0),
    ),
    R(
        DelayError,
        "delays have the shape (3,), and x has 2 rows of 4 steps; "
        "give one delay, one a row (batch,), or one a step (batch, time)",
        lambda: homework.VariableDelayGRUMemory(4, 5)(torch.ones(2, 4, 27), [1, 2, 3]),
    ),
    R(
        DelayError,
        "delay 6 is outside 0..5; use one of these, or build the model with max_delay=6",
        lambda: homework.VariableDelayGRUMemory(4, 5).test_run("abc", 6),
    ),
    # cores
    R(
        SettingError,
        f"there is no core 'gruu'; did you mean gru? use one of {ALL}",
        lambda: make_core("gruu", 4, 8),
        "train fixed --out new --core gruu",
    ),
    R(
        SettingError,
        "a delay line of 1 inputs of 27 numbers does not fit into 8 units; use 27 units or more",
        lambda: DelayLine(27, 8),
        "profile delay_line --hidden 8",
    ),
    R(
        SettingError,
        "a delay line of 0 inputs holds nothing; use 1 or more",
        lambda: DelayLine(4, 8, window=0),
    ),
    R(
        SettingError,
        "an LRU of 7 units would end in half a complex number; use an even number, such as 8",
        lambda: LRU(27, 7),
        "profile lru --hidden 7",
    ),
    R(
        SettingError,
        "7 units do not divide into 1 heads of even size; "
        "use a width that is a multiple of twice the heads",
        lambda: Attention(27, 7),
        "profile attention --hidden 7",
    ),
    R(
        SettingError,
        "1 blocks over 0 steps attend to nothing; use 1 or more of each",
        lambda: Attention(4, 8, window=0),
    ),
    R(
        SettingError,
        "an LMU of 8 units is no whole number of memories of order 3; "
        "use an order that divides the units",
        lambda: LMU(4, 8, order=3),
    ),
    R(
        SettingError,
        "3 states are no whole number of complex pairs; use an even number of 2 or more",
        lambda: S4D(4, 8, states=3),
    ),
    R(
        SettingError,
        "a TCN of 4 blocks of 1 taps sees no past; use 1 block or more of 2 taps or more",
        lambda: TCN(4, 8, taps=1),
    ),
    R(SettingError, "the leak is 0; use a share above 0, up to 1", lambda: Reservoir(4, 8, leak=0)),
    R(
        SettingError,
        "8 units do not divide into 3 heads; use a divisor of 8",
        lambda: DeltaNet(4, 8, heads=3),
    ),
    R(
        SettingError,
        "the keys' size is 3; use an even number of 2 or more",
        lambda: DeltaNet(4, 8, key_size=3),
    ),
    R(
        SettingError,
        "8 units do not divide into 3 heads; use a divisor of 8",
        lambda: LinearAttention(4, 8, heads=3),
    ),
    R(
        SettingError,
        "the keys' size is 0; use an even number of 2 or more",
        lambda: LinearAttention(4, 8, key_size=0),
    ),
    # any module as a core
    R(CoreError, "GRU is a class; give an instance of it, as GRU(…)", lambda: as_core(nn.GRU)),
    R(CoreError, "'gru' is no torch.nn.Module; give an instance of one", lambda: as_core("gru")),
    R(
        CoreError,
        "Locked cannot be copied (TypeError: cannot pickle '_thread.lock' object); "
        "training and trials work on a copy: keep on the module only what copy.deepcopy can copy",
        lambda: as_core(refused.Locked()),
        "profile refused:Locked",
    ),
    R(
        CoreError,
        "InPlace changes its input in place; begin its forward with x = x.clone()",
        lambda: as_core(test_adapter.InPlace()),
        "profile test_adapter:InPlace",
    ),
    R(
        CoreError,
        "WritesLater changes its input in place; begin its forward with x = x.clone()",
        writes_late,
    ),
    R(
        CoreError,
        "the forward of MultiheadAttention wants 3 inputs (query, key, value); "
        "wrap it in a module whose forward(x) gives it all of them, causally",
        lambda: as_core(nn.MultiheadAttention(8, 2)),
    ),
    R(
        CoreError,
        "AnyWidth does not say how wide its input is, and takes 4 and 8; "
        f"give the width of its input as {option('features')}",
        lambda: as_core(refused.AnyWidth()),
        "check refused:AnyWidth",
    ),
    R(
        CoreError,
        "the width of the input of ReLU cannot be found; "
        f"give the width of its input as {option('features')}",
        lambda: as_core(nn.ReLU()),
        "check torch.nn:ReLU",
    ),
    R(
        CoreError,
        "GRU takes input of width 16, not 9; make it for width 9, or give "
        f"{option('features', 16)}",
        lambda: as_core(refused.fixed, 9),
        "profile refused:fixed --features 9",
    ),
    R(
        CoreError,
        "Raises raised RuntimeError: no such luck for an input of (2, 7, 4); "
        "it must take (batch, time, features): wrap it, or give its width as "
        f"{option('features')}",
        lambda: as_core(test_adapter.Raises()),
        "check test_adapter:Raises",
    ),
    R(
        CoreError,
        "NeedsGpu needs a GPU (RuntimeError: Expected x.is_cuda() to be true, but got "
        "false.); "
        "move it to one with .to('cuda') first",
        lambda: as_core(test_adapter.NeedsGpu()),
        "check test_adapter:NeedsGpu",
    ),
    R(
        CoreError,
        "Embedding takes whole numbers, not the vectors that a core is given; "
        "leave its nn.Embedding outside and give the layer after it",
        lambda: as_core(nn.Embedding(4, 8)),
    ),
    R(
        CoreError,
        "Pairs raised RuntimeError: <> for an input of (3, 7, 4); "
        "it must take (batch, time, features): wrap it, or give its width as "
        f"{option('features')}",
        lambda: as_core(refused.Pairs()),
        "profile refused:Pairs",
    ),
    R(
        CoreError,
        "NotANumber returns NaN or infinite values; "
        "mend that first (it was given numbers of about 1)",
        lambda: as_core(test_adapter.NotANumber()),
        "profile test_adapter:NotANumber",
    ),
    R(
        CoreError,
        "Noisy in eval() answers the same input differently each time; "
        "switch its random parts off in eval(), or return the state that it keeps",
        lambda: as_core(test_adapter.Noisy()),
        "profile test_adapter:Noisy",
    ),
    R(
        CoreError,
        "LastStep returns (3, 8) for an input of (3, 7, 4); "
        "return (batch, time, hidden), one output for each step",
        lambda: as_core(test_adapter.LastStep()),
        "check test_adapter:LastStep",
    ),
    R(
        CoreError,
        "Integers returns torch.int64; return floating-point numbers (.real, .float())",
        lambda: as_core(test_adapter.Integers()),
        "profile test_adapter:Integers",
    ),
    R(
        CoreError,
        "OnItself keeps its state on itself, and begins from what it was used for; "
        "give a new one, or give it a method reset() that forgets",
        lambda: as_core(used()),
    ),
    R(
        CoreError,
        "MeanOfBatch mixes the rows of a batch (one row's output changed by <> when another "
        "row's input changed); "
        "its input must be (batch, time, features), each row by itself",
        lambda: as_core(test_adapter.MeanOfBatch()),
        "profile test_adapter:MeanOfBatch",
    ),
    R(
        CoreError,
        "TurnedAround sees the future (the output at step <> changed by <> when the input at "
        "step <> changed); "
        "mask the future (a causal mask, padding on the left alone) or wrap it so",
        lambda: as_core(refused.TurnedAround(8)),
        "profile refused:TurnedAround",
    ),
    R(
        CoreError,
        "ByLength sees the future (the first 3 outputs changed by <> when the sequence ended "
        "there); "
        "mask the future (a causal mask, padding on the left alone) or wrap it so",
        lambda: as_core(refused.ByLength()),
        "profile refused:ByLength",
    ),
    R(
        CoreError,
        "DropsState takes state and returns a state, but going on from it the output differs "
        "by <> from that of the whole sequence; "
        "use the state that is given and return the one after the last step",
        lambda: as_core(test_adapter.DropsState()),
        "profile test_adapter:DropsState",
    ),
    R(
        CoreError,
        "TiresOut answers the same input differently the second time, and what it keeps is "
        "not among its attributes; "
        "return the state and take it back: forward(x, state=None) -> (y, state)",
        tires,
    ),
    R(
        CoreError,
        "HalfRemembers keeps its state on itself, but going on from it the output differs by "
        "<> from that of the whole sequence; "
        "return the state and take it back: forward(x, state=None) -> (y, state)",
        lambda: as_core(refused.HalfRemembers()),
        "profile refused:HalfRemembers",
    ),
    R(
        CoreError,
        "a state of 2 tensors has become one of 3; return as many tensors every time",
        lambda: as_core(refused.GrowsState())(torch.ones(1, 400, 4)),
    ),
    # layers
    R(
        SettingError,
        "there is no core 'gruu'; "
        f"did you mean gru? use one of {ALL}, or package.module:factory of your own",
        lambda: find("gruu"),
        "profile gruu",
    ),
    R(
        SettingError,
        "nowhere cannot be imported (No module named 'nowhere'); run where it lies, or install it",
        lambda: find("nowhere:Layer"),
        "profile nowhere:Layer",
    ),
    R(
        SettingError,
        "broken raises ZeroDivisionError when it is imported (division by zero); mend it first",
        lambda: find("broken:Layer"),
        "profile broken:Layer",
    ),
    R(
        SettingError,
        "refused has no TurnAround; did you mean TurnedAround?",
        lambda: find("refused:TurnAround"),
        "profile refused:TurnAround",
    ),
    R(
        SettingError,
        "refused has no number.x; "
        "it has as_integer_ratio, bit_count, bit_length, conjugate, from_bytes, to_bytes",
        lambda: find("refused:number.x"),
        "profile refused:number.x",
    ),
    R(
        CoreError,
        "NotInTraining cannot be trained: it raises RuntimeError (only for show); "
        "try it yourself, in train() and with backward()",
        lambda: trusted(refused.NotInTraining, 27, 8, None, 0),
        "profile refused:NotInTraining --hidden 8",
    ),
    R(SettingError, "no size is asked for; give parameters or state", lambda: fit_hidden("gru")),
    R(
        SettingError,
        "parameters and state both set the size; give one of them",
        lambda: fit_hidden("gru", parameters=9, state=9),
    ),
    R(
        SettingError,
        "the size asked for is 0 parameters; use 1 to 100,000,000",
        lambda: fit_hidden("gru", parameters=0),
        "profile gru --parameters 0",
    ),
    R(
        SettingError,
        f"a GRU that is made already has its size; {A_MAKER}",
        lambda: fit_hidden(refused.fixed, parameters=9),
        "profile refused:fixed --parameters 9",
    ),
    R(
        SettingError,
        f"delay_line has no parameters at any width; compare it at one {option('hidden')}",
        lambda: fit_hidden("delay_line", parameters=100),
        "profile delay_line --parameters 100",
    ),
    R(
        SettingError,
        "lru comes no nearer to 3 state than 2 (hidden 2); "
        "ask for that many, or leave it out of the race",
        lambda: fit_hidden("lru", state=3),
        "profile lru --state 3",
    ),
    R(
        SettingError,
        f"refuses_every_width cannot be built at any width that was tried, from 1 to <>; leave out "
        f"{option('state')}",
        lambda: fit_hidden(refused.refuses_every_width, state=3),
        "profile refused:refuses_every_width --state 3",
    ),
    R(
        SettingError,
        "Window carries no state: its last inputs are read again; "
        f"compare it at one {option('hidden')} or number of {option('parameters')}",
        lambda: fit_hidden(refused.Window, state=8),
        "profile refused:Window --state 8",
    ),
    R(
        SettingError,
        "unsized has no argument that sets its width (its arguments are n_heads); "
        f"leave out {option('parameters', 900)}, or give a function of (features, hidden)",
        lambda: fit_hidden(refused.unsized, parameters=900),
        "profile refused:unsized --parameters 900",
    ),
    R(
        SettingError,
        "unsized has no argument that sets its width (its arguments are n_heads); "
        f"leave out {option('hidden', 32)} (it is 16 wide), or give a function of "
        "(features, hidden)",
        lambda: built(refused.unsized, 27, 32, None, 0),
        "profile refused:unsized --hidden 32",
    ),
    R(
        SettingError,
        "a GRU that is made already has its width, 16; "
        f"leave out {option('hidden', 32)}, or {A_MAKER}",
        lambda: built(refused.fixed, 27, 32, None, 0),
        "profile refused:fixed --hidden 32",
    ),
    R(
        CoreError,
        "3 is no module and makes none; name a class, a function or a module",
        lambda: sizing.build(refused.number),
        "profile refused:number",
    ),
    R(
        CoreError,
        "three requires a, b, c, which no width can be given for; "
        "give a function of (features, hidden) that sets the rest, or an instance",
        lambda: sizing.build(refused.three),
        "check refused:three",
    ),
    R(
        CoreError,
        "configured takes a configuration object (config: Configuration) and cannot be sized by "
        "its arguments; "
        + by_caller(
            "give a function that makes one, such as lambda hidden: configured(Configuration(…))",
            "name a function that makes one of hidden",
        ),
        lambda: sizing.build(refused.configured),
        "check refused:configured",
    ),
    R(
        SettingError,
        "headed cannot be built at hidden 30 (headed(hidden=30) raises AssertionError (no heads)); "
        "use 28 or 32, the nearest widths that it can have",
        lambda: sizing.build(refused.headed, hidden=30),
        "profile refused:headed --hidden 30",
    ),
    R(
        CoreError,
        "fails(hidden=<>) raises ValueError (no such size); "
        "give a function of (features, hidden) that makes it, or an instance",
        lambda: sizing.build(refused.fails),
        "profile refused:fails",
    ),
    R(
        CoreError,
        "makes_a_number returns int; return a torch.nn.Module",
        lambda: sizing.build(refused.makes_a_number),
        "check refused:makes_a_number",
    ),
    R(
        CoreError,
        "forty raises IndexError on a sequence of 60 steps (index out of range in self); "
        f"let it take as many, or ask for a shorter {option('max_delay')}",
        lambda: profile(refused.forty, 1, symbols=100),
        "profile refused:forty --max-delay 1 --symbols 100",
    ),
    R(
        CoreError,
        "weary raised RuntimeError while it was trained and measured (tired); "
        f"run {by_caller('echospan.check', 'echospan check')} on it, and look at the error that "
        f"this one was raised from{by_caller('', ', with --debug')}",
        lambda: profile(refused.weary, 1, symbols=9_000),
    ),
    R(
        CoreError,
        "3 is no module and makes none; name a class, a function or a module",
        args="check refused:number",
    ),
    R(
        SettingError,
        "there is no check 'casual' to fail; "
        "name one of shape_dtype_device, causal, step_by_step, chunks, rows_independent, "
        "every_parameter_learns, state_dict, train_and_eval, one_step, input_unchanged, "
        "length_one, long_run, gradients, zeros_are_empty",
        lambda: check(nn.GRU(4, 8), expected_failures={"casual": "a slip"}),
    ),
    # what a core promises; the command check tells these as its answer, line by line
    R(
        CheckError,
        "the output has shape (1, 9, 32) where it was (1, 9, 16); return one output for each step",
        lambda: checks.check_rows_independent(refused.WideAlone),
    ),
    R(
        CheckError,
        "the output has shape (3, 8, 16), not (3, 9, 16); return (batch, time, hidden)",
        lambda: checks.check_shape_dtype_device(refused.SaysLess),
    ),
    R(
        CheckError,
        "the output is torch.float64 on cpu, the input torch.float32 on cpu; "
        "make every tensor with dtype=x.dtype, device=x.device",
        lambda: checks.check_shape_dtype_device(test_checks.Single),
    ),
    R(
        CheckError,
        "the output at step 0 changed by <> when the input at step 1 changed; "
        "mask the future, pad on the left alone, read in one direction",
        lambda: checks.check_causal(test_checks.SeesNext),
    ),
    R(
        CheckError,
        "the output at step 1 differs by <> when the sequence is read step by step, the "
        "state carried; "
        "return the state after the last step, and begin from the state that is given",
        lambda: checks.check_step_by_step(test_checks.DropsState),
    ),
    R(
        CheckError,
        "the output at step 2 differs by <> when the sequence is read in 2 and 7 steps, the "
        "state carried; "
        "return the state after the last step, and begin from the state that is given",
        lambda: checks.check_chunks(test_checks.CarriesShortOnes),
    ),
    R(
        CheckError,
        "the output at step 0 of a row changed by <> when another row changed or was left "
        "out; "
        "compute nothing across dimension 0 (no batch statistics)",
        lambda: checks.check_rows_independent(test_checks.CentresBatch),
    ),
    R(
        CheckError,
        "scale differs between two cores made after torch.manual_seed(0); "
        "draw with torch's generator alone",
        lambda: checks.check_same_seed(test_checks.PythonsRandom),
    ),
    R(
        CheckError,
        "two cores made after torch.manual_seed(0) differ by <>; draw with torch's generator alone",
        lambda: checks.check_same_seed(refused.Whim),
    ),
    R(
        CheckError,
        "the output has no gradient at all; leave out detach() and no_grad()",
        lambda: checks.check_every_parameter_learns(refused.Detached),
    ),
    R(
        CheckError,
        "the parameter spare gets none as its gradient; "
        "use it, or make it a buffer or requires_grad=False",
        lambda: checks.check_every_parameter_learns(test_checks.HasSpare),
    ),
    R(
        CheckError,
        "its own state_dict does not load (size mismatch for spare: <>); "
        "make parameters and buffers in __init__, of sizes that do not change",
        lambda: checks.check_state_dict(refused.OfAnySize),
    ),
    R(
        CheckError,
        "after load_state_dict the output differs by <>; "
        "keep everything that decides the output as parameter or buffer",
        lambda: checks.check_state_dict(test_checks.HidesWeights),
    ),
    R(
        CheckError,
        "after train() and eval() the output differs by <>; "
        "let train() and eval() change no weights and no cache of them",
        lambda: checks.check_train_and_eval(test_checks.ScalesOnEval),
    ),
    R(
        CheckError,
        "switches is another after train() and eval(); "
        "let train() and eval() change no weights and no cache of them",
        lambda: checks.check_train_and_eval(test_checks.CountsSwitches),
    ),
    R(
        CheckError,
        "two steps of training change no output; "
        "compute with the parameters themselves: keep no second name for them and no cache",
        lambda: checks.check_one_step(test_checks.CachesKernel),
    ),
    R(
        CheckError,
        "the second training step raises RuntimeError: <>; "
        "compute all that depends on a weight anew in each forward",
        lambda: checks.check_one_step(test_checks.KeepsGraph),
    ),
    R(
        CheckError,
        "another core that loads the weights of two steps of training differs by <>; "
        "compute with the parameters themselves: keep no second name for them and no cache",
        lambda: checks.check_one_step(test_checks.LoadsInto),
    ),
    R(
        CheckError,
        "the input is changed in place; begin with x = x.clone()",
        lambda: checks.check_input_unchanged(test_checks.WritesInput),
    ),
    R(
        CheckError,
        "the state that is given is changed in place; make a new state: h = h + … ",
        lambda: checks.check_input_unchanged(test_checks.WritesState),
    ),
    R(
        CheckError,
        "a sequence of one step raises RuntimeError: <>; keep the time dimension (no squeeze())",
        lambda: checks.check_length_one(test_checks.Squeezes),
    ),
    R(
        CheckError,
        "alone, the first step's output differs by <>; "
        "let nothing depend on the length of the sequence",
        lambda: checks.check_length_one(refused.ByTime),
    ),
    R(
        CheckError,
        "within <> steps the output or the state is no longer finite; "
        "keep the recurrence's eigenvalues within the unit circle, or normalise",
        lambda: checks.check_long_run(test_checks.Explodes),
    ),
    R(
        CheckError,
        "the gradient of the input along a random direction is <>, finite differences say "
        "<> ± <>; "
        "mend the backward, and leave out detach() and in-place changes",
        lambda: checks.check_gradients(test_checks.WrongBackward),
    ),
    R(
        CheckError,
        "from a state of zeros the output at step 0 differs by <>; "
        "let a state of zeros mean nothing read yet; else only whole batches are begun anew",
        lambda: checks.check_zeros_are_empty(test_checks.BeginsAtOne),
    ),
    R(
        CheckError,
        "part of the state is shared by all rows of a batch; "
        "let a state of zeros mean nothing read yet; else only whole batches are begun anew",
        lambda: checks.check_zeros_are_empty(refused.Shared),
    ),
    # training
    R(
        DeviceError,
        "there is no device 'cuda:99' here; use one of cpu",
        lambda: find_device("cuda:99"),
        "train fixed --out new --device cuda:99",
    ),
    R(
        DeviceError,
        "there is no device 'gpu' here; use one of cpu",
        lambda: find_device("gpu"),
        "evaluate run --device gpu",
    ),
    R(
        DeviceError,
        "<> cannot train Float32Alone in bf16 (RuntimeError: no such instructions); "
        f"use {option('precision', 'fp32')}",
        lambda: train(
            Recipe(model=SMALL, training=TrainingConfig(precision="bf16")),
            core=refused.Float32Alone(4, 8),
        ),
    ),
    R(
        CoreError,
        "Short cannot be trained (IndexError: at most 7); "
        "try it yourself, in train() and with backward(), on sequences of 8 steps",
        lambda: train(Recipe(model=SMALL), core=refused.Short(4, 8)),
    ),
    R(
        CoreError,
        "GRU was made within torch.inference_mode(), so it has no gradients; "
        "make it outside, or train a copy: copy.deepcopy(core), outside",
        lambda: train(Recipe(model=SMALL), core=refused.without_gradients()),
    ),
    R(
        CoreError,
        "GRU is on the meta device, whose tensors hold no numbers; "
        "build it on the CPU or a GPU, or load its weights first",
        lambda: check(nn.GRU(4, 8, device="meta")),
    ),
    R(
        DivergenceError,
        "at step 2 the loss is <>, its gradient's norm <>, at a learning rate of 1e+38; "
        "train with a smaller one, such as 3e+37",
        lambda: train(Recipe(model=SMALL, training=TrainingConfig(learning_rate=1e38))),
        "train fixed --out new --learning-rate 1e38",
    ),
    R(
        SettingError,
        f"this training takes at least <> GB of memory, and <> GB are free; use a smaller {SIZES}",
        lambda: train(Recipe(model=replace(SMALL, hidden=2_000_000))),
        "train fixed --out new --hidden 2000000",
    ),
    R(
        SettingError,
        f"PyTorch has no model with {option('hidden')} 4,000,000,000 and {option('max_delay')} 2 "
        "(<>); use smaller ones",
        lambda: check_training_memory(
            Recipe(model=replace(SMALL, hidden=4_000_000_000)), available=10**30
        ),
    ),
    R(
        SettingError,
        f"the memory ran out (MemoryError); use a smaller {SIZES}",
        lambda: train(Recipe(), on_progress=no_memory),
    ),
    R(
        RunError,
        "the snapshot does not fit its recipe (<>); train it anew",
        lambda: train(snapshot().recipe, resume=snapshot()),
    ),
    # profiles
    R(
        SettingError,
        "this is no profile of echospan (at is missing); give what Profile.to_json wrote",
        lambda: Profile.from_json("{}"),
    ),
    R(SettingError, "profiles is empty; give one or more profiles", lambda: combine([])),
    R(SettingError, "profiles is 3; give a list of profiles", lambda: combine(3)),
    R(
        SettingError,
        "profiles is 3; give a list of what echospan.profile returns",
        lambda: combine([3]),
    ),
    R(
        SettingError,
        "on_model is 3; give a function of a seed and its model, or None",
        lambda: profile("gru", on_model=3),
    ),
    R(
        SettingError,
        "the seeds [0, 0] are not all different; combine each run once",
        lambda: combine(two()),
    ),
    R(
        SettingError,
        "the profiles of gru and gru differ in more than their seeds; "
        "combine those of one layer, size and setting",
        lambda: combine(two(seeds=(), hidden=9)),
    ),
    R(
        SettingError,
        f"{option('seconds')} is 0.0; use a finite number above 0",
        lambda: profile("gru", seconds=0.0),
        "profile gru --seconds 0",
    ),
    R(
        SettingError,
        f"{option('symbols')} is 0; use a whole number of 1 or more",
        lambda: profile("gru", symbols=0),
        "profile gru --symbols 0",
    ),
    R(
        SettingError,
        f"{option('seeds')} is empty; give one or more whole numbers",
        lambda: profile("gru", seeds=()),
        "profile gru --seeds",
    ),
    R(
        SettingError,
        f"{option('seeds')} is [1, 1]; give each once",
        lambda: profile("gru", seeds=(1, 1)),
        "profile gru --seeds 1 1",
    ),
    R(
        SettingError,
        f"{option('at')} is 0.0; use a share between 0 and 1, such as 0.99",
        lambda: profile("gru", at=0.0),
        "profile gru --at 0",
    ),
    R(
        SettingError,
        f"one GRU cannot begin anew for 2 seeds; {A_MAKER}",
        lambda: profile(refused.fixed, seeds=(0, 1)),
        "profile refused:fixed --seeds 0 1",
    ),
    R(
        SettingError,
        f"{option('learning_rates')} is empty; give one or more numbers above 0",
        lambda: profile("gru", learning_rates=()),
        "profile gru --learning-rates",
    ),
    # capacity
    R(
        SettingError,
        "core is 3; give a module or function of (batch, time, 1)",
        lambda: memory_capacity(3),
    ),
    R(
        SettingError,
        "states is no array of numbers (<>); give a NumPy array, a tensor or a list of numbers",
        lambda: capacity_of_states(np.zeros(5), "abc"),
    ),
    R(
        SettingError,
        "a core that reads 3 numbers a step has no single input to remember; "
        "build it with an input of width 1",
        lambda: memory_capacity(nn.GRU(3, 4, batch_first=True)),
    ),
    R(
        SettingError,
        "amplitude is 0; use a finite number above 0",
        lambda: memory_capacity(ring(4, 0.5), amplitude=0),
    ),
    R(
        SettingError,
        "a core that reads 3 numbers a step has no single input to remember; "
        "build it with an input of width 1",
        lambda: memory_capacity(nn.Linear(3, 4)),
    ),
    R(
        CoreError,
        "the core returned (20, 1200) for an input of (20, 1200, 1); "
        "return (batch, time, nodes), alone or first in a tuple",
        lambda: memory_capacity(lambda x: x.squeeze(-1)),
    ),
    R(
        SettingError,
        "inputs is complex; give real numbers: capacity is of one real input",
        lambda: capacity_of_states(np.zeros(5, complex), np.zeros((5, 2))),
    ),
    R(
        SettingError,
        "inputs (5,) and states (6, 2) do not belong together; "
        "give (time,) and (time, nodes), or both with rows in front",
        lambda: capacity_of_states(np.zeros(5), np.zeros((6, 2))),
    ),
    R(
        SettingError,
        "500 steps do not make 20 pieces longer than the lag 50; record at least 3100",
        lambda: capacity_of_states(np.zeros(500), np.zeros((500, 2))),
    ),
    R(
        SettingError,
        "max_lag is 0; use a whole number of 1 or more",
        lambda: memory_capacity(ring(4, 0.5), 0),
    ),
    R(
        SettingError,
        "rows is 2; use a whole number of 3 or more",
        lambda: memory_capacity(ring(4, 0.5), rows=2),
    ),
    R(
        SettingError,
        "confidence is 95; use a share between 0 and 1, such as 0.99",
        lambda: memory_capacity(ring(4, 0.5), confidence=95),
    ),
    R(
        SettingError,
        "40 counted steps do not fit 39 directions of the states; "
        "record at least 390 after warm-up and lags",
        lambda: memory_capacity(ring(40, 0.5), steps=40),
    ),
    R(
        SettingError,
        "the input does not vary, or is not finite; drive it with noise",
        lambda: capacity_of_states(np.zeros(5000), np.zeros((5000, 2))),
    ),
    R(
        SettingError,
        "the states hold nan or infinity; check that the core is stable on long input",
        lambda: memory_capacity(test_capacity.Unstable()),
    ),
    # run folders
    R(
        RunError,
        f"run exists already; name another folder{OUT}, or add {option('overwrite', True)}",
        lambda: check_output("run"),
        "train fixed --out run",
    ),
    R(
        RunError,
        "stopped holds a run that was not finished; "
        + by_caller("", "go on with --resume, ")
        + f"name another folder{OUT}, or add {option('overwrite', True)}",
        lambda: check_output("stopped"),
        "train fixed --out stopped",
    ),
    R(
        RunError,
        f". exists and is not a run of echospan; it is not overwritten: name another folder{OUT}",
        lambda: check_output(".", overwrite=True),
        "train fixed --out . --overwrite",
    ),
    R(
        RunError,
        "new cannot be read (Too many open files); name a folder that you may write to",
        lambda: check_output("new"),
        harm=lambda: Path("new").mkdir(),
        under=refused.no_more_files,
    ),
    R(
        RunError,
        "nothing can be written to /proc/x/y (No such file or directory); "
        "name a folder on a disk with room that you may write to",
        lambda: claimed("/proc/x/y"),
        "train fixed --out /proc/x/y",
    ),
    R(
        FolderInUseError,
        f"run is in use by a test (process <> on <>, since <>); wait until it ends, or {ELSEWHERE}",
        lambda: claimed("run"),
        "train fixed --out run --overwrite",
        under=lambda: claim("run", "a test", lambda _: None),
    ),
    R(
        RunError,
        "run is on a file system that cannot lock files (No locks available); "
        f"another process could change it meanwhile: {ELSEWHERE} on a disk of this machine",
        lambda: claimed("run"),
        "train fixed --out run --overwrite",
        under=functools.partial(refused.failing, fcntl, "flock", errno.ENOLCK),
    ),
    R(
        RunError,
        f"run/.echospan-lock is not a file of echospan; {ELSEWHERE}",
        lambda: claimed("run"),
        "train fixed --out run --overwrite",
        harm=lambda: os.mkfifo("run/.echospan-lock"),
    ),
    R(
        RunError,
        "run was not completed when it was last written, and it cannot be completed here "
        "(Is a directory); name it once where it may be written to",
        lambda: load("run"),
        "echo run abc",
        harm=lambda: [Path("run", name).mkdir() for name in (".echospan-commit", ".echospan-lock")],
    ),
    R(
        RunError,
        "dead/run is a link to nowhere, and nothing is there; "
        "make what it leads to, remove the link, or name another place",
        lambda: claimed("dead/run"),
        "train fixed --out dead/run",
        harm=lambda: [Path("dead").mkdir(), Path("dead/run").symlink_to("nowhere")],
    ),
    R(
        RunError,
        "'a\\x00b' is no path (embedded null byte); name another place",
        lambda: write_whole("a\0b", b""),
    ),
    R(
        RunError,
        "run is a folder, a pipe or a device and not a file; name a file",
        lambda: write_whole("run", b""),
    ),
    R(
        RunError,
        "the run in run is written but could not take its place (Input/output error); it is whole "
        "in .echospan-commit there, and takes its place when the folder is next used",
        saved,
        under=functools.partial(refused.failing, os, "replace", errno.EIO),
    ),
    R(
        RunError,
        "the run could not be written to run (File too large); "
        f"make room or name another folder{OUT}",
        saved,
        under=refused.full_disk,
    ),
    R(
        RunError,
        "x could not be written (File too large); make room or name another place",
        lambda: write_whole(Path("x"), bytes(1000)),
        under=refused.full_disk,
    ),
    R(
        RunError,
        "run/config.json is not valid JSON (<>); train it anew with echospan train",
        lambda: load("run"),
        "echo run abc",
        harm=cut("run/config.json", 20),
    ),
    R(
        RunError,
        "run/config.json is not of echospan; name one that it made",
        lambda: load("run"),
        "evaluate run",
        harm=text("run/config.json", "{}"),
    ),
    R(
        RunError,
        "run/config.json has format 99, and this version of echospan reads format 4; "
        "install a newer echospan",
        lambda: load("run"),
        "echo run abc",
        harm=config(lambda told: told.update(format=99)),
    ),
    R(
        RunError,
        "there is no run folder nowhere; make one with echospan train --out, or take a model that "
        "is shipped",
        lambda: load("nowhere"),
        "echo nowhere abc",
    ),
    R(
        RunError,
        "there is no run folder fixed; name one, or take the model of that name that is shipped "
        "with --model fixed",
        args="echo fixed abc",
    ),
    R(
        RunError,
        "stopped holds a run that was not finished; go on with echospan train --resume",
        lambda: load("stopped"),
        "echo stopped abc",
    ),
    R(
        RunError,
        "new holds a training that has saved nothing yet; "
        "wait for its end, or train it with echospan train --resume",
        lambda: load("new"),
        "echo new abc",
        harm=lambda: [Path("new").mkdir(), Path("new/.echospan-lock").touch()],
    ),
    R(
        RunError,
        ". has no config.json; name a folder that echospan train made",
        lambda: load("."),
        "echo . abc",
    ),
    R(
        RunError,
        "run/config.json is not a regular file; name a folder that echospan train made",
        lambda: load("run"),
        "echo run abc",
        harm=linked,
    ),
    R(
        RunError,
        "run/config.json has 2,097,152 bytes, more than the 1,000,000 that are read; "
        "name a folder that echospan train made",
        lambda: load("run"),
        "echo run abc",
        harm=cut("run/config.json", 2**21),
    ),
    R(
        RunError,
        "run/model.safetensors does not fit config.json (<>); train it anew with echospan train",
        lambda: load("run"),
        "echo run abc",
        harm=config(lambda told: told["model"].update(hidden=9)),
    ),
    R(
        RunError,
        "run/config.json is damaged (its checksum differs); train it anew with echospan train",
        lambda: load("run"),
        "echo run abc",
        harm=text("run/config.json", '{"format": 4, "sha256": "00"}'),
    ),
    R(
        RunError,
        "run/model.safetensors is damaged (its checksum differs); "
        "train it anew with echospan train",
        lambda: load("run"),
        "echo run abc",
        harm=scribbled("run/model.safetensors"),
    ),
    R(
        RunError,
        "run/model.safetensors holds nan or infinity; train it anew with echospan train",
        lambda: load("run"),
        "echo run abc",
        harm=not_a_number,
    ),
    R(
        RunError,
        "run/model.safetensors is damaged (<>); train it anew with echospan train",
        lambda: load("run"),
        "echo run abc",
        harm=cut("run/model.safetensors", 99),
    ),
    R(
        RunError,
        "run/config.json does not describe a model (<>); train it anew with echospan train",
        lambda: load("run"),
        "echo run abc",
        harm=config(lambda told: told["model"].update(colour="red")),
    ),
    # snapshots
    R(
        RunError,
        "run/resume.safetensors could not be written (File too large); "
        "make room or name another place",
        lambda: write_snapshot(Path("run"), snapshot()),
        under=refused.full_disk,
    ),
    R(
        RunError,
        f"there.svg/new cannot be written (Not a directory); make room there or {ELSEWHERE}",
        lambda: write_snapshot(Path("there.svg/new"), snapshot()),
    ),
    R(
        RunError,
        "stopped/resume.safetensors is not a whole snapshot (<>); "
        "train it anew with echospan train --overwrite",
        lambda: read_snapshot(Path("stopped")),
        "train fixed --out stopped --resume",
        harm=cut("stopped/resume.safetensors", 99),
    ),
    R(
        RunError,
        "stopped/resume.safetensors is damaged (its checksum differs); "
        "train it anew with echospan train --overwrite",
        lambda: read_snapshot(Path("stopped")),
        "train fixed --out stopped --resume",
        harm=scribbled("stopped/resume.safetensors"),
    ),
    R(
        SettingError,
        "run is damaged and has no snapshot to go on from; train anew with --overwrite",
        args="train fixed --out run --resume",
        harm=cut("run/config.json", 60),
    ),
    R(
        RunError,
        "stopped/resume.safetensors has format 99, and this version of echospan reads format 4; "
        "install a newer echospan",
        lambda: read_snapshot(Path("stopped")),
        "train fixed --out stopped --resume",
        harm=sealed_as("stopped/resume.safetensors", lambda told: told.update(format=99)),
    ),
    R(
        RunError,
        "stopped/resume.safetensors is not a whole snapshot (hidden is 0; "
        "use a whole number of 1 or more); train it anew with echospan train --overwrite",
        lambda: read_snapshot(Path("stopped")),
        "train fixed --out stopped --resume",
        harm=sealed_as("stopped/resume.safetensors", lambda told: told["model"].update(hidden=0)),
    ),
    # streams
    R(
        RunError,
        "state is of another model; name the run that it was kept with",
        restored,
        "echo run abc --state state",
        harm=sealed_as("state", lambda told: told.update(model="0")),
    ),
    R(
        RunError,
        "state is not a whole state of this model (<>); begin anew with another file",
        restored,
        "echo run abc --state state",
        harm=sealed_as("state", lambda told: None, none=torch.zeros(1, 1, 9)),
    ),
    # grids
    R(
        SettingError,
        f"{option('cores')} is empty; give one or more",
        lambda: cells(cores=()),
        "bench --cores",
    ),
    R(
        SettingError,
        f"{option('hidden')} and {option('state')} set the size; give one of them",
        lambda: cells(state=(8,)),
        "bench --cores gru --hidden 8 --state 8",
    ),
    R(
        SettingError,
        f"{option('symbols')} and {option('seconds')} set the budget; give one of them",
        lambda: cells(symbols=(1,), seconds=(1.0,)),
        "bench --cores gru --symbols 1 --seconds 1",
    ),
    R(
        SettingError,
        f"{option('seeds')} is empty; give one or more",
        lambda: cells(seeds=()),
        "bench --cores gru --seeds",
    ),
    R(
        SettingError,
        f"{option('hidden')} is 0; use whole numbers from 1 to 2^53",
        lambda: cells(hidden=(0,)),
        "bench --cores gru --hidden 0",
    ),
    R(
        SettingError,
        f"{option('max_delay')} is 40000; use whole numbers from 0 to 32,767",
        lambda: cells(max_delay=40_000),
        "bench --cores gru --max-delay 40000",
    ),
    R(
        SettingError,
        f"{option('state')} is 1000000000000; use whole numbers from 1 to 16,777,216",
        lambda: cells(hidden=None, state=(10**12,)),
        "bench --cores gru --state 1e12",
    ),
    R(
        SettingError,
        f"{option('seconds')} is 0.0; use numbers above 0",
        lambda: cells(seconds=(0.0,)),
        "bench --cores gru --seconds 0",
    ),
    R(
        SettingError,
        f"{option('learning_rates')} is empty; give one or more",
        lambda: cells(learning_rates=()),
        "bench --cores gru --learning-rates",
    ),
    R(
        SettingError,
        "the grid tries 11 learning rates; give one to ten",
        lambda: cells(learning_rates=(0.1,) * 11),
        "bench --cores gru --learning-rates" + " 0.1" * 11,
    ),
    R(
        SettingError,
        f"{option('features')} is 0; use whole numbers from 1 to 2^53",
        lambda: cells(features=0),
        "bench --cores gru --features 0",
    ),
    R(
        SettingError,
        f"{option('learning_rates')} is 0.0; use numbers above 0, such as 1e-2",
        lambda: cells(learning_rates=(0.0,)),
        "bench --cores gru --learning-rates 0",
    ),
    R(
        SettingError,
        f"{option('batch')} is 0; use whole numbers from 1 to 2^53",
        lambda: cells(batch=0),
        "bench --cores gru --batch 0",
    ),
    R(
        SettingError,
        f"{option('at')} is 2.0; use a share between 0 and 1, such as 0.99",
        lambda: cells(at=2.0),
        "bench --cores gru --at 2",
    ),
    R(
        SettingError,
        f"{option('hidden')} is [8]; give it whole numbers",
        lambda: cells(hidden=[[8]]),
    ),
    R(SettingError, f"{option('alphabet')} is 7; give it text", lambda: cells(alphabet=7)),
    R(
        SettingError,
        f"{option('alphabet')} has 10,001 characters; a bench takes at most 10,000",
        lambda: cells(alphabet="".join(map(chr, range(10_001)))),
    ),
    R(SettingError, f"{option('cores')} is 3; give it text", lambda: cells(cores=(3,))),
    R(
        SettingError,
        f"{option('cores')} holds a name of 1,001 characters; use 1,000 at most",
        lambda: cells(cores=("g" * 1_001,)),
        "bench --cores " + "g" * 1_001,
    ),
    R(
        SettingError,
        "the grid has 8,000,000 cells; a bench takes at most 100,000: "
        + by_caller(
            "split it into several grids, such as one for each seed",
            "run it in parts, such as a few --seeds at a time, with the same --store",
        ),
        lambda: cells(hidden=range(1, 201), max_delay=range(200), seeds=range(200)),
        "bench many.toml --hidden "
        + " ".join(map(str, range(1, 201)))
        + " --max-delay "
        + " ".join(map(str, range(200)))
        + " --seeds "
        + " ".join(map(str, range(200))),
        harm=text("many.toml", '[[grid]]\ncores = "gru"\n'),
    ),
    R(
        SettingError,
        f"the grid searches for 1,001 widths; give at most 1,000 combinations of "
        f"{option('cores')}, {option('max_delay')} and {option('parameters')} or "
        f"{option('state')}",
        lambda: cells(hidden=None, parameters=range(1, 1_002)),
        "bench --cores gru --parameters " + " ".join(map(str, range(1, 1_002))),
    ),
    R(
        SettingError,
        "torch is 2; give it text, 100 characters at most",
        lambda: Cell(core="gru", symbols=1, torch=2),
    ),
    R(
        SettingError,
        f"a cell has one budget; give {option('symbols')} or {option('seconds')}",
        lambda: Cell(core="gru"),
    ),
    R(
        SettingError,
        "this is no cell of a bench (<> is missing); give what Cell.to_json wrote",
        lambda: Cell.from_json("{}"),
    ),
    R(SettingError, "my.toml cannot be read (<>); give a grid in TOML", **grid("[[grid]\n")),
    R(
        SettingError,
        "my.toml cannot be read (it is nested too deeply); give a grid in TOML",
        **grid("a = " + "[" * 5_000),
    ),
    R(
        SettingError,
        "my.toml holds cores; write each grid under a line [[grid]]",
        **grid("cores = 3"),
    ),
    R(
        SettingError,
        "my.toml, grid 1: it has a setting 'hiden'; did you mean hidden?",
        **grid('[[grid]]\ncores = "gru"\nhiden = [3]'),
    ),
    R(
        SettingError,
        "my.toml, grid 1: hidden is '3'; give it whole numbers",
        **grid('[[grid]]\ncores = "gru"\nhidden = "3"'),
    ),
    R(
        SettingError,
        'my.toml, grid 1: it names no cores; write cores = ["gru", …] in it',
        **grid("[[grid]]\nhidden = [3]"),
    ),
    R(
        SettingError,
        "my.toml, grid 1: batch is 0; use whole numbers from 1 to 2^53",
        **grid('[[grid]]\ncores = "gru"\nbatch = 0'),
    ),
    # benches and their engines
    R(
        SettingError,
        "there is no engine 'spark'; use one of loky, dask, ray",
        lambda: bench([], engine="spark"),
    ),
    R(SettingError, "the number of workers is 0; use 1 or more", lambda: bench([], workers=0)),
    R(
        SettingError,
        f"{option('batch')} is 32, which 3 processes cannot share evenly; use a multiple of 3",
        lambda: Group(rank=1, size=3).rows(32),
    ),
    R(
        SettingError,
        f"{option('device')} is cuda:0, one for 2 processes; use cpu or cuda",
        lambda: Group(rank=1, size=2).device("cuda:0"),
    ),
    R(
        EngineError,
        "process 1 of 2 lost another one of this training (Connection closed by peer); "
        "look above for what ended it, then go on from the last snapshot"
        + by_caller("", " with --resume"),
        lambda: unheard(Group(rank=1, size=2)),
    ),
    R(
        EngineError,
        "closed takes no more cells (<>); begin it anew: what has ended is not run again",
        lambda: [*bench(cells().cells(), engine="closed")],
        under=refused.closed_engine,
    ),
    R(
        SettingError,
        f"{option('address')} is tcp://x:1, and loky runs on this machine alone; "
        f"use {option('engine', 'dask')} or {option('engine', 'ray')} with it",
        lambda: engines.loky(1, "tcp://x:1"),
        "bench --cores gru --address tcp://x:1",
    ),
    R(
        SettingError,
        "dask is not installed; pip install 'echospan[dask]'",
        lambda: engines.dask(1, None),
        "bench --cores gru --engine dask",
        under=functools.partial(refused.without, "distributed"),
    ),
    R(
        SettingError,
        "no Dask scheduler answers at nonsense://x (<>); give one, such as tcp://host:8786",
        lambda: engines.dask(1, "nonsense://x"),
    ),
    R(
        SettingError,
        "ray is not installed; pip install 'echospan[ray]'",
        lambda: engines.ray(1, None),
        "bench --cores gru --engine ray",
        under=functools.partial(refused.without, "ray"),
    ),
    # stores
    R(
        StoreError,
        "<> is no path (<>); name another file",
        lambda: Store("s" * 300),
        "bench --cores gru --store " + "s" * 300,
    ),
    R(
        StoreError,
        "there is no file of results nowhere.sqlite; make one with echospan bench --store",
        lambda: rows("nowhere.sqlite"),
        "results nowhere.sqlite",
    ),
    R(
        StoreError,
        "run is a folder; name a file, such as results.sqlite",
        lambda: Store("run"),
        "report run",
    ),
    R(
        StoreError,
        "pipe is no regular file; name a file, such as results.sqlite",
        lambda: Store("pipe"),
        "report pipe",
        harm=lambda: os.mkfifo("pipe"),
    ),
    R(
        StoreError,
        "store.sqlite has 2 names (hard links); SQLite keeps a file whole under one name alone: "
        "copy it, or remove the others",
        lambda: Store("store.sqlite"),
        "bench --cores gru --store store.sqlite",
        harm=lambda: Path("other").hardlink_to("store.sqlite"),
    ),
    R(
        StoreError,
        "no is no folder; make it, or name another",
        lambda: Store("no/s.sqlite"),
        "bench --cores gru --store no/s.sqlite",
    ),
    R(
        StoreError,
        "there.svg is no file of results; name one that echospan bench made",
        lambda: Store("there.svg"),
        "bench --cores gru --store there.svg",
    ),
    R(
        StoreError,
        "store.sqlite is no file of results; name one that echospan bench made",
        rows,
        "results store.sqlite",
        harm=database("PRAGMA application_id=7"),
    ),
    R(
        StoreError,
        "store.sqlite is no file of results; name one that echospan bench made",
        rows,
        "results store.sqlite",
        harm=database("ALTER TABLE results RENAME error TO reason"),
    ),
    R(
        StoreError,
        "store.sqlite has format 99, and this echospan reads format 3; "
        "use the echospan that made it, or run the bench again into another file",
        rows,
        "results store.sqlite",
        harm=database("PRAGMA user_version=99"),
    ),
    R(
        StoreError,
        "store.sqlite cannot be read (<>); "
        "see that the disk has room and the file is whole and yours",
        rows,
        "report store.sqlite",
        harm=cut("store.sqlite", 5000),
    ),
    R(
        StoreError,
        "store.sqlite is damaged (<>); "
        "take a copy of the file from before, or run the bench again into another file",
        stored,
        "results store.sqlite",
        harm=page_twice,
    ),
    R(
        StoreError,
        "store.sqlite is damaged (8 results were stored, and 7 are found); "
        "take a copy of the file from before, or run the bench again into another file",
        stored,
        "results store.sqlite",
        harm=database("DELETE FROM results WHERE rowid = 3"),
    ),
    R(
        StoreError,
        "store.sqlite holds a result that is damaged (<>: its digest differs); "
        "take a copy of the file from before, or run the bench again into another file",
        rows,
        "results store.sqlite",
        harm=database("UPDATE results SET tries = 16 WHERE rowid = 3"),
    ),
    R(
        StoreError,
        "store.sqlite cannot be read (<>); "
        "see that the disk has room and the file is whole and yours",
        rows,
        under=refused.no_more_files,
    ),
    R(
        StoreError,
        "store.sqlite was removed, moved or replaced while it was open; what it held is in <>: "
        "move that back, and run the command again",
        lambda: while_open(os.unlink),
    ),
    R(
        StoreError,
        "store.sqlite was removed, moved or replaced while it was open; what it held is in <>: "
        "move that back, and run the command again",
        lambda: while_open(os.unlink, lambda store: store.add(LUCKLESS)),
    ),
    R(
        StoreError,
        "store.sqlite was overwritten while it was open (<>); "
        "run the command again with a file that nothing else writes",
        lambda: while_open(lambda path: os.truncate(path, 0)),
    ),
    R(
        StoreError,
        "store.sqlite lacks 1 results that were stored in it; "
        "something else has written to it: run the command again",
        lambda: taken_out(),
    ),
    R(
        SettingError,
        "there is no result of lmu; compare two of gru, lstm",
        lambda: differences(rows(), "gru", "lmu"),
        "results store.sqlite --compare gru lmu",
    ),
    R(
        SettingError,
        "gru at hidden 8 has several to be compared with; leave one width of lru with "
        f"{option('hidden')}",
        lambda: differences(
            [
                row("gru", 8, parameters=100),
                row("lru", 30, parameters=100),
                row("lru", 31, parameters=101),
            ],
            "gru",
            "lru",
        ),
    ),
    R(
        SettingError,
        "gru and lru share no seed, setting and size; run both on the same grid",
        lambda: differences([row("gru", 8, parameters=100), row("lru", 99)], "gru", "lru"),
    ),
    # export
    R(
        RunError,
        f"graphs exists already; name another folder, or add {option('overwrite', True)}",
        lambda: check_export("graphs"),
        "export run -o graphs",
        harm=lambda: [Path("graphs").mkdir(), text("graphs/echo.json", '{"echospan": "1"}')()],
    ),
    R(
        RunError,
        "stopped exists and is no export of echospan; it is not overwritten: name another folder",
        lambda: check_export("stopped", overwrite=True),
        "export run -o stopped --overwrite",
    ),
    R(
        SettingError,
        "onnxruntime is not installed; pip install 'echospan[onnx]'",
        lambda: export_onnx(load("run"), "new"),
        "export run -o new",
        under=functools.partial(refused.without, "onnxruntime"),
    ),
    R(
        CoreError,
        "a state of zeros is not the empty one of this core; "
        "a graph cannot begin anew: stream it with echospan.Stream",
        lambda: export_onnx(test_export.a_model_of(test_export.CountsDown()), "new"),
    ),
    R(
        CoreError,
        "the core Exponential cannot be traced into a graph (<>linalg_matrix_exp<>); "
        "stream it with echospan.Stream, or write its step without what ONNX lacks",
        lambda: export_onnx(test_export.a_model_of(test_export.Exponential()), "new"),
    ),
    R(
        ExportError,
        "a GRU of the graph has no linear_before_reset of 1: its reset gate is another; "
        "nothing is written: try another version of torch",
        lambda: graphs(test_export.reset_before_the_product),
    ),
    R(
        ExportError,
        "of symbols [1, 1] the graph's logits are <> from the model's, where rounding makes 0.0005 "
        "at most; nothing is written: stream the model with echospan.Stream",
        lambda: graphs(test_export.another_weight),
    ),
    R(
        ExportError,
        "onnxruntime refuses the graph (<>); "
        "nothing is written: stream the model with echospan.Stream",
        lambda: graphs(test_export.a_type_that_is_none),
    ),
    # models that are shipped or shared
    R(
        SettingError,
        "no model 'varable' is shipped; did you mean variable? use one of bits, fixed, variable",
        lambda: shipping.folder("varable"),
        "echo --model varable abc",
    ),
    R(
        RunError,
        "there is no model 'nowhere': no folder, none that is shipped; "
        "name a folder, one of bits, fixed, variable, or owner/name of the Hub",
        lambda: EchoModel.from_pretrained("nowhere"),
    ),
    R(
        SettingError,
        "'mine' is no name on the Hub; name it owner/name",
        lambda: load("run").push_to_hub("mine"),
    ),
    R(
        SettingError,
        'huggingface_hub is not installed; pip install "echospan[hub]"',
        lambda: EchoModel.from_pretrained("owner/name"),
        under=functools.partial(refused.without, "huggingface_hub"),
    ),
    R(
        SettingError,
        "the core of this model, LSTM, is not the one that its settings name, gru, and a folder "
        "holds settings and weights alone; keep its state_dict with the code that builds it",
        lambda: EchoModel(SMALL, nn.LSTM(4, 8, batch_first=True)).save_pretrained("new"),
    ),
    # the page
    R(
        SettingError,
        NO_RUN,
        args="serve",
    ),
    R(
        SettingError,
        "websockets is not installed; pip install 'echospan[web]'",
        args="serve run",
        under=refused.without_a_server,
    ),
    R(
        SettingError,
        f"{option('port')} is 70000; use a whole number from 0 to 65535",
        lambda: listen("127.0.0.1", 70_000),
        "serve run --port 70000",
    ),
    R(
        SettingError,
        "port 80 of 192.0.2.1 cannot be had (<>); name another with "
        f"{option('port')}, or 0 for any that is "
        "free",
        lambda: listen("192.0.2.1", 80),
        "serve run --host 192.0.2.1 --port 80",
    ),
    R(
        SettingError,
        f"{option('allow_host')} is 'https://hub', which is no host name; give the name in the "
        "address of the page alone, such as hub.example.org: no https://, port, path or *",
        lambda: host_name("https://hub"),
        "serve run --allow-host https://hub",
    ),
    R(
        SettingError,
        "the models have no two characters in common; "
        "serve together what reads the same alphabet, or each on a port of its own",
        lambda: common_alphabet([Served("mine", EchoModel(SMALL)), Served("yours", digits())]),
    ),
    R(
        SettingError,
        "the core tcn does not run in a page on its own; "
        "open it with echospan serve, or train one of gru, lstm, min_gru, lru, rnn, rnn_tanh",
        lambda: pack(EchoModel(ModelConfig(core="tcn", hidden=8))),
    ),
    # what is read is checked against the model before it is used
    R(
        AlphabetError,
        f"{option('ids')} is [9]; give whole numbers from 0 to 3",
        lambda: Stream(load("run")).push_ids([9]),
    ),
    R(
        RunError,
        "the evaluation is not one of this model (<>); "
        "give what as_report returns, or leave it out",
        lambda: save(load("run"), SHORT, "run", {"evaluation.json": "{}"}, overwrite=True),
    ),
    R(
        RunError,
        "run/evaluation.json is not an evaluation of this model (<>); "
        "train it anew with echospan train",
        lambda: load("run"),
        "echo run abc",
        harm=lambda: evaluated("{}"),
    ),
    R(
        RunError,
        "state holds nan or infinity; begin anew with another file",
        args="echo run abc --state state",
        harm=lambda: unfinite("state"),
    ),
    R(
        RunError,
        "stopped/resume.safetensors is not a whole snapshot (<>); "
        "train it anew with echospan train --overwrite",
        lambda: read_snapshot(Path("stopped")),
        "train fixed --out stopped --resume",
        harm=sealed_as("stopped/resume.safetensors", lambda facts: facts["facts"].update(step=-5)),
    ),
    R(SettingError, "folder is <>; give a path", lambda: load("\ud800")),
    R(
        SettingError,
        "the evaluation is not one of this model (<>); "
        "give what evaluation.json of its run holds, or leave it out",
        lambda: load("run").save_pretrained("new", evaluation=UNFIT),
    ),
    # commands
    R(
        SettingError,
        "empty.sqlite holds no results; run echospan bench first",
        args="report empty.sqlite",
        harm=lambda: Store("empty.sqlite").close(),
    ),
    R(
        SettingError,
        "pipe.csv is a pipe or a device and not a file; name a file",
        args="results store.sqlite --csv pipe.csv --overwrite",
        harm=lambda: os.mkfifo("pipe.csv"),
    ),
    *(R(SettingError, said, args=asked) for asked, said in ASKED.items()),
]

UNREACHED = {
    ("cli/runs.py", "self._left()"): "test_run_folder.py has a disk that is full at the end",
    ("cli/runs.py", "trained and not measured"): "as above",
    ("cli/runs.py", "is trained and saved, and cannot be measured"): "as above, of memory",
    ("cli/benches.py", "standard output could not be written"): "test_bench.py has a full one",
    ("engines.py", "no Ray cluster answers at"): "Ray is not installed where these tests run",
    ("hub.py", "cannot be had from the Hub"): "test_hub.py has a Hub of its own, in a process",
    ("hub.py", "cannot be put to the Hub"): "as above",
    ("hub.py", "e.fact.replace(str(there), name)"): "as above",
    ("storage/reading.py", "changed while it was read"): "test_reading.py changes a run meanwhile",
    ("storage/reading.py", "cannot be read ({e.strerror})"): "root may read everything",
    ("storage/reading.py", "_unreadable(self.path"): "a disk that fails in the middle of a read",
    ("checkpoint.py", "is not a whole snapshot"): "test_reading.py has generators out of range",
    ("checkpoint.py", "not enough memory to read"): "the limit would be that of the tests as well",
    ("training.py", "the snapshot is of a training with"): "commands compare the settings before",
    ("cli/runs.py", "standard output is closed"): "a process of its own would be needed",
    ("cli/runs.py", "standard input is closed"): "as above",
    ("cli/runs.py", "PYTHONIOENCODING"): "as above",
    ("cli/runs.py", "standard output cannot be written"): "as above",
    ("cli/runs.py", "standard input cannot be read"): "as above",
    ("cores/calling.py", "one output for each step"): "test_odd_layers.py has such layers",
    ("cores/copying.py", "with the original"): "as above",
    ("cores/discovery.py", "sparse parameter"): "as above",
    ("cores/discovery.py", "weights that are not its own"): "as above",
    ("cores/discovery.py", "which it made of its parameters once"): "as above",
    ("cores/discovery.py", "once it was in eval()"): "as above",
    ("cores/probing.py", "is on the meta device"): "as above",
    ("cores/probing.py", "cannot be switched between"): "as above",
    ("cores/probing.py", "self.refusal("): "as above",
}
"""What no row provokes, by file and words, and why."""

APART = (
    *("Unpackable", "refused", "Refused", "Gone", "LocksUnsupportedError", "Changed"),
    *("error", "self.wants_features"),
)
"""What no person sees: one that never leaves echospan/cores, one that was raised elsewhere and is
raised on, one that closes a visitor's socket, with the reasons that test_serve.py reads, one that
ends the work for a visitor who has left, two that storage/ turns into others, and two that
make their message elsewhere in cores/discovery.py."""

COMMANDS = [number for number, row in enumerate(REFUSALS) if row.args is not None]


def told(number):
    return f"{number}-{REFUSALS[number].says[:50]}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return subjects(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def raised(whole, tmp_path_factory):
    """What a row raises through Python; each is provoked once."""

    @functools.cache
    def ask(number):
        return provoked(REFUSALS[number], filled(tmp_path_factory.mktemp("python"), whole))

    return ask


@pytest.mark.parametrize("number", range(len(REFUSALS)), ids=told)
def test_python_raises_it_in_one_sentence(raised, number):
    row, e = REFUSALS[number], raised(number)
    assert type(e) is row.error
    assert row.fits(str(e)), str(e)
    assert str(e) == f"{e.fact}; {e.remedy}"
    assert "\n" not in str(e)


@pytest.mark.parametrize("number", COMMANDS, ids=told)
def test_a_command_says_it_once_exits_with_2_and_leaves_nothing(whole, tmp_path, number):
    row = REFUSALS[number]
    folder = filled(tmp_path, whole)
    with refused.inside(folder):
        row.harm()
    before = held(folder)
    code, out, err = commanded(row, folder)
    assert (code, out) == (2, "")
    *before_it, sentence = err.splitlines()
    assert row.fits_command_line(sentence.removeprefix("echospan: ")), err
    assert sentence.startswith("echospan: ")
    if row.error is not DivergenceError:  # which ends a training that has said how it goes
        assert before_it == []
    assert held(folder) == before


@pytest.mark.parametrize("error", EchospanError.__subclasses__())
def test_it_comes_whole_from_another_process(error):
    sent = pickle.loads(pickle.dumps(error("one line\nand another", "mend it")))
    assert (type(sent), str(sent)) == (error, "one line and another; mend it")
    assert (sent.fact, sent.remedy) == ("one line and another", "mend it")


def typed(*args):
    return subprocess.run(
        [sys.executable, "-m", "echospan", *args], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "args",
    [
        ("train", "fixed", "--hiden", "3"),
        ("echo", "nowhere", "abc"),
        ("bench", "--cores", "gru", "--engine", "dask", "--address", "nonsense://x"),
    ],
)
def test_in_a_process_of_its_own_it_is_one_line_too(tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    ended = typed(*args)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("echospan: ")
    assert ended.stderr.count("\n") == 1


def test_with_debug_it_shows_where_it_came_from():
    ended = typed("train", "fixed", "--hiden", "3", "--debug")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Traceback")
    assert "SettingError: there is no flag --hiden; did you mean --hidden?" in ended.stderr


def test_a_tyro_that_does_not_tell_its_refusals_in_parts_tells_them_itself(monkeypatch, capsys):
    monkeypatch.delattr("tyro._errors.on_parse_error")
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "fixed", "--hiden", "3"])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert "--hiden" in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_every_refusal_of_the_source_has_its_row(raised):
    provoked_at = set[tuple[str, int]]().union(*(places(raised(n)) for n in range(len(REFUSALS))))
    unreached = dict(UNREACHED)
    for file, line, words in sites():
        named = [key for key in unreached if key[0] == file and key[1] in words]
        if (file, line) in provoked_at:
            assert not named, f"{file}:{line} is provoked: take it out of UNREACHED"
        else:
            assert named, f"{file}:{line} has no row: {words}"
            del unreached[named[0]]
    assert not unreached, "what is no longer there"


def sites():
    """File, line and words of every `raise` that a person may see."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Raise) or node.exc is None:
                continue
            name = ast.unparse(node.exc).partition("(")[0]
            # Errors of a programmer, as Python has them, are none of ours.
            if not hasattr(builtins, name) and name not in APART:
                yield str(path.relative_to(SOURCE)), node.lineno, ast.unparse(node.exc)
