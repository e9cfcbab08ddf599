"""One dense model over memory tables in several places, one at a time."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from engram.benchmarks.offload_text import Pass, other_text
from engram.benchmarks.timing import Report
from engram.config.model import ModelConfig
from engram.corpus.dataset import Corpus
from engram.history import History
from engram.memory.designs.base import Memory
from engram.memory.lookup import MemoryLookup
from engram.memory.placement.disk import DiskRows
from engram.memory.placement.engine import Traffic
from engram.memory.placement.fetcher import Request
from engram.memory.placement.rows import Rows
from engram.memory.placement.serving import ServedTables, serve
from engram.memory.tables import EmbeddingTables
from engram.model import Transformer

_WARM_FILLS = 1.0
"""Times that a cache is filled before it counts as warm."""
_NOWHERE = partial(EmbeddingTables, device="meta")


class PlacedModel:
    """A model with its tables in one place; several share one `model`, whose lookup each sets when it is its turn.

    Args:
        model: the dense weights.
        lookup: of the memory; None: the model has none.
        served: the tables; None: there are none to read from.
        cold: whether its cache must be empty when measuring begins.
    """

    def __init__(
        self, model: Transformer, lookup: MemoryLookup | None = None, served: ServedTables | None = None, cold: bool = False
    ) -> None:
        self.model, self.lookup, self.served, self.cold = model, lookup, served, cold
        self.times: list[float] = []
        self._before: Traffic | None = None
        self._coming: Request | None = None

    def turn(self, batch: Pass, coming: Pass) -> float:
        """Seconds of a pass. The rows of the next one are requested while it computes, as its own were in the turn before."""
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

    def warm(self, corpus: Corpus, report: Report | None) -> None:
        """Read rows of text that is not measured until the cache has been filled or the text ends. For tables on disk."""
        assert self.served is not None
        assert self.lookup is not None
        assert self.lookup.fetcher is not None
        (rows,) = self.served.rows
        assert isinstance(rows, DiskRows)
        wanted = int(_WARM_FILLS * rows.engine.slots)
        for tokens in other_text(corpus):
            if rows.traffic.read >= wanted:
                break
            if report is not None:
                report("warming the cache", min(rows.traffic.read, wanted), wanted)
            self.lookup.fetcher.request(tokens, History()).vectors(0)
        if report is not None:
            report("warming the cache", wanted, wanted)

    def begin(self) -> None:
        """Start counting: what was read and waited for until now is left out."""
        if self.served is not None:
            self.served.worker.drain()
            self._before, self.served.worker.wait_s, self.served.worker.cpu_s = self.served.traffic, 0.0, 0.0

    @property
    def traffic(self) -> Traffic | None:
        """Rows read since `begin`; None without tables on disk."""
        now = None if self.served is None else self.served.traffic
        return None if now is None or self._before is None else now.since(self._before)

    @property
    def wait_s(self) -> float:
        return 0.0 if self.served is None else self.served.worker.wait_s

    @property
    def cpu_s(self) -> float:
        return 0.0 if self.served is None else self.served.worker.cpu_s


class _NoTable(MemoryLookup):
    """A lookup that gives zeros, so that the memory's dense part has a vector to work on."""

    def request(self, tokens: Tensor, past: History | None = None) -> Request | None:
        return None

    def vectors(self, tokens: Tensor, past: History, request: Request | None = None) -> Callable[[int], Tensor]:
        return lambda site: torch.zeros(*tokens.shape, self.memory.memory_dim)


class ModelsInPlaces:
    """Makes `PlacedModel`s of one config, all with the same dense weights.

    Args:
        config: with a memory.
        corpus: whose tokens the models read.
        seed: of the weights.
    """

    def __init__(self, config: ModelConfig, corpus: Corpus, seed: int) -> None:
        assert config.memory is not None
        self.memory = config.memory
        self._compression, self._end_of_text = torch.from_numpy(np.array(corpus.compression)), corpus.end_of_text_id
        self._model = Transformer(config, self._compression, self._end_of_text, make_tables=_NOWHERE)
        self._model.initialise(seed)
        self._plain = Transformer(config.model_copy(update={"memory": None}), self._compression, self._end_of_text)
        wanted = self._plain.state_dict().keys()
        self._plain.load_state_dict({name: x for name, x in self._model.state_dict().items() if name in wanted}, assign=True)
        self._plain.eval()
        self._model.eval()

    def without_memory(self) -> PlacedModel:
        """No memory at all."""
        return PlacedModel(self._plain)

    def without_table(self) -> PlacedModel:
        """The memory's dense part, and no table to read from."""
        return PlacedModel(self._model, _NoTable(self.memory, self._compression, self._end_of_text, make_tables=_NOWHERE))

    def over(self, rows: Rows, prefetch: bool = True, cold: bool = False, memory: Memory | None = None) -> PlacedModel:
        """Over these rows; `memory` says which tables they are, if not those of the config."""
        lookup = MemoryLookup(memory or self.memory, self._compression, self._end_of_text, make_tables=_NOWHERE).eval()
        return PlacedModel(self._model, lookup, serve(lookup, [rows], prefetch), cold)
