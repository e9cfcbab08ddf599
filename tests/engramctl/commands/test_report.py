import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from engramctl.cli import app
from engramctl.results.analysis_store import AnalysisStore
from engramctl.results.schema.analysis import SCHEMAS

RHOS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output + str(result.exception)
    return result


class Page(HTMLParser):
    """Text of the page, and every address that it would load."""

    def __init__(self, html):
        super().__init__()
        self.text, self.loads = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def sweep(tmp_path, make_row, fill):
    config = {"model": {"width": 64}, "train": {"steps": 10}}
    rows = [make_row(rho, seed, config=json.dumps({**config, "rho": rho, "seed": seed})) for rho in RHOS for seed in range(3)]
    return fill(tmp_path, rows, [make_row(0.5, 0)], question="Is <this> an experiment?")


def report(sweep, *more):
    return run("report", sweep.sweep, "--results", str(sweep.results), *more)


def test_one_file_holds_everything(sweep):
    report(sweep)
    html = (sweep.folder / "report.html").read_text()
    page = Page(html)
    text = " ".join(" ".join(page.text).split())
    assert "Is <this> an experiment?" in text
    assert "1 trial missing" in text
    assert "18 trials finished" in text
    assert page.loads
    assert all(address.startswith("data:") for address in page.loads)
    assert not re.search(r"@import|url\((?!data:)", html)
    trials = pd.read_parquet(sweep.folder / "trials")
    assert all(trial in text for trial in trials["trial_id"])
    assert f"{trials[trials['rho'] == 0.4]['val_loss'].mean():.4f}" in text
    assert "0.0, 0.2, 0.4, 0.6, 0.8, 1.0" in text  # a field that varied, with its values


def test_the_verdict_is_the_one_of_fit_and_its_numbers_are_kept(sweep):
    said = json.loads(report(sweep, "--json").stdout)
    fit = json.loads(run("fit", sweep.sweep, "--results", str(sweep.results), "--json").stdout)["allocation"][0]
    (sentences,) = [one["text"] for one in said["verdicts"]]
    assert sentences.startswith(f"Within 0.005 nats of the best: rho {fit['near_best']['low']:.2f} to {fit['near_best']['high']:.2f}")
    assert sentences.endswith(fit["verdict"]["text"])
    assert fit["verdict"]["text"] in " ".join(Page(Path(said["report"]).read_text()).text)
    rows = pd.read_parquet(said["fits"])
    costs = rows[rows["quantity"] == "cost"].set_index("rho")
    assert costs["estimate"].tolist() == pytest.approx(fit["near_best"]["cost"]["loss"])
    kept = rows.set_index("quantity")
    assert kept.loc["near_best", ["low", "high"]].tolist() == [fit["near_best"]["low"], fit["near_best"]["high"]]
    assert kept.loc["rho_star", "estimate"] == pytest.approx(fit["rho_star"]["estimate"])
    assert kept.loc["gain", "high"] == pytest.approx(fit["gain"]["high"])


def test_a_sweep_without_a_finished_trial_has_no_report(tmp_path, make_row, fill):
    fill(tmp_path, [], [make_row(0.5, 0)])
    message = run("report", "allocation", "--results", str(tmp_path), code=2).stderr
    assert "has no finished trial" in message
    assert len(message.strip().splitlines()) == 1


def test_a_page_that_cannot_be_written_is_one_line(sweep, tmp_path):
    (tmp_path / "file").touch()
    message = run("report", sweep.sweep, "--results", str(sweep.results), "--out", str(tmp_path / "file" / "x.html"), code=2).stderr
    assert "can't be written" in message


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_on_a_phone_and_on_a_desk(sweep, tmp_path, width):
    report(sweep)
    page = sweep.folder / "report.html"
    shot = tmp_path / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2400"]
    subprocess.run([BROWSER, *flags, f"--screenshot={shot}", page.as_uri()], capture_output=True, check=True, timeout=120)
    import matplotlib.image

    pixels = matplotlib.image.imread(shot)
    assert pixels.shape[1] == width
    assert 0.01 < (pixels[..., :3].min(axis=-1) < 0.5).mean() < 0.4  # ink on paper


def test_the_documented_lines_give_the_numbers_of_the_report(sweep):
    """docs/results.md: every number again, with pandas alone."""
    report(sweep)
    text = " ".join(Page((sweep.folder / "report.html").read_text()).text)
    section = Path("docs/results.md").read_text().split("## Every number of the report, again")[1].split("\n## ")[0]
    lines = "\n".join(re.findall(r"```python\n(.*?)```", section, re.S)).replace("results/reference/python", str(sweep.folder))
    names: dict = {}
    exec(lines, names)
    for mean in names["points"]["mean"]:
        assert f"{mean:.4f}" in text
    for rho, delta in names["against_rho1"].iloc[0].items():
        assert f"{delta:+.4f}".replace("-", "\N{MINUS SIGN}") in text, rho
    trials = names["trials"].set_index("trial_id")["val_loss"]
    assert names["loss"] == pytest.approx(trials[names["one"]], abs=1e-12)
    assert names["difference"] == pytest.approx(trials[names["one"]] - trials[names["other"]], abs=1e-9)
    assert names["cost"]["trials"].sum() == 18
    assert f"{names['rho_star']['estimate'].iloc[0]:.2f}" in text


def test_results_that_cannot_be_written_don_t_stop_a_page_elsewhere(sweep, tmp_path, monkeypatch):
    from engramctl.results import parquet

    written = parquet.write_atomically

    def refuse(path, content):
        if path.name == "fits.parquet":
            raise PermissionError(13, "Permission denied", str(path))
        written(path, content)

    monkeypatch.setattr(parquet, "write_atomically", refuse)
    out = tmp_path / "elsewhere" / "page.html"
    result = run("report", "allocation", "--results", str(sweep.results), "--out", str(out), "--json")
    assert out.read_text().startswith("<!")
    assert json.loads(result.stdout)["fits"] is None
    assert "fits.parquet can't be written: Permission denied" in result.stderr


def test_a_folder_is_no_name_for_the_page(sweep, tmp_path):
    done = run("report", sweep.sweep, "--results", str(sweep.results), "--out", str(tmp_path), code=2)
    assert f"--out {tmp_path} is a folder" in done.stderr


def test_findings_that_make_no_sense_are_named(sweep):
    """The columns are right, and one of two layers lacks a token."""
    kind = "gate_text"
    values = {field.name: ["aa" if pa.types.is_string(field.type) else 1] * 3 for field in SCHEMAS[kind]}
    path = AnalysisStore(sweep.folder).write("aa", kind, values | {"layer": [0, 0, 1], "position": [0, 1, 0]})
    message = run("report", sweep.sweep, "--results", str(sweep.results), code=2).stderr
    assert f"error: {path} has values that `engramctl analyze` does not write" in message
    assert message.count("\n") == 1
