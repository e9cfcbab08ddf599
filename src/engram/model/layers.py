"""Linear, norm and embedding modules that compute with `engram.kernels.ops`."""

from torch import Tensor, nn

from engram.kernels import ops


class Linear(nn.Linear):
    """`nn.Linear` without a bias."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        return ops.linear(x, self.weight)


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` in the dtype of its weights: autocast would give it a mixture of bf16 and fp32, which has no fused norm.

    Its result goes into products only, so on a GPU it may come in their dtype.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps=eps)
        self.epsilon = eps

    def forward(self, x: Tensor, pending: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        """[..., d] -> [..., d]; with what is still to be added to `x`, the sum [..., d] and its norm."""
        if pending is None:
            return ops.rms_norm(x, self.weight, self.epsilon, multiplied=True)
        return ops.add_rms_norm(x, pending, self.weight, self.epsilon)


class TokenEmbedding(nn.Embedding):
    """`nn.Embedding`: the vectors of tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        """[...] -> [..., d]"""
        return ops.embedding(tokens, self.weight)
