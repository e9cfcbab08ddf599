"""A safetensors file written piece by piece: no table of it has to be in memory.

The format: the length of the header as 8 bytes, little-endian; the header, JSON with type, shape and place of every tensor; their bytes.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

_ALIGNED = 8


def write_tensors(
    file: Path, whole: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], pieces: Iterable[tuple[str, Iterable[Tensor]]]
) -> None:
    """Write fp32 tensors.

    Args:
        file: the file.
        whole: tensors by name.
        shapes: shapes of those that come in pieces, by name.
        pieces: for each of them, in the order of `shapes`, its name and its pieces along the first dimension.
    """
    header, start = {}, 0
    for name, shape in [*((name, tuple(tensor.shape)) for name, tensor in whole.items()), *shapes.items()]:
        end = start + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for name, tensor in whole.items():
            _write(out, [tensor], tuple(tensor.shape), name)
        for (wanted, shape), (name, parts) in zip(shapes.items(), pieces, strict=True):
            if name != wanted:
                raise ValueError(f"pieces of {name} where those of {wanted} are expected")
            _write(out, parts, shape, name)


def _write(out: IO[bytes], parts: Iterable[Tensor], shape: tuple[int, ...], name: str) -> None:
    written = 0
    for part in parts:
        if part.dtype != torch.float32:
            raise TypeError(f"{name} is {part.dtype}, not fp32")
        written += out.write(part.detach().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes())
    if written != 4 * math.prod(shape):
        raise ValueError(f"{name} has {written} bytes, its shape {list(shape)} wants {4 * math.prod(shape)}")
