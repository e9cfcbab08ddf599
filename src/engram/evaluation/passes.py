"""Runs token sequences of any length through the model in passes of bounded size, common beginnings only once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engram.config.model import LatentAttentionConfig, ModelConfig
from engram.evaluation.prefixes import Group, distinct, shared_prefixes
from engram.model import Transformer
from engram.model.generation import Cache, pad_left

HEAD_CHUNK = 256
"""Scored tokens whose logits exist at a time."""
MOST_READ = 256
"""Sequences that are continued together; with more, the time per token grows in proportion."""
_SIMILAR = 0.7
"""Beginnings go through the model together if the shortest has at least this share of the longest one's tokens."""

Progress = Callable[[int], None]
"""Called with the number of sequences completed since the last call."""


@dataclass(frozen=True)
class Pass:
    """R sequences after a pass."""

    rows: list[int]
    """Their numbers."""
    starts: list[int]
    """Tokens of each that went through in an earlier pass."""
    hidden: Tensor
    """Hidden states of the tokens after those, [R, T, d]; what follows a sequence's last token is meaningless."""


@dataclass(frozen=True)
class Read:
    """R sequences that the model has read and can continue."""

    rows: list[int]
    """Their numbers."""
    last: Tensor
    """Hidden states of their last tokens, [R, d]."""
    cache: Cache


@dataclass(frozen=True)
class _Batch:
    rows: list[int]
    starts: list[int]
    cache: Cache | None
    """Cache of the tokens before `starts`, for these sequences only; None if there are none."""


@dataclass(frozen=True)
class Scored:
    """A sequence whose last tokens are scored."""

    tokens: np.ndarray
    """What the model reads, int [n] with n >= 1: all tokens but the last."""
    targets: np.ndarray
    """What it should predict after each of the last m of `tokens`, int [m], 1 <= m <= n."""

    @property
    def first(self) -> int:
        """Place in `tokens` after which the first target is predicted."""
        return len(self.tokens) - len(self.targets)


class Passes:
    """A model, and limits on what may be in memory at a time.

    Args:
        model: on its device, in evaluation mode.
        autocast: makes a context in which the model runs.
        pad_id: token for places that don't count.
        batch_tokens: most tokens in a pass, pads included; a longer sequence makes a pass by itself.
        cache_bytes: most memory for what a pass remembers, unless a single sequence takes more.
    """

    def __init__(
        self, model: Transformer, autocast: Callable[[], AbstractContextManager[object]], pad_id: int, batch_tokens: int, cache_bytes: int
    ) -> None:
        self.model, self.autocast, self.pad_id = model, autocast, pad_id
        self.batch_tokens, self.cache_bytes = batch_tokens, cache_bytes
        self.token_bytes = cache_token_bytes(model.config)
        self.device = model.head_weight.device
        self.tokens_run = 0
        """Tokens that have gone through the model, not counting pads."""
        self.tokens_asked = 0
        """Tokens that would have gone through the model if every request had been computed by itself."""

    def run(self, rows: Sequence[np.ndarray], limits: Sequence[int], share: bool) -> Iterator[Pass]:
        """Run every sequence in one pass or, if its beginning is shared, in two; the second is yielded.

        Args:
            rows: token ids, int [n] each, at least one token.
            limits: for each row, most of its tokens that may be in a shared beginning; what comes after is in the pass that is yielded.
            share: whether common beginnings are computed only once.
        """
        for batch in self._batches(rows, limits, share):
            tokens, lengths = self._padded(rows, batch)
            with torch.no_grad(), self.autocast():
                hidden = self.model(tokens, batch.cache)
            self.tokens_run += sum(lengths)
            yield Pass(batch.rows, batch.starts, hidden)

    def read(self, rows: Sequence[np.ndarray], share: bool, room: int) -> Iterator[Read]:
        """Read every sequence, together with as many others as memory holds, which may be more than fit into a pass.

        Args:
            rows: token ids, int [n] each, at least one token.
            share: whether common beginnings are computed only once.
            room: tokens that will follow each sequence, for which memory is set aside.
        """
        for batch in self._batches(rows, [len(row) - 1 for row in rows], share, room):
            tokens, lengths = self._padded(rows, batch)
            real = torch.tensor(lengths, device=self.device)
            cache = Cache() if batch.cache is None else batch.cache
            width = max(1, self.batch_tokens // len(lengths))
            last = self.model.head_weight.new_empty(len(lengths), self.model.config.width)
            for start in range(0, tokens.shape[1], width):
                part = tokens[:, start : start + width]
                with torch.no_grad(), self.autocast():
                    hidden = self.model(part, cache)  # [R, width, d]
                ending = ((real > start) & (real <= start + part.shape[1])).nonzero().squeeze(-1)
                last[ending] = hidden[ending, real[ending] - start - 1].to(last.dtype)
                cache.advance(part.shape[1], (real - start).clamp(0, part.shape[1]))
            self.tokens_run += sum(lengths)
            yield Read(batch.rows, last, cache)

    def _batches(self, rows: Sequence[np.ndarray], limits: Sequence[int], share: bool, room: int | None = None) -> Iterator[_Batch]:
        """Batches of sequences that go through the model together; `room` is None if their caches are not needed."""
        groups = shared_prefixes(rows, limits) if share else [Group(0, (i,)) for i in range(len(rows))]
        alone = [i for group in groups if not group.prefix for i in group.rows]
        for chunk in self._chunks(alone, lambda i: len(rows[i]), room, room is None):
            yield _Batch(chunk, [0] * len(chunk), None)
        for bunch in self._bunches([group for group in groups if group.prefix]):
            cache = self._beginnings([rows[group.rows[0]][: group.prefix] for group in bunch])
            group_of = {i: number for number, group in enumerate(bunch) for i in group.rows}
            prefix_of = {i: group.prefix for group in bunch for i in group.rows}

            def rest(i: int, prefix_of: dict[int, int] = prefix_of) -> int:
                return len(rows[i]) - prefix_of[i]

            for chunk in self._chunks(list(group_of), rest, (room or 0) + cache.seen, room is None):
                branch = cache.branch(torch.tensor([group_of[i] for i in chunk], device=self.device))
                yield _Batch(chunk, [prefix_of[i] for i in chunk], branch)

    def _padded(self, rows: Sequence[np.ndarray], batch: _Batch) -> tuple[Tensor, list[int]]:
        """Tokens int64 [R, T] from each sequence's start on, padded on the right, and the number of real ones."""
        parts = [torch.from_numpy(rows[i][start:].astype(np.int64)) for i, start in zip(batch.rows, batch.starts, strict=True)]
        tokens = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=self.pad_id).to(self.device)
        return tokens, [len(part) for part in parts]

    def _beginnings(self, beginnings: list[np.ndarray]) -> Cache:
        tokens, padding = pad_left([row.tolist() for row in beginnings], self.pad_id, self.device)
        cache = Cache(padding)
        with torch.no_grad(), self.autocast():
            self.model(tokens, cache)
        cache.advance(tokens.shape[1])
        self.tokens_run += sum(map(len, beginnings))
        return cache

    def _bunches(self, groups: list[Group]) -> Iterator[list[Group]]:
        """Groups whose beginnings are of similar length and fit into one pass."""
        bunch: list[Group] = []
        for group in sorted(groups, key=lambda group: -group.prefix):
            longest = bunch[0].prefix if bunch else group.prefix
            tokens = (len(bunch) + 1) * longest
            full = tokens > self.batch_tokens or 2 * tokens * self.token_bytes > self.cache_bytes
            if bunch and (full or group.prefix < _SIMILAR * longest):
                yield bunch
                bunch = []
            bunch.append(group)
        if bunch:
            yield bunch

    def _chunks(self, rows: list[int], length: Callable[[int], int], kept: int | None, one_pass: bool) -> Iterator[list[int]]:
        """Sequences of similar length that go together.

        Args:
            rows: numbers of sequences.
            length: new tokens of a sequence.
            kept: positions of each, besides these tokens, for which memory is needed; None: nothing is kept.
            one_pass: whether the new tokens must fit into one pass.
        """
        chunk: list[int] = []
        for i in sorted(rows, key=lambda i: -length(i)):
            longest = length(chunk[0]) if chunk else length(i)
            count = len(chunk) + 1
            full = count * longest > self.batch_tokens if one_pass else count > MOST_READ
            if kept is not None:
                full = full or count * (longest + kept) * self.token_bytes > self.cache_bytes
            if chunk and full:
                yield chunk
                chunk = []
            chunk.append(i)
        if chunk:
            yield chunk


def cache_token_bytes(config: ModelConfig) -> int:
    """Bytes that a cache takes per position of a sequence, in fp32; what memories remember is little in comparison."""
    attention = config.attention
    if isinstance(attention, LatentAttentionConfig):
        # Every layer recomputes keys and values of the whole past: those of one layer exist at a time, beside the latents of all.
        expanded = attention.n_heads * (2 * attention.head_dim + attention.rope_dim + attention.value_dim)
        return 4 * (config.n_layers * (attention.kv_rank + attention.rope_dim) + expanded)
    return 4 * config.n_layers * 2 * config.width


def score(passes: Passes, sequences: Sequence[Scored], share: bool = True, progress: Progress | None = None) -> list[tuple[float, bool]]:
    """Log-likelihood in nats of each sequence's targets, and whether all of them are the most likely tokens at their places.

    With `share`, equal sequences, sequences that begin others, and common beginnings go through the model only once.
    """
    passes.tokens_asked += sum(len(sequence.tokens) for sequence in sequences)
    if share:
        rows, row_of = distinct([sequence.tokens for sequence in sequences])
    else:
        rows, row_of = [sequence.tokens for sequence in sequences], list(range(len(sequences)))
    of_row: list[list[int]] = [[] for _ in rows]
    for number, row in enumerate(row_of):
        of_row[row].append(number)
    limits = [min(sequences[number].first for number in numbers) for numbers in of_row]
    results: list[tuple[float, bool]] = [(0.0, False)] * len(sequences)
    for one in passes.run(rows, limits, share):
        numbers = [number for row in one.rows for number in of_row[row]]
        places = [
            b * one.hidden.shape[1] + sequences[number].first - start + np.arange(len(sequences[number].targets))
            for b, (row, start) in enumerate(zip(one.rows, one.starts, strict=True))
            for number in of_row[row]
        ]
        targets = [sequences[number].targets for number in numbers]
        losses, greedy = _token_scores(passes, one.hidden, np.concatenate(places), np.concatenate(targets))
        ends = np.cumsum([len(one_target) for one_target in targets])[:-1]
        for number, own_losses, own_greedy in zip(numbers, np.split(losses, ends), np.split(greedy, ends), strict=True):
            results[number] = -float(own_losses.sum()), bool(own_greedy.all())
        if progress is not None:
            progress(len(numbers))
    return results


@torch.no_grad()
def _token_scores(passes: Passes, hidden: Tensor, places: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses in nats, fp64 [K], and whether the target is the most likely token, bool [K], at places of hidden [R, T, d]."""
    chosen = hidden.flatten(0, 1)[torch.from_numpy(places).to(passes.device)]  # [K, d]
    wanted = torch.from_numpy(targets.astype(np.int64)).to(passes.device)
    losses: list[Tensor] = []
    greedy: list[Tensor] = []
    for part, want in _pairs(chosen, wanted):
        with passes.autocast():
            logits = F.linear(part, passes.model.head_weight).float()  # [chunk, V]
        losses.append(F.cross_entropy(logits, want, reduction="none"))
        greedy.append(logits.argmax(-1) == want)
    return torch.cat(losses).double().cpu().numpy(), torch.cat(greedy).cpu().numpy()


def _pairs(a: Tensor, b: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    return zip(a.split(HEAD_CHUNK), b.split(HEAD_CHUNK), strict=True)
