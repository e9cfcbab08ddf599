import shutil
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'engramctl[eval]'")

from engramctl.results import score_requests
from engramctl.results.score_requests import Settings, requests_for


def identities(tasks=("mmlu", "ruler"), **changed):
    settings = Settings(**{"limit": 3, "fewshot": 2, **changed})
    return [request.identity(64) for request in requests_for(tasks, [512, 1024], settings)]


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder with everything that a score may depend on."""
    folder = tmp_path / "here"
    for name, content in {
        "data/arc_easy_test.jsonl": "{}",
        "data/mmlu/test/anatomy_test.csv": "a,b",
        "data/bbh/bbh/navigate.json": "{}",
        "data/results/tiny/sweep.json": "{}",
        "data/README.md": "for people",
        "squad.json": "{}",
        "hotpotqa.json": "[]",
        "words.json": "{}",
        "essay.txt": "an essay",
        "tasks/own.yaml": "include: base\ntask: own\nprocess_docs: !function functions.process\n",
        "tasks/base": "include: [deeper.yaml]\ndoc_to_text: x\n",
        "tasks/deeper.yaml": f"dataset_kwargs:\n  data_files: {{test: '{tmp_path}/rows/*.json'}}\n",
        "tasks/functions.py": "process = None\n",
        "../rows/a.json": "{}",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def everything(folder: Path):
    given = {name: folder / f"{name}.json" for name in ("squad", "hotpotqa", "words")}
    return identities(
        [str(folder / "tasks" / "own.yaml"), "mmlu", "ruler:vt"], data=folder / "data", haystack=(folder / "essay.txt",), **given
    )


OWN, MMLU, RULER = {0}, {1}, {2, 3}


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("data/arc_easy_test.jsonl", OWN | MMLU),
        ("data/mmlu/test/anatomy_test.csv", OWN | MMLU),
        ("data/bbh/bbh/navigate.json", OWN | MMLU),
        ("data/results/tiny/sweep.json", set()),
        ("data/README.md", set()),
        ("squad.json", RULER),
        ("hotpotqa.json", RULER),
        ("words.json", RULER),
        ("essay.txt", RULER),
        ("tasks/own.yaml", OWN),
        ("tasks/base", OWN),
        ("tasks/deeper.yaml", OWN),
        ("tasks/functions.py", OWN),
        ("../rows/a.json", OWN),
    ],
)
def test_a_changed_file_is_another_score(files, name, of):
    before = everything(files)
    (files / name).write_text((files / name).read_text() + "\n# changed")
    assert {i for i, (one, other) in enumerate(zip(before, everything(files), strict=True)) if one != other} == of


def test_the_same_files_elsewhere_are_the_same_score(files, tmp_path):
    before = everything(files)
    assert everything(shutil.copytree(files, tmp_path / "elsewhere")) == before
    (files / "data" / "new_test.jsonl").write_text("{}")
    assert everything(files)[0] != before[0]


def test_versions_are_part_of_it(files, monkeypatch):
    before = everything(files)
    monkeypatch.setattr(score_requests, "package_version", lambda _: "0.0")
    assert [one != other for one, other in zip(before, everything(files), strict=True)] == [True, True, False, False]


def test_scores_depend_on_their_own_settings_only(files):
    mmlu, short, long = identities()
    assert (short["length"], long["length"]) == (512, 1024)
    assert identities(data=files / "data")[1:] == [short, long]
    assert identities(haystack=(files / "essay.txt",))[0] == mmlu
    assert identities(limit=4) != identities()
    assert identities(offline=True) == [mmlu, short, long]
