"""Files of an author who knows the formats: every checksum is right, and something in them is not.

    python -m benchmarks.hostile                  # 2,000 cases of each kind of file
    python -m benchmarks.hostile --count 50 --only run
    python -m benchmarks.hostile --repeat 17 --only snapshot    # one case, with its traceback

Statistic: how many of the files were refused in one sentence, and how many were accepted, which
means that all that was read from them was used and gave what such a file may give. Anything else is
a failure and ends with exit code 1: another exception, a signal, a message of several lines, more
than a gigabyte of memory, more than five seconds. Each case runs in a process of its own.

A kind of file is registered with `register`: what makes a whole one, what changes it and makes its
checksums right again, and what uses it. Changes are drawn: fields of JSON get values of other types
and ranges, tensors other types, shapes, numbers and names; some cases are the claims of `CLAIMS`,
each of which once cost gigabytes or ended the process.
"""

import argparse
import json
import math
import os
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from echospan.checkpoint import (
    SNAPSHOTS,
    Snapshot,
    load_run,
    read_snapshot,
    save,
    sealed,
    write_snapshot,
)
from echospan.errors import EchospanError
from echospan.evaluation import as_report, evaluate
from echospan.model import EchoModel
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.run_format import VERIFIED, manifest
from echospan.streaming import Stream
from echospan.training import train
from echospan.unfilled import Unfilled

MEMORY = 1_000_000_000
"""Bytes that a process may hold at most, Python and PyTorch among them."""

SECONDS = 5.0

Change = Callable[[Path, random.Random], str]
"""Changes the files of a folder, their checksums right, and returns in words what was changed."""


@dataclass(frozen=True)
class Kind:
    """A kind of file: how one is made, changed and used."""

    make: Callable[[Path], None]
    """Write a whole one into an empty folder."""
    change: Change
    """Change it."""
    use: Callable[[Path], None]
    """Read it and use all that was read; raises EchospanError where it is refused, AssertionError
    where what was accepted gives what it must not."""


KINDS: dict[str, Kind] = {}


def register(name: str, kind: Kind) -> None:
    """Add a kind of file to those that are tried."""
    KINDS[name] = kind


# Values of other types and ranges


def odd_value(chance: random.Random, old: Any = None) -> Any:
    """Return a value that is unlikely to be allowed where `old` is."""
    near = []
    if isinstance(old, bool):
        near = [int(old), not old]
    elif isinstance(old, int | float):
        near = [old + 1, -old, old * 2, old * 1000, old + 0.5, str(old), [old], bool(old)]
    elif isinstance(old, str):
        near = [old + "x", old[:-1], old.upper(), [old], old * 100]
    elif isinstance(old, list):
        near = [old[:-1], old + old, old[::-1], [old], {str(i): v for i, v in enumerate(old)}]
    elif isinstance(old, dict):
        near = [list(old), dict(reversed(old.items())), {**old, "": 1}, [old], {}]
    if near and chance.random() < 0.5:
        return chance.choice(near)
    return chance.choice(
        [
            *(None, True, False, 0, 1, -1, 2, 2.5, -0.0, 1e-320, 1e308, 10**400, -(10**30)),
            *(2**31, 2**38, 2**53, 2**63, 2**64, math.nan, math.inf, -math.inf),
            *(
                "",
                "x",
                "0",
                "nan",
                "\0",
                "\ud800",
                "a\nb",
                "\x1b[31m",
                "[/b]",
                "../../x",
                "x" * 9999,
            ),
            *([], {}, [[]], [None] * 1000, {"a": {"b": {"c": []}}}, Deep(500), Deep(20_000)),
        ]
    )


class Deep:
    """Brackets in brackets, for `as_json`."""

    def __init__(self, levels: int) -> None:
        self.levels = levels


def as_json(value: Any) -> str:
    """Return JSON, with Deep as the brackets it stands for; NaN and the like as Python has them."""
    deep: list[int] = []

    def default(o: Any) -> str:
        deep.append(o.levels)
        return f"\x01{len(deep) - 1}\x01"

    text = json.dumps(value, default=default)
    for number, levels in enumerate(deep):
        text = text.replace(f'"\\u0001{number}\\u0001"', "[" * levels + "]" * levels)
    return text


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each part of a JSON value."""
    if at:
        yield at
    if isinstance(value, dict):
        parts = list(value.items())
    else:
        parts = list(enumerate(value)) if isinstance(value, list) else []
    for name, part in parts:
        yield from places(part, (*at, name))


def change_json(value: Any, chance: random.Random) -> str:
    """Change one part of a JSON value in place; returns which."""
    at = chance.choice(list(places(value)))
    home = value
    for name in at[:-1]:
        home = home[name]
    match chance.randrange(6):
        case 0:
            del home[at[-1]]
            how = "left out"
        case 1 if isinstance(home, dict):
            home[chance.choice(["more", "", "__class__", "x" * 1000])] = odd_value(chance)
            how = "with a part beside it"
        case _:
            old = home[at[-1]]
            home[at[-1]] = new = odd_value(chance, old)
            how = f"{old!r:.40} -> {type(new).__name__} {_short(new)}"
    return f"{'.'.join(map(str, at))}: {how}"


def _short(value: Any) -> str:
    if isinstance(value, int) and abs(value) > 10**30:
        return "large"
    return ascii(value)[:40]


# Tensors of other types, shapes and numbers


def odd_tensor(tensor: Tensor, chance: random.Random) -> Tensor:
    """Return a tensor that differs in type, shape or numbers."""
    match chance.randrange(5):
        case 0:
            types = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8]
            types += [torch.uint8, torch.bool, torch.int32, torch.float32]
            return tensor.to(chance.choice(types))
        case 1:
            shapes = [tensor.T if tensor.dim() == 2 else tensor.flatten(), tensor[None]]
            shapes += [tensor.flatten(), tensor[..., None], torch.zeros(0, dtype=tensor.dtype)]
            shapes += [torch.zeros((), dtype=tensor.dtype), torch.cat([tensor.reshape(-1)] * 2)]
            return chance.choice(shapes)
        case 2:
            changed = tensor.clone().reshape(-1)
            if len(changed):
                number = chance.choice([math.nan, math.inf, -1, 1e30, -1e30, 2**31, 0, 1e-40])
                if not changed.is_floating_point():
                    least, most = (-128, 255) if changed.dtype != torch.uint8 else (0, 255)
                    number = max(least, min(most, number if math.isfinite(number) else 0))
                changed[chance.randrange(len(changed))] = number
            return changed.view(tensor.shape)
        case 3:
            filled = chance.choice([0, 1, -1, 255])
            return torch.full_like(tensor, 0 if tensor.dtype == torch.uint8 else filled)
        case _:
            drawn = torch.rand(tensor.shape) * chance.choice([1, 300, 1e6])
            return drawn.to(tensor.dtype)


def change_tensors(named: dict[str, Tensor], chance: random.Random) -> str:
    """Change one of several tensors in place; returns which."""
    name = chance.choice(sorted(named))
    match chance.randrange(6):
        case 0:
            del named[name]
            return f"{name} left out"
        case 1:
            other = chance.choice(["more", "", "model.", "state.99", "random.1", "é" * 99])
            named[other] = named[name].clone()
            return f"{name} again as {other:.20}"
        case 2:
            named[f"{name}x"] = named.pop(name)
            return f"{name} under another name"
        case 3:
            named[name] = named[chance.choice(sorted(named))].clone()
            return f"{name} with the numbers of another"
        case _:
            old = named[name]
            named[name] = new = odd_tensor(old, chance).contiguous()
            return f"{name}: {old.dtype} {list(old.shape)} -> {new.dtype} {list(new.shape)}"


def change_header(data: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Return a file of safetensors with one part of its header changed, and which."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    meta = header.pop("__metadata__", None)
    what = change_json(header, chance)
    if meta is not None:
        header["__metadata__"] = meta
    text = as_json(header).encode(errors="surrogatepass")
    if chance.random() < 0.2:
        text = text.replace(b"}", b"}" + b" " * 1000, 1)
        what += ", with spaces"
    return struct.pack("<Q", len(text)) + text + data[8 + length :], f"header {what}"


# Runs


SMALL = Recipe(
    model=ModelConfig(alphabet="abc", max_delay=2, hidden=8),
    training=TrainingConfig(steps=60, batch=4, target=0.9),
)


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def sign(folder: Path, config: dict[str, Any] | None = None) -> None:
    """Make the checksums of a run right for what its files hold now."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) if config is None else config
    if isinstance(config.get("files"), dict):
        for name in config["files"]:
            if isinstance(name, str) and name in VERIFIED and (folder / name).is_file():
                config["files"][name] = _digest((folder / name).read_bytes())
    config.pop("sha256", None)
    try:
        # The reader computes it over the values, in whatever form they were written.
        config["sha256"] = json.loads(manifest(json.loads(as_json(config))))["sha256"]
    except (RecursionError, ValueError):
        config["sha256"] = "0" * 64
    path.write_bytes(as_json(config).encode(errors="surrogatepass"))


def make_run(folder: Path) -> None:
    """Write a run with all its files."""
    model = train(SMALL).model
    report = as_report(model, evaluate(model, trials=500), 0.9, {"stream": None, "run": "r"})
    files = {"evaluation.json": json.dumps(report), "history.jsonl": '{"step": 1}\n'}
    save(model, SMALL.training, folder / "run", files)


def claim(**model: Any) -> Change:
    """Return a change of the settings of a model alone."""

    def change(folder: Path, chance: random.Random) -> str:
        path = folder / "run" / "config.json"
        config = json.loads(path.read_text())
        config["model"] |= model
        sign(folder / "run", config)
        return f"claims {model}"

    return change


def claim_of_core(core: str, hidden: int, **more: Any) -> Change:
    """Return a change to another core and width, with readouts that fit and nothing else."""

    def change(folder: Path, chance: random.Random) -> str:
        run, model = folder / "run", {"alphabet": "ab", "core": core, "hidden": hidden} | more
        path = run / "config.json"
        config = json.loads(path.read_text())
        config["model"] = {"max_delay": 0, "delay": None, "conditioning": "readout"} | model
        rows = 3 * (1 if more.get("conditioning") == "input" else config["model"]["max_delay"] + 1)
        named = {
            "readouts.weight": torch.zeros(rows, hidden),
            "readouts.bias": torch.zeros(rows),
            "embedding.weight": torch.zeros(3, 3),
        }
        safetensors.torch.save_file(named, run / "model.safetensors")
        sign(run, config)
        return f"claims {model}"

    return change


def fitting(core: str, hidden: int) -> Change:
    """Return a change to a run that is as wide as a small file allows, and whole."""

    def change(folder: Path, chance: random.Random) -> str:
        run = folder / "run"
        model = ModelConfig(alphabet="ab", core=core, hidden=hidden, max_delay=0)
        with Unfilled():
            named = EchoModel(model).state_dict()
        safetensors.torch.save_file(
            {name: torch.zeros_like(t) for name, t in named.items()}, run / "model.safetensors"
        )
        config = json.loads((run / "config.json").read_text())
        config["model"] = asdict(model)
        del config["files"]["evaluation.json"]
        sign(run, config)
        return f"is {core} of {hidden:,} units"

    return change


def holes(name: str, size: int) -> Change:
    """Return a change that adds a tensor of holes to the weights."""

    def change(folder: Path, chance: random.Random) -> str:
        path = folder / "run" / "model.safetensors"
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        end = len(data) - 8 - length
        header[name] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [end, end + size]}
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        os.truncate(path, 8 + len(text) + end + size)
        return f"{size:,} bytes of holes as {name}"

    return change


CORES = ("gru", "lstm", "rnn", "rnn_tanh", "min_gru", "min_lstm", "lru", "s4d", "mamba", "lmu")
CORES += ("linear_attention", "delta_net", "attention", "tcn", "reservoir", "delay_line")

CLAIMS: dict[str, Change] = {
    "hidden 2^38": claim(hidden=2**38),
    "hidden 20,000 in a small file": claim(hidden=20_000),
    "max_delay 2^38": claim(max_delay=2**38),
    "by input, 60 million delays": claim(conditioning="input", max_delay=60_000_000),
    "conditioning both": claim(conditioning="both"),
    "3 GB of holes": holes("more", 3_000_000_000),
    "a terabyte of holes": holes("core.weight_hh_l0x", 900_000_000_000),
    "300,000 symbols": claim(alphabet="".join(map(chr, range(0x4E00, 0x4E00 + 20_000)))),
} | {f"{core} of 20,000 units": claim_of_core(core, 20_000) for core in CORES}
CLAIMS |= {
    f"{core} of 20,000 units by input": claim_of_core(core, 20_000, conditioning="input")
    for core in ("gru", "tcn", "delta_net")
}


CLAIMS |= {
    f"{core} of {hidden:,} units that fits": fitting(core, hidden)
    for core, hidden in (("lmu", 32_768), ("lru", 16_384), ("delay_line", 32_768))
}


def change_run(folder: Path, chance: random.Random) -> str:
    """Change settings, origin, evaluation, history or weights of a run."""
    run = folder / "run"
    if chance.random() < 0.05:
        name = chance.choice(sorted(CLAIMS))
        CLAIMS[name](folder, chance)
        return name
    match chance.randrange(8):
        case 0 | 1 | 2:
            config = json.loads((run / "config.json").read_text())
            what = change_json(config, chance)
            sign(run, config)
            return f"config.json {what}"
        case 3 | 4:
            evaluation = json.loads((run / "evaluation.json").read_text())
            what = change_json(evaluation, chance)
            (run / "evaluation.json").write_text(as_json(evaluation), errors="surrogatepass")
            sign(run)
            return f"evaluation.json {what}"
        case 5:
            data, what = change_header((run / "model.safetensors").read_bytes(), chance)
            (run / "model.safetensors").write_bytes(data)
        case 6:
            text = chance.choice(["", "x" * 10**6, "\0", "[" * 10**5])
            name = chance.choice(VERIFIED[1:])
            (run / name).write_text(text)
            what = f"{name} of {len(text):,} characters"
        case _:
            named = safetensors.torch.load_file(run / "model.safetensors")
            what = change_tensors(named, chance)
            safetensors.torch.save_file(named, run / "model.safetensors")
    sign(run)
    return what


def use_run(folder: Path) -> None:
    """Load a run, stream text through its model, and show it as a page does."""
    from echospan.web.served import Served

    run = load_run(folder / "run")
    model = run.model
    text = (model.alphabet.characters * 10)[:10]
    stream = Stream(model)
    answers = stream.push(text)
    assert len(answers) == len(text)
    assert all(c in model.alphabet.characters or c == "·" for c in answers)
    for p in model.parameters():
        assert p.is_floating_point()
        assert p.isfinite().all()
    assert run.recall is None or all(0 <= r <= 1 for r in run.recall)
    assert run.recall is None or len(run.recall) == model.max_delay + 1
    json.dumps(Served("r", model, run.recall).told(), allow_nan=False)
    assert model.made is None or isinstance(model.made.threads, int)


# Snapshots


def make_snapshot(folder: Path) -> None:
    """Write a snapshot of a training that has looked at its recall."""
    snapshots: list[Snapshot] = []
    train(SMALL, on_snapshot=snapshots.append, snapshot_seconds=0)
    write_snapshot(folder, snapshots[40])


def _sealed_parts(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safetensors.safe_open(path, "pt") as f:
        facts = json.loads(f.metadata()["echospan"])
    return facts, safetensors.torch.load_file(path)


def reseal(path: Path, facts: Any, named: dict[str, Tensor]) -> None:
    """Write facts and tensors with a checksum that is right, whatever they are."""
    whole = sealed({}, named)
    text = as_json(facts)
    from echospan.checkpoint import _digest as digest

    meta = {"echospan": text, "sha256": digest(text, named)}
    try:
        data = safetensors.torch.save(named, meta)
    except (safetensors.SafetensorError, UnicodeEncodeError):
        data = whole
    path.write_bytes(data)


def change_sealed(path: Path, chance: random.Random) -> str:
    """Change facts, tensors or the header of a file that `sealed` made."""
    facts, named = _sealed_parts(path)
    match chance.randrange(5):
        case 0 | 1:
            what = f"facts {change_json(facts, chance)}"
        case 2:
            data, what = change_header(path.read_bytes(), chance)
            path.write_bytes(data)
            return what
        case _:
            what = change_tensors(named, chance)
    reseal(path, facts, named)
    return what


def change_snapshot(folder: Path, chance: random.Random) -> str:
    """Change a snapshot."""
    return change_sealed(folder / SNAPSHOTS[0], chance)


def use_snapshot(folder: Path) -> None:
    """Go on from a snapshot for a moment."""
    snapshot = read_snapshot(folder)
    assert snapshot is not None
    result = train(SMALL, resume=snapshot, deadline=time.perf_counter() + 0.2)
    for p in result.model.parameters():
        assert p.isfinite().all()
    assert result.steps >= snapshot.facts["step"]


# States of streams


def _streamed_model() -> EchoModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return EchoModel(ModelConfig(alphabet="abc", max_delay=2, hidden=8, core="lstm")).eval()


def make_state(folder: Path) -> None:
    """Write the state of a stream that has read something."""
    stream = Stream(_streamed_model())
    stream.push("abacab")
    stream.save(folder / "state")


def change_state(folder: Path, chance: random.Random) -> str:
    """Change the state of a stream."""
    return change_sealed(folder / "state", chance)


def use_state(folder: Path) -> None:
    """Go on from a state, and write it again."""
    stream = Stream(_streamed_model())
    stream.restore(folder / "state")
    assert len(stream.push("cabbac")) == 6
    stream.save(folder / "again")
    assert stream.restore(folder / "again")


register("run", Kind(make_run, change_run, use_run))
register("snapshot", Kind(make_snapshot, change_snapshot, use_snapshot))
register("state", Kind(make_state, change_state, use_state))


# Each case in a process of its own


@contextmanager
def _unpacked(whole: dict[str, bytes]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, data in whole.items():
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            (folder / part).write_bytes(data)
        yield folder


def whole_files(kind: Kind) -> dict[str, bytes]:
    """Return the files of a whole one by their names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind.make(folder)
        return {
            str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
        }


def outcome_of(use: Callable[[Path], None], folder: Path) -> str:
    """Return what became of using a file, in words; a failure begins with a capital letter."""
    try:
        use(folder)
    except EchospanError as e:
        long = len(str(e)) > 1_000 + 2 * len(str(folder))
        return "Several lines or long" if "\n" in str(e) or long else "refused"
    except BaseException as e:
        return f"Traceback {type(e).__name__}: {e}"[:200]
    return "accepted"


def run_case(kind: Kind, whole: dict[str, bytes], seed: int) -> tuple[str, str]:
    """Return what was changed in one case, and what became of it."""
    with _unpacked(whole) as folder:
        what = kind.change(folder, random.Random(seed))
        # The child begins with what this process has in memory.
        inherited = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            outcome = outcome_of(kind.use, folder)
            os.write(writer, outcome.encode(errors="replace")[:4000])
            os._exit(0)
        os.close(writer)
        start = time.perf_counter()
        killer = _kill_after(child, 4 * SECONDS)
        with os.fdopen(reader, "rb") as pipe:
            outcome = pipe.read().decode()
        _, status, usage = os.wait4(child, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        killer()
        seconds = time.perf_counter() - start
    if os.WIFSIGNALED(status):
        outcome = f"Signal {os.WTERMSIG(status)}"
    elif seconds > SECONDS:
        outcome = f"Slow {seconds:.1f} s, {outcome}"
    elif (taken := usage.ru_maxrss * 1024 - inherited) > MEMORY:
        outcome = f"Memory {taken / 1e9:.1f} GB, {outcome}"
    return what, outcome


def _kill_after(child: int, seconds: float) -> Callable[[], None]:
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return lambda: signal.signal(signal.SIGALRM, before) and None


def cases(name: str, count: int, first: int = 0) -> Iterator[tuple[int, str, str]]:
    """Yield seed, change and outcome of each case of a kind of file."""
    kind = KINDS[name]
    whole = whole_files(kind)
    with _unpacked(whole) as folder:
        kind.use(folder)  # the whole one is accepted
    for seed in range(first, first + count):
        yield seed, *run_case(kind, whole, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--show", action="store_true", help="print what was changed, and the end")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.repeat is not None:
        for name in args.only:
            with _unpacked(whole_files(KINDS[name])) as folder:
                print(KINDS[name].change(folder, random.Random(args.repeat)))
                try:
                    KINDS[name].use(folder)
                except Exception:
                    traceback.print_exc()
        return
    bad = 0
    for name in args.only:
        outcomes: Counter[str] = Counter()
        for seed, what, outcome in cases(name, args.count, args.first):
            outcomes[outcome.partition(" ")[0]] += 1
            if args.show or outcome[0].isupper():
                print(f"{name} {seed}: {what!a}: {outcome!a}", flush=True)
            bad += outcome[0].isupper()
        print(f"{name}: {json.dumps(outcomes)}", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
