"""What a token needs of the tokens before it."""

import torch
from torch import Tensor
from torch.nn import functional as F


class History:
    """Sequences given whole: nothing came before their first token. `generation.Cache` remembers what did.

    Names are unique within a layer; `at` gives a layer its own.
    """

    is_empty = True
    """Whether nothing came before and nothing has to be remembered."""

    def at(self, layer: int) -> "History":
        """The history of one layer."""
        return self

    def positions(self, length: int, device: torch.device) -> Tensor:
        """Positions of the next `length` tokens, int64 [T], or [B, T] where sequences differ."""
        return torch.arange(length, device=device)

    def window(self, name: str, x: Tensor, keep: int, fill: int = 0) -> Tensor:
        """`x` [B, T, ...] after the `keep` positions that came before it: [B, keep + T, ...]; `fill` stands before the start."""
        return F.pad(x, (0, 0) * (x.ndim - 2) + (keep, 0), value=fill)

    def extend(self, name: str, x: Tensor) -> Tensor:
        """All positions of a sequence so far, `x` [B, T, ...] the last: [B, S, ...]."""
        return x

    def mask(self, length: int, device: torch.device) -> Tensor | None:
        """Which of the S positions so far each of the last `length` may attend to, bool [B or 1, 1, T, S]; None: causal, T = S."""
        return None
