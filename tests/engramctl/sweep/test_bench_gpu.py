import json
import time

import pytest

from engram.benchmarks.gpu.busy import busy_share, covered, utilisation
from engram.benchmarks.gpu.environment import Environment
from engram.benchmarks.results.gpu import Bar, GpuPart
from engramctl.present.tables.bench_gpu import print_gpu
from engramctl.sweep import bench_gpu
from engramctl.sweep.bench_gpu import PARTS, Part, as_json, bars, run_parts

PEAK = {"product_flops_per_s": 8e14, "copied_bytes_per_s": 2e12, "gpu": "Made Up", "pytorch": "9.9"}


def _range(median):
    return {"median": median, "low": median, "high": median}


def found_parts():
    speed = {
        "tokens_per_s": _range(2.5e6), "tokens_per_step": 32_768, "flops_per_s": 3e13, "p_active": 1_000_000, "busy_share": 0.95,
        "flops_per_step": 4e11, "bytes_per_step": 4e9, "first_step_s": 2.0,
    }  # fmt: skip
    probed = [{"name": "eager fp32", "step_s": 0.1, "problem": None}, {"name": "eager bf16", "step_s": None, "problem": "no room"}]
    return [
        GpuPart("peak", 5.0, None, PEAK),
        GpuPart("speed 10m", 10.0, None, speed),
        GpuPart("beside 10m", 10.0, "it was stopped after 10 s", {"over_dense": _range(0.7), "probed": probed}),
        GpuPart("pack 1m", 9.0, None, {"together": {"1": _range(1e6), "2": _range(3.5e6)}}),
        GpuPart("start", 9.0, None, {name: {"first_step_s": 9.0, "compiling_s": 16.0, "trials": 8} for name in ("empty", "full")}),
        GpuPart("speed 1b", 0.0, None, {"flops_per_s": 2.4e14}),
    ]


def test_bars():
    by_name = {bar.what: bar for bar in bars(found_parts())}
    assert by_name["10m, 32,768 tokens a step"] == Bar("10m, 32,768 tokens a step", 2.5e6, 2.0e6, False, "tokens/s")
    assert by_name["10m, 32,768 tokens a step"].holds is True
    assert by_name["30m, 32,768 tokens a step"].holds is None
    assert by_name["1b, of the measured peak of products"].found == pytest.approx(0.3)
    assert by_name["1m, trials side by side, together"].found == 3.5e6
    assert by_name["10m over our dense model"].holds is True
    assert by_name["10m over transformers at its fastest"].holds is None
    assert by_name["first step of a worker, kernels cached"].holds is False
    # 8 trials of 20 tokens for each active parameter take 64 s at this speed.
    assert by_name["compiling in a sweep of 8 rhos, cache full"].found == pytest.approx(16 / 80)


def test_the_table_says_what_was_not_measured(capsys):
    print_gpu(found_parts(), bars(found_parts()))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Made Up, PyTorch 9.9: products 800 TFLOP/s, copies 2 TB/s"
    text = "\n".join(lines)
    for words in ("not measured", "NO", "it was stopped after 10 s", "eager bf16: no room", "5.2 x the floor"):
        assert words in text


def test_a_part_that_fails_or_hangs_keeps_what_it_had_and_the_others_run(tmp_path, monkeypatch):
    def fails(environment, tell):
        tell(first=1)
        raise RuntimeError("no room\nat all")

    def hangs(environment, tell):
        tell(first=1)
        tell(second={"median": 2})
        time.sleep(60)

    parts = {"fails": Part(fails, 60), "hangs": Part(hangs, 1), "works": Part(lambda environment, tell: tell(third=3), 60)}
    monkeypatch.setattr(bench_gpu, "PARTS", parts)
    monkeypatch.setattr(bench_gpu, "_METHOD", "fork")  # the parts of this test can't be found by another process
    said, file = [], tmp_path / "gpu.json"
    found = run_parts(list(parts), Environment("cpu", tmp_path, 1.0, 1), 60.0, file, said.append)
    assert said == ["fails", "hangs", "works"]
    assert [(part.problem, part.values) for part in found] == [
        ("RuntimeError: no room", {"first": 1}),
        ("it was stopped after 1 s", {"first": 1, "second": {"median": 2}}),
        (None, {"third": 3}),
    ]
    assert json.loads(file.read_text()) == json.loads(json.dumps(as_json(found)))
    (late,) = run_parts(["works"], Environment("cpu", tmp_path, 1.0, 1), 0.0, None, said.append)
    assert late.problem == "no time was left for it"


def test_how_busy():
    assert covered([(0.0, 1.0), (0.5, 2.0), (3.0, 4.0)]) == pytest.approx(0.75)
    assert covered([(0.0, 4.0), (1.0, 2.0)]) == 1.0
    assert covered([]) is None
    assert busy_share(lambda: None, Environment("cpu", PARTS, 1, 1).device) is None
    with utilisation() as mean:
        assert mean() is None
