"""`engramctl bench offload`: what it measures and leaves behind, not how long things take."""

import json

import pytest
from typer.testing import CliRunner

from engramctl.cli import app

pytestmark = pytest.mark.usefixtures("settled_process")
SMALL = [
    *("--table", "1MB", "--table-cache", "20KB,60KB", "--sequences", "8", "--width", "64", "--layers", "2"),
    *("--train-width", "64", "--train-layers", "2", "--memory-dim", "64", "--seconds", "0.2", "--rounds", "2", "--cache-share", "0.3"),
]


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["bench", "offload", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def options(text_folder, cache, tmp_path):
    text = ["--corpus", f"files:{text_folder}/*.txt", "--vocab-size", "400", "--cache", cache]
    return [*text, *SMALL, "--folder", tmp_path]


def test_both_halves_with_their_ratios_their_figure_and_nothing_left_behind(options, tmp_path, check_keys):
    result = run(*options, "--rows", "1e4,3e4", "--figure", tmp_path / "offload.png", "--json")
    document = json.loads(result.stdout)
    check_keys("bench offload", document)
    inference = {case["name"]: case for case in document["inference"]["cases"]}
    assert list(inference) == [
        *("no memory", "no table", "RAM", "disk, 0.0191 MiB", "disk, 0.0191 MiB, cold", "disk, 0.0191 MiB, no prefetch"),
        "disk, 0.0572 MiB",
        *("disk, 1e+04 rows", "disk, 3e+04 rows"),
    ]
    for name, case in inference.items():
        assert case["tokens_per_s"]["median"] > 0
        assert (case["ratio"] is None) == (name == "no table")
        on_disk = name.startswith("disk")
        assert (case["hit_rate"] is not None) == on_disk
        assert 0 <= case["wait_share"] < 1
        if on_disk:
            assert case["reads_per_token"] > 0
    assert document["inference"]["table_bytes"] == pytest.approx(1e6, rel=0.01)
    assert document["training"]["warm_up_steps"] >= 1
    training = {case["name"]: case for case in document["training"]["cases"]}
    assert list(training) == ["process", "disk", "disk, no prefetch", "host", "disk, 1e+04 rows", "disk, 3e+04 rows"]
    for name, case in training.items():
        assert (case["total_ratio"] is None) == (name == "process")
        assert case["peak_rss_bytes"] > 1e7
        if name.startswith("disk"):
            assert case["rows_written_per_step"] > 0
            assert case["rows_read_per_step"] > 0
    assert training["disk, 3e+04 rows"]["rows"] == pytest.approx(30_000, rel=0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["offload.png"]
    assert "inference takes" in result.stderr
    assert "of disk in" in result.stderr


def test_the_tables_for_a_person(options):
    output = run(*options, "--what", "inference", "--row-format", "fp8").output
    for part in ("rows as fp8", "against no table", "disk, 0.0191 MiB, no prefetch", "reads a token"):
        assert part in output
    output = run(*options, "--what", "training", "--table-optimizer", "adagrad", "--optimizer", "adamw").output
    for part in ("with the state of adagrad", "over process", "peak RSS"):
        assert part in output
    assert "median (range)" in output
    assert "median (95 %)" not in output, "two rounds have no interval"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--what", "all"], "--what all: both, inference or training is expected"),
        (["--table", "1PB"], "'1PB' is not a size"),
        (["--table", "9000TB"], "GB of disk are needed in"),
        (["--table-cache", "lots"], "'lots' is not a size"),
        (["--rows", "many"], "--rows: 'many' is not a number"),
        (["--rows", "0"], "--rows 0: at least 1 is expected"),
        (["--row-format", "int4"], "--row-format int4: fp32, bf16, int8 or fp8 is expected"),
        (["--width", "100"], "--width 100: a multiple of 64 is expected"),
        (["--memory-dim", "63"], "--memory-dim 63: a multiple of the 8 rows that a token reads is expected"),
        (["--folder", "{file}/below"], "--folder {file}/below can't be written"),  # by nobody: root makes any other folder
        (["--figure", "x.gif"], "--figure gif: png, svg or pdf is expected"),
        (["--table-optimizer", "sgd"], "--table-optimizer sgd: adam or adagrad is expected"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(options, wrong, message, text_folder, tmp_path):
    file = next(text_folder.iterdir())
    result = run(*options, *(part.format(file=file) for part in wrong), code=2)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert message.format(file=file) in line
    assert not list(tmp_path.iterdir())
