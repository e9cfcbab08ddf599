"""A trained model behind lm-eval's interface: log-likelihoods, rolling log-likelihoods and generated answers."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from tokenizers import Tokenizer

from engram.errors import UserError
from engram.evaluation.environment import require_lm_eval
from engram.evaluation.generating import Sampling, Stopping, answers
from engram.evaluation.passes import Passes, Scored, score
from engram.model import Transformer
from engram.tokenizer.plain import plain_ids
from engram.training.checkpoints.restore import Restored
from engram.training.machine import resolve_precision

require_lm_eval()

from lm_eval.api.model import TemplateLM  # noqa: E402
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs  # noqa: E402
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # noqa: E402

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

BATCH_TOKENS = 8192
"""Tokens per pass, as many as in a validation pass."""
CACHE_BYTES = 2 << 30
_ENCODED_AT_ONCE = 2048
"""Texts encoded at a time."""

OnProgress = Callable[[str, int, int], None]
"""Called with the kind of requests, how many of them are done, and how many there are."""


class EngramLM(TemplateLM):
    """A model of this program for lm-eval's tasks.

    A request longer than the model's length loses tokens at its beginning, as with lm-eval's own models; `truncated` says which items
    that happened to.

    Args:
        model: on its device, in evaluation mode.
        tokenizer: of its training.
        end_of_text_id: token before and after every document.
        max_length: most tokens that the model reads at a time.
        precision: bf16 or fp32, as in training.
        batch_tokens: most tokens in a pass through the model.
        cache_bytes: most memory for keys, values and whatever else is remembered of a batch.
        max_gen_toks: largest length of an answer, in tokens, if a task does not give one.
        share_prefixes: whether beginnings that requests have in common are computed only once.
        seed: of the sampling, in the few tasks that sample.
        on_progress: called as requests are completed.

    Raises UserError when `max_length` is below 2.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        end_of_text_id: int,
        max_length: int,
        *,
        precision: Literal["auto", "bf16", "fp32"] = "auto",
        batch_tokens: int = BATCH_TOKENS,
        cache_bytes: int = CACHE_BYTES,
        max_gen_toks: int = 256,
        share_prefixes: bool = True,
        seed: int = 0,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__()
        if max_length < 2:
            raise UserError(f"max_length is {max_length}; a model has to read two tokens at least")
        self._device = model.head_weight.device
        self.precision = resolve_precision(precision, self._device)
        self.model, self.encoder, self.max_length, self.max_gen_toks = model, tokenizer, max_length, max_gen_toks
        self.end_of_text_id, self.share_prefixes, self.seed, self.on_progress = end_of_text_id, share_prefixes, seed, on_progress
        self.passes = Passes(model, self._autocast, end_of_text_id, batch_tokens, cache_bytes)
        self.truncated: dict[str, set[int]] = {}
        """By task, numbers of the items that have lost tokens since this was last cleared."""

    @classmethod
    def from_restored(cls, restored: Restored, max_length: int | None = None, **options: Any) -> Self:
        """The model of a finished trial; by default it reads as many tokens as in training.

        On a CPU it computes in fp32, which takes hardly longer there and gives each request the same numbers whatever it is batched with;
        in bf16 they differed by up to 0.7 nats. On a GPU it computes in the precision of training.
        """
        train = restored.trial.train
        options.setdefault("precision", "fp32" if restored.model.head_weight.device.type == "cpu" else train.precision)
        return cls(restored.model, restored.tokenizer, restored.end_of_text_id, max_length or train.seq_len, **options)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def eot_token_id(self) -> int:
        return self.end_of_text_id

    @property
    def tokenizer_name(self) -> str:
        return "engram"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids as in training, which adds no special tokens."""
        return plain_ids(self.encoder, [string])[0]

    def tok_encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, on all processors."""
        found: list[list[int]] = []
        for start in range(0, len(texts), _ENCODED_AT_ONCE):
            found.extend(plain_ids(self.encoder, texts[start : start + _ENCODED_AT_ONCE]))
        return found

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Tokens of contexts and continuations, split as lm-eval's models do (`TemplateLM.loglikelihood`, `_encode_pair`).

        White space at the end of a context goes to the continuation. The continuation's tokens are those of both texts together, after as
        many tokens as the context has on its own, so that a token across the boundary is scored in part or not at all. If that leaves
        nothing, the last token is scored, where lm-eval's own models fail.
        """
        moved = [(context.rstrip(), context[len(context.rstrip()) :] + continuation) for context, continuation in pairs]
        contexts = list(dict.fromkeys(context if context else " " for context, _ in moved))
        context_ids = dict(zip(contexts, self.tok_encode_all(contexts), strict=True))
        encoded: list[tuple[list[int], list[int]]] = []
        whole = self.tok_encode_all([context + continuation for context, continuation in moved])
        for (original, _), (context, _), ids in zip(pairs, moved, whole, strict=True):
            if original == "" and ids and ids[0] == self.prefix_token_id:
                before, after = ids[:1], ids[1:]
            elif context == "":  # also for a context of white space only, where lm-eval's models have no token to start from
                before, after = [self.prefix_token_id], ids
            else:
                before = context_ids[context]
                after = ids[len(before) :]
            if not after:
                before, after = ([self.prefix_token_id, *ids][:-1], ids[-1:]) if ids else ([self.prefix_token_id], [self.prefix_token_id])
            encoded.append((before, after))
        return encoded

    def loglikelihood(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        pairs = [request.args[:2] for request in requests]
        sequences: list[Scored] = []
        for start in range(0, len(pairs), _ENCODED_AT_ONCE):  # in portions: lists of tokens take ten times as much memory as arrays
            encoded = self.encode_pairs(pairs[start : start + _ENCODED_AT_ONCE])
            for request, tokens in zip(requests[start : start + _ENCODED_AT_ONCE], encoded, strict=True):
                sequences.append(self.scored(*tokens))
                if sum(map(len, tokens)) > self.max_length + 1:
                    self._note_truncated(request)
        results = score(self.passes, sequences, self.share_prefixes, self._progress("loglikelihood", len(sequences)))
        for pair, result in zip(pairs, results, strict=True):
            self.cache_hook.add_partial("loglikelihood", pair, result)
        return results

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str] | None, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        return score(self.passes, [self.scored(before, after) for _, before, after in requests], self.share_prefixes)

    def scored(self, before: list[int], after: list[int]) -> Scored:
        """The last tokens that fit; the very last one is only predicted, not read."""
        ids = np.array([*before, *after][-(self.max_length + 1) :], dtype=np.int32)
        return Scored(ids[:-1], ids[-min(len(after), self.max_length) :])

    def loglikelihood_rolling(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in lm-eval's windows: every token is scored once, after as much context as fits."""
        sequences: list[Scored] = []
        owners: list[int] = []
        for number, ids in enumerate(self.tok_encode_all([request.args[0] for request in requests])):
            for window in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1):
                sequences.append(self.scored(*make_disjoint_window(window)))
                owners.append(number)
        results = score(self.passes, sequences, self.share_prefixes, self._progress("loglikelihood_rolling", len(sequences)))
        sums = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, results, strict=True):
            sums[owner] += value
        for request, value in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return sums

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[str]:
        """Answers: greedy, or sampled where a task says so, until a stop string, the end of the text, or a full context.

        The prompt leaves room for the answer's `max_gen_toks`, but keeps at least half of the model's length: otherwise a model trained on
        512 tokens could read nothing before an answer of 1024.
        """
        results = [""] * len(requests)
        prompts = [np.array(ids or [self.prefix_token_id], dtype=np.int32) for ids in self.tok_encode_all([r.args[0] for r in requests])]
        by_settings: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            by_settings.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(number)
        report = self._progress("generate_until", len(requests))
        for numbers in by_settings.values():
            settings = normalize_gen_kwargs(requests[numbers[0]].args[1], self.max_gen_toks)
            stopping, sampling, wanted = self._settings(settings, requests[numbers[0]])
            kept, rows, rooms = self.max_length - min(wanted, self.max_length // 2), [], []
            for number in numbers:
                if len(prompts[number]) > kept:
                    self._note_truncated(requests[number])
                rows.append(prompts[number][-kept:])
                rooms.append(min(wanted, self.max_length - len(rows[-1])))
            for number, text in zip(
                numbers, answers(self.passes, rows, rooms, stopping, sampling, self.share_prefixes, report), strict=True
            ):
                results[number] = text
                self.cache_hook.add_partial("generate_until", requests[number].args, text)
        return results

    def _settings(self, settings: dict[str, Any], request: "Instance") -> tuple[Stopping, Sampling, int]:
        until = handle_stop_sequences(settings["until"], eos=self.encoder.decode([self.end_of_text_id], skip_special_tokens=False))
        stopping = Stopping(self.encoder, self.end_of_text_id, tuple(string for string in until if string))
        for name, neutral in (("top_p", 1.0), ("top_k", 0), ("num_beams", 1)):
            if settings["do_sample"] and settings.get(name, neutral) not in (neutral, None):
                raise UserError(f"task {request.task_name} samples with {name}, which this program can't; it knows a temperature only")
        if not settings["do_sample"]:
            return stopping, Sampling(), settings["max_gen_toks"]
        generator = torch.Generator(self._device).manual_seed(self.seed)
        return stopping, Sampling(float(settings.get("temperature", 1.0)), generator), settings["max_gen_toks"]

    def _note_truncated(self, request: "Instance") -> None:
        if request.task_name is not None and request.doc_id is not None:
            self.truncated.setdefault(request.task_name, set()).add(request.doc_id)

    def _progress(self, kind: str, total: int) -> Callable[[int], None] | None:
        if self.on_progress is None:
            return None
        on_progress, done = self.on_progress, 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            on_progress(kind, done, total)

        return report
