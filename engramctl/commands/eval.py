"""`engramctl eval TASK ...`"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram.errors import UserError
from engramctl.results_options import DEFAULT_RESULTS, DEFAULT_SWEEP, JsonOption, ResultsOption, command
from engramctl.sweep_options import DeviceOption, RhoOption, items, numbers

if TYPE_CHECKING:
    from engramctl.evals.requests import Job


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
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Most items of each task.", show_default="all")] = None,
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
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Folder with the tasks' data; what is not there comes from the hub.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
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
    address: Annotated[
        str | None, typer.Option("--address", metavar="URL", help="A running Ray cluster: ray://HOST:10001, HOST:PORT or auto.")
    ] = None,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", metavar="N", min=64, help="Most tokens that go through a model together.")
    ] = 8192,
    as_json: JsonOption = False,
) -> None:
    """Score trained models on benchmarks, with bits per byte of the right answers and the level of chance.

    Trials of a sweep are scored side by side. What is scored already, with the same settings, is not scored again.

    Example: engramctl eval mmlu bbh ruler --sweep laptop --rho 0.4,1 --seed 0
    Example: engramctl eval mmlu bbh --data benchmarks/ --offline --limit 100 --checkpoint results/smoke/checkpoints/0123456789ab
    Example: engramctl eval ruler:niah_single_1 --lengths 512,1024 --best
    """
    from engram.evaluation.environment import require_lm_eval
    from engramctl import console
    from engramctl.evals.choice import checkpoint_jobs, sweep_jobs
    from engramctl.evals.requests import Settings, requests_for

    require_lm_eval()
    if checkpoint is not None and (sweep is not None or rho or budget or seed or best):
        raise UserError("--checkpoint is one model; --sweep, --rho, --budget, --seed and --best choose those of a sweep")
    files = [
        ("--data", data),
        ("--squad", squad),
        ("--hotpotqa", hotpotqa),
        ("--words", words),
        *(("--haystack", f) for f in haystack or []),
    ]
    for option, path in files:
        if path is not None and not path.exists():
            raise UserError(f"{option} {path} does not exist")
    settings = Settings(
        limit,
        fewshot,
        max_length,
        _absolute(data),
        offline,
        tuple(path.absolute() for path in haystack) if haystack else None,
        _absolute(squad),
        _absolute(hotpotqa),
        _absolute(words),
    )
    requests = requests_for(tasks, [_whole("--lengths", one) for one in items(lengths)] or None, settings)
    if checkpoint is not None:
        jobs = checkpoint_jobs(checkpoint, requests)
    else:
        jobs, absent = sweep_jobs(
            results,
            sweep or DEFAULT_SWEEP,
            requests,
            rhos=numbers("--rho", rho),
            budgets=numbers("--budget", budget),
            seeds=[_whole("--seed", one) for one in items(seed)],
            best=best,
        )
        if absent:
            console.note(f"{absent} of the chosen trials have no checkpoint here and are left out")
    failed = _score_missing(jobs, workers, device, address, batch_tokens)
    _report(jobs, failed, "" if checkpoint else sweep or DEFAULT_SWEEP, results, as_json)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _whole(option: str, text: str) -> int:
    if not text.isdigit():
        raise UserError(f"{option}: {text} is not a whole number; numbers are separated by commas")
    return int(text)


def _score_missing(jobs: "Sequence[Job]", workers: int | None, device: str, address: str | None, batch_tokens: int) -> int:
    """Score what has no scores yet; the number of jobs that failed. Exit code 130 when stopped."""
    from engramctl import console, origin
    from engramctl.evals.display import EvalDisplay
    from engramctl.evals.schedule import run_jobs
    from engramctl.evals.store import EvalStore
    from engramctl.evals.worker import Machine
    from engramctl.schedule import Resources, local_workers, ray_session, trial_resources

    left = [job for job in jobs if not EvalStore(job.folder).has(job.file_name)]
    if done := len(jobs) - len(left):
        console.note(f"{done} of {len(jobs)} scored already")
    if not left:
        return 0
    if address is None:
        from engram.training.machine import resolve_device

        workers = workers or local_workers(resolve_device(device).type)
    resources = Resources(device, workers, address)
    console.note(f"starting Ray {'at ' + address if address else 'on this machine'} ...")
    try:
        with ray_session(resources), EvalDisplay(left, done) as display:
            machine = Machine(device, int(trial_resources(resources)["cpu"]), batch_tokens, origin.git_sha())
            run_jobs(left, machine, resources, display.on_event)
    except KeyboardInterrupt:
        console.note("stopped; finished scores are kept, the same command goes on with the others")
        raise typer.Exit(130) from None
    return len(display.failed)


def _report(jobs: "Sequence[Job]", failed: int, sweep: str, results: Path, as_json: bool) -> None:
    """Print the scores; exit code 1 when some jobs failed."""
    import pandas as pd

    from engramctl import console
    from engramctl.evals.store import EvalStore
    from engramctl.evals.tables import remarks, score_table
    from engramctl.summary import records

    folders = dict.fromkeys(job.folder for job in jobs)
    scores = pd.concat([EvalStore(folder).read([job.file_name for job in jobs if job.folder == folder]) for folder in folders])
    if as_json:
        console.print_json({"evals": [str(EvalStore(folder).evals) for folder in folders], "scores": records(scores)})
    elif len(scores):
        terminal = console.out()
        terminal.print(score_table(scores))
        for line in remarks(scores):
            terminal.print(line, markup=False, style="dim", soft_wrap=True)
    for folder in folders:
        console.note(f"scores: {EvalStore(folder).evals}; their items: {EvalStore(folder).items}")
    if sweep and len(scores):
        console.note(f"next: {command('plot', sweep, results)[:-1]} --kind evals`")
    if failed:
        raise typer.Exit(1)
