"""Layers that others wrote, from PyPI, profiled as they are: what each remembers.

    pip install --no-deps minGRU-pytorch ncps pytorch-tcn x-transformers S5-pytorch …
    python -m benchmarks.others                          # 60 s each, delays 0 to 16
    python -m benchmarks.others --save docs/others.json  # and keep the profiles for the page

Statistic: as of `echospan profile`, one seed. Each entry is all that its layer needs to go in.
Packages that are not installed are named and left out; some ask for others (`--no-deps` leaves
torch as it is), such as einops, einx, loguru, packaging, omegaconf, torch-einops-utils and
rotary-embedding-torch.
"""

import argparse
import json
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from echospan.profiling import profile

WIDTH = 128


def _of(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def min_gru() -> nn.Module:
    return _of("minGRU_pytorch", "minGRU")(WIDTH)


def cfc() -> nn.Module:
    return _of("ncps.torch", "CfC")(WIDTH, WIDTH)


def tcn() -> nn.Module:
    tcn = _of("pytorch_tcn", "TCN")
    return tcn(WIDTH, [WIDTH] * 4, kernel_size=3, causal=True, input_shape="NLC", dropout=0.0)


def transformer() -> nn.Module:
    decoder = _of("x_transformers", "Decoder")
    return decoder(dim=WIDTH, depth=2, heads=4, rotary_pos_emb=True)


def s5() -> nn.Module:
    return _of("s5", "S5")(WIDTH, WIDTH)


def slstm() -> nn.Module:
    return _of("torchxlstm", "sLSTM")(WIDTH, WIDTH, 1)


def light_recurrent_unit() -> nn.Module:
    return _of("light_recurrent_unit_pytorch", "LightRecurrentUnitLayer")(WIDTH)


def gateloop() -> nn.Module:
    return _of("gateloop_transformer", "SimpleGateLoopLayer")(WIDTH)


def mamba() -> nn.Module:
    module = import_module("mambapy.mamba")
    return module.Mamba(module.MambaConfig(d_model=WIDTH, n_layers=2))


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "minGRU-pytorch": min_gru,
    "ncps": cfc,
    "pytorch-tcn": tcn,
    "x-transformers": transformer,
    "S5-pytorch": s5,
    "torchxlstm": slstm,
    "light-recurrent-unit-pytorch": light_recurrent_unit,
    "gateloop-transformer": gateloop,
    "mambapy": mamba,
}
"""By the package's name on PyPI."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--max-delay", type=int, default=16)
    parser.add_argument("--only", nargs="+", choices=OTHERS, default=list(OTHERS))
    parser.add_argument("--save", type=Path)
    parser.add_argument("--quick", action="store_true", help="delays 0 to 2 of those that are here")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.max_delay = 5.0, 2
    told = []
    for package in args.only:
        try:
            make = OTHERS[package]
            make()
        except ImportError as e:
            print(f"{package}: left out, {e}")
            continue
        name = f"{package} {version(package)}: {type(make()).__name__}"
        got = profile(make, args.max_delay, seconds=args.seconds, name=name)
        print(f"{name}: {got.verdict}", flush=True)
        told.append(json.loads(got.to_json()))
    if args.save:
        args.save.write_text(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
