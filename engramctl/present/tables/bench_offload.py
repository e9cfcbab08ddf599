"""What `engramctl bench offload` prints: tables for people, JSON for programs."""

from dataclasses import asdict
from typing import Any

from engram.benchmarks.results import FEWEST, NO_TABLE, PROCESS, Measured, ServingSpeed, TrainingSpeed
from engramctl.present import console
from engramctl.present.format import human
from engramctl.present.tables.bench import print_machine, show_range


def as_json(inference: ServingSpeed | None, training: TrainingSpeed | None) -> dict[str, Any]:
    """Every number that was measured, as JSON."""
    return {
        "inference": None if inference is None else asdict(inference),
        "training": None if training is None else asdict(training),
    }


def print_offload(inference: ServingSpeed | None, training: TrainingSpeed | None) -> None:
    """Tables of inference and training, whichever were measured."""
    if inference is not None:
        _print_inference(inference)
    if training is not None:
        _print_training(training)


def _print_inference(speed: ServingSpeed) -> None:
    out = console.out()
    print_machine(out, speed.machine)
    out.print(
        f"inference: dense model, P_active {speed.p_active:,}; {speed.rows:,} rows as {speed.row_format}, {speed.table_bytes / 1e9:.3g} GB"
        f" ({speed.file_bytes / 1e9:.3g} GB on disk); {speed.sequences:,} sequences, {speed.tokens:,} tokens in {speed.rounds} passes"
    )
    out.print()
    rows = [
        (
            case.name,
            show_range(case.tokens_per_s, human),
            _change(case.total_ratio),
            "" if case.ratio is None else _change_range(case.ratio),
            f"{100 * case.wait_share:.2f} %",
            f"{100 * case.cpu_share:.2f} %",
            "" if case.hit_rate is None else f"{100 * case.hit_rate:.1f} %",
            "" if case.reads_per_token is None else f"{case.reads_per_token:.2f}",
        )
        for case in speed.cases
    ]
    out.print(
        console.table(("tables", "tokens/s", f"against {NO_TABLE}", _median(speed.rounds), "waited", "CPU", "hits", "reads a token"), rows)
    )
    for name, reason in speed.left_out.items():
        out.print(f"{name}: left out, {reason}")
    out.print()


def _print_training(speed: TrainingSpeed) -> None:
    out = console.out()
    print_machine(out, speed.machine)
    out.print(
        f"training: dense model, P_active {speed.p_active:,}, {speed.optimizer}; tables {speed.table_bytes / 1e9:.3g} GB with the state of"
        f" {speed.table_optimizer}, {speed.cache_bytes / 2**20:.0f} MiB of them in RAM; {speed.tokens_per_step:,} tokens a step,"
        f" {speed.rounds} rounds after {speed.warm_up_steps:,} steps of warm-up"
    )
    out.print()
    rows = [
        (
            case.name,
            human(case.rows),
            show_range(case.step_s, lambda value: f"{1e3 * value:.0f}"),
            "" if case.total_ratio is None else f"{case.total_ratio:.3f}",
            "" if case.ratio is None else show_range(case.ratio, lambda value: f"{value:.3f}"),
            f"{100 * case.wait_share:.2f} %",
            "" if case.hit_rate is None else f"{100 * case.hit_rate:.1f} %",
            "" if case.rows_read_per_step is None else f"{case.rows_read_per_step:,.0f}",
            "" if case.rows_written_per_step is None else f"{case.rows_written_per_step:,.0f}",
            f"{case.peak_rss_bytes / 1e9:.2f} GB",
        )
        for case in speed.cases
    ]
    columns = ("tables", "rows", "ms a step", f"over {PROCESS}", _median(speed.rounds), "waited", "hits", "read", "written", "peak RSS")
    out.print(console.table(columns, rows))
    for name, reason in speed.left_out.items():
        out.print(f"{name}: left out, {reason}")


def _median(rounds: int) -> str:
    """Heading of a column of medians: with few rounds the range stands beside them, an interval only with more."""
    return "median (95 %)" if rounds >= FEWEST else "median (range)"


def _change(ratio: float | None) -> str:
    return "" if ratio is None else f"{100 * (ratio - 1):+.2f} %"


def _change_range(ratio: Measured) -> str:
    return show_range(ratio, lambda value: f"{100 * (value - 1):+.2f} %")
