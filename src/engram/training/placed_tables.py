"""Memory tables that are kept outside the model while it is trained: in host RAM, or in files beside the checkpoints."""

from dataclasses import dataclass
from pathlib import Path

from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.errors import UserError
from engram.memory.placement.disk import DiskRows, create_rows
from engram.memory.placement.engine import Traffic
from engram.memory.placement.formats import FORMATS
from engram.memory.placement.layout import SECTOR, RowLayout
from engram.memory.placement.row_file import RowSpec
from engram.memory.placement.rows import HostRows
from engram.memory.placement.settings import TablePlacement
from engram.memory.placement.worker import Worker
from engram.memory.tables import EmbeddingTables
from engram.model import Transformer
from engram.scaling.accounting import table_rows
from engram.training.checkpoints.files import TABLES, Streams
from engram.training.checkpoints.tensor_file import Form
from engram.training.optimizers.combined import row_rule
from engram.training.optimizers.row_optimizer import RowOptimizer


@dataclass(frozen=True)
class TableCost:
    """What tables outside the model have cost a training process so far."""

    wait_s: float
    """Time that steps spent waiting for rows."""
    traffic: Traffic | None
    """Of all tables on disk; None without any."""

    def since(self, before: "TableCost") -> "TableCost":
        spent = None if self.traffic is None or before.traffic is None else self.traffic.since(before.traffic)
        return TableCost(self.wait_s - before.wait_s, spent)


class PlacedTables:
    """Keeps the rows of a model's tables where `placement` says. `flush` before and call `committed` after every checkpoint.

    Args:
        model: for `disk`, with its tables on the meta device.
        optimizer: of the tables' rows.
        placement: host or disk.
        folder: the trial's checkpoints; table files go into a folder below it.
        trial: id of the trial; files of another trial are refused.
        row_format: fp32 or bf16.
    """

    def __init__(
        self, model: Transformer, optimizer: RowOptimizer, placement: TablePlacement, folder: Path, trial: str, row_format: str
    ) -> None:
        self.model, self.optimizer, self.placement, self.trial, self.row_format = model, optimizer, placement, trial, row_format
        self.folder = folder / TABLES
        self.worker = Worker()
        self._disk: dict[str, DiskRows] = {}

    def open(self, step: int, seed: int, checkpointed: bool) -> None:
        """Begin to use the tables, as they were at `step`.

        Args:
            step: of the last checkpoint; 0 before the first.
            seed: of the rows' initial values.
            checkpointed: whether there is a checkpoint; if not, files that can't be taken back to the start are written anew.

        Raises UserError when a table file is missing, damaged or of another trial.
        """
        try:
            for name, table in self.model.named_tables().items():
                if self.placement.kind == "host":
                    table.move_out(HostRows(table.weight, list(self.optimizer.state[name].values())), self.worker)
                else:
                    self._disk[name] = self._open_file(name, table, step, seed, checkpointed)
                    table.move_out(self._disk[name], self.worker)
        except BaseException:
            self.close()
            raise
        assert self.model.lookup is not None
        self.model.lookup.move_out(self.worker, self.placement.prefetch)

    def flush(self) -> None:
        """Bring everything that steps have changed to the disk. To be called before a checkpoint is written."""
        self.worker.drain()
        for rows in self._disk.values():
            rows.engine.flush()

    def committed(self, step: int) -> None:
        """Note that the checkpoint of `step` is complete: from now on it is the one that tables return to."""
        for rows in self._disk.values():
            rows.journal.begin(step)

    def streams(self) -> Streams:
        """The tables on disk, for the final checkpoint."""
        self.flush()
        dtype = FORMATS[self.row_format].dtype
        return {
            f"{name}.weight": (Form((rows.spec.rows, rows.spec.row_dim), dtype), (piece.to(dtype) for piece in rows.passes()))
            for name, rows in self._disk.items()
        }

    @property
    def cost(self) -> TableCost:
        return TableCost(self.worker.wait_s, Traffic.sum(rows.traffic for rows in self._disk.values()))

    @property
    def overflows(self) -> bool:
        """Whether the tables on disk are larger than their cache, so that rows have to leave before others can come in."""
        return any(rows.engine.slots < rows.spec.rows for rows in self._disk.values())

    def close(self) -> None:
        """End the background work; what came after the last checkpoint is lost."""
        self.worker.close()
        for rows in self._disk.values():
            rows.close()

    def _open_file(self, name: str, table: EmbeddingTables, step: int, seed: int, checkpointed: bool) -> DiskRows:
        rows, row_dim = table.weight.shape
        state = tuple(self.optimizer.rule.state_dims(row_dim).values())
        spec = RowSpec(f"{self.trial}/{name}", rows, row_dim, self.row_format, sum(state))
        path = self.folder / f"{name}.rows"
        cache_bytes = self.placement.cache_bytes // len(self.model.named_tables())
        if path.exists():
            try:
                return self._recovered(DiskRows(path, spec, cache_bytes, state), step)
            except UserError:
                if checkpointed:
                    raise
        elif checkpointed:
            raise UserError(f"{path} is missing: the checkpoint beside it has its tables there; remove {self.folder.parent} to train anew")
        if path.exists():
            for old in self.folder.glob(f"{path.name}*"):
                old.unlink()
        create_rows(path, spec, (piece for _, piece in self.model.table_start(seed, name)))
        return self._recovered(DiskRows(path, spec, cache_bytes, state), step)

    def _recovered(self, rows: DiskRows, step: int) -> DiskRows:
        try:
            rows.journal.recover(step)
            rows.journal.begin(step)
        except BaseException:
            rows.close()
            raise
        return rows


def training_bytes(model: ModelConfig, train: TrainConfig) -> int:
    """Bytes of disk that the tables of a model take while it is trained, without journals; 0 without a memory."""
    memory = model.memory
    if memory is None:
        return 0
    state = sum(row_rule(train).state_dims(memory.row_dim).values())
    payload = FORMATS[train.table_format].row_bytes(memory.row_dim) + 4 * state
    rows = table_rows(memory) // len(memory.table_layers)
    return len(memory.table_layers) * RowLayout(rows, payload, SECTOR, True, 0).size
