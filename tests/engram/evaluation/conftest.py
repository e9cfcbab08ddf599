import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from engram.config.model import ModelConfig
from engram.model import Transformer
from engram.tokenizer.bpe import train_bpe

TEXT = Path(__file__).parents[2] / "data" / "words.txt"
SENTENCES = (
    "The following are multiple choice questions (with answers) about abstract algebra.\n\n",
    "Q: Today is 3/5, what's the date tomorrow?\nA: Let's think step by step.\nSo the answer is (B).\n\nAnswer: A\nAnswer: B C D.\n",
)


@pytest.fixture(autouse=True)
def _quick(one_thread):
    """Models this small are slower on more threads."""


@pytest.fixture(scope="session")
def tokenizer():
    words = TEXT.read_text().split()
    return train_bpe([" ".join(words), *SENTENCES], 400)


def _build_model(vocab_size: int, memory: bool = True, attention: str = "mha", seed: int = 0) -> Transformer:
    kinds = {
        "mha": {"kind": "mha", "n_heads": 2},
        "mla": {"kind": "mla", "n_heads": 2, "head_dim": 8, "rope_dim": 4, "value_dim": 6, "kv_rank": 10, "query_rank": 12},
    }
    design = {"design": "engram", "layers": [1], "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 8}
    config = ModelConfig.model_validate(
        {
            "vocab_size": vocab_size,
            "width": 16,
            "n_layers": 2,
            "branches": 1,
            "attention": kinds[attention],
            "moe": {"n_routed_experts": 4, "top_k": 2, "expert_width": 8, "shared_width": 8},
            "memory": design if memory else None,
            "table_init_std": 1.0,
        }
    )
    model = Transformer(config, torch.arange(vocab_size) // 2, 0)
    model.initialise(seed)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if name.endswith((".conv", ".gate", ".base", ".scale")):  # what starts at a constant must take part too
            torch.nn.init.normal_(parameter, generator=generator)
        elif name.endswith("head.weight"):
            parameter.data *= 10  # distributions that are far from even
    return model.eval()


@pytest.fixture(scope="session")
def model(tokenizer):
    return _build_model(tokenizer.get_vocab_size())


def _write_mmlu(folder: Path, subjects: Sequence[str], tests: int = 4) -> Path:
    """Subjects with five examples, and questions whose right answers are A, B, C, D, A, ..."""
    for split, count in (("dev", 5), ("val", 4), ("test", tests)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for subject in subjects:
            with (folder / split / f"{subject}_{split}.csv").open("w", newline="") as file:
                for i in range(count):
                    choices = [f'{subject} {split} {i}, "{letter}"' for letter in "abcd"]
                    csv.writer(file).writerow([f"What is {i} in {subject},\nof {split}? ", *choices, "ABCD"[i % 4]])
    return folder


def _write_bbh(folder: Path, names: Sequence[str], count: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        examples = [{"input": f"{name} number {i}\nOptions:\n(A) this\n(B) that", "target": f"({'AB'[i % 2]})"} for i in range(count)]
        (folder / f"{name}.json").write_text(json.dumps({"canary": "none", "examples": examples}))
    return folder


def _write_json_lines(file: Path, rows: Sequence[dict]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="session")
def build_model():
    return _build_model


@pytest.fixture(scope="session")
def write_mmlu():
    return _write_mmlu


@pytest.fixture(scope="session")
def write_bbh():
    return _write_bbh


@pytest.fixture(scope="session")
def write_json_lines():
    return _write_json_lines
