"""`engramctl sample CHECKPOINT TEXT ...`"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from engram.errors import UserError
from engramctl.commands.options.parse import require_unicode
from engramctl.commands.options.results import JsonOption
from engramctl.commands.options.sweep import DEFAULT_TABLE_CACHE, DeviceOption, TableCacheOption, serving_placement
from engramctl.present import console
from engramctl.present.json import print_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A model may write any byte; on a terminal, control characters are shown instead of obeyed.
_SHOWN = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | dict.fromkeys(range(0x7F, 0xA0), 0xFFFD)


def sample(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Folder of a finished trial: results/SWEEP/checkpoints/TRIAL, or `final` in it.")
    ],
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
    from engram.training.checkpoints.restore import load_final
    from engram.training.machine import resolve_device

    restored = load_final(checkpoint, resolve_device(device), serving_placement(tables, table_cache, row_format))
    tokenizer, end = restored.tokenizer, restored.end_of_text_id
    prompts = [tokenizer.encode(text, add_special_tokens=False).ids or [end] for text in texts]
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
    """The text that the `new` token ids add to those of `prompt`.

    Some decoders drop the space before the first token that they are given (SentencePiece's), so the new tokens are not
    decoded alone unless the prompt reads differently with them than without.
    """
    before = tokenizer.decode(prompt, skip_special_tokens=False)
    whole = tokenizer.decode([*prompt, *new], skip_special_tokens=False)
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(new, skip_special_tokens=False)


def _print_samples(texts: Sequence[str], continuations: Sequence[str]) -> None:
    """Each text with its continuation, an empty line between two; Rich only for a terminal, as it changes white space."""
    out = console.out()
    for i, (text, new) in enumerate(zip(texts, continuations, strict=True)):
        if i:
            sys.stdout.write("\n")
        if out.is_terminal:
            out.print(Text.assemble((text.translate(_SHOWN), "dim"), new.translate(_SHOWN)), soft_wrap=True)
        else:
            sys.stdout.write(f"{text}{new}\n")
