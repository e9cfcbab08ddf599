"""LogitLens: how close the prediction of each layer is to the model's own (paper, 6.1; nostalgebraist, 2020)."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engram.analysis.capture import layer_states
from engram.analysis.windows import Windows
from engram.model import Transformer
from engram.training.validation import PASS_TOKENS

_CHUNK = 256
"""Tokens whose logits exist at a time."""


@torch.no_grad()
def states_at(model: Transformer, windows: Windows) -> Tensor:
    """States of N tokens after each layer (`capture.layer_states`), on the CPU, [L, N, d]. The model is left in evaluation mode."""
    model.eval()
    device = model.head_weight.device
    window, place = torch.from_numpy(windows.window), torch.from_numpy(windows.place)
    at_once = max(1, PASS_TOKENS // windows.tokens.shape[1])
    result: Tensor | None = None
    for start in range(0, len(windows.tokens), at_once):
        tokens = torch.from_numpy(windows.tokens[start : start + at_once]).to(device)
        here = ((window >= start) & (window < start + len(tokens))).nonzero().squeeze(-1)  # [n]
        rows, columns = (window[here] - start).to(device), place[here].to(device)
        states = torch.stack([state[rows, columns] for state in layer_states(model, tokens)]).cpu()  # [L, n, d]
        if result is None:
            result = states.new_empty(len(states), len(window), states.shape[-1])
        result[:, here] = states
    assert result is not None
    return result


@torch.no_grad()
def divergence_by_layer(model: Transformer, states: Tensor) -> np.ndarray:
    """KL divergence of each layer's prediction from the final one, nats: states [L, N, d] -> float64 [L, N].

    `p_l = softmax(head norm(h_l))` with the model's final norm and head; `KL_l = sum over v of p_l(v) (ln p_l(v) - ln p_L(v))`. It is 0
    at the last layer.
    """
    device = model.head_weight.device
    result = torch.empty(states.shape[:2], dtype=torch.float64)
    for start in range(0, states.shape[1], _CHUNK):
        part = slice(start, start + _CHUNK)
        final = _log_probabilities(model, states[-1, part].to(device))  # [n, V]
        for layer in range(len(states)):
            own = _log_probabilities(model, states[layer, part].to(device))
            result[layer, part] = (own.exp() * (own - final)).sum(-1).double().cpu()
    return result.numpy()


def _log_probabilities(model: Transformer, states: Tensor) -> Tensor:
    logits = F.linear(model.norm(states), model.head_weight)
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
