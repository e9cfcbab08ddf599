"""A training step of the same model in `transformers`: DeepseekV3ForCausalLM with PyTorch's fused AdamW."""

import copy
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engram.benchmarks.machine import free_bytes
from engram.benchmarks.results import Variant
from engram.benchmarks.timing import Turn, calls
from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.errors import UserError
from engram.training.machine import give_back

EXPERTS = ("grouped_mm", "eager", "batched_mm")
"""Implementations of the experts that transformers has."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "bf16 autocast": torch.float32}
"""Dtypes of weights, activations and optimiser state; the last multiplies in bf16 and keeps fp32, as we do."""
COMPILE_S = 300.0
"""Seconds in which all variants must be compiled, unless told otherwise."""
_RATE = 1e-6


def require_transformers() -> str:
    """Version of transformers; UserError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise UserError("bench compare needs transformers, which is not installed: python -m pip install transformers==5.23.0") from None
    return str(transformers.__version__)


def deepseek_config(model: ModelConfig, seq_len: int, shared_experts: int) -> Any:
    """The DeepSeek-V3 config with the same width, layers, experts and vocabulary.

    Its latent attention has the same number of heads; a third of a head's query channels are rotary, values are as long as ours, and the KV
    rank is a quarter of the width.
    """
    from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config

    d, heads, moe = model.width, model.attention.n_heads, model.moe
    head = d // heads
    rope = 2 * max(1, round(head / 6))
    return DeepseekV3Config(
        vocab_size=model.vocab_size, hidden_size=d, num_hidden_layers=model.n_layers, num_attention_heads=heads, num_key_value_heads=heads,
        intermediate_size=shared_experts * moe.expert_width, moe_intermediate_size=moe.expert_width, n_shared_experts=shared_experts,
        n_routed_experts=moe.n_routed_experts, num_experts_per_tok=moe.top_k, n_group=1, topk_group=1, norm_topk_prob=True,
        routed_scaling_factor=moe.route_scale, first_k_dense_replace=0, num_mtp_layers=0, q_lora_rank=None, kv_lora_rank=d // 4,
        qk_nope_head_dim=head - rope, qk_rope_head_dim=rope, v_head_dim=head, max_position_embeddings=seq_len, use_cache=False,
        rms_norm_eps=model.norm_eps,
    )  # fmt: skip


def training_step(
    config: Any, experts: str, dtype: str, batches: Iterator[Tensor], device: torch.device, compiled: bool = False
) -> Callable[[], None]:
    """One step: forward, cross-entropy as in transformers, backward, fused AdamW, without clipping or balancing.

    `batches` gives int64 [B, T + 1]; `compiled`: the model goes through `torch.compile`.
    """
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3ForCausalLM

    torch.manual_seed(0)
    own = copy.deepcopy(config)  # transformers writes the implementation into it: models sharing one config would all use the last
    model: nn.Module = DeepseekV3ForCausalLM._from_config(own, experts_implementation=experts, attn_implementation="sdpa")
    model = model.to(device=device, dtype=DTYPES[dtype]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, fused=True)
    forward: Any = torch.compile(model, dynamic=False) if compiled else model

    def step() -> None:
        batch = next(batches).to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype.endswith("autocast")):
            logits = forward(input_ids=batch[:, :-1]).logits  # [B, T, V]
        F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def fastest_step(
    config: Any,
    train: TrainConfig,
    batches: Iterator[Tensor],
    device: torch.device,
    seconds: float,
    on_probed: Callable[[Variant], None] | None = None,
    compile_s: float = COMPILE_S,
) -> tuple[Turn, list[Variant]]:
    """Probe every variant; returns the turn of the fastest, and all variants as probed.

    On a GPU each implementation of the experts is then compiled, in the dtype in which it was fastest, the fastest one first.

    Args:
        config: of the model.
        train: batch and sequence.
        batches: int64 [B, T + 1] each.
        device: where to train.
        seconds: for which a variant is timed, about.
        on_probed: told of each variant.
        compile_s: for compiling all of them; those whose turn comes later are left out.
    """
    best: tuple[float, Turn] | None = None
    probed: list[Variant] = []
    left_s = compile_s

    def probe(experts: str, dtype: str, compiled: bool) -> None:
        nonlocal best, left_s
        step_s, problem = None, None
        needed, free = _gathered_bytes(config, train.tokens_per_step), free_bytes(device)
        if experts == "batched_mm" and needed > free // 2:
            problem = f"weights copied for every token take {needed / 1e9:.3g} GB"
        else:
            started = time.perf_counter()
            try:
                turn = calls(training_step(config, experts, dtype, batches, device, compiled), device)
                with _at_most(left_s) if compiled else nullcontext():
                    turn(0.0)
                step_s = turn(seconds)
                if best is None or step_s < best[0]:
                    best = step_s, turn
            except (RuntimeError, ValueError, TimeoutError) as found:
                problem = (str(found).strip() or type(found).__name__).splitlines()[0]
            if compiled:
                left_s -= time.perf_counter() - started
        probed.append(Variant(experts, dtype, step_s, problem, compiled))
        if on_probed is not None:
            on_probed(probed[-1])

    for experts, dtype in itertools.product(EXPERTS, DTYPES):
        probe(experts, dtype, compiled=False)
        give_back(device)  # of the slower ones
    if device.type == "cuda":
        ran = [variant for variant in probed if variant.step_s is not None]
        fastest: dict[str, str] = {}
        for variant in sorted(ran, key=lambda variant: variant.step_s or 0.0):
            fastest.setdefault(variant.experts, variant.dtype)
        for experts, dtype in fastest.items():
            probe(experts, dtype, compiled=True)
            give_back(device)
    if best is None:
        raise RuntimeError(f"transformers runs in no way here: {probed[0].problem}")
    return best[1], probed


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after some seconds, or at once; without effect outside the main thread."""
    if seconds <= 0:
        raise TimeoutError("no time was left to compile it")
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"not compiled within {seconds:.3g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _gathered_bytes(config: Any, tokens: int) -> int:
    """Bytes that `batched_mm` copies in one layer, and again for the gradients: the weights of every token's experts."""
    return 2 * 4 * tokens * int(config.num_experts_per_tok) * 3 * int(config.hidden_size) * int(config.moe_intermediate_size)
