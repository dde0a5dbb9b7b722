"""Texts for an adapter, and nodes that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llama_index.core.schema import BaseNode, NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

QUERY: Final = "How far is the moon?"
TEXTS: Final = [
    "The moon is 384,400 km away.",
    "Bread is baked at 230 degrees.",
    "  Leading spaces,\nnewlines\n\nand\ttabs are text too.",
    "月は地球の衛星である。",
    "A tide follows the moon.",
]


def nodes() -> list[NodeWithScore]:
    """Return one node per text of `TEXTS`, made anew, with all that a node may hold and a retrieval score."""
    return [NodeWithScore(node=_node(i, text), score=i / 10) for i, text in enumerate(TEXTS)]


def _node(number: int, text: str) -> TextNode:
    source = RelatedNodeInfo(node_id=f"document-{number}", metadata={"kinds": ["text"]})
    return TextNode(
        id_=f"node-{number}",
        text=text,
        embedding=[float(number), 1.0],
        metadata={"page": number, "places": [{"line": number}]},
        excluded_embed_metadata_keys=["places"],
        excluded_llm_metadata_keys=["places"],
        relationships={NodeRelationship.SOURCE: source},
    )


def write_into(node: BaseNode) -> None:
    """Change everything inside a node that can be changed, as its owner may."""
    node.metadata["written by"] = "the caller"
    node.metadata["places"][0]["line"] = -1
    node.metadata["places"].append("more")
    node.excluded_embed_metadata_keys.append("page")
    node.excluded_llm_metadata_keys.append("page")
    source = node.relationships.pop(NodeRelationship.SOURCE)
    assert isinstance(source, RelatedNodeInfo)
    source.metadata["kinds"].append("picture")
    source.node_id = "another"
    assert node.embedding is not None
    node.embedding[0] = -1.0


def scores_by_id(results: Sequence[NodeWithScore]) -> dict[str, float | None]:
    """Return each node's score by its id."""
    return {result.node_id: result.score for result in results}
