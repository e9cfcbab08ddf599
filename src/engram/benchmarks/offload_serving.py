"""`bench offload`, inference: throughput with the tables in RAM and on disk over that of the same model without a table.

The protocol is that of the paper's Table 4 (6.4): sequences of real text, lengths uniform in 100 - 1024, one memory layer, the second.
All cases hold the same dense weights, live in one process and take turns, pass by pass: a round is a pass, seconds long, so that a
machine that is slow for a while is slow for all of them.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engram.accounting import count_parameters, table_rows
from engram.benchmarks.machine import Machine, free_bytes
from engram.benchmarks.offload import file_bytes, generated_file, generated_ram, require_disk, with_rows
from engram.benchmarks.timing import Measured, Report, paired_interval
from engram.config import ModelConfig
from engram.corpus.dataset import Corpus
from engram.errors import UserError
from engram.history import History
from engram.memory.module import MemoryLookup
from engram.memory.placement.disk import DiskRows
from engram.memory.placement.engine import Traffic
from engram.memory.placement.formats import FORMATS
from engram.memory.placement.lookup import Request
from engram.memory.placement.rows import Rows
from engram.memory.placement.serving import ServedTables, serve
from engram.memory.tables import EmbeddingTables
from engram.model import Transformer
from engram.training_config import TrainConfig

SHORTEST, LONGEST = 100, 1024
"""Tokens of a sequence (paper, Table 4)"""
_PASS_TOKENS = 4096
_WARM_FILLS = 1.0
"""Times that a cache is filled before it counts as warm"""
_WARM_BATCH = 32
_NOWHERE = partial(EmbeddingTables, device="meta")
NO_MEMORY, NO_TABLE, RAM = "no memory", "no table", "RAM"


@dataclass(frozen=True)
class ServingSetup:
    """What is measured."""

    model: ModelConfig
    row_format: str
    caches: tuple[int, ...]
    """Bytes of RAM for hot rows, each a case; the first also cold, and without prefetch."""
    sequences: int
    folder: Path
    brief: bool = False
    """Without the cases that only explain: no memory at all, a cold cache, no prefetch."""
    lengths: tuple[int, ...] = ()
    """Rows of further tables, each a case on disk with the first of the caches: what does length cost?"""
    seed: int = 0


@dataclass(frozen=True)
class ServingCase:
    """A place for the tables and what it came to."""

    name: str
    tokens_per_s: Measured
    """Over the rounds"""
    ratio: Measured | None
    """Its throughput over that of the same model without a table: median over the passes and its 95 % interval; None for that one"""
    total_ratio: float | None
    """The same from the time of all passes together"""
    wait_share: float
    """Share of its time for which the model waited for rows"""
    cpu_share: float
    """Processor time of the tables' thread, as a share of that of all cores"""
    hit_rate: float | None
    """Of the cache, repeated rows of a pass counted once"""
    reads_per_token: float | None
    """Rows read from disk"""
    rows: int | None
    """Of its tables; None: it has none"""


@dataclass(frozen=True)
class ServingSpeed:
    """What `measure_serving` found."""

    machine: Machine
    p_active: int
    rows: int
    row_format: str
    table_bytes: int
    """Rows as they are stored, without what the file adds"""
    file_bytes: int
    sequences: int
    tokens: int
    rounds: int
    cases: list[ServingCase]
    left_out: dict[str, str]


Pass = tuple[Tensor, Tensor]
"""Tokens int64 [b, T], padded on the right, and the length of each sequence int64 [b]"""


class _NoTable(MemoryLookup):
    """In place of a lookup: the memory's dense part works on a vector that is there."""

    def request(self, tokens: Tensor, past: History | None = None) -> Request | None:
        return None

    def vectors(self, tokens: Tensor, past: History, request: Request | None = None) -> Callable[[int], Tensor]:
        return lambda site: torch.zeros(*tokens.shape, self.memory.memory_dim)


class _Case:
    """A model over a place for its tables."""

    def __init__(self, model: Transformer, lookup: MemoryLookup | None, served: ServedTables | None, cold: bool = False) -> None:
        self.model, self.lookup, self.served, self.cold = model, lookup, served, cold
        self.times: list[float] = []
        self._before: Traffic | None = None
        self._coming: Request | None = None

    def turn(self, batch: Pass, coming: Pass) -> float:
        """Seconds of a pass. The rows of the one after it are asked for while it computes, as its own were in the turn before."""
        if self.lookup is not None:
            self.model.lookup = self.lookup
        tokens, lengths = batch
        started = time.perf_counter()
        request = self._coming or self.model.request(tokens)
        if request is not None:
            request.fetch()
        self._coming = self.model.request(coming[0])
        hidden = self.model(tokens, request=request)  # [b, T, d]
        last = hidden[torch.arange(len(tokens)), lengths - 1]
        torch.nn.functional.linear(last, self.model.head_weight)
        return time.perf_counter() - started

    def begin(self) -> None:
        """What comes now counts."""
        if self.served is not None:
            self.served.worker.drain()
            self._before, self.served.worker.wait_s, self.served.worker.cpu_s = self.served.traffic, 0.0, 0.0

    @property
    def traffic(self) -> Traffic | None:
        now = None if self.served is None else self.served.traffic
        return None if now is None or self._before is None else now.since(self._before)

    @property
    def wait_s(self) -> float:
        return 0.0 if self.served is None else self.served.worker.wait_s

    @property
    def cpu_s(self) -> float:
        return 0.0 if self.served is None else self.served.worker.cpu_s


@torch.no_grad()
def measure_serving(setup: ServingSetup, corpus: Corpus, tell: Callable[[str], None], report: Report | None = None) -> ServingSpeed:
    """Measure all cases, in turn over the same sequences.

    Args:
        setup: what is measured; its files are removed.
        corpus: whose training text is read.
        tell: told in a line what disk it takes.
        report: told of the progress.
    """
    memory = setup.model.memory
    assert memory is not None
    longer = {length: with_rows(setup.model, length) for length in setup.lengths}
    on_disk = file_bytes(setup.model, setup.row_format)
    require_disk(setup.folder, on_disk + sum(file_bytes(model, setup.row_format) for model in longer.values()), tell)
    batches = list(passes(sequences(corpus, setup.sequences, setup.seed)))
    np.random.default_rng([setup.seed, 1]).shuffle(batches)  # short ones and long ones alike at any time
    path = setup.folder / "bench-offload.rows"
    files = [path]
    cases: dict[str, _Case] = {}
    try:
        spec = generated_file(path, setup.model, setup.row_format, report)
        lookups = _Lookups(setup.model, corpus)
        with_memory = Transformer(setup.model, *lookups.tokens, make_tables=_NOWHERE)
        with_memory.initialise(setup.seed)
        plain = Transformer(setup.model.model_copy(update={"memory": None}), *lookups.tokens)
        wanted = plain.state_dict().keys()
        plain.load_state_dict({name: x for name, x in with_memory.state_dict().items() if name in wanted}, assign=True)
        if not setup.brief:
            cases[NO_MEMORY] = _Case(plain.eval(), None, None)
        with_memory.eval()
        cases[NO_TABLE] = _Case(with_memory, _NoTable(memory, *lookups.tokens, make_tables=_NOWHERE), None)
        left_out = {}
        ram = spec.rows * spec.payload
        if ram > 0.8 * free_bytes(torch.device("cpu")):
            left_out[RAM] = f"the table takes {ram / 1e9:.3g} GB, {free_bytes(torch.device('cpu')) / 1e9:.3g} GB are free"
        else:
            cases[RAM] = lookups.case(with_memory, generated_ram(setup.model, setup.row_format))
        for number, cache in enumerate(setup.caches):
            name = f"disk, {cache / 2**20:.3g} MiB"
            for extra, warm, prefetch in (("", True, True), (", cold", False, True), (", no prefetch", True, False)):
                if not extra or (number == 0 and not setup.brief):
                    cases[name + extra] = lookups.case(with_memory, DiskRows(path, spec, cache), prefetch, cold=not warm)
                    if warm:
                        _warm(cases[name + extra], corpus, setup, report)
        for length, model in longer.items():
            files.append(setup.folder / f"bench-offload-{length}.rows")
            rows = DiskRows(files[-1], generated_file(files[-1], model, setup.row_format, report), setup.caches[0])
            case = cases[f"disk, {length:.0e} rows"] = lookups.case(with_memory, rows, model=model)
            _warm(case, corpus, setup, report)
        _measure(cases, batches, report)
        return _result(setup, cases, batches, on_disk, left_out)
    finally:
        for case in cases.values():
            if case.served is not None:
                case.served.close()
        cases.clear()
        gc.collect()
        for file in files:
            file.unlink(missing_ok=True)


def _measure(cases: dict[str, _Case], batches: list[Pass], report: Report | None) -> None:
    for case in cases.values():
        if not case.cold:  # the others have warmed up the model, and nothing may be in this one's cache
            case.turn(batches[-1], batches[0])
        case.begin()
    names = list(cases)
    for number, batch in enumerate(batches):
        if report is not None:
            report("measuring inference", number, len(batches))
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            cases[name].times.append(cases[name].turn(batch, batches[(number + 1) % len(batches)]))
    if report is not None:
        report("measuring inference", len(batches), len(batches))


def _result(setup: ServingSetup, cases: dict[str, _Case], batches: list[Pass], on_disk: int, left_out: dict[str, str]) -> ServingSpeed:
    assert setup.model.memory is not None
    tokens = [int(lengths.sum()) for _, lengths in batches]
    base = cases[NO_TABLE].times
    found = []
    for name, case in cases.items():
        traffic = case.traffic
        found.append(
            ServingCase(
                name=name,
                tokens_per_s=Measured.of([n / s for n, s in zip(tokens, case.times, strict=True)]),
                ratio=None if name == NO_TABLE else paired_interval(base, case.times),
                total_ratio=None if name == NO_TABLE else sum(base) / sum(case.times),
                wait_share=case.wait_s / sum(case.times),
                cpu_share=case.cpu_s / sum(case.times) / (os.cpu_count() or 1),
                hit_rate=None if traffic is None else traffic.hit_rate,
                reads_per_token=None if traffic is None else traffic.read / sum(tokens),
                rows=None if case.served is None or case.lookup is None else table_rows(case.lookup.memory),
            )
        )
    rows, row_dim = table_rows(setup.model.memory), setup.model.memory.row_dim
    return ServingSpeed(
        machine=Machine.of(TrainConfig(steps=1, batch_size=1, seq_len=8, learning_rate=1, precision="fp32"), torch.device("cpu")),
        p_active=count_parameters(setup.model).p_active,
        rows=rows,
        row_format=setup.row_format,
        table_bytes=rows * FORMATS[setup.row_format].row_bytes(row_dim),
        file_bytes=on_disk,
        sequences=setup.sequences,
        tokens=sum(tokens),
        rounds=len(batches),
        cases=found,
        left_out=left_out,
    )


class _Lookups:
    """Lookups of one model over tables in several places."""

    def __init__(self, model: ModelConfig, corpus: Corpus) -> None:
        self.model = model
        self.tokens = torch.from_numpy(np.array(corpus.compression)), corpus.end_of_text_id

    def case(self, dense: Transformer, rows: Rows, prefetch: bool = True, model: ModelConfig | None = None, cold: bool = False) -> _Case:
        """`dense` over these rows; `model` says which tables they are, if not those of all other cases."""
        memory = (model or self.model).memory
        assert memory is not None
        lookup = MemoryLookup(memory, *self.tokens, make_tables=_NOWHERE).eval()
        return _Case(dense, lookup, serve(lookup, [rows], prefetch), cold)


def sequences(corpus: Corpus, count: int, seed: int) -> list[np.ndarray]:
    """Pieces of the training text from its first half, lengths uniform in `SHORTEST` .. `LONGEST`; UserError when there is too little."""
    generator = np.random.default_rng([seed, 0])
    lengths = generator.integers(SHORTEST, LONGEST + 1, size=count)
    half = len(corpus.train) // 2
    if half < 4 * LONGEST:
        raise UserError(f"the training text has {len(corpus.train):,} tokens; at least {8 * LONGEST:,} are needed")
    starts = generator.integers(0, half - LONGEST, size=count)
    return [np.asarray(corpus.train[start : start + n]).astype(np.int64) for start, n in zip(starts, lengths, strict=True)]


def passes(texts: Sequence[np.ndarray]) -> Iterator[Pass]:
    """Sequences of like length together, `_PASS_TOKENS` or one sequence at a time."""
    waiting: list[np.ndarray] = []
    for text in sorted(texts, key=len):
        if waiting and len(text) * (len(waiting) + 1) > _PASS_TOKENS:
            yield _padded(waiting)
            waiting = []
        waiting.append(text)
    if waiting:
        yield _padded(waiting)


def _padded(texts: Sequence[np.ndarray]) -> Pass:
    lengths = torch.tensor([len(text) for text in texts])
    return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(text) for text in texts], batch_first=True), lengths


def _warm(case: _Case, corpus: Corpus, setup: ServingSetup, report: Report | None) -> None:
    """Read rows of other text, from the second half, until the cache has been filled or the text is over."""
    assert case.served is not None
    assert case.lookup is not None
    (rows,) = case.served.rows
    assert isinstance(rows, DiskRows)
    half = len(corpus.train) // 2
    at_once = _WARM_BATCH * LONGEST
    wanted = int(_WARM_FILLS * rows.engine.slots)
    for start in range(half, len(corpus.train) - at_once, at_once):
        if rows.traffic.read >= wanted:
            break
        if report is not None:
            report("warming the cache", min(rows.traffic.read, wanted), wanted)
        tokens = torch.from_numpy(np.asarray(corpus.train[start : start + at_once]).astype(np.int64)).view(_WARM_BATCH, LONGEST)
        assert case.lookup.fetcher is not None
        case.lookup.fetcher.request(tokens, History()).vectors(0)
    if report is not None:
        report("warming the cache", wanted, wanted)
