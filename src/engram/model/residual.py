"""The residual stream between sublayers."""

from torch import Tensor

from engram.model.layers import RMSNorm


class Residual:
    """Hidden states, and what the last sublayer adds to them. The sum is made where the next one reads it, along with its norm.

    Args:
        hidden: [B, T, M, d].
        pending: [B, T, M, d], still to be added; None: nothing.
    """

    def __init__(self, hidden: Tensor, pending: Tensor | None = None) -> None:
        self._hidden, self._pending = hidden, pending

    def value(self) -> Tensor:
        """The hidden states [B, T, M, d]."""
        if self._pending is not None:
            self._hidden, self._pending = self._hidden + self._pending, None
        return self._hidden

    def normed(self, norm: RMSNorm) -> Tensor:
        """The normalised hidden states of a single branch, [B, T, d]."""
        if self._pending is None:
            normed: Tensor = norm(self._hidden.squeeze(2))
            return normed
        hidden, normed = norm(self._hidden.squeeze(2), self._pending.squeeze(2))
        self._hidden, self._pending = hidden.unsqueeze(2), None
        return normed

    def plus(self, out: Tensor) -> "Residual":
        """The stream after a sublayer with the output [B, T, M, d]."""
        return Residual(self.value(), out)
