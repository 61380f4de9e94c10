"""Read files of safetensors, tensor by tensor, once it is known that what they hold is wanted.

The header says which tensors follow. A caller compares it with what it needs before anything is
read or allocated; then each tensor is read into its own memory, so that reading takes the memory of
the tensors and no more.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from echospan.storage.reading import OpenFile

LONGEST_HEADER = 8_000_000
"""Bytes: 80,000 tensors. JSON of that length takes at most some 200 MB of memory when parsed."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Spec:
    """Type and shape of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> "Spec":
        """Return the type and shape of a tensor."""
        return cls(tensor.dtype, tuple(tensor.shape))

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {list(self.shape)}"


class TensorFile:
    """A file of safetensors whose header has been read, and nothing after it.

    Attributes:
        specs: Types and shapes by name, in the order of the file.
        metadata: The texts of the header by name.
    """

    def __init__(self, file: OpenFile) -> None:
        """Read the header.

        Raises:
            ValueError: For what is no file of safetensors, or has anything beside its tensors.
            Changed: Where the file is cut meanwhile.
        """
        self._file, self._hash = file, hashlib.sha256()
        if file.size < 8:
            raise ValueError(f"it has {file.size} bytes")
        length = int.from_bytes(self._take(8), "little")
        if length > min(LONGEST_HEADER, file.size - 8):
            raise ValueError("its header is longer than it can be")
        try:
            header: Any = json.loads(self._take(length))
        except RecursionError:
            raise ValueError("its header is nested too deeply") from None
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        if not isinstance(self.metadata, dict) or not all(
            isinstance(value, str) for value in self.metadata.values()
        ):
            raise ValueError("its metadata are not texts by name")
        placed = sorted(
            (_place(name, entry) for name, entry in header.items()), key=lambda p: (p[1], p[2])
        )
        end = 0
        for name, start, stop, _ in placed:
            if start != end:
                raise ValueError(f"the tensors before {name} do not end where it starts")
            end = stop
        if end != file.size - 8 - length:
            raise ValueError(f"it has {file.size - 8 - length:,} bytes of tensors, not {end:,}")
        self.specs: dict[str, Spec] = {name: spec for name, _, _, spec in placed}

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        self._hash.update(data)
        return data

    @property
    def numel(self) -> int:
        """Number of elements of all tensors."""
        return sum(spec.numel for spec in self.specs.values())

    def read(self) -> tuple[dict[str, Tensor], str]:
        """Return all tensors, and the SHA-256 digest of the whole file.

        Raises:
            ValueError: For a bool that is neither 0 nor 1.
            MemoryError: Where the machine has too little memory for the tensors.
            Changed: Where the file changed since it was opened.
        """
        tensors: dict[str, Tensor] = {}
        for name, spec in self.specs.items():
            try:
                with torch.inference_mode(False):
                    tensor = torch.empty(spec.shape, dtype=spec.dtype, device="cpu")
            except RuntimeError as e:
                raise MemoryError(str(e)) from None
            if tensor.numel():
                view: memoryview = tensor.flatten().view(torch.uint8).numpy().data
                self._file.read_into(view)
                self._hash.update(view)
                if spec.dtype == torch.bool and tensor.view(torch.uint8).max() > 1:
                    raise ValueError(f"{name} holds what is neither true nor false")
            tensors[name] = tensor
        self._file.check_unchanged()
        return tensors, self._hash.hexdigest()


def _place(name: str, entry: Any) -> tuple[str, int, int, Spec]:
    """Return name, start and end of a tensor in the file, and its type and shape."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of {name} in its header is incomplete")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"the type of {name} is not known")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or len(shape) > 16:
        raise ValueError(f"the shape of {name} is none")
    spec = Spec(_DTYPES[dtype], tuple(shape))
    if offsets[1] - offsets[0] != spec.numel * spec.dtype.itemsize:
        raise ValueError(f"the shape of {name} does not fit its bytes")
    return name, offsets[0], offsets[1], spec


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def differences(found: Mapping[str, Spec], wanted: Mapping[str, Spec]) -> str:
    """Return in words the first difference between two sets of tensors; empty where they agree."""
    if missing := sorted(set(wanted) - set(found)):
        return f"{missing[0]} is missing"
    if unknown := sorted(set(found) - set(wanted)):
        return f"{unknown[0]:.60} is not a part of it"
    for name, spec in wanted.items():
        if found[name] != spec:
            return f"{name} is {found[name]}, not {spec}"
    return ""
