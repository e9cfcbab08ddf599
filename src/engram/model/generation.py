"""Generation: a cache of what later tokens need from earlier ones, and sampling with it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engram.history import History
from engram.memory.placement.fetcher import Request
from engram.model import Transformer


class Cache(History):
    """Remembers, for each layer, what the next tokens need: keys and values (or their latents), shifted keys, convolution inputs and
    N-gram ids.

    Sequences of different lengths are padded on the left, or on the right of the new tokens (`advance` then moves those pads to the left).
    Pads leave nothing behind, so each sequence gets the numbers it would get on its own.

    Args:
        padding: pads before the first token of each sequence, int64 [B]; None: there are none.
    """

    is_empty = False

    def __init__(self, padding: Tensor | None = None) -> None:
        self.padding = padding if padding is not None and bool(padding.any()) else None
        self.seen = 0
        """Positions of every sequence so far, pads included."""
        self._all: dict[str, Tensor] = {}
        """What `extend` keeps: every position, [B, S, ...], with room for more after the first `seen`."""
        self._last: dict[str, tuple[int, Tensor]] = {}
        """What `window` keeps: how many positions are needed, and these, followed by the tokens of a pass under way."""

    def advance(self, length: int, real: Tensor | None = None) -> None:
        """Record that `length` more tokens have gone through the whole model.

        Args:
            length: tokens per sequence, including pads.
            real: tokens per sequence that are not pads, int64 [B], if the rest was padded on the right; outputs at these pads are
                meaningless. None: there are no such pads.
        """
        pads = None if real is None else length - real
        if pads is not None and not bool(pads.any()):
            pads = None
        for name, (keep, window) in self._last.items():
            if pads is None:
                kept = window[:, window.shape[1] - keep :]
            else:
                kept = _take(window, (window.shape[1] - keep - pads)[:, None] + torch.arange(keep, device=window.device))
            self._last[name] = keep, kept
        self.seen += length
        if pads is not None:
            for name, rows in self._all.items():
                places = torch.arange(self.seen, device=rows.device) - pads[:, None]  # [B, S]
                moved = _take(rows, places.clamp_min(0))  # a copy, as in `branch`: caches never share memory
                self._all[name] = moved.masked_fill(_like(places < 0, moved), 0)
            self.padding = pads if self.padding is None else self.padding + pads

    def branch(self, rows: Tensor) -> "Cache":
        """A separate cache for sequences that continue those of this one: row b of the new cache continues row `rows[b]`.

        This way one beginning goes through the model once for many continuations, and finished sequences can be dropped.
        """
        other = Cache(None if self.padding is None else self.padding[rows])
        other.seen = self.seen
        other._all = {name: x[:, : self.seen][rows] for name, x in self._all.items()}
        other._last = {name: (keep, x[rows]) for name, (keep, x) in self._last.items()}
        return other

    def at(self, layer: int) -> History:
        return _Layer(self, layer)

    def positions(self, length: int, device: torch.device) -> Tensor:
        places = torch.arange(self.seen, self.seen + length, device=device)
        return places if self.padding is None else (places - self.padding[:, None]).clamp_min(0)

    def window(self, name: str, x: Tensor, keep: int, fill: int = 0) -> Tensor:
        x = self._without_pads(x, fill)
        before = self._last.get(name)
        window = super().window(name, x, keep, fill) if before is None else torch.cat([before[1], x], dim=1)
        self._last[name] = keep, window
        return window

    def extend(self, name: str, x: Tensor) -> Tensor:
        x = self._without_pads(x, 0)
        before, end = self._all.get(name), self.seen + x.shape[1]
        if before is None:
            self._all[name] = x
            return x
        if before.shape[1] < end:  # with a quarter to spare: copying everything at every token would cost more than attention
            grown = before.new_empty(len(before), end + end // 4, *before.shape[2:])
            grown[:, : self.seen] = before[:, : self.seen]
            self._all[name] = before = grown
        before[:, self.seen : end] = x
        return before[:, :end]

    def mask(self, length: int, device: torch.device) -> Tensor | None:
        if self.padding is None and self.seen == 0:
            return None
        queries = torch.arange(self.seen, self.seen + length, device=device)[:, None]
        keys = torch.arange(self.seen + length, device=device)
        causal = (keys <= queries)[None]  # [1, T, S]
        if self.padding is not None:
            real = keys >= self.padding[:, None, None]  # [B, 1, S]
            causal = causal & (real | (keys == queries))  # pads see themselves: a softmax over nothing would be NaN
        return causal.unsqueeze(1)

    def _without_pads(self, x: Tensor, fill: int) -> Tensor:
        if self.padding is None or self.seen >= int(self.padding.max()):
            return x
        places = torch.arange(self.seen, self.seen + x.shape[1], device=x.device)
        pads = places < self.padding[:, None]  # [B, T]
        return x.masked_fill(_like(pads, x), fill)


def _like(marks: Tensor, x: Tensor) -> Tensor:
    """Marks [B, S], reshaped to broadcast over x [B, S, ...]."""
    return marks.view(*marks.shape, *(1,) * (x.ndim - 2))


def _take(x: Tensor, places: Tensor) -> Tensor:
    """The positions `places` int64 [B, n] of each sequence of x [B, S, ...]: [B, n, ...]."""
    return x[torch.arange(len(x), device=x.device)[:, None], places]


class _Layer(History):
    """A layer's view of a cache, with a namespace of its own."""

    is_empty = False

    def __init__(self, cache: Cache, layer: int) -> None:
        self.cache, self.layer = cache, layer

    def positions(self, length: int, device: torch.device) -> Tensor:
        return self.cache.positions(length, device)

    def window(self, name: str, x: Tensor, keep: int, fill: int = 0) -> Tensor:
        return self.cache.window(f"{self.layer}/{name}", x, keep, fill)

    def extend(self, name: str, x: Tensor) -> Tensor:
        return self.cache.extend(f"{self.layer}/{name}", x)

    def mask(self, length: int, device: torch.device) -> Tensor | None:
        return self.cache.mask(length, device)


def pad_left(sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sequences of token ids -> int64 [B, T], padded on the left, and the number of pads, int64 [B]."""
    longest = max(map(len, sequences))
    rows = [[pad_id] * (longest - len(sequence)) + list(sequence) for sequence in sequences]
    return torch.tensor(rows, device=device), torch.tensor([longest - len(sequence) for sequence in sequences], device=device)


@torch.no_grad()
def next_logits(model: Transformer, tokens: Tensor, cache: Cache, request: Request | None = None) -> Tensor:
    """Logits [B, V] after the last of the tokens int64 [B, T], which follow those in `cache` and are added to it.

    `request` is what `model.request` returned for the same tokens.
    """
    hidden = model(tokens, cache, request)  # [B, T, d]
    cache.advance(tokens.shape[1])
    return torch.nn.functional.linear(hidden[:, -1], model.head_weight)


@torch.no_grad()
def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    end_id: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[int]]:
    """Continue each prompt until `end_id` or for `max_new_tokens`.

    Args:
        model: is left in evaluation mode.
        prompts: token ids, at least one per prompt; they go through the model as one batch.
        max_new_tokens: largest length of a continuation, in tokens.
        end_id: token that ends a sequence; not part of the result.
        temperature: 0 takes the most likely token; otherwise logits are divided by it and sampled from.
        seed: of the sampling.

    Returns the new tokens of each prompt. Raises ValueError when a prompt is empty or the temperature negative.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt needs at least one token")
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}; it can't be negative")
    model.eval()
    device = model.head_weight.device
    generator = torch.Generator(device).manual_seed(seed)
    tokens, padding = pad_left(prompts, end_id, device)
    cache = Cache(padding)
    results: list[list[int]] = [[] for _ in prompts]
    running = torch.ones(len(prompts), dtype=torch.bool)
    request = None
    for number in range(max_new_tokens):
        logits = next_logits(model, tokens, cache, request)
        if temperature == 0:
            chosen = logits.argmax(-1)
        else:
            below = logits.double() - logits.amax(-1, keepdim=True)  # at most 0: no temperature, however small, overflows
            chosen = torch.multinomial((below / temperature).softmax(-1), 1, generator=generator).squeeze(-1)
        tokens = chosen.unsqueeze(1)
        if number + 1 < max_new_tokens:
            request = model.request(tokens, cache)  # so that their rows are being fetched before anything else happens
        running &= (chosen != end_id).cpu()
        if not running.any():
            break
        for result, token, runs in zip(results, chosen.tolist(), running.tolist(), strict=True):
            if runs:
                result.append(token)
    return results
