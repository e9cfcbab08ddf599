import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import sys
import tarfile
import time
import zipfile

import pandas as pd
import pytest
import zstandard
from pydantic import ValidationError

from engram.corpus.file_text import matching_files
from engram.corpus.python_text import python_files
from engram.corpus.sources import CorpusSpec, read_documents, source_listing
from engram.errors import UserError

ROWS = ["first é", "", "third\nline"]


def read(source, **more):
    return [document.text for document in read_documents(CorpusSpec(source=str(source), **more))]


def mistake(source, **more):
    with pytest.raises(UserError) as found:
        read(source, **more)
    assert "\n" not in str(found.value)
    return str(found.value)


def json_lines(texts, column="text"):
    return "".join(json.dumps({column: text, "n": 1}) + "\n" for text in texts).encode()


def compressed(suffix, content):
    return {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix](content)


@pytest.mark.parametrize("source", ["pyhton", "files:", "hf:", "file:x", "", "http://x"])
def test_an_unknown_source_lists_what_is_allowed(source):
    with pytest.raises(ValidationError, match=r"allowed are python, files:GLOB or hf:"):
        CorpusSpec(source=source)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_text_file_is_one_document(tmp_path, suffix):
    (tmp_path / f"b.txt{suffix}").write_bytes(compressed(suffix, "zwei\r\nlines é".encode()))
    (tmp_path / f"a.rst{suffix}").write_bytes(compressed(suffix, b"one"))
    assert read(f"files:{tmp_path}/*") == ["one", "zwei\r\nlines é"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json.gz", "a.ndjson"])
def test_json_lines_are_a_document_a_row(tmp_path, name):
    suffix = name[name.rindex(".") :] if name.endswith((".gz", ".zst")) else ""
    (tmp_path / name).write_bytes(compressed(suffix, json_lines(ROWS) + b"\n" + b'{"text": null}'))
    assert read(f"files:{tmp_path}/{name}") == [*ROWS, ""]


def test_frames_of_a_compressed_file_are_all_read(tmp_path):
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(json_lines(["a"])) + zstandard.compress(json_lines(["b"])))
    assert read(f"files:{tmp_path}/*") == ["a", "b"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_that_was_cut_off(tmp_path, suffix):
    whole = compressed(suffix, json_lines(map(str, range(20_000))))
    (tmp_path / f"a.jsonl{suffix}").write_bytes(whole[:-40])
    assert f"a.jsonl{suffix} can't be read" in mistake(f"files:{tmp_path}/*")


def test_parquet_is_a_document_a_row(tmp_path):
    pd.DataFrame({"body": [*ROWS, None], "n": range(4)}).to_parquet(tmp_path / "a.parquet")
    assert read(f"files:{tmp_path}/*", text_column="body") == [*ROWS, ""]
    assert "a.parquet has no column 'text'; it has 'body', 'n'" in mistake(f"files:{tmp_path}/*")
    assert "a.parquet: row 1: column 'n' holds int; it must hold text" in mistake(f"files:{tmp_path}/*", text_column="n")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 is not all")
    assert "a.parquet is not a Parquet file" in mistake(f"files:{tmp_path}/*")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "a.jsonl: line 2 is not JSON"),
        (b"[" * 100_000, "a.jsonl: line 2 is not JSON"),
        (b"[1]", "a.jsonl: line 2 is not a JSON object but list"),
        (b'{"body": "x"}', "a.jsonl: line 2 has no column 'text'; it has 'body'"),
        (b'{"text": 3}', "a.jsonl: line 2: column 'text' holds int"),
        (b'{"text": "ab\\ud800"}', "a.jsonl: line 2: column 'text' has half a surrogate pair at character 2"),
        (b'{"text": "\xff"}', "a.jsonl: byte 24 (line 2) is not UTF-8"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' + line + b"\n")
    assert message in mistake(f"files:{tmp_path}/*.jsonl")


def test_a_bad_file_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    assert mistake(f"files:{tmp_path}/*").endswith("a.txt: byte 3 is not UTF-8")
    assert "matches no file" in mistake(f"files:{tmp_path}/*.md")
    assert "it is a folder, try files:" in mistake(f"files:{tmp_path}")


def test_globs_go_deep_know_home_and_take_a_file_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "y" / "deep.txt").write_text("deep")
    (tmp_path / "x" / "top.txt").write_text("top")
    (tmp_path / "x" / "zlink.txt").symlink_to(tmp_path / "x" / "top.txt")
    assert read("files:~/x/**/*.txt") == ["top", "deep"]


def test_a_local_folder_of_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "train.jsonl").write_bytes(json_lines(ROWS))
    (tmp_path / "table" / "data").mkdir(parents=True)
    pd.DataFrame({"body": [*ROWS, None]}).to_parquet(tmp_path / "table" / "data" / "test-0.parquet")
    monkeypatch.chdir(tmp_path)
    assert read("hf:./lines") == read(f"hf:{tmp_path}/lines:train#text") == ROWS
    assert read("hf:./table:test#body") == read("hf:./table:test", text_column="body") == [*ROWS, ""]
    assert "has no column 'text'; it has 'body'" in mistake("hf:./table:test")
    assert "can't be opened: Bad split: nope" in mistake("hf:./lines:nope")
    assert "is not a folder" in mistake("hf:./missing")
    (tmp_path / "lines" / "train.jsonl").write_bytes(b"{broken\n")
    assert "corpus hf:./lines can't be" in mistake("hf:./lines")


@pytest.mark.parametrize("source", ["hf:a/b/c/d", "hf:a//b", "hf::train", "hf:a/b#", "hf:a/b:"])
def test_a_data_set_of_another_form(source):
    assert "is not of the form hf:NAME[/CONFIG][:SPLIT][#COLUMN]" in mistake(source)


def test_a_hub_that_does_not_answer_is_said_at_once(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "corpus hf:some/set: http://127.0.0.1:9 does not answer" in mistake("hf:some/set")


def fake_python(root):
    """A standard library and a site-packages folder as installers leave them."""
    stdlib, site = root / "lib" / "python3.11", root / "lib" / "python3.11" / "site-packages"
    files = {
        stdlib / "abc.py": "x",
        stdlib / "email" / "parser.py": "x",
        stdlib / "notes.bin": "x",
        stdlib / "_sysconfigdata__linux.py": "/home/me",
        stdlib / "config-3.11" / "python-config.py": "/home/me",
        stdlib / "test" / "test_abc.py": "x",
        stdlib / "__pycache__" / "abc.py": "x",
        stdlib / "big.py": "x" * (512 * 1024 + 1),
        site / "pkg" / "core.py": "x",
        site / "pkg" / "guide.md": "x",
        site / "pkg" / "data.csv": "x",
        site / "pkg" / "written_later.py": "/home/me",
        site / "_virtualenv.py": "x",
        site / "engramctl" / "cli.py": "x",
        site / "pkg-1.dist-info" / "METADATA": "Metadata-Version: 2.1\nName: pkg\nVersion: 1\n",
        site / "pkg-1.dist-info" / "licenses" / "LICENSE.txt": "x",
        site / "pkg-1.dist-info" / "RECORD": (
            "pkg/core.py,sha256=a,1\npkg/guide.md,sha256=a,1\npkg/data.csv,sha256=a,1\npkg/gone.py,sha256=a,1\n"
            "pkg/written_later.py,,\n../../../bin/pkg.py,sha256=a,1\npkg-1.dist-info/licenses/LICENSE.txt,sha256=a,1\n"
        ),
        site / "engramctl-1.dist-info" / "METADATA": "Metadata-Version: 2.1\nName: engramctl\nVersion: 1\n",
        site / "engramctl-1.dist-info" / "RECORD": "engramctl/cli.py,sha256=a,1\n",
        root / "bin" / "pkg.py": "/home/me",
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (stdlib / "loop").symlink_to(stdlib)
    return stdlib, site


def test_python_text_is_what_packages_ship_in_an_order_of_its_own(tmp_path):
    names = []
    for place in ("here", "somewhere/else"):
        stdlib, site = fake_python(tmp_path / place)
        names.append(
            {path.relative_to(tmp_path / place).as_posix(): package for path, package in python_files(stdlib, [site, site]).items()}
        )
    assert list(names[0].items()) == list(names[1].items())
    lib = "lib/python3.11/"
    assert names[0] == {
        f"{lib}abc.py": "stdlib abc",
        f"{lib}email/parser.py": "stdlib email",
        f"{lib}site-packages/pkg/core.py": "pkg",
        f"{lib}site-packages/pkg/guide.md": "pkg",
    }


def test_python_text_of_this_environment():
    documents = read_documents(CorpusSpec(source="python"))
    sample = [next(documents) for _ in range(50)]
    assert all(document.text and document.group for document in sample)
    paths = [path for path, *_ in source_listing(CorpusSpec(source="python"))]
    assert len(paths) > 500
    top = [path.partition("site-packages/")[2].partition("/")[0] for path in paths]
    assert not [
        name for name in top if name in ("engram", "engramctl", "pip") or name.startswith("__editable__") or name.endswith(".dist-info")
    ]


def test_the_listing_shows_a_change(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    spec = CorpusSpec(source=f"files:{tmp_path}/*")
    before = source_listing(spec)
    shutil.copy(tmp_path / "a.txt", tmp_path / "b.txt")
    assert len(before) == 1
    assert before == source_listing(spec)[:1]
    assert len(source_listing(spec)) == 2


def test_a_change_shows_even_if_size_and_time_are_set_back(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one")
    spec = CorpusSpec(source=f"files:{file}")
    before, times = source_listing(spec), file.stat()
    time.sleep(0.05)  # a file system's clock has ticks
    file.write_text("two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert source_listing(spec) != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "one"}\n{"text": "two", "text": "three"}\n', "line 2: the key 'text' stands twice"),
        (b'{"text": "one", "meta": {"a": 1, "a": 2}}\n', "line 1: the key 'a' stands twice"),
        (b'{"text": "one"}\n{"text": "tw', "line 2 is not JSON (Unterminated string, column 10)"),
        (b'[{"text": "one"}]', "line 1 is not a JSON object but list; files .json .jsonl .ndjson hold an object in every line"),
        (b'{\n "text": "one"\n}', "line 1 is not JSON (Expecting property name enclosed in double quotes, column 3); files .json"),
    ],
)
def test_rows_without_a_single_meaning_are_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    assert message in mistake(f"files:{tmp_path}/*")


@pytest.mark.parametrize("kind", ["a.jsonl", "a.txt"])
@pytest.mark.parametrize(("suffix", "compress"), [(".bz2", bz2.compress), (".xz", lzma.compress)])
def test_other_compressions_of_the_standard_library(tmp_path, kind, suffix, compress):
    content = json_lines(ROWS) if kind == "a.jsonl" else b"one\ntwo"
    (tmp_path / f"{kind}{suffix}").write_bytes(compress(content))
    assert read(f"files:{tmp_path}/*") == (ROWS if kind == "a.jsonl" else ["one\ntwo"])
    (tmp_path / f"{kind}{suffix}").write_bytes(compress(content)[:-8])
    assert f"{kind}{suffix} can't be read" in mistake(f"files:{tmp_path}/*")
    (tmp_path / f"{kind}{suffix}").write_bytes(b"no such thing")
    assert f"{kind}{suffix} can't be read" in mistake(f"files:{tmp_path}/*")


def archive(files, mode="w"):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def zipped(files):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return made.getvalue()


INSIDE = {"a.txt": b"text of one", "b.txt": b"text of another"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tar", archive(INSIDE)),
        ("a.tar.gz", archive(INSIDE, "w:gz")),
        ("a.TGZ", archive(INSIDE, "w:gz")),
        ("a.tar.bz2", archive(INSIDE, "w:bz2")),
        ("a.tar.xz", archive(INSIDE, "w:xz")),
        ("a.tar.zst", zstandard.compress(archive(INSIDE))),
        ("a.zip", zipped(INSIDE)),
        ("a.csv", b"id,text\n1,one\n"),
        ("a.TSV.gz", gzip.compress(b"id\ttext\n1\tone\n")),
        ("a.rtf", b"{\\rtf1 text}"),
        ("a.pkl", b"(dp0\nVa\np1\nVb"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c and more"),
        ("a.arrow", b"ARROW1 and more"),
        ("a.feather", b"ARROW1 and more"),
        ("a.lz4", b"abc"),
        ("a.parquet.gz", gzip.compress(b"PAR1")),
        ("a.txt", archive(INSIDE)),  # under other names
        ("a.bz2", archive(INSIDE, "w:bz2")),
        ("a.xz", archive(INSIDE, "w:xz")),
        ("a.zst", zstandard.compress(archive(INSIDE))),
        ("a.gz", archive(INSIDE, "w:gz")),
        ("a.jsonl", gzip.compress(json_lines(ROWS))),
        ("a.txt.gz", gzip.compress(gzip.compress(b"text"))),
        ("noname", zipped(INSIDE)),
        ("data", b"PAR1 and more"),
        ("a.bin", b"text\0text"),
        ("a.bin", b"x" * 100_000 + b"\0"),
        ("a.txt", "text".encode("utf-16")),
    ],
)
def test_what_is_not_text_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert f"{name} can't be read" in mistake(f"files:{tmp_path}/*")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.zst", "a.txt.xz"])
def test_a_byte_order_mark_is_no_text(tmp_path, name):
    content = json_lines(["same"]) if "jsonl" in name else b"same"
    suffix = name[name.rindex(".") :] if name.endswith((".gz", ".zst")) else ""
    for number, mark in enumerate((b"", b"\xef\xbb\xbf")):
        packed = lzma.compress(mark + content) if name.endswith(".xz") else compressed(suffix, mark + content)
        (tmp_path / f"{number}{name}").write_bytes(packed)
    assert read(f"files:{tmp_path}/*") == ["same", "same"]


def test_a_byte_order_mark_in_a_row_or_a_table(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(["\ufeffsame", "same \ufeff"]))
    pd.DataFrame({"text": ["\ufeffsame"]}).to_parquet(tmp_path / "b.parquet")
    assert read(f"files:{tmp_path}/*") == ["same", "same \ufeff", "same"]


@pytest.mark.parametrize("log", [27, 28, 31])
def test_zstd_with_a_long_window(tmp_path, log, monkeypatch):
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=log)
    made = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(made, closefd=False) as writer:
        writer.write(json_lines(ROWS))
    (tmp_path / "a.jsonl.zst").write_bytes(made.getvalue() + zstandard.compress(json_lines(["more"])))
    assert read(f"files:{tmp_path}/*") == [*ROWS, "more"]
    monkeypatch.setitem(sys.modules, "zstandard", None)
    if log == 27:
        assert read(f"files:{tmp_path}/*") == [*ROWS, "more"]
    else:
        assert "a.jsonl.zst can't be read: it was made with zstd --long; pip install zstandard" in mistake(f"files:{tmp_path}/*")


def test_a_folder_with_brackets_in_its_name(tmp_path):
    folder = tmp_path / "g [1]"
    folder.mkdir()
    (folder / "a.txt").write_text("inside")
    assert read(f"files:{folder}/a.txt") == ["inside"]
    assert "write [ as [[], try files:" in mistake(f"files:{folder}/*.txt")
    assert read(f"files:{tmp_path}/g [[]1]/*.txt") == ["inside"]
    assert "[[]" not in mistake(f"files:{tmp_path}/h [1]/*.txt")


@pytest.mark.parametrize("pattern", ["/proc/**", "/proc/self/status", "/sys/kernel/*", "/dev/*"])
def test_files_of_the_kernel_are_refused_at_once(pattern):
    with pytest.raises(UserError, match=r"which is the kernel's and no text"):
        matching_files(pattern)


def test_so_are_more_files_than_anybody_has(text_folder, monkeypatch):
    monkeypatch.setattr("engram.corpus.file_text._MAX_FILES", 10)
    with pytest.raises(UserError, match="matches more than 10 files; put the text into fewer and larger ones"):
        matching_files(f"{text_folder}/*")
