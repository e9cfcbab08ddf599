"""Which commands read which files; not a test."""

from tests.engramctl.fuzz.sandbox import SWEEP, TRAINED, VARIANTS

_QUICK = ("--format", "svg")
_MODEL = f"{TRAINED}/@"
_SWEEP_READERS = (
    ("status",),
    ("status", SWEEP),
    ("status", SWEEP, "--json"),
    ("fit", SWEEP),
    ("plot", SWEEP, *_QUICK),
    ("plot", SWEEP, "--json", *_QUICK),
    ("report", SWEEP),
    ("compare", SWEEP, VARIANTS),
    ("compare", f"{SWEEP}/@row", f"{SWEEP}/@row", "--json"),
    ("rm", SWEEP, "--yes"),
    ("rm", SWEEP, "@row", "--yes"),
    ("plan", "own.yaml", "--name", SWEEP),
    ("sweep", "own.yaml", "--name", SWEEP),
    ("eval", "bbh", "--sweep", SWEEP),
)
_VARIANT_READERS = (
    ("status", VARIANTS),
    ("fit", VARIANTS),
    ("plot", VARIANTS, *_QUICK),
    ("report", VARIANTS),
    ("compare", VARIANTS, VARIANTS),
)
_FINDING_READERS = (("report", SWEEP), ("plot", SWEEP, *_QUICK), ("status", SWEEP), ("rm", SWEEP, "@row", "--yes"))
_CHECKPOINT_READERS = (
    ("sample", "ckpt", "the memory", "--tokens", "3"),
    ("sample", "ckpt", "the", "--tables", "disk", "--tokens", "3"),
    ("sample", "ckpt/final", "the memory", "--json", "--tables", "host"),
    ("extend", "ckpt", "--length", "32", "--out", "out"),
    ("analyze", "gates", "ckpt", "the memory", *_QUICK),
    ("analyze", "gates", "ckpt", *_QUICK),
    ("analyze", "memory", "ckpt", *_QUICK),
    ("analyze", "depth", "ckpt", _MODEL, *_QUICK),
    ("analyze", "suppress", "ckpt", *_QUICK),
    ("eval", "task.yaml", "--checkpoint", "ckpt"),
    ("bench", "eval", "task.yaml", "--checkpoint", "ckpt", "--offline", "--limit", "2"),
)
_CORPUS_READERS = (
    ("analyze", "memory", _MODEL, *_QUICK),
    ("analyze", "gates", _MODEL, *_QUICK),
    ("analyze", "suppress", _MODEL, *_QUICK),
    ("extend", "ckpt", "--length", "32", "--out", "out"),
    ("corpus", "--corpus", "files:texts/*.txt", "--vocab-size", "300"),
    ("sweep", "own.yaml", "--name", TRAINED),
    ("status", TRAINED),
    ("analyze", "depth", _MODEL, _MODEL, *_QUICK),
)
_TASKS = (("task.yaml",), ("mmlu_anatomy", "--data", "data"), ("bbh_zeroshot_navigate", "--data", "data"))
_TASK_READERS = (
    *(("bench", "eval", *task, "--checkpoint", "ckpt", "--offline", "--limit", "2") for task in _TASKS),
    ("eval", "task.yaml", "mmlu_anatomy", "--checkpoint", "ckpt", "--data", "data", "--offline"),
)


def _corpus(*options: str) -> tuple[tuple[str, ...], ...]:
    more = ("--vocab-size", "300", *options)
    return tuple(
        (*command, *more) for command in (("corpus",), ("corpus", "--json", "--refresh"), ("sweep", "own.yaml"), ("bench", "train"))
    )


READERS = {
    "manifest": ((f"here/results/{SWEEP}/sweep.json",), _SWEEP_READERS),
    "what runs": ((f"here/results/{SWEEP}/running.json", f"here/results/{SWEEP}/checkpoints/*/*/state.json"), _SWEEP_READERS),
    "rows": ((f"here/results/{SWEEP}/trials/*",), _SWEEP_READERS),
    "documents": ((f"here/results/{SWEEP}/documents/*", f"here/results/{SWEEP}/curves/*"), _SWEEP_READERS),
    "variants": ((f"here/results/{VARIANTS}/trials/*", f"here/results/{VARIANTS}/sweep.json"), _VARIANT_READERS),
    "findings": (tuple(f"here/results/{SWEEP}/{kind}/*" for kind in ("analysis", "extensions")), _FINDING_READERS),
    "scores": ((f"here/results/{SWEEP}/evals/*",), (*_FINDING_READERS, ("plot", SWEEP, "--kind", "evals", "--json", *_QUICK))),
    "checkpoint": (("here/ckpt/final/*",), _CHECKPOINT_READERS),
    "tokenizer of a checkpoint": (("here/ckpt/final/tokenizer.json",), _CHECKPOINT_READERS),
    "prepared corpus": (("cache/corpora/*/*", f"here/results/{TRAINED}/sweep.json"), _CORPUS_READERS),
    "vectors": (("here/vectors.json",), (("verify", "vectors.json"), ("verify", "vectors.json", "--json"))),
    "sweep file": (("here/own.yaml",), (("plan", "own.yaml"), ("sweep", "own.yaml"), ("plan", "own.yaml", "--json", "--seeds", "3"))),
    "tokenizer": (("here/tokenizer.json",), _corpus("--corpus", "files:texts/*.txt", "--tokenizer", "tokenizer.json")),
    "JSON lines": (("here/rows.jsonl", "here/rows.jsonl.gz"), _corpus("--corpus", "files:rows.json*")),
    "Parquet rows": (("here/rows.parquet",), _corpus("--corpus", "files:rows.parquet")),
    "text": (("here/texts/00.txt",), _corpus("--corpus", "files:texts/*.txt")),
    "spans": (("here/spans.jsonl",), (("analyze", "depth", "ckpt", "ckpt", "--spans", "spans.jsonl", *_QUICK),)),
    "texts": (("here/text.txt",), (("analyze", "gates", "ckpt", "--file", "text.txt", *_QUICK),)),
    "tasks": (("here/task.yaml", "here/questions.jsonl", "here/data/**/*"), _TASK_READERS),
    "questions": (
        ("here/squad.json", "here/hotpot.json", "here/words.json", "here/text.txt"),
        tuple(
            (
                "eval",
                task,
                "--checkpoint",
                "ckpt",
                "--lengths",
                "256",
                "--squad",
                "squad.json",
                "--hotpotqa",
                "hotpot.json",
                "--words",
                "words.json",
                "--haystack",
                "text.txt",
                "--offline",
            )
            for task in ("ruler:qa_1", "ruler:qa_2", "ruler:cwe", "ruler:niah_single_2")
        ),
    ),
}
"""By the name of a kind of file: patterns of such files, and command lines that read them."""
