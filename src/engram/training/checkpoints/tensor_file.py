"""Writes a safetensors file piece by piece, so that no table has to be in memory.

The format: the length of the header in 8 bytes, little-endian; the header, JSON with type, shape and place of every tensor; the data.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import torch
from torch import Tensor

from engram.files import naming

_ALIGNED = 8
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}


class Form(NamedTuple):
    """Shape and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes."""
        return self.dtype.itemsize * math.prod(self.shape)


def write_tensors(
    file: Path, whole: Mapping[str, Tensor], forms: Mapping[str, Form], pieces: Iterable[tuple[str, Iterable[Tensor]]]
) -> None:
    """Write fp32 and bf16 tensors.

    Args:
        file: to write.
        whole: tensors by name.
        forms: of those that come in pieces, by name.
        pieces: for each of those, in the order of `forms`, its name and its pieces along the first dimension.

    Raises ValueError or TypeError when the pieces do not match `forms`.
    """
    of_whole = {name: Form(tuple(tensor.shape), tensor.dtype) for name, tensor in whole.items()}
    header, start = {}, 0
    for name, form in [*of_whole.items(), *forms.items()]:
        end = start + form.size
        header[name] = {"dtype": _TYPES[form.dtype], "shape": list(form.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    with naming(file), file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for name, tensor in whole.items():
            _write(out, [tensor], of_whole[name], name)
        for (wanted, form), (name, parts) in zip(forms.items(), pieces, strict=True):
            if name != wanted:
                raise ValueError(f"pieces of {name} where those of {wanted} are expected")
            _write(out, parts, form, name)


def _write(out: IO[bytes], parts: Iterable[Tensor], form: Form, name: str) -> None:
    written = 0
    for part in parts:
        if part.dtype != form.dtype:
            raise TypeError(f"{name} is {part.dtype}, not {form.dtype}")
        written += out.write(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    if written != form.size:
        raise ValueError(f"{name} has {written} bytes, its shape {list(form.shape)} wants {form.size}")
