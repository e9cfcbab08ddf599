"""Texts that RULER takes from elsewhere: Paul Graham's essays, SQuAD, HotpotQA and a long list of English words."""

import io
import re
import urllib.request
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from engram.cache import default_cache
from engram.errors import UserError
from engram.evaluation.ruler.documents import Question, QuestionSet
from engram.files import write_atomically
from engram.foreign_files import parse_json, read_text
from engram.tokenizer.hub import require_hub, short_cause

ESSAYS = "baber/paul_graham_essays"
"""Data set on the hub with one essay per row. RULER's own `PaulGrahamEssays.json` is made by a crawler and not published."""
QA_URLS: dict[Literal["squad", "hotpotqa"], str] = {
    "squad": "https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json",
    "hotpotqa": "http://curtis.ml.cmu.edu/datasets/hotpot/hotpot_dev_distractor_v1.json",
}
"""Where RULER's `download_qa_dataset.sh` gets the files."""
WORDS_URL = "https://raw.githubusercontent.com/NVIDIA/RULER/main/scripts/data/synthetic/json/english_words.json"
TIMEOUT_S = 20.0


class Essay:
    """The words of the essays, starting over after the last, and their sentences."""

    def __init__(self, text: str, source: str) -> None:
        self._words = re.sub(r"\s+", " ", text).split(" ")
        if self._words == [""] or self._words == ["", ""]:
            raise UserError(f"{source} has no words for a haystack")
        # All samples of one length ask for the same few sizes.
        self.sentences = lru_cache(maxsize=8)(self._sentences)

    def _sentences(self, size: int) -> list[str]:
        repeats = -(-size // len(self._words))
        return split_sentences(" ".join((self._words * repeats)[:size]).strip())


def split_sentences(text: str) -> list[str]:
    """Sentences of English text, as NLTK's Punkt model finds them."""
    try:
        import nltk
    except ModuleNotFoundError as error:
        raise UserError("essays are split into sentences by the package nltk, which is missing; pip install 'engramctl[eval]'") from error
    for attempt in range(2):
        try:
            sentences: list[str] = nltk.tokenize.sent_tokenize(text)
            return sentences
        except LookupError as error:
            if attempt or _offline() or not nltk.download("punkt_tab", quiet=True, print_error_to=io.StringIO()):
                raise UserError(
                    "essays are split into sentences by NLTK's model punkt_tab, which is not in any of "
                    f"{', '.join(nltk.data.path[:3])}, ... and can't be downloaded; "
                    "run python -m nltk.downloader punkt_tab where there is a network, and set NLTK_DATA to its folder"
                ) from error
    raise AssertionError("unreachable")


def load_essay(files: Sequence[Path] | None) -> Essay:
    """The haystack of the essay tasks: text files or RULER's `PaulGrahamEssays.json`, concatenated; None: the essays on the hub."""
    if files is None:
        return Essay(_hub_essays(), f"hf:{ESSAYS}")
    if not files:
        raise UserError("haystack has no files; give text files or RULER's PaulGrahamEssays.json")
    return Essay("".join(_essay_file(path) for path in files), ", ".join(map(str, files)))


def _essay_file(path: Path) -> str:
    if path.suffix != ".json":
        return _read(path, "a haystack")
    data = _parsed(path, "a haystack")
    text = data.get("text") if isinstance(data, dict) else None
    if not isinstance(text, str):
        raise UserError(f'{path} is not of the form of RULER\'s PaulGrahamEssays.json: {{"text": "..."}}')
    return text


def _hub_essays() -> str:
    what = f"the essays of RULER's haystacks (hf:{ESSAYS})"
    advice = "give files of text or RULER's PaulGrahamEssays.json as the haystack"
    try:
        require_hub(what)
        import datasets

        datasets.disable_progress_bars()
        rows = datasets.load_dataset(ESSAYS, split="train")
        return " ".join(rows["text"])
    except UserError as error:
        raise UserError(f"{error}; or {advice}") from error
    except Exception as error:
        raise UserError(f"{what} can't be loaded: {short_cause(error)}; {advice}") from error


def load_questions(kind: Literal["squad", "hotpotqa"], file: Path | None) -> QuestionSet:
    """Questions of SQuAD 2.0's or HotpotQA's development file: `file`; None: the official one, downloaded once."""
    form = "SQuAD 2.0" if kind == "squad" else "HotpotQA (distractor)"
    path = file or _downloaded(QA_URLS[kind], f"{kind}.json", f"the development set of {form}")
    data = _parsed(path, f"a development set of {form}")
    try:
        documents, questions = _squad(data) if kind == "squad" else _hotpotqa(data)
        _require_text(documents, questions)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not of the form of {form}'s development file ({type(error).__name__}: {short_cause(error)})") from error
    if not questions:
        raise UserError(f"{path} has no question with an answer")
    return QuestionSet(str(path), documents, questions)


def _require_text(documents: Sequence[object], questions: Sequence[Question]) -> None:
    """TypeError when something that is shown to a model is no text."""
    for text in (*documents, *(one for question in questions for one in (question.query, *question.answers))):
        if not isinstance(text, str):
            raise TypeError(f"{str(text)[:60]!r} is no text")


def _squad(data: Any) -> tuple[tuple[str, ...], tuple[Question, ...]]:
    documents = sorted({paragraph["context"] for article in data["data"] for paragraph in article["paragraphs"]})
    places = {document: place for place, document in enumerate(documents)}
    questions = []
    for article in data["data"]:
        article_places = [places[paragraph["context"]] for paragraph in article["paragraphs"]]
        for paragraph in article["paragraphs"]:
            own = places[paragraph["context"]]
            neighbours = tuple(place for place in article_places if place != own)
            for entry in paragraph["qas"]:
                # SQuAD 1.1 has no unanswerable questions and doesn't have the field.
                if not entry.get("is_impossible", False):
                    answers = tuple(answer["text"] for answer in entry["answers"])
                    questions.append(Question(entry["question"], answers, (own,), neighbours))
    return tuple(documents), tuple(questions)


def _hotpotqa(data: Any) -> tuple[tuple[str, ...], tuple[Question, ...]]:
    texts = [[f"{title}\n{''.join(sentences)}" for title, sentences in entry["context"]] for entry in data]
    documents = sorted({text for own in texts for text in own})
    places = {document: place for place, document in enumerate(documents)}
    questions = [
        Question(entry["question"], (entry["answer"],), tuple(places[text] for text in own)) for entry, own in zip(data, texts, strict=True)
    ]
    return tuple(documents), tuple(questions)


def load_more_words(file: Path | None) -> list[str]:
    """RULER's `english_words.json`, for word lists longer than those of the package `wonderwords`."""
    path = file or _downloaded(WORDS_URL, "english_words.json", "the list of English words of RULER's longest cwe contexts")
    data = _parsed(path, "a list of words")
    if not isinstance(data, dict) or not all(isinstance(word, str) for word in data.values()):
        raise UserError(f'{path} is not of the form of RULER\'s english_words.json: {{"0": "word", ...}}')
    return list(data.values())


def _downloaded(url: str, name: str, what: str) -> Path:
    path = default_cache() / "ruler" / name
    if not path.is_file():
        if _offline():
            raise UserError(f"{what} is not at {path} (offline); give its file")
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                content = answer.read()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            raise UserError(f"{what} is not at {path} and {url} can't be had ({short_cause(error)}); give its file") from error
    return path


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _parsed(path: Path, what: str) -> Any:
    try:
        return parse_json(_read(path, what))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {short_cause(error)}") from error


def _read(path: Path, what: str) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as {what}: {short_cause(error)}") from error
