"""From texts to exact token ids: the contract between the core and every backend.

User text is data. Queries, documents and instructions are encoded by a tokenizer that knows no
added token, so a document that contains `<|im_end|>` or `</think>` cannot close its own turn.
(`split_special_tokens` alone would not do: `<think>` and the tool tokens are added tokens that
are not "special".) Only the template's own strings are encoded with added tokens recognised.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from qwen3_rag import prompts
from qwen3_rag.errors import CheckpointError, PromptTooLongError
from qwen3_rag.file_versions import file_versions
from qwen3_rag.inputs import check_unicode
from qwen3_rag.prompts import EmbeddingWords, RerankingWords, break_added_tokens
from qwen3_rag.text_breaks import safe_break, splits_as_qwen
from qwen3_rag.tokenizer_files import TOKENIZER_FILES, read_tokenizer, without_added_tokens
from qwen3_rag.tokens import Prompt, Prompts, common_prefix

_TOKENIZERS_KEPT: Final = 4
"""Reading one takes about a second, and components of one model are often made by the handful."""

_RERANK_TOKENS: Final = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
"""Control tokens of the rerank template, each one token. Source: token ids of the published rerankers."""

CHARACTERS_PER_TOKEN: Final = 6
"""Characters of a long document that are encoded first, for each token that may be kept: more than a token has
on average. Encoding all of 250,000 characters, of which 8,192 tokens were kept, took 10.7 MB."""

_MORE_CHARACTERS: Final = 4
"""How many times as much of a document is encoded next, where that was too little."""


class PromptTokenizer:
    """Encodes embedding and rerank prompts to exact token ids.

    Args:
        tokenizer: the checkpoint's tokenizer. It is not changed; its padding, truncation and
            post-processing settings do not matter.
        parse_special_tokens: recognise added tokens inside user text, as the published snippets
            do. Leave it False for text that you did not write yourself.
        breaks_special_strings: put a space into strings of user text that read as added tokens, in the
            prompts' words too: for servers that get those words and know such tokens in them.

    Raises:
        CheckpointError: the tokenizer lacks `<|endoftext|>`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        parse_special_tokens: bool = False,
        breaks_special_strings: bool = False,
    ) -> None:
        if tokenizer.padding is not None or tokenizer.truncation is not None:
            tokenizer = Tokenizer.from_str(tokenizer.to_str())
            tokenizer.no_padding()
            tokenizer.no_truncation()
        self._template = tokenizer
        self._text = tokenizer if parse_special_tokens else without_added_tokens(tokenizer)
        self._can_break_off = not parse_special_tokens and splits_as_qwen(tokenizer)
        self._breaks = breaks_special_strings
        self.end_of_text = self._id_of(prompts.END_OF_TEXT)
        self._rerank_prefix = self._encode_template(prompts.RERANK_PREFIX)
        self._rerank_suffix = self._encode_template(prompts.RERANK_SUFFIX)

    @classmethod
    def from_folder(
        cls, folder: Path, *, parse_special_tokens: bool = False, breaks_special_strings: bool = False
    ) -> PromptTokenizer:
        """Return the tokenizer of a checkpoint folder; those read last are shared, unless files changed.

        Raises:
            CheckpointError: there is no readable `tokenizer.json`, nor `vocab.json` with `merges.txt`.
        """
        versions = file_versions(folder, TOKENIZER_FILES)
        return cls._read(folder, versions, parse_special_tokens, breaks_special_strings)

    @classmethod
    @lru_cache(maxsize=_TOKENIZERS_KEPT)
    def _read(
        cls, folder: Path, _versions: object, parse_special_tokens: bool, breaks_special_strings: bool
    ) -> PromptTokenizer:
        return cls(
            read_tokenizer(folder),
            parse_special_tokens=parse_special_tokens,
            breaks_special_strings=breaks_special_strings,
        )

    def check_reranking(self) -> None:
        """Raise CheckpointError unless the template becomes the tokens that rerankers were trained with."""
        for text in _RERANK_TOKENS:
            self._id_of(text)

    def answer_ids(self) -> tuple[int, int]:
        """Return the ids of the answers `yes` and `no`, each one token.

        Source: 9693 and 2152 in the published rerankers.
        """
        return self._id_of(prompts.YES), self._id_of(prompts.NO)

    def encode_texts(
        self, texts: Sequence[str], *, prompt: str, max_tokens: int, is_query: bool, first: int = 0
    ) -> Prompts:
        """Encode `prompt + text + <|endoftext|>` for each text.

        Args:
            texts: any strings, the empty one included.
            prompt: what stands before each text; never cut.
            max_tokens: most tokens of one prompt, the closing token included.
            is_query: queries are never cut; a document's tail may be, to fit.
            first: place of the first text in the caller's list.

        Raises:
            ValueError: a text holds a lone surrogate, which no UTF-8 text can.
            PromptTooLongError: the part that may not be cut exceeds `max_tokens`.
        """
        if self._breaks:
            texts, prompt = [break_added_tokens(text) for text in texts], break_added_tokens(prompt)
        room = max_tokens - 1
        (start,) = self._encode_batch([prompt], "prompt", [prompt], 0)
        if len(start) > room:
            raise _too_long("the instruction and template", len(start) + 1, max_tokens)
        if is_query:
            bodies = self._encode_batch([prompt + text for text in texts], "text", texts, first)
            for index, ids in enumerate(bodies, first):
                if len(ids) > room:
                    raise _too_long(f"text {index} with its instruction", len(ids) + 1, max_tokens)
            kept, truncated = texts, 0
        else:
            bodies, kept, truncated = self._encode_documents([prompt] * len(texts), texts, "text", room, first)
        words = [EmbeddingWords(prompt, text, is_query) for text in kept]
        made = _joined(
            before=[], bodies=bodies, after=[self.end_of_text], words=words, start=start, first=first
        )
        return Prompts(made, truncated)

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], *, instruction: str, max_tokens: int, first: int = 0
    ) -> Prompts:
        """Encode the rerank prompt of each (query, document) pair, cutting documents' tails only.

        Args:
            pairs: strings.
            instruction: the task sentence.
            max_tokens: most tokens of one whole prompt, templates included.
            first: place of the first pair in the caller's list.

        Raises:
            ValueError: as `encode_texts`.
            PromptTooLongError: template, instruction and query alone exceed `max_tokens`.
        """
        if self._breaks:
            pairs = [(break_added_tokens(query), break_added_tokens(document)) for query, document in pairs]
            instruction = break_added_tokens(instruction)
        before, after = self._rerank_prefix, self._rerank_suffix
        room = max_tokens - len(before) - len(after)
        heads = [prompts.rerank_head(instruction, query) for query, _ in pairs]
        self._check_queries(heads, pairs, room, max_tokens, first)
        documents = [document for _, document in pairs]
        bodies, kept, truncated = self._encode_documents(heads, documents, "document", room, first)
        words = [RerankingWords(instruction, query, text) for (query, _), text in zip(pairs, kept, strict=True)]
        (start,) = self._encode_batch([prompts.rerank_head(instruction, "")], "instruction", [instruction], 0)
        made = _joined(
            before=before,
            bodies=bodies,
            after=after,
            words=words,
            start=[*before, *start],
            first=first,
        )
        return Prompts(made, truncated)

    def _check_queries(
        self, heads: list[str], pairs: Sequence[tuple[str, str]], room: int, max_tokens: int, first: int
    ) -> None:
        """Raise PromptTooLongError unless each query leaves its head within the room."""
        checked: set[str] = set()
        for index, (head, (query, _)) in enumerate(zip(heads, pairs, strict=True), first):
            if query in checked:
                continue
            checked.add(query)
            # The space before the document may merge into the document's first token, so it is not part of
            # what must stay.
            (ids,) = self._encode_batch([head.rstrip(" ")], "query", [query], index)
            if len(ids) > room:
                needed = len(ids) + max_tokens - room
                raise _too_long(f"query {index} with instruction and template", needed, max_tokens)

    def _encode_documents(
        self, heads: list[str], documents: Sequence[str], name: str, room: int, first: int
    ) -> tuple[list[list[int]], list[str], int]:
        """Encode head and document each, and cut what the room does not hold.

        Returns:
            Token ids, what is kept of each document, and how many were cut.
        """
        # Of a long document no more is encoded than fills the room.
        characters = CHARACTERS_PER_TOKEN * (room + 1)
        given = [self._beginning(document, characters) for document in documents]
        joined = [head + document for head, document in zip(heads, given, strict=True)]
        encoded = self._encode_batch(joined, name, documents, first)
        kept, truncated = list(documents), 0
        for i, document in enumerate(documents):
            while len(encoded[i]) <= room and len(given[i]) < len(document):
                given[i] = self._beginning(document, _MORE_CHARACTERS * len(given[i]))
                (encoded[i],) = self._encode_batch([heads[i] + given[i]], name, [document], first + i)
            if len(encoded[i]) > room:
                kept[i] = self._kept_text(heads[i], document, encoded[i], room)
                encoded[i] = encoded[i][:room]
                truncated += 1
        return encoded, kept, truncated

    def _beginning(self, document: str, characters: int) -> str:
        """Return a document's first characters, at least so many, whose tokens are those of the whole."""
        if not self._can_break_off or len(document) <= characters:
            return document
        return document[: safe_break(document, characters)]

    def _kept_text(self, head: str, text: str, ids: list[int], tokens: int) -> str:
        """Return the longest start of `text` that the first `tokens` of `ids` cover, those of head and text."""
        if not tokens:
            return ""
        given = head + text
        offsets: list[tuple[int, int]] = []
        length = len(head) + CHARACTERS_PER_TOKEN * tokens
        while not offsets:  # encode as little as possible: offsets take three times as long as ids alone
            encoded = self._text.encode(given[:length], add_special_tokens=False)
            # Where a text is broken off, its last tokens may be others than in the whole.
            if length >= len(given) or encoded.ids[: tokens + 1] == ids[: tokens + 1]:
                offsets = encoded.offsets
            length *= _MORE_CHARACTERS
        # A character of several tokens may be cut in two: what is kept ends before it.
        end = min(offsets[tokens - 1][1], offsets[tokens][0])
        return text[: max(0, end - len(head))]

    def _encode_batch(self, texts: list[str], name: str, given: Sequence[str], first: int) -> list[list[int]]:
        """Encode texts.

        Args:
            texts: what is encoded.
            name: what an input is called, for errors.
            given: the inputs of the caller that went into `texts`.
            first: place of the first of them in the caller's list.

        Raises:
            ValueError: an input holds a lone surrogate.
        """
        try:
            return [e.ids for e in self._text.encode_batch_fast(texts, add_special_tokens=False)]
        except (TypeError, UnicodeEncodeError):
            for index, text in enumerate(given, first):
                check_unicode(text, f"{name} {index}")
            raise

    def _encode_template(self, text: str) -> list[int]:
        ids: list[int] = self._template.encode(text, add_special_tokens=False).ids
        return ids

    def _id_of(self, text: str) -> int:
        ids = self._encode_template(text)
        if len(ids) != 1:
            raise CheckpointError(
                f"the tokenizer encodes {text!r} as {len(ids)} tokens, but Qwen3 needs it to be one; "
                "this is not a Qwen3 tokenizer"
            )
        return ids[0]


def _joined(
    *,
    before: list[int],
    bodies: list[list[int]],
    after: list[int],
    words: Sequence[EmbeddingWords | RerankingWords],
    start: list[int],
    first: int,
) -> list[Prompt]:
    """Return prompts of ids before, body and after; `start` is what all have in common unless tokens merge."""
    common = np.array(start, dtype=np.int32)
    made: list[Prompt] = []
    for index, (ids, one) in enumerate(zip(bodies, words, strict=True), first):
        token_ids = np.array([*before, *ids, *after], dtype=np.int32)
        made.append(Prompt(token_ids, one, index, common_prefix(common, token_ids)))
    return made


def _too_long(what: str, tokens: int, max_tokens: int) -> PromptTooLongError:
    return PromptTooLongError(
        f"{what} needs {tokens} tokens, more than max_tokens={max_tokens}, and is never cut; "
        "shorten it or raise max_tokens (published models take 32768)"
    )
