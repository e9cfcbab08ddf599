"""`engramctl bench eval`"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from engramctl.commands.options import bench as bench_options
from engramctl.commands.options import sweep as sweep_options
from engramctl.commands.options.models import OfflineOption
from engramctl.commands.options.results import JsonOption
from engramctl.present.json import print_json


def evaluation(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task or group of lm-eval's whose answers are choices.")],
    checkpoint: Annotated[Path, typer.Option("--checkpoint", metavar="DIR", help="The model.", show_default=False)],
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Most items of each task.")] = 20,
    max_length: Annotated[
        int, typer.Option("--max-length", metavar="N", min=16, help="Most tokens that the model reads at a time: enough for whole prompts.")
    ] = 4096,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Folder with the tasks' data.")] = None,
    offline: OfflineOption = False,
    rounds: bench_options.RoundsOption = 1,
    device: sweep_options.DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """What is saved by computing the common beginnings of prompts once: tokens and time, on one process with one thread.

    Example: engramctl bench eval mmlu --checkpoint results/smoke/checkpoints/0123456789ab --data benchmarks/ --offline
    """
    from engram.evaluation.environment import require_lm_eval

    require_lm_eval()
    from engram.benchmarks.machine import this_machine
    from engram.benchmarks.prefix_sharing import Asked, measure_prefix_sharing
    from engram.evaluation.adapter import EngramLM
    from engram.evaluation.run import evaluate
    from engram.training.checkpoints.restore import load_final
    from engram.training.machine import resolve_device, settle_process
    from engramctl.present.tables import bench as tables

    where = resolve_device(device)
    settle_process(1, where)
    restored = load_final(checkpoint, where)
    asked = Asked()
    evaluate(asked, [task], data=data, limit=limit, offline=offline, answer_bpb=False)
    model = EngramLM.from_restored(restored, max_length)
    sharing = measure_prefix_sharing(model, asked.requests, rounds)
    machine = replace(this_machine(restored.trial.train, restored.model.head_weight.device), precision=model.precision)
    if as_json:
        setting = {"task": task, "limit": limit, "max_length": max_length, "trial": restored.trial.id, "rounds": rounds}
        print_json({"bench": "eval", "setting": setting, **tables.sharing_json(machine, sharing)})
    else:
        tables.print_sharing(task, machine, sharing)
