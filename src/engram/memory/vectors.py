"""Replays recorded numbers of the reference module through the real code, in float64 (`engramctl verify`).

Format: `compression` (one case), `hashing` and `fusion` (lists of cases); any of the three may be missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engram.config import ModelConfig, MoEConfig, MultiHeadAttentionConfig
from engram.designs.engram import CONV_EPS, Engram
from engram.history import History
from engram.memory.fusion import gate_keys, gates
from engram.memory.hashing import NgramHash
from engram.memory.module import MemorySite
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
    config, epsilons = _model_of(name, case), case["norm_eps"]
    site = MemorySite(config).double()
    state = {ours: _tensor(case[theirs]) for ours, theirs in _RECORDED_WEIGHTS.items()}
    try:
        site.load_state_dict(state)
    except RuntimeError as problem:
        raise ValueError(f"{name}: {' '.join(str(problem).split())}") from None
    vectors, hidden = _tensor(case["memory"]), _tensor(case["hidden"])
    with torch.no_grad():
        alpha = gates(state, gate_keys(state, vectors), hidden, case["gate"], epsilons["query"])
        yield _compare(f"{name}.gates", alpha, case["gates"], exact=False)
        yield _compare(f"{name}.output", site(vectors, hidden, History()), case["output"], exact=False)


_RECORDED_WEIGHTS = {
    "key": "key_weight",
    "key_bias": "key_bias",
    "value": "value_weight",
    "value_bias": "value_bias",
    "key_norm": "key_norm",
    "query_norm": "query_norm",
    "conv_norm": "conv_norm",
    "conv": "conv_weight",
}


def _model_of(name: str, case: Mapping[str, Any]) -> ModelConfig:
    """The smallest model that has the recorded module in its only layer."""
    epsilons, orders = case["norm_eps"], case["conv_dilation"] - 1
    if epsilons["key"] != epsilons["query"] or epsilons["conv"] != CONV_EPS:
        raise ValueError(f"{name}: norm_eps are {epsilons}; key and query must be equal and conv {CONV_EPS}")
    memory = Engram(
        layers=(0,),
        table_sizes=(2,) * orders,
        n_heads=1,
        memory_dim=case["memory_dim"],
        gate=case["gate"],
        projection_bias=True,
        conv_kernel=case["kernel_size"],
    )
    width = case["hidden_size"]
    return ModelConfig(
        vocab_size=2,
        width=width,
        n_layers=1,
        branches=case["branches"],
        attention=MultiHeadAttentionConfig(n_heads=1, key_shift=False),
        moe=MoEConfig(n_routed_experts=0, top_k=0, expert_width=0, shared_width=0, n_dense_layers=1, dense_width=1),
        memory=memory,
        norm_eps=epsilons["query"],
    )


def _tensor(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)
