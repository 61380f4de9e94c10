"""Do the tests notice it when the code is wrong? Small faults are planted, one at a time.

    make mutation                                    # all; goes on where it was stopped
    python -m benchmarks.mutation --jobs 2           # two at a time
    python -m benchmarks.mutation --only tasks --anew
    python -m benchmarks.mutation --survivors        # after new tests: those that got away, again
    python -m benchmarks.mutation --report           # what is known so far

Statistic: the share of mutants that the tests named in SUBJECTS catch, by file. A mutant is the
file with one fault, by the operators of mutmut 3 (a number one higher, another operator, a name or
an argument that is None or left out, a text changed, …) and two of our own: a call or a decorator
left out. mutmut itself leaves every decorated function alone, which here are each property, and
`evaluate`, so the walk through the code and the run are ours. A mutant is caught where a test
fails or crashes, or where they take far longer than they should; one that cannot be imported is
not counted. Annotations, docstrings and imports are left as they are. The faults are planted in
memory: no file is touched. Exit code 1 where less than 85 % are caught in any file.

Each mutant gets a process of its own, forked once all that is heavy has been imported.
"""

import argparse
import contextlib
import difflib
import gc
import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libcst as cst
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).parent.parent
KEPT = ROOT / ".mutation" / "judged.jsonl"

SUBJECTS = {
    "tasks": ("tests/test_tasks.py",),
    "evaluation": ("tests/test_evaluation.py",),
    "checkpoint": ("tests/test_checkpoint.py",),
}
"""The tests that must notice a fault in a file; quick ones, that need no training."""

LEAST = 0.85
"""Share of mutants that must be caught in each file."""

SLOW = 5
"""So many times longer than the whole file takes, and ten seconds more, is an endless loop."""

MEMORY = 12 * 2**30
"""Address space in bytes of one mutant: a fault may ask for everything."""

PATIENCE = 300
"""Seconds of a processor after which a mutant ends even where nobody watches it any more."""

UNBORN = 99
"""Exit code of a mutant that cannot be imported."""


@dataclass(frozen=True)
class Mutant:
    """One file with one fault."""

    module: str
    name: str
    """The function it is in, and its number there."""
    text: str
    """The whole file."""
    diff: str

    @property
    def key(self) -> str:
        """The same as long as the file, the fault and the names of the tests are."""
        told = (self.module, *SUBJECTS[self.module], self.text)
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def left_out(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Our own operators: a statement that is a call is passed over, a decorator is not there."""
    if isinstance(node, cst.Expr) and isinstance(node.value, cst.Call):
        yield cst.Pass()
    if isinstance(node, cst.FunctionDef | cst.ClassDef):
        for one in node.decorators:
            yield node.with_changes(decorators=[d for d in node.decorators if d is not one])


class _Walk(cst.CSTVisitor):
    """Finds `(function, node, node with a fault)` for every fault there is to plant."""

    LEFT_ALONE = (cst.Annotation, cst.Import, cst.ImportFrom)

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.found: list[tuple[str, cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Plant what can be planted here, and go on below."""
        text = isinstance(node, cst.SimpleStatementLine) and isinstance(node.body[0], cst.Expr)
        if isinstance(node, self.LEFT_ALONE) or (
            text and isinstance(node.body[0].value, cst.SimpleString)  # type: ignore[attr-defined]
        ):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self.inside.append(node.name.value)
        for kind, operator in (*mutation_operators, (cst.CSTNode, left_out)):
            if isinstance(node, kind):
                where = ".".join(self.inside) or "module"
                self.found += [(where, node, faulty) for faulty in operator(node)]
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        """Out of a function again."""
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self.inside.pop()


def mutants(module: str) -> list[Mutant]:
    """All mutants of a file of the package, each text once."""
    code = (ROOT / "src" / "echospan" / f"{module}.py").read_text()
    tree = cst.parse_module(code)
    walk = _Walk()
    tree.visit(walk)
    made: list[Mutant] = []
    seen, numbers = {code}, dict.fromkeys([where for where, _, _ in walk.found], 0)
    for where, node, faulty in walk.found:
        changed = tree.deep_replace(node, faulty)
        assert isinstance(changed, cst.Module)
        numbers[where] += 1
        if changed.code in seen:
            continue
        seen.add(changed.code)
        lines = difflib.unified_diff(code.splitlines(), changed.code.splitlines(), n=0, lineterm="")
        diff = "\n".join(line for line in list(lines)[3:] if not line.startswith("@@"))
        made.append(Mutant(module, f"{module}.{where} {numbers[where]}", changed.code, diff))
    return made


class _Planted(importlib.abc.SourceLoader, importlib.abc.MetaPathFinder):
    """Imports the mutant in place of the file, and everything else as ever."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = f"echospan.{mutant.module}"
        self.path = str(ROOT / "src" / "echospan" / f"{mutant.module}.py")
        self.text = mutant.text

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Ours for the one module, none for others."""
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_filename(self, name: str) -> str:
        """Where the file without the fault is."""
        return self.path

    def get_data(self, path: str | bytes) -> bytes:
        """The text of the mutant."""
        return self.text.encode()


def live(mutant: Mutant | None, tests: tuple[str, ...]) -> int:
    """Exit code of the tests in this process, with the mutant in place of the file."""
    import hypothesis
    import pytest

    sys.dont_write_bytecode = False  # what is imported again and again is compiled once
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE, PATIENCE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hypothesis.settings.register_profile(
        "mutation",
        database=None,
        derandomize=True,
        deadline=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    if mutant is not None:
        sys.meta_path.insert(0, _Planted(mutant))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(f"echospan.{mutant.module}")
        except BaseException:
            return UNBORN
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", "--assert=plain"]
    return int(pytest.main([*options, "--hypothesis-profile=mutation", *tests]))


def forked(mutant: Mutant | None, tests: tuple[str, ...]) -> int:
    """The id of a process that judges a mutant; what it prints goes nowhere."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        code = live(mutant, tests)
    finally:
        os._exit(code)


def ended(status: int) -> str:
    """What became of a mutant, by how its process ended."""
    code = os.waitstatus_to_exitcode(status)
    return {0: "survived", UNBORN: "unborn"}.get(code, "caught")


def judge(todo: Iterable[Mutant], limits: dict[str, float], jobs: int) -> Iterator[tuple[Any, str]]:
    """Each mutant and what became of it, as soon as it is known."""
    waiting, running = iter(todo), {}
    while True:
        while len(running) < jobs and (mutant := next(waiting, None)) is not None:
            child = forked(mutant, SUBJECTS[mutant.module])
            running[child] = mutant, time.monotonic() + limits[mutant.module]
        if not running:
            return
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            yield running.pop(child)[0], ended(status)
            continue
        for late in [c for c, (_, until) in running.items() if time.monotonic() > until]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(late, signal.SIGKILL)
            os.waitpid(late, 0)
            yield running.pop(late)[0], "too slow"
        time.sleep(0.01)


def limits(modules: list[str]) -> dict[str, float]:
    """Seconds that a mutant of each file may take, by what the tests take without a fault."""
    told = {}
    for module in modules:
        start = time.monotonic()
        _, status = os.waitpid(forked(None, SUBJECTS[module]), 0)
        took = time.monotonic() - start
        if ended(status) != "survived":
            sys.exit(f"the tests of {module} fail without a fault: {' '.join(SUBJECTS[module])}")
        told[module] = SLOW * took + 10
        print(f"{module}: its tests take {took:.1f} s", file=sys.stderr, flush=True)
    return told


def known() -> dict[str, str]:
    """What became of each mutant that has been judged, by key."""
    if not KEPT.exists():
        return {}
    return {k: v for line in KEPT.read_text().splitlines() for k, v in [json.loads(line)]}


def report(made: dict[str, list[Mutant]], judged: dict[str, str]) -> bool:
    """Print the survivors and the table; whether enough was caught in each file."""
    enough, rows = True, []
    for module, all_of_it in made.items():
        by = dict.fromkeys(("caught", "too slow", "survived", "unborn", "not judged"), 0)
        for mutant in all_of_it:
            outcome = judged.get(mutant.key, "not judged")
            by[outcome] += 1
            if outcome == "survived":
                print(f"{mutant.name}\n{mutant.diff}\n")
        caught = by["caught"] + by["too slow"]
        share = caught / max(1, caught + by["survived"])
        enough &= share >= LEAST and not by["not judged"]
        rows.append((module, len(all_of_it) - by["unborn"], caught, by["survived"], share, by))
    print(f"{'file':<12}{'mutants':>8}{'caught':>8}{'survived':>10}{'share':>8}")
    for module, count, caught, survived, share, by in rows:
        missing = f"   {by['not judged']} not judged" if by["not judged"] else ""
        print(f"{module:<12}{count:>8}{caught:>8}{survived:>10}{share:>8.1%}{missing}")
    return enough


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--sample", type=int, help="so many of each file, drawn at random")
    parser.add_argument(
        "--tests", nargs=argparse.REMAINDER, help="other tests than those of SUBJECTS"
    )
    parser.add_argument("--anew", action="store_true", help="forget what was judged before")
    parser.add_argument("--survivors", action="store_true", help="judge those that survived again")
    parser.add_argument("--report", action="store_true", help="judge nothing more")
    args = parser.parse_args()
    os.chdir(ROOT)
    if args.tests:
        SUBJECTS.update(dict.fromkeys(args.only, tuple(args.tests)))
    made = {module: mutants(module) for module in args.only}
    if args.sample:
        chance = random.Random(0)
        made = {k: chance.sample(v, min(args.sample, len(v))) for k, v in made.items()}
    if args.anew:
        KEPT.unlink(missing_ok=True)
    judged = known()
    again = {"survived"} if args.survivors else set()
    todo = [m for all_of_it in made.values() for m in all_of_it]
    todo = [m for m in todo if m.key not in judged or judged[m.key] in again]
    if todo and not args.report:
        import hypothesis  # noqa: F401
        import safetensors.torch  # noqa: F401
        import scipy.special
        import scipy.stats  # noqa: F401
        import torch

        torch.set_num_threads(1)
        gc.freeze()
        KEPT.parent.mkdir(exist_ok=True)
        with KEPT.open("a") as f:
            bounds = limits([k for k in made if any(m.module == k for m in todo)])
            for i, (mutant, outcome) in enumerate(judge(todo, bounds, args.jobs), 1):
                judged[mutant.key] = outcome
                f.write(json.dumps([mutant.key, outcome]) + "\n")
                f.flush()
                print(f"{i}/{len(todo)} {mutant.name}: {outcome}", file=sys.stderr, flush=True)
    sys.exit(0 if report(made, judged) else 1)


if __name__ == "__main__":
    main()
