import json
import urllib.request
from pathlib import Path

import pytest

from engram.errors import UserError
from engram.evaluation import ruler
from engram.evaluation.ruler import sources
from engram.evaluation.ruler.documents import Question
from engram.evaluation.ruler.sources import Essay, load_essay, load_more_words, load_questions


def offline(*args: object, **kwargs: object) -> None:
    raise OSError("Name or service not known")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def no_hub(what: str) -> None:
        raise UserError(f"{what}: https://huggingface.co does not answer (offline)")

    monkeypatch.setattr(sources, "require_hub", no_hub)
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setenv("ENGRAMCTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data))
    return path


@pytest.mark.usefixtures("plain_sentences")
def test_haystack_files_follow_each_other_and_begin_again(tmp_path: Path):
    first = write(tmp_path / "a.json", {"text": "One two.\n\nThree "})
    second = tmp_path / "b.txt"
    second.write_text("four. Five.")
    essay = load_essay([first, second])
    assert essay.sentences(5) == ["One two.", "Three four.", "Five."]
    assert essay.sentences(8) == ["One two.", "Three four.", "Five.", "One two.", "Three"]


def test_bad_haystacks(tmp_path: Path):
    with pytest.raises(UserError, match="has no words"):
        Essay(" \n", "empty.txt")
    with pytest.raises(UserError, match="can't be read as a haystack"):
        load_essay([tmp_path / "missing.txt"])
    with pytest.raises(UserError, match=r"not of the form of RULER's PaulGrahamEssays\.json"):
        load_essay([write(tmp_path / "c.json", ["text"])])
    with pytest.raises(UserError, match="has no files"):
        load_essay([])


@pytest.mark.usefixtures("no_network")
def test_offline_without_essays():
    with pytest.raises(UserError, match=r"^the essays of RULER's haystacks .*does not answer.* as the haystack$"):
        ruler.samples("niah_single_2", 1024, str.split, 1)


def test_offline_without_questions(no_network: Path):
    expected = (
        rf"^the development set of SQuAD 2\.0 is not at {no_network}/ruler/squad\.json and https://\S+ can't be had .*; give its file$"
    )
    with pytest.raises(UserError, match=expected):
        ruler.samples("qa_1", 1024, str.split, 1)
    with pytest.raises(UserError, match=r"HotpotQA .*hotpot_dev_distractor_v1\.json can't be had"):
        ruler.samples("qa_2", 1024, str.split, 1)


def test_offline_without_the_longer_word_list(no_network: Path):
    with pytest.raises(UserError, match=r"english_words\.json can't be had"):
        load_more_words(None)


def test_a_download_is_kept(no_network: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file = write(tmp_path / "words.json", {"0": "alpha", "1": "beta"})
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: file.open("rb"))
    assert load_more_words(None) == ["alpha", "beta"]
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    assert load_more_words(None) == ["alpha", "beta"]
    assert [path.name for path in (no_network / "ruler").iterdir()] == ["english_words.json"]


def test_sentences_without_the_model(monkeypatch: pytest.MonkeyPatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", ["/nowhere"])
    monkeypatch.setattr(nltk, "download", lambda *args, **kwargs: False)
    with pytest.raises(UserError, match=r"NLTK's model punkt_tab, which is not in any of /nowhere.* NLTK_DATA"):
        sources.split_sentences("One. Two.")


def test_squad(tmp_path: Path):
    def entry(question: str, answers: list[str], impossible: bool) -> dict[str, object]:
        return {"question": question, "answers": [{"text": text} for text in answers], "is_impossible": impossible}

    article = {
        "paragraphs": [
            {"context": "b", "qas": [entry("why?", ["x", "y"], False), entry("never?", [], True)]},
            {"context": "a", "qas": []},
        ]
    }
    questions = load_questions("squad", write(tmp_path / "squad.json", {"data": [article]}))
    assert questions.documents == ("a", "b")
    assert questions.questions == (Question("why?", ("x", "y"), (1,), (0,)),)


def test_hotpotqa(tmp_path: Path):
    rows = [{"question": "who?", "answer": "x", "context": [["T", ["One. ", "Two."]], ["S", ["Three."]]]}]
    questions = load_questions("hotpotqa", write(tmp_path / "hotpotqa.json", rows))
    assert questions.documents == ("S\nThree.", "T\nOne. Two.")
    assert questions.questions == (Question("who?", ("x",), (1, 0)),)


def test_bad_questions(tmp_path: Path):
    with pytest.raises(UserError, match=r"not of the form of SQuAD 2\.0's development file \(KeyError: 'data'\)"):
        load_questions("squad", write(tmp_path / "squad.json", {}))
    with pytest.raises(UserError, match="has no question with an answer"):
        load_questions("hotpotqa", write(tmp_path / "hotpotqa.json", []))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        load_questions("squad", broken)
    with pytest.raises(UserError, match="can't be read"):
        load_questions("squad", tmp_path / "missing.json")


def test_more_questions_than_there_are(tmp_path: Path):
    rows = [{"question": "who?", "answer": "x", "context": [[str(place), ["One. "]] for place in range(10)]}]
    with pytest.raises(UserError, match=r"^qa_2 has 1 questions in .*hotpotqa\.json, fewer than the 2 asked for$"):
        ruler.samples("qa_2", 1024, str.split, 2, qa=write(tmp_path / "hotpotqa.json", rows))


def test_cwe_takes_the_longer_list_for_more_words_than_the_package_has(no_network: Path, tmp_path: Path):
    # A tokenizer of six words a token: at 8192 tokens more than the 8166 words at hand would fit.
    def six_words_a_token(text: str) -> list[str]:
        return text.split()[::6]

    with pytest.raises(UserError, match=r"english_words\.json can't be had"):
        ruler.samples("cwe", 8192, six_words_a_token, 1)
    few = write(tmp_path / "few.json", {str(place): f"word{place}" for place in range(100)})
    with pytest.raises(UserError, match=r"^cwe needs a list of \d+ words to find how many fit; the longer list has 100$"):
        ruler.samples("cwe", 8192, six_words_a_token, 1, words=few)
    many = write(tmp_path / "many.json", {str(place): f"word{place}" for place in range(50000)})
    sample = ruler.samples("cwe", 8192, six_words_a_token, 1, words=many)[0]
    assert sample.length <= 8192


@pytest.mark.usefixtures("plain_sentences")
def test_a_byte_order_mark_is_no_text(tmp_path: Path):
    def marked(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        return tmp_path / name

    assert load_more_words(marked("words.json", json.dumps({"0": "word"}))) == ["word"]
    assert load_essay([marked("a.txt", "One. "), marked("b.json", json.dumps({"text": "Two."}))]).sentences(2) == ["One.", "Two."]
    article = {"paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": [{"text": "c"}]}]}]}
    assert load_questions("squad", marked("squad.json", json.dumps({"data": [article]}))).documents == ("c",)
    entry = {"question": "q", "answer": "a", "context": [["t", ["s"]]]}
    assert load_questions("hotpotqa", marked("hotpot.json", json.dumps([entry]))).documents == ("t\ns",)
