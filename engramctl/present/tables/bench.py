"""What the `engramctl bench` commands print: tables for people, JSON for programs."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from engram.benchmarks.results import COUNTED, Comparison, Machine, Measured, MemorySpeed, Pack, PrefixSharing, SideBySide, TrainSpeed
from engram.scaling.accounting import count_parameters
from engramctl.present import console
from engramctl.present.format import counted, human
from engramctl.sweep.bench_result import SweepSpeed

if TYPE_CHECKING:
    from engram.benchmarks.shapes import Setup


def train_json(speed: TrainSpeed, side: SideBySide | None) -> dict[str, Any]:
    """JSON of `bench train`."""
    counts = count_parameters(speed.model)
    return {
        "machine": asdict(speed.machine),
        "p_total": counts.p_total,
        "p_active": counts.p_active,
        "n_routed_experts": speed.model.moe.n_routed_experts,
        "tokens_per_s": asdict(speed.tokens_per_s),
        "step_s": asdict(speed.step_s),
        "parts": [asdict(part) for part in speed.parts],
        "other": {"seconds": speed.other_s, "share": speed.other_s / speed.step_s.median},
        "flops_per_token": speed.flops_per_token,
        "flops_counted": COUNTED,
        "flops_per_s": speed.flops_per_s,
        "products": [asdict(product) for product in speed.products],
        "products_s": speed.products_s,
        "products_share": speed.products_share,
        "products_flops_per_s": speed.products_flops_per_s,
        "side_by_side": side and _side_json(speed, side),
    }


def _side_json(speed: TrainSpeed, side: SideBySide) -> dict[str, Any]:
    copies = [asdict(copy) for copy in side.tokens_per_s]
    return {
        "workers": len(copies),
        "tokens_per_s": copies,
        "total_tokens_per_s": side.total_tokens_per_s,
        "share_of_alone": _kept(speed, side),
    }


def _kept(speed: TrainSpeed, side: SideBySide) -> float:
    """Speed of a copy among others over that of a copy alone."""
    return side.total_tokens_per_s / len(side.tokens_per_s) / speed.tokens_per_s.median


def sweep_json(speed: SweepSpeed) -> dict[str, Any]:
    """JSON of `bench sweep`."""
    return asdict(speed) | {"efficiency": speed.efficiency, "rest_s": speed.rest_s}


def print_train(setup: "Setup", rho: float, speed: TrainSpeed, side: SideBySide | None) -> None:
    """Tables of `bench train`."""
    out = console.out()
    counts, whole = count_parameters(speed.model), speed.step_s.median
    print_machine(out, speed.machine)
    experts = f"{speed.model.moe.n_routed_experts} experts"
    out.print(
        f"{setup.size.name}, rho {rho:g}, {experts}, P_total {counts.p_total:,}, P_active {counts.p_active:,}, {setup.optimizer},"
        f" {speed.tokens_per_step:,} tokens a step"
    )
    out.print(f"{show_range(speed.tokens_per_s, human)} tokens/s, {show_range(speed.step_s, _ms)} ms a step")
    out.print()
    rows = [(part.name, show_range(part.seconds, _ms), _percent(part.share)) for part in speed.parts]
    rows += [("other", _ms(speed.other_s), _percent(speed.other_s / whole)), ("whole step", show_range(speed.step_s, _ms), _percent(1))]
    out.print(console.table(("part", "ms a step", "share"), rows))
    out.print()
    products = [
        (
            product.name,
            " x ".join(map(str, product.shape)),
            product.count,
            product.dtype,
            show_range(product.seconds, _ms),
            f"{product.flops / product.seconds.median / 1e9:.0f}",
        )
        for product in speed.products
    ]
    out.print(console.table(("product alone", "batch x n x k x m", "times", "type", "ms a step", "GFLOP/s"), products))
    out.print()
    out.print(
        f"training does {speed.flops_per_s / 1e9:.1f} GFLOP/s; its products alone reach {speed.products_flops_per_s / 1e9:.1f}"
        f" and would take {_percent(speed.products_share)} of the step"
    )
    out.print(f"counted: {COUNTED}", soft_wrap=True)
    if side is not None:
        each = ", ".join(show_range(copy, human) for copy in side.tokens_per_s)
        out.print(f"{len(side.tokens_per_s)} copies side by side: {each} tokens/s, together {human(side.total_tokens_per_s)}")
        out.print(f"each trains at {_percent(_kept(speed, side))} of the speed of one alone")


def print_memory(setup: "Setup", speed: MemorySpeed) -> None:
    """Tables of `bench memory`."""
    out = console.out()
    print_machine(out, speed.machine)
    out.print(f"{setup.size.name}, {setup.optimizer}, {speed.tokens_per_step:,} tokens a step")
    out.print()
    rows = [
        (
            case.name,
            human(case.rows),
            f"{human(case.table_bytes)}B",
            f"{case.p_active:,}",
            f"{case.distinct_rows:,} of {case.reads:,}",
            show_range(case.step_s, _ms),
            "" if case.ratio is None else f"{show_range(case.ratio, _ratio)} x {case.against}",
        )
        for case in speed.cases
    ]
    columns = ("case", "rows", "with moments", "P_active", "distinct rows of reads", "ms a step", "step time")
    out.print(console.table(columns, rows))
    for name, reason in speed.left_out.items():
        out.print(f"{name}: left out, {reason}")


def print_comparison(setup: "Setup", rho: float, comparison: Comparison) -> None:
    """Tables of `bench compare`."""
    out = console.out()
    print_machine(out, comparison.machine)
    out.print(f"{setup.size.name}, rho {rho:g}, ours with {setup.optimizer}, {setup.tokens_per_step:,} tokens a step")
    out.print()
    variants = [
        (v.experts, f"{v.dtype}{', compiled' if v.compiled else ''}", "" if v.step_s is None else _ms(v.step_s), v.problem)
        for v in comparison.variants
    ]
    title = f"transformers {comparison.transformers}, probed"
    out.print(console.table(("experts", "type", "ms a step", ""), variants, left=2, title=title))
    out.print()
    rows = [
        (case.name, _count(case.p_total), _count(case.p_active), show_range(case.step_s, _ms), show_range(case.tokens_per_s, human))
        for case in comparison.cases
    ]
    out.print(console.table(("case", "P_total", "P_active", "ms a step", "tokens/s"), rows))
    out.print()
    for ratio in comparison.ratios:
        out.print(f"{ratio.of}: {show_range(ratio.tokens_per_s, _ratio)} x the tokens/s of {ratio.against}")
    tables = comparison.tables
    out.print(
        f"memory with a table of {tables.rows:,} rows of {tables.row_dim}: {show_range(tables.by_row_s, _ms)} ms a step by row,"
        f" {show_range(tables.dense_s, _ms)} ms with dense gradients, ratio {show_range(tables.ratio, _ratio)}"
    )


def print_sweep(size: str, rho: float, optimizer: str, speed: SweepSpeed) -> None:
    """Tables of `bench sweep`."""
    out = console.out()
    print_machine(out, speed.machine)
    out.print(f"{size}, rho {rho:g}, {optimizer}, {speed.trials} trials of {speed.steps:,} steps, {speed.workers} at a time")
    out.print()
    out.print(console.table(("where the workers' time went", "s", "share"), _shares(speed)))
    out.print()
    begun = "" if speed.startup_s is None else f"; first training step after {speed.startup_s:.1f} s"
    out.print(f"wall {speed.wall_s:.1f} s, {human(speed.tokens_per_s)} tokens/s together{begun}; {speed.shutdown_s:.1f} s to stop Ray")
    out.print(f"efficiency {_percent(speed.efficiency)}")


def pack_json(pack: Pack) -> dict[str, Any]:
    """JSON of `bench pack`."""
    return asdict(pack) | {"best": pack.best}


def print_pack(setup: "Setup", rho: float, pack: Pack) -> None:
    """Table of `bench pack`."""
    out = console.out()
    print_machine(out, pack.machine)
    out.print(f"{setup.size.name}, rho {rho:g}, {setup.optimizer}, {pack.tokens_per_step:,} tokens a step")
    out.print()
    alone = pack.counts[0].together.median / pack.counts[0].workers
    rows = [
        (
            packed.workers,
            show_range(packed.together, human),
            human(packed.together.median / packed.workers),
            _percent(packed.together.median / packed.workers / alone),
        )
        for packed in pack.counts
    ]
    out.print(console.table(("trials side by side", "tokens/s together", "of each", "of the first line"), rows, left=0))
    out.print()
    sharing = "" if pack.machine.gpu is None else ", through MPS" if pack.mps else ", by turns: no MPS daemon runs"
    out.print(f"{pack.best} at a time pay{sharing}")
    if pack.problem is not None:
        out.print(f"larger numbers don't train: {pack.problem}")


def sharing_json(machine: Machine, sharing: PrefixSharing) -> dict[str, Any]:
    """JSON of `bench eval`."""
    return {"machine": asdict(machine)} | asdict(sharing) | {"fewer_tokens": sharing.fewer_tokens}


def print_sharing(task: str, machine: Machine, sharing: PrefixSharing) -> None:
    """Tables of `bench eval`."""
    out = console.out()
    print_machine(out, machine)
    out.print(f"{task}: {sharing.n_requests:,} choices")
    out.print()
    rows = [
        (name, f"{tokens:,}", show_range(seconds, lambda value: f"{value:.1f}"), human(tokens / seconds.median))
        for name, tokens, seconds in (
            ("every prompt by itself", sharing.tokens_alone, sharing.seconds_alone),
            ("common beginnings once", sharing.tokens_shared, sharing.seconds_shared),
        )
    ]
    out.print(console.table(("", "tokens", "s", "tokens/s"), rows))
    out.print()
    out.print(
        f"{_ratio(sharing.fewer_tokens)} x fewer tokens, {show_range(sharing.speedup, _ratio)} x faster;"
        f" log-likelihoods differ by at most {sharing.largest_difference:.2g} nats"
    )


def _shares(speed: SweepSpeed) -> Iterator[tuple[str, str, str]]:
    whole = speed.workers * speed.wall_s
    groups = {
        "optimiser steps": speed.train_s,
        "validations": speed.validation_s,
        "before the first step": speed.waiting_s,
        "idle at the end": speed.idle_end_s,
        "checkpoints, rows, models, the driver": speed.rest_s,
        "workers x wall": whole,
    }
    for name, seconds in groups.items():
        yield name, f"{seconds:.1f}", _percent(seconds / whole)


def print_machine(out: Console, machine: Machine) -> None:
    """The machine that the numbers were measured on."""
    gpu = f", {machine.gpu}" if machine.gpu else ""
    out.print(
        f"{machine.cpu}, {machine.cores} cores{gpu}; PyTorch {machine.pytorch} on {machine.device},"
        f" {counted(machine.threads, 'thread')} a process, kernels {machine.kernels}, {machine.precision}"
    )


def show_range(value: Measured, show: Any) -> str:
    """Median and range over the rounds, each number formatted by `show`."""
    return f"{show(value.median)} ({show(value.low)}..{show(value.high)})"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
