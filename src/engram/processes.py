"""The processes that train one trial together, and the messages between them.

All of them must call every method, in the same order. A single process sends nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

_AT_ONCE = 1 << 23
"""About how many numbers one message sums: enough to fill the wire, little compared with the gradients of a large model."""


class ProcessLostError(RuntimeError):
    """Another process of the trial has ended or stopped answering; the trial can continue from its checkpoint."""


@dataclass(frozen=True)
class Processes:
    """This process among those of `torch.distributed`'s default group."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where tensors must be to be sent: the CPU with gloo, a GPU with NCCL."""

    @classmethod
    def of_default_group(cls, device: torch.device) -> "Processes":
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what only one should write."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in place. All have one dtype; the sums are bitwise equal in every process."""
        if self.count == 1:
            return
        for group in _groups(tensors):
            flat = torch.cat([tensor.flatten() for tensor in group])
            with _together():
                dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in group])
            torch._foreach_copy_(list(group), [part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)])

    def exchange_counts(self, counts: Sequence[int]) -> list[int]:
        """Numbers of items to send to each process -> numbers of items to expect from each."""
        sent = torch.tensor(counts, device=self.device)
        received = torch.empty_like(sent)
        with _together():
            dist.all_to_all_single(received, sent)
            return [int(count) for count in received.tolist()]

    def exchange(self, rows: Tensor, counts: Sequence[int], expected: Sequence[int]) -> Tensor:
        """Send rows [n, ...], ordered by receiver; returns the rows received, ordered by sender.

        Args:
            rows: what is sent.
            counts: rows for each process.
            expected: rows from each process, as `exchange_counts` returns them.
        """
        received = rows.new_empty(sum(expected), *rows.shape[1:])
        with _together():
            dist.all_to_all_single(received, rows.contiguous(), list(expected), list(counts))
        return received

    def gather(self, tensor: Tensor) -> list[Tensor] | None:
        """The tensors of all processes, which have one shape, in the first process; None in the others."""
        tensor = tensor.contiguous()
        if self.count == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.count)] if self.first else None
        with _together():
            dist.gather(tensor, found)
        return found

    def gather_everywhere(self, tensor: Tensor) -> Tensor:
        """Concatenate tensors [n, ...] of one shape in the order of the processes: [count n, ...], in all of them."""
        if self.count == 1:
            return tensor
        tensor = tensor.to(self.device).contiguous()
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        with _together():
            dist.all_gather(found, tensor)
        return torch.cat(found)

    def of_first(self, number: int) -> int:
        """The number that the first process passed."""
        if self.count == 1:
            return number
        told = torch.tensor(int(number) if self.first else 0, device=self.device)
        self.sum([told])
        return int(told)

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self.of_first(0)


ALONE = Processes()


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as problem:
        raise ProcessLostError(f"another process of the trial does not answer: {str(problem).splitlines()[0]}") from problem


def _groups(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, in groups of at most `_AT_ONCE` numbers or of one tensor."""
    group: list[Tensor] = []
    numbers = 0
    for tensor in tensors:
        if group and numbers + tensor.numel() > _AT_ONCE:
            yield group
            group, numbers = [], 0
        group.append(tensor)
        numbers += tensor.numel()
    if group:
        yield group
