"""Hard negatives: passages that the embedder takes for the answer and that are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qwen3_rag import Embedder

from training.pairs import Pair, answers_of
from training.reranker import Candidates


def mine(
    embedder: Embedder, pairs: Sequence[Pair], *, negatives: int, depth: int = 20, seed: int = 0
) -> list[Candidates]:
    """Return every pair's query with its passage and wrong ones, drawn from the embedder's best.

    Args:
        embedder: the one whose results are to be reranked.
        pairs: their passages are what is searched. A query may have several: none is wrong for it.
        negatives: wrong passages of each pair.
        depth: they are drawn from this many nearest wrong ones.
        seed: of the draw.

    Raises:
        ValueError: there are too few passages that do not answer a query.
    """
    passages = list(dict.fromkeys(pair.passage for pair in pairs))
    number = {passage: i for i, passage in enumerate(passages)}
    right = {query: [number[answer] for answer in found] for query, found in answers_of(pairs).items()}
    most = max(map(len, right.values()))
    if negatives > len(passages) - most:
        raise ValueError(
            f"{negatives} negatives of each query need more distinct passages: got {len(passages)}, of which "
            f"up to {most} answer one query; give more pairs or ask for fewer negatives"
        )
    depth = max(depth, negatives)
    kept = min(depth + most, len(passages))
    documents = embedder.embed_documents(passages)
    queries = embedder.embed_queries([pair.query for pair in pairs])
    generator = np.random.default_rng(seed)
    mined = []
    for start in range(0, len(pairs), 256):
        similarities = queries[start : start + 256] @ documents.T
        some = np.argpartition(-similarities, kept - 1, axis=1)[:, :kept]
        order = np.argsort(-np.take_along_axis(similarities, some, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(some, order, axis=1)
        for pair, row in zip(pairs[start : start + 256], nearest, strict=True):
            wrong = row[~np.isin(row, right[pair.query])][:depth]
            drawn = generator.choice(wrong, negatives, replace=False)
            mined.append(Candidates(pair.query, (pair.passage, *(passages[i] for i in drawn))))
    return mined
