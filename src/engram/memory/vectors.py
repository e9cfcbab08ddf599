"""Replays recorded numbers of the reference module through the real code, in float64 (`engramctl verify`).

Format: `compression` (one case), `hashing` and `fusion` (lists of cases); any of the three may be missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engram.memory.fusion import Fusion
from engram.memory.hashing import NgramHash
from engram.tokenizer.compression import canonical_ids

FLOAT_TOLERANCE = 1e-9
"""Largest absolute deviation of a float; ids and indices must be equal."""


@dataclass(frozen=True)
class Deviation:
    """How far one part of one case is from the recorded numbers."""

    part: str
    compared: int
    """Numbers compared."""
    largest: float
    exact: bool
    """Whether the part has to be equal."""

    @property
    def ok(self) -> bool:
        return self.largest == 0 if self.exact else self.largest <= FLOAT_TOLERANCE


def replay(vectors: Mapping[str, Any]) -> Iterator[Deviation]:
    """Deviations of every part of every case. KeyError, TypeError or ValueError where the format is broken."""
    if "compression" in vectors:
        yield from _compression(vectors["compression"])
    for i, case in enumerate(vectors.get("hashing", [])):
        yield from _hashing(f"hashing[{i}]", case)
    for i, case in enumerate(vectors.get("fusion", [])):
        yield from _fusion(f"fusion[{i}]", case)


def _compare(part: str, ours: Any, theirs: Any, exact: bool) -> Deviation:
    kind = np.int64 if exact else np.float64
    a, b = np.asarray(ours, dtype=kind), np.asarray(theirs, dtype=kind)
    if a.shape != b.shape:
        return Deviation(f"{part} (shape {a.shape}, recorded {b.shape})", 0, float("inf"), exact)
    largest = float(np.abs(a - b).max(initial=0))
    return Deviation(part, a.size, largest if np.isfinite(largest) else float("inf"), exact)


def _compression(case: Mapping[str, Any]) -> Iterator[Deviation]:
    ids, keys = canonical_ids(case["texts"], case["raw_tokens"])
    yield _compare("compression.canonical_ids", ids, case["canonical_ids"], exact=True)
    if "keys" in case:
        different = sum(ours != theirs for ours, theirs in zip(keys, case["keys"], strict=True))
        yield Deviation("compression.keys", len(keys), float(different), exact=True)


def _hashing(name: str, case: Mapping[str, Any]) -> Iterator[Deviation]:
    layers: Sequence[int] = case["layer_ids"]
    if len(case["table_size_per_order"]) != case["max_ngram"] - 1:
        raise ValueError(f"{name}: table_size_per_order must have max_ngram - 1 numbers")
    module = NgramHash(
        layers, case["table_size_per_order"], case["heads_per_order"], case["compressed_vocab_size"], case["pad_id"], case["seed"]
    )
    indices = module(torch.tensor(case["canonical_ids"], dtype=torch.int64))  # [layers, B, T, H]
    for i, layer in enumerate(layers):
        sizes = [rows for order in case["head_table_sizes"][str(layer)] for rows in order]
        yield _compare(f"{name}.multipliers[{layer}]", module.multipliers[i], case["multipliers"][str(layer)], exact=True)
        yield _compare(f"{name}.head_table_sizes[{layer}]", module.head_sizes[i], sizes, exact=True)
        yield _compare(f"{name}.indices[{layer}]", indices[i], case["indices"][str(layer)], exact=True)


def _fusion(name: str, case: Mapping[str, Any]) -> Iterator[Deviation]:
    epsilons = case["norm_eps"]
    module = Fusion(
        width=case["hidden_size"],
        branches=case["branches"],
        memory_dim=case["memory_dim"],
        conv_kernel=case["kernel_size"],
        conv_dilation=case["conv_dilation"],
        gate=case["gate"],
        bias=True,
        norm_eps=epsilons["query"],
        conv_eps=epsilons["conv"],
    ).double()
    module.key_norm.eps = epsilons["key"]
    weights = {
        "value.weight": "value_weight",
        "value.bias": "value_bias",
        "key_norm.weight": "key_norm",
        "query_norm.weight": "query_norm",
        "conv_norm.weight": "conv_norm",
        "conv.weight": "conv_weight",
    }
    state = {ours: _tensor(case[theirs]) for ours, theirs in weights.items()}
    state |= {"key.weight": _tensor(case["key_weight"]).flatten(0, 1), "key.bias": _tensor(case["key_bias"]).flatten()}
    try:
        module.load_state_dict(state)
    except RuntimeError as problem:
        raise ValueError(f"{name}: {' '.join(str(problem).split())}") from None
    memory, hidden = _tensor(case["memory"]), _tensor(case["hidden"])
    with torch.no_grad():
        yield _compare(f"{name}.gates", module.gates(memory, hidden), case["gates"], exact=False)
        yield _compare(f"{name}.output", module(memory, hidden), case["output"], exact=False)


def _tensor(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)
