"""Byte equality with the samples of the official generator, where they are at hand."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from engram.errors import UserError
from engram.evaluation import ruler

OFFICIAL = Path(__file__).parents[5] / "shared/data/ruler/official_samples"

pytestmark = pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"{OFFICIAL} is not there")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(OFFICIAL / "tokenizer.json"))


@pytest.mark.parametrize("length", [1024, 2048])
@pytest.mark.parametrize("task", ["niah_single_1", "niah_multikey_2", "niah_multikey_3", "vt", "cwe", "fwe"])
def test_official_samples(task: str, length: int, tokenizer: Tokenizer, json_line):
    official = (OFFICIAL / str(length) / task / "validation.jsonl").read_text()
    assert "".join(f"{json_line(sample)}\n" for sample in ruler.samples(task, length, tokenizer, 4)) == official


def test_truncation_and_special_tokens_of_the_tokenizer_are_left_out(tokenizer: Tokenizer):
    truncating = Tokenizer.from_str(tokenizer.to_str())
    truncating.enable_truncation(16)
    truncating.enable_padding(length=5000)
    assert ruler.samples("vt", 1024, truncating, 1) == ruler.samples("vt", 1024, tokenizer, 1)
    assert truncating.truncation["max_length"] == 16  # the caller's stays as it was


def test_echo_floor_takes_the_last_tokens(tokenizer: Tokenizer):
    sample = ruler.samples("cwe", 1024, tokenizer, 1)[0]
    tail = tokenizer.decode(tokenizer.encode(sample.prompt, add_special_tokens=False).ids[-120:])
    assert sample.prompt.endswith(tail)
    assert ruler.echo_floor("cwe", [sample], tokenizer) == ruler.score("cwe", tail, sample.outputs) > 0


@pytest.mark.parametrize(("task", "length"), [("niah_single_1", 256), ("niah_multikey_3", 512), ("vt", 512), ("cwe", 512)])
def test_where_the_official_generator_never_ends(task: str, length: int, tokenizer: Tokenizer):
    with pytest.raises(UserError, match=rf"^{task} does not fit in {length} tokens; .* found to work is \d+$") as caught:
        ruler.samples(task, length, tokenizer, 2)
    works = int(str(caught.value).rsplit(" ", 1)[1])
    assert length < works < 1024
    assert len(ruler.samples(task, works, tokenizer, 2)) == 2
