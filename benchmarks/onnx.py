"""Each core exported: how near its graphs come, and a step of them beside PyTorch's.

    OMP_NUM_THREADS=1 python -m benchmarks.onnx            # five seconds of training a core
    python -m benchmarks.onnx --quick                      # two cores, hardly trained

A model of 128 units on 26 letters and delays 0 to 8. Parity is what the export itself looks at: the
largest difference of logits and states, as a share of the largest, in 200 drawn inputs and 1,000
chained steps. Speed: the median of 30 rounds in which the two take turns, one thread each;
µs a step: one symbol in, read-outs of every delay out (of one delay in a Stream); µs a symbol: of a
sequence of 1,024.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from echospan.cores import CORES, State
from echospan.export import FULL, STEP, export_onnx
from echospan.model import EchoModel
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.streaming import Stream
from echospan.training import train

STEPS, LENGTH = 100, 1024


def microseconds(work: Callable[[], object], of: int) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / of * 1e6


def session(path: Path) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, settings)


def zeros(graph: onnxruntime.InferenceSession) -> dict[str, Any]:
    """The empty state of one row."""
    return {
        v.name: np.zeros([1 if d == "batch" else d for d in v.shape], "float32")
        for v in graph.get_inputs()[1:]
    }


def works(model: EchoModel, folder: Path) -> dict[str, tuple[Callable[[], object], int]]:
    """By name: what is timed, and how many symbols it reads."""
    full, step = session(folder / FULL), session(folder / STEP)
    symbols = torch.randint(1, model.symbols, (1, LENGTH))
    one, whole = symbols[0, :1].numpy(), symbols.numpy()

    def onnx_steps() -> None:
        state = zeros(step)
        for _ in range(STEPS):
            _, *new = step.run(None, {"symbols": one, **state})
            state = dict(zip(state, new, strict=True))

    @torch.inference_mode()
    def torch_steps() -> None:
        state: State = None
        for _ in range(STEPS):
            _, state = model(symbols[:, :1], state)

    stream, letter = Stream(model), [int(one[0])]

    def stream_steps() -> None:
        for _ in range(STEPS):
            stream.push_ids(letter)

    empty = zeros(full)
    return {
        "onnx step": (onnx_steps, STEPS),
        "torch step": (torch_steps, STEPS),
        "stream": (stream_steps, STEPS),
        "onnx whole": (lambda: full.run(None, {"symbols": whole, **empty}), LENGTH),
        "torch whole": (torch.inference_mode()(lambda: model(symbols)), LENGTH),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=CORES, default=list(CORES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, one thread\n")
    print(
        "| core | drawn | chained | KB | µs a step, onnxruntime | PyTorch | Stream "
        "| µs a symbol, onnxruntime | PyTorch |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for core in ("gru", "lru") if args.quick else args.only:
        budget: dict[str, Any] = {"steps": 5} if args.quick else {"seconds": 5.0}
        recipe = Recipe(model=ModelConfig(core=core), training=TrainingConfig(**budget))
        model = train(recipe).model.eval()
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home) / core
            parity = export_onnx(model, folder)
            size = (folder / STEP).stat().st_size
            timed = works(model, folder)
            times: dict[str, list[float]] = {name: [] for name in timed}
            for round_ in range(3 if args.quick else 33):
                for name, (work, of) in timed.items():
                    value = microseconds(work, of)
                    if round_ >= (0 if args.quick else 3):
                        times[name].append(value)
        near = f"{parity.drawn:.0e} | {parity.chained:.0e} | {size / 1000:.0f}"
        figures = " | ".join(f"{statistics.median(t):.1f}" for t in times.values())
        print(f"| {core} | {near} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
