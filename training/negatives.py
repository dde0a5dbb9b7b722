"""Hard negatives: passages that the embedder takes for the answer and that are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qwen3_rag import Embedder

from training.pairs import Pair
from training.reranker import Candidates


def mine(
    embedder: Embedder, pairs: Sequence[Pair], *, negatives: int, depth: int = 20, seed: int = 0
) -> list[Candidates]:
    """Return every query with its passage and wrong ones, drawn from the embedder's best.

    Args:
        embedder: the one whose results are to be reranked.
        pairs: their passages are what is searched.
        negatives: wrong passages of each query.
        depth: they are drawn from this many nearest ones.
        seed: of the draw.

    Raises:
        ValueError: there are too few distinct passages.
    """
    passages = list(dict.fromkeys(pair.passage for pair in pairs))
    depth = min(depth, len(passages) - 1)
    if negatives > depth:
        raise ValueError(
            f"{negatives} negatives of each query need more distinct passages, got {len(passages)}"
        )
    number = {passage: i for i, passage in enumerate(passages)}
    documents = embedder.embed_documents(passages)
    queries = embedder.embed_queries([pair.query for pair in pairs])
    generator = np.random.default_rng(seed)
    mined = []
    for start in range(0, len(pairs), 256):
        similarities = queries[start : start + 256] @ documents.T
        nearest = np.argpartition(-similarities, depth, axis=1)[:, : depth + 1]
        for pair, row in zip(pairs[start : start + 256], nearest, strict=True):
            wrong = row[row != number[pair.passage]]
            drawn = generator.choice(wrong, negatives, replace=False)
            mined.append(Candidates(pair.query, (pair.passage, *(passages[i] for i in drawn))))
    return mined
