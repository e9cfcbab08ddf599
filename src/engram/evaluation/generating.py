"""Generates answers to many prompts at a time, up to a stop string."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from engram.evaluation.passes import Passes, Progress, Read
from engram.model.generation import next_logits


@dataclass(frozen=True)
class Stopping:
    """When an answer ends."""

    tokenizer: Tokenizer
    end_id: int
    """Token that ends a text; not part of an answer."""
    strings: tuple[str, ...]
    """An answer ends before the first of these."""

    @property
    def tail(self) -> int:
        """Tokens at the end of an answer that may hold a whole stop string and the end of the token before it."""
        # A token has at least one byte; the four more allow for a character that begins before them, and a dropped leading space.
        return 4 + max((len(string.encode()) for string in self.strings), default=0)

    def ends(self, tokens: list[int]) -> bool:
        """Whether the newest token of an answer completes a stop string."""
        if not self.strings:
            return False
        end: str = self.tokenizer.decode(tokens[-self.tail :], skip_special_tokens=False)
        return any(string in end for string in self.strings)

    def text(self, tokens: list[int]) -> str:
        """The answer, decoded on its own and cut before the first stop string."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        for string in self.strings:
            text = text.split(string)[0]
        return text


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0
    """0: always the most likely token."""
    generator: torch.Generator | None = field(default=None, compare=False)

    def choose(self, logits: Tensor) -> list[int]:
        """The next tokens after logits [B, V]."""
        if self.temperature == 0:
            return logits.argmax(-1).tolist()
        below = logits.double() - logits.amax(-1, keepdim=True)  # at most 0: no temperature, however small, overflows
        return torch.multinomial((below / self.temperature).softmax(-1), 1, generator=self.generator).squeeze(-1).tolist()


def answers(
    passes: Passes,
    prompts: Sequence[np.ndarray],
    rooms: Sequence[int],
    stopping: Stopping,
    sampling: Sampling,
    share: bool = True,
    progress: Progress | None = None,
) -> list[str]:
    """An answer to each prompt, of at most `rooms` tokens each.

    Args:
        passes: the model.
        prompts: token ids, int [n] each, at least one token.
        rooms: most tokens in each answer.
        stopping: when an answer ends.
        sampling: how tokens are chosen.
        share: whether common beginnings of prompts are computed only once.
        progress: told how many prompts have been answered.
    """
    results = [""] * len(prompts)
    passes.tokens_asked += sum(map(len, prompts))
    for one in passes.read(prompts, share, room=max(rooms, default=0)):
        for row, tokens in zip(one.rows, _continue(passes, one, [rooms[row] for row in one.rows], stopping, sampling), strict=True):
            results[row] = stopping.text(tokens)
        if progress is not None:
            progress(len(one.rows))
    return results


@torch.no_grad()
def _continue(passes: Passes, one: Read, rooms: list[int], stopping: Stopping, sampling: Sampling) -> list[list[int]]:
    """Continue sequences that were read together; those that have ended leave the batch. Returns the new tokens of each."""
    cache = one.cache
    found: list[list[int]] = [[] for _ in one.rows]
    with passes.autocast():
        logits = F.linear(one.last, passes.model.head_weight)  # [R, V]
    running = list(range(len(found)))
    while True:
        going: list[int] = []  # places in the batch
        chosen = sampling.choose(logits)
        for place, (row, token) in enumerate(zip(running, chosen, strict=True)):
            if token == stopping.end_id or not rooms[row]:
                continue
            found[row].append(token)
            if len(found[row]) < rooms[row] and not stopping.ends(found[row]):
                going.append(place)
        if not going:
            return found
        if len(going) < len(running):
            cache = cache.branch(torch.tensor(going, device=passes.device))
            running = [running[place] for place in going]
        tokens = torch.tensor([[chosen[place]] for place in going], device=passes.device)
        with passes.autocast():
            logits = next_logits(passes.model, tokens, cache)
        passes.tokens_run += len(going)
        passes.tokens_asked += len(going)
