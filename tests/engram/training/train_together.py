"""One process of several that train trials together: `python train_together.py JOBS.json RANK`; not a test.

JOBS.json: `count` processes, a `rendezvous` file, a `corpus` folder, and `jobs`, each with a `trial`, its `folder`, and where they differ
from the usual

- `pass_tokens`: tokens of a pass;
- `products`: type of Muon's products, fp32 unless it is given: no CPU decides what is tested;
- `perturbed`: by which share about the initial weights are changed at random;
- `last_checkpoint`: a checkpoint comes after every step up to this one, and none later;
- `rest`: the step from which on the last process trains no more but waits to be killed, and the others for it.

Every process writes what it came to as `<folder>/outcome-<rank>.json`.
"""

import hashlib
import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.memory import sharded
from engram.processes import ALONE, Processes
from engram.training import validation
from engram.training.trainer import Trainer

CPU = torch.device("cpu")
TIMEOUT_S = 600
"""Long: processes wait for each other's start on a busy machine, and nothing that is tested ends by it."""


def digest(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    return {name: hashlib.sha256(tensor.detach().flatten().view(torch.uint8).numpy()).hexdigest() for name, tensor in tensors.items()}


@torch.no_grad()
def logits(trainer: Trainer) -> list[float]:
    """Some of those of the first batch, which all processes look at."""
    tokens = torch.from_numpy(trainer.batches.batch(0)[:, :-1])
    found = trainer.model.eval().logits(tokens).flatten()[::97].tolist()
    trainer.model.train()
    return found


@torch.no_grad()
def perturb(trainer: Trainer, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for weight in trainer.model.parameters():
        weight *= 1 + share * torch.randn(weight.shape, generator=generator)


def train(job: dict[str, Any], corpus: Corpus, processes: Processes) -> None:
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    validation.PASS_TOKENS = job.get("pass_tokens", 8192)
    trial = TrialConfig.model_validate(job["trial"])
    trainer = Trainer(trial, corpus, folder / "checkpoints", CPU, 1e9, processes=processes)
    if trainer.optimizers.muon:
        trainer.optimizers.muon.dtype = getattr(torch, job.get("products", "float32"))
    if "perturbed" in job:
        perturb(trainer, job["perturbed"])
    started_at = trainer.state.step
    first_logits = logits(trainer)
    while not trainer.done:
        trainer.checkpoint_seconds = 0 if trainer.state.step < job.get("last_checkpoint", 0) else 1e9
        trainer.advance(1e-4 if "rest" in job else 1e9)  # a step, or all
        (folder / f"step-{processes.rank}").write_text(str(trainer.state.step))
        if trainer.state.step >= job.get("rest", 1e9) and processes.rank == processes.count - 1:
            time.sleep(TIMEOUT_S)
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
