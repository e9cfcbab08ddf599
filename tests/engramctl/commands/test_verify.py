import json
from pathlib import Path

from typer.testing import CliRunner

from engramctl.cli import app

DATA = Path(__file__).parents[2] / "data"


def run(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def test_verify(tmp_path):
    file = DATA / "engram_vectors.json"
    parts = json.loads(run("verify", str(file), "--json").stdout)
    assert parts["ok"]
    assert all(part["largest"] <= 1e-9 for part in parts["parts"])
    vectors = json.loads(file.read_text())
    vectors["fusion"][0]["gates"][0][0][0] += 1e-6
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(vectors))
    assert "MISMATCH" in run("verify", str(broken), code=1).stdout
    del vectors["fusion"][0]["gates"]
    broken.write_text(json.dumps(vectors))
    assert "fusion[0]: gates is missing" in run("verify", str(broken), code=2).stderr
    broken.write_text("{}")
    assert "is not a vector file" in run("verify", str(broken), code=2).stderr
    broken.write_text("{")
    assert "is not JSON" in run("verify", str(broken), code=2).stderr
    assert "can't be read" in run("verify", str(tmp_path / "none.json"), code=2).stderr


def test_what_is_no_json_is_one_line(tmp_path):
    for name, content in (("deep", "[" * 100_000), ("half", "{"), ("long", '{"hashing": ' + "9" * 5000)):
        (tmp_path / name).write_text(content)
        result = run("verify", str(tmp_path / name), code=2)
        assert "is not JSON: " in result.stderr
        assert result.stderr.count("\n") == 1
