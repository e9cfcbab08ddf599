"""Tables in the process, in host RAM and on disk: the same training, whatever ends it."""

import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engram import kernels
from engram.config.training import AdamWConfig, MuonConfig, TrainConfig
from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.memory.placement.formats import FORMATS
from engram.memory.placement.settings import TablePlacement
from engram.scaling.allocation import allocate, baseline, memory_template
from engram.scaling.ladder import LADDER
from engram.training import validation
from engram.training.trainer import Trainer

CPU = torch.device("cpu")
SMALL_CACHE = 150_000
"""Holds some of the rows: those of a step come and go."""
PLACES = {
    "host": TablePlacement(kind="host"),
    "disk": TablePlacement(kind="disk", cache_bytes=SMALL_CACHE),
    "disk, no prefetch": TablePlacement(kind="disk", cache_bytes=SMALL_CACHE, prefetch=False),
}
pytestmark = pytest.mark.usefixtures("one_thread")


def make_trial(corpus, design="engram", seed=0, **train) -> TrialConfig:
    size = LADDER["1m"]
    settings = {"steps": 12, "batch_size": 8, "seq_len": 32, "learning_rate": 0.01, "val_tokens": 1024, "n_validations": 2, **train}
    return TrialConfig(
        size="1m",
        rho=0.5,
        seed=seed,
        budget_flops=1e9,
        model=allocate(baseline(size, corpus.vocab_size), memory_template(size, design), 0.5),
        train=TrainConfig(**settings),
        corpus_fingerprint=corpus.fingerprint,
        tokenizer_fingerprint=corpus.tokenizer_fingerprint,
    )


def run(trainer: Trainer):
    while not trainer.done:
        trainer.advance(60)
    outcome = trainer.outcome()
    trainer.close()
    return outcome


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "weights.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("optimizer", "steps"), [(AdamWConfig(), 200), (MuonConfig(), 40)], ids=["adamw", "muon"])
def test_200_steps_are_the_same_wherever_the_tables_lie(tiny_corpus, tmp_path, optimizer, steps):
    trial = make_trial(tiny_corpus, steps=steps, batch_size=4, optimizer=optimizer)
    inside = run(Trainer(trial, tiny_corpus, tmp_path / "process", CPU))
    for name, placement in PLACES.items():
        trainer = Trainer(trial, tiny_corpus, tmp_path / name, CPU, tables=placement)
        outcome = run(trainer)
        assert outcome.curve["train_loss"] == inside.curve["train_loss"], name
        assert outcome.values["val_loss"] == inside.values["val_loss"], name
        assert equal(weights(tmp_path / name), weights(tmp_path / "process")), name
        if placement.kind == "disk":
            traffic = trainer.tables.cost.traffic
            assert 0 < traffic.read < traffic.asked, "the cache must be too small for all and large enough for some"
            assert traffic.written


@pytest.mark.parametrize(
    ("design", "rows"),
    [
        *((design, (rule, "fp32")) for design in ("over-encoding", "engram-v4.1", "value") for rule in ("adam", "adagrad")),
        *(("engram", (rule, "bf16")) for rule in ("adam", "adagrad")),
    ],
)
def test_every_design_several_passes_and_all_rules(tiny_corpus, tmp_path, monkeypatch, design, rows):
    monkeypatch.setattr(validation, "PASS_TOKENS", 3 * 32)  # 8 sequences in passes of 3
    trial = make_trial(tiny_corpus, design, table_optimizer=rows[0], table_format=rows[1])
    inside = run(Trainer(trial, tiny_corpus, tmp_path / "process", CPU))
    for name, placement in PLACES.items():
        outcome = run(Trainer(trial, tiny_corpus, tmp_path / name, CPU, tables=placement))
        assert outcome.curve["train_loss"] == inside.curve["train_loss"], name
        assert equal(weights(tmp_path / name), weights(tmp_path / "process")), name


def test_kernels_make_no_difference_between_places(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "_library", None)  # and as before afterwards
    if reason := kernels.load():
        pytest.skip(reason)
    # Adam makes whole steps of rounding where gradients are next to zero, unless eps is large; bf16 rounds more than that.
    exact = make_trial(tiny_corpus, precision="fp32", optimizer=AdamWConfig(eps=1e-3))
    for name, trial in (("usual", make_trial(tiny_corpus)), ("exact", exact)):
        inside = run(Trainer(trial, tiny_corpus, tmp_path / name / "process", CPU))
        compiled = run(Trainer(trial, tiny_corpus, tmp_path / name / "disk", CPU, tables=PLACES["disk"]))
        assert compiled.curve["train_loss"] == inside.curve["train_loss"], name
    with kernels.plain():
        plain = run(Trainer(exact, tiny_corpus, tmp_path / "plain", CPU, tables=PLACES["disk"]))
    assert plain.curve["train_loss"] == pytest.approx(inside.curve["train_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "table_format"), [*((name, "fp32") for name in PLACES), ("process", "bf16"), ("host", "bf16"), ("disk", "bf16")]
)
def test_an_interrupted_trial_ends_with_the_same_numbers(tiny_corpus, tmp_path, name, table_format):
    trial = make_trial(tiny_corpus, table_format=table_format)
    run(Trainer(trial, tiny_corpus, tmp_path / "whole", CPU))
    first = Trainer(trial, tiny_corpus, tmp_path / "cut", CPU, checkpoint_seconds=0, tables=PLACES.get(name))
    while first.state.step < 5:
        first.advance(0.001)
    first.checkpoint_seconds = 1e9
    while first.state.step < 8:  # steps that no checkpoint keeps
        first.advance(0.001)
    first.close()
    second = Trainer(trial, tiny_corpus, tmp_path / "cut", CPU, tables=PLACES.get(name))
    assert second.state.step == 5
    run(second)
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    (table,) = (x for name, x in weights(tmp_path / "cut").items() if "tables" in name)
    assert table.dtype == FORMATS[table_format].dtype


KILLED = """
    import sys, time, torch
    from pathlib import Path
    from engram.config.trial import TrialConfig
    from engram.corpus.dataset import Corpus
    from engram.memory.placement.settings import TablePlacement
    from engram.training.trainer import Trainer

    torch.set_num_threads(1)
    corpus, folder, trial = Path(sys.argv[1]), Path(sys.argv[2]), TrialConfig.model_validate_json(Path(sys.argv[3]).read_text())
    placement = TablePlacement(kind="disk", cache_bytes=int(sys.argv[4]))
    between, steps = int(sys.argv[5]), int(sys.argv[6])  # from one checkpoint to the next; after which it waits to be killed
    trainer = Trainer(trial, Corpus.open(corpus), folder, torch.device("cpu"), tables=placement)
    start = trainer.state.step
    print("ready", start, flush=True)
    while not trainer.done:
        trainer.checkpoint_seconds = 0 if (trainer.state.step + 1) % between == 0 else 1e9
        trainer.advance(1e-4)  # less than a step takes, so that it is one
        print("checkpoint", max((int(path.name.removeprefix("step-")) for path in folder.glob("step-*")), default=0), flush=True)
        if trainer.state.step >= start + steps:
            time.sleep(600)
    trainer.outcome()
    trainer.close()
    print("done", flush=True)
"""


def test_kills_while_rows_are_written_back_lose_no_step_and_mix_none(tiny_corpus, tmp_path):
    """The process is killed again and again, at any moment from its first checkpoint on; every start goes on from the last one, with the
    tables of that step.

    What happens when is counted in steps: a checkpoint comes every 3 and the process waits 11 after its start. So no machine is too slow
    or too fast for it.
    """
    trial = make_trial(tiny_corpus, steps=60)
    (tmp_path / "trial.json").write_text(trial.model_dump_json())
    moments = random.Random(0)

    def begin(name: str, steps: int = 1000) -> subprocess.Popen:
        arguments = [tiny_corpus.folder, tmp_path / name, tmp_path / "trial.json", SMALL_CACHE, 3, steps]
        return subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED), *map(str, arguments)], stdout=subprocess.PIPE, text=True)

    def next_line(process: subprocess.Popen) -> tuple[int, float]:
        """The newest checkpoint that it tells of, and when."""
        kind, step, *_ = process.stdout.readline().split() or ["nothing", ""]
        assert kind in ("ready", "checkpoint"), kind
        return int(step), time.monotonic()

    def start_and_kill() -> tuple[int, int]:
        """The checkpoint that it starts from, and the newest that it was seen to make."""
        with begin("cut", 11) as process:
            try:
                (start, then), further = next_line(process), moments.randrange(6)
                step, now = next_line(process)
                while step == start or further:
                    further -= step > start
                    then, (step, now) = now, next_line(process)
                time.sleep(moments.uniform(0, 1.2) * (now - then))  # in the middle of a step, or of a checkpoint
            finally:
                process.kill()
        return start, step

    assert "done" in begin("whole").communicate(timeout=600)[0]
    kept = 0
    for _ in range(5):
        start, made = start_and_kill()
        assert kept <= start < made
        kept = made
    with begin("cut") as process:
        assert next_line(process)[0] >= kept > 0
        assert "done" in process.communicate(timeout=600)[0]
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def begun(corpus, folder: Path, **train) -> TrialConfig:
    """A trial with a checkpoint at step 5 and steps behind it, left as a killed process leaves it."""
    trial = make_trial(corpus, **train)
    trainer = Trainer(trial, corpus, folder, CPU, checkpoint_seconds=0, tables=PLACES["disk"])
    while trainer.state.step < 5:
        trainer.advance(0.001)
    trainer.checkpoint_seconds = 1e9
    while trainer.state.step < 7:
        trainer.advance(0.001)
    trainer.close()
    return trial


def table_file(folder: Path) -> Path:
    return next((folder / "tables").glob("*.rows"))


def again(trial: TrialConfig, corpus, folder: Path, placement: TablePlacement = PLACES["disk"]) -> Trainer:
    return Trainer(trial, corpus, folder, CPU, tables=placement)


def test_a_table_that_is_cut_off_is_named_in_one_line(tiny_corpus, tmp_path):
    trial = begun(tiny_corpus, tmp_path)
    os.truncate(table_file(tmp_path), table_file(tmp_path).stat().st_size - 512)
    with pytest.raises(UserError, match=r"table file .*rows is cut off: it has [\d,]+ bytes instead of [\d,]+$"):
        again(trial, tiny_corpus, tmp_path)


def test_a_file_that_is_no_table_or_anothers_is_refused(tiny_corpus, tmp_path):
    trial = begun(tiny_corpus, tmp_path / "one")
    begun(tiny_corpus, tmp_path / "two", learning_rate=0.02)
    table_file(tmp_path / "two").replace(table_file(tmp_path / "one"))
    with pytest.raises(UserError, match=r"is another's: its table is '[0-9a-f]{12}/lookup.tables.0' instead of '[0-9a-f]{12}/lookup"):
        again(trial, tiny_corpus, tmp_path / "one")
    table_file(tmp_path / "one").write_bytes(b"something else")
    with pytest.raises(UserError, match="is not a table file of this program"):
        again(trial, tiny_corpus, tmp_path / "one")
    table_file(tmp_path / "one").unlink()
    with pytest.raises(UserError, match="is missing"):
        again(trial, tiny_corpus, tmp_path / "one")


def test_a_changed_byte_is_found_when_its_row_is_read(tiny_corpus, tmp_path):
    trial = begun(tiny_corpus, tmp_path)
    path = table_file(tmp_path)
    with path.open("r+b") as file:
        for place in range(4096 + 100, path.stat().st_size, 512):
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 1]))
    for journal in path.parent.glob("*.undo-*"):  # would mend some rows
        os.truncate(journal, 512)
    trainer = again(trial, tiny_corpus, tmp_path)
    with pytest.raises(UserError, match=r"is damaged: row \d+ does not match its checksum"):
        run(trainer)


def test_a_journal_of_another_step_is_not_taken(tiny_corpus, tmp_path):
    trial = begun(tiny_corpus, tmp_path)
    (journal,) = (tmp_path / "tables").glob("*.undo-5")
    journal.rename(journal.with_name(journal.name.replace("undo-5", "undo-6")))
    with pytest.raises(UserError, match=r"of a checkpoint at step 6, but the last checkpoint is of step 5"):
        again(trial, tiny_corpus, tmp_path)


def test_a_journal_that_is_cut_off_in_an_entry_is_enough(tiny_corpus, tmp_path):
    """The row of the last entry was not written yet: the entry comes first."""
    trial = begun(tiny_corpus, tmp_path / "cut")
    (journal,) = (tmp_path / "cut" / "tables").glob("*.undo-5")
    with journal.open("ab") as file:
        file.write(bytes(100))
    run(again(trial, tiny_corpus, tmp_path / "cut"))
    run(Trainer(trial, tiny_corpus, tmp_path / "whole", CPU))
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_places_that_can_be_changed_on_the_way_and_those_that_cannot(tiny_corpus, tmp_path):
    trial = begun(tiny_corpus, tmp_path / "disk")
    with pytest.raises(UserError, match="was begun with tables 'disk' and can't go on with 'host'"):
        again(trial, tiny_corpus, tmp_path / "disk", PLACES["host"])
    first = Trainer(trial, tiny_corpus, tmp_path / "host", CPU, checkpoint_seconds=0, tables=PLACES["host"])
    while first.state.step < 4:
        first.advance(0.001)
    first.close()
    run(Trainer(trial, tiny_corpus, tmp_path / "host", CPU))
    run(Trainer(trial, tiny_corpus, tmp_path / "process", CPU))
    assert equal(weights(tmp_path / "host"), weights(tmp_path / "process"))


def test_files_without_a_checkpoint_are_made_anew(tiny_corpus, tmp_path):
    trial = begun(tiny_corpus, tmp_path / "cut")
    (step,) = (tmp_path / "cut").glob("step-*")
    step.rename(tmp_path / "gone")
    trainer = again(trial, tiny_corpus, tmp_path / "cut")
    assert trainer.state.step == 0
    run(trainer)
    run(Trainer(trial, tiny_corpus, tmp_path / "whole", CPU))
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_what_goes_wrong_in_the_background_ends_the_training(tiny_corpus, tmp_path):
    trainer = again(make_trial(tiny_corpus), tiny_corpus, tmp_path)
    trainer.advance(0.001)
    trainer.tables.flush()
    (rows,) = trainer.tables._disk.values()
    os.close(rows.journal._file)  # every write to it fails from now on
    with pytest.raises(UserError, match="can't be used: Bad file descriptor"):
        run(trainer)


def test_a_cache_that_holds_next_to_nothing_is_refused(tiny_corpus, tmp_path):
    with pytest.raises(UserError, match=r"a table cache of 1,000 bytes holds \d rows of .*; at least [\d,]+ bytes are needed"):
        again(make_trial(tiny_corpus), tiny_corpus, tmp_path, TablePlacement(kind="disk", cache_bytes=1000))


def test_no_room_is_said_before_anything_is_written(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match=r"takes [\d.e+-]+ GB of disk; 1e-06 GB are free there"):
        again(make_trial(tiny_corpus), tiny_corpus, tmp_path)
    assert not list((tmp_path / "tables").iterdir())


def test_a_full_disk_ends_the_trial_and_keeps_its_checkpoint(tiny_corpus, tmp_path):
    """A limit of the size of files stands for a full disk: neither the journal nor most of the table can be written any more."""
    cut = tmp_path / "cut"
    trial = begun(tiny_corpus, cut, steps=60)
    (tmp_path / "trial.json").write_text(trial.model_dump_json())
    arguments = list(map(str, [tiny_corpus.folder, cut, tmp_path / "trial.json", SMALL_CACHE, 1000, 1000]))
    limited = textwrap.dedent(KILLED).replace(
        "start = trainer.state.step",
        "start = trainer.state.step; import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))",
    )
    done = subprocess.run([sys.executable, "-c", limited, *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.startswith("ready 5\n")
    assert "done" not in done.stdout
    assert "UserError" in done.stderr.splitlines()[-1]
    second = again(trial, tiny_corpus, cut)
    assert second.state.step == 5
    run(second)
    run(Trainer(trial, tiny_corpus, tmp_path / "whole", CPU))
    assert equal(weights(cut), weights(tmp_path / "whole"))


def test_the_tables_go_with_the_other_checkpoints(tiny_corpus, tmp_path):
    trainer = again(make_trial(tiny_corpus, steps=3), tiny_corpus, tmp_path)
    run(trainer)
    trainer.discard_checkpoints()
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
