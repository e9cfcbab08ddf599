"""The processes that train one trial together, and what they tell each other.

Every method is called by all of them, in the same order. One process alone sends nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

_AT_ONCE = 1 << 23
"""Numbers that are summed in one message, about: enough to use the wire, little beside the gradients of a large model."""


class ProcessLostError(RuntimeError):
    """Another process of the trial ended or no longer answers; the trial can go on from its checkpoint."""


@dataclass(frozen=True)
class Processes:
    """This process among those of `torch.distributed`'s default group."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where tensors lie when they are sent: the CPU with gloo, a GPU with NCCL."""

    @classmethod
    def of_default_group(cls, device: torch.device) -> "Processes":
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def first(self) -> bool:
        """Whether this one writes what is written once."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes; they have one dtype. The sums are the same to the bit everywhere."""
        if self.count == 1:
            return
        for group in _groups(tensors):
            flat = torch.cat([tensor.flatten() for tensor in group])
            with _together():
                dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in group])
            torch._foreach_copy_(list(group), [part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)])

    def exchange_counts(self, counts: Sequence[int]) -> list[int]:
        """How many things go to each process -> how many come from each."""
        sent = torch.tensor(counts, device=self.device)
        received = torch.empty_like(sent)
        with _together():
            dist.all_to_all_single(received, sent)
            return [int(count) for count in received.tolist()]

    def exchange(self, rows: Tensor, counts: Sequence[int], expected: Sequence[int]) -> Tensor:
        """Rows [n, ...] in the order of the processes that they go to -> those that come, in the order of their senders.

        Args:
            rows: what is sent.
            counts: rows to each process.
            expected: rows from each process (`exchange_counts`).
        """
        received = rows.new_empty(sum(expected), *rows.shape[1:])
        with _together():
            dist.all_to_all_single(received, rows.contiguous(), list(expected), list(counts))
        return received

    def gather(self, tensor: Tensor) -> list[Tensor] | None:
        """The tensors of all processes, of one shape, in the first; None in the others."""
        tensor = tensor.contiguous()
        if self.count == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.count)] if self.first else None
        with _together():
            dist.gather(tensor, found)
        return found

    def gather_everywhere(self, tensor: Tensor) -> Tensor:
        """Tensors [n, ...] of one shape, one after the other in the order of the processes: [count n, ...]."""
        if self.count == 1:
            return tensor
        tensor = tensor.to(self.device).contiguous()
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        with _together():
            dist.all_gather(found, tensor)
        return torch.cat(found)

    def of_first(self, number: int) -> int:
        """The first process's number."""
        if self.count == 1:
            return number
        told = torch.tensor(int(number) if self.first else 0, device=self.device)
        self.sum([told])
        return int(told)

    def wait(self) -> None:
        """Go on when all have come here."""
        self.of_first(0)


ALONE = Processes()


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as problem:
        raise ProcessLostError(f"another process of the trial does not answer: {str(problem).splitlines()[0]}") from problem


def _groups(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, `_AT_ONCE` numbers or one tensor at a time."""
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
