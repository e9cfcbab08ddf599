"""Fetches rows from outside the model: asked for as soon as the tokens are known, waited for where they are used."""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from engram.history import History
from engram.memory.hashing import NgramHash
from engram.memory.placement.rows import Rows
from engram.memory.placement.worker import Worker
from engram.memory.tables import EmbeddingTables, distinct_rows


@dataclass(frozen=True)
class Wanted:
    """What one pass reads from one set of tables."""

    ids: Tensor
    """Distinct, int64 [U]."""
    places: Tensor
    """Place of each read among them, int64 [B, T, H]."""


class Fetcher:
    """Fetches rows for the tables of one model; its worker's thread does all the work.

    Args:
        tables: each with its rows outside the module.
        hashing: of canonical ids.
        compression: int64 [V], canonical id of every token.
        worker: the only one to use the rows.
        prefetch: whether to ask for rows ahead; if not, they are asked for when they are used, and waited for.
    """

    def __init__(self, tables: Sequence[EmbeddingTables], hashing: NgramHash, compression: Tensor, worker: Worker, prefetch: bool) -> None:
        self.tables, self.worker, self.ahead = tables, worker, prefetch
        self.hash, self.compression = copy.deepcopy(hashing).cpu(), compression.cpu()
        self.offsets = [table.offsets.cpu() for table in tables]

    def rows(self, number: int) -> Rows:
        rows = self.tables[number].rows
        assert rows is not None
        return rows

    def request(self, tokens: Tensor, past: History) -> "Request":
        """Begin to fetch what the tokens int64 [B, T] read. The tokens may be on any device; in a training step they are on the CPU."""
        self.worker.check()
        return Request(self, self.hash.window(self.compression[tokens.cpu()], past))


class Request:
    """The rows of one pass, being fetched.

    First all tokens are hashed, repeated ids are removed, and rows in files are read into RAM; an update of the same rows may still be
    pending then. `fetch` takes the copies, and must be called after that update has been asked for.
    """

    def __init__(self, fetcher: Fetcher, window: Tensor) -> None:
        self._fetcher, self._window = fetcher, window
        self._wanted: Future[list[Wanted]] | None = None
        self._rows: list[Future[Tensor]] | None = None
        if fetcher.ahead:
            self._wanted = fetcher.worker.ask(self._prepare)

    def fetch(self) -> "Request":
        """Take copies of the rows once all updates asked for so far are done. A second call does nothing."""
        if self._fetcher.ahead:
            self._fetch()
        return self

    def vectors(self, number: int) -> Tensor:
        """Memory vectors [B, T, H r] of set `number` of the tables, on the device of the module's offsets; waits for the rows."""
        futures, worker, table = self._fetch(), self._fetcher.worker, self._fetcher.tables[number]
        assert self._wanted is not None
        rows, wanted = worker.result(futures[number]), self._wanted.result()[number]
        device = table.offsets.device
        if device.type != "cpu":
            rows = rows.pin_memory().to(device, non_blocking=True)
        return table.vectors(wanted.ids, wanted.places.to(device, non_blocking=True), rows)

    def _fetch(self) -> list[Future[Tensor]]:
        if self._wanted is None:
            self._wanted = self._fetcher.worker.ask(self._prepare)
        if self._rows is None:
            wanted = self._wanted  # done before the reads: jobs run in order
            jobs: list[Callable[[], Tensor]] = [partial(self._read, wanted, i) for i in range(len(self._fetcher.tables))]
            self._rows = [self._fetcher.worker.ask(job) for job in jobs]
        return self._rows

    def _read(self, wanted: Future[list[Wanted]], number: int) -> Tensor:
        return self._fetcher.rows(number).read(wanted.result()[number].ids)

    def _prepare(self) -> list[Wanted]:
        indices = self._fetcher.hash.indices(self._window)  # [sets, B, T, H]
        found = []
        for number, offsets in enumerate(self._fetcher.offsets):
            wanted = Wanted(*distinct_rows(indices[number] + offsets))
            self._fetcher.rows(number).prefetch(wanted.ids)
            found.append(wanted)
        return found
