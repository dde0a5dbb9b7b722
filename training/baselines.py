"""BM25, to know how hard a search task is."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def bm25(
    queries: Sequence[str], passages: Sequence[str], *, k1: float = 1.2, b: float = 0.75
) -> NDArray[np.float32]:
    """Return Okapi BM25 scores over lower-case words, shape (queries, passages)."""
    documents = [Counter(_words(passage)) for passage in passages]
    lengths = np.array([sum(words.values()) for words in documents])
    relative = 1 - b + b * lengths / lengths.mean()
    holding = Counter(word for words in documents for word in words)
    number = {word: i for i, word in enumerate(holding)}
    rows, columns, values = [], [], []
    for row, words in enumerate(documents):
        for word, count in words.items():
            rarity = math.log(1 + (len(passages) - holding[word] + 0.5) / (holding[word] + 0.5))
            rows.append(row)
            columns.append(number[word])
            values.append(rarity * count * (k1 + 1) / (count + k1 * relative[row]))
    weights = sparse.csr_matrix((values, (rows, columns)), shape=(len(passages), len(number)))
    asked = sparse.lil_matrix((len(number), len(queries)))
    for column, query in enumerate(queries):
        for word in _words(query):
            if word in number:
                asked[number[word], column] += 1
    return np.asarray((weights @ asked.tocsr()).todense(), np.float32).T


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())
