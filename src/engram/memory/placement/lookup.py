"""Rows that come from elsewhere: asked for as soon as the tokens are known, waited for where they are used."""

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
    """What a pass reads from one set of tables."""

    ids: Tensor
    """int64 [U], distinct"""
    places: Tensor
    """int64 [B, T, H]: the place of each read among them"""


class Fetcher:
    """Fetches for the tables of one model; all work is done on its worker's thread.

    Args:
        tables: each with its rows elsewhere.
        hashing: of the tokens' canonical ids.
        compression: int64 [V], canonical id of every token.
        worker: whose thread uses the rows.
        prefetch: ask for rows ahead; if not, when they are used, and then wait.
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
        """Begin to fetch what the tokens int64 [B, T] read. They come from wherever they are; a training step has them on the CPU."""
        self.worker.check()
        return Request(self, self.hash.window(self.compression[tokens.cpu()], past))


class Request:
    """The rows of one pass, on their way.

    First all ids are hashed and repeated ones removed, and rows in files are read into RAM; that may be done while an update of the
    same rows is still to come. `fetch` then takes the copies: it is asked for after that update.
    """

    def __init__(self, fetcher: Fetcher, window: Tensor) -> None:
        self._fetcher, self._window = fetcher, window
        self._wanted: Future[list[Wanted]] | None = None
        self._rows: list[Future[Tensor]] | None = None
        if fetcher.ahead:
            self._wanted = fetcher.worker.ask(self._prepare)

    def fetch(self) -> "Request":
        """Take copies of the rows when all updates asked for so far are done. Does nothing the second time."""
        if self._fetcher.ahead:
            self._fetch()
        return self

    def vectors(self, number: int) -> Tensor:
        """Memory vectors [B, T, H r] of set `number` of the tables, on the device of its offsets; waits for them."""
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
            wanted = self._wanted  # is done before: jobs go in their order
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
