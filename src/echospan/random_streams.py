"""Derive every random stream of the project from its purpose and a seed.

A figure is fair only where the symbols that it is measured on decided nothing before. So each
purpose in `Purpose` has streams of its own, one for each seed, and no two of them are the same.

Training keeps the streams of `torch.manual_seed(seed)`, so that a model is remade bit for bit.
PyTorch's generator on the CPU, mt19937, reads 32 bits of a seed and no more: `2**32 + 1` and `1`
name one stream. That is why a seed is a whole number below 2**32. It also leaves no seed for the
other purposes: whatever number they passed to `manual_seed` would name some training's stream.
They set the generator's whole state instead, 19,968 bits of SHAKE-256 over purpose and seed. All
streams of mt19937 lie on one cycle of 2**19937 − 1 numbers; that two of n streams of m numbers
overlap anywhere has a probability of about n² · m / 2**19937, less than 10**-5900 for every stream
of every purpose and seed, each of 2**64 numbers. What could fail before that is SHAKE-256: a
collision of two of them takes about 2**256 attempts.
"""

import hashlib
import random
from enum import Enum
from typing import TYPE_CHECKING, Any

from echospan.validation import whole

if TYPE_CHECKING:
    import torch

SEEDS = 2**32
"""Seeds that a purpose has: 0 to 2**32 − 1, as many as PyTorch's generator tells apart."""


class Purpose(Enum):
    """What a random stream is for; no two purposes share a stream, whatever their seeds."""

    TRAINING = "training"
    """Initial weights, batches, delays and dropout: `torch.manual_seed(seed)`. Weights and batches
    both begin there; they always have, and the shipped models depend on it."""
    REPLICA = "replica"
    """What layers draw in processes after the first of a training; by rank."""
    LAYER_DRAWS = "layer draws"
    """What layers draw from Python's and NumPy's generators while they are trained; by rank."""
    TRIAL = "trial"
    """The steps that a copy of a layer is tried with before it is trained."""
    STOPPING = "stopping"
    """The evaluations that decide when a training has reached its target."""
    RATE = "rate"
    """The evaluations that decide which learning rate a profile goes on with."""
    RECALL = "recall"
    """Recall by delay, as it is reported."""
    SPAN = "span"
    """The span of a profile, as it is reported; by round."""
    STREAM = "stream"
    """Errors in unbroken streams, as they are reported."""
    LENGTHS = "lengths"
    """Recall in sequences longer than those of training, as it is reported; by length."""
    GRADER = "grader"
    """The strings of the assignment's graders, from Python's `random`."""
    LAYER = "layer"
    """Initial weights of a layer that is profiled or sized, before its training begins."""
    PROBE_WEIGHTS = "probe weights"
    """Initial weights of the probes of a profile."""
    PROBE_FITTING = "probe fitting"
    """What the probes of a profile are fitted on."""
    PROBE_RECALL = "probe recall"
    """What the probes of a profile are measured on."""
    GRADIENT = "gradient"
    """The sequences and directions of a profile's gradient horizon."""
    CAPACITY = "capacity"
    """The input of `memory_capacity`."""
    SELFTEST = "selftest"
    """The wrong answers of the self-test's models that answer wrongly on purpose."""
    EXPORT = "export"
    """The input on which an exported graph is compared with its model."""


def check_seed(seed: object, name: str = "seed") -> int:
    """Return `seed` as an int.

    Args:
        seed: A whole number from 0 to 2**32 − 1.
        name: The argument that it was given as, for the message.

    Raises:
        SettingError: For anything else.
    """
    return whole(name, seed, 0, SEEDS - 1)


def derived_bytes(purpose: Purpose, seed: int, part: int = 0, count: int = 32) -> bytes:
    """Return `count` bytes that belong to one purpose, seed and part alone."""
    named = f"echospan {purpose.value} {check_seed(seed)} {part}"
    return hashlib.shake_256(named.encode()).digest(count)


def generator(purpose: Purpose, seed: int, part: int = 0) -> "torch.Generator":
    """Return a generator on the CPU at the beginning of a stream.

    Args:
        purpose: What the stream is for.
        seed: A whole number from 0 to 2**32 − 1.
        part: Which of several streams of this purpose and seed, such as the number of a round.

    Raises:
        SettingError: For a seed that is out of range.
    """
    import torch

    made = torch.Generator().manual_seed(check_seed(seed))
    if purpose is not Purpose.TRAINING:
        state = made.get_state()
        words = bytearray(derived_bytes(purpose, seed, part, 4 * _WORDS))
        # A slot of 64 bits holds each word of 32; the position stays that of manual_seed.
        slots = state.view(torch.int64)[_FIRST_WORD : _FIRST_WORD + _WORDS]
        slots.copy_(torch.frombuffer(words, dtype=torch.uint32))
        made.set_state(state)
    return made


_WORDS, _FIRST_WORD = 624, 3
"""mt19937's state, and the slot of `torch.Generator.get_state()` at which it begins: a private
layout, which a test compares with another implementation of the generator."""


def training_generator(seed: int, device: "torch.device", rank: int = 0) -> "torch.Generator":
    """Return the generator of a training on a device: of `Purpose.TRAINING`, then `REPLICA`.

    Args:
        seed: A whole number from 0 to 2**32 − 1.
        device: The device on which it draws.
        rank: The number of the process, of those that train together.
    """
    import torch

    if rank and device.type == "cpu":
        return generator(Purpose.REPLICA, seed, rank)
    made = torch.Generator(device).manual_seed(check_seed(seed))
    if rank:
        # A CUDA generator is a function of 64 bits; those of trainings are below 2**32.
        made.manual_seed(int.from_bytes(derived_bytes(Purpose.REPLICA, seed, rank, 8)) | 2**63)
    return made


def layer_states(seed: int, rank: int = 0) -> tuple[Any, Any]:
    """Return where Python's and NumPy's generators begin for the layers of a training.

    Args:
        seed: A whole number from 0 to 2**32 − 1.
        rank: The number of the process, of those that train together.
    """
    import numpy as np

    words = derived_bytes(Purpose.LAYER_DRAWS, seed, 2 * rank + 1, 4 * _WORDS)
    numpy = ("MT19937", np.frombuffer(words, dtype=np.uint32), _WORDS, 0, 0.0)
    return python_random(Purpose.LAYER_DRAWS, seed, 2 * rank).getstate(), numpy


def python_random(purpose: Purpose, seed: int, part: int = 0) -> random.Random:
    """Return a generator of Python's `random` for a stream."""
    return random.Random(int.from_bytes(derived_bytes(purpose, seed, part)))
