from pathlib import Path

import pytest
import torch

from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.corpus.prepare import prepare_corpus
from engram.corpus.sources import CorpusSpec
from engram.model import Transformer
from engram.training.checkpoints.restore import Restored

MEMORIES = {
    "engram": {"design": "engram", "layers": [0, 2], "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 12},
    "engram, root": {"design": "engram", "layers": [0, 2], "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 12, "gate": "signed_sqrt"},
    "engram, biased": {"design": "engram", "layers": [1], "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 12, "projection_bias": True},
    "engram, no gate": {"design": "engram", "layers": [1], "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 12, "gate": "none"},
    "engram, one gate": {"design": "engram", "layers": [1], "table_sizes": [40], "n_heads": 2, "memory_dim": 4, "branch_gates": False},
    "engram-v4.1": {"design": "engram-v4.1", "layers": [0, 2], "table_sizes": [40, 50, 60], "n_heads": 2, "memory_dim": 12},
    "over-encoding": {"design": "over-encoding", "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 12},
    "value": {"design": "value", "layers": [0, 2], "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 12},
    "none": None,
}


@pytest.fixture(autouse=True)
def _quick(one_thread):
    """Models this small are slower on more threads."""


@pytest.fixture(scope="session")
def build():
    """`build(memory, branches, vocab_size, ...)`: a model with random weights of which none is without effect, in evaluation mode."""

    def of(memory="engram", branches=1, vocab_size=97, n_layers=3, compression=None, pad_id=3, seed=1) -> Transformer:
        config = ModelConfig.model_validate(
            {
                "vocab_size": vocab_size,
                "width": 24,
                "n_layers": n_layers,
                "branches": branches,
                "attention": {"kind": "mha", "n_heads": 3},
                "moe": {"n_routed_experts": 5, "top_k": 2, "expert_width": 8, "shared_width": 10},
                "memory": MEMORIES[memory],
                "table_init_std": 1.0,
            }
        )
        model = Transformer(config, torch.arange(vocab_size) // 2 if compression is None else compression, pad_id)
        model.initialise(seed)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if name.endswith((".conv", ".gate", ".base", ".scale", "bias", "_norm")):
                torch.nn.init.normal_(parameter, generator=generator)
        return model.eval()

    return of


@pytest.fixture(scope="session")
def restore(build):
    """`restore(corpus, memory, ...)`: a checkpoint as `load_final` gives it, of such a model."""

    def of(corpus, memory="engram", branches=1, seq_len=16, seed=1, **changes) -> Restored:
        ids = torch.from_numpy(corpus.compression.copy())
        model = build(memory, branches, corpus.vocab_size, compression=ids, pad_id=corpus.end_of_text_id, seed=seed)
        trial = TrialConfig(
            size="1m",
            rho=0.5,
            seed=0,
            budget_flops=1e9,
            model=model.config,
            train=TrainConfig(steps=1, batch_size=8, seq_len=seq_len, learning_rate=0.01, val_tokens=1024, n_validations=1),
            corpus_fingerprint=corpus.fingerprint,
            tokenizer_fingerprint=corpus.tokenizer_fingerprint,
        ).model_copy(update=changes)
        return Restored(Path("checkpoint"), model, corpus.tokenizer(), trial, corpus.end_of_text_id)

    return of


@pytest.fixture(scope="session")
def code_corpus(tmp_path_factory):
    """Documents with names and identifiers."""
    folder = tmp_path_factory.mktemp("code")
    for number in range(240):  # much alike, so that only a quarter of the validation documents stays
        name = f"read_block_{number % 7}"
        body = f"class HashTable{number}:\n    def {name}(self, row_index, maxNgram):\n        # Alan Turing and Grace Hopper\n"
        (folder / f"{number}.txt").write_text(body + f"        return self.{name}(row_index + {number}, maxNgram)\n" * 6)
    return prepare_corpus(CorpusSpec(source=f"files:{folder}/*.txt", vocab_size=300, val_fraction=0.3), tmp_path_factory.mktemp("cache"))
