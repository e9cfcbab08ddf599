"""What a layer needs from the tokens before the ones it is given."""

import torch
from torch import Tensor
from torch.nn import functional as F


class History:
    """The history of whole sequences: nothing came before their first token. A subclass may remember what did.

    Names are unique within a layer; `at` gives each layer a namespace of its own.
    """

    is_empty = True
    """Whether nothing came before and nothing need be remembered."""

    def at(self, layer: int) -> "History":
        """The history of one layer."""
        return self

    def positions(self, length: int, device: torch.device) -> Tensor:
        """Positions of the next `length` tokens, int64 [T], or [B, T] where sequences differ."""
        return torch.arange(length, device=device)

    def window(self, name: str, x: Tensor, keep: int, fill: int = 0) -> Tensor:
        """`x` [B, T, ...] preceded by the last `keep` positions: [B, keep + T, ...]; before the start of a sequence they hold `fill`."""
        return F.pad(x, (0, 0) * (x.ndim - 2) + (keep, 0), value=fill)

    def extend(self, name: str, x: Tensor) -> Tensor:
        """All positions of a sequence so far, [B, S, ...], of which `x` [B, T, ...] are the last."""
        return x

    def mask(self, length: int, device: torch.device) -> Tensor | None:
        """Which of the S positions so far each of the last `length` may attend to, bool [B or 1, 1, T, S]; None: causal, T = S."""
        return None
