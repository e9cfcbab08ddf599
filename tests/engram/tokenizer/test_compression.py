import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from engram.tokenizer.bpe import train_bpe
from engram.tokenizer.compression import canonical_ids, compress_vocabulary

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "engram_vectors.json").read_text())["compression"]


def test_ids_and_keys_of_the_public_module():
    ids, keys = canonical_ids(VECTORS["texts"], VECTORS["raw_tokens"])
    assert ids.dtype == np.int64
    assert ids.tolist() == VECTORS["canonical_ids"]
    assert keys == VECTORS["keys"]


@given(st.lists(st.text(max_size=6), max_size=30))
def test_ids_follow_the_keys_in_order_of_first_appearance(texts):
    ids, keys = canonical_ids(texts, [f"<{i}>" for i in range(len(texts))])
    firsts = list(dict.fromkeys(keys))
    assert [firsts[i] for i in ids] == keys


@given(st.lists(st.text("aAéÉbBﬁ中① \t\n", max_size=5), max_size=30))
def test_compressing_the_keys_again_changes_nothing(texts):
    ids, keys = canonical_ids(texts, [f"<{i}>" for i in range(len(texts))])
    again, same = canonical_ids(keys, [f"<{i}>" for i in range(len(texts))])
    # A text that folds to nothing keeps itself as key; among these letters that is the empty text only.
    assert same == keys
    assert again.tolist() == ids.tolist()


def test_a_trained_vocabulary_loses_case_and_leading_spaces_but_no_bytes():
    tokenizer = train_bpe(["The cat. the CAT! The Cat the cat "] * 50, 300)
    table = compress_vocabulary(tokenizer)
    ids = [tokenizer.encode(text).ids for text in ("The", "the", " the", " The")]
    assert all(len(i) == 1 for i in ids[1:])
    assert len({int(table[i[0]]) for i in ids if len(i) == 1}) == 1
    halves = [tokenizer.token_to_id(token) for token in ("Ã", "Â")]  # the first bytes of é and of a no-break space
    assert len({int(table[i]) for i in halves}) == 2
    assert sorted(set(table.tolist())) == list(range(table.max() + 1))


def test_gaps_in_the_vocabulary_share_an_id():
    table = compress_vocabulary(Tokenizer(models.WordLevel({"a": 0, "A": 4}, unk_token="a")))
    assert table.tolist() == [0, 1, 1, 1, 0]
