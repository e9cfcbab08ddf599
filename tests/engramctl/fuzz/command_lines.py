"""Command lines made from the program itself: a new command or option is tried without anyone having to remember it; not a test."""

import string
from collections.abc import Iterator
from typing import Any, get_args

import typer
from hypothesis import strategies as st

from engramctl.cli import app
from tests.engramctl.fuzz.sandbox import SWEEP, TRAINED, VARIANTS

Path = tuple[str, ...]
"""The words of a command, such as ("analyze", "gates")."""

NUMBERS = (
    "0",
    "1",
    "-1",
    "2",
    "0.5",
    "1e-300",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "9" * 30,
    "9" * 5000,
    str(2**31),
    str(2**63),
    str(2**64),
    "0x10",
    "1_0",
    "٣",
)
TEXTS = (
    "",
    " ",
    ".",
    "..",
    "a/b",
    "../precious",
    "-",
    "--",
    "-x",
    "\x1b[2J",
    "a\nb",
    "a\rb",
    "\u202eabc",
    "\udcff",
    "ü",
    "[bold]",
    "{}",
    "%s",
    "$x$",
    "a" * 300,
    "a" * 5000,
    "[" * 500,
    "\0x"[1:],
    "null",
    "*",
    "**",
    "~",
    "a,b,,c",
    "=",
    "a=b",
    "\\",
)
PATHS = (
    "nowhere",
    "nowhere/deep/down",
    "text.txt",
    "text.txt/below",
    "texts",
    ".",
    "pipe",
    "loop",
    "dangling",
    "/dev/null",
    "/dev/null/x",
    "/dev/zero",
    "sparse.json",
    "a" * 300,
    "\x1b]0;x\x07",
    "ü/\u202e",
    "\udcff",
    "~",
    "bits.bin",
    "empty",
)
"""Beside files of the sandbox: what `damage.prepare` has put there, devices, and names that are none."""
GOOD: dict[str, tuple[str, ...]] = {
    "results": ("results",),
    "out": ("out", "out/page.html"),
    "cache": ("../cache",),
    "sweep": (SWEEP, VARIANTS, TRAINED, "own.yaml", "smoke"),
    "checkpoint": ("ckpt", f"results/{TRAINED}/checkpoints/@", f"{TRAINED}/@"),
    "trials": ("@", "@row"),
    "a": (f"{TRAINED}/@", SWEEP, f"{SWEEP}/@row"),
    "b": (f"{TRAINED}/@", VARIANTS, f"{SWEEP}/@row"),
    "file": ("vectors.json", "text.txt"),
    "texts": ("the memory", ""),
    "text": ("the memory",),
    "tasks": ("own", "task.yaml", "mmlu_anatomy", "bbh", "ruler:niah_single_1", "ruler"),
    "task": ("task.yaml", "mmlu_anatomy"),
    "budget": ("1e11", "1e11,2e11", "20m"),
    "rho": ("0.5", "0,0.5,1", "0.4"),
    "size": ("1m", "1m,3m", "engram-27b", "study"),
    "seeds": ("1", "2"),
    "slots": ("0,100", "1e4"),
    "axis": ("train.learning_rate=0.01,0.02", "model.branches=1,2"),
    "variant": ("low", "a"),
    "corpus": ("files:texts/*.txt", "files:rows.jsonl", "files:rows.parquet", "files:*", "python", "hf:nobody/nothing"),
    "corpus_bytes": ("1MB", "3000"),
    "text_column": ("text", "n"),
    "tokenizer": ("tokenizer.json",),
    "vocab_size": ("300",),
    "fields": ("model.branches=2", "train.optimizer.kind=adamw", "model.memory.design=value"),
    "name": ("new",),
    "address": ("127.0.0.1:1",),
    "tables": ("process", "host", "disk"),
    "table_cache": ("1MiB",),
    "row_format": ("fp32", "int8"),
    "device": ("cpu", "auto"),
    "checkpoint_every": ("90s",),
    "kind": ("auto", "allocation", "evals", "variants"),
    "formats": ("png", "svg,pdf"),
    "spans": ("spans.jsonl",),
    "data": ("data",),
    "squad": ("squad.json",),
    "hotpotqa": ("hotpot.json",),
    "words": ("words.json",),
    "haystack": ("text.txt",),
    "lengths": ("256",),
    "max_length": ("64",),
    "limit": ("2",),
    "seed": ("0",),
    "temperature": ("0", "0.5"),
    "tokens": ("3", "1000"),
    "length": ("32",),
    "rate": ("0.001",),
    "reference": ("ckpt",),
    "layer": ("0", "2"),
    "precision": ("fp32",),
    "optimizer": ("adamw",),
    "what": ("both",),
    "table": ("1MB",),
    "rows": ("100",),
    "figure": ("out/figure.svg",),
    "folder": ("out",),
    "table_optimizer": ("adagrad",),
    "seconds": ("0.01",),
    "rounds": ("1",),
    "workers": ("1", "2"),
    "val_tokens": ("64",),
}
"""Values that make sense, by the name of a parameter; @ stands for the trained model's id, @row for that of a row."""
LARGEST = {"tokens": 1000, "rounds": 3, "limit": 10, "workers": 4}
"""Of what is as much work as is asked for: larger numbers would be honoured, and take their time."""
WRITTEN = {"results", "out", "cache", "folder", "figure", "checkpoint", "a", "b", "reference"}
"""Parameters that name where a command may write."""


def commands() -> dict[Path, Any]:
    """Every command of the program by its words."""

    def below(command: Any, words: Path) -> Iterator[tuple[Path, Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, (*words, name))
        if not getattr(command, "commands", None):
            yield words, command

    return dict(below(typer.main.get_command(app), ()))


def values(parameter: Any) -> st.SearchStrategy[str]:
    """Values of a parameter: sensible ones half the time, then those of its kind, then any text."""
    most = LARGEST.get(parameter.name)
    numbers = st.sampled_from([n for n in NUMBERS if most is None or not (n.isdecimal() and n.isascii() and int(n[:30]) > most)])
    if most is None:
        numbers |= st.integers(-(10**6), 10**6).map(str) | st.floats().map(str)
    letters = st.text(
        string.ascii_letters + string.digits + ".,=:;#[]{}()\"'%$\\ \t\n\x00\x1b\u202eüλ"[:-1].replace("\x00", ""), max_size=20
    )
    wild = {int: numbers, float: numbers}.get(_kind(parameter), st.sampled_from(PATHS) | st.sampled_from(TEXTS) | letters)
    if parameter.name not in GOOD:
        return wild | numbers
    return st.one_of(*[st.sampled_from(GOOD[parameter.name])] * 5, wild, wild, numbers if most else wild | numbers)


def _kind(parameter: Any) -> type:
    annotation = parameter.type_descriptor.annotation
    found = {annotation, *get_args(annotation)} & {int, float}
    return found.pop() if found else str


@st.composite
def command_lines(draw: Any, words: Path, command: Any) -> tuple[str, ...]:
    """A command line: arguments, and a few of the options with values."""
    line: list[str] = []
    for parameter in (p for p in command.params if p.param_type_name == "argument"):
        least, most = (1 if parameter.required else 0), (3 if parameter.nargs == -1 else 1)
        if draw(st.integers(0, 19)) == 0:  # too few, too many
            least, most = 0, most + 1
        line += draw(st.lists(values(parameter), min_size=least, max_size=most))
    options = [p for p in command.params if p.param_type_name == "option"]
    required = [p for p in options if p.required]
    chosen = draw(st.lists(st.sampled_from(options), max_size=5)) if options else []
    for parameter in [*required, *chosen]:
        line.append(draw(st.sampled_from(parameter.opts)))
        if not parameter.is_flag:
            line.append(draw(values(parameter)))
    if draw(st.integers(0, 29)) == 0:
        line.insert(draw(st.integers(0, len(line))), draw(st.sampled_from(("--nosuch", "-q", "--help", "--res", "--json=1", "--", "-"))))
    return (*words, *line)
