"""What `engramctl bench gpu` prints."""

from collections.abc import Iterator, Sequence

from engram.benchmarks.results.gpu import Bar, GpuPart
from engramctl.present import console
from engramctl.present.format import duration, human

_VERDICTS = {True: "yes", False: "NO", None: ""}


def print_gpu(found: Sequence[GpuPart], bars: Sequence[Bar]) -> None:
    """One table of all that must hold, then what the parts found beside it."""
    out = console.out()
    parts = {part.name: part for part in found}
    peak = parts["peak"].values if "peak" in parts else {}
    if peak.get("product_flops_per_s"):
        copied = peak.get("copied_bytes_per_s")
        moves = "" if copied is None else f", copies {copied / 1e12:.3g} TB/s"
        name = peak.get("gpu") or peak.get("cpu")
        out.print(f"{name}, PyTorch {peak.get('pytorch')}: products {peak['product_flops_per_s'] / 1e12:.4g} TFLOP/s{moves}")
        out.print()
    rows = [
        (bar.what, _number(bar.found, bar.unit), f"{'<=' if bar.most else '>='} {_number(bar.wanted, bar.unit)}", _VERDICTS[bar.holds])
        for bar in bars
    ]
    out.print(console.table(("", "found", "wanted", "holds"), rows))
    out.print()
    out.print(console.table(("part", "took", ""), [(part.name, duration(part.wall_s), _more(part, peak)) for part in found], left=1))


def _more(part: GpuPart, peak: dict[str, float]) -> str:
    return "; ".join([*([part.problem] if part.problem else []), *_facts(part, peak)])


def _facts(part: GpuPart, peak: dict[str, float]) -> Iterator[str]:
    """What a part found beside the numbers of the first table."""
    values = part.values
    if speed := values.get("tokens_per_s"):
        median = speed["median"] if isinstance(speed, dict) else speed
        yield f"{human(median)} tokens/s"
        if peak.get("product_flops_per_s") and peak.get("copied_bytes_per_s") and "flops_per_step" in values:
            floor_s = values["flops_per_step"] / peak["product_flops_per_s"] + values["bytes_per_step"] / peak["copied_bytes_per_s"]
            yield f"{values['tokens_per_step'] / median / floor_s:.1f} x the floor of products and bytes"
    if "memory_bytes" in values:
        yield f"{values['memory_bytes'] / 1e9:.3g} GB"
    if "first_step_s" in values:
        yield f"first step {values['first_step_s']:.1f} s"
    for workers, together in values.get("together", {}).items():
        yield f"{workers}: {human(together['median'])}"
    for cache in ("empty", "full"):
        if cache in values:
            yield f"cache {cache}: first step {values[cache]['first_step_s']:.1f} s, compiling {values[cache]['compiling_s']:.1f} s"
    for probed in values.get("probed", []):
        yield f"{probed['name']}: {probed['problem']}" if probed["problem"] else f"{probed['name']} {1e3 * probed['step_s']:.4g} ms"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "not measured"
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "times":
        return f"{value:.3f} x"
    if unit == "s":
        return f"{value:.1f} s"
    if unit == "FLOP/s":
        return f"{value / 1e12:.4g} TFLOP/s"
    if unit == "nats":
        return f"{value:.2g} nats"
    return f"{human(value)} {unit}"
