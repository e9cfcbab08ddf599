"""`engramctl eval TASK ...`"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram.errors import UserError
from engramctl.commands.interrupts import EXIT_CODE
from engramctl.commands.options.models import DataOption, LimitOption, OfflineOption
from engramctl.commands.options.parse import existing, existing_file, numbers, whole_numbers
from engramctl.commands.options.results import JsonOption, ResultsOption
from engramctl.commands.options.sweep import AddressOption, DeviceOption, RhoOption
from engramctl.present import console
from engramctl.results.defaults import DEFAULT_RESULTS, DEFAULT_SWEEP, command

if TYPE_CHECKING:
    from engramctl.cluster.session import Resources
    from engramctl.results.score_requests import Job


def evaluate(
    tasks: Annotated[
        list[str], typer.Argument(metavar="TASK", help="mmlu, bbh, ruler, ruler:TASK, or any task or group that lm-eval knows.")
    ],
    sweep: Annotated[
        str | None, typer.Option("--sweep", metavar="NAME", help="Score the trials of this sweep.", show_default=DEFAULT_SWEEP)
    ] = None,
    rho: RhoOption = None,
    budget: Annotated[list[str] | None, typer.Option("--budget", metavar="B", help="Only trials of these FLOPs, e.g. 1e12.")] = None,
    seed: Annotated[list[str] | None, typer.Option("--seed", metavar="N", help="Only trials of these seeds, e.g. 0,1.")] = None,
    best: Annotated[bool, typer.Option("--best", help="Only the trial with the lowest loss of every size, budget and variant.")] = False,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="DIR", help="Score this checkpoint instead of a sweep.", show_default=False)
    ] = None,
    limit: LimitOption = None,
    fewshot: Annotated[
        int | None, typer.Option("--fewshot", metavar="K", min=0, help="Examples in the prompts; default: as the task says, MMLU 5.")
    ] = None,
    lengths: Annotated[
        list[str] | None, typer.Option("--lengths", metavar="L", help="Lengths of RULER's samples, e.g. 512,1024.", show_default="1024")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option("--max-length", metavar="N", min=16, help="Most tokens that a model reads at a time; default: as in training."),
    ] = None,
    data: DataOption = None,
    offline: OfflineOption = False,
    haystack: Annotated[
        list[Path] | None, typer.Option("--haystack", metavar="FILE", help="Text for RULER's essay tasks; may be repeated.")
    ] = None,
    squad: Annotated[Path | None, typer.Option("--squad", metavar="FILE", help="SQuAD's development set, for ruler:qa_1.")] = None,
    hotpotqa: Annotated[Path | None, typer.Option("--hotpotqa", metavar="FILE", help="HotpotQA's, for ruler:qa_2.")] = None,
    words: Annotated[
        Path | None, typer.Option("--words", metavar="FILE", help="RULER's english_words.json, for ruler:cwe above 100,000 tokens.")
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Models at one time; default: one for each core, or each GPU.")
    ] = None,
    device: DeviceOption = "auto",
    address: AddressOption = None,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", metavar="N", min=64, help="Most tokens that go through a model together.")
    ] = 8192,
    as_json: JsonOption = False,
) -> None:
    """Score trained models on benchmarks, with bits per byte of the right answers and the level of chance.

    Trials of a sweep are scored side by side. What is scored already, the same weights with the same settings, is not scored again.

    Example: engramctl eval mmlu bbh ruler --sweep laptop --rho 0.4,1 --seed 0
    Example: engramctl eval mmlu bbh --data benchmarks/ --offline --limit 100 --checkpoint results/smoke/checkpoints/0123456789ab
    Example: engramctl eval ruler:niah_single_1 --lengths 512,1024 --best
    """
    from engram.evaluation.environment import require_lm_eval

    require_lm_eval()
    from engramctl.cluster.session import Resources
    from engramctl.results.score_requests import Settings, requests_for
    from engramctl.sweep.score_jobs import checkpoint_jobs, sweep_jobs

    if checkpoint is not None and (sweep is not None or rho or budget or seed or best):
        raise UserError("--checkpoint is one model; --sweep, --rho, --budget, --seed and --best choose those of a sweep")
    settings = Settings(
        limit=limit,
        fewshot=fewshot,
        max_length=max_length,
        data=existing("--data", data),
        offline=offline,
        squad=existing_file("--squad", squad),
        hotpotqa=existing_file("--hotpotqa", hotpotqa),
        words=existing_file("--words", words),
        haystack=tuple(path for file in haystack if (path := existing_file("--haystack", file))) if haystack else None,
    )
    requests = requests_for(tasks, whole_numbers("--lengths", lengths) or None, settings)
    if checkpoint is not None:
        jobs = checkpoint_jobs(checkpoint, requests)
    else:
        jobs, absent = sweep_jobs(
            results,
            sweep or DEFAULT_SWEEP,
            requests,
            rhos=numbers("--rho", rho),
            budgets=numbers("--budget", budget),
            seeds=whole_numbers("--seed", seed),
            best=best,
        )
        if absent:
            console.note(f"{absent} of the chosen trials have no checkpoint here and are left out")
    failed = _score_missing(jobs, Resources(device, workers, address), batch_tokens)
    _report(jobs, failed, "" if checkpoint else sweep or DEFAULT_SWEEP, results, as_json)


def _score_missing(jobs: "Sequence[Job]", resources: "Resources", batch_tokens: int) -> int:
    """Score what has no scores yet; returns the number of jobs that failed. Exit code 130 when stopped."""
    from dataclasses import replace

    from engramctl.cluster.scoring import run_jobs
    from engramctl.cluster.scoring_worker import Machine
    from engramctl.cluster.session import local_workers, ray_session, trial_resources
    from engramctl.present.live.scoring import ScoringDisplay
    from engramctl.results import provenance
    from engramctl.results.score_store import ScoreStore

    left = [job for job in jobs if not ScoreStore(job.folder).has(job.file_name, job.content)]
    if done := len(jobs) - len(left):
        console.note(f"{done} of {len(jobs)} scored already")
    if old := sum(ScoreStore(job.folder).has(job.file_name) for job in left):
        console.note(f"{old} scored anew: the scores there are of other weights or another version of this program, or don't say of which")
    if not left:
        return 0
    if resources.address is None:
        from engram.training.machine import resolve_device

        resources = replace(resources, workers=resources.workers or local_workers(resolve_device(resources.device).type))
    console.note(f"starting Ray {'at ' + resources.address if resources.address else 'on this machine'} ...")
    try:
        with ray_session(resources), ScoringDisplay(left, done) as display:
            machine = Machine(resources.device, int(trial_resources(resources)["cpu"]), batch_tokens, provenance.git_sha())
            run_jobs(left, machine, resources, display.on_event)
    except KeyboardInterrupt:
        console.note("stopped; finished scores are kept, the same command goes on with the others")
        raise typer.Exit(EXIT_CODE) from None
    return len(display.failed)


def _report(jobs: "Sequence[Job]", failed: int, sweep: str, results: Path, as_json: bool) -> None:
    """Print the scores; exit code 1 when some jobs failed."""
    import pandas as pd

    from engramctl.present.json import print_json, records
    from engramctl.present.tables.scores import print_scores
    from engramctl.results.score_store import ScoreStore

    folders = dict.fromkeys(job.folder for job in jobs)
    scores = pd.concat([ScoreStore(folder).read([job.file_name for job in jobs if job.folder == folder]) for folder in folders])
    if as_json:
        print_json({"evals": [str(ScoreStore(folder).evals) for folder in folders], "scores": records(scores)})
    elif len(scores):
        print_scores(console.out(), scores)
    for folder in folders:
        console.note(f"scores: {ScoreStore(folder).evals}; their items: {ScoreStore(folder).items}")
    if sweep and len(scores):
        console.note(f"next: {command('plot', sweep, results, '--kind', 'evals')}")
    if failed:
        raise typer.Exit(1)
