"""What a result depends on is part of its identity; where files lie is not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'engramctl[eval]'")

from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.corpus.prepare import prepare_corpus
from engram.corpus.sources import CorpusSpec
from engram.scaling.allocation import allocate, baseline, memory_template
from engram.scaling.ladder import LADDER
from engram.training.extension import extension
from engramctl.commands.analyze.target import Target
from engramctl.findings.fit_identity import fit_identity
from engramctl.results import measuring_code
from engramctl.results.checkpoints import ExtensionPlace
from engramctl.results.fingerprints import identity
from engramctl.results.score_requests import Job, Settings, requests_for
from engramctl.results.sweep_results import SweepResults
from engramctl.sweep.extend import Extension
from tests.conftest import write_documents

FILES = {
    "task/own.yaml": "task: own\ndoc_to_text: x\n",
    "data/arc_easy_test.jsonl": "{}",
    "squad.json": "{}",
    "spans.jsonl": "{}",
    "source/weights.safetensors": "of the source",
    "reference/weights.safetensors": "of the reference",
    "extended/final/weights.safetensors": "of the extension",
}


class World:
    """All that results depend on, in one folder, and what the results of each kind are of."""

    def __init__(self, folder: Path, fill_rows: Callable[[Path, float], None]) -> None:
        self.folder, self.fill_rows = folder, fill_rows
        self.limit, self.seed, self.vocab_size, self.margin = 3, 0, 300, 0.005
        write_documents(folder / "text", 30, words=100)
        for name, content in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        fill_rows(folder / "results", 3.0)

    def identities(self) -> dict[str, str]:
        """By kind of result."""
        spec = CorpusSpec(source=f"files:{self.folder}/text/*.txt", vocab_size=self.vocab_size, val_fraction=0.2)
        corpus, size = prepare_corpus(spec, self.folder / "cache"), LADDER["1m"]
        trial = TrialConfig(
            size="1m",
            rho=0.5,
            seed=self.seed,
            budget_flops=1e9,
            model=allocate(baseline(size, corpus.vocab_size), memory_template(size), 0.5),
            train=TrainConfig(steps=3, batch_size=4, seq_len=16, learning_rate=0.01),
            **corpus.fingerprints,
        )
        longer = extension(trial, 32, tokens=1000 * self.limit)
        settings = Settings(limit=self.limit, data=self.folder / "data", squad=self.folder / "squad.json")
        requests = requests_for([str(self.folder / "task" / "own.yaml"), "ruler:qa_1"], [512], settings)
        own, ruler = (Job(self.folder / "source", self.folder, trial, request) for request in requests)
        source, reference = (SimpleNamespace(folder=self.folder / name, trial=longer) for name in ("source", "reference"))
        source.trial = trial
        place = ExtensionPlace(self.folder / "extended", self.folder / "row.parquet", None)
        extended = Extension(source, longer, corpus, place, reference, 512)
        asked = {"layers": self.limit, "spans": self.folder / "spans.jsonl"}
        known = {"model": Target(source, None).content, "asked": asked, "code": measuring_code.measuring_code("engram.analysis.gates")}
        return {
            "trial": trial.id,
            "task": own.content,
            "ruler": ruler.content,
            "analysis": identity("analysis gates", known),
            "extension": extended.trained_from,
            "measured": extended.measured,
            "fit": fit_identity(SweepResults.open(self.folder / "results", "allocation"), self.margin),
        }


@pytest.fixture
def world(tmp_path, fill, make_row) -> World:
    def fill_rows(results: Path, loss: float) -> None:
        fill(results, [make_row(rho=rho, val_loss=loss + rho) for rho in (0, 0.5, 1)])

    return World(tmp_path / "here", fill_rows)


Change = Callable[[World, pytest.MonkeyPatch], object]


def rewrite(name: str) -> Change:
    return lambda world, _: (world.folder / name).write_text(FILES[name] + "\n# changed")


def other_code(module: str) -> Change:
    """Another number in a module, as if its file had been edited."""

    def change(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        edited = world.folder / "edited.py"
        original = measuring_code._file(module)
        edited.write_text(original.read_text() + "\nCHANGED = 1\n")
        find = measuring_code._file
        monkeypatch.setattr(measuring_code, "_file", lambda name: edited if name == module else find(name))
        measuring_code.measuring_code.cache_clear()

    return change


MODELS = {"trial", "task", "ruler", "analysis", "extension", "measured"}
MEASURED = MODELS - {"trial", "extension"}
INPUTS = {
    "text": (lambda world, _: (world.folder / "text" / "new.txt").write_text("another document " * 50), MODELS),
    "tokenizer": (lambda world, _: vars(world).update(vocab_size=310), MODELS),
    "setting of the trial": (lambda world, _: vars(world).update(seed=1), MODELS),
    "setting of a fit": (lambda world, _: vars(world).update(margin=0.01), {"fit"}),
    "setting of what is asked": (lambda world, _: vars(world).update(limit=4), MODELS - {"trial"}),
    "task": (rewrite("task/own.yaml"), {"task"}),
    "data": (rewrite("data/arc_easy_test.jsonl"), {"task"}),
    "questions": (rewrite("squad.json"), {"ruler"}),
    "spans": (rewrite("spans.jsonl"), {"analysis"}),
    "weights": (rewrite("source/weights.safetensors"), MODELS - {"trial"}),
    "weights of the reference": (rewrite("reference/weights.safetensors"), {"measured"}),
    "weights of the extension": (rewrite("extended/final/weights.safetensors"), {"measured"}),
    "losses": (lambda world, _: world.fill_rows(world.folder / "results", 3.1), {"fit"}),
    "code of the model": (other_code("engram.model.attention"), MEASURED),
    "code of scores": (other_code("engram.evaluation.run"), {"task", "ruler"}),
    "code of RULER": (other_code("engram.evaluation.ruler.needles"), {"task", "ruler"}),
    "code of an analysis": (other_code("engram.analysis.gates"), {"analysis"}),
    "code of LongPPL": (other_code("engram.evaluation.long_ppl"), {"measured"}),
    "code of fits": (other_code("engram.fitting.optimum"), {"fit"}),
}


@pytest.mark.parametrize(("change", "of"), INPUTS.values(), ids=INPUTS)
def test_a_changed_input_is_another_result(world, monkeypatch, change, of):
    before = world.identities()
    change(world, monkeypatch)
    after = world.identities()
    measuring_code.measuring_code.cache_clear()
    assert {kind for kind in before if before[kind] != after[kind]} == of


def test_the_same_content_elsewhere_is_the_same_result(world, tmp_path):
    before = world.identities()
    for number, file in enumerate((world.folder / "text").glob("*.txt")):
        file.rename(file.with_name(f"{file.stem}-renamed-{number:03d}.txt"))
    (world.folder / "task" / "own.yaml").touch()
    assert world.identities() == before
    world.folder = world.folder.rename(tmp_path / "there")
    shutil.rmtree(world.folder / "cache")
    assert world.identities() == before


def test_kinds_and_types_do_not_collide(tmp_path):
    file = tmp_path / "a"
    file.write_text("text")
    digest = identity("x", {"a": file})
    parts = [
        None,
        "1",
        1,
        1.5,
        [],
        {},
        [None],
        [[]],
        {"a": "b"},
        ["a", "b"],
        ["mapping", {}],
        ["path", "a"],
        file,
        [file],
        {"file": str(file)},
    ]
    found = [identity(kind, {"a": part}) for kind in ("x", "y") for part in parts]
    assert len({*found, identity("x", {"b": None}), identity("x", {})}) == len(found) + 2
    assert digest == identity("x", {"a": file})


def test_words_for_people_are_no_code(world, monkeypatch, tmp_path):
    module = tmp_path / "module.py"
    monkeypatch.setattr(measuring_code, "_file", lambda name: module if name == "engram.module" else None)

    def code(text: str) -> str:
        module.write_text(text)
        measuring_code.measuring_code.cache_clear()
        return measuring_code.measuring_code("engram.module")

    plain = code("def f(x):\n    if x:\n        raise ValueError('no')\n    return x + 1\n")
    assert (
        code('"""What it is."""\n\ndef f(x):  # why\n    """What it does."""\n    if x: raise ValueError("never")\n    return (x + 1)\n')
        == plain
    )
    assert code("def f(x):\n    if x:\n        raise ValueError('no')\n    return x + 2\n") != plain
    measuring_code.measuring_code.cache_clear()
