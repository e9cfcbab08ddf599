"""One step of training on one batch: passes, sums over the processes, clipping, all optimisers, balancing of the experts.

On a GPU the whole step is captured as one graph: its thousands of kernels then start without the host. The step is the same function with
and without.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engram.kernels import gpu
from engram.kernels.gpu.casts import once_a_step
from engram.memory.placement.fetcher import Request
from engram.model import Transformer
from engram.model.moe import balance
from engram.processes import Processes
from engram.training.optimizers.combined import Optimizers
from engram.training.optimizers.scalars import StepScalars
from engram.training.replicas import sum_step
from engram.training.upload import Upload

WARM_UP = 2
"""Steps before the capture: they compile kernels and make the optimisers' state."""


def autocast(device: torch.device, precision: Literal["bf16", "fp32"]) -> torch.autocast:
    """The autocast of training and validation."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class TrainStep:
    """A step of `model`.

    Args:
        model: in training mode.
        optimizers: its optimisers.
        batch_size: sequences of the whole batch, over all processes and passes (B).
        precision: of the matrix products.
        processes: those that train the model together.
    """

    def __init__(
        self, model: Transformer, optimizers: Optimizers, batch_size: int, precision: Literal["bf16", "fp32"], processes: Processes
    ) -> None:
        self.model, self.optimizers, self.batch_size, self.precision, self.processes = model, optimizers, batch_size, precision, processes
        self.device = next(model.parameters()).device
        self._multiplied = list(model.multiplied())

    def run(self, passes: Iterable[tuple[Tensor, Request | None]], scalars: StepScalars) -> Tensor:
        """Take the step.

        Args:
            passes: tokens int64 [b, T + 1] on the model's device, and the request for their memory rows.
            scalars: of this step (`Optimizers.prepare`).

        Returns the loss, in nats, and the gradient norm before clipping: fp32 [2].
        """
        loss = torch.zeros((), device=self.device)
        with self._casts():
            for tokens, request in passes:
                with autocast(self.device, self.precision):
                    share = self.model.loss(tokens[:, :-1], tokens[:, 1:], request) * (len(tokens) / self.batch_size)
                share.backward()
                loss += share.detach()
        routers = list(self.model.routers())
        sum_step(self.model, [loss, *(router.load for router in routers)], self.processes)
        norm = self.optimizers.apply(scalars)
        balance(routers)
        return torch.stack([loss, norm])

    def _casts(self) -> AbstractContextManager[object]:
        """Copies of the weights in the dtype of products, until the optimisers change them."""
        if self.precision != "bf16" or not gpu.usable(self._multiplied[0]):
            return nullcontext()
        return once_a_step(self._multiplied, torch.bfloat16)


class CapturedStep:
    """A step on a GPU whose memory rows are in the model: taken kernel by kernel at first, then as a graph.

    Args:
        step: what to capture.
        shape: of a batch of tokens: B, T + 1.
        at_once: sequences of a pass.
    """

    def __init__(self, step: TrainStep, shape: tuple[int, int], at_once: int) -> None:
        self.step, self.at_once = step, at_once
        self.tokens = Upload(shape, torch.int64, step.device)
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor | None = None

    def run(self, batch: np.ndarray, scalars: StepScalars) -> Tensor:
        """As `TrainStep.run`, with the tokens of a batch int64 [B, T + 1] in the host's memory."""
        passes = [(part, None) for part in self.tokens.put(batch).split(self.at_once)]
        self._taken += 1
        if self._taken <= WARM_UP:
            return self.step.run(passes, scalars)
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self._result = self.step.run(passes, scalars)
            self._graph = graph
        self._graph.replay()
        assert self._result is not None
        return self._result.clone()  # the next replay writes there


def can_capture(model: Transformer, processes: Processes, placed: bool) -> bool:
    """Whether steps of this model can be captured: on a GPU with its kernels, in one process, with the tables in the model."""
    return gpu.usable(model.embedding.weight) and model.embedding.weight.is_cuda and processes.count == 1 and not placed


class DeviceStream:
    """Work of a trainer in a stream of its own, since the default one can't be captured; on a CPU it does nothing."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self) -> AbstractContextManager[object]:
        """Inside, work comes after what the current stream has to do; `join` what comes after it."""
        if self._stream is None:
            return nullcontext()
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        return torch.cuda.stream(self._stream)

    def join(self) -> None:
        """Let the current stream wait for all work in this one."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
