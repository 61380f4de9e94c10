"""What the tests of the bench share: layers that go wrong, and how a result is compared."""

import subprocess
import sys

LAYERS = """
import os, signal, time
from pathlib import Path
import torch


class Mine(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.rnn = torch.nn.GRU(width, width, batch_first=True)

    def forward(self, x, state=None):
        return self.rnn(x, state)


class Dies(Mine):
    def forward(self, x, state=None):
        os.kill(os.getpid(), signal.SIGKILL)


class DiesOnce(Mine):
    def forward(self, x, state=None):
        marker = Path("died")
        if len(x) == 32 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x, state)


class Hungry(Mine):
    def forward(self, x, state=None):
        if len(x) == 32:
            with Path("hungry").open("a") as told:
                told.write("x")
            raise MemoryError("no more")
        return super().forward(x, state)


class Raises(Mine):
    def forward(self, x, state=None):
        if len(x) == 32 and not Path("mended").exists():
            raise RuntimeError("out of luck")
        return super().forward(x, state)


class Leaves(Mine):
    def forward(self, x, state=None):
        if len(x) == 32:
            raise SystemExit(7)
        return super().forward(x, state)


class Chatty(Mine):
    def forward(self, x, state=None):
        print("here I am")
        return super().forward(x, state)


class Stuck(Mine):
    def forward(self, x, state=None):
        if len(x) == 32:
            Path("begun").touch()
            time.sleep(60)
        return super().forward(x, state)


class Slow(Mine):
    def forward(self, x, state=None):
        if len(x) == 32:
            Path("begun").touch()
            time.sleep(0.3)
        return super().forward(x, state)
"""


def command(*args, before=(), **more):
    """A bench of its own, in a process of its own."""
    return subprocess.Popen(
        [*before, sys.executable, "-m", "echospan", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def figures(store):
    """What a store holds, by cell: profiles are equal where all but the clock's figures is."""
    from echospan.store import Store

    told = {}
    with Store(store, write=False) as opened:
        for stored in opened.stored():
            assert stored.cell.key not in told
            told[stored.cell.key] = stored.profile or stored.error
    return told
