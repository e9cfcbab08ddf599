"""One process of several that train trials together: `python train_together.py JOBS.json RANK`; not a test.

JOBS.json: `count` processes, a `rendezvous` file, a `corpus` folder, and `jobs`, each with a `trial`, its `folder`, and where they differ
from the usual `pass_tokens` and `checkpoint_seconds`. Every process writes what it came to as `<folder>/outcome-<rank>.json`.
"""

import hashlib
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from engram.config import TrialConfig
from engram.corpus.dataset import Corpus
from engram.memory import sharded
from engram.processes import ALONE, Processes
from engram.training import validation
from engram.training.loop import Trainer

CPU = torch.device("cpu")
TIMEOUT_S = 60


def digest(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    return {name: hashlib.sha256(tensor.detach().flatten().view(torch.uint8).numpy()).hexdigest() for name, tensor in tensors.items()}


@torch.no_grad()
def logits(trainer: Trainer) -> list[float]:
    """Some of those of the first batch, which all processes look at."""
    tokens = torch.from_numpy(trainer.batches.batch(0)[:, :-1])
    found = trainer.model.eval().logits(tokens).flatten()[::97].tolist()
    trainer.model.train()
    return found


def train(job: dict[str, Any], corpus: Corpus, processes: Processes) -> None:
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    validation.PASS_TOKENS = job.get("pass_tokens", 8192)
    trial = TrialConfig.model_validate(job["trial"])
    trainer = Trainer(trial, corpus, folder / "checkpoints", CPU, job.get("checkpoint_seconds", 1e9), processes=processes)
    started_at = trainer.state.step
    first_logits = logits(trainer)
    while not trainer.done:
        progress = trainer.advance(0.2)
        (folder / f"step-{processes.rank}").write_text(str(progress.step))
    outcome = trainer.outcome()
    trainer.discard_checkpoints()
    kept = {
        "status": outcome.status,
        "started_at": started_at,
        "val_loss": outcome.values["val_loss"],
        "starved_experts": outcome.values["starved_experts"],
        "curve": outcome.curve,
        "document_losses": outcome.documents["loss_sum"].tolist(),
        "first_logits": first_logits,
        "last_logits": logits(trainer),
        "digests": digest(trainer.model.state_dict()),
        "rows": [len(table.weight) for table in trainer.model.tables()],
    }
    (folder / f"outcome-{processes.rank}.json").write_text(json.dumps(kept))


def main(jobs_file: str, rank: int) -> None:
    spec = json.loads(Path(jobs_file).read_text())
    torch.set_num_threads(1)
    processes = ALONE
    if spec["count"] > 1:
        timeout = timedelta(seconds=TIMEOUT_S)
        dist.init_process_group("gloo", f"file://{spec['rendezvous']}", timeout, world_size=spec["count"], rank=rank)
        processes = Processes.of_default_group(CPU)
    sharded._PIECE = 200  # several in small tables
    corpus = Corpus.open(Path(spec["corpus"]))
    for job in spec["jobs"]:
        train(job, corpus, processes)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
