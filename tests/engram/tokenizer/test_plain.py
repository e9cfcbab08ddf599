import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from engram.errors import UserError
from engram.tokenizer.bpe import end_of_text_id, train_bpe
from engram.tokenizer.plain import plain_encodings, plain_ids

LETTERS = ["<", "/", "s", ">", "a", "b", "▁", "<unk>"]


def unigram(**options):
    tokenizer = Tokenizer(models.Unigram([("</s>", 0.0), *((letter, -2.0) for letter in LETTERS)], unk_id=8, **options))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return tokenizer


def bpe(special):
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(LETTERS)}, []))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_tokens([AddedToken("</s>", special=special), AddedToken("<other>")])
    return tokenizer


def merged():
    """A BPE whose merges lead to the end token."""
    vocab = {letter: i for i, letter in enumerate([*LETTERS, "</", "s>", "</s>"])}
    tokenizer = Tokenizer(models.BPE(vocab, [("<", "/"), ("s", ">"), ("</", "s>")]))
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def word_piece():
    vocab = ["[UNK]", "[SEP]", "a", "b", "[", "##S", "##E", "##P", "##]", "##b", "##a"]
    tokenizer = Tokenizer(models.WordPiece({one: i for i, one in enumerate(vocab)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece()
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "text"),
    [
        (unigram(), "a </s> b</s></s>"),
        (bpe(special=False), "a</s>b</s></s>"),
        (bpe(special=True), "a</s>b</s></s>"),
        (merged(), "a</s>b</s></s>"),
        (word_piece(), "a [SEP] b [SEP]"),
        (train_bpe(["a few words"], 260), "a<|endoftext|>b<|endoftext|><|endoftext|>"),
    ],
    ids=["unigram", "added as text", "special", "merges", "word piece", "our own"],
)
def test_the_end_token_spelled_out_is_text_and_comes_back(tokenizer, text):
    end = end_of_text_id(tokenizer)
    texts = ["a", text, "b", text]
    ids = plain_ids(tokenizer, texts)
    assert [encoding.ids for encoding in plain_encodings(tokenizer, texts)] == ids
    assert not any(end in one for one in ids)
    assert tokenizer.decode(ids[1], skip_special_tokens=False) == text
    assert ids[0::2] == [encoding.ids for encoding in tokenizer.encode_batch(["a", "b"], add_special_tokens=False)]
    spans = plain_encodings(tokenizer, [text])[0].offsets
    assert spans[-1][1] == len(text)
    assert sorted(spans) == spans


def test_right_tokenizers_encode_as_ever():
    texts = ["a few words", "<|endoftext|>", "", "é\n\n a"]
    tokenizer = train_bpe(["a few words"], 260)
    tokenizer.encode_special_tokens = True
    assert plain_ids(tokenizer, texts) == [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def word_level(vocabulary, unknown):
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "why"),
    [
        (word_level({"</s>": 0, "report": 1}, "<unk>"), "can't encode this text: WordLevel error: Missing"),
        (word_level({"</s>": 0, "report": 1}, "</s>"), "turns text into its end-of-document token </s>"),
        (Tokenizer(models.Unigram([("</s>", 0.0), ("a", -1.0)])), "can't encode this text"),
        (Tokenizer(models.BPE({"</s>": 0, "a": 1}, [], unk_token="<unk>")), "can't encode this text"),
    ],
)
def test_what_can_not_be_encoded_is_one_line(tokenizer, why):
    with pytest.raises(UserError, match=why) as caught:
        plain_ids(tokenizer, ["report of a"])
    assert "\n" not in str(caught.value)
