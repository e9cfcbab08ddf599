"""What a tokenizer loses of a text: tokens that stand for anything unknown, and texts that do not come back."""

import json
from collections.abc import Sequence

from tokenizers import Tokenizer


class Losses:
    """Counts them over texts and their tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        model = json.loads(tokenizer.to_str())["model"]
        self.token: str | None = model.get("unk_token")
        """The token for what is unknown; None if there is none."""
        self._id = tokenizer.token_to_id(self.token) if self.token is not None else model.get("unk_id")
        if self._id is not None:
            self.token = tokenizer.id_to_token(self._id)
        self.unknown = 0
        """Tokens that stand for something unknown."""
        self.changed = 0
        """Texts that do not decode back to what they were."""

    def add(self, texts: Sequence[str], encoded: Sequence[list[int]]) -> None:
        """Count those of some texts and their token ids."""
        if self._id is not None:
            self.unknown += sum(ids.count(self._id) for ids in encoded)
        back = self._tokenizer.decode_batch(list(encoded), skip_special_tokens=False)
        self.changed += sum(text != one for text, one in zip(texts, back, strict=True))
