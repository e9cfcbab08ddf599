"""`engramctl sample CHECKPOINT TEXT ...`"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from engram.errors import UserError
from engramctl.commands.options.models import CheckpointArgument
from engramctl.commands.options.parse import require_unicode
from engramctl.commands.options.results import JsonOption
from engramctl.commands.options.sweep import DEFAULT_TABLE_CACHE, DeviceOption, TableCacheOption, serving_placement
from engramctl.present import console
from engramctl.present.json import print_json
from engramctl.present.tokens import CONTROL_SIGNS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SHOWN = {code: sign for code, sign in CONTROL_SIGNS.items() if chr(code) not in "\n\t"}


def sample(
    checkpoint: CheckpointArgument,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT", help="Texts to continue; an empty one starts a new document.")],
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=1, help="New tokens for each text, at most.")] = 64,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", help="0: greedy, always the most likely token; 1: as the model predicts.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, max=2**32 - 1, help="Seed of the sampling; greedy needs none.")] = 0,
    tables: Annotated[
        str, typer.Option("--tables", metavar="W", help="Where its memory tables lie: process (in the model), host (RAM) or disk.")
    ] = "process",
    row_format: Annotated[
        str, typer.Option("--row-format", metavar="F", help="How their rows are kept on host or disk: fp32, bf16, int8 or fp8.")
    ] = "fp32",
    table_cache: TableCacheOption = DEFAULT_TABLE_CACHE,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Continue texts with the model of a finished trial, until it ends the document or for --tokens tokens.

    Prints each text with its continuation. Needs the checkpoint only: the corpus may be gone.

    Example: engramctl sample results/smoke/checkpoints/0123456789ab "def main(" --tables disk --row-format int8
    Example: engramctl sample results/smoke/checkpoints/0123456789ab "def main(" --tokens 100 --temperature 0.8
    """
    if not 0 <= temperature < float("inf"):  # NaN too
        raise UserError(f"--temperature is {temperature:g}; it must be a number from 0 up")
    for text in texts:
        require_unicode("TEXT", text)
    from engram.model.generation import generate
    from engram.tokenizer.plain import plain_ids
    from engram.training.checkpoints.restore import load_final
    from engram.training.machine import resolve_device

    restored = load_final(checkpoint, resolve_device(device), serving_placement(tables, table_cache, row_format))
    tokenizer, end = restored.tokenizer, restored.end_of_text_id
    prompts = [ids or [end] for ids in plain_ids(tokenizer, texts)]
    new = generate(restored.model, prompts, tokens, end, temperature, seed)
    if restored.served is not None:
        restored.served.close()
    continuations = [continuation(tokenizer, *ids) for ids in zip(prompts, new, strict=True)]
    if as_json:
        samples = [{"prompt": p, "text": t, "tokens": len(ids)} for p, t, ids in zip(texts, continuations, new, strict=True)]
        print_json({"checkpoint": str(restored.folder), "trial_id": restored.trial.id, "samples": samples})
    else:
        _print_samples(texts, continuations)


def continuation(tokenizer: "Tokenizer", prompt: Sequence[int], new: Sequence[int]) -> str:
    """The text that the token ids `new` add to that of `prompt`.

    Some decoders (SentencePiece's) drop the space before the first token, so the new tokens are decoded together with the prompt, and
    alone only where they change how the prompt reads.
    """
    before = tokenizer.decode(prompt, skip_special_tokens=False)
    whole = tokenizer.decode([*prompt, *new], skip_special_tokens=False)
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(new, skip_special_tokens=False)


def _print_samples(texts: Sequence[str], continuations: Sequence[str]) -> None:
    """Each text with its continuation, with empty lines in between; only a terminal gets Rich, which changes white space."""
    out = console.out()
    for i, (text, new) in enumerate(zip(texts, continuations, strict=True)):
        if i:
            sys.stdout.write("\n")
        if out.is_terminal:
            out.print(Text.assemble((text.translate(_SHOWN), "dim"), new.translate(_SHOWN)), soft_wrap=True)
        else:
            sys.stdout.write(f"{text}{new}\n")
