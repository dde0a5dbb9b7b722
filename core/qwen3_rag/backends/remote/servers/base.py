"""A server's dialect: pure functions from prompts to a request, and from its answer to values."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.backends.remote.options import RemoteOptions
from qwen3_rag.prompts import EmbeddingWords, RerankingWords
from qwen3_rag.tokens import Prompt

Values = NDArray[np.float32]
"""Embedding: shape (n, hidden_size). Reranking: log-odds, shape (n,)."""

_VERSION_AT_END: Final = re.compile(r"/v\d+$")


@dataclass(frozen=True)
class Request:
    """One request, and how its answer is read.

    Attributes:
        body: JSON to be posted.
        read_answer: from the answer's JSON to values, or to a further request that gives them. Raises
            `UnusableAnswerError` or `NotFiniteError` (see `answers`).
        tokens: size of a further request, which is about one of the first one's prompts.
    """

    body: dict[str, Any]
    read_answer: Callable[[Any], Values | Request]
    tokens: int | None = None


@dataclass(frozen=True)
class Dialect:
    """How one kind of server is asked for one kind of model.

    Attributes:
        endpoint: base URL -> URL that requests go to.
        request: prompts of one group -> the request for them.
        max_inputs: most prompts of a request, as such servers are configured by default.
        max_tokens: most tokens of a request, likewise.
        group: prompt -> its group; prompts of one request are of one group.
        check: raises PromptTooLongError or ConfigurationError for a prompt that cannot be sent, or that the
            server would not read, as it is. Called for each prompt of a run before anything is sent.
    """

    endpoint: Callable[[str], str]
    request: Callable[[Sequence[Prompt]], Request]
    max_inputs: int
    max_tokens: int
    group: Callable[[Prompt], Hashable] = lambda _: None
    check: Callable[[Prompt], None] = lambda _: None


@dataclass(frozen=True)
class Setup:
    """What every dialect needs to know.

    Attributes:
        options: the backend's options.
        model: the model's name at the server.
        hidden_size: length of a whole vector.
        count_tokens: text -> its number of tokens, by the local checkpoint's tokenizer.
    """

    options: RemoteOptions
    model: str
    hidden_size: int
    count_tokens: Callable[[str], int]


def joined(setup: Setup, path: str) -> Callable[[str], str]:
    """Return a function that makes endpoints of base URLs: base URL + the options' path, or root + `path`."""
    if setup.options.path is not None:
        given = setup.options.path
        return lambda base_url: base_url + given
    return lambda base_url: root(base_url) + path


def joined_to_version(setup: Setup, path: str, *, version: str) -> Callable[[str], str]:
    """Like `joined`, for APIs whose base URLs include the version, which is added to a bare host only."""
    if setup.options.path is not None:
        return joined(setup, path)
    return lambda base_url: versioned(base_url, version) + path


def root(base_url: str) -> str:
    """Return a base URL without a version (`.../v1`) at its end, which OpenAI's clients expect there."""
    return _VERSION_AT_END.sub("", base_url)


def versioned(base_url: str, version: str) -> str:
    """Return a base URL that includes a version: a bare host gets `version`; a path is taken to include one."""
    return base_url if urlsplit(base_url).path else f"{base_url}/{version}"


def query_group(prompt: Prompt) -> tuple[str, str]:
    """Return instruction and query of a rerank prompt: `Dialect.group` where a request holds one of each."""
    words = reranking_words(prompt)
    return words.instruction, words.query


def embedding_words(prompt: Prompt) -> EmbeddingWords:
    """Return the words of an embedding prompt."""
    assert isinstance(prompt.words, EmbeddingWords), "the core gives an embedding engine embedding prompts"
    return prompt.words


def reranking_words(prompt: Prompt) -> RerankingWords:
    """Return the words of a rerank prompt."""
    assert isinstance(prompt.words, RerankingWords), "the core gives a reranking engine rerank prompts"
    return prompt.words
