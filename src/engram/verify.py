"""Replays recorded numbers of the reference module through the real code, in float64.

Format: `compression` (one case), `hashing` and `fusion` (lists of cases); any of the three may be missing. docs/verify.md lists the
fields of a case.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from engram.config.errors import explain
from engram.errors import UserError
from engram.history import History
from engram.memory.designs.base import Backbone
from engram.memory.designs.engram import CONV_EPS, Engram
from engram.memory.fusion import gate_keys, gates
from engram.memory.hashing import NgramHash
from engram.memory.site import MemorySite
from engram.tokenizer.compression import canonical_ids

FLOAT_TOLERANCE = 1e-9
"""Largest absolute deviation of a float; ids and indices must be equal."""
_LARGEST_TABLE, _MOST = 2**48, 4096
"""Bounds that keep a mistyped number from occupying the machine: rows of a table; heads, branches, taps and the like."""

_GATES: tuple[Literal["plain", "signed_sqrt"], ...] = ("plain", "signed_sqrt")

T = TypeVar("T")


@dataclass(frozen=True)
class Deviation:
    """How far one part of one case is from the recorded numbers."""

    part: str
    compared: int
    """Numbers compared."""
    largest: float
    """Largest absolute deviation; infinite where the shapes differ or a number is NaN."""
    exact: bool
    """Whether the part has to be equal."""

    @property
    def ok(self) -> bool:
        return self.largest == 0 if self.exact else self.largest <= FLOAT_TOLERANCE


def replay(vectors: Mapping[str, Any]) -> Iterator[Deviation]:
    """Deviations of every part of every case; UserError names the case and the field where the format is broken.

    Recorded results of another shape are no break of the format but a deviation.
    """
    if "compression" in vectors:
        yield from _compression(_Case("compression", vectors["compression"]))
    for kind, run in (("hashing", _hashing), ("fusion", _fusion)):
        cases = vectors.get(kind, [])
        if not isinstance(cases, list):
            raise UserError(f"{kind} is {_short(cases)}; it must be a list of cases")
        for i, case in enumerate(cases):
            yield from run(_Case(f"{kind}[{i}]", case))


class _Case:
    """The fields of one case; what is wrong with one becomes a UserError in one line."""

    def __init__(self, name: str, values: Any, within: str = "") -> None:
        if not isinstance(values, dict):
            raise UserError(f"{name}{': ' + within if within else ''} is {_short(values)}; it must be an object")
        self.name, self._values, self._within = name, values, f"{within}." if within else ""

    def __contains__(self, field: str) -> bool:
        return field in self._values

    def wrong(self, field: str, must: str) -> UserError:
        return UserError(f"{self.name}: {self._within}{field} is {_short(self._values[field])}; it must be {must}")

    def get(self, field: str) -> Any:
        if field not in self._values:
            raise UserError(f"{self.name}: {self._within}{field} is missing")
        return self._values[field]

    def inside(self, field: str) -> "_Case":
        return _Case(self.name, self.get(field), self._within + field)

    def whole(self, field: str, least: int, most: int = _MOST) -> int:
        value = self.get(field)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(field, f"a whole number from {least} to {most}")
        return value

    def wholes(self, field: str, least: int, most: int) -> list[int]:
        """A list of at least one number."""
        values = self.get(field)
        if not isinstance(values, list) or not values or not all(type(n) is int and least <= n <= most for n in values):
            raise self.wrong(field, f"a list of whole numbers from {least} to {most}")
        return values

    def positive(self, field: str) -> float:
        value = self.get(field)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.wrong(field, "a number above 0")
        return float(value)

    def one_of(self, field: str, choices: tuple[T, ...]) -> T:
        value = self.get(field)
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(field, " or ".join(map(str, choices)))
        return choices[choices.index(value)]

    def strings(self, field: str, count: int | None = None) -> list[str]:
        values = self.get(field)
        if not isinstance(values, list) or not all(isinstance(text, str) and _is_unicode(text) for text in values):
            raise self.wrong(field, "a list of strings")
        if count is not None and len(values) != count:
            raise UserError(f"{self.name}: {self._within}{field} has {len(values)} strings; it must have {count}")
        return values

    def array(self, field: str, kind: type[np.int64] | type[np.float64], shape: tuple[int | None, ...] | None = None) -> np.ndarray:
        """Nested lists as an array.

        Args:
            field: where they stand.
            kind: type of the numbers; whole numbers are taken for floats too.
            shape: that they must have, None for a dimension of any length; None: any shape.
        """
        value, what = self.get(field), "whole numbers" if kind is np.int64 else "numbers"
        try:
            found = np.array(value)
        except ValueError:  # ragged, or nested too deeply
            raise self.wrong(field, f"lists of {what} of equal length") from None
        if found.dtype.kind not in ("i" if kind is np.int64 else "if"):
            raise self.wrong(field, f"lists of {what}")
        if shape is not None and (
            found.ndim != len(shape) or any(one not in (None, other) for one, other in zip(shape, found.shape, strict=True))
        ):
            expected = ", ".join("any" if length is None else str(length) for length in shape)
            raise UserError(f"{self.name}: {self._within}{field} has shape {list(found.shape)}; it must be [{expected}]")
        return found.astype(kind)

    def tensor(self, field: str, shape: tuple[int | None, ...]) -> Tensor:
        return torch.from_numpy(self.array(field, np.float64, shape))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _compare(part: str, ours: np.ndarray | Tensor, theirs: np.ndarray, exact: bool) -> Deviation:
    kind = np.int64 if exact else np.float64
    a, b = np.asarray(ours, dtype=kind), np.asarray(theirs, dtype=kind)
    if a.shape != b.shape:
        return Deviation(f"{part} (shape {a.shape}, recorded {b.shape})", 0, float("inf"), exact)
    largest = float(np.abs(a - b).max(initial=0))
    return Deviation(part, a.size, largest if np.isfinite(largest) else float("inf"), exact)


def _compression(case: _Case) -> Iterator[Deviation]:
    texts = case.strings("texts")
    ids, keys = canonical_ids(texts, case.strings("raw_tokens", len(texts)))
    yield _compare("compression.canonical_ids", ids, case.array("canonical_ids", np.int64), exact=True)
    if "keys" in case:
        different = sum(ours != theirs for ours, theirs in zip(keys, case.strings("keys", len(keys)), strict=True))
        yield Deviation("compression.keys", len(keys), float(different), exact=True)


def _hashing(case: _Case) -> Iterator[Deviation]:
    layers = case.wholes("layer_ids", 0, 10**6)
    orders = case.whole("max_ngram", 2) - 1
    sizes = case.wholes("table_size_per_order", 2, _LARGEST_TABLE)
    if len(sizes) != orders:
        raise case.wrong("table_size_per_order", f"{orders} numbers, max_ngram - 1")
    module = NgramHash(
        layers,
        sizes,
        case.whole("heads_per_order", 1),
        case.whole("compressed_vocab_size", 1, 2**62),
        case.whole("pad_id", 0, 2**62),
        case.whole("seed", 0, 2**62),
    )
    indices = module(torch.from_numpy(case.array("canonical_ids", np.int64, (None, None))))  # [layers, B, T, H]
    for i, layer in enumerate(layers):
        recorded = case.inside("head_table_sizes").array(str(layer), np.int64, (None, None)).ravel()
        yield _compare(f"{case.name}.multipliers[{layer}]", module.multipliers[i], _of_layer(case, "multipliers", layer), exact=True)
        yield _compare(f"{case.name}.head_table_sizes[{layer}]", module.head_sizes[i], recorded, exact=True)
        yield _compare(f"{case.name}.indices[{layer}]", indices[i], _of_layer(case, "indices", layer), exact=True)


def _of_layer(case: _Case, field: str, layer: int) -> np.ndarray:
    return case.inside(field).array(str(layer), np.int64)


def _fusion(case: _Case) -> Iterator[Deviation]:
    memory, backbone = _module_of(case)
    state = {ours: case.tensor(_RECORDED_WEIGHTS[ours], weight.shape) for ours, weight in memory.weights(backbone).items()}
    vectors = case.tensor("memory", (None, None, memory.memory_dim))
    hidden = case.tensor("hidden", (*vectors.shape[:2], backbone.branches, backbone.width))
    site = MemorySite(memory, backbone).double()
    site.load_state_dict(state)
    with torch.no_grad():
        assert memory.gate != "none"
        alpha = gates(state, gate_keys(state, vectors), hidden, memory.gate, backbone.norm_eps)
        yield _compare(f"{case.name}.gates", alpha, case.array("gates", np.float64), exact=False)
        yield _compare(f"{case.name}.output", site(vectors, hidden, History()), case.array("output", np.float64), exact=False)


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


def _module_of(case: _Case) -> tuple[Engram, Backbone]:
    """The recorded module, and a model of one layer around it."""
    norm_eps = case.inside("norm_eps")
    epsilons = {name: norm_eps.positive(name) for name in ("query", "key", "conv")}
    if epsilons["key"] != epsilons["query"] or epsilons["conv"] != CONV_EPS:
        raise case.wrong("norm_eps", f"equal for query and key, and {CONV_EPS} for conv")
    try:
        memory = Engram(
            layers=(0,),
            table_sizes=(2,) * (case.whole("conv_dilation", 2) - 1),
            n_heads=1,
            memory_dim=case.whole("memory_dim", 1, 2**20),
            gate=case.one_of("gate", _GATES),
            projection_bias=True,
            conv_kernel=case.whole("kernel_size", 1),
        )
    except ValidationError as problem:
        raise UserError(f"{case.name}: {explain(problem)}") from None
    width, branches = case.whole("hidden_size", 1, 2**20), case.whole("branches", 1)
    return memory, Backbone(width, n_layers=1, branches=branches, values_width=width, norm_eps=epsilons["query"], residual_scale=1.0)
