"""Scored copies of nodes, which share nothing with the nodes that were given that their users may change."""

from __future__ import annotations

from typing import Any, Final

from llama_index.core.schema import MediaResource, NodeWithScore, RelatedNodeInfo

RETRIEVAL_SCORE: Final = "retrieval_score"
"""Metadata key of the score that a node had before, as the framework's other rerankers name it."""


def rescored(old: NodeWithScore, score: float, *, keep_retrieval_score: bool) -> NodeWithScore:
    """Return a copy with another score.

    Dicts, lists and sets inside the node are the copy's own, at any depth: metadata, lists of excluded keys,
    relationships, the embedding. Other objects, such as an `IndexNode`'s, are the same.

    Args:
        old: never changed.
        score: the new one.
        keep_retrieval_score: store the old one in the metadata, and exclude it from what models are shown.
    """
    fields = dict(vars(old.node))
    embedding = fields.pop("embedding")  # thousands of floats, which need no looking at
    own = {name: _own(value) for name, value in fields.items()}
    node = old.node.model_copy(update={**own, "embedding": None if embedding is None else list(embedding)})
    if keep_retrieval_score:
        node.metadata[RETRIEVAL_SCORE] = old.score
        for keys in (node.excluded_embed_metadata_keys, node.excluded_llm_metadata_keys):
            if RETRIEVAL_SCORE not in keys:
                keys.append(RETRIEVAL_SCORE)
    return old.model_copy(update={"node": node, "score": score})


def _own(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _own(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_own(part) for part in value]
    if isinstance(value, set):
        return set(value)
    if isinstance(value, RelatedNodeInfo | MediaResource):
        return value.model_copy(update={name: _own(part) for name, part in vars(value).items()})
    return value
