"""Our GRU beside torch.nn.GRU: seconds of one forward and backward pass, in the same run.

    python -m benchmarks.gru

Statistic: median of 30 rounds, the two taking turns; ratio above 1 means ours is faster. Beside
it, the time of the matrix products of that pass alone. Results are compared before time counts.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from echospan.cores import GRU

BATCH, TIME, FEATURES = 32, 20, 27


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH}, time {TIME}"
    )
    for hidden in (64, 128, 256):
        torch.manual_seed(0)
        ours = GRU(FEATURES, hidden, batch_first=True)
        theirs = nn.GRU(FEATURES, hidden, batch_first=True)
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(BATCH, TIME, FEATURES)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
        h, w = torch.randn(BATCH, hidden), torch.randn(3 * hidden, hidden)
        d, all_h = torch.randn(BATCH, 3 * hidden), torch.randn(BATCH * TIME, hidden)
        all_d, all_x = torch.randn(BATCH * TIME, 3 * hidden), x.flatten(0, 1)
        w_in = torch.randn(3 * hidden, FEATURES)

        def products(h=h, w=w, d=d, all_h=all_h, all_d=all_d, all_x=all_x, w_in=w_in):  # type: ignore[no-untyped-def]
            all_x @ w_in.T
            for _ in range(TIME):
                h @ w.T
                d @ w
            all_d.T @ all_h
            all_d.T @ all_x

        def step(core: nn.Module, x: torch.Tensor = x) -> None:
            core(x)[0].sum().backward()

        times: dict[str, list[float]] = {"ours": [], "torch": [], "products": []}
        for round_ in range(33):
            rows = {
                "ours": seconds(partial(step, ours)),
                "torch": seconds(partial(step, theirs)),
                "products": seconds(products),
            }
            for name, value in rows.items():
                if round_ >= 3:
                    times[name].append(value)
        a, b, c = (statistics.median(times[n]) * 1e3 for n in ("ours", "torch", "products"))
        print(
            f"hidden {hidden:3d}: ours {a:6.2f} ms, torch.nn.GRU {b:6.2f} ms, ratio {b / a:.2f}; "
            f"matrix products alone {c:6.2f} ms, {a / c:.1f} times that"
        )


if __name__ == "__main__":
    main()
